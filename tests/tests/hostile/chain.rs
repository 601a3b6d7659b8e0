//! Chains without end, and chains that lead elsewhere: rows 10 and 11.

use std::time::Duration;

use cid::Cid;
use dagmesh::{
    Api,
    api::ProgressSink,
    dag::{Entry, FeedName, Selector},
    types::{Event, FollowRequest, FollowState, SyncRequest},
};
use dagmesh_core::limits;
use dagmesh_tests::{
    Daemon,
    hostile::{
        Hostile,
        dag::{Feed, leaf},
        script::{Step, honest, refused, steps},
    },
    peer::{Peer, SOON},
    wait_for,
};

use crate::scene::{announce, failed};

/// Entries of a chain that is served as if it had no end.
const LONG: usize = 2000;

/// A chain of so many entries that all carry the same.
fn long_feed(hostile: &Hostile, name: &str, entries: usize) -> Feed {
    let mut feed = Feed::new(hostile.key()).beside(FeedName::new(name).expect("a name"));
    let content = leaf(name);
    feed.put(std::slice::from_ref(&content));
    for _ in 0..entries {
        feed.append(*content.cid(), None);
    }
    feed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_a_chain_without_end_keeps_no_other_publisher_waiting_and_goes_on_where_it_stood() {
    let (hostile, honest_one, follower) = tokio::join!(Hostile::start(), Peer::start(), Peer::start());
    // As many feeds as there are syncs at once, each entry so late that the minimum rate is kept and nothing ends.
    let feeds: Vec<Feed> = (0..limits::MAX_SYNCS).map(|n| long_feed(&hostile, &format!("{n}"), LONG)).collect();
    hostile.tell(&feeds.iter().map(Feed::head).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    let of = |feeds: &[Feed], root: Cid| feeds.iter().find(|feed| feed.entries().contains(&root)).cloned();
    let slow = feeds.clone();
    hostile.answer(move |asked| {
        let Some(feed) = of(&slow, asked.roots()[0]) else { return refused("only chains") };
        let frames = honest(&feed.blocks(), &asked.request).enumerate();
        Box::new(frames.flat_map(|(n, frame)| {
            let wait = n.is_multiple_of(16).then_some(Step::Wait(Duration::from_millis(200)));
            wait.into_iter().chain([frame.into()])
        }))
    });
    for feed in &feeds {
        let request = FollowRequest::new(hostile.target_of(feed.head().feed()));
        follower.follow(request, ProgressSink::none()).await.expect("followed");
    }
    let running = hostile.asked(limits::MAX_SYNCS / 2).await;
    honest_one.publish_text("honest").await;
    follower.follow_wait(FollowRequest::new(honest_one.target().await)).await;
    assert!(running.iter().all(|exchange| !exchange.is_over()), "while they go on");
    assert_eq!(hostile.exchanges().len(), limits::MAX_SYNCS / 2, "one publisher leaves room for others");

    // What has come is made durable as it comes, and a restart goes on from there.
    let first = running[0].asked().roots()[0];
    let feed = feeds.iter().find(|feed| feed.entries().contains(&first)).expect("one of them");
    let tenth = feed.entries()[LONG - 10];
    wait_for(SOON, "ten entries on disk", async || follower.holds(&tenth)).await;
    follower.shutdown().await.expect("stopped");
    let before = hostile.exchanges().len();
    let blocks: Vec<Feed> = feeds.clone();
    hostile.answer(move |asked| {
        let of = |feed: &&Feed| {
            feed.entries().contains(&asked.roots()[0]) || asked.roots()[0] == *leaf(feed.head().feed().as_str()).cid()
        };
        match blocks.iter().find(of) {
            Some(feed) => steps(honest(&feed.blocks(), &asked.request)),
            None => refused("it is none of these"),
        }
    });
    let follower = follower.again().await;
    for feed in &feeds {
        let name = feed.head().feed().clone();
        wait_for(SOON, "a feed that is in sync", async || {
            let follows = follower.follows().await.expect("follows");
            follows.iter().any(|follow| follow.feed == name && follow.state == FollowState::InSync)
        })
        .await;
    }
    let again = hostile.exchanges().split_off(before);
    let resumed = again.iter().map(|exchange| exchange.asked().roots()[0]).find(|root| feed.entries().contains(root));
    let place = feed.entries().iter().position(|entry| Some(*entry) == resumed).expect("an entry of it");
    assert!(place <= LONG - 10, "the walk goes on at entry {place} of {LONG}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_depth_and_segment_are_caps_that_a_server_cannot_pass() {
    let (hostile, follower) = tokio::join!(Hostile::start(), Peer::start());
    let feed = long_feed(&hostile, "main", LONG);
    hostile.tell(&[&feed.head()]);
    hostile.serve(&feed.store());
    let head = feed.entries()[LONG - 1];

    let mut events = follower.events().await;
    follower.follow_wait(FollowRequest { depth: Some(10), ..FollowRequest::new(hostile.target()) }).await;
    let (entries, blocks, ..) = events.finished(head).await;
    assert_eq!((entries, blocks), (10, 11), "ten entries, and what they all carry");
    assert!(!follower.holds(&feed.entries()[LONG - 11]));

    let other = Peer::start().await;
    let from = hostile.exchanges().len();
    let request = SyncRequest { segment: Some(300), ..SyncRequest::new(hostile.target()) };
    let synced = other.sync(request, ProgressSink::none()).await.expect("synced");
    assert_eq!((synced.entries, synced.blocks), (LONG as u64, LONG as u64 + 1));
    let segments: Vec<_> = hostile.exchanges().split_off(from).iter().map(|it| it.asked().clone()).collect();
    let chain: Vec<_> = segments.iter().filter(|asked| asked.request.blocks == 300).collect();
    assert!(chain.len() > LONG / 300, "{} requests", chain.len());
    let places = chain.iter().filter_map(|asked| feed.entries().iter().position(|entry| *entry == asked.roots()[0]));
    assert!(places.clone().is_sorted_by(|before, after| before > after), "each goes on where the one before ended");

    // A server that sends more than a depth of 10 sends what was not asked for.
    let greedy = Hostile::with_key(hostile.key().clone()).await;
    drop(hostile);
    greedy.tell(&[&feed.head()]);
    let blocks = feed.blocks();
    greedy.answer(move |asked| {
        let mut request = asked.request.clone();
        for root in request.roots.iter_mut().filter(|root| root.selector != Selector::matcher()) {
            root.selector = Selector::chain(Entry::CHAIN_FIELD, None, None);
        }
        steps(honest(&blocks, &request))
    });
    let another = Peer::start().await;
    let request = SyncRequest { depth: Some(10), ..SyncRequest::new(greedy.target()) };
    let error = another.sync(request, ProgressSink::none()).await.expect_err("more than was asked for");
    assert!(error.to_string().contains("where nothing was next"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_the_memory_of_a_long_chain_does_not_grow_with_it() {
    let (mut daemon, hostile) = tokio::join!(Daemon::start(), Hostile::start());
    let pad = ipld_core::ipld::Ipld::Bytes(vec![7; limits::MAX_ENTRY_META_BYTES - 16]);
    let mut feed = Feed::new(hostile.key());
    let content = leaf("content");
    feed.put(std::slice::from_ref(&content));
    let mut grown = Vec::new();
    for entries in [2000, 8000] {
        for _ in 0..entries {
            feed.append(*content.cid(), Some(pad.clone()));
        }
        hostile.serve(&feed.store());
        hostile.tell(&[&feed.head()]);
        daemon.json(&["sync", &hostile.addr().to_string()]).await;
        grown.extend(daemon.memory().map(|memory| memory.peak));
    }
    println!("{grown:?}");
    // The second sync moves 250 MiB, four times what the first one moved; the store's own buffers fill up meanwhile.
    assert!(grown.is_sorted_by(|before, after| *after < before + (192 << 20)), "{grown:?}");
    assert!(daemon.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_a_chain_that_never_meets_the_stop_link_moves_no_latest() {
    let (hostile, follower) = tokio::join!(Hostile::start(), Peer::start());
    let mut events = follower.events().await;
    let mut feed = Feed::new(hostile.key());
    feed.publish_text("common");
    let mut other = feed.clone();
    let known = feed.publish_text("the history that is known");
    for n in 0..20 {
        other.publish_text(&format!("another history {n}"));
    }
    hostile.serve(&feed.store());
    hostile.tell(&[&known]);
    follower.follow_wait(FollowRequest::new(hostile.target())).await;

    hostile.tell(&[&other.head()]);
    announce(&hostile, &follower, &other.head()).await;
    let follow = failed(&follower, hostile.peer_id(), &FeedName::default()).await;
    let reason = follow.reason.expect("a reason");
    assert!(reason.contains("does not lead back") && reason.contains(&known.head().to_string()), "{reason}");
    assert_eq!((follow.latest, follow.latest_seq), (Some(*known.head()), Some(2)));
    events.until("a sync that failed", |event| matches!(event, Event::SyncFailed { .. })).await;
    assert_eq!(events.latest(), [1, 2], "`latest` is not moved");
    assert!(!follower.holds(leaf("another history 19").cid()), "and no content is fetched for it");

    // One sync with a stop link that is in no chain reaches the chain's start, and says so.
    let nowhere = *leaf("in no chain").cid();
    let request = SyncRequest { stop: Some(nowhere), ..SyncRequest::new(hostile.target()) };
    let error = follower.sync(request, ProgressSink::none()).await.expect_err("it is never met");
    assert!(error.to_string().contains("does not lead back") && error.to_string().contains(&nowhere.to_string()));

    // What a person decides counts: with another `latest`, the other history is taken.
    let start = Some((other.entries()[0], 1));
    follower.set_latest(hostile.peer_id(), FeedName::default(), start).await.expect("set");
    let follow = follower.in_sync_at(hostile.peer_id(), 21).await;
    assert_eq!(follow.latest, Some(*other.head().head()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_an_entry_whose_number_is_not_its_place_is_another_history() {
    let (hostile, follower) = tokio::join!(Hostile::start(), Peer::start());
    let feed = long_feed(&hostile, "main", 50);
    hostile.serve(&feed.store());
    // The head says 1,000 where the chain has 50.
    hostile.tell(&[&feed.sign(feed.entries()[49], 1000)]);
    follower.follow(FollowRequest::new(hostile.target()), ProgressSink::none()).await.expect("followed");
    let follow = failed(&follower, hostile.peer_id(), &FeedName::default()).await;
    assert!(follow.reason.is_some_and(|reason| reason.contains("has number 50, not 1000")));
    assert_eq!(follow.latest, None);
}
