//! `chain`: what a long line costs a first sync of a feed. A walk that asked link by link would cost a round trip an
//! entry; one that asks once costs a few, whatever the length.

use std::time::Duration;

use anyhow::{Result, ensure};
use dagmesh_tests::DelayProxy;

use crate::{
    Args, Bar, Row,
    nodes::{self, Running},
    runtime,
};

const LENGTHS: [u64; 2] = [1_000, 10_000];
const ROUND_TRIPS_MS: [u64; 3] = [20, 50, 100];
/// Round trips that are allowed: the head, the chain and the contents have one each, and setting up streams.
const ALLOWED: f64 = 5.0;

/// The rows of `chain`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for length in LENGTHS {
        let length = args.scaled(length);
        rows.extend(runtime()?.block_on(measure(args, length))?);
    }
    Ok(rows)
}

async fn measure(args: &Args, length: u64) -> Result<Vec<Row>> {
    let (home, key) = nodes::chain_home(length)?;
    let publisher = Running::at(home, key).await?;
    let workload = format!("{length} entries and their contents");
    let near = best(args, &publisher, 0).await?;
    let near_ms = near.follow.as_secs_f64() * 1e3;
    let mut rows = vec![Row::new(format!("chain {length}, 0 ms"), &workload, near_ms, "ms")];
    for round_trip_ms in ROUND_TRIPS_MS {
        let far = best(args, &publisher, round_trip_ms).await?;
        let (follow_ms, connect_ms) = (far.follow.as_secs_f64() * 1e3, far.connect.as_secs_f64() * 1e3);
        let trips = |ms: f64| ms / round_trip_ms as f64;
        rows.push(
            Row::new(format!("chain {length}, {round_trip_ms} ms"), &workload, follow_ms, "ms")
                .ceiling(ALLOWED * round_trip_ms as f64 + near_ms)
                .bar(Bar::RatioAtMost(1.0))
                .note(format!(
                    "{:.1} round trips beyond the time at 0 ms; connecting before took {connect_ms:.0} ms ({:.1} \
                     round trips) and is not counted; {:.1} MB came over the line",
                    trips(follow_ms - near_ms),
                    trips(connect_ms),
                    far.bytes as f64 / 1e6
                )),
        );
    }
    publisher.stop().await?;
    Ok(rows)
}

#[derive(Clone, Copy)]
struct Far {
    connect: Duration,
    follow: Duration,
    bytes: u64,
}

async fn best(args: &Args, publisher: &Running, round_trip_ms: u64) -> Result<Far> {
    let mut best = once(publisher, round_trip_ms).await?;
    for _ in 1..args.runs {
        let far = once(publisher, round_trip_ms).await?;
        if far.follow < best.follow {
            best = far;
        }
    }
    Ok(best)
}

/// Follows over a line with this round trip. The line's address is all that the follower is told.
async fn once(publisher: &Running, round_trip_ms: u64) -> Result<Far> {
    let line = DelayProxy::start(publisher.socket().await?, Duration::from_micros(round_trip_ms * 500)).await?;
    let target = nodes::target(publisher.node.peer_id(), line.addr())?;
    let follower = Running::fresh().await?;
    let begun = std::time::Instant::now();
    nodes::connect(&follower.node, &target).await?;
    let connect = begun.elapsed();
    let before = line.bytes_from_target();
    let follow = nodes::follow(&follower.node, &target).await?;
    let bytes = line.bytes_from_target() - before;
    nodes::only_over(&follower.node, &target).await?;
    let stored = dagmesh::Api::repo_stat(&follower.node).await?.bytes;
    ensure!(bytes > stored, "{bytes} bytes came over the line, {stored} were stored: there is another way");
    follower.stop().await?;
    Ok(Far { connect, follow, bytes })
}
