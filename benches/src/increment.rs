//! `increment`: what a few new entries cost a follower of a long chain. It must not depend on how long the chain is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dagmesh::{
    Api,
    types::{AnnounceRequest, Content, DagPutRequest, DataFormat, HashName, Head, HeadRequest, PublishRequest},
};
use dagmesh_tests::DelayProxy;

use crate::{
    Args, Bar, Row,
    nodes::{self, Running},
    runtime,
};

const LENGTHS: [u64; 4] = [100, 1_000, 10_000, 100_000];
/// New entries.
const NEW: u64 = 10;
/// Increments measured for each run that is asked for: each takes milliseconds, and one of them must be undisturbed.
const ROUNDS: u32 = 10;

/// The rows of `increment`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let mut measured = Vec::new();
    for length in LENGTHS {
        measured.push(runtime()?.block_on(measure(args, args.scaled(length)))?);
    }
    let workload = format!("{NEW} new entries on chains of {} to {}", args.scaled(100), args.scaled(100_000));
    let listed = |of: &dyn Fn(&Increment) -> String| {
        measured.iter().map(|it| format!("{}: {}", it.length, of(it))).collect::<Vec<_>>().join(", ")
    };
    let spread = |of: &dyn Fn(&Increment) -> f64| {
        let values = measured.iter().map(of);
        (values.clone().fold(0.0, f64::max), values.fold(f64::INFINITY, f64::min))
    };
    let ms = |it: &Increment| it.time.as_secs_f64() * 1e3;
    let (slowest, fastest) = spread(&ms);
    let (most, least) = spread(&|it| it.bytes as f64);
    Ok(vec![
        Row::new("increment time", &workload, slowest, "ms").ceiling(fastest).bar(Bar::RatioAtMost(1.1)).note(format!(
            "the slowest length against the fastest; from the announcement until all is durable and told: {}",
            listed(&|it| format!("{:.1} ms", ms(it)))
        )),
        Row::new("increment bytes", &workload, most, "bytes").ceiling(least).bar(Bar::RatioAtMost(1.1)).note(format!(
            "the most against the least, on the line in both directions: {}; the blocks have {} bytes",
            listed(&|it| it.bytes.to_string()),
            measured.first().map_or(0, |it| it.block_bytes)
        )),
    ])
}

struct Increment {
    length: u64,
    /// The shortest time of all rounds.
    time: Duration,
    /// The fewest bytes of all rounds: others carry a ping or a look-up too.
    bytes: u64,
    block_bytes: u64,
}

async fn measure(args: &Args, length: u64) -> Result<Increment> {
    let (home, key) = nodes::chain_home(length)?;
    let publisher = Running::at(home, key).await?;
    let line = DelayProxy::start(publisher.socket().await?, Duration::ZERO).await?;
    let target = nodes::target(publisher.node.peer_id(), line.addr())?;
    let follower = Running::fresh().await?;
    nodes::follow(&follower.node, &target).await?;
    let mut events = follower.node.watch().await?;
    let mut best = Increment { length, time: Duration::MAX, bytes: u64::MAX, block_bytes: 0 };
    for _ in 0..args.runs * ROUNDS {
        let head = publish_some(&publisher).await?;
        // What the last round still had to say is not of this one.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = line.bytes_from_target() + line.bytes_to_target();
        let begun = Instant::now();
        publisher.node.announce(AnnounceRequest { feed: head.feed.clone(), ..AnnounceRequest::new(head.head) }).await?;
        let finished = nodes::finished(&mut events, &head.head).await?;
        let bytes = line.bytes_from_target() + line.bytes_to_target() - before;
        ensure!(finished.entries == NEW && finished.blocks == 2 * NEW, "not what was published: {finished:?}");
        best.time = best.time.min(finished.at - begun);
        best.bytes = best.bytes.min(bytes);
        best.block_bytes = finished.bytes;
    }
    nodes::only_over(&follower.node, &target).await?;
    follower.stop().await?;
    publisher.stop().await?;
    Ok(best)
}

/// Publishes the new entries, each with a content of its own.
async fn publish_some(publisher: &Running) -> Result<Head> {
    let mut head = publisher.node.head(HeadRequest::default()).await?;
    for _ in 0..NEW {
        let mut data = vec![0; 64];
        nodes::noise(head.seq, &mut data);
        let (input, codec, hash) = (DataFormat::Raw, DataFormat::Raw, HashName::default());
        let put = publisher.node.dag_put(DagPutRequest { input, codec, hash, data }).await?;
        head = publisher.publish(PublishRequest::new(Content::Cid(put.cid))).await?;
    }
    Ok(head)
}
