//! Following: what is synced, when, and how much of it.

use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    dag::FeedName,
    ticket::Target,
    types::{
        ConnectRequest, Content, FollowRequest, HeadRequest, PublishRequest, SyncRequest, TicketRequest,
        UnfollowRequest,
    },
};
use dagmesh_tests::wait_for;
use libp2p::PeerId;

use crate::support::{Peer, SOON};

/// What leads to a feed of this name.
async fn target_of(publisher: &Peer, feed: &FeedName) -> Target {
    let ticket = publisher.ticket(TicketRequest { feed: feed.clone() }).await.expect("a ticket").ticket;
    ticket.parse().expect("a target")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unfollowed_is_synced_no_more() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    let (left, kept) = (FeedName::default(), FeedName::new("kept").expect("a name"));
    let content = publisher.publish_text("0").await.content;
    let publish = async |feed: &FeedName, text: &str| {
        let path = publisher.write("published", text);
        let request = PublishRequest { feed: feed.clone(), ..PublishRequest::new(Content::Path(path)) };
        publisher.publish(request, ProgressSink::none()).await.expect("published")
    };
    publish(&kept, "0").await;
    for feed in [&left, &kept] {
        follower.follow_wait(FollowRequest::new(target_of(&publisher, feed).await)).await;
    }
    let mut events = follower.events().await;
    let unfollow = UnfollowRequest { target: Target::Peer(publisher.peer_id()), feed: Some(left.clone()) };
    let unfollowed = follower.unfollow(unfollow.clone()).await.expect("unfollowed");
    assert_eq!((unfollowed.publisher, unfollowed.feeds), (publisher.peer_id(), vec![left.clone()]));

    let missed = publish(&left, "1").await;
    let taken = publish(&kept, "2").await;
    events.finished(taken.head).await;
    assert_eq!(events.started(), [taken.head]);
    assert!(!follower.holds(&missed.head));
    assert!(follower.holds(&content), "what was fetched stays");
    let feeds: Vec<_> = follower.follows().await.expect("follows").into_iter().map(|follow| follow.feed).collect();
    assert_eq!(feeds, [kept]);
    let error = follower.unfollow(unfollow).await.expect_err("it is not followed any more");
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_bounds_the_contents_and_takes_the_whole_chain() {
    let publisher = Peer::start().await;
    let last = publisher.publish_many(10, "kept").await;
    for keep in [0, 2] {
        let follower = Peer::start().await;
        let request = FollowRequest { keep: Some(keep), ..FollowRequest::new(publisher.target().await) };
        let follow = follower.follow_wait(request).await;
        assert_eq!(follow.latest_seq, Some(10));
        for (n, (cid, entry)) in (0..).zip(publisher.chain(last.head)) {
            assert!(follower.holds(&cid), "entry {}", entry.seq);
            assert_eq!(follower.holds(&entry.content), n < keep, "content of entry {}", entry.seq);
        }
        let report = follower.repo_verify(ProgressSink::none()).await.expect("verified");
        assert_eq!((report.checked, report.damaged), (10 + keep, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resync_walks_the_whole_chain_again_and_fetches_only_what_is_missing() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    let last = publisher.publish_many(10, "again").await;
    let target = publisher.target().await;
    let keep = FollowRequest { keep: Some(4), ..FollowRequest::new(target.clone()) };
    follower.follow_wait(keep).await;

    let none = follower.sync(SyncRequest::new(target.clone()), ProgressSink::none()).await.expect("synced");
    assert_eq!((none.entries, none.blocks, none.stop), (0, 0, Some(last.head)), "nothing is new");
    let request = SyncRequest { resync: true, ..SyncRequest::new(target.clone()) };
    let all = follower.sync(request, ProgressSink::none()).await.expect("synced");
    assert_eq!((all.entries, all.blocks, all.stop), (10, 6, None), "the contents that were not kept");
    let stop = publisher.chain(last.head)[3].0;
    let request = SyncRequest { stop: Some(stop), ..SyncRequest::new(target.clone()) };
    let some = follower.sync(request, ProgressSink::none()).await.expect("synced");
    assert_eq!((some.entries, some.blocks, some.stop), (3, 0, Some(stop)), "down to the link that was asked for");
    let request = SyncRequest { depth: Some(2), resync: true, ..SyncRequest::new(target) };
    let two = follower.sync(request, ProgressSink::none()).await.expect("synced");
    assert_eq!((two.entries, two.blocks), (2, 0));

    // A sync that was bounded leaves nothing that counts as missing.
    let other = Peer::start().await;
    let request = SyncRequest { depth: Some(2), ..SyncRequest::new(publisher.target().await) };
    let two = other.sync(request, ProgressSink::none()).await.expect("synced");
    assert_eq!((two.entries, two.blocks), (2, 4));
    let report = other.repo_verify(ProgressSink::none()).await.expect("verified");
    assert_eq!((report.checked, report.damaged, report.missing), (4, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_can_be_set_and_the_sync_stops_there() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    let last = publisher.publish_many(10, "set").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let (from, feed) = (publisher.peer_id(), FeedName::default());
    let fifth = publisher.chain(last.head)[5].0;

    let mut events = follower.events().await;
    follower.set_latest(from, feed.clone(), Some((fifth, 5))).await.expect("set");
    let (count, blocks, ..) = events.finished(last.head).await;
    assert_eq!((count, blocks), (5, 0));
    assert_eq!(events.latest(), [6, 7, 8, 9, 10]);

    let mut events = follower.events().await;
    follower.set_latest(from, feed.clone(), None).await.expect("set");
    let (count, blocks, ..) = events.finished(last.head).await;
    assert_eq!((count, blocks), (10, 0));
    assert_eq!(events.latest(), (1..=10).collect::<Vec<_>>());
    let error = follower.set_latest(PeerId::random(), feed, None).await.expect_err("nobody follows that");
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_sees_when_its_head_was_fetched_and_confirmed() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let published = publisher.publish_text("1").await;
    follower.in_sync_at(publisher.peer_id(), 2).await;
    wait_for(SOON, "a head that is announced, fetched and confirmed", async || {
        let feeds = publisher.status().await.expect("a status").feeds;
        let feed = feeds.into_iter().find(|feed| feed.head == published.head).expect("the feed");
        feed.announced.is_some() && feed.fetched.is_some() && feed.confirmed_by == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_reach_a_publisher_at_once_are_all_answered() {
    let publisher = Peer::start().await;
    let last = publisher.publish_many(2, "wanted").await;
    let target = publisher.target().await;
    let peers = futures::future::join_all((0..4).map(|_| Peer::start())).await;
    for peer in &peers {
        peer.connect(ConnectRequest { addr: publisher.tcp_addr().await }).await.expect("connected");
    }
    // Four each: under the cap of what one peer may ask at once.
    let asked = peers.iter().flat_map(|peer| (0..4).map(move |_| peer)).map(async |peer| {
        let request = HeadRequest { target: Some(target.clone()), feed: None };
        assert_eq!(peer.head(request).await.expect("a head").head, last.head);
        let request = SyncRequest { resync: true, ..SyncRequest::new(target.clone()) };
        let synced = peer.sync(request, ProgressSink::none()).await.expect("synced");
        assert_eq!((synced.entries, synced.blocks + synced.from_cache), (2, 4));
    });
    futures::future::join_all(asked).await;
}
