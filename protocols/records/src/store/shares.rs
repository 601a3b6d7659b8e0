use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

use crate::hash::sha256;

type Distance = [u8; 32];

/// Which peer brought which keys, and who makes room when there is none.
///
/// The share of whoever has most is cut first, and in it the key that is furthest from us: a peer that floods pushes out
/// nothing but its own, and many that do so keep away from our own neighbourhood only with keys that are closer.
#[derive(Debug)]
pub(super) struct Shares {
    own: Distance,
    keys: BTreeMap<PeerId, BTreeSet<(Distance, Vec<u8>)>>,
    len: usize,
    max: usize,
    max_per_source: usize,
}

/// Whether there is room for one more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// This one has to go.
    Evict(PeerId, Vec<u8>),
    /// The newcomer would be the one to go.
    None,
}

impl Shares {
    /// At most `max` keys, and `max_per_source` of one peer, at the node `own`.
    pub(super) fn new(own: &PeerId, max: usize, max_per_source: usize) -> Self {
        let own = sha256(&[&own.to_bytes()]);
        Self { own, keys: BTreeMap::new(), len: 0, max, max_per_source }
    }

    pub(super) fn count(&self, source: &PeerId) -> usize {
        self.keys.get(source).map_or(0, BTreeSet::len)
    }

    pub(super) fn add(&mut self, source: PeerId, key: &[u8]) {
        let place = (self.distance(key), key.to_vec());
        self.len += usize::from(self.keys.entry(source).or_default().insert(place));
    }

    pub(super) fn remove(&mut self, source: &PeerId, key: &[u8]) {
        let place = (self.distance(key), key.to_vec());
        let Some(keys) = self.keys.get_mut(source) else { return };
        self.len -= usize::from(keys.remove(&place));
        if keys.is_empty() {
            self.keys.remove(source);
        }
    }

    /// Whether `source` may have one more, `key`, and at whose cost.
    pub(super) fn room(&self, source: &PeerId, key: &[u8]) -> Room {
        let newcomer = (self.distance(key), key);
        let own_share = self.keys.get(source);
        let loser = if self.count(source) >= self.max_per_source {
            source
        } else if self.len < self.max {
            return Room::Free;
        } else {
            let furthest = |keys: &BTreeSet<(Distance, Vec<u8>)>| keys.last().map(|(distance, _)| *distance);
            let others = self.keys.iter().filter(|(peer, _)| *peer != source);
            let others = others.map(|(peer, keys)| ((keys.len(), furthest(keys)), peer));
            let theirs = own_share.and_then(furthest).max(Some(newcomer.0));
            let all = others.chain([((self.count(source) + 1, theirs), source)]);
            all.max().map_or(source, |(_, peer)| peer)
        };
        let last = self.keys.get(loser).and_then(BTreeSet::last);
        match last {
            Some((distance, last)) if loser != source || (*distance, last.as_slice()) > newcomer => {
                Room::Evict(*loser, last.clone())
            }
            _ => Room::None,
        }
    }

    /// By Kademlia's metric: the hashes, one xor the other.
    fn distance(&self, key: &[u8]) -> Distance {
        let mut distance = sha256(&[key]);
        distance.iter_mut().zip(self.own).for_each(|(byte, own)| *byte ^= own);
        distance
    }
}
