//! The state of a group: the newest head of each session of each producer.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use dagmesh_core::limits::{MAX_GROUP_LEAVES, MAX_GROUP_SESSION_AHEAD_MS, MAX_GROUP_SESSIONS};

use crate::{
    head::{GroupHead, HeadOrder, LeafKey},
    members::MemberList,
    tree::{self, Digest, Tree},
};

/// The maximum per (producer, session) of heads signed by their producer.
///
/// The order in which heads are applied does not matter, nor how often: states form a join-semilattice. Of one producer
/// the [`MAX_GROUP_SESSIONS`] highest sessions count; the state holds at most [`MAX_GROUP_LEAVES`], and only when those
/// are full does it depend on who came first.
#[derive(Debug, Clone)]
pub struct State {
    leaves: BTreeMap<LeafKey, Leaf>,
    tree: Tree,
    sum: u64,
    members: u64,
}

#[derive(Debug, Clone)]
struct Leaf {
    head: GroupHead,
    digest: Digest,
    /// Its producer has signed two heads of this number.
    forked: bool,
}

/// What two members compare: who has the older list of members is behind; of one list, equal roots are equal states, else
/// the higher one is ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The version of the list of members; 0 in an open group, and before one is known.
    pub members: u64,
    /// The root of the digest tree.
    pub root: Digest,
    /// How many leaves.
    pub leaves: u64,
    /// The sum of their sequence numbers.
    pub sum: u64,
}

impl Summary {
    /// Whether a state of this summary must have something that one of `other` lacks, or, where neither must, whether
    /// it is this one that is asked: of two different summaries exactly one is ahead.
    pub fn is_ahead_of(&self, other: &Self) -> bool {
        (self.members, self.sum, self.leaves, self.root) > (other.members, other.sum, other.leaves, other.root)
    }
}

/// What became of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is the newest of its session now. Sequence numbers from `first` to its own are new.
    New {
        /// One more than the number known before, or 1.
        first: u64,
    },
    /// It says nothing new.
    Known,
    /// Its producer has signed another head of the same number: `other`. The greater one by the hash of what was signed
    /// is kept.
    Fork {
        /// The head that was known.
        other: Box<GroupHead>,
        /// Whether this one is kept in its place.
        kept: bool,
    },
    /// It is not taken.
    Refused(Refused),
}

/// Why a valid head is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Its session lies too far in the future.
    #[error("its session lies {ahead_ms} ms in the future")]
    Future {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
    /// Its producer has [`MAX_GROUP_SESSIONS`] later sessions.
    #[error("its producer has {MAX_GROUP_SESSIONS} later sessions")]
    OldSession,
    /// The group is full.
    #[error("the group has {MAX_GROUP_LEAVES} leaves")]
    Full,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The empty state.
    pub fn new() -> Self {
        Self { leaves: BTreeMap::new(), tree: Tree::new(), sum: 0, members: 0 }
    }

    /// Its root, leaves and sum, and the version of the list of members that it keeps to.
    pub fn summary(&self) -> Summary {
        Summary { members: self.members, root: self.tree.root(), leaves: self.leaves.len() as u64, sum: self.sum }
    }

    /// The head at this place.
    pub fn get(&self, key: &LeafKey) -> Option<&GroupHead> {
        self.leaves.get(key).map(|leaf| &leaf.head)
    }

    /// All heads, in the fixed order.
    pub fn heads(&self) -> impl Iterator<Item = &GroupHead> {
        self.leaves.values().map(|leaf| &leaf.head)
    }

    /// The heads behind `after`, in the fixed order.
    pub fn heads_after(&self, after: Option<LeafKey>) -> impl Iterator<Item = &GroupHead> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        self.leaves.range((start, Unbounded)).map(|(_, leaf)| &leaf.head)
    }

    /// The heads of a producer, by session.
    pub fn of_producer(&self, name: [u8; 32]) -> impl Iterator<Item = &GroupHead> {
        let (from, to) = (LeafKey { name, session: 0 }, LeafKey { name, session: u64::MAX });
        self.leaves.range(from..=to).map(|(_, leaf)| &leaf.head)
    }

    /// Applies heads, one after the other, at `unix_ms` on the clock, and then brings the tree up to date once. Says of
    /// each what became of it.
    pub fn apply(&mut self, unix_ms: u64, heads: impl IntoIterator<Item = GroupHead>) -> Vec<Applied> {
        let mut dirty = BTreeSet::new();
        let applied = heads.into_iter().map(|head| self.insert(unix_ms, head, &mut dirty)).collect();
        self.update_tree(dirty);
        applied
    }

    /// Keeps to this list of members from now on: the leaves of all others leave the state, and are named.
    pub fn restrict(&mut self, list: &MemberList) -> Vec<LeafKey> {
        let foreign = self.heads().filter(|head| !list.members().contains(&head.producer()));
        let foreign: Vec<_> = foreign.map(|head| (head.key(), head.sequence())).collect();
        for (key, sequence) in &foreign {
            self.leaves.remove(key);
            self.sum -= sequence;
        }
        self.members = list.version();
        self.update_tree(foreign.iter().map(|(key, _)| bucket(key)).collect());
        foreign.into_iter().map(|(key, _)| key).collect()
    }

    fn update_tree(&mut self, dirty: BTreeSet<u8>) {
        if !dirty.is_empty() {
            let changed = dirty.into_iter().map(|bucket| (bucket, bucket_leaves(&self.leaves, bucket)));
            self.tree.update(changed);
        }
    }

    /// Why a head of this place would not be taken now, whatever it says.
    pub fn refuses(&self, unix_ms: u64, key: &LeafKey) -> Option<Refused> {
        if self.leaves.contains_key(key) {
            return None;
        }
        let ahead_ms = key.session.saturating_sub(unix_ms);
        if ahead_ms > MAX_GROUP_SESSION_AHEAD_MS {
            return Some(Refused::Future { ahead_ms });
        }
        if self.of_producer(key.name).count() >= MAX_GROUP_SESSIONS {
            let lowest = self.of_producer(key.name).next().map(GroupHead::key);
            return lowest.is_none_or(|lowest| *key < lowest).then_some(Refused::OldSession);
        }
        (self.leaves.len() >= MAX_GROUP_LEAVES).then_some(Refused::Full)
    }

    /// Joins two states.
    pub fn merge(&mut self, unix_ms: u64, other: &Self) -> Vec<Applied> {
        self.apply(unix_ms, other.heads().cloned())
    }

    fn insert(&mut self, unix_ms: u64, head: GroupHead, dirty: &mut BTreeSet<u8>) -> Applied {
        let (key, bucket) = (head.key(), bucket(&head.key()));
        if let Some(leaf) = self.leaves.get_mut(&key) {
            return match head.compare(&leaf.head) {
                HeadOrder::Newer => {
                    let first = leaf.head.sequence().saturating_add(1);
                    self.sum += head.sequence() - leaf.head.sequence();
                    *leaf = Leaf { digest: tree::leaf(&key, head.sequence()), head, forked: false };
                    dirty.insert(bucket);
                    Applied::New { first }
                }
                HeadOrder::Fork => {
                    let kept = head.outranks(&leaf.head);
                    let known = std::mem::replace(&mut leaf.forked, true);
                    let other = leaf.head.clone();
                    if kept {
                        leaf.head = head;
                    }
                    if known && !kept { Applied::Known } else { Applied::Fork { other: Box::new(other), kept } }
                }
                HeadOrder::Same | HeadOrder::Older => Applied::Known,
            };
        }
        if let Some(refused) = self.refuses(unix_ms, &key) {
            return Applied::Refused(refused);
        }
        if self.of_producer(key.name).count() >= MAX_GROUP_SESSIONS {
            // A later session takes the place of the first.
            let first = self.of_producer(key.name).next().map(|head| (head.key(), head.sequence()));
            if let Some((first, sequence)) = first {
                self.leaves.remove(&first);
                self.sum -= sequence;
            }
        }
        self.sum += head.sequence();
        self.leaves.insert(key, Leaf { digest: tree::leaf(&key, head.sequence()), head, forked: false });
        dirty.insert(bucket);
        Applied::New { first: 1 }
    }
}

fn bucket(key: &LeafKey) -> u8 {
    key.name.first().copied().unwrap_or_default()
}

fn bucket_leaves(leaves: &BTreeMap<LeafKey, Leaf>, bucket: u8) -> Vec<Digest> {
    let (mut from, mut to) = ([0; 32], [u8::MAX; 32]);
    (from[0], to[0]) = (bucket, bucket);
    let (from, to) = (LeafKey { name: from, session: 0 }, LeafKey { name: to, session: u64::MAX });
    leaves.range(from..=to).map(|(_, leaf)| leaf.digest).collect()
}
