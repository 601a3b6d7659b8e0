//! Syncs from a peer that serves single blocks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits::MAX_PIECEWISE_REQUESTS;
use dagmesh_dag::{Block, Blockstore, Entry, MemoryBlockstore, Root, Selector};
use dagmesh_dagsync::{
    Fetch, FetchConfig, FetchError, Flow, Observer,
    feed_sync::{BlockHook, FeedSync, Link, Phase, Plan, Provider, Schema},
    piecewise::{self, Blocks},
};
use futures_lite::future::{block_on, or};
use futures_timer::Delay;

use crate::{
    support::{Feed, Local, Memory, leaf, node},
    sync::{empty, plan},
};

/// A peer that serves single blocks, each after `delay`.
struct Single {
    store: Arc<MemoryBlockstore>,
    delay: Duration,
    /// Falls silent after so many.
    left: AtomicU64,
    asked: Mutex<Vec<Cid>>,
    running: AtomicUsize,
    most: AtomicUsize,
    /// Serves this one as other bytes.
    false_one: Option<Cid>,
}

impl Single {
    fn new(store: &Arc<MemoryBlockstore>) -> Self {
        Self {
            store: Arc::clone(store),
            delay: Duration::from_micros(100),
            left: AtomicU64::new(u64::MAX),
            asked: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            false_one: None,
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("a lock").len()
    }
}

impl Blocks for Single {
    async fn block(&self, cid: Cid) -> Result<Option<Bytes>, FetchError> {
        self.asked.lock().expect("a lock").push(cid);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            std::future::pending::<()>().await;
        }
        // The later ones of a window come first.
        Delay::new(self.delay * (64 - running.min(63)) as u32).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        if self.false_one == Some(cid) {
            return Ok(Some(Bytes::from_static(b"something else")));
        }
        Ok(self.store.get(&cid).expect("a store"))
    }
}

impl Provider for Single {
    async fn sync<O: Observer>(&self, fetch: Fetch<O>) -> (Option<Fetch<O>>, Result<(), FetchError>) {
        piecewise::sync(self, fetch).await
    }
}

#[test]
fn a_feed_comes_block_by_block_each_once_and_many_at_a_time() {
    let mut feed = Feed::new();
    feed.append(40, 20);
    let (store, journal, peer) = (empty(), Memory::default(), Single::new(&feed.store));
    let mut sync = FeedSync::new(store.clone(), journal.clone(), None, plan(&feed));
    let report = block_on(sync.run(&peer)).expect("syncs");
    assert_eq!((store.len(), report.entries), (feed.store.len(), 40));
    assert_eq!((report.stats.blocks as usize, peer.asked()), (feed.store.len(), feed.store.len()));
    let most = peer.most.load(Ordering::SeqCst);
    assert!((8..=MAX_PIECEWISE_REQUESTS + 1).contains(&most), "{most} were asked for at once");
    assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries);
}

#[test]
fn blocks_are_hooked_in_the_order_of_the_walk_whatever_order_they_come_in() {
    let mut feed = Feed::new();
    feed.append(3, 40);
    let mut orders = Vec::new();
    for native in [true, false] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let hook: Arc<dyn BlockHook> = Arc::new(move |block: &Block, _: bool| {
            into.lock().expect("a lock").push(*block.cid());
            Flow::Continue
        });
        let mut sync = FeedSync::new(empty(), Memory::default(), Some(hook), plan(&feed));
        match native {
            true => block_on(sync.run(&Local::new(&feed.store))).expect("syncs"),
            false => block_on(sync.run(&Single::new(&feed.store))).expect("syncs"),
        };
        orders.push(std::mem::take(&mut *seen.lock().expect("a lock")));
    }
    // The native protocol compares each content with the one before: what is held again is passed over unseen.
    let [native, single] = &orders[..] else { panic!("two orders") };
    let mut once = Vec::new();
    for cid in single.iter().filter(|cid| native.contains(cid)) {
        if !once.contains(cid) {
            once.push(*cid);
        }
    }
    assert_eq!(once, *native);
}

#[test]
fn segments_and_hooks_that_send_the_walk_elsewhere_work_as_over_a_stream() {
    let chain: Vec<Block> = (0..30).fold(Vec::new(), |mut chain: Vec<Block>, n| {
        let links: Vec<Cid> = chain.last().iter().map(|block| *block.cid()).collect();
        chain.push(node(&n.to_string(), &links));
        chain
    });
    let server = empty();
    server.put_many(&chain).expect("puts");
    let root = |cid: Cid| vec![(0, Root { cid, selector: Selector::all(), held: None })];
    struct Jump(Cid, Cid, Vec<Cid>);
    impl Observer for Jump {
        fn block(&mut self, _: usize, _: &dagmesh_dag::Visit, block: &Block, _: bool) -> Flow {
            self.2.push(*block.cid());
            if *block.cid() == self.0 { Flow::Next(self.1) } else { Flow::Continue }
        }
    }
    let at = |n: usize| *chain[n].cid();
    let config = FetchConfig { segment: Some(4), ..FetchConfig::default() };
    let fetch = Fetch::new(empty(), config, root(at(29)), Jump(at(25), at(3), Vec::new()));
    let peer = Single::new(&server);
    let (fetch, result) = block_on(piecewise::sync(&peer, fetch));
    result.expect("syncs");
    let fetch = fetch.expect("a fetch");
    assert_eq!(fetch.stats().segments, 3, "two of 29 to 25 (four and one), then 3 to 0");
    let walked: Vec<Cid> = (25..30).rev().chain((0..4).rev()).map(at).collect();
    assert_eq!(fetch.into_observer().2, walked);
    assert_eq!(*peer.asked.lock().expect("a lock"), walked);
}

#[test]
fn what_one_peer_lacks_comes_from_another_and_a_false_block_is_told() {
    let [mut feed, mut other] = [Feed::new(), Feed::new()];
    feed.append(1, 10);
    other.append(1, 10);
    let (lacking, missing) = (other.store, *leaf("3").cid());
    lacking.remove(&[missing]).expect("removes");
    let (store, journal) = (empty(), Memory::default());
    let mut sync = FeedSync::new(store.clone(), journal, None, plan(&feed));
    let first = block_on(sync.run(&Single::new(&lacking))).expect_err("one is missing");
    assert!(matches!(&first, FetchError::Missing { count: 1, first } if **first == missing), "{first}");
    let liar = Single { false_one: Some(missing), ..Single::new(&feed.store) };
    let lie = block_on(sync.run(&liar)).expect_err("a false block");
    assert!(matches!(lie, FetchError::FalseBlock(_)) && lie.is_bad_peer(), "{lie}");
    let honest = Single::new(&feed.store);
    block_on(sync.run(&honest)).expect("syncs");
    assert_eq!((store.len(), honest.asked()), (feed.store.len(), 1), "only what was missing is asked for again");
}

#[test]
fn what_came_before_a_sync_is_dropped_is_kept() {
    let mut feed = Feed::new();
    feed.append(1, 60);
    let (store, walked) = (empty(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&walked);
    let hook: Arc<dyn BlockHook> = Arc::new(move |_: &Block, _: bool| {
        count.fetch_add(1, Ordering::SeqCst);
        Flow::Continue
    });
    let peer = Single { left: AtomicU64::new(20), ..Single::new(&feed.store) };
    let mut sync = FeedSync::new(store.clone(), Memory::default(), Some(hook), plan(&feed));
    let until_walked = async {
        while walked.load(Ordering::SeqCst) < 20 {
            Delay::new(Duration::from_millis(1)).await;
        }
    };
    block_on(or(async { drop(sync.run(&peer).await) }, until_walked));
    drop(sync);
    // A thread of its own makes it durable.
    block_on(async {
        for _ in 0..10_000 {
            if store.len() >= 20 {
                return;
            }
            Delay::new(Duration::from_millis(1)).await;
        }
        panic!("{} blocks were kept", store.len());
    });
}

#[test]
fn the_content_of_an_entry_that_is_refused_is_left_out_and_the_chain_goes_on() {
    const DOUBT: Schema = Schema {
        accept: |block| match Entry::from_block(block).map_err(|error| error.to_string())?.seq {
            2 | 4 => Err("not believed".into()),
            _ => Ok(()),
        },
        ..Schema::FEED
    };
    let mut feed = Feed::new();
    feed.append(4, 3);
    let (store, journal) = (empty(), Memory::default());
    let mut sync = FeedSync::new(store.clone(), journal.clone(), None, Plan { schema: DOUBT, ..plan(&feed) });
    let report = block_on(sync.run(&Single::new(&feed.store))).expect("syncs");
    assert_eq!(journal.0.lock().expect("a lock").moves, feed.entries);
    let held: Vec<_> = feed.entries.iter().map(|entry| store.has(&entry.content).expect("a store")).collect();
    assert_eq!(held, [true, false, true, false]);
    let refused = [3, 1].map(|at: usize| (feed.entries[at].cid, "not believed".to_owned()));
    assert_eq!(report.refused, refused);
}

#[test]
fn entries_without_numbers_are_counted_from_the_stop_link_on() {
    const BARE: Schema = Schema {
        read: |block| {
            let entry = Entry::from_block(block).map_err(|error| error.to_string())?;
            Ok(Link { seq: None, previous: entry.previous, content: entry.content })
        },
        grows: false,
        ..Schema::FEED
    };
    let mut feed = Feed::new();
    feed.append(9, 2);
    let (store, journal) = (empty(), Memory::default());
    let first = Plan { schema: BARE, seq: None, first_depth: Some(4), ..plan(&feed) };
    let run = |plan: Plan, peer: &Arc<MemoryBlockstore>| {
        let mut sync = FeedSync::new(store.clone(), journal.clone(), None, plan);
        block_on(sync.run(&Single::new(peer))).expect("syncs")
    };
    assert_eq!(run(first.clone(), &feed.store).entries, 4);
    let moves = |from: usize| -> Vec<_> {
        journal.0.lock().expect("a lock").moves[from..].iter().map(|entry| (entry.seq, entry.cid)).collect()
    };
    let expected: Vec<_> = feed.entries[5..].iter().zip(1..).map(|(entry, seq)| (seq, entry.cid)).collect();
    assert_eq!(moves(0), expected, "the oldest one fetched is number 1");
    let latest = Some((feed.head().cid, 4));
    feed.append(2, 2);
    let then = Plan { latest, head: feed.head().cid, ..first.clone() };
    assert_eq!(run(then.clone(), &feed.store).entries, 2);
    let expected: Vec<_> = feed.entries[9..].iter().zip(5..).map(|(entry, seq)| (seq, entry.cid)).collect();
    assert_eq!(moves(4), expected);
    // What an earlier sync saved counts only for its own head: another one counts its entries differently.
    let other = dagmesh_dagsync::feed_sync::Saved {
        head: feed.entries[0].cid,
        phase: Phase::Content { upto: 100 },
        frontier: Vec::new(),
    };
    let fresh = empty();
    let mut sync = FeedSync::new(
        fresh.clone(),
        Memory::default(),
        None,
        Plan { saved: Some(other), latest: None, first_depth: None, ..then },
    );
    block_on(sync.run(&Single::new(&feed.store))).expect("syncs");
    assert_eq!(fresh.len(), feed.store.len());
}
