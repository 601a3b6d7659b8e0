//! What was acknowledged stays.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

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

#[test]
fn callers_that_sync_together_share_one_sync_of_the_disk() {
    const CALLERS: usize = 32;
    let store = TempStore::new();
    let before = store.syncs();
    let all_put = std::sync::Barrier::new(CALLERS);
    std::thread::scope(|scope| {
        for n in 0..CALLERS {
            let (store, all_put) = (&store, &all_put);
            scope.spawn(move || {
                store.put_many(&[raw(format!("{n}"))]).expect("puts");
                all_put.wait();
                store.sync().expect("syncs");
            });
        }
    });
    assert_eq!(store.syncs() - before, 1);
}

const CHILD_DIR: &str = "DAGMESH_TEST_STORE_DIR";
const CHILD_TEST: &str = "store::tests::durable::the_child_that_is_killed";

#[test]
fn row_32_what_was_acknowledged_survives_a_kill_at_any_moment() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = Vec::new();
    for cycle in 0..4 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", CHILD_TEST, "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut parse =
            |line: String| line.strip_prefix("acknowledged ").map(|name| acknowledged.push(name.to_owned())).is_some();
        // Each cycle is killed at another place, in the midst of what it does.
        let mut left = 40 + 37 * cycle;
        while left > 0 {
            let line = lines.next().expect("the child goes on").expect("a line");
            left -= i32::from(parse(line));
        }
        child.kill().expect("kills");
        lines.map_while(Result::ok).for_each(|line| {
            parse(line);
        });
        child.wait().expect("ends");

        let store = open(dir.path());
        for name in &acknowledged {
            let block = raw(content(name));
            assert_eq!(store.verified_block(block.cid()).expect("reads"), Some(block), "{name} was acknowledged");
            assert_eq!(store.kv_get(name).expect("reads"), Some(Bytes::from(name.clone())));
        }
        let report = store.verify(|_| ()).expect("verifies");
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((store.stat().blocks, store.stat().bytes), (report.blocks, report.bytes), "the counters agree");
    }
}

#[test]
#[ignore = "started by the test that kills it"]
fn the_child_that_is_killed() {
    let dir = std::env::var_os(CHILD_DIR).expect("the directory is given");
    let store = open(dir.as_ref());
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for n in 0.. {
                    let name = format!("{}-{thread}-{n}", std::process::id());
                    let put = store.put_many(&[raw(content(&name))]).expect("puts");
                    assert_eq!(put, 1);
                    store.kv_put(&name, name.as_bytes()).expect("puts, and syncs both");
                    println!("acknowledged {name}");
                }
            });
        }
    });
}

/// Of a length that varies, some within the journal's buffer and some beyond.
fn content(name: &str) -> Vec<u8> {
    let times = 1 + name.bytes().map(usize::from).sum::<usize>() % 2_000;
    name.repeat(times).into_bytes()
}
