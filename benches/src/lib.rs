//! Measurements. Each prints its workload, our figure, the ceiling measured in the same run, their ratio and the bar:
//! an absolute figure says little on a machine that is shared.
//!
//! ```text
//! cargo run --release -p dagmesh-benches -- NAME [--json] [--scale 0.1] [--runs 3]
//! ```
//!
//! # Adding one
//! A measurement is a module with `pub fn run(args: &Args) -> anyhow::Result<Vec<Row>>`, and an entry in [`ROWS`].
//! It scales its workload by [`Args::scaled`], measures its ceiling through [`ceilings`] next to its figure, and gives
//! a [`Row`] for every line of the table. What needs a line with delay has `dagmesh_tests::DelayProxy`; folders come
//! from `dagmesh_tests::make_folder`; what needs a process of its own, to be killed or for what it takes, has [`child`].

use std::time::Duration;

use anyhow::{Context, Result};

pub mod bulk;
pub mod ceilings;
pub mod chain;
pub mod child;
pub mod cold;
mod content;
pub mod edit;
pub mod fanout;
pub mod file;
pub mod idle;
pub mod increment;
pub mod interop_chain;
pub mod machine;
mod nodes;
pub mod records;
mod report;
pub mod resume;
mod row;
pub mod scale;
pub mod small;

pub use machine::Machine;
pub use report::Report;
pub use row::{Bar, Row};

/// A measurement that exists.
pub struct Entry {
    /// What to type for it.
    pub name: &'static str,
    /// Measures, and gives at least one row.
    pub run: fn(&Args) -> Result<Vec<Row>>,
}

/// Every measurement, in the order of `all`.
pub const ROWS: &[Entry] = &[
    Entry { name: "ceilings", run: ceilings::run },
    Entry { name: "bulk", run: bulk::run },
    Entry { name: "small", run: small::run },
    Entry { name: "chain", run: chain::run },
    Entry { name: "increment", run: increment::run },
    Entry { name: "edit", run: edit::run },
    Entry { name: "cold", run: cold::run },
    Entry { name: "resume", run: resume::run },
    Entry { name: "fanout", run: fanout::run },
    Entry { name: "scale", run: scale::run },
    Entry { name: "idle", run: idle::run },
    Entry { name: "file", run: file::run },
    Entry { name: "interop-chain", run: interop_chain::run },
    Entry { name: "records", run: records::run },
];

/// Measures, and prints each figure beside its ceiling.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "dagmesh-benches", version)]
pub struct Args {
    /// Which measurement.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(names()))]
    pub name: String,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Size of the workload in parts of the whole one. Bars hold for the whole one alone.
    #[arg(long, default_value_t = 1.0, value_parser = parse_scale)]
    pub scale: f64,
    /// How often each figure is measured; the best counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// What `records` alone can be told.
    #[command(flatten)]
    pub records: records::Options,
}

impl Args {
    /// `whole` in the scale that was asked for, at least 1.
    pub fn scaled(&self, whole: u64) -> u64 {
        ((whole as f64 * self.scale) as u64).max(1)
    }

    /// The best of as many runs as were asked for: the one that took the least time.
    pub fn best<F: FnMut() -> Result<Sample>>(&self, mut run: F) -> Result<Sample> {
        let mut best = run()?;
        for _ in 1..self.runs {
            let sample = run()?;
            if sample.elapsed < best.elapsed {
                best = sample;
            }
        }
        Ok(best)
    }
}

/// So much moved in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// What moved: bytes, blocks, whatever is counted.
    pub amount: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Sample {
    /// The amount a second.
    pub fn per_second(&self) -> f64 {
        self.amount as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The amount as bytes, in MB/s (10^6 bytes).
    pub fn mb_per_second(&self) -> f64 {
        self.per_second() / 1e6
    }
}

/// Runs what `args` ask for.
pub fn run(args: &Args) -> Result<Report> {
    let machine = Machine::look();
    let mut rows = Vec::new();
    for entry in ROWS.iter().filter(|entry| args.name == "all" || args.name == entry.name) {
        eprintln!("{} ...", entry.name);
        let mut measured = (entry.run)(args).with_context(|| format!("measuring {}", entry.name))?;
        if args.scale != 1.0 {
            measured.iter_mut().for_each(Row::unjudge);
        }
        rows.append(&mut measured);
    }
    Ok(Report { machine, rows })
}

/// The runtime for measurements: all cores, as the node has it.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting a tokio runtime")
}

fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|entry| entry.name).chain(["all"])
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err("a number above 0, at most 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn names_are_unique_and_all_is_none_of_them() {
        let mut seen = std::collections::BTreeSet::new();
        assert!(names().all(|name| seen.insert(name)));
        Args::command().debug_assert();
    }

    #[test]
    fn a_measurement_that_does_not_exist_is_a_usage_error_that_names_those_that_do() {
        let error = Args::try_parse_from(["dagmesh-benches", "warp"]).expect_err("no such measurement").to_string();
        assert!(error.contains("ceilings") && error.contains("all"), "{error}");
        assert!(Args::try_parse_from(["dagmesh-benches", "all", "--scale", "0"]).is_err());
    }

    #[test]
    fn the_best_run_is_the_shortest() {
        let args = Args { name: "all".to_owned(), json: false, scale: 1.0, runs: 3, records: Default::default() };
        let mut times = [30, 10, 20].into_iter();
        let best = args.best(|| {
            let elapsed = Duration::from_millis(times.next().expect("three runs"));
            Ok(Sample { amount: 1, elapsed })
        });
        assert_eq!(best.expect("a sample").elapsed, Duration::from_millis(10));
        assert_eq!(times.next(), None);
    }
}
