//! Watchers, many syncs at once, and the end.

use std::time::Duration;

use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    ticket::Target,
    types::{Event, FollowRequest, FollowState, SyncRequest, UnfollowRequest},
};
use dagmesh_core::limits;
use dagmesh_tests::wait_for;
use futures::StreamExt;
use libp2p::PeerId;

use super::Gate;
use crate::support::{Peer, PeerOptions, SOON};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_finished_always_delivered() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let mut watchers = Vec::new();
    for _ in 0..20 {
        watchers.push(follower.events().await);
    }
    let mut late = follower.events().await;
    let mut heads = Vec::new();
    for n in 1..=3 {
        let published = publisher.publish_text(&n.to_string()).await;
        for watcher in &mut watchers {
            watcher.finished(published.head).await;
        }
        heads.push(published.head);
    }
    // One that begins to read only now has missed nothing.
    late.finished(heads[2]).await;
    watchers.push(late);
    for watcher in &watchers {
        let told = watcher.seen.iter().filter_map(|event| match event {
            Event::SyncFinished { head, .. } => Some(*head),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), heads);
        assert_eq!(watcher.latest(), [2, 3, 4]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maximum_async_syncs() {
    let (one, two) = tokio::join!(Peer::start(), Peer::start());
    for max_syncs in [1, 2] {
        let gate = Gate::default();
        let options = PeerOptions { max_syncs: Some(max_syncs), ..PeerOptions::default() };
        let follower = Peer::launch(options, Some(gate.hook())).await;
        for publisher in [&one, &two] {
            publisher.publish_text(&format!("first of {max_syncs}")).await;
            follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
        }
        let mut events = follower.events().await;
        gate.set_closed(true);
        let heads = [one.publish_text("more of one").await.head, two.publish_text("more of two").await.head];
        for of in heads {
            let heard = |event: &Event| matches!(event, Event::HeadAnnounced { head, .. } if *head == of);
            if !events.seen.iter().any(heard) {
                events.until("an announcement", heard).await;
            }
        }
        wait_for(SOON, "syncs that are held up", async || gate.waiting() == max_syncs).await;
        let waits = |follow: &&dagmesh::types::Follow| follow.state == FollowState::Behind;
        let follows = follower.follows().await.expect("follows");
        assert_eq!(follows.iter().filter(waits).count(), 2 - max_syncs, "{follows:?}");
        assert_eq!(follower.status().await.expect("a status").syncing, max_syncs);
        assert_eq!(gate.waiting(), max_syncs);
        gate.set_closed(false);
        for publisher in [&one, &two] {
            let seq = 2 * max_syncs as u64;
            follower.in_sync_at(publisher.peer_id(), seq).await;
        }
        let mut finished = 0;
        while finished < 2 {
            events.until("a sync that ends", |event| event.name() == "sync_finished").await;
            finished += 1;
        }
        let order: Vec<_> = events.seen.iter().map(Event::name).collect();
        let begun = order.iter().take_while(|name| **name != "sync_finished").filter(|name| **name == "sync_started");
        assert_eq!(begun.count(), max_syncs, "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_while_waiting() {
    let gate = Gate::default();
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::hooked(gate.hook()));
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let mut watcher = follower.watch().await.expect("events");
    gate.set_closed(true);
    publisher.publish_text("1").await;
    wait_for(SOON, "a sync that is held up", async || gate.waiting() == 1).await;
    // One that waits for a publisher that nobody knows, and one that waits for the sync that is held up.
    let nobody = FollowRequest { wait: true, ..FollowRequest::new(Target::Peer(PeerId::random())) };
    let held_up = FollowRequest { wait: true, ..FollowRequest::new(publisher.target().await) };
    let waiting = futures::future::join_all([nobody, held_up].map(|request| {
        let node = dagmesh::Node::clone(&follower);
        tokio::spawn(async move { node.follow(request, ProgressSink::none()).await })
    }));
    wait_for(SOON, "both are followed", async || follower.follows().await.expect("follows").len() == 2).await;

    let closing = tokio::spawn({
        let node = dagmesh::Node::clone(&follower);
        async move { node.shutdown().await }
    });
    let waited = tokio::time::timeout(SOON, waiting).await.expect("whoever waits is told");
    for waited in waited {
        let error = waited.expect("a task").expect_err("it is not in sync");
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    }
    gate.set_closed(false);
    tokio::time::timeout(SOON, closing).await.expect("an end in time").expect("a task").expect("stopped");
    let ended = async { while watcher.next().await.is_some() {} };
    tokio::time::timeout(SOON, ended).await.expect("watchers are told of the end");
    follower.shutdown().await.expect("a second time is fine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_handler_cleaner() {
    let (followed, asked, follower) = tokio::join!(Peer::start(), Peer::start(), Peer::start());
    for publisher in [&followed, &asked] {
        publisher.publish_text("0").await;
    }
    follower.follow_wait(FollowRequest::new(followed.target().await)).await;
    follower.sync(SyncRequest::new(asked.target().await), ProgressSink::none()).await.expect("synced");
    // Nothing is kept of a publisher that was asked once, nor of one that is unfollowed.
    let follows = follower.follows().await.expect("follows");
    assert_eq!(follows.iter().map(|follow| follow.publisher).collect::<Vec<_>>(), [followed.peer_id()]);
    let unfollow = UnfollowRequest { target: Target::Peer(followed.peer_id()), feed: None };
    follower.unfollow(unfollow).await.expect("unfollowed");
    let status = follower.status().await.expect("a status");
    assert_eq!((status.follows, status.in_sync, status.syncing), (0, 0, 0));
    // So what they announce sets off nothing, while the one that is followed again is synced.
    let mut events = follower.events().await;
    asked.publish_text("1").await;
    followed.publish_text("1").await;
    let follow = follower.follow_wait(FollowRequest::new(followed.target().await)).await;
    let head = follow.latest.expect("in sync");
    events.finished(head).await;
    assert_eq!((events.started(), events.latest()), (vec![head], vec![1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_deadlock() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    // Watchers that read nothing hold up no sync, and nobody waits for them to go.
    let (kept, dropped) = (follower.watch().await.expect("events"), follower.watch().await.expect("events"));
    let last = publisher.publish_many(5, "unread").await;
    follower.in_sync_at(publisher.peer_id(), last.seq).await;
    drop(dropped);
    let mut events = follower.events().await;
    let last = publisher.publish_text("after it").await;
    events.finished(last.head).await;
    tokio::time::timeout(Duration::from_secs(limits::SHUTDOWN_SECS), follower.shutdown())
        .await
        .expect("in time")
        .expect("stopped");
    drop(kept);
}
