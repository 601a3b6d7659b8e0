//! How far each session of each producer is told, and what is known to lie ahead.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use cid::Cid;
use dagmesh_chronosync::{GroupHead, LeafKey};
use dagmesh_core::limits::{NEWS_RETRY_MS, RETRY_MAX_MS, RETRY_MIN_MS};
use libp2p::PeerId;

use crate::store::GroupProgress;

/// Ranges of numbers of one session that are remembered to be recovered or not; more are taken together.
const MAX_RANGES: usize = 64;

/// One session of one producer.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) producer: PeerId,
    /// As it stands on the disk.
    pub(super) progress: GroupProgress,
    /// The newest head, where it is not told yet: its number and the entry that it names.
    pub(super) target: Option<(u64, Option<Cid>)>,
    /// Up to which number of those not told yet they were learnt by catching up, or not.
    ranges: VecDeque<(u64, bool)>,
    /// Whether it may have contents that are to become whole.
    pub(super) waiting: bool,
    /// When its entries are fetched, and its contents.
    pub(super) entries: Turn,
    pub(super) contents: Turn,
}

/// When something may be tried.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turn {
    pub(super) busy: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Turn {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.busy && self.not_before.is_none_or(|at| at <= now)
    }

    pub(super) fn done(&mut self) {
        *self = Self::default();
    }

    /// Tried in vain: again after a while, longer each time.
    pub(super) fn failed(&mut self, now: Instant) {
        let wait = RETRY_MIN_MS.saturating_mul(1 << self.failures.min(20)).min(RETRY_MAX_MS);
        // Spread by up to a quarter, so that those that failed together do not come together.
        let spread = rand::random_range(0..=wait / 4);
        self.busy = false;
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + Duration::from_millis(wait + spread));
    }

    /// There is news of it: the wait is cut short.
    fn news(&mut self, now: Instant) {
        self.not_before = self.not_before.map(|at| at.min(now + Duration::from_millis(NEWS_RETRY_MS)));
    }

    /// Somebody new may help.
    fn hope(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

impl Leaf {
    pub(super) fn new(producer: PeerId, progress: GroupProgress) -> Self {
        let (entries, contents) = (Turn::default(), Turn::default());
        Self { producer, progress, target: None, ranges: VecDeque::new(), waiting: false, entries, contents }
    }

    /// A newer head is known.
    pub(super) fn aim(&mut self, head: &GroupHead, recovery: bool) {
        let number = head.sequence();
        if number <= self.progress.told {
            return;
        }
        // What a head that comes as it is published leaps over did not come so.
        let known = self.ranges.back().map_or(self.progress.told, |(upto, _)| *upto);
        if !recovery && number > known + 1 {
            self.extend(number - 1, true);
        }
        self.extend(number, recovery);
        if self.target.is_none_or(|(known, _)| known <= number) {
            self.target = Some((number, head.content().copied()));
        }
    }

    fn extend(&mut self, number: u64, recovery: bool) {
        let full = self.ranges.len() >= MAX_RANGES;
        match self.ranges.back_mut() {
            Some((upto, same)) if *same == recovery || full => {
                *upto = number.max(*upto);
            }
            _ => self.ranges.push_back((number, recovery)),
        }
    }

    /// The next number is told.
    pub(super) fn tell(&mut self, number: u64, entry: Option<Cid>) {
        self.progress.told = number;
        self.progress.entry = entry;
        while self.ranges.front().is_some_and(|(upto, _)| *upto <= number) {
            self.ranges.pop_front();
        }
        self.target = self.target.filter(|(target, _)| *target > number);
    }

    /// Whether the next number was learnt by catching up.
    pub(super) fn is_recovery(&self) -> bool {
        self.ranges.front().is_none_or(|(_, recovery)| *recovery)
    }

    /// Some of its contents are whole; there may be more.
    pub(super) fn contents_done(&mut self) {
        self.contents.done();
        self.waiting = true;
    }

    /// None of its contents became whole.
    pub(super) fn contents_failed(&mut self, now: Instant) {
        self.contents.failed(now);
        self.waiting = true;
    }

    /// Publications that are known of and not told.
    pub(super) fn missing(&self) -> u64 {
        self.target.map_or(0, |(number, _)| number.saturating_sub(self.progress.told))
    }
}

/// All sessions of a group. The writer alone changes progress and targets.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    pub(super) leaves: BTreeMap<LeafKey, Leaf>,
}

impl Tracker {
    /// Forgets sessions of which everything is told, until so many are left: what is known of them is on the disk.
    pub(super) fn forget_told(&mut self, left: usize) {
        let mut over = self.leaves.len().saturating_sub(left);
        self.leaves.retain(|_, leaf| {
            let told = leaf.target.is_none() && !leaf.waiting && !leaf.entries.busy && !leaf.contents.busy;
            let forget = told && over > 0;
            over -= usize::from(forget);
            !forget
        });
    }

    /// Takes over what the writer has made durable.
    pub(super) fn wrote(&mut self, key: LeafKey, leaf: Leaf) {
        match self.leaves.get_mut(&key) {
            Some(known) => {
                if known.target != leaf.target {
                    known.entries.news(Instant::now());
                }
                (known.progress, known.target, known.ranges) = (leaf.progress, leaf.target, leaf.ranges);
                known.waiting |= leaf.waiting;
            }
            None => {
                self.leaves.insert(key, leaf);
            }
        }
    }

    /// A peer has come: what waited for one is tried now.
    pub(super) fn hope(&mut self) {
        for leaf in self.leaves.values_mut() {
            leaf.entries.hope();
            leaf.contents.hope();
        }
    }

    /// The sessions whose entries are to be fetched now.
    pub(super) fn due(&self, now: Instant) -> Vec<LeafKey> {
        let known = |leaf: &Leaf| matches!(leaf.target, Some((_, Some(_))));
        let due = self.leaves.iter().filter(|(_, leaf)| known(leaf) && leaf.entries.is_due(now));
        due.map(|(key, _)| *key).collect()
    }

    /// The sessions whose contents are to be fetched now.
    pub(super) fn contents_due(&self, now: Instant) -> Vec<LeafKey> {
        let due = self.leaves.iter().filter(|(_, leaf)| leaf.waiting && leaf.contents.is_due(now));
        due.map(|(key, _)| *key).collect()
    }

    /// When the next wait is over, after `now`. Whoever's turn has come already is taken when a place is free.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let turns = self.leaves.values().flat_map(|leaf| [leaf.entries, leaf.contents]);
        let waits = turns.filter(|turn| !turn.busy).filter_map(|turn| turn.not_before);
        waits.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use dagmesh_chronosync::{GroupId, Payload};
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn numbers_that_a_live_head_leaps_over_are_caught_up_on_and_it_is_not() {
        let (key, group) = (Keypair::generate_ed25519(), GroupId::open("chess").expect("a name"));
        let head = |number| {
            let payload = Payload::inline(b"x").expect("fits");
            GroupHead::sign(&key, &group, 1, number, payload, 1).expect("a head")
        };
        let mut leaf = Leaf::new(key.public().to_peer_id(), GroupProgress::default());
        leaf.aim(&head(1), false);
        leaf.aim(&head(5), false);
        leaf.aim(&head(6), false);
        leaf.aim(&head(8), true);
        let recovered = (1..=8).filter(|number| {
            let recovery = leaf.is_recovery();
            leaf.tell(*number, None);
            recovery
        });
        assert_eq!(recovered.collect::<Vec<_>>(), [2, 3, 4, 7, 8]);
    }
}
