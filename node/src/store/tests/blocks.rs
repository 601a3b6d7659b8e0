//! Blocks: what every store does, and what this one adds.

use super::*;

#[test]
fn the_disk_store_conforms() {
    dagmesh_dag::conformance::run(TempStore::new);
}

#[test]
fn blocks_and_bytes_are_counted_as_they_come_and_go() {
    let store = TempStore::new();
    store.put_many(&[raw("one"), raw("three"), raw("one")]).expect("puts");
    store.put_many(&[raw("three")]).expect("puts");
    assert_eq!((store.stat().blocks, store.stat().bytes), (2, 8));
    store.remove(&[*raw("one").cid(), *raw("one").cid(), *raw("never held").cid()]).expect("removes");
    assert_eq!((store.stat().blocks, store.stat().bytes), (1, 5));
    store.quarantine(raw("three").cid()).expect("quarantines");
    assert_eq!((store.stat().blocks, store.stat().bytes, store.stat().quarantined), (0, 0, 1));
    let store = store.reopen();
    assert_eq!((store.stat().blocks, store.stat().bytes, store.stat().quarantined), (0, 0, 1));
}

#[test]
fn a_large_block_is_shared_and_not_torn_by_its_removal() {
    let store = TempStore::new();
    let large = raw(vec![7; 300_000]);
    store.put(&large).expect("puts");
    let held = store.get(large.cid()).expect("gets").expect("is held");
    store.remove(&[*large.cid()]).expect("removes");
    assert_eq!(held, *large.data());
}
