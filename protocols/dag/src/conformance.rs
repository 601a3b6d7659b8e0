//! What every [`Blockstore`] must do. A store's own tests call [`run`] with a way to make an empty one.

use std::sync::Arc;

use cid::Cid;

use crate::{Block, Blockstore, Codec, HashCode};

/// Runs the whole suite; `empty` makes a store that holds nothing.
///
/// # Panics
/// Where the store breaks a rule, naming it.
pub fn run<S: Blockstore>(empty: impl Fn() -> S) {
    what_was_put_can_be_read(&empty());
    a_block_is_counted_as_new_once(&empty());
    one_content_under_two_codecs_is_held_once(&empty());
    identity_is_always_held_and_never_stored(&empty());
    what_was_removed_is_gone(&empty());
    a_damaged_block_counts_as_not_held(&empty());
    many_threads_can_put_and_read(Arc::new(empty()));
}

fn block(text: &str) -> Block {
    Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block")
}

fn what_was_put_can_be_read(store: &impl Blockstore) {
    let large =
        Block::new(Codec::Raw, HashCode::Blake3, vec![7; dagmesh_core::limits::MAX_BLOCK_BYTES]).expect("a block");
    let blocks = [block(""), block("one"), block("two"), large];
    assert_eq!(store.put_many(&blocks).expect("puts"), 4);
    store.sync().expect("syncs");
    for block in &blocks {
        assert!(store.has(block.cid()).expect("has"));
        assert_eq!(store.block(block.cid()).expect("gets").as_ref(), Some(block));
        assert_eq!(store.verified_block(block.cid()).expect("gets").as_ref(), Some(block));
    }
    assert!(!store.has(block("three").cid()).expect("has"));
    assert_eq!(store.get(block("three").cid()).expect("gets"), None);
    assert_eq!(store.put_many(&[]).expect("puts nothing"), 0);
}

fn a_block_is_counted_as_new_once(store: &impl Blockstore) {
    assert_eq!(store.put_many(&[block("a"), block("b")]).expect("puts"), 2);
    assert_eq!(store.put_many(&[block("a"), block("b"), block("c")]).expect("puts"), 1);
    assert_eq!(store.put_many(&[block("d"), block("d")]).expect("puts"), 1, "twice in one call counts once");
}

fn one_content_under_two_codecs_is_held_once(store: &impl Blockstore) {
    let raw = block("content");
    let other = Cid::new_v1(Codec::DagCbor as u64, *raw.cid().hash());
    store.put(&raw).expect("puts");
    assert!(store.has(&other).expect("has"));
    assert_eq!(store.get(&other).expect("gets").as_ref(), Some(raw.data()));
}

fn identity_is_always_held_and_never_stored(store: &impl Blockstore) {
    let inline = Block::new(Codec::Raw, HashCode::Identity, &b"inline"[..]).expect("a block");
    assert!(store.has(inline.cid()).expect("has"));
    assert_eq!(store.get(inline.cid()).expect("gets").as_ref(), Some(inline.data()));
    assert_eq!(store.put_many(std::slice::from_ref(&inline)).expect("puts"), 0);
}

fn what_was_removed_is_gone(store: &impl Blockstore) {
    store.put_many(&[block("stays"), block("goes")]).expect("puts");
    store.remove(&[*block("goes").cid(), *block("was never there").cid()]).expect("removes");
    assert!(store.has(block("stays").cid()).expect("has"));
    assert!(!store.has(block("goes").cid()).expect("has"));
    assert_eq!(store.put_many(&[block("goes")]).expect("puts"), 1, "it can come back");
}

fn a_damaged_block_counts_as_not_held(store: &impl Blockstore) {
    store.put(&block("damaged")).expect("puts");
    store.quarantine(block("damaged").cid()).expect("quarantines");
    assert!(!store.has(block("damaged").cid()).expect("has"));
    assert_eq!(store.put_many(&[block("damaged")]).expect("puts"), 1, "it can be put again");
    assert!(store.has(block("damaged").cid()).expect("has"));
}

fn many_threads_can_put_and_read<S: Blockstore>(store: Arc<S>) {
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                for round in 0..25 {
                    let block = block(&format!("{thread} {round}"));
                    store.put(&block).expect("puts");
                    assert_eq!(store.block(block.cid()).expect("gets"), Some(block));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread ends");
    }
}
