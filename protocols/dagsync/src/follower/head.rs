//! Heads: signed and numbered ones, and those of chains that have no numbers.

use cid::Cid;
use dagmesh_dag::{HeadOrder, SignedHead};

use super::{FollowKey, Latest};

/// The newest entry of a feed, as its publisher says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// Of one of our own feeds: it proves itself, and it is numbered.
    Signed(SignedHead),
    /// Of a chain whose entries have no numbers. Whoever hands it in has made sure that the publisher said so, and that
    /// it is no entry that is behind `latest`: the one that comes last counts.
    Bare {
        /// Of which feed.
        key: FollowKey,
        /// The entry.
        entry: Cid,
    },
}

impl Head {
    /// The feed that it is of.
    pub fn key(&self) -> FollowKey {
        match self {
            Self::Signed(head) => FollowKey::of(head),
            Self::Bare { key, .. } => key.clone(),
        }
    }

    /// The entry that it names.
    pub fn entry(&self) -> &Cid {
        match self {
            Self::Signed(head) => head.head(),
            Self::Bare { entry, .. } => entry,
        }
    }

    /// The number that its publisher gives it.
    pub fn seq(&self) -> Option<u64> {
        match self {
            Self::Signed(head) => Some(head.seq()),
            Self::Bare { .. } => None,
        }
    }

    /// Where it stands in its chain.
    pub(super) fn place(&self) -> Latest {
        Latest { entry: *self.entry(), seq: self.seq().unwrap_or(0) }
    }

    /// How it stands to another head of the same feed.
    pub(super) fn compare(&self, known: &Self) -> HeadOrder {
        match (self, known) {
            (Self::Signed(head), Self::Signed(known)) => head.compare(known),
            _ if self.entry() == known.entry() => HeadOrder::Same,
            _ => HeadOrder::Newer,
        }
    }

    /// Whether all of it is held where `latest` is.
    pub(super) fn is_reached(&self, latest: Latest) -> bool {
        match self {
            Self::Signed(head) => latest.seq >= head.seq(),
            Self::Bare { entry, .. } => latest.entry == *entry,
        }
    }
}
