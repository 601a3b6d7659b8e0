//! `bulk`: how much of a plain stream's rate is left when every block is named, verified and durable.

use anyhow::Result;

use crate::{Args, Bar, Row, Sample, ceilings, content::LargeFile, machine, runtime};

/// Blocks of the default size.
const BLOCK_BYTES: usize = 256 * 1024;

/// The row of `bulk`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let bytes = args.scaled(1 << 30);
    runtime()?.block_on(async {
        let file = LargeFile::publish(bytes, BLOCK_BYTES).await?;
        let (mut figure, mut ceiling) = (None, None);
        let (mut used, mut used_plain) = (f64::INFINITY, f64::INFINITY);
        // By turns, so that a busy spell of the machine falls on both.
        for _ in 0..args.runs {
            let before = cpu_secs();
            keep_best(&mut ceiling, ceilings::plain_stream(bytes).await?);
            let between = cpu_secs();
            keep_best(&mut figure, Sample { amount: bytes, elapsed: file.follow().await? });
            (used, used_plain) = (used.min(cpu_secs() - between), used_plain.min(between - before));
        }
        let of = |best: Option<Sample>| best.map_or(f64::NAN, |sample| sample.mb_per_second());
        let row = Row::new("bulk", format!("{} MiB in blocks of 256 KiB", bytes >> 20), of(figure), "MB/s")
            .ceiling(of(ceiling))
            .bar(Bar::RatioAtLeast(0.60))
            .note(format!(
                "{} blocks; from the call of follow, dialling included, until all is verified and durable; the \
                 ceiling is one plain libp2p stream of the same bytes",
                file.blocks
            ))
            .note(format!(
                "{used:.1} s of CPU on all cores, both nodes together; the plain stream takes {used_plain:.1} s"
            ));
        file.publisher.stop().await?;
        Ok(vec![row])
    })
}

fn cpu_secs() -> f64 {
    machine::cpu_time().map_or(f64::NAN, |time| time.as_secs_f64())
}

fn keep_best(best: &mut Option<Sample>, sample: Sample) {
    if best.is_none_or(|best| sample.elapsed < best.elapsed) {
        *best = Some(sample);
    }
}
