//! What comes in bulk goes past the journal, and nobody sees a difference.

use super::{super::lanes::Totals, *};

/// Blocks that are ingested: 5 MiB in all.
fn large(seed: u8) -> Vec<Block> {
    (0..80u8).map(|n| raw([seed, n].repeat(32 << 10))).collect()
}

/// What stands in the lane past the journal, its own row not counted.
fn ingested(store: &Store) -> usize {
    let [_, lane] = store.engine.keyspaces.blocks.all();
    lane.len().expect("counts").saturating_sub(1)
}

fn assert_held(store: &Store, blocks: &[Block]) {
    for block in blocks {
        assert!(store.has(block.cid()).expect("has"));
        assert_eq!(store.verified_block(block.cid()).expect("reads").as_ref(), Some(block));
    }
}

#[test]
fn a_large_batch_goes_past_the_journal_and_is_held_as_any_other() {
    let store = TempStore::new();
    let (blocks, small) = (large(1), raw("small"));
    assert_eq!(store.put_many(std::slice::from_ref(&small)).expect("puts"), 1);
    let twice = [blocks.as_slice(), &blocks[..3]].concat();
    assert_eq!(store.put_many(&twice).expect("puts"), 80, "each counts once");
    assert_eq!(ingested(&store), 80);
    assert_eq!(store.put_many(&blocks).expect("puts"), 0, "all are held");
    assert_held(&store, &blocks);
    assert_eq!((store.stat().blocks, store.stat().bytes), (81, 5 + 80 * (64 << 10)));
    let store = store.reopen();
    assert_held(&store, &blocks);
    assert_held(&store, &[small]);
    assert_eq!((store.stat().blocks, store.stat().bytes), (81, 5 + 80 * (64 << 10)));
    let report = store.verify(|_| ()).expect("verifies");
    assert_eq!((report.blocks, report.bytes, report.unknown), (81, store.stat().bytes, 0));
    assert!(report.is_sound());
}

#[test]
fn what_is_little_or_made_of_very_small_blocks_goes_through_the_journal() {
    let of = |count: u32, len: usize| -> Vec<_> {
        (0..count).map(|n| raw([n.to_be_bytes().as_slice(), &vec![0; len - 4]].concat())).collect()
    };
    let store = TempStore::new();
    for (blocks, past_it) in [(of(63, 64 << 10), 0), (of(9_000, 500), 0), (of(8_200, 512), 8_200)] {
        store.put_many(&blocks).expect("puts");
        assert_eq!(ingested(&store), past_it);
        assert_held(&store, &blocks);
    }
    assert_eq!(store.stat().blocks, 63 + 9_000 + 8_200);
}

#[test]
fn what_was_ingested_just_before_a_kill_is_counted() {
    let store = TempStore::new();
    store.put(&raw("before")).expect("puts");
    // What `put_many` does first; the counters would follow.
    let rows: Vec<_> = large(1).iter().map(|block| (block.cid().hash().to_bytes(), block.data().clone())).collect();
    let bytes = rows.iter().map(|(_, data)| data.len() as u64).sum();
    let totals = Totals { blocks: rows.len() as u64, bytes };
    store.engine.ingest(&rows, bytes, totals).expect("ingests");
    let store = store.reopen();
    assert_held(&store, &large(1));
    assert_eq!((store.stat().blocks, store.stat().bytes), (81, 6 + bytes));
    // And counted once, whatever comes after.
    store.put_many(&large(2)).expect("puts");
    store.remove(&[*large(1)[0].cid()]).expect("removes");
    let store = store.reopen();
    assert_eq!(store.stat().blocks, 160);
    let report = store.verify(|_| ()).expect("verifies");
    assert_eq!((report.blocks, report.bytes), (160, store.stat().bytes));
}

#[test]
fn what_was_ingested_is_collected_and_can_come_again() {
    let store = TempStore::new();
    let blocks = large(1);
    store.put_many(&blocks).expect("puts");
    store.pin(blocks[7].cid(), &Pin { kind: PinKind::Direct, name: String::new() }).expect("pins");
    let report = store.gc(&[], false).expect("collects");
    assert_eq!((report.removed, report.bytes, report.kept), (79, 79 * (64 << 10), 1));
    assert_held(&store, &blocks[7..8]);
    assert!(!store.has(blocks[0].cid()).expect("has"));
    assert_eq!(store.put_many(&blocks).expect("puts"), 79);
    assert_held(&store, &blocks);
    let store = store.reopen();
    assert_held(&store, &blocks);
    assert_eq!(store.stat().blocks, 80);
}

#[test]
fn row_34_an_ingested_block_that_rots_is_found_and_can_come_again() {
    let store = TempStore::new();
    let blocks = large(1);
    store.put_many(&blocks).expect("puts");
    let TempStore { store, dir } = store;
    drop(store);
    assert!(damage::flip_in_files(dir.path(), &[1, 9].repeat(500)) > 0, "the block's bytes stand in some file");
    let store = TempStore { store: open(dir.path()), dir };
    let report = store.verify(|_| ()).expect("verifies");
    assert_eq!((report.damaged, report.damaged_cids), (1, vec![*blocks[9].cid()]));
    assert!(!store.has(blocks[9].cid()).expect("has"), "it counts as not held");
    assert_eq!(store.put_many(&blocks).expect("puts"), 1);
    assert_held(&store, &blocks);
    assert_eq!(store.stat().blocks, 80);
    assert!(store.verify(|_| ()).expect("verifies").is_sound());
}

#[test]
fn a_store_of_the_format_before_is_read_and_becomes_one_of_this() {
    let store = TempStore::new();
    store.put(&raw("old")).expect("puts");
    store.engine.set_format(1);
    let store = store.reopen();
    assert_held(&store, &[raw("old")]);
    assert_eq!(store.engine.format(), engine::FORMAT);
}
