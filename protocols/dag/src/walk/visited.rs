//! What a walk has visited.

use std::collections::{HashMap, HashSet};

use cid::Cid;

use crate::{
    Codec, HashCode,
    selector::{Selector, UNLIMITED, leading},
};

/// The set of visited links: 16 bytes each where everything is selected, 24 otherwise, and the table's slack.
///
/// A link counts as visited with the same selector and at least as much of the limits left.
#[derive(Debug, Default)]
pub(super) struct Visited {
    /// Links to raw blocks, and links under the plain selector for everything.
    plain: HashSet<(u64, u64)>,
    /// Links under any other selector, with the most that was left of its limit.
    states: HashMap<(u64, u64), u64>,
}

#[cfg(test)]
impl Visited {
    /// What the two tables take: a slot is a key, a value and a byte of control, and one of eight stays free.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let table = |capacity: usize, slot: usize| capacity / 7 * 8 * (slot + 1);
        (table(self.plain.capacity(), 16), table(self.states.capacity(), 24))
    }
}

enum Slot {
    Plain((u64, u64)),
    State((u64, u64), u64),
}

impl Visited {
    /// Marks a visit. Says whether it is the first one.
    pub(super) fn mark(&mut self, cid: &Cid, selector: &Selector, depth_left: Option<u64>) -> bool {
        match slot(cid, selector, depth_left) {
            Slot::Plain(key) => self.plain.insert(key),
            Slot::State(key, left) => match self.states.get_mut(&key) {
                Some(most) if *most >= left => false,
                Some(most) => {
                    *most = left;
                    true
                }
                None => self.states.insert(key, left).is_none(),
            },
        }
    }

    /// Whether a visit would not be the first one.
    pub(super) fn contains(&self, cid: &Cid, selector: &Selector, depth_left: Option<u64>) -> bool {
        match slot(cid, selector, depth_left) {
            Slot::Plain(key) => self.plain.contains(&key),
            Slot::State(key, left) => self.states.get(&key).is_some_and(|most| *most >= left),
        }
    }
}

fn slot(cid: &Cid, selector: &Selector, depth_left: Option<u64>) -> Slot {
    let key = key(cid);
    // Nothing lies below a raw block, whatever is left of a selector there.
    if cid.codec() == Codec::Raw as u64 || (selector.is_all() && depth_left.is_none()) {
        return Slot::Plain(halves(key));
    }
    let key = key ^ selector.print();
    match (selector.limit(), depth_left) {
        (limit, None) => Slot::State(halves(key), limit.unwrap_or(UNLIMITED)),
        (None, Some(left)) => Slot::State(halves(key ^ spread(u64::MAX)), left),
        // Two limits have no order: the one is part of the key.
        (Some(limit), Some(left)) => Slot::State(halves(key ^ spread(left)), limit),
    }
}

/// The first 128 bits of the digest, mixed with the codec. Inline content is hashed first: its own first bytes are
/// anybody's choice.
fn key(cid: &Cid) -> u128 {
    let hash = cid.hash();
    let prefix = if hash.code() == HashCode::Identity as u64 || hash.digest().len() < 16 {
        HashCode::Sha2_256.digest(hash.digest()).map_or(0, |hash| leading(hash.digest()))
    } else {
        leading(hash.digest())
    };
    prefix ^ spread(cid.codec())
}

/// Spreads a small number over 128 bits.
fn spread(value: u64) -> u128 {
    (u128::from(value) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn halves(key: u128) -> (u64, u64) {
    ((key >> 64) as u64, key as u64)
}
