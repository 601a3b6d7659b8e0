use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use dagmesh_core::limits::MAX_RECORD_PEERS;
use libp2p_identity::PeerId;

/// Peers to be asked in turn, the closest first, a few at a time, each at most once.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    waiting: VecDeque<PeerId>,
    running: BTreeMap<PeerId, Instant>,
    asked: usize,
}

impl Fanout {
    /// At most [`MAX_RECORD_PEERS`] of them, none twice.
    pub(super) fn new(peers: impl IntoIterator<Item = PeerId>) -> Self {
        let mut seen = BTreeSet::new();
        let waiting = peers.into_iter().filter(|peer| seen.insert(*peer)).take(MAX_RECORD_PEERS).collect();
        Self { waiting, ..Self::default() }
    }

    /// The next to ask, where fewer than `parallel` are being asked; it may take until `deadline`.
    pub(super) fn next(&mut self, parallel: usize, deadline: Instant) -> Option<PeerId> {
        if self.running.len() >= parallel {
            return None;
        }
        let peer = self.waiting.pop_front()?;
        self.running.insert(peer, deadline);
        self.asked += 1;
        Some(peer)
    }

    /// Asks none beyond the first `count` of all.
    pub(super) fn keep_first(&mut self, count: usize) {
        self.waiting.truncate(count.saturating_sub(self.asked));
    }

    /// This one has answered or failed. Gives whether it was being asked: a late or unasked answer is none.
    pub(super) fn ended(&mut self, peer: &PeerId) -> bool {
        self.running.remove(peer).is_some()
    }

    /// Takes out those whose time is over.
    pub(super) fn late(&mut self, now: Instant) -> Vec<PeerId> {
        let late: Vec<_> = self.running.iter().filter(|(_, at)| **at <= now).map(|(peer, _)| *peer).collect();
        self.running.retain(|_, at| *at > now);
        late
    }

    /// How many were asked.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Whether all have been asked, and have answered or failed.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.running.values().min().copied()
    }
}

/// The time of one request.
pub(super) fn until(now: Instant, request: Duration, deadline: Instant) -> Instant {
    (now + request).min(deadline)
}
