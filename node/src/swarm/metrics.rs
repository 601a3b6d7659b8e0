use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What the swarm has counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SwarmMetrics {
    /// Peers connected now.
    pub peers: usize,
    /// Connections established.
    pub connections_opened: u64,
    /// Connections closed.
    pub connections_closed: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Inbound connections that failed or were refused.
    pub inbound_failed: u64,
    /// Gossip messages published.
    pub gossip_published: u64,
    /// Gossip messages accepted and handed on.
    pub gossip_accepted: u64,
    /// Gossip messages that the validator ignored.
    pub gossip_ignored: u64,
    /// Gossip messages that the validator rejected.
    pub gossip_rejected: u64,
    /// Gossip messages ignored because the queue to the node was full.
    pub gossip_overflow: u64,
    /// Gossip messages whose verdict came too late to pass them on.
    pub gossip_late: u64,
    /// Records and provider records of others that were refused.
    pub kad_refused: u64,
    /// Commands answered.
    pub commands: u64,
}

/// The counters behind [`SwarmMetrics`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) peers: AtomicUsize,
    pub(super) connections_opened: Counter,
    pub(super) connections_closed: Counter,
    pub(super) dials_failed: Counter,
    pub(super) inbound_failed: Counter,
    pub(super) gossip_published: Counter,
    pub(super) gossip_accepted: Counter,
    pub(super) gossip_ignored: Counter,
    pub(super) gossip_rejected: Counter,
    pub(super) gossip_overflow: Counter,
    pub(super) gossip_late: Counter,
    pub(super) kad_refused: Counter,
    pub(super) commands: Counter,
}

impl Counters {
    pub(super) fn snapshot(&self) -> SwarmMetrics {
        SwarmMetrics {
            peers: self.peers.load(Ordering::Relaxed),
            connections_opened: self.connections_opened.get(),
            connections_closed: self.connections_closed.get(),
            dials_failed: self.dials_failed.get(),
            inbound_failed: self.inbound_failed.get(),
            gossip_published: self.gossip_published.get(),
            gossip_accepted: self.gossip_accepted.get(),
            gossip_ignored: self.gossip_ignored.get(),
            gossip_rejected: self.gossip_rejected.get(),
            gossip_overflow: self.gossip_overflow.get(),
            gossip_late: self.gossip_late.get(),
            kad_refused: self.kad_refused.get(),
            commands: self.commands.get(),
        }
    }
}

/// A count that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
