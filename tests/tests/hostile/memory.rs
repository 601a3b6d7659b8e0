//! What would cost memory, or the process: rows 2, 3, 5, 6 and 8, against a daemon whose memory is measured.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use cid::Cid;
use dagmesh::{
    dag::{Blockstore, Codec},
    dagsync::Status,
};
use dagmesh_announce::Answer as Verdict;
use dagmesh_core::limits;
use dagmesh_tests::{
    Daemon, Output,
    daemon::Memory,
    hostile::{
        Hostile, SYNC, ask,
        dag::{self, Feed, block, deep, leaf},
        script::{Step, claimed, end, endless, framed, honest, prefix, steps},
    },
    peer::SOON,
    wait_for,
};
use futures::AsyncWriteExt;
use libp2p::PeerId;

const MIB: u64 = 1 << 20;
/// How much a hostile node tries to send in one piece: more than any bound below.
const FLOOD: u64 = 256 * MIB;

/// A daemon that has done what a daemon does, so that what this takes is taken already, and a hostile node.
struct Prey {
    daemon: Daemon,
    hostile: Hostile,
    before: Option<Memory>,
}

impl Prey {
    async fn start() -> Self {
        let (mut daemon, hostile) = tokio::join!(Daemon::start(), Hostile::start());
        let mut feed = Feed::new(hostile.key());
        let large: Vec<_> = (0..8).map(|n| block(Codec::Raw, vec![n; limits::MAX_BLOCK_BYTES])).collect();
        feed.put(&large);
        let links: Vec<_> = large.iter().map(|block| *block.cid()).collect();
        let head = feed.publish_dag(&[dag::node(&links)]);
        hostile.serve(&feed.store());
        hostile.tell(&[&head]);
        daemon.json(&["sync", &hostile.addr().to_string()]).await;
        hostile.connect(daemon.addr("tcp").parse().expect("an address")).await;
        assert!(daemon.is_running());
        let before = daemon.memory();
        Self { daemon, hostile, before }
    }

    fn peer_id(&self) -> PeerId {
        self.daemon.peer_id().parse().expect("a peer id")
    }

    /// Runs `dagmesh sync` against the hostile node, to its end.
    async fn sync(&self, args: &[&str]) -> Output {
        self.daemon.run(&[&["sync", &self.hostile.addr().to_string()], args].concat()).await
    }

    /// Publishes this as the content of a new feed of the hostile node.
    fn publish(&self, content: &[dagmesh::dag::Block]) {
        let mut feed = Feed::new(self.hostile.key());
        let head = feed.publish_dag(content);
        self.hostile.serve(&feed.store());
        self.hostile.tell(&[&head]);
    }

    /// The same process runs, answers, and has never taken much more than before.
    async fn assert_unharmed(&mut self, more: u64, more_reserved: u64) {
        assert!(self.daemon.is_running(), "{}", self.daemon.stderr());
        assert_eq!(self.daemon.json(&["id"]).await["peer_id"], self.daemon.peer_id());
        if let (Some(before), Some(after)) = (self.before, self.daemon.memory()) {
            println!("{before:?}, then {after:?}");
            assert!(after.peak - before.peak < more, "{before:?}, then {after:?}");
            assert!(after.peak_reserved - before.peak_reserved < more_reserved, "{before:?}, then {after:?}");
        }
    }

    /// The last answers were cut off, none after more than what windows and buffers hold.
    async fn assert_cut_off(&self, last: usize) {
        let mut exchanges = self.hostile.exchanges();
        exchanges.drain(..exchanges.len() - last);
        wait_for(SOON, "answers that are cut off", async || exchanges.iter().all(|exchange| exchange.is_over())).await;
        for exchange in exchanges {
            assert!(exchange.was_dropped() && exchange.sent_bytes() < FLOOD / 4, "{exchange:?}");
        }
    }
}

/// Fails with exit code 7, what a peer sent is false, and says why.
#[track_caller]
fn assert_false(output: &Output, why: &str) {
    output.assert_code(7);
    assert!(output.stderr.contains(why), "{why:?} expected in {output}");
}

/// Zeros, as many as a flood.
fn flood() -> impl Iterator<Item = Step> + Send {
    let part = Bytes::from(vec![0; 64 * 1024]);
    let parts = FLOOD as usize / part.len();
    endless(part).take(parts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_02_a_block_over_the_limit_is_refused_from_its_length_prefix() {
    let mut prey = Prey::start().await;
    let from = prey.hostile.exchanges().len();
    prey.publish(&[leaf("a head to ask for")]);
    let claims = [limits::MAX_RESPONSE_FRAME_BYTES as u64 + 1, 1 << 30, u64::MAX >> 1];
    for claim in claims {
        prey.hostile.answer(move |_| Box::new([prefix(claim)].into_iter().chain(flood())));
        assert_false(&prey.sync(&[]).await, "at most");
    }
    assert_eq!(prey.hostile.exchanges().len(), from + claims.len(), "it is asked once, not again and again");
    prey.assert_cut_off(claims.len()).await;

    // To heads, and as a request.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    prey.hostile.answer_heads(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Box::new([prefix(1 << 30)].into_iter().chain(flood()))
    });
    let output = prey.daemon.run(&["head", &prey.hostile.addr().to_string()]).await;
    assert!(output.code != Some(0) && output.stderr.contains("at most"), "{output}");
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is asked once, not again and again");
    let mut stream = prey.hostile.open(prey.peer_id(), SYNC).await;
    let mut sent = 0;
    let Step::Bytes(claim) = prefix(1 << 30) else { unreachable!("bytes") };
    let mut result = stream.write_all(&claim).await;
    while result.is_ok() && sent < FLOOD {
        result = stream.write_all(&[0; 64 * 1024]).await;
        sent += 64 * 1024;
    }
    assert!(result.is_err() && sent < FLOOD / 4, "a request over the limit was taken up to {sent} bytes");
    prey.assert_unharmed(32 * MIB, 1024 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_02_a_block_is_taken_at_the_limit_and_refused_one_byte_over_it() {
    let prey = Prey::start().await;
    let largest = block(Codec::Raw, vec![77; limits::MAX_BLOCK_BYTES]);
    prey.publish(std::slice::from_ref(&largest));
    assert_eq!(prey.sync(&[]).await.json()["blocks"], 2);

    let mut over = largest.data().to_vec();
    over.push(77);
    let digest = dagmesh::dag::HashCode::Sha2_256.digest(&over).expect("a digest");
    let cid = Cid::new_v1(Codec::Raw as u64, digest);
    let mut feed = Feed::new(prey.hostile.key());
    prey.hostile.tell(&[&feed.publish(cid)]);
    let blocks = feed.blocks();
    prey.hostile.answer(move |asked| {
        if asked.roots() == [cid] {
            return steps([claimed(&cid, over.clone()), end(Status::Done)]);
        }
        steps(honest(&blocks, &asked.request))
    });
    assert_false(&prey.sync(&[]).await, "at most");
    assert_eq!(prey.daemon.run(&["dag", "stat", &cid.to_string()]).await.code, Some(4), "it is not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_03_a_body_without_end_is_read_no_further_than_its_cap() {
    let mut prey = Prey::start().await;
    let mut feed = Feed::new(prey.hostile.key());
    const SEGMENT: u64 = 100;
    for n in 0..3 * SEGMENT {
        feed.publish_text(&n.to_string());
    }
    prey.hostile.tell(&[&feed.head()]);
    // A length whose end never comes; and no length at all after the end of the answer.
    prey.hostile.answer(|_| Box::new(endless(vec![0xff; 64 * 1024].into()).take((FLOOD >> 16) as usize)));
    assert_false(&prey.sync(&[]).await, "varint");
    prey.hostile.answer(|_| Box::new([end(Status::Done).into()].into_iter().chain(flood())));
    assert_false(&prey.sync(&[]).await, "without sending");
    prey.assert_cut_off(2).await;

    // More blocks than were asked for, each of them good.
    let blocks: Arc<dyn Blockstore> = feed.blocks();
    prey.hostile.answer(move |asked| {
        let mut greedy = asked.request.clone();
        if greedy.blocks == SEGMENT {
            greedy.blocks = u64::MAX;
        }
        steps(honest(&blocks, &greedy))
    });
    assert_false(&prey.sync(&["--segment", &SEGMENT.to_string()]).await, "more than the 100 blocks");
    prey.assert_unharmed(32 * MIB, 1024 * MIB).await;
}

/// Sends the same item of DAG-CBOR as a block, an answer, a request and an announcement; each is refused, with why.
async fn is_refused_everywhere(prey: &Prey, item: &dyn Fn(usize) -> Vec<u8>, why: &str) {
    prey.publish(&[block(Codec::DagCbor, item(limits::MAX_BLOCK_BYTES))]);
    let output = prey.sync(&[]).await;
    assert!(output.code != Some(0) && output.stderr.contains(why), "{why:?} expected in {output}");
    let heads = item(64 * 1024);
    prey.hostile.answer_heads(move |_| steps([framed(&[&heads])]));
    let output = prey.daemon.run(&["head", &prey.hostile.addr().to_string()]).await;
    assert!(output.code != Some(0) && output.stderr.contains(why), "{why:?} expected in {output}");
    let answer = ask::ask(&prey.hostile, prey.peer_id(), &item(limits::MAX_REQUEST_BYTES)).await;
    ask::assert_refused(&answer, why);
    match prey.hostile.announce(prey.peer_id(), &item(limits::MAX_ANNOUNCEMENT_BYTES)).await {
        Some(Verdict::Refused(reason)) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_a_claim_of_two_to_the_thirty_entries_is_an_error_and_takes_no_memory() {
    let mut prey = Prey::start().await;
    // Lists, and maps.
    for major in [4, 5] {
        is_refused_everywhere(&prey, &|_| [dag::head(major, 1 << 30), vec![0; 64]].concat(), "claims more").await;
    }
    // Bytes, and text.
    for major in [2, 3] {
        is_refused_everywhere(&prey, &|_| [dag::head(major, 1 << 30), vec![0; 64]].concat(), "cut short").await;
    }
    prey.assert_unharmed(16 * MIB, 1024 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_06_nesting_two_million_deep_is_an_error_and_the_process_lives() {
    let mut prey = Prey::start().await;
    is_refused_everywhere(&prey, &|max| deep(2_000_000.min(max - 1)), "nested deeper than").await;
    // A map in a map, a selector of a request, and the other codec that nests.
    let maps = [b"\xa1\x61a".repeat(600_000), vec![0]].concat();
    let json = [vec![b'['; 1_000_000], vec![b']'; 1_000_000]].concat();
    for (codec, bytes, why) in [(Codec::DagCbor, maps, "nested deeper than"), (Codec::DagJson, json, "recursion limit")]
    {
        prey.publish(&[block(codec, bytes)]);
        let output = prey.sync(&[]).await;
        assert!(output.code != Some(0) && output.stderr.contains(why), "{why:?} expected in {output}");
    }
    let mut request = ask::Loose::all(leaf("any").cid());
    request.selectors = vec![deep(limits::MAX_SELECTOR_BYTES - 1)];
    ask::assert_refused(&ask::ask(&prey.hostile, prey.peer_id(), &request.encode()).await, "nested deeper than");
    prey.assert_unharmed(32 * MIB, 1024 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_08_too_many_links_in_a_block_or_in_waiting_are_an_error_and_memory_is_bounded() {
    let mut prey = Prey::start().await;
    prey.publish(&[dag::many_inline_links(100_000)]);
    let output = prey.sync(&[]).await;
    assert!(output.code != Some(0) && output.stderr.contains("more than 65536 links"), "{output}");

    // Each block has 50,000 links, of which the first leads to the next such block: the others wait.
    const LINKS: usize = 50_000;
    let mut below = *leaf("end").cid();
    let mut blocks = Vec::new();
    for layer in 0..2 * limits::MAX_FRONTIER_LINKS / LINKS {
        let mut links = vec![below];
        links.extend((1..LINKS).map(|n| dag::cid_of((layer * LINKS + n) as u64)));
        let wide = dag::node(&links);
        below = *wide.cid();
        blocks.insert(0, wide);
    }
    prey.publish(&blocks);
    let output = prey.sync(&[]).await;
    assert!(output.code != Some(0) && output.stderr.contains("links wait"), "{output}");
    prey.assert_unharmed(320 * MIB, 1024 * MIB).await;
}
