//! What a run is like.

use std::{
    fmt::{self, Display, Formatter},
    ops::Range,
    str::FromStr,
    time::Duration,
};

use dagmesh_core::limits::{
    MAX_SIM_RUN_DEGREE, MAX_SIM_RUN_LATENCY_MS, MAX_SIM_RUN_NODES, MAX_SIM_RUN_PUBLICATIONS, MAX_SIM_RUN_SECS,
};
use dagmesh_simnet::{Churn, Config, DiskModel, Latency, Link, NodeId};

/// A run: the network, what happens to it, and what is published. The same scenario gives every model the same
/// publications and the same outages.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Decides everything.
    pub seed: u64,
    /// Members, 2 to [`MAX_SIM_RUN_NODES`].
    pub nodes: usize,
    /// Neighbours of a member on the overlay, 1 to [`MAX_SIM_RUN_DEGREE`].
    pub degree: usize,
    /// All links. Half of the messages take its latency's median or less.
    pub link: Link,
    /// All disks. None that fails and takes time is the default, so that delays are the network's and the protocol's.
    pub disk: DiskModel,
    /// Producers of whom every member knows a publication from the beginning: the members first, then others.
    pub leaves: usize,
    /// When the first publication is made: members have found one another by then.
    pub start: Duration,
    /// Publications one after another, by members at random.
    pub publications: usize,
    /// How many of them a second, in the whole group.
    pub rate: f64,
    /// Publications at one instant.
    pub bursts: Vec<Burst>,
    /// When the network is cut into two halves.
    pub partition: Option<Span>,
    /// Members that leave and come back.
    pub churn: Option<Outages>,
    /// How long after that is measured at least, so that what goes on in a quiet group counts for every model.
    pub tail: Duration,
    /// How long the group has at most to converge, once all is published and every fault but loss is healed.
    pub patience: Duration,
}

/// Publications at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst {
    /// When, after [`Scenario::start`].
    pub after: Duration,
    /// How many, each by another member while there are as many.
    pub count: usize,
}

/// From when to when, from the beginning of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From then.
    pub start: Duration,
    /// Until then.
    pub end: Duration,
}

/// Members that leave and come back, at random.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outages {
    /// While this lasts.
    pub during: Span,
    /// Mean time from one to the next in the whole group.
    pub every: Duration,
    /// Mean time that one is away.
    pub away: Duration,
    /// How likely it crashes instead of stopping in good order.
    pub crash: f64,
    /// How likely it comes back with an empty disk.
    pub wipe: f64,
}

/// What cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// Outside its bounds.
    #[error("{what} is {value}, and may be {least} to {most}")]
    Bounds {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: f64,
        /// The least there may be.
        least: f64,
        /// The most there may be.
        most: f64,
    },
    /// Not from one time to a later one.
    #[error("`{0}` is not two times as in `20s..60s` or `500ms..1.5m`, the first before the second")]
    Span(String),
    /// Not a time.
    #[error("`{0}` is not a time as `90s`, `250ms` or `1.5m`")]
    Time(String),
    /// Nothing to measure.
    #[error("nothing is published: ask for publications or a burst")]
    Nothing,
}

impl Scenario {
    /// A group on links of 50 ms (log-normal, one in a hundred above 160 ms) with 6 neighbours each, 100 publications
    /// at 5 a second, and nothing that goes wrong. Every member has published before.
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            degree: 6,
            link: Link::default(),
            disk: DiskModel { latency: Latency::Fixed(Duration::ZERO), failure: 0.0 },
            leaves: nodes,
            start: Duration::from_secs(5),
            publications: 100,
            rate: 5.0,
            bursts: Vec::new(),
            partition: None,
            churn: None,
            tail: Duration::from_secs(30),
            patience: Duration::from_secs(120),
        }
    }

    /// The same with so many messages in a hundred lost.
    pub fn with_loss(mut self, percent: f64) -> Self {
        self.link.loss = percent / 100.0;
        self
    }

    /// Whether all of it is within its bounds.
    ///
    /// # Errors
    /// The first number that is not.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let at_once = self.bursts.iter().map(|burst| burst.count).sum::<usize>();
        let secs = MAX_SIM_RUN_SECS as f64;
        let median = match self.link.latency {
            Latency::Fixed(time) | Latency::Uniform(time, _) => time,
            Latency::LogNormal { median, .. } => median,
            Latency::Exponential { min, .. } => min,
        };
        let last_fault = self.partition.iter().chain(self.churn.as_ref().map(|churn| &churn.during));
        let last_fault = last_fault.map(|span| span.end).max().unwrap_or_default();
        let numbers = [
            ("the number of nodes", self.nodes as f64, 2.0, MAX_SIM_RUN_NODES as f64),
            ("the degree", self.degree as f64, 1.0, MAX_SIM_RUN_DEGREE as f64),
            ("the loss in per cent", self.link.loss * 100.0, 0.0, 90.0),
            ("the rate per second", self.rate, 0.01, 10_000.0),
            ("the number of publications", self.published() as f64, 0.0, MAX_SIM_RUN_PUBLICATIONS as f64),
            ("the number of publications at one instant", at_once as f64, 0.0, MAX_SIM_RUN_PUBLICATIONS as f64),
            ("the latency in ms", median.as_secs_f64() * 1000.0, 0.0, MAX_SIM_RUN_LATENCY_MS as f64),
            ("the time of the last fault in s", last_fault.as_secs_f64(), 0.0, secs),
        ];
        for (what, value, least, most) in numbers {
            if !(least..=most).contains(&value) {
                return Err(ScenarioError::Bounds { what, value, least, most });
            }
        }
        let (value, most) = (self.last_publication().as_secs_f64(), secs);
        if value > most {
            return Err(ScenarioError::Bounds { what: "the last publication in s", value, least: 0.0, most });
        }
        if self.published() == 0 { Err(ScenarioError::Nothing) } else { Ok(()) }
    }

    /// How many publications there are.
    pub fn published(&self) -> usize {
        self.publications + self.bursts.iter().map(|burst| burst.count).sum::<usize>()
    }

    /// When the `n`-th of those one after another is made.
    pub fn publication(&self, n: usize) -> Duration {
        self.start + Duration::try_from_secs_f64(n as f64 / self.rate).unwrap_or(Duration::MAX / 4)
    }

    fn last_publication(&self) -> Duration {
        let last = self.publications.checked_sub(1).map(|last| self.publication(last));
        last.into_iter().chain(self.bursts.iter().map(|burst| self.start + burst.after)).max().unwrap_or(self.start)
    }

    /// When all is published, the cut healed, and no member goes any more.
    pub fn quiet(&self) -> Duration {
        let churn = self.churn.map(|churn| churn.during.end);
        [Some(self.last_publication()), self.partition.map(|span| span.end), churn]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or_default()
    }

    /// The network of it.
    pub(crate) fn network(&self) -> Config {
        Config { link: self.link, degree: self.degree, disk: self.disk, ..Config::new(self.seed) }
    }

    /// The lower half of the members, which a partition cuts off.
    pub(crate) fn half(&self) -> Vec<NodeId> {
        (0..self.nodes as u32 / 2).map(NodeId).collect()
    }

    pub(crate) fn outages(&self) -> Option<Churn> {
        let Outages { during, every, away, crash, wipe } = self.churn?;
        let Range { start, end } = during.start..during.end;
        Some(Churn { during: start..end, nodes: 0..self.nodes as u32, every, away, crash, wipe })
    }
}

impl Outages {
    /// From 10 s on for `secs`: one member in 20 at a time is away for 5 s, a third of them crash, none loses its disk.
    pub fn usual(nodes: usize, secs: u64) -> Self {
        let during = Span { start: Duration::from_secs(10), end: Duration::from_secs(10 + secs) };
        let away = Duration::from_secs(5);
        Self { during, every: away * 20 / nodes.max(1) as u32, away, crash: 1.0 / 3.0, wipe: 0.0 }
    }
}

impl FromStr for Span {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        let wrong = || ScenarioError::Span(text.to_owned());
        let (start, end) = text.split_once("..").ok_or_else(wrong)?;
        let (start, end) = (parse_time(start).map_err(|_| wrong())?, parse_time(end).map_err(|_| wrong())?);
        if start < end { Ok(Self { start, end }) } else { Err(wrong()) }
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.start, self.end)
    }
}

/// A time as `90s`, `250ms` or `1.5m`; a number alone is seconds.
pub(crate) fn parse_time(text: &str) -> Result<Duration, ScenarioError> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0)];
    let parsed =
        units.iter().find_map(|(unit, secs)| Some(text.trim().strip_suffix(unit)?.parse::<f64>().ok()? * secs));
    let time = parsed.and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    time.ok_or_else(|| ScenarioError::Time(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_read_and_nonsense_is_refused() {
        let span: Span = "20s..60s".parse().expect("a span");
        assert_eq!((span.start, span.end), (Duration::from_secs(20), Duration::from_secs(60)));
        assert_eq!("250ms..1.5m".parse::<Span>().map(|span| span.end), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("7"), Ok(Duration::from_secs(7)));
        for wrong in ["60s..20s", "20s", "20s..", "a..b", "-1s..5s", "..", "5s..5s"] {
            assert_eq!(wrong.parse::<Span>(), Err(ScenarioError::Span(wrong.into())), "{wrong}");
        }
        assert!(parse_time("NaNs").is_err() && parse_time("1e300s").is_err());
    }

    #[test]
    fn bounds_are_checked_at_the_last_number_and_one_beyond() {
        let good = Scenario::new(1, MAX_SIM_RUN_NODES);
        assert_eq!(good.check(), Ok(()));
        let changes: [fn(&mut Scenario); 8] = [
            |bad| bad.nodes += 1,
            |bad| bad.nodes = 1,
            |bad| bad.degree = 0,
            |bad| bad.degree = MAX_SIM_RUN_DEGREE + 1,
            |bad| bad.link.loss = f64::NAN,
            |bad| bad.publications = MAX_SIM_RUN_PUBLICATIONS + 1,
            |bad| bad.rate = 0.0,
            |bad| bad.publications = 0,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(bad.check().is_err(), "change {n}");
        }
        let slow = Scenario { rate: 0.01, ..good };
        assert!(slow.check().expect_err("too long").to_string().contains("the last publication"));
    }
}
