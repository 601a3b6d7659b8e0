//! Whole syncs between two stores, over a pipe in memory.

use std::sync::{Arc, Mutex, atomic::Ordering};

use crate::support::{Feed, Local, Memory, leaf, node};
use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{
    Block, Blockstore, MemoryBlockstore, Root, Selector,
    walk::{Found, closure},
};
use dagmesh_dagsync::{
    Chain, Fetch, FetchConfig, FetchError, Flow,
    feed_sync::{BlockHook, EntryRef, FeedSync, Plan, Provider, Schema},
};
use futures_lite::future::block_on;

pub(crate) fn plan(feed: &Feed) -> Plan {
    let head = feed.head();
    Plan {
        schema: Schema::FEED,
        head: head.cid,
        seq: Some(head.seq),
        latest: None,
        depth: None,
        first_depth: None,
        keep: None,
        segment: None,
        saved: None,
    }
}

/// The plan of a follower that stands at entry `seq`.
fn plan_from(feed: &Feed, seq: usize) -> Plan {
    let latest = *feed.entries.get(seq - 1).expect("an entry");
    Plan { latest: Some((latest.cid, latest.seq)), ..plan(feed) }
}

pub(crate) fn empty() -> Arc<MemoryBlockstore> {
    Arc::new(MemoryBlockstore::new())
}

fn sync(store: &Arc<MemoryBlockstore>, journal: &Memory, plan: Plan) -> FeedSync<Memory> {
    FeedSync::new(store.clone(), journal.clone(), None, plan)
}

fn recorder() -> (Arc<Mutex<Vec<Cid>>>, Arc<dyn BlockHook>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let hook = move |block: &Block, _: bool| {
        into.lock().expect("a lock").push(*block.cid());
        Flow::Continue
    };
    (seen, Arc::new(hook))
}

#[test]
fn a_feed_is_whole_after_its_first_sync() {
    let mut feed = Feed::new();
    feed.append(50, 10);
    let (store, journal) = (empty(), Memory::default());
    let report = block_on(sync(&store, &journal, plan(&feed)).run(&Local::new(&feed.store))).expect("syncs");
    assert_eq!(store.len(), feed.store.len());
    assert_eq!(report.stats.blocks as usize, feed.store.len(), "each block travels once");
    assert_eq!(report.entries, 50);
    let kept = journal.0.lock().expect("a lock");
    assert_eq!(kept.moves, feed.entries, "latest moves over each entry, oldest first");
    assert_eq!(kept.saved, None, "nothing is left over");
}

#[test]
fn only_what_is_new_travels_and_latest_moves_entry_by_entry() {
    let mut feed = Feed::new();
    feed.append(10, 20);
    let (store, journal) = (empty(), Memory::default());
    block_on(sync(&store, &journal, plan(&feed)).run(&Local::new(&feed.store))).expect("syncs");
    feed.append(100, 20);
    let expected = feed.store.len() - store.len();
    let provider = Local::new(&feed.store);
    let report = block_on(sync(&store, &journal, plan_from(&feed, 10)).run(&provider)).expect("syncs");
    assert_eq!(report.entries, 100);
    // Each of the 20 plain leaves comes back once beside a tree that lacks it: held since long ago, yet not to be seen
    // from the trees alone.
    let travelled = report.stats.blocks as usize;
    assert!((expected..=expected + 20).contains(&travelled), "{travelled} blocks travelled where {expected} are new");
    assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries);
    assert_eq!(provider.requests.load(Ordering::SeqCst), 2, "one request a phase");
}

#[test]
fn held_leaves_are_not_asked_for_beside_one_that_is_missing() {
    let server = empty();
    let leaves: Vec<Block> = (0..5).map(|n| leaf(&n.to_string())).collect();
    server.put_many(&leaves).expect("puts");
    let store = empty();
    store.put_many(&[leaves[1].clone(), leaves[3].clone()]).expect("puts");
    let root =
        |(index, block): (usize, &Block)| (index, Root { cid: *block.cid(), selector: Selector::all(), held: None });
    let roots = leaves.iter().enumerate().map(root).collect();
    let mut fetch = Fetch::new(store.clone(), FetchConfig::default(), roots, ());
    let request = fetch.next_request().expect("a store").expect("something is missing");
    let asked: Vec<Cid> = request.roots.iter().map(|root| root.cid).collect();
    assert_eq!(asked, [*leaves[0].cid(), *leaves[2].cid(), *leaves[4].cid()]);
    let (fetch, result) = block_on(Local::new(&server).sync(fetch));
    result.expect("syncs");
    let stats = fetch.expect("a fetch").stats();
    assert_eq!((stats.blocks, stats.from_cache, stats.repeated), (3, 2, 0));
    assert_eq!(store.len(), 5);
}

#[test]
fn stop_link_is_neither_fetched_nor_hooked() {
    let mut feed = Feed::new();
    feed.append(20, 3);
    let (store, journal) = (empty(), Memory::default());
    let (seen, hook) = recorder();
    let mut sync = FeedSync::new(store.clone(), journal, Some(hook), plan_from(&feed, 15));
    block_on(sync.run(&Local::new(&feed.store))).expect("syncs");
    let stop = feed.entries[14].cid;
    assert!(!store.has(&stop).expect("has"));
    assert!(!seen.lock().expect("a lock").contains(&stop));
    let chain: Vec<_> = feed.entries[15..].iter().rev().map(|entry| entry.cid).collect();
    assert_eq!(seen.lock().expect("a lock")[..5], chain, "the chain first, newest first");
}

#[test]
fn a_sync_in_segments_is_the_same_as_in_one_piece() {
    let mut feed = Feed::new();
    feed.append(500, 2);
    let mut orders = Vec::new();
    for segment in [None, Some(7), Some(100)] {
        let (store, journal) = (empty(), Memory::default());
        let (seen, hook) = recorder();
        let mut sync = FeedSync::new(store.clone(), journal.clone(), Some(hook), Plan { segment, ..plan(&feed) });
        let report = block_on(sync.run(&Local::new(&feed.store))).expect("syncs");
        assert_eq!(store.len(), feed.store.len());
        assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries);
        if let Some(segment) = segment {
            assert!(report.stats.segments >= feed.store.len() as u64 / segment, "{:?}", report.stats);
        }
        // What is shared may be shown again in a later segment, as held; the order of first sights is the same.
        let mut first = Vec::new();
        for cid in seen.lock().expect("a lock").iter() {
            if !first.contains(cid) {
                first.push(*cid);
            }
        }
        orders.push(first);
    }
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[0], orders[2]);
}

#[test]
fn a_hook_ends_a_sync_at_once_and_keeps_what_came() {
    let mut feed = Feed::new();
    feed.append(100, 2);
    let tenth = feed.entries[90].cid;
    let hook = move |block: &Block, _: bool| {
        if *block.cid() == tenth { Flow::Fail("enough".into()) } else { Flow::Continue }
    };
    let (store, journal) = (empty(), Memory::default());
    let mut sync = FeedSync::new(store.clone(), journal.clone(), Some(Arc::new(hook)), plan(&feed));
    let error = block_on(sync.run(&Local::new(&feed.store))).expect_err("fails");
    assert!(matches!(&error, FetchError::Hook(reason) if reason == "enough"), "{error}");
    assert_eq!(store.len(), 10, "ten entries came, and none after the hook");
    assert_eq!(journal.0.lock().expect("a lock").moves, []);
}

#[test]
fn a_hook_sends_the_sync_elsewhere_at_once() {
    let mut feed = Feed::new();
    feed.append(100, 1);
    let (from, to) = (feed.entries[89].cid, feed.entries[9].cid);
    let (seen, _) = recorder();
    let into = Arc::clone(&seen);
    let hook = move |block: &Block, _: bool| {
        into.lock().expect("a lock").push(*block.cid());
        if *block.cid() == from { Flow::Next(to) } else { Flow::Continue }
    };
    let (store, journal) = (empty(), Memory::default());
    let mut sync = FeedSync::new(store.clone(), journal, Some(Arc::new(hook)), plan(&feed));
    // The chain has a hole now, so it is no whole feed; what the hook asked for has come all the same.
    block_on(sync.run(&Local::new(&feed.store))).expect_err("a hole");
    let expected: Vec<_> = feed.entries[89..].iter().rev().chain(feed.entries[..10].iter().rev()).collect();
    assert_eq!(*seen.lock().expect("a lock"), expected.iter().map(|entry| entry.cid).collect::<Vec<_>>());
    assert_eq!(store.len(), 21);
}

#[test]
fn a_sync_that_breaks_goes_on_where_it_stood() {
    let mut feed = Feed::new();
    feed.append(300, 30);
    let whole = feed.store.len() as u64;
    let (store, journal) = (empty(), Memory::default());
    let provider = Local::new(&feed.store);
    let mut travelled = 0;
    for cut in [20_000, 30_000, 40_000, 50_000, u64::MAX] {
        provider.cut_after.store(cut, Ordering::SeqCst);
        let before = store.len() as u64;
        let (latest, saved) = {
            let kept = journal.0.lock().expect("a lock");
            (kept.moves.last().map(|entry| (entry.cid, entry.seq)), kept.saved.clone())
        };
        let mut sync = sync(&store, &journal, Plan { latest, saved, ..plan(&feed) });
        let result = block_on(sync.run(&provider));
        assert_eq!(result.is_ok(), cut == u64::MAX, "{result:?}");
        travelled += store.len() as u64 - before;
    }
    assert_eq!(travelled, whole);
    assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries, "no entry is skipped, none moved twice");
    assert_eq!(store.len(), feed.store.len());
}

/// A fetch of the contents of these entries, which come one upon the other.
fn contents(store: &Arc<MemoryBlockstore>, entries: &[EntryRef]) -> Fetch<()> {
    let root = |(at, entry): (usize, &EntryRef)| {
        let held = at.checked_sub(1).and_then(|before| entries.get(before)).map(|before| before.content);
        (entry.seq as usize, Root { cid: entry.content, selector: Selector::all(), held })
    };
    let roots = entries.iter().enumerate().map(root).collect();
    Fetch::new(store.clone(), FetchConfig { chain: entries.into(), ..FetchConfig::default() }, roots, ())
}

#[test]
fn the_contents_of_a_thousand_entries_are_asked_for_by_the_ends_of_their_chain() {
    let mut feed = Feed::new();
    feed.append(1000, 3);
    let mut fetch = contents(&empty(), &feed.entries);
    let request = fetch.next_request().expect("walks").expect("there is something to ask for");
    let first = feed.entries[0];
    assert_eq!(request.roots.iter().map(|root| root.cid).collect::<Vec<_>>(), [first.content]);
    assert_eq!(request.chain, Some(Chain { after: first.cid, to: feed.head().cid }));
    assert!(request.encode().expect("encodes").len() < 500);

    // A leaf that is held is not sent again: what stands behind it is named, and all before one by one.
    let mut feed = Feed::new();
    for i in 0..10 {
        feed.append_content(*leaf(&i.to_string()).cid(), vec![leaf(&i.to_string())]);
    }
    let store = empty();
    store.put(&leaf("6")).expect("puts");
    let request = contents(&store, &feed.entries).next_request().expect("walks").expect("a request");
    assert_eq!(request.roots.len(), 6, "0 to 5, and not 6");
    assert_eq!(request.chain, Some(Chain { after: feed.entries[6].cid, to: feed.head().cid }));
}

#[test]
fn a_provider_that_holds_the_contents_and_not_the_chain_is_asked_for_them_one_by_one() {
    let mut feed = Feed::new();
    feed.append(40, 5);
    let bare = Arc::new(MemoryBlockstore::new());
    for entry in &feed.entries {
        for found in closure(feed.store.as_ref(), [entry.content]) {
            let Ok(Found::Block(block)) = found else { panic!("{found:?}") };
            bare.put(&block).expect("puts");
        }
    }
    let (store, provider) = (empty(), Local::new(&bare));
    let (fetch, result) = block_on(provider.sync(contents(&store, &feed.entries)));
    result.expect("syncs");
    assert_eq!(store.len(), bare.len());
    assert_eq!(fetch.expect("the fetch").stats().segments, 2, "once by the chain, once one by one");
}

#[test]
fn what_one_provider_lacks_comes_from_the_next() {
    let mut feed = Feed::new();
    feed.append(30, 5);
    let poor = Arc::new(MemoryBlockstore::new());
    let all: Vec<Cid> = feed.entries.iter().map(|entry| entry.cid).collect();
    for cid in &all {
        poor.put(&feed.store.block(cid).expect("gets").expect("is there")).expect("puts");
    }
    let (store, journal) = (empty(), Memory::default());
    let mut sync = sync(&store, &journal, plan(&feed));
    let error = block_on(sync.run(&Local::new(&poor))).expect_err("it has the chain alone");
    assert!(matches!(error, FetchError::Missing { count: 30, .. }), "{error}");
    assert_eq!(journal.0.lock().expect("a lock").moves, []);
    let rich = Local::new(&feed.store);
    let report = block_on(sync.run(&rich)).expect("syncs");
    assert_eq!(report.stats.blocks as usize, feed.store.len(), "nothing travels twice");
    assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries);
}

#[test]
fn a_provider_that_lacks_the_held_tree_is_asked_again_without_it() {
    // More than may be sent again, under inner nodes that differ from version to version.
    let leaves: Vec<Block> = (0..limits::MAX_REPEATED_BLOCKS + 5000).map(|i| leaf(&i.to_string())).collect();
    let version = |text: &str| {
        let inner =
            leaves.chunks(10_000).map(|leaves| node(text, &leaves.iter().map(|leaf| *leaf.cid()).collect::<Vec<_>>()));
        let inner: Vec<Block> = inner.collect();
        let root = node(text, &inner.iter().map(|inner| *inner.cid()).collect::<Vec<_>>());
        (root, inner)
    };
    let mut feed = Feed::new();
    let (old, old_inner) = version("old");
    feed.append_content(*old.cid(), [std::slice::from_ref(&old), &old_inner, &leaves].concat());
    let (store, journal) = (empty(), Memory::default());
    block_on(sync(&store, &journal, plan(&feed)).run(&Local::new(&feed.store))).expect("syncs");
    let (new, new_inner) = version("new");
    feed.append_content(*new.cid(), [std::slice::from_ref(&new), &new_inner].concat());
    feed.store.remove(&old_inner.iter().chain([&old]).map(|block| *block.cid()).collect::<Vec<_>>()).expect("removes");
    let report = block_on(sync(&store, &journal, plan_from(&feed, 1)).run(&Local::new(&feed.store))).expect("syncs");
    assert!(report.stats.repeated > limits::MAX_REPEATED_BLOCKS, "{:?}", report.stats);
    assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries);
}

#[test]
fn depth_counts_at_the_first_sync_alone_and_keep_takes_the_newest_contents() {
    let mut feed = Feed::new();
    feed.append(20, 4);
    let (store, journal) = (empty(), Memory::default());
    let first = Plan { first_depth: Some(5), keep: Some(2), ..plan(&feed) };
    let report = block_on(sync(&store, &journal, first).run(&Local::new(&feed.store))).expect("syncs");
    assert_eq!(report.entries, 5);
    assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries[15..]);
    let held: Vec<_> =
        feed.entries.iter().filter(|entry| store.has(&entry.content).expect("has")).map(|entry| entry.seq).collect();
    assert_eq!(held, [19, 20]);
    feed.append(10, 4);
    let then = Plan { first_depth: Some(5), ..plan_from(&feed, 20) };
    let report = block_on(sync(&store, &journal, then).run(&Local::new(&feed.store))).expect("syncs");
    assert_eq!(report.entries, 10, "a first-sync depth does not count where there is a stop link");
}

#[test]
fn a_history_that_does_not_lead_back_to_latest_is_refused() {
    let (mut feed, mut other) = (Feed::new(), Feed::new());
    feed.append(5, 2);
    other.append(3, 7);
    let foreign = other.head();
    let (store, journal) = (empty(), Memory::default());
    let plan = Plan { latest: Some((foreign.cid, foreign.seq)), ..plan(&feed) };
    let error = block_on(sync(&store, &journal, plan).run(&Local::new(&feed.store))).expect_err("another history");
    assert!(matches!(&error, FetchError::BadFeed(reason) if reason.contains("does not lead back")), "{error}");
    assert_eq!(journal.0.lock().expect("a lock").moves, []);
}
