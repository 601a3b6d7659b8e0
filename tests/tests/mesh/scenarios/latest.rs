//! How far a follower is, and how that moves.

use dagmesh::{
    Api,
    api::ProgressSink,
    dag::{Block, Codec, Entry, FeedName, HashCode, SignedHead},
    store::Store,
    ticket::Target,
    types::{AnnounceRequest, ConnectRequest, DagPutRequest, DataFormat, Event, FollowRequest, HashName},
};

use crate::support::{Peer, PeerOptions, long_chain};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_sync_success() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let mut events = follower.events().await;
    for n in 1..=3 {
        let published = publisher.publish_text(&n.to_string()).await;
        let (count, blocks, ..) = events.finished(published.head).await;
        assert_eq!((count, blocks), (1, 2));
        let follow = follower.in_sync_at(publisher.peer_id(), published.seq).await;
        assert_eq!((follow.latest, follow.announced), (Some(published.head), Some(published.head)));
        assert!(follower.holds(&published.head) && follower.holds(&published.content));
    }
    assert_eq!(events.latest(), [2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_sync_failure() {
    // The newest entry's content is not there: a publisher that has lost it.
    let (key, home, cids) = long_chain(3);
    let lost = b"content 4".to_vec();
    let content = Block::new(Codec::Raw, HashCode::Sha2_256, lost.clone()).expect("a block");
    let entry = Entry { previous: cids.last().copied(), seq: 4, time: 4, content: *content.cid(), meta: None };
    let entry = entry.to_block().expect("an entry");
    let head = SignedHead::sign(&key, &FeedName::default(), *entry.cid(), 4, 4).expect("a head");
    let store = Store::open(home.path().join("store")).expect("a store");
    store.publish_entry(&entry, &head).expect("published");
    drop(store);
    let publisher = PeerOptions { key: Some(key), home: Some(home), ..PeerOptions::default() };
    let (publisher, follower) = tokio::join!(Peer::with(publisher), Peer::start());
    let mut events = follower.events().await;
    follower.follow(FollowRequest::new(publisher.target().await), ProgressSink::none()).await.expect("followed");
    let failed = events.until("a sync that fails", |event| matches!(event, Event::SyncFailed { .. })).await;
    let Event::SyncFailed { head, reason, retry_in_ms, .. } = failed else { unreachable!("it is one") };
    assert_eq!(head, Some(*entry.cid()));
    assert!(reason.contains(&content.cid().to_string()) && retry_in_ms.is_some(), "{reason}");
    let follow = follower.standing(publisher.peer_id()).await.expect("a follow");
    assert_eq!((follow.latest, follow.latest_seq), (Some(cids[3]), Some(3)), "what is whole counts, and no more");
    assert_eq!(events.latest(), [1, 2, 3]);

    // Once it is there again, the next try takes it, and nothing else.
    let put = DagPutRequest { input: DataFormat::Raw, codec: DataFormat::Raw, hash: HashName::default(), data: lost };
    assert_eq!(publisher.dag_put(put).await.expect("a block").cid, *content.cid());
    let (count, blocks, ..) = events.finished(*entry.cid()).await;
    assert_eq!((count, blocks), (1, 1));
    // The head that is synced already sets off nothing.
    let to = Some(follower.target().await);
    let announce = AnnounceRequest { to, ..AnnounceRequest::new(*entry.cid()) };
    publisher.announce(announce).await.expect("announced");
    let last = publisher.publish_text("5").await;
    events.finished(last.head).await;
    let finished = events.seen.iter().filter(|event| event.name() == "sync_finished").count();
    assert_eq!((finished, events.latest()), (2, vec![1, 2, 3, 4, 5]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_sync_depth() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    let tenth = publisher.publish_many(10, "early").await;
    let mut events = follower.events().await;
    let request = FollowRequest { depth: Some(3), ..FollowRequest::new(publisher.target().await) };
    let follow = follower.follow_wait(request).await;
    assert_eq!((follow.latest, follow.latest_seq), (Some(tenth.head), Some(10)));
    assert_eq!(events.finished(tenth.head).await.0, 3);
    let chain = publisher.chain(tenth.head);
    for (n, (cid, entry)) in chain.iter().enumerate() {
        assert_eq!((follower.holds(cid), follower.holds(&entry.content)), (n < 3, n < 3), "entry {}", entry.seq);
    }

    follower.shutdown().await.expect("stopped");
    let last = publisher.publish_many(6, "late").await;
    // A new node on the same home: it was away, so all six come in one sync.
    drop(events);
    let follower = follower.again().await;
    follower.in_sync_at(publisher.peer_id(), 16).await;
    for (cid, entry) in publisher.chain(last.head).iter().take(9) {
        assert!(follower.holds(cid) && follower.holds(&entry.content), "entry {}", entry.seq);
    }
    assert!(!follower.holds(&chain[3].0), "entry 7 was left out, and still is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_sync() {
    let (key, home, cids) = long_chain(8);
    let publisher = Peer::with(PeerOptions { key: Some(key), home: Some(home), ..PeerOptions::default() }).await;
    let follower = Peer::start().await;
    let (from, feed) = (publisher.peer_id(), FeedName::default());
    // Followed before it is known where the publisher is, so that what counts as synced is set before anything is.
    follower.follow(FollowRequest::new(Target::Peer(from)), ProgressSink::none()).await.expect("followed");
    follower.set_latest(from, feed.clone(), Some((cids[5], 5))).await.expect("set");
    let mut events = follower.events().await;
    follower.connect(ConnectRequest { addr: publisher.tcp_addr().await }).await.expect("connected");
    let (count, blocks, ..) = events.finished(cids[8]).await;
    assert_eq!((count, blocks), (3, 6));
    let held = |seq: usize| follower.holds(&cids[seq]);
    assert!((6..=8).all(held) && !(1..=5).any(held), "the stop link itself is not fetched");

    // Past what was left out, from one end.
    let last = publisher.publish_many(2, "more").await;
    follower.in_sync_at(from, 10).await;
    assert!(follower.holds(&last.head) && !held(5));
    let mut events = follower.events().await;
    follower.set_latest(from, feed, None).await.expect("set");
    let (count, blocks, ..) = events.finished(last.head).await;
    assert_eq!((count, blocks), (10, 10), "walked from the head, and what was left out fetched");
    assert!((1..=8).all(held));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn step_by_step_sync() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    publisher.publish_text("step 0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    // Every other content is there already.
    for n in [2, 4, 6] {
        let data = format!("step {n}").into_bytes();
        let put = DagPutRequest { input: DataFormat::Raw, codec: DataFormat::Raw, hash: HashName::default(), data };
        follower.dag_put(put).await.expect("a block");
    }
    let mut events = follower.events().await;
    for n in 1..=6u64 {
        let published = publisher.publish_text(&format!("step {n}")).await;
        let (count, blocks, ..) = events.finished(published.head).await;
        assert_eq!((count, blocks), (1, if n % 2 == 0 { 1 } else { 2 }), "step {n}");
        let follow = follower.in_sync_at(publisher.peer_id(), n + 1).await;
        assert_eq!(follow.latest, Some(published.head));
    }
    assert_eq!(events.latest(), [2, 3, 4, 5, 6, 7]);
}
