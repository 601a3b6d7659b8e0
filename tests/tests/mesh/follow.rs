//! Following: what is synced, when, and how much of it.

use std::sync::{Arc, Condvar, Mutex};

use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    dag::{Block, FeedName},
    dagsync::Flow,
    ticket::Target,
    types::{
        AddRequest, ConnectRequest, Content, Event, FollowRequest, HeadRequest, PublishRequest, SyncRequest,
        TicketRequest, UnfollowRequest,
    },
};
use dagmesh_tests::{make_folder, wait_for};
use libp2p::PeerId;

use crate::support::{Peer, SOON};

/// Holds up every sync of a node while it is closed.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    closed: bool,
    waiting: usize,
}

impl Gate {
    fn hook(&self) -> impl Fn(&Block, bool) -> Flow + Send + Sync + 'static {
        let gate = self.clone();
        move |_, _| {
            let (state, changed) = &*gate.0;
            let mut state = state.lock().expect("the gate");
            state.waiting += 1;
            while state.closed {
                // A test that fails must not leave a thread that waits for ever.
                let (after, timeout) = changed.wait_timeout(state, SOON).expect("the gate");
                state = after;
                if timeout.timed_out() {
                    return Flow::Fail("nobody opened the gate".to_owned());
                }
            }
            state.waiting -= 1;
            Flow::Continue
        }
    }

    fn set_closed(&self, closed: bool) {
        self.0.0.lock().expect("the gate").closed = closed;
        self.0.1.notify_all();
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().expect("the gate").waiting
    }
}

/// What leads to a feed of this name.
async fn target_of(publisher: &Peer, feed: &FeedName) -> Target {
    let ticket = publisher.ticket(TicketRequest { feed: feed.clone() }).await.expect("a ticket").ticket;
    ticket.parse().expect("a target")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_announced_head_replaces_those_that_wait() {
    let gate = Gate::default();
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::hooked(gate.hook()));
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;

    let mut events = follower.events().await;
    gate.set_closed(true);
    let first = publisher.publish_text("1").await;
    wait_for(SOON, "a sync that is held up", async || gate.waiting() > 0).await;
    let last = publisher.publish_many(5, "more").await;
    let newest = |event: &Event| matches!(event, Event::HeadAnnounced { head, .. } if *head == last.head);
    events.until("the newest announcement", newest).await;
    gate.set_closed(false);
    let (count, blocks, ..) = events.finished(last.head).await;

    assert_eq!(events.started(), [first.head, last.head], "what waited between them was never synced by itself");
    assert_eq!((count, blocks), (5, 10), "and nothing of it is left out");
    assert_eq!(events.latest(), [2, 3, 4, 5, 6, 7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_holds_a_part_takes_the_rest_and_one_that_holds_all_fetches_the_entry_alone() {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_is_told_of_every_finished_sync_once() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let mut watchers = Vec::new();
    for _ in 0..20 {
        watchers.push(follower.events().await);
    }
    let mut heads = Vec::new();
    for n in 1..=3 {
        let published = publisher.publish_text(&n.to_string()).await;
        for watcher in &mut watchers {
            watcher.finished(published.head).await;
        }
        heads.push(published.head);
    }
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
async fn ten_publishers_are_followed_at_once() {
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
async fn the_depth_of_a_follow_bounds_its_first_sync_alone() {
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
