//! Blocks that match their CID and are no blocks all the same: rows 7, 9, 13, 14 and 15.

use cid::Cid;
use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    dag::{Block, Codec, FeedName},
    types::{FollowRequest, GcRequest, SyncRequest},
};
use dagmesh_announce::{Announcement, Answer as Verdict};
use dagmesh_core::limits;
use dagmesh_tests::{
    hostile::{
        Hostile, ask,
        dag::{self, Feed, block, cid_bytes, entry_with, leaf, link},
        script::{Step, framed, refused},
    },
    peer::Peer,
};

use crate::scene::{Scene, failed};

const RAW: u64 = Codec::Raw as u64;
const SHA2_256: u64 = 0x12;
const IDENTITY: u64 = 0;

/// What is published, and why it is refused.
struct Case {
    what: &'static str,
    /// What the one entry of the feed links to, or the entry itself.
    content: Result<Block, Block>,
    why: &'static str,
}

/// Publishes each case in a feed of its own; each follow fails for good and says why, nothing of it counts or is kept.
async fn are_refused(cases: Vec<Case>) {
    let (hostile, follower) = tokio::join!(Hostile::start(), Peer::start());
    let mut heads = Vec::new();
    let store = Feed::new(hostile.key());
    for (n, case) in cases.iter().enumerate() {
        let mut feed = store.beside(FeedName::new(&format!("{n}")).expect("a name"));
        heads.push(match &case.content {
            Ok(content) => feed.publish_dag(std::slice::from_ref(content)),
            Err(entry) => feed.publish_block(entry),
        });
    }
    // A feed beside them that is as it should be.
    let mut right = store.beside(FeedName::default());
    heads.push(right.publish_text("right"));
    hostile.serve(&store.store());
    hostile.tell(&heads.iter().collect::<Vec<_>>());
    for head in &heads {
        let request = FollowRequest::new(hostile.target_of(head.feed()));
        follower.follow(request, ProgressSink::none()).await.expect("followed");
    }
    for (case, head) in cases.iter().zip(&heads) {
        let follow = failed(&follower, hostile.peer_id(), head.feed()).await;
        let reason = follow.reason.unwrap_or_default();
        assert!(reason.contains(case.why), "{}: {:?} expected in {reason:?}", case.what, case.why);
        assert_eq!(follow.latest, None, "{}", case.what);
        let (Ok(block) | Err(block)) = &case.content;
        assert!(!follower.holds(block.cid()), "{} is not kept", case.what);
    }
    follower.in_sync_at(hostile.peer_id(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_07_non_canonical_cbor_and_bad_keys_are_rejected() {
    let nan = [&[0xfb][..], &f64::NAN.to_be_bytes()].concat();
    let cases: [(&str, &[u8]); 14] = [
        ("an indefinite list", &[0x9f, 0x00, 0xff]),
        ("an integer that could be shorter", &[0x18, 0x17]),
        ("a length that could be shorter", &[0x59, 0x00, 0x01, 0x61]),
        ("a key twice", b"\xa2\x61a\x00\x61a\x00"),
        ("keys out of order", b"\xa2\x61b\x00\x61a\x00"),
        ("a longer key first", b"\xa2\x62aa\x00\x61b\x00"),
        ("a key that is no text", &[0xa1, 0x00, 0x00]),
        ("another tag than 42", &[0xc1, 0x00]),
        ("a link that is no bytes", &[0xd8, 0x2a, 0x00]),
        ("undefined", &[0xf7]),
        ("a short float", &[0xf9, 0x00, 0x00]),
        ("a float that is no number", &nan),
        ("text that is no UTF-8", &[0x61, 0xff]),
        ("something behind the item", &[0x00, 0x00]),
    ];
    let why = "not canonical DAG-CBOR";
    let mut all = Vec::new();
    for (what, bytes) in cases {
        let content = Ok(block(Codec::DagCbor, bytes.to_vec()));
        all.push(Case { what, content, why: if what.starts_with("a link") { "" } else { why } });
    }
    // The same inside an entry.
    let one = dag::head(0, 1);
    let content = link(&leaf("right").cid().to_bytes());
    let fields = [("seq", one.clone()), ("content", content), ("time", one)];
    let unordered = dag::map(&fields.map(|(key, value)| (dag::text(key), value)));
    all.push(Case { what: "an entry", content: Err(block(Codec::DagCbor, unordered)), why });
    are_refused(all).await;

    // And as messages.
    let (hostile, node) = tokio::join!(Hostile::start(), Peer::start());
    hostile.connect_to(&node).await;
    for (what, bytes) in cases {
        let answer = ask::ask(&hostile, node.peer_id(), bytes).await;
        assert_eq!(ask::end_of(&answer).status, dagmesh::dagsync::Status::Refused, "{what}");
        let answer = hostile.announce(node.peer_id(), bytes).await;
        assert!(matches!(answer, Some(Verdict::Refused(_))), "{what}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_09_a_dag_with_two_to_the_200_paths_is_walked_once() {
    let (hostile, mirror, follower) = tokio::join!(Hostile::start(), Peer::start(), Peer::start());
    let blocks = dag::diamonds(200);
    let mut feed = Feed::new(hostile.key());
    feed.publish_dag(&blocks);
    // The entry after it differs in one leaf, so that the two trees are walked side by side.
    let other = dag::diamonds_over(200, [leaf("left"), leaf("another right")]);
    let head = feed.publish_dag(&other);
    hostile.serve(&feed.store());
    hostile.tell(&[&head]);
    let mut events = mirror.events().await;
    mirror.follow_wait(FollowRequest::new(hostile.target())).await;
    let (count, moved, ..) = events.finished(*head.head()).await;
    let distinct = (2 + blocks.len() + other.len() - 1) as u64;
    assert_eq!((count, moved), (2, distinct), "each block once, the left leaf is shared");

    // Served by a node of ours, whose walk is the same.
    hostile.answer(|_| refused("not here"));
    let addr = mirror.tcp_addr().await;
    follower.connect(dagmesh::types::ConnectRequest { addr }).await.expect("connected");
    let mut events = follower.events().await;
    follower.follow_wait(FollowRequest::new(hostile.target())).await;
    let (_, moved, ..) = events.finished(*head.head()).await;
    assert_eq!(moved, distinct);
    // What walks the store alone ends as well.
    let report = follower.gc(GcRequest { dry_run: true }, ProgressSink::none()).await.expect("counted");
    assert_eq!(report.removed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_13_inline_content_over_the_cap_is_rejected() {
    let inline = |len: usize| link(&cid_bytes(RAW, IDENTITY, &vec![7; len]));
    let list = |item: Vec<u8>| block(Codec::DagCbor, [dag::head(4, 1), item].concat());
    let why = "no usable CID";
    are_refused(vec![
        Case { what: "129 bytes", content: Ok(list(inline(129))), why },
        Case { what: "one byte over the cap", content: Ok(list(inline(limits::MAX_IDENTITY_BYTES + 1))), why },
        Case { what: "an entry's content", content: Err(entry_with(&inline(129))), why },
    ])
    .await;
    // At the cap it is content like any other, and travels inside its CID.
    let (hostile, follower) = tokio::join!(Hostile::start(), Peer::start());
    let mut feed = Feed::new(hostile.key());
    let content = dag::inline(&[7; limits::MAX_IDENTITY_BYTES]);
    let head = feed.publish_dag(&[list(inline(limits::MAX_IDENTITY_BYTES))]);
    hostile.serve(&feed.store());
    hostile.tell(&[&head]);
    let mut events = follower.events().await;
    follower.follow_wait(FollowRequest::new(hostile.target())).await;
    assert_eq!(events.finished(*head.head()).await.1, 2, "the entry and its content");
    assert_eq!(follower.blockstore().block(content.cid()).expect("a look into the store"), Some(content));
}

/// CIDs whose hash proves too little, or that we do not know, each with bytes that it may even be the hash of.
fn weak() -> [(&'static str, Cid); 5] {
    [
        ("SHA-1", dag::cid(0x11, &[1; 20])),
        ("MD5", dag::cid(0xd5, &[1; 16])),
        ("SHA2-256 cut to 16 bytes", dag::cid(SHA2_256, &[1; 16])),
        ("SHA2-256 cut to 20 bytes", dag::cid(SHA2_256, &[1; 20])),
        ("a hash that nobody knows", dag::cid(0x7777, &[1; 32])),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_14_weak_unknown_and_cut_hashes_are_rejected() {
    let cases = weak().map(|(what, cid)| {
        let why = if what.contains("cut") { "where the hash gives" } else { "is none of" };
        Case { what, content: Ok(Block::trusted(cid, b"anything".to_vec().into())), why }
    });
    are_refused(cases.into()).await;

    // In a head, and in a request.
    let (hostile, node) = tokio::join!(Hostile::start(), Peer::start());
    hostile.connect_to(&node).await;
    let feed = Feed::new(hostile.key());
    let honest = dag::leaf("honest");
    let message = Announcement::new(&feed.sign(*honest.cid(), 1), [hostile.addr()]).encode().expect("an announcement");
    for (what, cid) in weak() {
        // Nobody's code signs such a head: it is put in afterwards, at each place.
        let message = dag::with_link(&message, honest.cid(), &cid);
        let answer = hostile.announce(node.peer_id(), &message).await;
        assert!(matches!(answer, Some(Verdict::Refused(_))), "{what}: {answer:?}");
        let answer = ask::ask(&hostile, node.peer_id(), &ask::Loose::all(&cid).encode()).await;
        match what {
            // Chains of the IPNI network are served by such names; whether one proves a block is for who asks.
            "SHA2-256 cut to 16 bytes" => {
                let end = ask::end_of(&answer);
                assert_eq!((end.status, end.blocks), (dagmesh::dagsync::Status::Missing, 0), "{what}: {answer:?}");
            }
            _ => ask::assert_refused(&answer, if what.contains("cut") { "where the hash gives" } else { "is none of" }),
        }
    }
}

/// CIDs that overflow, by their bytes.
fn overlong() -> [(&'static str, Vec<u8>); 5] {
    let endless = [&[1, 0x55, 0x12][..], &[0xff; 12]].concat();
    [
        ("a digest of 200 bytes", cid_bytes(RAW, SHA2_256, &[1; 200])),
        ("a digest over the largest", cid_bytes(RAW, 0x13, &[1; 65])),
        ("a varint without end", endless),
        ("a varint that overflows to raw", [&[1, 0xd5], &[0x80; 8][..], &[2, 0x12, 0x20], &[1; 32]].concat()),
        ("a varint longer than it must be", [&[1, 0xd5, 0x00, 0x12, 0x20][..], &[1; 32]].concat()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_15_cids_that_overflow_are_rejected_in_blocks() {
    let mut cases = Vec::new();
    for (what, cid) in overlong() {
        let content = block(Codec::DagCbor, [dag::head(4, 1), link(&cid)].concat());
        cases.push(Case { what, content: Ok(content), why: "" });
    }
    are_refused(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_13_to_15_a_frame_with_a_cid_that_is_none_drops_the_peer() {
    let mut scene = Scene::start().await;
    let mut cids = overlong().map(|(_, cid)| cid).to_vec();
    cids.push(cid_bytes(RAW, IDENTITY, &[7; 129]));
    let (follower, _) = scene.victim().await;
    for cid in cids {
        scene.answer(move |_| Box::new([framed(&[&[1], &cid, b"data"]), Step::Silence].into_iter()));
        let sync = follower.sync(SyncRequest::new(scene.hostile.target()), ProgressSink::none()).await;
        let error = sync.expect_err("a frame that holds no CID");
        assert!(error.kind == ErrorKind::Verification && error.to_string().contains("bad frame"), "{error}");
    }
    scene.is_dropped_and_replaced("bad frame").await;
}
