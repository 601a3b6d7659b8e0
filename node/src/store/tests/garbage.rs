//! Garbage: what must stay stays, the rest goes, whatever happens meanwhile.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use dagmesh_core::cbor;
use dagmesh_dag::{FeedName, SignedHead};
use libp2p::identity::Keypair;

use super::{tables::entry, *};

/// A node that links to these.
fn node(links: &[Cid]) -> Block {
    Block::new(Codec::DagCbor, HashCode::Sha2_256, cbor::to_vec(links).expect("encodes")).expect("a block")
}

/// A tree of a node and two leaves, put; its blocks, the root first.
fn tree(store: &Store, name: &str) -> Vec<Block> {
    let leaves = [raw(format!("{name} left")), raw(format!("{name} right"))];
    let root = node(&[*leaves[0].cid(), *leaves[1].cid()]);
    let blocks: Vec<_> = [root].into_iter().chain(leaves).collect();
    store.put_many(&blocks).expect("puts");
    blocks
}

fn held(store: &Store, blocks: &[Block]) -> usize {
    blocks.iter().filter(|block| store.has(block.cid()).expect("has")).count()
}

fn recursive() -> Pin {
    Pin::default()
}

/// A feed of `count` entries, each with a tree, as somebody else would publish it; heads and trees, oldest first.
fn foreign_feed(store: &Store, count: usize) -> Vec<(SignedHead, Vec<Block>)> {
    let key = Keypair::generate_ed25519();
    let mut feed: Vec<(SignedHead, Vec<Block>)> = Vec::new();
    for n in 0..count {
        let content = tree(store, &format!("content {n} of {}", key.public().to_peer_id()));
        let (block, head) = entry(&key, feed.last().map(|last| &last.0), content[0].cid());
        store.put(&block).expect("puts");
        feed.push((head, content));
    }
    feed
}

#[test]
fn what_no_root_reaches_goes_and_the_rest_stays() {
    let store = TempStore::new();
    let key = Keypair::generate_ed25519();
    let published = tree(&store, "published");
    let (first, head) = entry(&key, None, published[0].cid());
    store.publish_entry(&first, &head).expect("publishes");
    let newer = tree(&store, "newer");
    let (second, second_head) = entry(&key, Some(&head), newer[0].cid());
    store.publish_entry(&second, &second_head).expect("publishes");

    let pinned = tree(&store, "pinned");
    store.pin(pinned[0].cid(), &recursive()).expect("pins");
    let direct = tree(&store, "direct");
    store.pin(direct[0].cid(), &Pin { kind: PinKind::Direct, name: String::new() }).expect("pins");
    let wanted = tree(&store, "wanted by the caller");
    let garbage = tree(&store, "garbage");

    let dry = store.gc(&[*wanted[0].cid()], true).expect("counts");
    assert_eq!(held(&store, &garbage), 3, "a dry run removes nothing");
    let report = store.gc(&[*wanted[0].cid()], false).expect("collects");
    assert_eq!(report, dry);
    assert_eq!((report.removed, report.kept), (3 + 2, 2 + 3 + 3 + 3 + 1 + 3));
    assert_eq!([held(&store, &garbage), held(&store, &direct)], [0, 1]);
    for kept in [&published, &newer, &pinned, &wanted, &vec![first]] {
        assert_eq!(held(&store, kept), kept.len());
    }
    let stat = store.stat();
    assert_eq!(stat.blocks, report.kept);
    assert_eq!(store.gc(&[*wanted[0].cid()], false).expect("collects").removed, 0);
    assert_eq!(store.reopen().stat().blocks, stat.blocks);
}

#[test]
fn a_block_reached_without_its_links_under_one_codec_keeps_them_under_another() {
    let store = TempStore::new();
    let blocks = tree(&store, "tree");
    let as_raw = Cid::new_v1(Codec::Raw as u64, *blocks[0].cid().hash());
    for roots in [[as_raw, *blocks[0].cid()], [*blocks[0].cid(), as_raw]] {
        assert_eq!(store.gc(&roots, true).expect("counts").removed, 0);
    }
}

#[test]
fn of_a_follow_stays_what_its_policy_keeps() {
    let store = TempStore::new();
    let feed = foreign_feed(&store, 5);
    let (newest, _) = feed.last().expect("five");
    let publisher = newest.publisher();
    let with = |keep| FollowRecord {
        policy: FollowPolicy { keep, ..FollowPolicy::default() },
        latest: Some(*newest.head()),
        latest_seq: newest.seq(),
        ..FollowRecord::default()
    };
    store.set_follow(&publisher, &FeedName::default(), &with(None)).expect("follows");
    assert_eq!(store.gc(&[], false).expect("collects").removed, 0);
    store.set_follow(&publisher, &FeedName::default(), &with(Some(2))).expect("follows");
    assert_eq!(store.gc(&[], false).expect("collects").removed, 3 * 3, "the contents of the three oldest");
    assert_eq!(held(&store, &feed[4].1) + held(&store, &feed[3].1), 6);
    store.set_follow(&publisher, &FeedName::default(), &with(Some(0))).expect("follows");
    assert_eq!(store.gc(&[], false).expect("collects").kept, 5, "the chain alone");
    store.remove_follow(&publisher, &FeedName::default()).expect("unfollows");
    assert_eq!(store.gc(&[], false).expect("collects").kept, 0);
}

#[test]
fn what_a_sync_on_its_way_has_fetched_stays() {
    let store = TempStore::new();
    let feed = foreign_feed(&store, 3);
    let newest = &feed[2].0;
    // Nothing is complete yet: only the head is known, and the oldest entry has not been fetched.
    store.remove(&[*feed[0].0.head()]).expect("removes");
    let record = FollowRecord { newest_head: Some(newest.encode().to_vec().into()), ..FollowRecord::default() };
    store.set_follow(&newest.publisher(), &FeedName::default(), &record).expect("follows");
    let report = store.gc(&[], false).expect("collects");
    assert_eq!(held(&store, &feed[2].1) + held(&store, &feed[1].1), 6);
    assert_eq!(report.removed, 3, "below the entry that is not held nothing can be known");

    // A sync of its own, partly done, and a link that compares with a tree that is held.
    let (sync, compared) = (tree(&store, "sync"), tree(&store, "compared"));
    store.remove(&[*sync[2].cid()]).expect("removes");
    let link = FrontierLink { root: 0, cid: *sync[2].cid(), selector: Bytes::new(), held: Some(*compared[0].cid()) };
    let saved = SavedFrontier { roots: vec![*sync[0].cid()], links: vec![link], state: Bytes::new() };
    store.save_frontier(&FrontierKey::Sync("one".into()), &saved).expect("saves");
    assert_eq!(store.gc(&[], false).expect("collects").removed, 0);
    store.remove_frontier(&FrontierKey::Sync("one".into())).expect("removes");
    assert_eq!(store.gc(&[], false).expect("collects").removed, 5);
}

#[test]
fn what_comes_while_a_collection_runs_stays() {
    let store = TempStore::new();
    let (found, rooted, garbage) = (tree(&store, "found"), tree(&store, "rooted"), tree(&store, "garbage"));
    let put = store
        .gc_with(&[], false, Duration::ZERO, || {
            // Between the mark and the sweep: nothing of this was known to the mark.
            assert_eq!(held(&store, &found), 3);
            store.pin(rooted[0].cid(), &recursive()).expect("pins");
            store.put_many(&[garbage[0].clone()]).expect("puts what is held already");
            tree(&store, "put");
        })
        .expect("collects");
    assert_eq!(put.removed, 2, "the two leaves that nobody asked for");
    assert_eq!(held(&store, &found) + held(&store, &rooted), 6);
    assert!(store.has(garbage[0].cid()).expect("has"));
    assert_eq!(store.gc(&[], false).expect("collects").kept, 3, "the next one takes what is still garbage");
}

#[test]
fn blocks_that_others_put_meanwhile_all_stay() {
    let store = TempStore::new();
    for n in 0..5_000 {
        store.put_many(&[raw(format!("garbage {n}"))]).expect("puts");
    }
    let done = AtomicBool::new(false);
    let (put, report) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|thread| {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let mut put = Vec::new();
                    while !done.load(Ordering::Acquire) {
                        let block = raw(format!("{thread} {}", put.len()));
                        store.put_many(std::slice::from_ref(&block)).expect("puts");
                        put.push(block);
                    }
                    put
                })
            })
            .collect();
        let mut before = 0;
        let report = store.gc_with(&[], false, Duration::ZERO, || before = store.stat().blocks);
        done.store(true, Ordering::Release);
        let put: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().expect("ends")).collect();
        assert!(before > 0);
        (put, report.expect("collects"))
    });
    // What was put before the collection began is garbage like the rest; what came later is held.
    let lost = put.iter().filter(|block| !store.has(block.cid()).expect("has")).count() as u64;
    assert_eq!(report.removed, 5_000 + lost);
    assert_eq!(store.stat().blocks, put.len() as u64 - lost);
    assert!(lost < put.len() as u64, "some came while it ran");
}

#[test]
fn a_collection_waits_for_work_that_began_before_it() {
    let store = TempStore::new();
    let work = store.protect();
    let blocks = tree(&store, "imported");
    assert!(matches!(store.gc_with(&[], false, Duration::ZERO, || ()), Err(Error::Busy(_))));
    assert_eq!(held(&store, &blocks), 3);
    store.pin(blocks[0].cid(), &recursive()).expect("pins");
    drop(work);
    let later = store.gc_with(&[], false, Duration::ZERO, || {
        let _later = store.protect();
    });
    assert_eq!(later.expect("it does not wait for what begins later").kept, 3);
}

#[test]
fn removing_gives_the_space_back() {
    let store = TempStore::new();
    let mut seed = 1u64;
    let mut block = || {
        let mut bytes = Vec::with_capacity(64 << 10);
        while bytes.len() < 64 << 10 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(&seed.to_be_bytes());
        }
        raw(bytes)
    };
    for n in 0..24 {
        let blocks: Vec<_> = (0..32).map(|_| block()).collect();
        store.put_many(&blocks).expect("puts");
        if n == 0 {
            store.pin(blocks[0].cid(), &recursive()).expect("pins");
        }
    }
    let report = store.gc(&[], false).expect("collects");
    assert_eq!(report.removed, 24 * 32 - 1);
    let after: u64 = store.engine.keyspaces.blocks.all().iter().map(|lane| lane.disk_space()).sum();
    assert!(after < report.bytes / 10, "{after} bytes are left on the disk of {}", report.bytes);
    assert_eq!(store.stat().blocks, 1);
}

#[test]
fn a_pin_of_what_is_held_keeps_it_and_calls_nothing_missing() {
    let store = TempStore::new();
    let leaf = raw("held");
    let root = node(&[*leaf.cid(), *raw("never held").cid()]);
    store.put_many(&[root.clone(), leaf.clone()]).expect("puts");
    store.pin(root.cid(), &Pin { kind: PinKind::Held, name: String::new() }).expect("pins");
    assert_eq!(store.gc(&[], false).expect("collects").removed, 0);
    assert_eq!(held(&store, &[root.clone(), leaf]), 2);
    assert!(store.verify(|_| ()).expect("verifies").is_sound());
    store.pin(root.cid(), &recursive()).expect("pins");
    assert_eq!(store.verify(|_| ()).expect("verifies").missing, 1);
}

#[test]
fn what_one_pin_keeps_alone_another_keeps_with_all_below_it() {
    let store = TempStore::new();
    let mut all = Vec::new();
    // In whichever order the two are walked.
    for n in 0..16 {
        let below = tree(&store, &format!("tree {n}"));
        let above = node(&[*below[0].cid()]);
        store.put(&above).expect("puts");
        store.pin(below[0].cid(), &Pin { kind: PinKind::Direct, ..Pin::default() }).expect("pins");
        store.pin(above.cid(), &recursive()).expect("pins");
        all.extend(below);
    }
    store.gc(&[], false).expect("collects");
    assert_eq!(held(&store, &all), all.len());
}
