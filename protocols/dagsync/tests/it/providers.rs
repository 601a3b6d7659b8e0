//! Several providers at one sync.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use cid::Cid;
use dagmesh_dag::{
    Block, Blockstore, MemoryBlockstore, Selector,
    walk::{Root, Walk, WalkConfig},
};
use dagmesh_dagsync::{
    FetchError,
    feed_sync::{Failed, FeedSync, Plan, Report},
};
use futures::executor::block_on;

use crate::{
    support::{Feed, Local, Memory, leaf, node},
    sync::{empty, plan},
};

const INNER: usize = 40;
const LEAVES: usize = 50;
const LEAF_BYTES: usize = 4096;
/// About 12 MB/s: the feed takes a good half of a second, others join in before that.
const PACE: Duration = Duration::from_millis(5);

/// A feed of one entry with 8 MB of content, in leaves of 4 KiB under two levels of nodes.
fn wide() -> Feed {
    let mut feed = Feed::new();
    let (root, blocks) = tree(leaf_of);
    feed.append_content(root, blocks);
    feed
}

/// A tree of such leaves: its root, and its blocks.
fn tree(leaf: impl Fn(usize, usize) -> Block) -> (Cid, Vec<Block>) {
    let (mut blocks, mut inner) = (Vec::new(), Vec::new());
    for i in 0..INNER {
        let leaves: Vec<Block> = (0..LEAVES).map(|j| leaf(i, j)).collect();
        let above = node(&i.to_string(), &leaves.iter().map(|leaf| *leaf.cid()).collect::<Vec<_>>());
        inner.push(*above.cid());
        blocks.extend(leaves);
        blocks.push(above);
    }
    let root = node("root", &inner);
    let cid = *root.cid();
    blocks.push(root);
    (cid, blocks)
}

fn leaf_of(inner: usize, index: usize) -> Block {
    leaf(&format!("{inner} {index} ").repeat(LEAF_BYTES / 6))
}

/// A sync of the feed from these providers: what came of it, and who failed at what.
fn run(
    plan: Plan,
    store: &Arc<MemoryBlockstore>,
    journal: &Memory,
    providers: &[Local],
) -> (Result<Report, Failed>, Vec<(usize, String)>) {
    let mut failures = Vec::new();
    let mut sync = FeedSync::new(store.clone(), journal.clone(), None, plan);
    let result = block_on(sync.run_with(providers, &mut |index, error| failures.push((index, error.to_string()))));
    (result, failures)
}

fn assert_whole(feed: &Feed, store: &MemoryBlockstore, journal: &Memory) {
    assert_eq!(store.len(), feed.store.len());
    assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries);
}

/// What each provider brought, in parts of a hundred of the whole feed.
fn percents(feed: &Feed, report: &Report) -> Vec<u64> {
    report.shares.iter().map(|share| share.blocks * 100 / feed.store.len() as u64).collect()
}

#[test]
fn two_providers_bring_their_parts_at_the_same_time() {
    let (feed, store, journal) = (wide(), empty(), Memory::default());
    let providers = [Local::paced(&feed.store, PACE), Local::paced(&feed.store, PACE)];
    let (result, failures) = run(plan(&feed), &store, &journal, &providers);
    let report = result.expect("syncs");
    assert_whole(&feed, &store, &journal);
    assert_eq!(failures, []);
    let percents = percents(&feed, &report);
    assert!(percents.iter().all(|percent| *percent >= 10), "both took part: {percents:?}");
    assert!(percents.iter().sum::<u64>() <= 105, "hardly anything travels twice: {percents:?}");
}

#[test]
fn later_versions_are_walked_beside_earlier_ones_that_are_whole() {
    // Three versions of a wide tree, each with one leaf of its own in each node.
    let mut feed = Feed::new();
    for version in 0..3 {
        let (root, blocks) = tree(|i, j| if j == 9 { leaf_of(i + 1000 * version, j) } else { leaf_of(i, j) });
        feed.append_content(root, blocks);
    }
    let (store, journal) = (empty(), Memory::default());
    let providers = [Local::paced(&feed.store, PACE), Local::paced(&feed.store, PACE)];
    let (result, failures) = run(plan(&feed), &store, &journal, &providers);
    let report = result.expect("syncs");
    assert_whole(&feed, &store, &journal);
    assert_eq!(failures, [], "nobody is taken for a liar");
    let percents = percents(&feed, &report);
    assert!(percents.iter().all(|percent| *percent >= 10), "both took part: {percents:?}");
    assert!(percents.iter().sum::<u64>() <= 110, "what the versions share travels once: {percents:?}");
}

#[test]
fn a_small_sync_asks_one_provider_alone() {
    let mut feed = Feed::new();
    feed.append(20, 10);
    let (store, journal) = (empty(), Memory::default());
    let providers = [Local::new(&feed.store), Local::new(&feed.store)];
    let (result, _) = run(plan(&feed), &store, &journal, &providers);
    assert_eq!(result.expect("syncs").shares.iter().map(|share| share.segments).filter(|count| *count > 0).count(), 1);
    assert_whole(&feed, &store, &journal);
}

#[test]
fn the_fast_one_does_what_the_slow_one_does_not() {
    let (feed, store, journal) = (wide(), empty(), Memory::default());
    let providers = [Local::paced(&feed.store, PACE * 40), Local::paced(&feed.store, PACE)];
    let (result, _) = run(plan(&feed), &store, &journal, &providers);
    let percents = percents(&feed, &result.expect("syncs"));
    assert_whole(&feed, &store, &journal);
    assert!(percents.last().is_some_and(|percent| *percent >= 70), "{percents:?}");
}

#[test]
fn one_that_falls_silent_is_relieved() {
    let (feed, store, journal) = (wide(), empty(), Memory::default());
    let silent = Local { silent_after: 1_000_000, ..Local::paced(&feed.store, PACE) };
    let providers = [silent, Local::paced(&feed.store, PACE)];
    let (result, failures) = run(plan(&feed), &store, &journal, &providers);
    result.expect("syncs");
    assert_whole(&feed, &store, &journal);
    assert!(matches!(failures.as_slice(), [(0, reason)] if reason.contains("another one")), "{failures:?}");
}

#[test]
fn what_one_withholds_comes_from_the_other() {
    let (feed, store, journal) = (wide(), empty(), Memory::default());
    // It lacks a leaf of each inner node.
    let poor = Arc::new(MemoryBlockstore::new());
    let withheld: HashSet<Cid> = (0..INNER).map(|i| *leaf_of(i, 7).cid()).collect();
    let root = Root { cid: feed.head().cid, selector: Selector::all(), held: None };
    let mut walk = Walk::new(WalkConfig::default(), vec![root]);
    while let Some(visit) = walk.next_visit() {
        let block = feed.store.block(&visit.cid).expect("gets").expect("is there");
        walk.enter(&visit, &block, None).expect("walks");
        if !withheld.contains(&visit.cid) {
            poor.put(&block).expect("puts");
        }
    }
    assert_eq!(poor.len(), feed.store.len() - INNER);
    let providers = [Local::paced(&poor, PACE), Local::paced(&feed.store, PACE)];
    let (result, failures) = run(plan(&feed), &store, &journal, &providers);
    result.expect("syncs");
    assert_whole(&feed, &store, &journal);
    assert!(failures.iter().all(|(index, _)| *index == 0), "{failures:?}");
}

#[test]
fn a_provider_that_lacks_everything_leaves_it_to_the_next() {
    let (feed, store, journal) = (wide(), empty(), Memory::default());
    let providers = [Local::new(&empty()), Local::new(&feed.store)];
    let (result, failures) = run(plan(&feed), &store, &journal, &providers);
    let report = result.expect("syncs");
    assert_whole(&feed, &store, &journal);
    assert_eq!(percents(&feed, &report), [0, 100]);
    assert!(matches!(failures.as_slice(), [(0, reason)] if reason.contains("missing at the peer")), "{failures:?}");
}

#[test]
fn where_all_fail_half_way_the_next_run_goes_on_from_the_sum_of_their_parts() {
    let (feed, store, journal) = (wide(), empty(), Memory::default());
    let cut = |bytes| Local { cut_after: Arc::new(AtomicU64::new(bytes)), ..Local::paced(&feed.store, PACE) };
    let (result, failures) = run(plan(&feed), &store, &journal, &[cut(5_000_000), cut(1_500_000)]);
    let failed = result.expect_err("both break");
    assert!(matches!(failed.error, FetchError::Stream(_)), "{failed}");
    assert_eq!(failures.len(), 2, "{failures:?}");
    let held = store.len();
    assert!(held * 10 > feed.store.len() * 3, "{held} blocks");
    let saved = journal.0.lock().expect("a lock").saved.clone().expect("where it stands");
    let waiting = saved.frontier.len();
    let (result, _) = run(Plan { saved: Some(saved), ..plan(&feed) }, &store, &journal, &[Local::new(&feed.store)]);
    let stats = result.expect("syncs").stats;
    assert_whole(&feed, &store, &journal);
    assert_eq!(stats.blocks as usize, feed.store.len() - held, "nothing travels twice");
    // The chain is one entry and was whole; of the content it walks what was left alone.
    assert!(stats.from_cache as usize <= waiting + 2, "{stats:?}, {waiting} links waited");
}
