//! `idle`: what a node takes that has peers and nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dagmesh::ticket::Target;
use futures::future::try_join_all;

use crate::{
    Args, Bar, Row, child,
    content::Content,
    machine::{self, MIB},
    nodes::{self, Running},
    runtime,
};

const PEERS: usize = 10;
/// How long the node is looked at.
const SECS: u64 = 60;
/// What connecting and the first sync leave to be done is over by then.
const SETTLE: Duration = Duration::from_secs(15);

/// The rows of `idle`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let time = Duration::from_secs(args.scaled(SECS));
    runtime()?.block_on(async {
        let content = Content::Folder { files: 100, file_bytes: 2048 };
        let (publisher, published) = child::publish(content).await?;
        let target: Target = published.target.parse()?;
        let peers = try_join_all((0..PEERS).map(|_| Running::fresh())).await?;
        try_join_all(peers.iter().map(|peer| nodes::follow(&peer.node, &target))).await?;
        let id = publisher.id()?;
        tokio::time::sleep(SETTLE.min(time)).await;

        let cpu = || machine::cpu_time_of(id).context("the system does not tell the CPU time of a process");
        let (before, begun) = (cpu()?, Instant::now());
        tokio::time::sleep(time).await;
        let (used, elapsed) = (cpu()? - before, begun.elapsed());
        let (resident, anonymous) = machine::memory_of(id).context("the system does not tell the memory of a process")?;

        try_join_all(peers.into_iter().map(Running::stop)).await?;
        publisher.end().await?;
        let workload = format!("{PEERS} peers, {} s", time.as_secs());
        let share = 100.0 * used.as_secs_f64() / elapsed.as_secs_f64();
        Ok(vec![
            Row::new("idle", &workload, share, "% of a core").bar(Bar::FigureAtMost(1.0)).note(format!(
                "{:.2} s of CPU in {:.0} s, counted in steps of 0.01 s; a publisher in a process of its own, each peer a \
                 follower that is in sync, all connected over TCP",
                used.as_secs_f64(),
                elapsed.as_secs_f64()
            )),
            Row::new("idle memory", &workload, resident as f64 / MIB, "MiB").note(format!(
                "resident; {:.1} MiB of it are its own, the rest is the program and what else is mapped from files",
                anonymous as f64 / MIB
            )),
        ])
    })
}
