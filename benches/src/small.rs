//! `small`: many small blocks, where each costs a hash, a step of the walk and a row of the store.

use anyhow::{Context, Result, ensure};

use crate::{
    Args, Bar, Row, Sample,
    child::{self, Followed, Usage},
    content::Content,
    machine::MIB,
    runtime,
};

/// Size of a leaf.
const BLOCK_BYTES: usize = 1024;

/// The rows of `small`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let leaves = args.scaled(1_000_000);
    runtime()?.block_on(async {
        let content = Content::File { bytes: leaves * BLOCK_BYTES as u64, chunk_bytes: BLOCK_BYTES };
        let (mut publisher, published) = child::publish(content).await?;
        let mut best: Option<(Usage, Followed)> = None;
        let mut peak: u64 = 0;
        for _ in 0..args.runs {
            let (started, followed) = child::follow(&published.target).await?;
            let (held, blocks) = (followed.blocks, published.blocks);
            ensure!(held == blocks, "{held} of {blocks} blocks arrived");
            peak = peak.max(followed.usage.peak_bytes);
            if best.as_ref().is_none_or(|(_, best)| followed.elapsed < best.elapsed) {
                best = Some((started, followed));
            }
        }
        let serving = publisher.usage().await?;
        publisher.end().await?;
        let (started, best) = best.context("no run")?;
        let sample = Sample { amount: published.blocks, elapsed: best.elapsed };
        let workload = format!("{leaves} blocks of 1 KiB");
        let rate = Row::new("small", &workload, sample.per_second(), "blocks/s")
            .bar(Bar::FigureAtLeast(60_000.0))
            .note(format!(
                "{} blocks with the inner nodes, {:.0} MB; publisher and follower are processes of their own",
                published.blocks,
                published.bytes as f64 / 1e6
            ))
            .note(format!(
                "{:.1} s of CPU at the follower, {:.1} s at the publisher",
                (best.usage.cpu - started.cpu).as_secs_f64(),
                (serving.cpu - published.usage.cpu).as_secs_f64() / f64::from(args.runs)
            ));
        let memory =
            Row::new("small memory", &workload, peak as f64 / MIB, "MiB").bar(Bar::FigureAtMost(256.0)).note(format!(
                "the most that the follower's process had resident, of all runs; {:.0} MiB when it had started; the \
                 publisher's {:.0} MiB once it had published, {:.0} MiB at the end",
                started.peak_bytes as f64 / MIB,
                published.usage.peak_bytes as f64 / MIB,
                serving.peak_bytes as f64 / MIB
            ));
        Ok(vec![rate, memory])
    })
}
