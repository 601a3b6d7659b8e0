//! What was acknowledged stays.

use super::*;

#[test]
fn a_store_that_is_opened_again_holds_what_it_held() {
    let store = TempStore::new();
    let blocks: Vec<_> = (0..500).map(|n| raw(format!("block {n}").repeat(n))).collect();
    store.put_many(&blocks).expect("puts");
    store.sync().expect("syncs");
    let stat = store.stat();
    let store = store.reopen();
    for block in &blocks {
        assert_eq!(store.verified_block(block.cid()).expect("gets").as_ref(), Some(block));
    }
    assert_eq!((store.stat().blocks, store.stat().bytes), (stat.blocks, stat.bytes));
}

#[test]
fn a_second_opener_is_told_who_holds_the_store() {
    let store = TempStore::new();
    let error = Store::open(store.dir.path()).expect_err("it is open");
    assert!(matches!(&error, OpenError::InUse { pid: Some(pid), .. } if *pid == std::process::id()), "{error:?}");
    let told = error.to_string();
    assert!(told.contains(&store.dir.path().display().to_string()), "{told}");
    assert!(told.contains(&std::process::id().to_string()), "{told}");
}

#[test]
fn a_store_of_a_newer_format_is_refused_and_left_as_it_is() {
    let store = TempStore::new();
    store.engine.set_format(engine::FORMAT + 1);
    let TempStore { store, dir } = store;
    drop(store);
    for _ in 0..2 {
        let error = Store::open(dir.path()).expect_err("it is newer");
        assert!(matches!(error, OpenError::NewerFormat { found, .. } if found == engine::FORMAT + 1), "{error:?}");
    }
}
