//! Who stands in the routing table of the DHT.
//!
//! A peer gets in once identify has shown that it serves our DHT. Where diversity is wanted, it also has to come from where
//! it says that it listens, or else to be reached there; and there has to be room for its part of the internet. A peer of
//! that part that does not answer any more makes room, as in a bucket that is full. The user's own bootstrap peers are
//! trusted, and not counted.

use std::collections::{BTreeSet, HashMap};

use libp2p::kad::KBucketKey;
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};

use super::diversity::{Diversity, Group, Placed, check_table};
use super::worker::Worker;

/// What is known of those in the table.
#[derive(Default)]
pub(super) struct Routing {
    /// Where each of them was seen, and who may still get in.
    groups: HashMap<PeerId, BTreeSet<Group>>,
    /// Peers of the table that are dialled to see whether they live, and who wants their place.
    contests: HashMap<PeerId, (PeerId, Vec<Multiaddr>)>,
    /// Peers that are connected and were dialled where they say that they listen.
    tried: BTreeSet<PeerId>,
    /// Whether there was somebody since there was nobody.
    joined: bool,
}

/// Why a peer does not get in.
enum Refused {
    /// It was not seen where it says that it listens.
    Unseen,
    /// These stand in its way.
    Full(Vec<PeerId>),
}

impl Worker {
    /// A peer that serves our DHT says that it listens at these addresses.
    pub(super) fn admit(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        if self.config.dht_diversity != Diversity::Off
            && let Err(refused) = self.check_diversity(peer, &addrs)
        {
            return match refused {
                Refused::Unseen => self.confirm(peer, addrs),
                Refused::Full(rivals) => self.contest(peer, addrs, &rivals),
            };
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        for addr in addrs {
            kad.add_address(&peer, addr);
        }
        if !std::mem::replace(&mut self.routing.joined, true) {
            kad.store_mut().book().hurry();
        }
    }

    /// There is no connection left.
    pub(super) fn isolated(&mut self) {
        self.routing.joined = false;
    }

    fn check_diversity(&mut self, peer: PeerId, addrs: &[Multiaddr]) -> Result<(), Refused> {
        let trusted: BTreeSet<_> = self.config.bootstrap_peers().into_iter().map(|(peer, _)| peer).collect();
        if trusted.contains(&peer) {
            return Ok(());
        }
        let diversity = self.config.dht_diversity;
        let (reached, mut from) = self.peers.seen_at(&peer);
        let said = diversity.groups(addrs);
        from.retain(|addr| !diversity.groups([addr]).is_disjoint(&said));
        if reached.is_empty() && from.is_empty() {
            return Err(Refused::Unseen);
        }
        let groups = diversity.groups(reached.iter().chain(&from));
        let local = KBucketKey::from(*self.swarm.local_peer_id());
        let bucket = |peer: &PeerId| local.distance(&KBucketKey::from(*peer)).ilog2().unwrap_or_default();
        let table: BTreeSet<PeerId> = self.swarm.behaviour_mut().kad.kbuckets().fold(BTreeSet::new(), |mut all, it| {
            all.extend(it.iter().map(|entry| *entry.node.key.preimage()));
            all
        });
        let (known, peers) = (&mut self.routing.groups, &self.peers);
        known.retain(|peer, _| table.contains(peer) || peers.contains(peer));
        if !table.contains(&peer) {
            let others = known.iter().filter(|(other, _)| table.contains(other) && !trusted.contains(other));
            let placed = others.map(|(peer, groups)| Placed { peer: *peer, bucket: bucket(peer), groups });
            check_table(placed, bucket(&peer), &groups).map_err(Refused::Full)?;
        }
        known.insert(peer, groups);
        Ok(())
    }

    /// Dials a connected peer, once, where it says that it listens: reached there, it will be identified again.
    fn confirm(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        let peers = &self.peers;
        self.routing.tried.retain(|peer| peers.contains(peer));
        if addrs.is_empty() || !self.routing.tried.insert(peer) {
            return;
        }
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::NotDialing).addresses(addrs).build();
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(%peer, %error, "not dialled where it says that it listens");
        }
    }

    /// Looks whether one of those in the way is gone: who is connected lives.
    fn contest(&mut self, newcomer: PeerId, addrs: Vec<Multiaddr>, rivals: &[PeerId]) {
        let away = |peer: &&PeerId| !self.peers.contains(peer) && !self.routing.contests.contains_key(peer);
        let Some(rival) = rivals.iter().find(away).copied() else { return };
        self.routing.contests.insert(rival, (newcomer, addrs));
        if self.known_addrs(rival).is_empty() {
            self.unreachable(rival, &DialError::NoAddresses);
        } else if !self.dial_quietly(rival, Vec::new()) {
            self.routing.contests.remove(&rival);
        }
    }

    /// A peer of the table is there.
    pub(super) fn contest_won(&mut self, peer: &PeerId) {
        self.routing.contests.remove(peer);
    }

    /// A peer could not be reached: it leaves the routing table, where libp2p-kad keeps it until somebody else wants its
    /// place; who does want it has it.
    pub(super) fn unreachable(&mut self, peer: PeerId, error: &DialError) {
        let newcomer = self.routing.contests.remove(&peer);
        let gone = matches!(error, DialError::Transport(_) | DialError::NoAddresses | DialError::WrongPeerId { .. });
        // Where nobody else is connected, it may be our own line that is down.
        if !gone || self.peers.contains(&peer) || self.peers.count() == 0 {
            return;
        }
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
        if let Some((newcomer, addrs)) = newcomer.filter(|(newcomer, _)| self.peers.contains(newcomer)) {
            self.admit(newcomer, addrs);
        }
    }
}
