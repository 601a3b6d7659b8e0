//! The library: digest, log, interests and their timers, reset and recovery.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use multihash_codetable::{Code, MultihashDigest};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    Effect,
    packet::{Digest, Message, Name, content},
};
use crate::chronosync::{Number, Numbers};

/// How long an interest waits for data, and how long a neighbour's is remembered.
const LIFETIME: Duration = Duration::from_secs(1);
/// How long a reset lasts.
const RESET: Duration = Duration::from_millis(500);
/// Bounds of every random wait, in milliseconds.
const JITTER_MS: std::ops::RangeInclusive<u64> = 100..=500;
/// Largest packet of the network, less what its link layer takes.
const MAX_PACKET: usize = 8800 - 20;

/// What the library wants of the network.
#[derive(Debug)]
pub(super) enum Wish {
    Express(Name),
    Put(Name, Numbers),
}

#[derive(Debug)]
pub(super) struct Logic {
    own: (u32, u64),
    sequence: u64,
    state: Numbers,
    root: Digest,
    /// Roots with what changed before each, oldest first.
    log: Vec<(Digest, Numbers)>,
    /// Interests of others that wait for news, by digest: whether that was unknown, and until when.
    table: BTreeMap<Digest, (bool, Instant)>,
    in_reset: bool,
    /// The interest of ours that waits.
    expressed: Option<Name>,
    express_at: Instant,
    /// The one timer for all that is delayed: a new one takes the place of the old.
    delayed: Option<(Instant, Delayed)>,
    rng: ChaCha8Rng,
    wishes: VecDeque<Wish>,
    told: VecDeque<Effect>,
}

#[derive(Debug, Clone, Copy)]
enum Delayed {
    /// An interest is looked at again.
    Interest(Digest),
    EndOfReset,
}

impl Logic {
    pub(super) fn new(now: Instant, own: (u32, u64), seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let (state, log, table, wishes, told) = Default::default();
        let root = digest(&state);
        Self {
            own,
            sequence: 0,
            state,
            root,
            log,
            table,
            in_reset: false,
            expressed: None,
            express_at: now,
            delayed: None,
            rng,
            wishes,
            told,
        }
    }

    /// A start: everybody is reset.
    pub(super) fn begin(&mut self, now: Instant) {
        self.reset(now);
        self.wishes.push_back(Wish::Express(Name::Reset));
        self.express(now);
    }

    pub(super) fn root(&self) -> Digest {
        self.root
    }

    pub(super) fn nonce(&mut self) -> u32 {
        self.rng.random()
    }

    pub(super) fn wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    pub(super) fn told(&mut self) -> Option<Effect> {
        self.told.pop_front()
    }

    pub(super) fn next(&self) -> Instant {
        self.delayed.map_or(self.express_at, |(at, _)| at.min(self.express_at))
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        if let Some((_, delayed)) = self.delayed.take_if(|(at, _)| *at <= now) {
            match delayed {
                Delayed::EndOfReset => self.end_reset(now),
                Delayed::Interest(digest) => self.sync_interest(now, digest, true),
            }
        }
        if self.express_at <= now {
            self.express(now);
        }
    }

    pub(super) fn publish(&mut self, now: Instant) {
        self.sequence += 1;
        let (producer, session) = self.own;
        self.told.push_back(Effect::Published(Number { producer, session, sequence: self.sequence }));
        self.say(now);
    }

    /// Takes our number into the state, and answers all who wait with it.
    fn say(&mut self, now: Instant) {
        if self.in_reset || self.sequence == 0 {
            return;
        }
        let commit = Numbers::from([(self.own, self.sequence)]);
        self.state.extend(commit.clone());
        self.commit(commit.clone());
        for (digest, (unknown, until)) in std::mem::take(&mut self.table) {
            if now < until {
                let leaves = if unknown { self.state.clone() } else { commit.clone() };
                self.put(now, Name::Sync(digest), leaves);
            }
        }
    }

    pub(super) fn interest(&mut self, now: Instant, name: Name) {
        match name {
            Name::Sync(digest) => self.sync_interest(now, digest, false),
            Name::Recovery(digest) => {
                if digest == self.root || digest == empty() || self.since(&digest).is_some() {
                    self.put(now, name, self.state.clone());
                }
            }
            Name::Reset => {
                self.reset(now);
                self.express(now);
            }
        }
    }

    fn sync_interest(&mut self, now: Instant, digest: Digest, again: bool) {
        if digest == self.root {
            self.table.insert(digest, (false, now + LIFETIME));
            match (self.in_reset, again) {
                (false, _) => {}
                (true, false) => self.delay(now, Delayed::Interest(digest)),
                (true, true) => self.end_reset(now),
            }
        } else if digest == empty() {
            self.put(now, Name::Sync(digest), self.state.clone());
        } else if let Some(leaves) = self.since(&digest) {
            self.put(now, Name::Sync(digest), leaves);
        } else if again {
            self.table.remove(&digest);
            self.wishes.push_back(Wish::Express(Name::Recovery(digest)));
        } else {
            self.table.insert(digest, (true, now + LIFETIME));
            self.delay(now, Delayed::Interest(digest));
        }
    }

    pub(super) fn data(&mut self, now: Instant, name: Name, leaves: Numbers) {
        if let Name::Sync(digest) | Name::Recovery(digest) = name {
            self.table.remove(&digest);
        }
        let mut commit = Numbers::new();
        for ((producer, session), sequence) in leaves {
            let known = self.state.get(&(producer, session)).copied().unwrap_or_default();
            if sequence > known {
                self.state.insert((producer, session), sequence);
                commit.insert((producer, session), sequence);
                let news = (known + 1..=sequence).map(|sequence| Number { producer, session, sequence });
                self.told.extend(news.map(Effect::New));
            }
        }
        if !commit.is_empty() {
            self.commit(commit);
            self.express_at = now + self.jitter();
        }
    }

    fn commit(&mut self, commit: Numbers) {
        self.root = digest(&self.state);
        self.log.retain(|(root, _)| *root != self.root);
        self.log.push((self.root, commit));
    }

    /// What changed since the state had this digest.
    fn since(&self, digest: &Digest) -> Option<Numbers> {
        let at = self.log.iter().position(|(root, _)| root == digest)?;
        Some(self.log.iter().skip(at + 1).flat_map(|(_, commit)| commit.clone()).collect())
    }

    fn put(&mut self, now: Instant, name: Name, leaves: Numbers) {
        let leaves = self.trimmed(name, leaves);
        self.wishes.push_back(Wish::Put(name, leaves));
        if self.expressed.take_if(|expressed| *expressed == name).is_some() {
            self.express_at = now + self.jitter();
        }
    }

    /// A reply that does not fit into a packet is cut to a random part: 1, 2, 4 and so on leaves less.
    fn trimmed(&mut self, name: Name, leaves: Numbers) -> Numbers {
        let around = Message::Data { name, leaves: Numbers::new() }.encode().len() + 4;
        let (mut part, mut without) = (leaves.clone(), 1);
        while content(&part).len() + around > MAX_PACKET {
            let all: Vec<_> = leaves.iter().map(|(key, number)| (*key, *number)).collect();
            let count = all.len() - without.min(all.len() - 1);
            part = all.sample(&mut self.rng, count).copied().collect();
            without *= 2;
        }
        part
    }

    fn express(&mut self, now: Instant) {
        let name = Name::Sync(self.root);
        self.expressed = Some(name);
        self.express_at = now + LIFETIME / 2 + self.jitter();
        self.wishes.push_back(Wish::Express(name));
    }

    fn reset(&mut self, now: Instant) {
        self.in_reset = true;
        self.state.clear();
        self.log.clear();
        self.root = digest(&self.state);
        self.delayed = Some((now + RESET, Delayed::EndOfReset));
    }

    fn end_reset(&mut self, now: Instant) {
        if std::mem::take(&mut self.in_reset) {
            self.say(now);
        }
    }

    fn delay(&mut self, now: Instant, delayed: Delayed) {
        self.delayed = Some((now + self.jitter(), delayed));
    }

    fn jitter(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(JITTER_MS))
    }
}

fn digest(state: &Numbers) -> Digest {
    Code::Sha2_256.digest(&content(state)).digest().try_into().unwrap_or_default()
}

fn empty() -> Digest {
    digest(&Numbers::new())
}
