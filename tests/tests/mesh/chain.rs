//! Long chains: round trips, segments, hooks.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cid::Cid;
use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    dag::Block,
    dagsync::Flow,
    ticket::Target,
    types::{DagPutRequest, DataFormat, FollowRequest, HashName, SyncRequest, Synced},
};
use dagmesh_tests::DelayProxy;
use libp2p::multiaddr::Protocol;

use crate::support::{Peer, PeerOptions, counted, long_chain};

/// What a chain may cost.
const ROUND_TRIPS: u32 = 5;
/// By how much two runs of the same sync may differ in a debug build on a busy machine: this, or as long as it takes.
const NOISE: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_10_000_entries_costs_at_most_five_round_trips() {
    let (key, home, cids) = long_chain(10_000);
    let publisher = PeerOptions { key: Some(key), home: Some(home), tcp_only: true, ..PeerOptions::default() };
    let publisher = Peer::with(publisher).await;
    // The same proxy without a delay: what is left of the difference is the line. At 50 ms the noise of a busy machine
    // is several round trips, at 800 ms less than one. The best of some is the least noisy.
    let mut near = Duration::MAX;
    let mut far = [50, 800].map(|trip| (Duration::from_millis(trip), Duration::MAX));
    let over = |near: Duration, (trip, took): (Duration, Duration)| took.saturating_sub(near + ROUND_TRIPS * trip);
    for _ in 0..4 {
        near = near.min(chain_time(&publisher, &cids, Duration::ZERO).await);
        for (trip, took) in &mut far {
            *took = (*took).min(chain_time(&publisher, &cids, *trip / 2).await);
        }
        if far.iter().all(|far| over(near, *far).is_zero()) {
            break;
        }
    }
    println!("a chain of 10,000 entries: {near:?} without delay, at round trips of {far:?}");
    for far in far {
        let trips = far.1.saturating_sub(near).as_secs_f64() / far.0.as_secs_f64();
        assert!(over(near, far) <= NOISE.max(near), "{trips:.1} round trips: {near:?} without delay, {far:?} with");
    }
}

/// How long a new follower takes to sync the chain alone over a line with this delay, and over nothing else.
async fn chain_time(publisher: &Peer, cids: &[Cid], one_way: Duration) -> Duration {
    let target = socket(&publisher.tcp_addr().await.to_string());
    let proxy = DelayProxy::start(target, one_way).await.expect("a proxy");
    let through: Target = format!("{}/p2p/{}", proxy.multiaddr(), publisher.peer_id()).parse().expect("a target");
    let follower = Peer::with(PeerOptions { tcp_only: true, ..PeerOptions::default() }).await;
    let mut events = follower.events().await;

    let head = *cids.last().expect("a chain");
    let follow = follower.follow_wait(FollowRequest { keep: Some(0), ..FollowRequest::new(through) }).await;
    assert_eq!(follow.latest, Some(head));
    let (count, blocks, bytes, took) = events.finished(head).await;
    assert_eq!((count, blocks), (10_000, 10_000), "the chain, and nothing else");

    // Whatever identify said of other addresses: this one was used, and all went through it.
    let peers = follower.peers().await.expect("peers");
    let used = peers.iter().find(|peer| peer.peer_id == publisher.peer_id()).expect("the publisher");
    assert!(used.addr.to_string().contains(&proxy.multiaddr()), "connected at {}", used.addr);
    assert_eq!((used.connections, proxy.connections()), (1, 1));
    assert!(proxy.bytes_from_target() >= bytes, "{} of {bytes} bytes", proxy.bytes_from_target());
    took
}

fn socket(addr: &str) -> std::net::SocketAddr {
    let addr: libp2p::Multiaddr = addr.parse().expect("a multiaddr");
    let mut parts = addr.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => (ip, port).into(),
        _ => panic!("{addr} is not TCP over IPv4"),
    }
}

/// What a hook saw: each block, and whether it travelled.
type Seen = Arc<Mutex<Vec<(Cid, bool)>>>;

/// Syncs with a hook that notes each block and answers the `at`-th one (from 1 on) with `flow`.
async fn sync(
    follower: &Peer,
    request: SyncRequest,
    at: usize,
    flow: Flow,
) -> (dagmesh::api::Result<Synced>, Vec<(Cid, bool)>) {
    let seen = Seen::default();
    let note = Arc::clone(&seen);
    let hook = move |block: &Block, received: bool| {
        let mut seen = note.lock().expect("the blocks");
        seen.push((*block.cid(), received));
        if seen.len() == at { flow.clone() } else { Flow::Continue }
    };
    let result = follower.sync_with_hook(request, hook, ProgressSink::none()).await;
    let seen = seen.lock().expect("the blocks").clone();
    (result, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_in_segments_of_500_hooks_and_stores_the_same_as_one_in_one_piece() {
    const ENTRIES: u64 = 10_000;
    let (key, home, cids) = long_chain(ENTRIES);
    let publisher = Peer::with(PeerOptions { key: Some(key), home: Some(home), ..PeerOptions::default() }).await;
    let (whole, pieces) = tokio::join!(Peer::start(), Peer::start());
    let request = SyncRequest::new(publisher.target().await);

    let (one, in_one) = sync(&whole, request.clone(), 0, Flow::Continue).await;
    let request = SyncRequest { segment: Some(500), ..request };
    let (many, in_many) = sync(&pieces, request.clone(), 0, Flow::Continue).await;
    let (one, many) = (one.expect("synced"), many.expect("synced"));
    assert_eq!((one.blocks, many.blocks, one.entries, many.entries), (20_000, 20_000, ENTRIES, ENTRIES));
    assert!(many.segments >= 40 && one.segments < many.segments, "{} and {}", one.segments, many.segments);
    assert_eq!(in_one, in_many, "the same blocks in the same order");

    // The chain from its head down, then the contents, the oldest first.
    let newest_first: Vec<Cid> = cids.iter().skip(1).rev().copied().collect();
    let chain = pieces.chain(newest_first[0]);
    assert_eq!(chain.len() as u64, ENTRIES);
    let contents = chain.iter().rev().map(|(_, entry)| entry.content);
    let expected: Vec<Cid> = newest_first.iter().copied().chain(contents).collect();
    assert!(in_many.iter().map(|(cid, _)| *cid).eq(expected), "hooks fire in the order of the walk");
    assert!(in_many.iter().all(|(_, received)| *received));
    for peer in [&whole, &pieces] {
        let report = peer.repo_verify(ProgressSink::none()).await.expect("verified");
        assert_eq!((report.checked, report.damaged, report.missing), (20_000, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_fails_ends_the_sync_at_that_block_and_the_next_sync_goes_on_from_there() {
    let (key, home, cids) = long_chain(2_000);
    let publisher = Peer::with(PeerOptions { key: Some(key), home: Some(home), ..PeerOptions::default() }).await;
    let follower = Peer::start().await;
    let request = SyncRequest { segment: Some(500), ..SyncRequest::new(publisher.target().await) };

    let mut received = Vec::new();
    // The first block, the edges of a segment, the middle of the chain, its last entry, the first content.
    for at in [1, 2, 499, 500, 501, 1250, 2000, 2001, 3333] {
        let (result, seen) = sync(&follower, request.clone(), at, Flow::Fail(format!("enough at {at}"))).await;
        let error = result.expect_err("a hook ended it");
        assert_eq!(error.kind, ErrorKind::Interrupted);
        assert!(error.to_string().contains(&format!("enough at {at}")), "{error}");
        assert_eq!(seen.len(), at, "no block is hooked after the one that ended it");
        // What came is kept, up to the block that ended it; nothing after it was stored.
        let chain = follower.chain(cids[2_000]);
        assert_eq!(chain.len(), at.min(2_000), "after the sync that ended at {at}");
        received.extend(seen.into_iter().filter(|(_, received)| *received));
    }
    let (result, seen) = sync(&follower, request, 0, Flow::Continue).await;
    assert_eq!(result.expect("synced").entries, 2_000);
    assert_eq!(seen.len(), 4_000);
    received.extend(seen.into_iter().filter(|(_, received)| *received));
    assert_eq!(received.len(), 4_000);
    assert!(counted(received).values().all(|times| *times == 1), "no block travelled twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_names_the_next_cid_is_obeyed_at_that_block() {
    let publisher = Peer::start().await;
    let mut list = Vec::new();
    for n in 0..100 {
        let node = match list.last() {
            Some(next) => serde_json::json!({"n": n, "next": {"/": Cid::to_string(next)}}),
            None => serde_json::json!({"n": n}),
        };
        let put = DagPutRequest {
            input: DataFormat::DagJson,
            codec: DataFormat::DagCbor,
            hash: HashName::default(),
            data: node.to_string().into_bytes(),
        };
        list.push(publisher.dag_put(put).await.expect("a block").cid);
    }
    let target: Target = publisher.target().await;
    // With segments and without, at the first block, inside and at the edge of a segment.
    for (segment, at) in [(None, 1), (None, 40), (Some(10), 1), (Some(10), 10), (Some(10), 11), (Some(10), 40)] {
        let follower = Peer::start().await;
        let request = SyncRequest { segment, head: Some(list[99]), ..SyncRequest::new(target.clone()) };
        let (result, seen) = sync(&follower, request, at, Flow::Next(list[19])).await;
        result.unwrap_or_else(|error| panic!("{segment:?} at {at}: {error}"));
        let before = list.iter().rev().take(at);
        let after = list.iter().take(20).rev();
        let expected: Vec<Cid> = before.chain(after).copied().collect();
        let seen: Vec<Cid> = seen.into_iter().map(|(cid, _)| cid).collect();
        assert_eq!(seen, expected, "segment {segment:?}, redirected at block {at}");
        assert!(list.iter().filter(|cid| follower.holds(cid)).count() == at + 20, "what was left out is not stored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_a_hook_skips_a_part_of_is_told_as_partial() {
    let (key, home, cids) = long_chain(100);
    let publisher = Peer::with(PeerOptions { key: Some(key), home: Some(home), ..PeerOptions::default() }).await;
    let follower = Peer::start().await;
    let request = SyncRequest { segment: Some(10), ..SyncRequest::new(publisher.target().await) };
    let (result, seen) = sync(&follower, request, 15, Flow::Next(cids[5])).await;
    let seen: Vec<Cid> = seen.into_iter().map(|(cid, _)| cid).collect();
    let expected: Vec<Cid> = (86..=100).rev().chain((1..=5).rev()).map(|seq| cids[seq]).collect();
    assert_eq!(seen, expected);
    let error = result.expect_err("entries 6 to 85 were skipped");
    assert_eq!(error.kind, ErrorKind::Partial, "{error}");
    assert!(error.to_string().contains(&cids[85].to_string()), "{error}");
}
