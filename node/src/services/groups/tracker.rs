//! How far each session of each producer is told, and what is known to lie ahead.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use cid::Cid;
use dagmesh_chronosync::{GroupHead, LeafKey};
use dagmesh_core::limits::{RETRY_MAX_MS, RETRY_MIN_MS};
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

    /// Somebody new may help.
    fn hope(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

impl Leaf {
    pub(super) fn new(producer: PeerId, progress: GroupProgress) -> Self {
        let (entries, contents) = (Turn::default(), Turn::default());
        Self { producer, progress, target: None, ranges: VecDeque::new(), entries, contents }
    }

    /// A newer head is known.
    pub(super) fn aim(&mut self, head: &GroupHead, recovery: bool) {
        let number = head.sequence();
        if number <= self.progress.told {
            return;
        }
        let full = self.ranges.len() >= MAX_RANGES;
        match self.ranges.back_mut() {
            Some((upto, same)) if *same == recovery || full => {
                *upto = number.max(*upto);
            }
            _ => self.ranges.push_back((number, recovery)),
        }
        if self.target.is_none_or(|(known, _)| known <= number) {
            self.target = Some((number, head.content().copied()));
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
    /// Takes a head of the stored state: what of it is not told is caught up on.
    pub(super) fn restore(&mut self, head: &GroupHead) {
        let new = || Leaf::new(head.producer(), GroupProgress::default());
        self.leaves.entry(head.key()).or_insert_with(new).aim(head, true);
    }

    /// Takes over what the writer has made durable.
    pub(super) fn wrote(&mut self, key: LeafKey, leaf: Leaf) {
        match self.leaves.get_mut(&key) {
            Some(known) => {
                (known.progress, known.target, known.ranges) = (leaf.progress, leaf.target, leaf.ranges);
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

    /// When the next wait is over, after `now`. Whoever's turn has come already is taken when a place is free.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let turns = self.leaves.values().flat_map(|leaf| [leaf.entries, leaf.contents]);
        let waits = turns.filter(|turn| !turn.busy).filter_map(|turn| turn.not_before);
        waits.filter(|at| *at > now).min()
    }
}
