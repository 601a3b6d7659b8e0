//! The digest log: the roots that our state has gone through, and what changed after each.

use std::collections::{BTreeSet, VecDeque};

use dagmesh_core::limits::{MAX_GROUP_LOG_CHANGES, MAX_GROUP_LOG_ROOTS};

use crate::{head::LeafKey, tree::Digest};

/// At most [`MAX_GROUP_LOG_ROOTS`] past roots of our own state, so that a peer that stands at one of them is told the
/// difference alone. A root that somebody merely claims never comes into it.
///
/// Each step names all the leaves that it changed, whichever session of whichever producer they are of, and holds no
/// numbers: what is told is the state of now.
#[derive(Debug, Clone, Default)]
pub struct DigestLog {
    steps: VecDeque<(Digest, Vec<LeafKey>)>,
    changes: usize,
}

impl DigestLog {
    /// A log of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Our state has left `root`, and `changed` leaves with it. The oldest steps make room.
    pub fn push(&mut self, root: Digest, changed: Vec<LeafKey>) {
        self.changes += changed.len();
        self.steps.push_back((root, changed));
        while self.steps.len() > MAX_GROUP_LOG_ROOTS || self.changes > MAX_GROUP_LOG_CHANGES {
            let Some((_, changed)) = self.steps.pop_front() else { break };
            self.changes -= changed.len();
        }
    }

    /// Whether our state was at this root before.
    pub fn contains(&self, root: &Digest) -> bool {
        self.steps.iter().any(|(past, _)| past == root)
    }

    /// The leaves that have changed since our state was at `root`, in the fixed order; `None` where it is not known
    /// that it ever was.
    pub fn since(&self, root: &Digest) -> Option<BTreeSet<LeafKey>> {
        let from = self.steps.iter().position(|(past, _)| past == root)?;
        Some(self.steps.iter().skip(from).flat_map(|(_, changed)| changed).copied().collect())
    }

    /// How many roots it holds.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> LeafKey {
        LeafKey { name: [n as u8; 32], session: n as u64 }
    }

    fn root(n: usize) -> Digest {
        let mut root = [0; 32];
        root[..8].copy_from_slice(&n.to_be_bytes());
        root
    }

    #[test]
    fn all_that_changed_since_a_root_is_told_in_order_and_once() {
        let mut log = DigestLog::new();
        log.push(root(0), vec![key(3)]);
        // Two sessions of one producer, and another one again.
        log.push(root(1), vec![LeafKey { session: 1, ..key(2) }, LeafKey { session: 9, ..key(2) }]);
        log.push(root(2), vec![key(3)]);
        let sessions = [LeafKey { session: 1, ..key(2) }, LeafKey { session: 9, ..key(2) }];
        assert_eq!(log.since(&root(0)), Some([sessions[0], sessions[1], key(3)].into()));
        assert_eq!(log.since(&root(2)), Some([key(3)].into()));
        assert_eq!(log.since(&root(3)), None, "the root of now is none of the past");
    }

    #[test]
    fn the_log_holds_so_many_roots_and_changes_and_no_more() {
        let mut log = DigestLog::new();
        (0..=MAX_GROUP_LOG_ROOTS).for_each(|n| log.push(root(n), vec![key(n)]));
        assert_eq!(log.len(), MAX_GROUP_LOG_ROOTS);
        assert!(!log.contains(&root(0)) && log.contains(&root(1)));
        log.push(root(999), (0..MAX_GROUP_LOG_CHANGES).map(key).collect());
        assert_eq!(log.len(), 1, "one step of all the changes there may be");
        log.push(root(1000), vec![key(1)]);
        assert_eq!(log.len(), 1);
        assert!(log.contains(&root(1000)));
    }
}
