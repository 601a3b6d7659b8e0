//! `fanout`: a hundred followers of one publisher fetch its new entry at once. Together they get what one alone would.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;

use crate::{
    Args, Bar, Row, Sample,
    child::{self, Followed, Process, Role, Usage},
    content::Content,
    machine::MIB,
    runtime,
};

/// Processes that the followers are spread over.
const PROCESSES: usize = 4;
const FOLLOWERS: u64 = 100;
const BLOCK_BYTES: usize = 256 * 1024;
/// What each of many fetches: they have 3 GiB on the disk of one machine, and as much in journals.
const EACH_BYTES: u64 = 32 << 20;
/// What one alone fetches: long enough to be at its peak.
const ALONE_BYTES: u64 = 512 << 20;

/// The row of `fanout`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let followers = (args.scaled(FOLLOWERS) as usize).max(PROCESSES);
    let alone_bytes = args.scaled(ALONE_BYTES).max(EACH_BYTES);
    runtime()?.block_on(async {
        let alone = measure(args, 1, 1, alone_bytes).await?;
        let together = measure(args, PROCESSES, followers, EACH_BYTES).await?;
        let workload = format!("{followers} followers, {} MiB each", EACH_BYTES >> 20);
        let node_bytes = together.followers_peak_bytes as f64 / followers as f64;
        Ok(vec![
            Row::new("fanout", workload, together.sample.mb_per_second(), "MB/s")
                .ceiling(alone.sample.mb_per_second())
                .bar(Bar::RatioAtLeast(0.9))
                .note(format!(
                    "all together, from the announcement of a new entry until the last one has all of it verified and \
                     durable; the ceiling is one follower alone, {} MiB. All are connected, in sync and at rest before. The \
                     publisher is a process of its own; the followers are whole nodes, each with its own home and \
                     connections, {} a process",
                    alone_bytes >> 20,
                    followers.div_ceil(PROCESSES)
                ))
                .note(format!(
                    "CPU for each GB that arrived: {:.1} s at the followers and {:.1} s at the publisher; alone {:.1} s \
                     and {:.1} s",
                    together.followers_cpu.as_secs_f64() / together.gb(),
                    together.publisher_cpu.as_secs_f64() / together.gb(),
                    alone.followers_cpu.as_secs_f64() / alone.gb(),
                    alone.publisher_cpu.as_secs_f64() / alone.gb()
                ))
                .note(format!(
                    "the publisher's process had {:.0} MiB resident at most; the followers' took {:.0} MiB a node",
                    together.publisher_peak_bytes as f64 / MIB,
                    node_bytes / MIB
                )),
        ])
    })
}

/// The best of all runs, and what they took.
struct Fanout {
    sample: Sample,
    followers_cpu: Duration,
    publisher_cpu: Duration,
    /// Of all processes, added up.
    followers_peak_bytes: u64,
    publisher_peak_bytes: u64,
}

impl Fanout {
    fn gb(&self) -> f64 {
        self.sample.amount as f64 / 1e9
    }
}

async fn measure(args: &Args, processes: usize, followers: usize, bytes: u64) -> Result<Fanout> {
    let mut best = once(processes, followers, bytes).await?;
    for _ in 1..args.runs {
        let run = once(processes, followers, bytes).await?;
        if run.sample.elapsed < best.sample.elapsed {
            best = run;
        }
    }
    Ok(best)
}

async fn once(processes: usize, followers: usize, bytes: u64) -> Result<Fanout> {
    let (mut publisher, first) = child::publish(Content::Deep { blocks: 1 }).await?;
    let mut spawned = Vec::new();
    for index in 0..processes {
        let nodes = followers / processes + usize::from(index < followers % processes);
        spawned.push(Process::spawn(&Role::Follow { target: first.target.clone(), nodes, home: None })?);
    }
    try_join_all(spawned.iter_mut().map(Process::told::<Usage>)).await?;
    try_join_all(spawned.iter_mut().map(Process::go)).await?;
    let first_sync: Vec<Followed> = try_join_all(spawned.iter_mut().map(Process::told)).await?;
    ensure!(first_sync.iter().all(|followed| followed.blocks > 0), "not in sync before");
    try_join_all(spawned.iter_mut().map(Process::go)).await?;
    let before: Vec<Usage> = try_join_all(spawned.iter_mut().map(Process::told)).await?;

    let published = publisher.publish(&Content::File { bytes, chunk_bytes: BLOCK_BYTES }).await?;
    try_join_all(spawned.iter_mut().map(|process| process.order(&published.head))).await?;
    let begun = Instant::now();
    publisher.announce().await?;
    let after: Vec<Followed> = try_join_all(spawned.iter_mut().map(Process::told)).await?;
    let elapsed = begun.elapsed();
    let serving = publisher.usage().await?;
    try_join_all(spawned.into_iter().map(Process::end)).await?;
    publisher.end().await?;

    let blocks: u64 = after.iter().map(|followed| followed.blocks).sum();
    ensure!(blocks == published.blocks * followers as u64, "{blocks} blocks arrived, {} at each", published.blocks);
    let cpu_before: Duration = before.iter().map(|usage| usage.cpu).sum();
    let cpu_after: Duration = after.iter().map(|followed| followed.usage.cpu).sum();
    Ok(Fanout {
        sample: Sample { amount: (published.bytes - first.bytes) * followers as u64, elapsed },
        followers_cpu: cpu_after - cpu_before,
        publisher_cpu: serving.cpu - published.usage.cpu,
        followers_peak_bytes: after.iter().map(|followed| followed.usage.peak_bytes).sum(),
        publisher_peak_bytes: serving.peak_bytes,
    })
}
