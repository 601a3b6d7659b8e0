//! What the tests of this crate share: daemons and their events, the local API over a plain socket.

use std::{collections::HashMap, path::Path};

use dagmesh_tests::{Daemon, DaemonOptions, Output, wait_for_some};
use serde_json::{Value, json};

pub(crate) use dagmesh_tests::{
    api::{Watch, api_call, api_connect, api_raw, api_request, api_try},
    daemon::free_port,
    peer::{Peer, PeerOptions, SOON, long_chain},
};

// ---- Daemons ---------------------------------------------------------------------------------------------------

/// A daemon that logs enough to understand a failure.
pub(crate) async fn daemon(args: &[&str]) -> Daemon {
    Daemon::start_with(options(args)).await
}

/// The options of [`daemon`].
pub(crate) fn options(args: &[&str]) -> DaemonOptions {
    let mut options = DaemonOptions::default();
    options.args = args.iter().map(|&arg| arg.to_owned()).collect();
    options.env = vec![("DAGMESH_LOG__LEVEL".to_owned(), "debug".to_owned())];
    options
}

/// The path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// The field as text.
#[track_caller]
pub(crate) fn str_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

/// The field as a number.
#[track_caller]
pub(crate) fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {value}"))
}

/// The ticket of a daemon's feed `main`.
pub(crate) async fn ticket(daemon: &Daemon) -> String {
    str_of(&daemon.json(&["ticket"]).await, "ticket").to_owned()
}

/// Waits until the one follow of `daemon` is in sync at entry `seq`.
pub(crate) async fn in_sync_at(daemon: &Daemon, seq: u64) -> Value {
    let mut last = Value::Null;
    wait_for_some(SOON, &format!("a follow that is in sync at {seq}"), async || {
        let follow = api_call(daemon, "follows", &json!({})).await[0].clone();
        if last != follow["state"] {
            println!("{follow}");
            last = follow["state"].clone();
        }
        (follow["state"] == "in_sync" && follow["latest_seq"] == seq).then_some(follow)
    })
    .await
}

/// Asserts how a command ends, and that its error names each of `words`.
#[track_caller]
pub(crate) fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    output.assert_code(code);
    assert!(output.stdout.is_empty(), "an error is no result: {output}");
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is missing in the error of {output}");
    }
}

/// Asserts that each block of a stopped or running daemon's store matches its CID and nothing is missing.
pub(crate) async fn assert_sound(daemon: &Daemon) {
    let report = daemon.json(&["repo", "verify"]).await;
    assert!(number(&report, "checked") > 0, "{report}");
    assert_eq!((number(&report, "damaged"), number(&report, "missing")), (0, 0), "{report}");
}

/// Counts how often each thing occurs.
pub(crate) fn counted<T: std::hash::Hash + Eq>(things: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}

/// The seed of this run, printed so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("DAGMESH_TEST_SEED") {
        Ok(seed) => seed.parse().expect("DAGMESH_TEST_SEED is a number"),
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
            now.as_nanos() as u64
        }
    };
    println!("DAGMESH_TEST_SEED={seed}");
    seed
}
