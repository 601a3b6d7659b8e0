//! The command line.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use dagmesh_simnet::{Latency, plot};

use crate::{
    Burst, Outages, Outcome, Scenario, ScenarioError, Span, chronosync::ModelName, run, scenario::parse_time, sweep,
    table,
};

/// Runs protocols of dagmesh on a network in virtual time. A seed decides everything.
#[derive(Debug, Parser)]
#[command(name = "dagmesh-sim", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A group that publishes, on a network with faults.
    Chronosync(Group),
    /// Many small groups with every fault there is, a seed each: all have to converge, and every invariant to hold.
    Sweep {
        /// How many seeds.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
    /// The models beside each other, as a table in Markdown.
    Table {
        /// Sizes of the groups.
        #[arg(long, value_name = "N", value_delimiter = ',', default_value = "10,100,1000")]
        nodes: Vec<usize>,
        /// What runs; see `chronosync --help`.
        #[arg(long, value_name = "MODEL", value_delimiter = ',', default_value = "ours,vector,original")]
        model: Vec<ModelName>,
        /// A quarter of the publications.
        #[arg(long)]
        quick: bool,
        /// The seed of all runs.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Writes the rows as CSV too.
        #[arg(long, value_name = "FILE")]
        csv: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Group {
    /// Members.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Messages lost on each link, in per cent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    loss: f64,
    /// Decides everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many seeds from that one on, the same for each model, and a table of their means; with 1 the run itself.
    #[arg(long, default_value_t = 1, conflicts_with_all = ["csv", "svg", "json"])]
    seeds: u64,
    /// Cuts the group into two halves, as `20s..60s`.
    #[arg(long, value_name = "FROM..TO")]
    partition: Option<Span>,
    /// Members crash or leave and come back, for a minute.
    #[arg(long)]
    churn: bool,
    /// So many publications at one instant, 5 s after the first one.
    #[arg(long, value_name = "N")]
    burst: Option<usize>,
    /// Publications one after another.
    #[arg(long, value_name = "N", default_value_t = 100)]
    publications: usize,
    /// How many of them a second, in the whole group.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Median latency of a link, as `50ms`.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_time)]
    latency: Duration,
    /// Neighbours of a member on the overlay.
    #[arg(long, default_value_t = 6)]
    degree: usize,
    /// What runs: ours, vector (State Vector Sync), original (ChronoSync as of 2013); several with commas.
    #[arg(long, value_name = "MODEL", value_delimiter = ',', default_value = "ours")]
    model: Vec<ModelName>,
    /// Writes the convergence over time as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draws it.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints JSON, a line for each model.
    #[arg(long)]
    json: bool,
}

impl Group {
    fn scenario(&self) -> Scenario {
        let link = dagmesh_simnet::Link::new(Latency::LogNormal { median: self.latency, sigma: 0.5 });
        let burst = self.burst.map(|count| Burst { after: Duration::from_secs(5), count });
        let churn = self.churn.then(|| Outages::usual(self.nodes, 60));
        Scenario {
            degree: self.degree,
            link,
            publications: self.publications,
            rate: self.rate,
            bursts: burst.into_iter().collect(),
            partition: self.partition,
            churn,
            ..Scenario::new(self.seed, self.nodes)
        }
        .with_loss(self.loss)
    }

    fn run(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let scenario = self.scenario();
        scenario.check()?;
        if self.seeds > 1 {
            let seeds = self.seed..self.seed.saturating_add(self.seeds);
            let cases = seeds.map(|seed| (format!("seed {seed}"), Scenario { seed, ..scenario.clone() }));
            let rows = table::rows(&cases.collect::<Vec<_>>(), &self.model, |_| {})?;
            return Ok(write!(out, "{}", table::means(&rows))?);
        }
        let mut outcomes = Vec::new();
        for model in &self.model {
            let outcome = run(*model, &scenario)?;
            match self.json {
                true => writeln!(out, "{}", outcome.to_json())?,
                false => writeln!(out, "{outcome}")?,
            }
            outcomes.push(outcome);
        }
        let table = Outcome::curves(&outcomes);
        if let Some(file) = &self.csv {
            write(file, &table.to_csv())?;
        }
        if let Some(file) = &self.svg {
            let curves: Vec<_> = table.curves().into_iter().filter(|curve| curve.name.ends_with("_percent")).collect();
            let title = format!("{} members, {} % loss, seed {}", self.nodes, self.loss, self.seed);
            write(file, &plot::svg(&title, "seconds", "told, per cent", &curves))?;
        }
        Ok(())
    }
}

fn write(file: &PathBuf, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Does what the arguments say; what is wrong goes to standard error. Gives 0 if all went as it must, 1 if an invariant
/// was broken or a file not written, 2 on arguments that are out of bounds.
pub fn run_args(args: &Args, out: &mut impl Write) -> ExitCode {
    let Err(error) = args.command.run(out) else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    if error.is::<ScenarioError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

impl Command {
    fn run(&self, out: &mut impl Write) -> anyhow::Result<()> {
        match self {
            Self::Chronosync(group) => group.run(out),
            Self::Sweep { seeds, first } => {
                let swept = sweep::sweep(*first..first.saturating_add(*seeds))?;
                Ok(writeln!(out, "{swept}")?)
            }
            Self::Table { nodes, model, quick, seed, csv } => {
                let cases = table::cases(*seed, nodes, *quick);
                cases.iter().try_for_each(|(_, scenario)| scenario.check())?;
                let rows = table::rows(&cases, model, |done| eprintln!("{done}"))?;
                write!(out, "{}", table::markdown(&rows))?;
                csv.iter().try_for_each(|file| write(file, &table::csv(&rows)))
            }
        }
    }
}
