//! What a node keeps of records, for others and of its own.

mod marks;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use dagmesh_core::limits::{
    IPNS_HELD_MS, MAX_KAD_RECORDS, MAX_OWN_RECORDS, MAX_RECORD_AHEAD_MS, MAX_RECORD_LIFETIME_MS, MAX_RECORD_MARKS,
    MAX_RECORD_REPUBLISHES, MAX_RECORDS_PER_SOURCE, RECORD_CALL_SECS, RECORD_REPUBLISH_SECS, RECORD_RETRY_SECS,
};
use libp2p_identity::PeerId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::marks::Mark;
use self::{
    marks::Marks,
    shares::{Room, Shares},
};
use crate::{
    error::RecordError,
    validator::{Namespace, Verified, verify},
};

/// Who brought a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// This node itself: kept until it expires, and put again for as long.
    Own,
    /// A peer.
    Peer(PeerId),
}

/// What a [`Store`] is told once.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// This node: keys close to it are kept first.
    pub own: PeerId,
    /// Seed of all that is random.
    pub seed: u64,
    /// Records of others.
    pub max_records: usize,
    /// Those that one peer brought.
    pub max_per_source: usize,
    /// Records of our own.
    pub max_own: usize,
    /// Marks of records that are gone; a quarter of them of one peer's records.
    pub max_marks: usize,
    /// How often a record is put again, give or take a quarter.
    pub republish: Duration,
}

impl StoreConfig {
    /// The limits of the house.
    pub fn new(own: PeerId, seed: u64) -> Self {
        Self {
            own,
            seed,
            max_records: MAX_KAD_RECORDS,
            max_per_source: MAX_RECORDS_PER_SOURCE,
            max_own: MAX_OWN_RECORDS,
            max_marks: MAX_RECORD_MARKS,
            republish: Duration::from_secs(RECORD_REPUBLISH_SECS),
        }
    }
}

/// What became of a record that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// None was held under its key.
    First,
    /// It took the place of an older one.
    Newer,
    /// It, or one that says the same, was held.
    Same,
}

/// A record that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'a> {
    /// It.
    pub record: &'a Verified,
    /// Who brought it; of several, who has the fewest here.
    pub source: Source,
    /// When it came last, in Unix milliseconds.
    pub received_ms: u64,
    /// Until when it is kept, in Unix milliseconds.
    pub until_ms: u64,
}

/// A record as it is written to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Vec<u8>,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Who brought it.
    pub source: Source,
    /// When it came last, in Unix milliseconds.
    pub received_ms: u64,
    /// Until when its number is to be remembered, in Unix milliseconds.
    pub mark_until_ms: u64,
}

/// What a [`Store`] wants done. Those between two calls of it belong into one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEffect {
    /// Write this row, in the place of one with the same key.
    Save(Row),
    /// Delete the row of this key.
    Delete(Vec<u8>),
    /// Write this mark, in the place of one with the same key.
    SaveMark(Vec<u8>, Mark),
    /// Delete the mark of this key.
    DeleteMark(Vec<u8>),
    /// Put this record to the nodes closest to its key; then [`Store::republished`].
    Republish(Box<Verified>),
}

#[derive(Debug)]
struct Entry {
    record: Verified,
    source: Source,
    received_ms: u64,
    until_ms: u64,
    mark_until_ms: u64,
    republish_ms: u64,
    /// How often in a row too few have taken it, of an own one.
    lacking: u32,
}

/// The records that a node holds: at most one a key, the newest; at most [`StoreConfig::max_records`] of others, of which
/// [`StoreConfig::max_per_source`] came from one peer. Its own stand apart.
///
/// Rules
/// - Nothing is held that [`verify`] refuses. An older record is refused with the newer one.
/// - When full, whoever has most makes room, with the key that is furthest from us; where that would be the newcomer, it
///   is refused. A record that several peers brought counts for the one that has fewest.
/// - Of a record that expires or makes room, or was [seen](Store::saw) elsewhere, a [`Mark`] stays: what is older than it
///   is refused, until no older one can still be valid (a record lives [`MAX_RECORD_LIFETIME_MS`] at the most; of IPNS,
///   the longest validity that was seen). Marks are bounded too, and make room by the same rule.
/// - An IPNS record of another is held for [`IPNS_HELD_MS`] after it came last, however long it is valid.
/// - Each record is put again from time to time while it is held, unless another did so a moment ago; own ones always, and
///   soon where too few have taken it. After a restart that is spread over the whole interval, but for own ones.
///
/// Times are Unix milliseconds, told from outside. What has to be on the disk comes as effects, bounded by what was called
/// for: poll them after each call.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    rng: ChaCha8Rng,
    entries: BTreeMap<Vec<u8>, Entry>,
    own: usize,
    shares: Shares,
    marks: Marks,
    /// By when they expire.
    expiries: BTreeSet<(u64, Vec<u8>)>,
    /// By when they are put again.
    republishes: BTreeSet<(u64, Vec<u8>)>,
    /// Those being put again, each with when it is given up.
    republishing: BTreeMap<Vec<u8>, u64>,
    effects: VecDeque<StoreEffect>,
}

impl Store {
    /// A store that holds nothing.
    pub fn new(config: StoreConfig) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            shares: Shares::new(&config.own, config.max_records, config.max_per_source),
            marks: Marks::new(&config.own, config.max_marks),
            entries: BTreeMap::new(),
            own: 0,
            expiries: BTreeSet::new(),
            republishes: BTreeSet::new(),
            republishing: BTreeMap::new(),
            effects: VecDeque::new(),
            config,
        }
    }

    /// Takes back what was written to the disk, before anything else. Every record is checked again; what does not hold,
    /// or does not fit any more, is deleted.
    pub fn restore(
        &mut self,
        now_ms: u64,
        rows: impl IntoIterator<Item = Row>,
        marks: impl IntoIterator<Item = (Vec<u8>, Mark)>,
    ) {
        for (key, mark) in marks {
            self.marks.insert(now_ms, key, mark, &mut self.effects);
        }
        self.effects.retain(|effect| !matches!(effect, StoreEffect::SaveMark(..)));
        for Row { key, bytes, source, received_ms, mark_until_ms } in rows {
            // At the time when it came: the clock of a restart may be wrong.
            let entry = verify(&key, &bytes, received_ms).map(|record| {
                let until_ms = held_until(&record, source, received_ms);
                Entry { record, source, received_ms, until_ms, mark_until_ms, republish_ms: 0, lacking: 0 }
            });
            let placed = entry.is_ok_and(|entry| self.place(now_ms, entry).is_ok());
            if placed {
                // All of them at once would be a storm. Of our own it is not known who took them.
                let at_ms = match source {
                    Source::Own => self.retry(now_ms, &key),
                    Source::Peer(_) => now_ms.saturating_add(self.rng.random_range(0..=self.interval_ms())),
                };
                self.set_republish(&key, at_ms);
            } else {
                self.effects.push_back(StoreEffect::Delete(key));
            }
        }
        self.handle_timeout(now_ms);
    }

    /// Puts what `source` says stands under `key`. Nothing but what has expired is dropped where it is refused;
    /// [`RecordError::Superseded`] carries the newer record.
    pub fn put(&mut self, now_ms: u64, source: Source, key: &[u8], bytes: &[u8]) -> Result<Stored, RecordError> {
        if self.get(now_ms, key).is_some_and(|held| held.record.bytes() == bytes) {
            return self.again(now_ms, source, key);
        }
        self.insert(now_ms, source, verify(key, bytes, now_ms)?)
    }

    /// As [`Store::put`], for a record whose signature is checked.
    pub fn insert(&mut self, now_ms: u64, source: Source, record: Verified) -> Result<Stored, RecordError> {
        record.check_time(now_ms)?;
        let key = record.key().to_vec();
        self.expire(now_ms);
        let mut mark_until_ms = mark_until(now_ms);
        let mut from = source;
        let mut stored = Stored::First;
        if let Some(held) = self.entries.get(&key) {
            match record.order().cmp(&held.record.order()) {
                Ordering::Less => return Err(RecordError::Superseded { newer: Box::new(held.record.clone()) }),
                Ordering::Equal => return self.again(now_ms, source, &key),
                Ordering::Greater => {
                    stored = Stored::Newer;
                    mark_until_ms = mark_until_ms.max(held.mark_until_ms).max(held.record.expires_ms());
                    from = self.fairer(held.source, source);
                }
            }
        } else if let Some(mark) = self.marks.get(now_ms, &key) {
            if record.order() < mark.order {
                return Err(RecordError::Outlived { sequence: mark.order.sequence });
            }
            mark_until_ms = mark_until_ms.max(mark.until_ms);
        }
        let until_ms = held_until(&record, from, now_ms);
        let entry =
            Entry { record, source: from, received_ms: now_ms, until_ms, mark_until_ms, republish_ms: 0, lacking: 0 };
        self.place(now_ms, entry)?;
        self.save(&key);
        Ok(stored)
    }

    /// Remembers a record that `source` has shown us and that is not held here: what is older is refused from now on.
    pub fn saw(&mut self, now_ms: u64, source: PeerId, record: &Verified) {
        let (key, order, until_ms) = (record.key(), record.order(), mark_until(now_ms).max(record.expires_ms()));
        let known = self.marks.get(now_ms, key).is_some_and(|mark| mark.order >= order);
        if !known && !self.entries.contains_key(key) && record.check_time(now_ms).is_ok() {
            self.marks.insert(now_ms, key.to_vec(), Mark { order, until_ms, source }, &mut self.effects);
        }
    }

    /// The record that is held under `key`.
    pub fn get(&self, now_ms: u64, key: &[u8]) -> Option<Held<'_>> {
        self.entries.get(key).filter(|entry| now_ms < entry.until_ms).map(Entry::held)
    }

    /// All that are held, by key.
    pub fn iter(&self, now_ms: u64) -> impl Iterator<Item = Held<'_>> {
        self.entries.values().filter(move |entry| now_ms < entry.until_ms).map(Entry::held)
    }

    /// How many records are held, and how many marks of those that are gone.
    pub fn counts(&self) -> (usize, usize) {
        (self.entries.len(), self.marks.len())
    }

    /// How many records count for this peer.
    pub fn count_of(&self, peer: &PeerId) -> usize {
        self.shares.count(peer)
    }

    /// A put of the record of this key has ended. Where it is our own and too few hold it, it is put again soon, and each time
    /// later.
    pub fn put_ended(&mut self, now_ms: u64, key: &[u8], enough: bool) {
        self.republishing.remove(key);
        let Some(entry) = self.entries.get_mut(key) else { return };
        let at_ms = if enough || entry.source != Source::Own {
            entry.lacking = 0;
            self.next_republish(now_ms)
        } else {
            self.retry(now_ms, key)
        };
        self.set_republish(key, at_ms);
    }

    /// There are nodes again, after there were none: own records that too few hold are put in a moment, when more of them
    /// are known.
    pub fn hurry(&mut self, now_ms: u64) {
        let lacking = |(key, entry): (&Vec<u8>, &Entry)| {
            (entry.lacking > 0 && !self.republishing.contains_key(key)).then(|| key.clone())
        };
        let keys: Vec<_> = self.entries.iter().filter_map(lacking).collect();
        for key in keys {
            let at_ms = now_ms.saturating_add(self.rng.random_range(500..2500));
            self.set_republish(&key, at_ms);
        }
    }

    /// The record of this key was put again, or could not be.
    pub fn republished(&mut self, now_ms: u64, key: &[u8]) {
        if self.republishing.remove(key).is_some() {
            let at_ms = self.next_republish(now_ms);
            self.set_republish(key, at_ms);
        }
    }

    /// Drops what has expired, and says what is to be put again. To be called at or after
    /// [`Store::poll_timeout`]; a call that comes early changes nothing.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.expire(now_ms);
        let lost: Vec<_> =
            self.republishing.iter().filter(|(_, at)| **at <= now_ms).map(|(key, _)| key.clone()).collect();
        lost.iter().for_each(|key| self.republished(now_ms, key));
        while self.republishing.len() < MAX_RECORD_REPUBLISHES
            && let Some((at_ms, key)) = self.republishes.first().cloned()
            && at_ms <= now_ms
        {
            self.republishes.pop_first();
            let Some(entry) = self.entries.get(&key) else { continue };
            self.effects.push_back(StoreEffect::Republish(Box::new(entry.record.clone())));
            self.republishing.insert(key, now_ms.saturating_add(2 * RECORD_CALL_SECS * 1000));
        }
    }

    /// When [`Store::handle_timeout`] is next wanted, in Unix milliseconds; `None` if never.
    pub fn poll_timeout(&self) -> Option<u64> {
        let first = |set: &BTreeSet<(u64, Vec<u8>)>| set.first().map(|(at_ms, _)| *at_ms);
        let republish = match self.republishing.len() < MAX_RECORD_REPUBLISHES {
            true => first(&self.republishes),
            false => None,
        };
        let lost = self.republishing.values().min().copied();
        [first(&self.expiries), self.marks.next(), republish, lost].into_iter().flatten().min()
    }

    /// The next thing to do, in order; `None` once there is nothing.
    pub fn poll_effect(&mut self) -> Option<StoreEffect> {
        self.effects.pop_front()
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((at_ms, key)) = self.expiries.first().cloned()
            && at_ms <= now_ms
        {
            self.take_out(now_ms, &key);
        }
        self.marks.expire(now_ms, &mut self.effects);
    }

    /// What is held has come again.
    fn again(&mut self, now_ms: u64, source: Source, key: &[u8]) -> Result<Stored, RecordError> {
        let Some(entry) = self.entries.get(key) else { return Ok(Stored::Same) };
        let (held, republish_ms) = (entry.source, entry.republish_ms);
        let from = self.fairer(held, source);
        if from != held {
            self.check_own(from)?;
        }
        let at_ms = self.next_republish(now_ms);
        let Some(entry) = self.entries.get_mut(key) else { return Ok(Stored::Same) };
        let until_ms = held_until(&entry.record, from, now_ms).max(entry.until_ms);
        // A peer that puts it again and again does not make us write it each time.
        let longer = until_ms - entry.until_ms > IPNS_HELD_MS / 16;
        if from != held || longer {
            let old_ms = std::mem::replace(&mut entry.until_ms, until_ms);
            (entry.received_ms, entry.source) = (now_ms, from);
            entry.mark_until_ms = entry.mark_until_ms.max(mark_until(now_ms));
            self.expiries.remove(&(old_ms, key.to_vec()));
            self.expiries.insert((until_ms, key.to_vec()));
            self.uncount(held, key);
            self.count(from, key);
            self.save(key);
        }
        // Another did it: its other holders have it from there too.
        if from != Source::Own && self.republishes.contains(&(republish_ms, key.to_vec())) {
            self.set_republish(key, at_ms);
        }
        Ok(Stored::Same)
    }

    /// Puts an entry into its place; makes room, or says that there is none.
    fn place(&mut self, now_ms: u64, mut entry: Entry) -> Result<(), RecordError> {
        let key = entry.record.key().to_vec();
        let held = self.entries.get(&key).map(|held| (held.source, held.until_ms, held.republish_ms));
        if held.is_none_or(|(source, ..)| source != entry.source) {
            self.check_own(entry.source)?;
        }
        // Where one is held under this key, this takes its place.
        if let (None, Source::Peer(peer)) = (held, entry.source) {
            match self.shares.room(&peer, &key) {
                Room::Free => {}
                Room::Evict(_, victim) => self.take_out(now_ms, &victim),
                Room::None => return Err(RecordError::Full("others that are closer to us, or have less, are kept")),
            }
        }
        if let Some((source, until_ms, republish_ms)) = held {
            self.uncount(source, &key);
            self.expiries.remove(&(until_ms, key.clone()));
            self.republishes.remove(&(republish_ms, key.clone()));
        }
        self.marks.remove(&key, &mut self.effects);
        self.count(entry.source, &key);
        self.expiries.insert((entry.until_ms, key.clone()));
        self.republishing.remove(&key);
        entry.republish_ms = self.next_republish(now_ms);
        self.republishes.insert((entry.republish_ms, key.clone()));
        self.entries.insert(key, entry);
        Ok(())
    }

    /// Takes a record out; its mark stays.
    fn take_out(&mut self, now_ms: u64, key: &[u8]) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.uncount(entry.source, key);
        self.expiries.remove(&(entry.until_ms, key.to_vec()));
        self.republishes.remove(&(entry.republish_ms, key.to_vec()));
        self.republishing.remove(key);
        self.effects.push_back(StoreEffect::Delete(key.to_vec()));
        let source = match entry.source {
            Source::Own => self.config.own,
            Source::Peer(peer) => peer,
        };
        let mark = Mark { order: entry.record.order(), until_ms: entry.mark_until_ms, source };
        self.marks.insert(now_ms, key.to_vec(), mark, &mut self.effects);
    }

    /// For whom a record counts that both brought.
    fn fairer(&self, held: Source, other: Source) -> Source {
        match (held, other) {
            (Source::Own, _) | (_, Source::Own) => Source::Own,
            (Source::Peer(a), Source::Peer(b)) if self.shares.count(&b) + 1 < self.shares.count(&a) => other,
            _ => held,
        }
    }

    fn check_own(&self, source: Source) -> Result<(), RecordError> {
        match source {
            Source::Own if self.own >= self.config.max_own => Err(RecordError::Full("there are too many own records")),
            _ => Ok(()),
        }
    }

    fn count(&mut self, source: Source, key: &[u8]) {
        match source {
            Source::Own => self.own += 1,
            Source::Peer(peer) => self.shares.add(peer, key),
        }
    }

    fn uncount(&mut self, source: Source, key: &[u8]) {
        match source {
            Source::Own => self.own -= 1,
            Source::Peer(peer) => self.shares.remove(&peer, key),
        }
    }

    fn save(&mut self, key: &[u8]) {
        let Some(entry) = self.entries.get(key) else { return };
        let &Entry { ref record, source, received_ms, mark_until_ms, .. } = entry;
        let (key, bytes) = (key.to_vec(), record.bytes().to_vec());
        self.effects.push_back(StoreEffect::Save(Row { key, bytes, source, received_ms, mark_until_ms }));
    }

    fn set_republish(&mut self, key: &[u8], at_ms: u64) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.republishes.remove(&(entry.republish_ms, key.to_vec()));
        entry.republish_ms = at_ms;
        self.republishes.insert((at_ms, key.to_vec()));
    }

    fn next_republish(&mut self, now_ms: u64) -> u64 {
        self.after(now_ms, self.interval_ms())
    }

    /// When a record that too few hold is put again.
    fn retry(&mut self, now_ms: u64, key: &[u8]) -> u64 {
        let lacking = self.entries.get_mut(key).map_or(0, |entry| {
            entry.lacking = entry.lacking.saturating_add(1);
            entry.lacking - 1
        });
        let factor = 1u64.checked_shl(lacking).unwrap_or(u64::MAX);
        self.after(now_ms, (RECORD_RETRY_SECS * 1000).saturating_mul(factor).min(self.interval_ms()))
    }

    /// So long after now, give or take a quarter.
    fn after(&mut self, now_ms: u64, wait_ms: u64) -> u64 {
        now_ms.saturating_add(self.rng.random_range(wait_ms - wait_ms / 4..=wait_ms + wait_ms / 4))
    }

    fn interval_ms(&self) -> u64 {
        u64::try_from(self.config.republish.as_millis()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
    }
}

impl Entry {
    fn held(&self) -> Held<'_> {
        Held { record: &self.record, source: self.source, received_ms: self.received_ms, until_ms: self.until_ms }
    }
}

fn held_until(record: &Verified, source: Source, received_ms: u64) -> u64 {
    match (record.namespace(), source) {
        (Namespace::Ipns, Source::Peer(_)) => record.expires_ms().min(received_ms.saturating_add(IPNS_HELD_MS)),
        _ => record.expires_ms(),
    }
}

/// Until when one that is older than what came at `now_ms` could still be valid.
fn mark_until(now_ms: u64) -> u64 {
    now_ms.saturating_add(MAX_RECORD_LIFETIME_MS + MAX_RECORD_AHEAD_MS)
}
