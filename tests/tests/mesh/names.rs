//! Heads by name: a feed is followed by a name in the DHT, also where nobody announces its head and its publisher is away.

use std::path::PathBuf;

use cid::Cid;
use dagmesh::{
    Api, ErrorKind, NodeError,
    api::ProgressSink,
    dag::{FeedName, SignedHead},
    store::Store,
    ticket::Target,
    types::{
        AnnounceRequest, ConnectRequest, Content, Follow, FollowRequest, KeyImportRequest, KeyName, NamePublish,
        PrivateKey, PublishRequest, Published, RecordPut, UnfollowRequest,
    },
};
use dagmesh_tests::{assert_same_folder, edit_files, make_folder, wait_for, wait_for_some};
use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey},
};

use crate::support::{Peer, PeerOptions, SOON, assert_fails, assert_sound, daemon, in_sync_at, str_of, text};

/// An Ed25519 key stands in its own id.
fn key_of(peer: PeerId) -> PublicKey {
    PublicKey::try_decode_protobuf(peer.as_ref().digest()).expect("a key in its own id")
}

fn by_name(name: &str) -> FollowRequest {
    FollowRequest::new(format!("/ipns/{name}").parse().expect("a name"))
}

/// For one that goes: at a closed port of TCP it is seen at once that nobody is there.
fn tcp() -> PeerOptions {
    PeerOptions { tcp_only: true, ..PeerOptions::default() }
}

/// A node that knows `hub`, and is in its DHT.
async fn joined(hub: &Peer, options: PeerOptions) -> Peer {
    let peer = Peer::with(options).await;
    join(&peer, hub).await;
    peer
}

async fn join(peer: &Peer, hub: &Peer) {
    peer.connect(ConnectRequest { addr: hub.tcp_addr().await }).await.expect("connects");
}

/// Publishes a text that nobody is told of, under a name of the node's own key where that is wanted.
async fn publish(peer: &Peer, content: &str, named: bool) -> Published {
    let path = peer.write("published", content);
    let name = named.then(KeyName::own);
    let request = PublishRequest { no_announce: true, name, ..PublishRequest::new(Content::Path(path)) };
    peer.publish(request, ProgressSink::none()).await.expect("publishes")
}

/// Gives the default feed the name of a key that is imported for it.
async fn name_feed(peer: &Peer, head: Cid, key: &Keypair) -> String {
    let name = KeyName::new("shared").expect("a name of a key");
    let key = PrivateKey(key.to_protobuf_encoding().expect("encodes"));
    peer.key_import(KeyImportRequest { name: name.clone(), key }).await.expect("imports");
    let request = AnnounceRequest { name: Some(name), ..AnnounceRequest::new(head) };
    peer.announce(request).await.expect("announces").name.expect("a name")
}

/// Waits until `holder` itself holds the head of a feed under a key, and the name that points there where it is to be `ipns`.
async fn stands(holder: &Peer, key: &PublicKey, head: Cid, ipns: bool) {
    let (owner, entry) = (key.to_peer_id(), if ipns { format!("/ipfs/{head}").into_bytes() } else { head.to_bytes() });
    wait_for(SOON, "a record at another node", async || {
        let held = holder.records().list(false).into_iter().filter(|held| held.owner == owner && held.ipns == ipns);
        held.into_iter().any(|held| held.bytes.windows(entry.len()).any(|part| part == entry))
    })
    .await;
}

/// Follows by a name, as soon as the DHT leads there.
async fn follow(peer: &Peer, request: FollowRequest) -> Follow {
    wait_for_some(SOON, "a name that can be followed", async || {
        let followed = peer.follow(request.clone(), ProgressSink::none()).await;
        followed.inspect_err(|error| println!("{error}")).ok()
    })
    .await
}

/// Waits until the newest head that is known of a feed has this number.
async fn knows(peer: &Peer, publisher: PeerId, seq: u64) {
    wait_for_some(SOON, "a head", async || {
        let follow = peer.standing(publisher).await?;
        (follow.announced_seq == Some(seq)).then_some(())
    })
    .await;
}

async fn refused(peer: &Peer, request: FollowRequest) -> NodeError {
    peer.follow(request, ProgressSink::none()).await.expect_err("is refused")
}

#[tokio::test]
async fn a_newcomer_follows_the_name_of_a_publisher_that_is_gone_from_a_mirror_and_after_a_restart_still() {
    let hub = Peer::start().await;
    let at_hub = hub.tcp_addr().await.to_string();
    let join = ["--bootstrap", at_hub.as_str()];
    let (mut publisher, mirror) = tokio::join!(daemon(&join), daemon(&join));
    let folder = tempfile::tempdir().expect("a folder");
    let (source, copy): (PathBuf, PathBuf) = (folder.path().join("source"), folder.path().join("copy"));
    make_folder(&source, 20, 1 << 20, 7);
    let published = publisher.json(&["publish", text(&source), "--hidden", "--name"]).await;
    let name = format!("/ipns/{}", str_of(&published, "name"));
    wait_for_some(SOON, "a name that can be followed", async || {
        (mirror.run(&["follow", &name]).await.code == Some(0)).then_some(())
    })
    .await;
    in_sync_at(&mirror, 1).await;
    // Moved without being told to.
    edit_files(&source, 5, 3);
    let published = publisher.json(&["publish", text(&source), "--hidden"]).await;
    let head: Cid = str_of(&published, "head").parse().expect("a CID");
    in_sync_at(&mirror, 2).await;
    let id: PeerId = publisher.peer_id().parse().expect("a peer id");
    stands(&hub, &key_of(id), head, false).await;
    publisher.kill9().await;

    let mut newcomer = daemon(&join).await;
    let followed = newcomer.json(&["follow", &name]).await;
    assert_eq!((str_of(&followed, "publisher"), str_of(&followed, "feed")), (publisher.peer_id(), "main"));
    let follow = in_sync_at(&newcomer, 2).await;
    assert_eq!(str_of(&follow, "latest"), head.to_string());
    newcomer.json(&["get", str_of(&published, "content"), "-o", text(&copy)]).await;
    assert_same_folder(&source, &copy);
    assert_sound(&newcomer).await;

    newcomer.stop().await;
    newcomer.restart().await;
    let follow = in_sync_at(&newcomer, 2).await;
    assert_eq!(format!("/ipns/{}", str_of(&follow, "name")), name);
    for (garbage, code, word) in [("/ipns/garbage", 2, "is no IPNS name"), ("/ipns/", 2, "is no IPNS name")] {
        assert_fails(&newcomer.run(&["follow", garbage]).await, code, &[word]);
    }
    newcomer.json(&["unfollow", &name]).await;
    assert_eq!(newcomer.json(&["follows"]).await, serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_moves_is_heard_over_gossip_though_nobody_announces_it() {
    let hub = Peer::start().await;
    let publisher = joined(&hub, PeerOptions::default()).await;
    let follower = joined(&hub, PeerOptions::default()).await;
    let first = publish(&publisher, "1", true).await;
    let name = first.name.expect("a name");
    follow(&follower, by_name(&name)).await;
    follower.in_sync_at(publisher.peer_id(), 1).await;
    // The publisher itself is asked every five minutes alone.
    for seq in 2..4 {
        publish(&publisher, &seq.to_string(), false).await;
        follower.in_sync_at(publisher.peer_id(), seq).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_asked_again_after_a_restart_over_the_dht_alone() {
    let hub = Peer::start().await;
    let off = || PeerOptions { no_pubsub: true, ..tcp() };
    let publisher = joined(&hub, off()).await;
    let follower = joined(&hub, off()).await;
    let first = publish(&publisher, "1", true).await;
    let name = first.name.expect("a name");
    follow(&follower, by_name(&name)).await;
    follower.in_sync_at(publisher.peer_id(), 1).await;
    follower.shutdown().await.expect("stops");
    let second = publish(&publisher, "2", false).await;
    stands(&hub, &key_of(publisher.peer_id()), second.head, false).await;
    publisher.shutdown().await.expect("stops");
    let home = follower.into_home();
    let store = home.path().join("store");
    wait_for(SOON, "a home that nobody uses", async || Store::open(&store).is_ok()).await;
    let follower = joined(&hub, PeerOptions { home: Some(home), ..off() }).await;
    knows(&follower, publisher.peer_id(), 2).await;
    let standing = follower.standing(publisher.peer_id()).await.expect("is followed");
    assert_eq!((standing.name, standing.latest_seq), (Some(name), Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_by_peer_id_finds_the_head_in_the_dht_when_the_publisher_is_gone_and_nobody_announced_it() {
    let hub = Peer::start().await;
    let publisher = joined(&hub, tcp()).await;
    let head = publish(&publisher, "1", true).await.head;
    stands(&hub, &key_of(publisher.peer_id()), head, false).await;
    publisher.shutdown().await.expect("stops");
    let follower = joined(&hub, PeerOptions::default()).await;
    let request = FollowRequest::new(Target::Peer(publisher.peer_id()));
    follower.follow(request, ProgressSink::none()).await.expect("follows");
    knows(&follower, publisher.peer_id(), 1).await;
    let standing = follower.standing(publisher.peer_id()).await.expect("is followed");
    assert_eq!((standing.announced, standing.name), (Some(head), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_of_a_name_gives_it_to_another_publisher() {
    let hub = Peer::start().await;
    let (one, other) = tokio::join!(joined(&hub, PeerOptions::default()), joined(&hub, PeerOptions::default()));
    let follower = joined(&hub, PeerOptions::default()).await;
    let key = Keypair::generate_ed25519();
    let first = publish(&one, "of one", false).await;
    let name = name_feed(&one, first.head, &key).await;
    stands(&hub, &key.public(), first.head, false).await;
    let followed = follow(&follower, by_name(&name)).await;
    assert_eq!((followed.publisher, followed.name.as_deref()), (one.peer_id(), Some(name.as_str())));
    follower.in_sync_at(one.peer_id(), 1).await;

    let second = publish(&other, "of the other", false).await;
    assert_eq!(name_feed(&other, second.head, &key).await, name);
    stands(&hub, &key.public(), second.head, false).await;
    let standing = follower.in_sync_at(other.peer_id(), 1).await;
    assert_eq!((standing.latest, standing.name), (Some(second.head), Some(name.clone())));
    wait_for_some(SOON, "an end of the old follow", async || {
        follower.standing(one.peer_id()).await.is_none().then_some(())
    })
    .await;
    let target = format!("/ipns/{name}").parse().expect("a name");
    let unfollowed = follower.unfollow(UnfollowRequest { target, feed: None }).await.expect("is followed");
    assert_eq!(unfollowed.publisher, other.peer_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ipns_record_alone_leads_to_the_head_that_those_who_hold_it_prove() {
    let hub = Peer::start().await;
    let publisher = joined(&hub, tcp()).await;
    let mirror = joined(&hub, PeerOptions::default()).await;
    let head = publish(&publisher, "1", false).await.head;
    mirror.follow_wait(FollowRequest::new(publisher.target().await)).await;
    // As Kubo would publish it.
    let publish_name = async || publisher.records().publish_name(NamePublish::new(format!("/ipfs/{head}"))).await.ok();
    wait_for_some(SOON, "holders", publish_name).await;
    let name = publisher.peer_id().to_string();
    stands(&hub, &key_of(publisher.peer_id()), head, true).await;
    publisher.shutdown().await.expect("stops");
    let newcomer = joined(&hub, PeerOptions::default()).await;
    follow(&newcomer, by_name(&name)).await;
    let standing = newcomer.in_sync_at(publisher.peer_id(), 1).await;
    assert_eq!(standing.latest, Some(head));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_feed_is_not_followed_and_the_error_says_why() {
    let hub = Peer::start().await;
    let owner = joined(&hub, PeerOptions::default()).await;
    let follower = joined(&hub, PeerOptions::default()).await;
    let id = owner.peer_id();
    let nothing = refused(&follower, by_name(&id.to_string())).await;
    assert_eq!(nothing.kind, ErrorKind::NotFound, "{nothing}");

    let file = publish(&owner, "a file, and no entry", false).await.content;
    // The entry that carries it is known; what it carries is none.
    for value in [format!("/ipfs/{file}"), format!("/ipfs/{file}/in/a/folder"), "/ipns/example.org".to_owned()] {
        wait_for_some(SOON, "holders", async || {
            owner.records().publish_name(NamePublish::new(value.clone())).await.ok()
        })
        .await;
        let name = FeedName::new("other").expect("a name");
        let request = FollowRequest { feed: Some(name), ..by_name(&id.to_string()) };
        let error = refused(&follower, request).await;
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(&format!("points at {value}")), "{error}");
    }

    let other: FeedName = FeedName::new("other").expect("a name");
    let foreign = SignedHead::sign(&Keypair::generate_ed25519(), &other, file, 1, 1).expect("signs");
    for garbage in [&b"garbage"[..], foreign.encode()] {
        wait_for_some(SOON, "holders", async || owner.records().put(RecordPut::new("head/main", garbage)).await.ok())
            .await;
        let error = refused(&follower, by_name(&id.to_string())).await;
        assert_eq!(error.kind, ErrorKind::Verification, "{error}");
        assert!(error.to_string().contains("is no head"), "{error}");
    }
    assert_eq!(follower.follows().await.expect("lists"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_head_by_name_moves_nothing_back() {
    let hub = Peer::start().await;
    let key = Keypair::generate_ed25519();
    let publisher = joined(&hub, PeerOptions { key: Some(key.clone()), ..PeerOptions::default() }).await;
    let (follower, owner) = tokio::join!(joined(&hub, PeerOptions::default()), joined(&hub, PeerOptions::default()));
    let old = publish(&publisher, "1", false).await;
    publish(&publisher, "2", false).await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    // What was true once, under a name whose owner moves it backwards.
    let head = SignedHead::sign(&key, &FeedName::default(), old.head, 1, 1).expect("signs");
    wait_for_some(SOON, "holders", async || owner.records().put(RecordPut::new("head/main", head.encode())).await.ok())
        .await;
    let mut events = follower.events().await;
    let followed = follow(&follower, by_name(&owner.peer_id().to_string())).await;
    assert_eq!((followed.publisher, followed.announced_seq), (publisher.peer_id(), Some(2)));
    let third = publisher.publish_text("3").await;
    events.finished(third.head).await;
    assert_eq!(events.latest(), [3]);
}
