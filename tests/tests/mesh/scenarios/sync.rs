//! Syncs that somebody asks for, and what comes of them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cid::Cid;
use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    dag::{Block, Codec, HashCode},
    dagsync::{
        Flow,
        message::{End, Frame, PROTOCOL, Status},
    },
    swarm::RunningSwarm,
    ticket::Target,
    types::{AddRequest, CatRequest, Content, Event, FollowRequest, PublishRequest, SyncRequest},
};
use dagmesh_core::{frame::FrameReader, limits};
use dagmesh_tests::make_folder;
use futures::{AsyncWriteExt, StreamExt};
use libp2p::{PeerId, StreamProtocol, bytes::Bytes};

use crate::{
    learn::stranger,
    support::{Peer, PeerOptions, long_chain},
};

/// Publishes a text that nobody is told of.
async fn publish_unheard(publisher: &Peer, content: &str) -> dagmesh::types::Published {
    let path = publisher.write("unheard", content);
    let request = PublishRequest { no_announce: true, ..PublishRequest::new(Content::Path(path)) };
    publisher.publish(request, ProgressSink::none()).await.expect("published")
}

/// All of a file.
async fn read(peer: &Peer, cid: Cid) -> Vec<u8> {
    let pieces = peer.cat(CatRequest { cid, offset: 0, length: None }).await.expect("a file");
    pieces.map(|piece| piece.expect("a piece")).collect::<Vec<Bytes>>().await.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manual_sync() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    let published = publish_unheard(&publisher, "asked for").await;
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let hook = move |block: &Block, received: bool| {
        assert!(received && [published.head, published.content].contains(block.cid()));
        counted.fetch_add(1, Ordering::Relaxed);
        Flow::Continue
    };
    let request = SyncRequest::new(publisher.target().await);
    let synced = follower.sync_with_hook(request, hook, ProgressSink::none()).await.expect("synced");
    assert_eq!((synced.head, synced.stop, synced.blocks, synced.entries), (published.head, None, 2, 1));
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    assert_eq!(read(&follower, published.content).await, b"asked for");
    assert!(follower.follows().await.expect("follows").is_empty(), "it was asked for once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trip_simple() {
    let follower = Peer::start().await;
    let (one, two) = tokio::join!(Peer::start(), Peer::start());
    for publisher in [&one, &two] {
        publisher.publish_text("0").await;
        follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    }
    let mut watchers = [follower.events().await, follower.events().await];
    for (publisher, text) in [(&one, "hello world"), (&two, "hello world 2")] {
        let published = publisher.publish_text(text).await;
        for watcher in &mut watchers {
            assert_eq!(watcher.finished(published.head).await.0, 1);
        }
        assert_eq!(read(&follower, published.content).await, text.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_fails_with_an_unexpected_peer() {
    let (asked, there) = tokio::join!(Peer::start(), Peer::start());
    let follower = Peer::start().await;
    there.publish_text("of another").await;
    let addr = there.tcp_addr().await.to_string();
    let wrong = addr.replace(&there.peer_id().to_string(), &asked.peer_id().to_string());
    let target: Target = wrong.parse().expect("a target");
    let error = follower.sync(SyncRequest::new(target), ProgressSink::none()).await.expect_err("another peer is there");
    assert_eq!(error.kind, ErrorKind::NoPeers, "{error}");
    assert!(error.to_string().contains(&asked.peer_id().to_string()), "it names whom it could not reach: {error}");
    let nobody = PeerId::random();
    let error = follower.sync(SyncRequest::new(Target::Peer(nobody)), ProgressSink::none()).await;
    let error = error.expect_err("nobody knows that peer");
    assert!(matches!(error.kind, ErrorKind::NoPeers | ErrorKind::Timeout), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scoped_block_hook() {
    let general = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&general);
    let follower = Peer::hooked(move |_: &Block, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        Flow::Continue
    });
    let (publisher, follower) = tokio::join!(Peer::start(), follower);
    publisher.publish_many(3, "first").await;
    let scoped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&scoped);
    let hook = move |_: &Block, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        Flow::Continue
    };
    let request = SyncRequest::new(publisher.target().await);
    follower.sync_with_hook(request.clone(), hook, ProgressSink::none()).await.expect("synced");
    let counts = || (general.load(Ordering::Relaxed), scoped.load(Ordering::Relaxed));
    assert_eq!(counts(), (0, 6), "the hook of the one sync stands in for the general one");

    let stop = Some(publisher.publish_many(1, "stop").await.head);
    publisher.publish_many(2, "second").await;
    follower.sync(SyncRequest { stop, ..request }, ProgressSink::none()).await.expect("synced");
    assert_eq!(counts(), (4, 6), "and for no other sync");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn synced_cids_returned() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let mut events = follower.events().await;
    let last = publisher.publish_many(7, "more").await;
    events.finished(last.head).await;
    let moved = |event: &Event| if let Event::LatestMoved { entry, .. } = event { Some(*entry) } else { None };
    let told: Vec<Cid> = events.seen.iter().filter_map(moved).collect();
    let chain: Vec<Cid> = publisher.chain(last.head).into_iter().map(|(cid, _)| cid).take(7).collect();
    assert!(told.iter().rev().eq(&chain), "{told:?} was told, {chain:?} was published");
    let count = |event: &Event| if let Event::SyncFinished { count, .. } = event { *count } else { 0 };
    assert_eq!(events.seen.iter().map(count).sum::<u64>(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_sync_of_10_publishers() {
    let follower = Peer::start().await;
    let publishers = futures::future::join_all((0..10).map(|_| Peer::start())).await;
    let mut published = Vec::new();
    for (n, publisher) in publishers.iter().enumerate() {
        published.push(publisher.publish_many(3, &format!("publisher {n}")).await);
    }
    let follows = publishers
        .iter()
        .map(async |publisher| follower.follow_wait(FollowRequest::new(publisher.target().await)).await);
    let follows = futures::future::join_all(follows).await;
    for (follow, published) in follows.iter().zip(&published) {
        assert_eq!(follow.latest, Some(published.head));
    }
    // All of them are still heard.
    for (n, publisher) in publishers.iter().enumerate() {
        publisher.publish_text(&format!("more of {n}")).await;
    }
    for publisher in &publishers {
        follower.in_sync_at(publisher.peer_id(), 4).await;
    }
    let status = follower.status().await.expect("a status");
    assert_eq!((status.follows, status.in_sync), (10, 10), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_with_a_store_that_already_holds_part() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    let source = publisher.path("source");
    make_folder(&source, 40, 4 << 20, 7);
    let add = |path| AddRequest { path, hidden: true, chunk_bytes: None, content_defined: false };
    let part = std::fs::read_dir(&source).expect("the folder").next().expect("an entry").expect("an entry").path();
    let held = follower.add(add(part), ProgressSink::none()).await.expect("added");
    assert!(held.blocks > 0);
    let request = PublishRequest { hidden: true, ..PublishRequest::new(Content::Path(source.clone())) };
    let published = publisher.publish(request.clone(), ProgressSink::none()).await.expect("published");

    // A part below a root that is not held: the publisher cannot know of it, yet nothing is stored twice.
    let mut events = follower.events().await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let (_, blocks, ..) = events.finished(published.head).await;
    assert!(blocks >= published.blocks_added - held.new_blocks && blocks <= published.blocks_added, "{blocks}");
    assert_eq!(follower.repo_stat().await.expect("a stat").blocks, published.blocks_added);

    // Once it holds all of the content, an entry alone travels.
    std::fs::write(source.join("added.bin"), vec![7; 300_000]).expect("a file");
    follower.add(add(source), ProgressSink::none()).await.expect("added");
    let again = publisher.publish(request, ProgressSink::none()).await.expect("published");
    assert!(again.blocks_added > 2, "the publisher added more than an entry: {again:?}");
    let (_, blocks, ..) = events.finished(again.head).await;
    assert_eq!(blocks, 1, "the entry");
}

/// A peer that answers every request with these frames, whatever is asked.
async fn answering(frames: Vec<Frame>) -> RunningSwarm {
    let stranger = stranger().await;
    let mut incoming = stranger.handle.streams().accept(StreamProtocol::new(PROTOCOL)).expect("not accepted yet");
    tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            let mut reader = FrameReader::new(stream, limits::MAX_REQUEST_BYTES);
            let _ = reader.next().await;
            let (mut stream, _) = reader.into_inner();
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.append(&mut bytes).expect("a frame"));
            let _ = stream.write_all(&bytes).await;
            let _ = stream.close().await;
        }
    });
    stranger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digest_check() {
    let follower = Peer::start().await;
    let block = Block::new(Codec::Raw, HashCode::Sha2_256, b"as published".to_vec()).expect("a block");
    let answers = |data: &'static [u8]| {
        let block = Frame::Block { cid: *block.cid(), data: Bytes::from_static(data) };
        answering(vec![block, Frame::End(End { blocks: 1, ..End::without(Status::Done, "") })])
    };
    let sync = async |peer: &RunningSwarm| {
        let addrs = peer.handle.addrs().await.expect("addresses");
        let target = addrs.first().expect("an address").to_string().parse().expect("a target");
        let request = SyncRequest { head: Some(*block.cid()), ..SyncRequest::new(target) };
        follower.sync(request, ProgressSink::none()).await
    };
    let error = sync(&answers(b"as it pleases").await).await.expect_err("its hash does not match");
    assert_eq!(error.kind, ErrorKind::Verification, "{error}");
    assert!(!follower.holds(block.cid()), "nothing of it is stored");
    let synced = sync(&answers(b"as published").await).await.expect("its hash matches");
    assert_eq!(synced.blocks, 1);
    assert!(follower.holds(block.cid()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_found() {
    let (key, home, _) = long_chain(3);
    let publisher = Peer::with(PeerOptions { key: Some(key), home: Some(home), ..PeerOptions::default() }).await;
    let follower = Peer::start().await;
    let mut events = follower.events().await;
    let nowhere = Block::new(Codec::Raw, HashCode::Sha2_256, b"held by nobody".to_vec()).expect("a block");
    let request = SyncRequest { head: Some(*nowhere.cid()), ..SyncRequest::new(publisher.target().await) };
    let error = follower.sync(request, ProgressSink::none()).await.expect_err("nobody has it");
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&nowhere.cid().to_string()), "{error}");
    assert_eq!(follower.repo_stat().await.expect("a stat").blocks, 0);

    // What is there is found all the same, and it alone is told as finished.
    let follow = follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let head = follow.latest.expect("it is in sync");
    events.finished(head).await;
    assert_eq!(events.seen.iter().filter(|event| event.name() == "sync_finished").count(), 1);
}
