//! `cold`: a first sync of ever more blocks. Its time grows with their number and no faster, its memory not at all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    Args, Bar, Row,
    child::{self, Followed},
    content::Content,
    machine::MIB,
    runtime,
};

/// Leaves of the smallest sync; each further one has ten times as many.
const LEAST: u64 = 100;
const SIZES: usize = 5;
const BLOCK_BYTES: usize = 1024;

/// The rows of `cold`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let mut measured: Vec<Cold> = Vec::new();
    for size in 0..SIZES {
        let leaves = args.scaled(LEAST * 10_u64.pow(size as u32)).max(10);
        measured.push(runtime()?.block_on(measure(args, leaves))?);
    }
    let [.., before, last] = measured.as_slice() else { anyhow::bail!("no sizes") };
    let workload = format!("{} to {} blocks of 1 KiB", measured.first().map_or(0, |cold| cold.blocks), last.blocks);
    let points: Vec<(f64, f64)> =
        measured.iter().map(|cold| (cold.blocks as f64, cold.elapsed.as_secs_f64())).collect();
    let listed = |of: &dyn Fn(&Cold) -> String| {
        measured.iter().map(|cold| format!("{}: {}", cold.blocks, of(cold))).collect::<Vec<_>>().join(", ")
    };
    let last_two = points.get(SIZES - 2..).unwrap_or_default();
    Ok(vec![
        Row::new("cold slope", &workload, slope(&points), "").bar(Bar::FigureAtMost(1.05)).note(format!(
            "of time over blocks, both logarithmic, by least squares: {}",
            listed(&|cold| format!("{:.3} s", cold.elapsed.as_secs_f64()))
        )),
        Row::new("cold slope, last", format!("{} to {} blocks", before.blocks, last.blocks), slope(last_two), "")
            .bar(Bar::FigureAtMost(1.05))
            .note("of the two largest alone: what all have in common, such as connecting, hides nothing there"),
        Row::new("cold memory", &workload, last.peak_bytes as f64 / MIB, "MiB")
            .ceiling(before.peak_bytes as f64 / MIB)
            .bar(Bar::RatioAtMost(1.15))
            .note(format!(
                "the most that the follower's process had resident, against that of a tenth of the blocks: {}",
                listed(&|cold| format!("{:.0} MiB", cold.peak_bytes as f64 / MIB))
            )),
    ])
}

struct Cold {
    blocks: u64,
    /// The shortest time of all runs.
    elapsed: Duration,
    /// The highest peak of all runs.
    peak_bytes: u64,
}

async fn measure(args: &Args, leaves: u64) -> Result<Cold> {
    let content = Content::File { bytes: leaves * BLOCK_BYTES as u64, chunk_bytes: BLOCK_BYTES };
    let (publisher, published) = child::publish(content).await?;
    let mut runs: Vec<Followed> = Vec::new();
    for _ in 0..args.runs {
        let (_, followed) = child::follow(&published.target).await?;
        ensure!(followed.blocks == published.blocks, "{} of {} blocks arrived", followed.blocks, published.blocks);
        runs.push(followed);
    }
    publisher.end().await?;
    let elapsed = runs.iter().map(|run| run.elapsed).min().context("no run")?;
    let peak_bytes = runs.iter().map(|run| run.usage.peak_bytes).max().context("no run")?;
    Ok(Cold { blocks: published.blocks, elapsed, peak_bytes })
}

/// The slope of the line through `points` on logarithmic axes, by least squares: the `n` of `time = c * blocks^n`.
fn slope(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let (mean_x, mean_y) =
        (logs.iter().map(|(x, _)| x).sum::<f64>() / count, logs.iter().map(|(_, y)| y).sum::<f64>() / count);
    let covariance: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_power_by_which_time_grows() {
        let of = |power: f64| slope(&[100.0, 1e4, 1e6].map(|blocks: f64| (blocks, 3.0 * blocks.powf(power))));
        for power in [0.5, 1.0, 1.05, 2.0] {
            assert!((of(power) - power).abs() < 1e-9, "{}", of(power));
        }
    }
}
