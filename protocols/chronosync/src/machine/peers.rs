use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dagmesh_core::limits::{
    GROUP_GOSSIP_BURST, GROUP_GOSSIP_PER_SECOND, GROUP_GOSSIP_UNIT_BYTES, GROUP_REQUEST_BURST,
    GROUP_REQUESTS_PER_SECOND, MAX_GROUP_PEERS,
};
use libp2p_identity::PeerId;

/// First wait after a peer that claimed to be ahead had nothing, or failed; doubles up to [`MAX_WAIT`].
const MIN_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What is remembered of the peers of the group; at most [`MAX_GROUP_PEERS`].
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
    /// Counts what was heard, to tell who was heard last.
    clock: u64,
}

#[derive(Debug)]
struct Peer {
    joined: bool,
    heard: u64,
    failures: u32,
    not_before: Option<Instant>,
    requests: Rate,
    gossip: Rate,
}

/// A token bucket: until when what was taken is paid for, each unit with its share of a second.
#[derive(Debug)]
struct Rate(Instant);

impl Rate {
    fn take(&mut self, now: Instant, units: u32, per_second: u32, burst: u32) -> bool {
        let share = Duration::from_secs(1) / per_second;
        let paid = self.0.max(now) + share * units;
        let fits = paid <= now + share * burst;
        if fits {
            self.0 = paid;
        }
        fits
    }
}

impl Peers {
    pub(super) fn join(&mut self, now: Instant, peer: PeerId) -> bool {
        self.entry(now, peer).is_some_and(|peer| {
            peer.not_before = None;
            !std::mem::replace(&mut peer.joined, true)
        })
    }

    pub(super) fn leave(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.joined = false;
        }
    }

    pub(super) fn joined(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().filter(|(_, peer)| peer.joined).map(|(id, _)| *id)
    }

    pub(super) fn is_joined(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.joined)
    }

    /// Whether it may be asked now.
    pub(super) fn is_askable(&self, now: Instant, peer: &PeerId) -> bool {
        self.peers.get(peer).and_then(|peer| peer.not_before).is_none_or(|at| at <= now)
    }

    /// It had nothing, or did not answer.
    pub(super) fn failed(&mut self, now: Instant, peer: PeerId) {
        if let Some(peer) = self.entry(now, peer) {
            peer.not_before = Some(now + (MIN_WAIT * 2u32.saturating_pow(peer.failures.min(16))).min(MAX_WAIT));
            peer.failures = peer.failures.saturating_add(1);
        }
    }

    pub(super) fn helped(&mut self, peer: &PeerId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            (peer.failures, peer.not_before) = (0, None);
        }
    }

    /// Takes one request of this peer; `false` where it has asked too often.
    pub(super) fn take_request(&mut self, now: Instant, peer: PeerId) -> bool {
        let Some(peer) = self.entry(now, peer) else { return false };
        peer.requests.take(now, 1, GROUP_REQUESTS_PER_SECOND, GROUP_REQUEST_BURST)
    }

    /// Takes a message of so many bytes of this peer; `false` where it has sent too much.
    pub(super) fn take_bytes(&mut self, now: Instant, peer: PeerId, bytes: usize) -> bool {
        let units = u32::try_from(bytes / GROUP_GOSSIP_UNIT_BYTES).unwrap_or(u32::MAX).saturating_add(1);
        let Some(peer) = self.entry(now, peer) else { return false };
        peer.gossip.take(now, units, GROUP_GOSSIP_PER_SECOND, GROUP_GOSSIP_BURST)
    }

    /// The entry of a peer, where there is one or room for it.
    fn entry(&mut self, now: Instant, id: PeerId) -> Option<&mut Peer> {
        if !self.peers.contains_key(&id) && self.peers.len() >= MAX_GROUP_PEERS {
            let others = self.peers.iter().filter(|(_, peer)| !peer.joined);
            let oldest = others.min_by_key(|(_, peer)| peer.heard).map(|(id, _)| *id)?;
            self.peers.remove(&oldest);
        }
        self.clock += 1;
        let heard = self.clock;
        let (requests, gossip) = (Rate(now), Rate(now));
        let new = || Peer { joined: false, heard, failures: 0, not_before: None, requests, gossip };
        let peer = self.peers.entry(id).or_insert_with(new);
        peer.heard = heard;
        Some(peer)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }
}
