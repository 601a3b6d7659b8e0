//! What a group costs in which nothing happens.

use std::time::Duration;

use dagmesh_tests::{Daemon, group};
use futures::future::join_all;

use super::{GROUP, is_long, island, line_to, total};

/// Bytes that a member may send and take in a minute, of everything that travels on its one line: pings and the mesh's own
/// housekeeping too. A whole vector of 5 heads each second would be 300 KiB.
const BYTES_PER_MINUTE: u64 = 24 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_of_five_costs_each_member_a_few_bytes_a_second() {
    let daemons = join_all((0..5).map(|_| island())).await;
    group::create(&daemons[0], GROUP).await;
    let lines = join_all(daemons[1..].iter().map(async |daemon| {
        let (line, ticket) = line_to(&daemons[0], GROUP).await;
        group::join(daemon, &ticket).await;
        group::has_peers(daemon, GROUP, 1).await;
        line
    }))
    .await;
    let mut said = super::Said::new();
    for daemon in &daemons {
        let texts = (0..20).map(|n| n.to_string()).collect::<Vec<_>>();
        for text in &texts {
            group::say(daemon, GROUP, text).await;
        }
        said.insert(group::peer(daemon), texts);
    }
    let all: Vec<&Daemon> = daemons.iter().collect();
    group::agree(&all, GROUP, total(&said)).await;
    // The time is what is measured: the heartbeat slows down from 1 s to 30 s meanwhile, so a longer look shows less.
    let window = Duration::from_secs(if is_long() { 180 } else { 20 });
    let bytes = || lines.iter().map(|line| line.bytes_to_target() + line.bytes_from_target()).collect::<Vec<_>>();
    let before = bytes();
    tokio::time::sleep(window).await;
    for (before, after) in before.iter().zip(bytes()) {
        let per_minute = (after - before) * 60 / window.as_secs();
        println!("{per_minute} bytes a minute on a member's line");
        assert!(per_minute > 0, "a group that is idle says that it is there");
        assert!(per_minute < BYTES_PER_MINUTE, "{per_minute} bytes a minute");
    }
}
