//! Chains of the IPNI network among our own nodes: published, followed over whatever both sides speak, announced.

mod announce;
mod bad_input;
mod crash;
mod follow;
mod hooks;
mod routes;

use dagmesh_tests::{Daemon, ipni};
use serde_json::Value;

use crate::support::{api_try, daemon, number};

/// A daemon that serves its chain over HTTP too.
async fn ours() -> Daemon {
    daemon(&["--ipni-http", "127.0.0.1:0"]).await
}

/// Where it serves its chain over HTTP, with its peer id.
async fn http_addr(daemon: &Daemon) -> String {
    ipni::http_addr(daemon, "/ip4/127.0.0.1").await
}

/// What an advertisement is about, as far as a daemon holds it: blocks and bytes. `None` where it holds none of it.
async fn entries_held(daemon: &Daemon, ad: &Value) -> Option<(u64, u64)> {
    let stat = api_try(daemon, "dag/stat", &serde_json::json!({"cid": ad["entries"]})).await.ok()?;
    Some((number(&stat, "blocks"), number(&stat, "bytes")))
}

/// Asserts that a daemon holds the same chain as its publisher, the advertisements and what they are about.
async fn assert_same_chain(follower: &Daemon, publisher: &Daemon) {
    let theirs = ipni::ads(publisher, publisher.peer_id()).await;
    assert!(!theirs.is_empty());
    assert_eq!(ipni::ads(follower, publisher.peer_id()).await, theirs);
    for ad in theirs.iter().filter(|ad| ad["is_rm"] == false) {
        let held = entries_held(publisher, ad).await;
        assert!(held.is_some_and(|(blocks, _)| blocks > 0), "{ad}");
        assert_eq!(entries_held(follower, ad).await, held, "{ad}");
    }
}
