use std::collections::{BTreeMap, BTreeSet, VecDeque};

use libp2p_identity::PeerId;

use super::{
    StoreEffect,
    shares::{Room, Shares},
};
use crate::order::Order;

/// What is remembered of a record that is gone: what is older than it does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its place among the records of its key.
    pub order: Order,
    /// Until when an older one could still be valid, in Unix milliseconds.
    pub until_ms: u64,
    /// Who brought it.
    pub source: PeerId,
}

/// Marks, by key. When full, whoever has most of them loses the one that is furthest from us.
#[derive(Debug)]
pub(super) struct Marks {
    marks: BTreeMap<Vec<u8>, Mark>,
    shares: Shares,
    expiries: BTreeSet<(u64, Vec<u8>)>,
}

impl Marks {
    pub(super) fn new(own: &PeerId, max: usize) -> Self {
        let shares = Shares::new(own, max, (max / 4).max(1));
        Self { marks: BTreeMap::new(), shares, expiries: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    pub(super) fn get(&self, now_ms: u64, key: &[u8]) -> Option<&Mark> {
        self.marks.get(key).filter(|mark| now_ms < mark.until_ms)
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.expiries.first().map(|(at_ms, _)| *at_ms)
    }

    pub(super) fn insert(&mut self, now_ms: u64, key: Vec<u8>, mark: Mark, effects: &mut VecDeque<StoreEffect>) {
        if mark.until_ms <= now_ms {
            return;
        }
        self.remove(&key, effects);
        match self.shares.room(&mark.source, &key) {
            Room::Free => {}
            Room::Evict(_, victim) => self.remove(&victim, effects),
            Room::None => return,
        }
        self.shares.add(mark.source, &key);
        self.expiries.insert((mark.until_ms, key.clone()));
        effects.push_back(StoreEffect::SaveMark(key.clone(), mark));
        self.marks.insert(key, mark);
    }

    pub(super) fn remove(&mut self, key: &[u8], effects: &mut VecDeque<StoreEffect>) {
        let Some(mark) = self.marks.remove(key) else { return };
        self.shares.remove(&mark.source, key);
        self.expiries.remove(&(mark.until_ms, key.to_vec()));
        effects.push_back(StoreEffect::DeleteMark(key.to_vec()));
    }

    /// Drops those that are of no use any more.
    pub(super) fn expire(&mut self, now_ms: u64, effects: &mut VecDeque<StoreEffect>) {
        while let Some((at_ms, key)) = self.expiries.first().cloned()
            && at_ms <= now_ms
        {
            self.remove(&key, effects);
        }
    }
}
