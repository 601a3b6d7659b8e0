//! `fanout`: a hundred followers of one publisher at once. Together they get what one alone would.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;

use crate::{
    Args, Bar, Row, Sample,
    child::{self, Followed, Process, Published, Role, Usage},
    content::Content,
    machine::MIB,
    runtime,
};

/// Processes that the followers are spread over.
const PROCESSES: usize = 4;
const FOLLOWERS: u64 = 100;
const BLOCK_BYTES: usize = 256 * 1024;
/// What each of many fetches: they have 2 GiB on the disk of one machine, and as much in journals.
const EACH_BYTES: u64 = 32 << 20;
/// What one alone fetches: long enough to be at its peak.
const ALONE_BYTES: u64 = 512 << 20;

/// The rows of `fanout`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let followers = (args.scaled(FOLLOWERS) as usize).max(PROCESSES);
    let (each, alone) = (EACH_BYTES, args.scaled(ALONE_BYTES).max(EACH_BYTES));
    runtime()?.block_on(async {
        let (one, one_content) = child::publish(file(alone)).await?;
        let (many, many_content) = child::publish(file(each)).await?;
        let (mut peak, mut together): (Option<Sample>, Option<Together>) = (None, None);
        // By turns, so that a busy spell of the machine falls on both.
        for _ in 0..args.runs {
            let (_, followed) = child::follow(&one_content.target).await?;
            ensure!(followed.blocks == one_content.blocks, "{} blocks arrived", followed.blocks);
            let sample = Sample { amount: one_content.bytes, elapsed: followed.elapsed };
            peak = Some(peak.map_or(sample, |peak| if sample.elapsed < peak.elapsed { sample } else { peak }));
            let run = all(&many_content, followers).await?;
            if together.as_ref().is_none_or(|best| run.elapsed < best.elapsed) {
                together = Some(run);
            }
        }
        one.end().await?;
        let serving = usage(many).await?;
        let (peak, together) = (peak.context("no run")?, together.context("no run")?);
        let sample = Sample { amount: many_content.bytes * followers as u64, elapsed: together.elapsed };
        Ok(vec![
            Row::new(
                "fanout",
                format!("{followers} followers, {} MiB each", each >> 20),
                sample.mb_per_second(),
                "MB/s",
            )
            .ceiling(peak.mb_per_second())
            .bar(Bar::RatioAtLeast(0.9))
            .note(format!(
                "all together, until the last one has all of it verified and durable; the ceiling is one follower \
                     alone, {} MiB. The publisher is a process of its own; the followers are whole nodes, each with \
                     its own home and connection, {} a process",
                alone >> 20,
                followers.div_ceil(PROCESSES)
            ))
            .note(format!(
                "the publisher's process had {:.0} MiB resident at most; the followers' took {:.0} MiB a node",
                serving.peak_bytes as f64 / MIB,
                together.peak_bytes as f64 / MIB / followers as f64
            )),
        ])
    })
}

struct Together {
    elapsed: Duration,
    /// The peaks of all processes, added up.
    peak_bytes: u64,
}

/// Follows with all followers at once.
async fn all(published: &Published, followers: usize) -> Result<Together> {
    let counts = (0..PROCESSES).map(|index| followers / PROCESSES + usize::from(index < followers % PROCESSES));
    let mut processes = Vec::new();
    for nodes in counts {
        processes.push(Process::spawn(&Role::Follow { target: published.target.clone(), nodes, home: None })?);
    }
    try_join_all(processes.iter_mut().map(Process::told::<Usage>)).await?;
    let begun = Instant::now();
    try_join_all(processes.iter_mut().map(Process::go)).await?;
    let followed: Vec<Followed> = try_join_all(processes.iter_mut().map(Process::told)).await?;
    let elapsed = begun.elapsed();
    try_join_all(processes.into_iter().map(Process::end)).await?;
    let blocks: u64 = followed.iter().map(|followed| followed.blocks).sum();
    ensure!(blocks == published.blocks * followers as u64, "{blocks} blocks arrived, {} at each", published.blocks);
    Ok(Together { elapsed, peak_bytes: followed.iter().map(|followed| followed.usage.peak_bytes).sum() })
}

fn file(bytes: u64) -> Content {
    Content::File { bytes, chunk_bytes: BLOCK_BYTES }
}

async fn usage(mut publisher: Process) -> Result<Usage> {
    publisher.go().await?;
    let usage = publisher.told().await?;
    publisher.end().await?;
    Ok(usage)
}
