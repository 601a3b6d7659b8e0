//! Many seeds: small groups with every fault there is.

use std::{
    fmt::{self, Display, Formatter},
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dagmesh_simnet::{DiskModel, Link};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Burst, Outages, Outcome, Scenario, Span, chronosync::ModelName, run};

/// A group of 3 to 10 members with much that goes wrong, all of it decided by the seed: up to 20 % loss, copies,
/// messages held back, publications at one instant, a cut, members that stop, crash and lose their disks, disks that
/// fail.
pub fn wild(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::MAX - 1);
    let secs = |secs: u64| Duration::from_secs(secs);
    let nodes: usize = rng.random_range(3..=10);
    let leaves = if rng.random() { nodes } else { 0 };
    let mut scenario = Scenario { leaves, ..Scenario::new(seed, nodes) };
    scenario.link = Link {
        loss: rng.random_range(0.0..0.2),
        duplicate: rng.random_range(0.0..0.1),
        reorder: rng.random_range(0.0..0.2),
        ..scenario.link
    };
    scenario.degree = rng.random_range(3..=6);
    scenario.disk = DiskModel { failure: rng.random_range(0.0..0.1), ..DiskModel::default() };
    scenario.publications = rng.random_range(5..=20);
    scenario.rate = rng.random_range(1.0..10.0);
    let burst =
        |rng: &mut ChaCha8Rng| Burst { after: secs(rng.random_range(0..12)), count: rng.random_range(2..=nodes) };
    scenario.bursts = (0..rng.random_range(0..=2)).map(|_| burst(&mut rng)).collect();
    if rng.random() {
        let start = secs(rng.random_range(4..10));
        scenario.partition = Some(Span { start, end: start + secs(rng.random_range(1..12)) });
    }
    if rng.random() {
        let during = Span { start: secs(4), end: secs(16) };
        let (every, away) = (Duration::from_millis(rng.random_range(500..4000)), secs(rng.random_range(1..5)));
        let (crash, wipe) = (rng.random(), rng.random_range(0.0..0.4));
        scenario.churn = Some(Outages { during, every, away, crash, wipe });
    }
    scenario.tail = Duration::ZERO;
    scenario.patience = secs(300);
    scenario
}

/// What came of a sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Numbers that were published in all.
    pub published: u64,
    /// Messages in all.
    pub messages: u64,
    /// Of each run, how long after all was published and healed it converged, and its seed; the fastest first.
    pub healed: Vec<(Duration, u64)>,
}

impl Swept {
    fn add(&mut self, run: &Outcome) {
        self.published += run.published as u64;
        self.messages += run.cost.messages;
        self.healed.push((run.healed_after().unwrap_or_default(), run.seed));
    }

    fn join(&mut self, other: Self) {
        self.published += other.published;
        self.messages += other.messages;
        self.healed.extend(other.healed);
        self.healed.sort();
    }
}

impl Display for Swept {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { published, messages, healed } = self;
        let at = |percent: usize| healed.get((healed.len() * percent / 100).min(healed.len().saturating_sub(1)));
        let secs = |percent| at(percent).map_or(0.0, |(time, _)| time.as_secs_f64());
        let (runs, seed) = (healed.len(), at(100).map_or(0, |(_, seed)| *seed));
        write!(
            f,
            "{runs} seeds converged, {published} publications, {messages} messages; once everything was healed, in "
        )?;
        write!(f, "{:.1} s (p50), {:.1} s (p99), {:.1} s at most (seed {seed})", secs(50), secs(99), secs(100))
    }
}

/// Runs [`wild`] groups of our machine, on all processors.
///
/// # Errors
/// The first seed where something does not hold that must, with what it was.
pub fn sweep(seeds: Range<u64>) -> anyhow::Result<Swept> {
    let next = AtomicU64::new(seeds.start);
    let work = || -> anyhow::Result<Swept> {
        let mut swept = Swept::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(swept);
            }
            let run = run(ModelName::Ours, &wild(seed)).inspect_err(|_| next.store(seeds.end, Ordering::Relaxed))?;
            swept.add(&run);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Swept::default();
        for worker in workers {
            all.join(worker.join().map_err(|_| anyhow::anyhow!("a run panicked"))??);
        }
        Ok(all)
    })
}
