//! `small`: many small blocks, where each costs a hash, a step of the walk and a row of the store.

use std::{env, time::Duration};

use anyhow::{Context, Result, ensure};
use dagmesh::ticket::Target;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::{Args, Bar, Row, Sample, content::LargeFile, machine, nodes, runtime};

/// Size of a leaf.
const BLOCK_BYTES: usize = 1024;
/// Set for the process that is to be the follower: whom it follows.
const CHILD: &str = "DAGMESH_BENCH_FOLLOW";
const MIB: f64 = 1_048_576.0;

/// The rows of `small`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let leaves = args.scaled(1_000_000);
    runtime()?.block_on(async {
        let file = LargeFile::publish(leaves * BLOCK_BYTES as u64, BLOCK_BYTES).await?;
        let target = file.publisher.target().await?;
        let mut best: Option<Followed> = None;
        let mut peak: u64 = 0;
        for _ in 0..args.runs {
            let followed = spawn_follower(&target).await?;
            ensure!(followed.blocks == file.blocks, "{} of {} blocks arrived", followed.blocks, file.blocks);
            peak = peak.max(followed.peak_bytes);
            if best.as_ref().is_none_or(|best| followed.elapsed < best.elapsed) {
                best = Some(followed);
            }
        }
        let best = best.context("no run")?;
        let sample = Sample { amount: file.blocks, elapsed: best.elapsed };
        let workload = format!("{leaves} blocks of 1 KiB");
        let rate = Row::new("small", &workload, sample.per_second(), "blocks/s")
            .bar(Bar::FigureAtLeast(60_000.0))
            .note(format!(
                "{} blocks with the inner nodes, {:.0} MB; publisher and follower are processes of their own",
                file.blocks,
                file.bytes as f64 / 1e6
            ));
        let memory =
            Row::new("small memory", &workload, peak as f64 / MIB, "MiB").bar(Bar::FigureAtMost(256.0)).note(format!(
                "the most that the follower's process had resident, of all runs; {:.0} MiB when it had started",
                best.started_bytes as f64 / MIB
            ));
        file.publisher.stop().await?;
        Ok(vec![rate, memory])
    })
}

/// What the follower's process tells of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Followed {
    elapsed: Duration,
    blocks: u64,
    started_bytes: u64,
    peak_bytes: u64,
}

/// Follows `target` in a process of its own: its peak of memory is the follower's alone.
async fn spawn_follower(target: &Target) -> Result<Followed> {
    let program = env::current_exe().context("finding this program")?;
    let child = Command::new(program).env(CHILD, target.to_string()).kill_on_drop(true).output();
    let output = child.await.context("starting the follower's process")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the follower's process ended with {}: {said}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("the follower's process said: {said}"))
}

/// Where this process is to be the follower of a measurement: follows, tells how it went, and says so.
pub fn run_as_child() -> Result<bool> {
    let Some(target) = env::var_os(CHILD) else { return Ok(false) };
    let target: Target = target.to_string_lossy().parse()?;
    let followed = runtime()?.block_on(async {
        let follower = nodes::Running::fresh().await?;
        let started_bytes = machine::peak_resident_bytes().unwrap_or(u64::MAX);
        let elapsed = nodes::follow(&follower.node, &target).await?;
        let peak_bytes = machine::peak_resident_bytes().unwrap_or(u64::MAX);
        let blocks = dagmesh::Api::repo_stat(&follower.node).await?.blocks;
        follower.stop().await?;
        anyhow::Ok(Followed { elapsed, blocks, started_bytes, peak_bytes })
    })?;
    println!("{}", serde_json::to_string(&followed)?);
    Ok(true)
}
