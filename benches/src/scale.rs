//! `scale`: what is large in one way: a folder of very many files, a very deep DAG, an object of very many links.

use anyhow::{Context, Result, ensure};

use crate::{
    Args, Bar, Row, Sample,
    child::{self, Followed},
    content::Content,
    machine::MIB,
    runtime,
};

/// Bytes a file, on average: as in a folder of sources.
const FILE_BYTES: u64 = 2048;

/// The rows of `scale`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let files = args.scaled(200_000);
    let blocks = args.scaled(100_000);
    let links = args.scaled(1_000_000);
    let mut rows = Vec::new();
    for (name, workload, content) in [
        ("folder", format!("a folder of {files} files"), Content::Folder { files, file_bytes: FILE_BYTES }),
        ("deep", format!("a DAG {blocks} blocks deep"), Content::Deep { blocks }),
        ("links", format!("an object with {links} links"), Content::Links { links }),
    ] {
        rows.extend(runtime()?.block_on(measure(args, name, &workload, content))?);
    }
    Ok(rows)
}

async fn measure(args: &Args, name: &str, workload: &str, content: Content) -> Result<[Row; 3]> {
    let (mut publisher, published) = child::publish(content).await?;
    let mut best: Option<Followed> = None;
    let mut peak = 0;
    for _ in 0..args.runs {
        let (_, followed) = child::follow(&published.target).await?;
        ensure!(followed.blocks == published.blocks, "{} of {} blocks arrived", followed.blocks, published.blocks);
        peak = peak.max(followed.usage.peak_bytes);
        if best.as_ref().is_none_or(|best| followed.elapsed < best.elapsed) {
            best = Some(followed);
        }
    }
    let serving = publisher.usage().await?;
    publisher.end().await?;
    let best = best.context("no run")?;
    let sample = Sample { amount: published.blocks, elapsed: best.elapsed };
    let made = Sample { amount: published.blocks, elapsed: published.elapsed };
    let memory = |side: &str, bytes: u64| {
        Row::new(format!("scale {name} memory, {side}"), workload, bytes as f64 / MIB, "MiB")
            .bar(Bar::FigureAtMost(256.0))
            .note("the most that its process had resident")
    };
    Ok([
        Row::new(format!("scale {name}"), workload, sample.per_second(), "blocks/s").note(format!(
            "{} blocks, {:.1} MB, followed in {:.1} s; published in {:.1} s, {:.0} blocks/s",
            published.blocks,
            published.bytes as f64 / 1e6,
            best.elapsed.as_secs_f64(),
            published.elapsed.as_secs_f64(),
            made.per_second()
        )),
        memory("follower", peak),
        memory("publisher", serving.peak_bytes),
    ])
}
