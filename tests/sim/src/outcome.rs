//! What came of a run.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use dagmesh_simnet::{Counters, Simulation, Tally, TraceHash, Way, plot::Table};
use serde_json::{Value, json};

use crate::{
    Scenario,
    chronosync::{Model, ModelName},
};

/// What a run cost, from its first publication to the end of what is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Messages over one link each.
    pub messages: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Of the messages, those of a publication that its receiver had.
    pub duplicates: u64,
    /// Of the messages, requests.
    pub requests: u64,
}

impl Cost {
    pub(crate) fn of(counters: &Counters) -> Self {
        let Tally { sent, bytes, duplicates, .. } = counters.total();
        Self { messages: sent, bytes, duplicates, requests: counters.way(Way::Request).sent }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
            duplicates: self.duplicates - before.duplicates,
            requests: self.requests - before.requests,
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Of which model.
    pub model: ModelName,
    /// The seed.
    pub seed: u64,
    /// Members.
    pub nodes: usize,
    /// Numbers that were published.
    pub published: usize,
    /// From a publication until it was told at each other member: p50, p90, p99, and the longest.
    pub delays: [Duration; 4],
    /// What it cost.
    pub cost: Cost,
    /// Each kind of message by itself, from the beginning of the run: way, name, messages, bytes.
    pub kinds: Vec<(Way, &'static str, u64, u64)>,
    /// When all members knew the same and were told all; `None` if never.
    pub converged: Option<Duration>,
    /// When everything was published, the network whole, and every member back.
    pub healed: Duration,
    /// Times an application was told a number again.
    pub told_twice: u64,
    /// The hash of all that happened.
    pub trace: TraceHash,
    /// Over the time: how many were told of a publication, and the cost.
    curve: Vec<(Duration, u64, Cost)>,
}

impl Outcome {
    pub(crate) fn new<M: Model>(
        model: ModelName,
        scenario: &Scenario,
        network: &Simulation<M>,
        curve: Vec<(Duration, u64, Cost)>,
        healed: Duration,
        converged: Option<Duration>,
        cost: Cost,
    ) -> Self {
        Self {
            model,
            seed: scenario.seed,
            nodes: scenario.nodes,
            published: network.events().filter(|(_, spread)| spread.since() >= scenario.start).count(),
            delays: network.delays().summary(),
            cost,
            kinds: network.counters().kinds().map(|(way, kind, tally)| (way, kind, tally.sent, tally.bytes)).collect(),
            converged,
            healed,
            told_twice: network.counters().told_twice,
            trace: network.trace_hash(),
            curve,
        }
    }

    /// Bytes for each publication, over all links of all members.
    pub fn bytes_per_publication(&self) -> f64 {
        self.cost.bytes as f64 / self.published.max(1) as f64
    }

    /// Bytes for each member, over all links that it sends on.
    pub fn bytes_per_member(&self) -> f64 {
        self.cost.bytes as f64 / self.nodes as f64
    }

    /// How long after [`healed`](Self::healed) all members knew the same.
    pub fn healed_after(&self) -> Option<Duration> {
        self.converged.map(|at| at.saturating_sub(self.healed))
    }

    /// All of it, under the names that `--json` prints.
    pub fn to_json(&self) -> Value {
        let [p50, p90, p99, max] = self.delays.map(ms);
        let kinds = self.kinds.iter().map(|(way, kind, messages, bytes)| {
            json!({ "way": format!("{way:?}").to_lowercase(), "kind": kind, "messages": messages, "bytes": bytes })
        });
        json!({
            "model": self.model.as_str(),
            "seed": self.seed,
            "nodes": self.nodes,
            "publications": self.published,
            "delay_ms": { "p50": p50, "p90": p90, "p99": p99, "max": max },
            "messages": self.cost.messages,
            "bytes": self.cost.bytes,
            "bytes_per_publication": self.bytes_per_publication(),
            "bytes_per_member": self.bytes_per_member(),
            "duplicates": self.cost.duplicates,
            "requests": self.cost.requests,
            "kinds": kinds.collect::<Vec<_>>(),
            "converged": self.converged.is_some(),
            "converged_at_s": self.converged.map(|at| at.as_secs_f64()),
            "told_twice": self.told_twice,
            "trace_hash": self.trace.to_string(),
        })
    }

    /// The curves of some runs over time: for each the share of members' applications that were told, in per cent, and
    /// messages and bytes.
    pub fn curves(outcomes: &[Self]) -> Table {
        let name = |outcome: &Self, what: &str| format!("{}_{what}", outcome.model);
        let columns = outcomes.iter().flat_map(|run| ["told_percent", "messages", "bytes"].map(|what| name(run, what)));
        let columns: Vec<_> = std::iter::once("time_s".to_owned()).chain(columns).collect();
        let mut table = Table::new(columns.iter().map(String::as_str));
        let rows = outcomes.iter().map(|run| run.curve.len()).max().unwrap_or_default();
        for row in 0..rows {
            let at = outcomes.iter().find_map(|run| run.curve.get(row)).map_or(f64::NAN, |(at, ..)| at.as_secs_f64());
            let cells = outcomes.iter().flat_map(|run| match run.curve.get(row) {
                Some((_, told, cost)) => [run.share(*told), cost.messages as f64, cost.bytes as f64],
                None => [f64::NAN; 3],
            });
            table.row(std::iter::once(at).chain(cells));
        }
        table
    }

    /// How much of what is to be told was told, in per cent.
    fn share(&self, told: u64) -> f64 {
        100.0 * told as f64 / (self.published * (self.nodes - 1)).max(1) as f64
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, max] = self.delays.map(ms);
        let Cost { messages, bytes, duplicates, requests } = self.cost;
        writeln!(f, "{}: {} members, {} publications, seed {}", self.model, self.nodes, self.published, self.seed)?;
        writeln!(f, "  delay          p50 {p50:.0} ms, p90 {p90:.0} ms, p99 {p99:.0} ms, longest {max:.0} ms")?;
        writeln!(f, "  messages       {messages}, of them {duplicates} duplicates and {requests} requests")?;
        let (publication, member) = (self.bytes_per_publication(), self.bytes_per_member());
        writeln!(f, "  bytes          {bytes}; {publication:.0} a publication, {member:.0} a member")?;
        for (way, kind, messages, bytes) in &self.kinds {
            writeln!(f, "    {:<12} {way:?}: {messages} messages, {bytes} bytes", kind)?;
        }
        match (self.converged, self.healed_after()) {
            (Some(at), Some(after)) => {
                writeln!(
                    f,
                    "  converged      at {:.1} s, {:.1} s after all was published and healed",
                    at.as_secs_f64(),
                    after.as_secs_f64()
                )?;
            }
            _ => writeln!(f, "  converged      no")?,
        }
        writeln!(f, "  told twice     {}", self.told_twice)?;
        writeln!(f, "  trace hash     {}", self.trace)
    }
}
