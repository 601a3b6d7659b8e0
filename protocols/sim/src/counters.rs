//! What a run cost: messages and bytes by kind, and delays.

use std::{collections::BTreeMap, ops::AddAssign, time::Duration};

use dagmesh_core::limits::MAX_SIM_KINDS;

/// The way that a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// From one node to another.
    Unicast,
    /// One link of a publication's way over the overlay.
    Gossip,
    /// A request.
    Request,
    /// The answer to one.
    Answer,
}

/// Counts of messages. Once nothing is under way, what was sent and what the network doubled
/// (`sent + doubled`) is what became of it ([`settled`](Self::settled)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handed to a link.
    pub sent: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Came to a machine.
    pub delivered: u64,
    /// Came to a node that had seen the publication.
    pub duplicates: u64,
    /// Refused by [`Host::validate`](crate::Host::validate), or an answer that came too late.
    pub ignored: u64,
    /// Lost by a link.
    pub lost: u64,
    /// Lost because of a partition.
    pub cut: u64,
    /// Lost because the receiver did not run.
    pub away: u64,
    /// Copies that a link made.
    pub doubled: u64,
}

impl Tally {
    /// Messages that are no longer under way.
    pub fn settled(&self) -> u64 {
        self.delivered + self.duplicates + self.ignored + self.lost + self.cut + self.away
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.ignored += other.ignored;
        self.lost += other.lost;
        self.cut += other.cut;
        self.away += other.away;
        self.doubled += other.doubled;
    }
}

/// What a run cost so far.
#[derive(Debug, Default)]
pub struct Counters {
    by_kind: BTreeMap<(Way, &'static str), Tally>,
    /// Links over which a publication came to a node first, and how often so many.
    pub hops: BTreeMap<u32, u64>,
    /// Publications that the overlay did not take.
    pub not_published: u64,
    /// Writes that were made.
    pub writes: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Nodes that crashed.
    pub crashes: u64,
    /// Times an event came to an application that had been told it, since its disk was new.
    pub told_twice: u64,
    /// Times an event came to an application that nobody had published.
    pub strays: u64,
}

impl Counters {
    /// All kinds of all ways together.
    pub fn total(&self) -> Tally {
        self.sum(|_, _| true)
    }

    /// All that went this way.
    pub fn way(&self, way: Way) -> Tally {
        self.sum(|other, _| other == way)
    }

    /// All of this kind, whatever way it went.
    pub fn kind(&self, kind: &str) -> Tally {
        self.sum(|_, other| other == kind)
    }

    /// Each kind by itself, in order.
    pub fn kinds(&self) -> impl Iterator<Item = (Way, &'static str, &Tally)> {
        self.by_kind.iter().map(|((way, kind), tally)| (*way, *kind, tally))
    }

    fn sum(&self, wanted: impl Fn(Way, &str) -> bool) -> Tally {
        let mut sum = Tally::default();
        self.kinds().filter(|(way, kind, _)| wanted(*way, kind)).for_each(|(_, _, tally)| sum += *tally);
        sum
    }

    pub(crate) fn of(&mut self, way: Way, kind: &'static str) -> &mut Tally {
        let known = self.by_kind.len() < MAX_SIM_KINDS || self.by_kind.contains_key(&(way, kind));
        self.by_kind.entry((way, if known { kind } else { "other" })).or_default()
    }
}

/// Steps from one power of two to the next.
const STEPS: u32 = 64;

/// A distribution of times in bounded memory: percentiles are at most 1.6 % too high, the greatest is exact.
///
/// As in HdrHistogram, whose crate we do not need for this much: buckets of equal width within each power of two.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// By bucket; a run touches a few hundred.
    buckets: BTreeMap<u32, u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Counts one time.
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        *self.buckets.entry(bucket(micros)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The greatest, to the microsecond; zero where there are none.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max)
    }

    /// The time that this many in a hundred do not exceed; zero where there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = ((percent / 100.0 * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        for (bucket, count) in &self.buckets {
            below += count;
            if below >= wanted {
                return Duration::from_micros(upper(*bucket).min(self.max));
            }
        }
        self.max()
    }

    /// Half, nine in ten, and 99 in a hundred do not exceed these; the fourth is the greatest.
    pub fn summary(&self) -> [Duration; 4] {
        [self.percentile(50.0), self.percentile(90.0), self.percentile(99.0), self.max()]
    }
}

/// Up to [`STEPS`], each value has its own bucket; beyond, the upper half of each doubling has `STEPS` of them.
fn bucket(value: u64) -> u32 {
    let shift = (u64::BITS - (value / u64::from(STEPS)).leading_zeros()).saturating_sub(1);
    shift * STEPS + (value >> shift) as u32
}

/// The greatest value of a bucket.
fn upper(bucket: u32) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    let step = u64::from(bucket - shift * STEPS) + 1;
    u64::try_from((u128::from(step) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_and_is_narrow() {
        let mut last = 0;
        for value in (0..5000).chain((13..64).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, 3 << (bits - 1)])) {
            let top = upper(bucket(value));
            assert!(value <= top && top - value <= value / u64::from(STEPS), "{value} in a bucket up to {top}");
            assert!(value > 5000 || bucket(value) >= last);
            last = bucket(value);
        }
        assert_eq!(upper(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut times = Histogram::default();
        assert_eq!(times.summary(), [Duration::ZERO; 4]);
        (1..=1000).for_each(|ms| times.add(Duration::from_millis(ms)));
        let wanted = [500.0, 900.0, 990.0, 1000.0];
        for (got, want) in times.summary().into_iter().zip(wanted) {
            let ratio = got.as_secs_f64() * 1000.0 / want;
            assert!((1.0..1.016).contains(&ratio), "{got:?} for {want} ms");
        }
        assert_eq!((times.count(), times.max()), (1000, Duration::from_secs(1)));
    }

    #[test]
    fn kinds_beyond_the_limit_are_counted_together() {
        let mut counters = Counters::default();
        for n in 0..MAX_SIM_KINDS + 3 {
            counters.of(Way::Unicast, Box::leak(format!("kind {n}").into_boxed_str())).sent += 1;
        }
        assert_eq!(counters.kinds().count(), MAX_SIM_KINDS + 1);
        assert_eq!((counters.kind("other").sent, counters.kind("kind 63").sent), (3, 1));
        assert_eq!(counters.total().sent, MAX_SIM_KINDS as u64 + 3);
    }
}
