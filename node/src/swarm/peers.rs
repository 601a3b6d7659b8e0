use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dagmesh_core::limits;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::address;
use super::event::{Direction, KnownPeer, PeerInfo};

/// Who is connected, and who was.
#[derive(Default)]
pub(super) struct Peers {
    connected: BTreeMap<PeerId, Connected>,
    known: BTreeMap<PeerId, Known>,
    contacts: u64,
    changed: bool,
}

struct Connected {
    /// Oldest first.
    connections: Vec<Connection>,
    since: Instant,
    protocols: Vec<String>,
    agent: Option<String>,
    rtt: Option<Duration>,
}

/// Two dials that cross, or a hole that is punched, open several connections within a moment; a program that was killed
/// takes longer to come back.
const RESTART: Duration = Duration::from_secs(1);

struct Connection {
    id: ConnectionId,
    since: Instant,
    addr: Multiaddr,
    direction: Direction,
    relayed: bool,
}

struct Known {
    addrs: Vec<Multiaddr>,
    /// Rank of the last contact; the lowest makes room.
    contact: u64,
}

impl Peers {
    pub(super) fn with_known(known: &[KnownPeer]) -> Self {
        let mut peers = Self::default();
        // The newest contact comes first in the list and last here.
        for KnownPeer { peer, addrs } in known.iter().take(limits::MAX_PERSISTED_PEERS).rev() {
            peers.remember(*peer, addrs.iter().cloned(), false);
        }
        peers.changed = false;
        peers
    }

    pub(super) fn count(&self) -> usize {
        self.connected.len()
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.connected.contains_key(peer)
    }

    /// Takes in a new connection; true where it is the first with this peer.
    pub(super) fn opened(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint, now: Instant) -> bool {
        let ((addr, direction), relayed) = (place(endpoint), endpoint.is_relayed());
        if direction == Direction::Outbound && !relayed {
            self.remember(peer, [addr.clone()], true);
        }
        let first = !self.contains(&peer);
        let entry = self.connected.entry(peer).or_insert_with(|| Connected {
            connections: Vec::new(),
            since: now,
            protocols: Vec::new(),
            agent: None,
            rtt: None,
        });
        entry.connections.push(Connection { id, since: now, addr, direction, relayed });
        first
    }

    /// Whether the other connections with this peer may be those of a program that was started again while this one still
    /// seemed open: it is the oldest, direct, and the others came later by [`RESTART`].
    pub(super) fn is_of_former_life(&self, peer: &PeerId, id: ConnectionId) -> bool {
        match self.connected.get(peer).map_or(&[][..], |entry| &entry.connections) {
            [oldest, next, ..] => oldest.id == id && !oldest.relayed && next.since >= oldest.since + RESTART,
            _ => false,
        }
    }

    /// Takes in the end of a connection; true where it was the last with this peer.
    pub(super) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> bool {
        let Some(entry) = self.connected.get_mut(peer) else { return false };
        entry.connections.retain(|connection| connection.id != id);
        let last = entry.connections.is_empty();
        if last {
            self.connected.remove(peer);
        }
        last
    }

    /// Takes in what a peer said about itself; `addrs` are those that may be used. True where its protocols are new.
    pub(super) fn identified(
        &mut self,
        peer: PeerId,
        protocols: &[StreamProtocol],
        agent: &str,
        addrs: &[Multiaddr],
    ) -> bool {
        if !addrs.is_empty() {
            self.remember(peer, addrs.iter().cloned(), false);
        }
        let Some(entry) = self.connected.get_mut(&peer) else { return false };
        let mut names: Vec<String> =
            protocols.iter().take(limits::MAX_PROTOCOLS_PER_PEER).map(|name| cut(name.as_ref())).collect();
        names.sort_unstable();
        names.dedup();
        let news = entry.agent.is_none() || entry.protocols != names;
        entry.protocols = names;
        entry.agent = Some(cut(agent));
        news
    }

    /// At which addresses we have reached a peer, and from which it has reached us; relays apart.
    pub(super) fn seen_at(&self, peer: &PeerId) -> (Vec<Multiaddr>, Vec<Multiaddr>) {
        let all = self.connected.get(peer).map_or(&[][..], |entry| &entry.connections);
        let of = |direction| {
            let fits = |it: &&Connection| !it.relayed && it.direction == direction;
            all.iter().filter(fits).map(|it| it.addr.clone()).collect()
        };
        (of(Direction::Outbound), of(Direction::Inbound))
    }

    pub(super) fn pinged(&mut self, peer: &PeerId, rtt: Duration) {
        if let Some(entry) = self.connected.get_mut(peer) {
            entry.rtt = Some(rtt);
        }
    }

    /// What a peer said about itself: protocols and program.
    pub(super) fn identity(&self, peer: &PeerId) -> Option<(Vec<String>, String)> {
        let entry = self.connected.get(peer)?;
        Some((entry.protocols.clone(), entry.agent.clone()?))
    }

    /// Whether a connected peer has said that it serves a protocol; `None` where it has said nothing yet.
    pub(super) fn speaks(&self, peer: &PeerId, protocol: &str) -> Option<bool> {
        let entry = self.connected.get(peer).filter(|entry| entry.agent.is_some())?;
        Some(entry.protocols.iter().any(|name| name == protocol))
    }

    /// The connected peers; `more` adds topics and protection.
    pub(super) fn list(&self, now: Instant, mut more: impl FnMut(&mut PeerInfo)) -> Vec<PeerInfo> {
        let info = |(peer, entry): (&PeerId, &Connected)| {
            // A direct one where there is one: after a hole punch the relayed connection is the older.
            let direct = entry.connections.iter().find(|it| !it.relayed);
            let shown = direct.or_else(|| entry.connections.first())?;
            let mut info = PeerInfo {
                peer: *peer,
                addr: shown.addr.clone(),
                direction: shown.direction,
                relayed: shown.relayed,
                connections: entry.connections.len(),
                protocols: entry.protocols.clone(),
                agent: entry.agent.clone(),
                rtt: entry.rtt,
                topics: Vec::new(),
                connected_for: now.saturating_duration_since(entry.since),
                protected: false,
            };
            more(&mut info);
            Some(info)
        };
        self.connected.iter().filter_map(info).collect()
    }

    /// The peers worth keeping, newest contact first, if that changed since the last call.
    pub(super) fn changed_known(&mut self) -> Option<Vec<KnownPeer>> {
        std::mem::take(&mut self.changed).then(|| self.known())
    }

    pub(super) fn known(&self) -> Vec<KnownPeer> {
        let mut ranked: Vec<_> = self.known.iter().collect();
        ranked.sort_unstable_by_key(|(_, known)| std::cmp::Reverse(known.contact));
        ranked.into_iter().map(|(peer, known)| KnownPeer { peer: *peer, addrs: known.addrs.clone() }).collect()
    }

    fn remember(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>, proven: bool) {
        self.contacts += 1;
        if self.known.len() >= limits::MAX_PERSISTED_PEERS && !self.known.contains_key(&peer) {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.contact).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.known.remove(&peer));
        }
        let entry = self.known.entry(peer).or_insert_with(|| Known { addrs: Vec::new(), contact: 0 });
        entry.contact = self.contacts;
        self.changed = true;
        for addr in addrs {
            let addr = address::without_peer(&addr);
            let held = entry.addrs.iter().position(|known| *known == addr);
            if proven {
                held.map(|i| entry.addrs.remove(i));
                entry.addrs.insert(0, addr);
                entry.addrs.truncate(limits::MAX_ADDRS_PER_PEER);
            } else if held.is_none() && entry.addrs.len() < limits::MAX_ADDRS_PER_PEER {
                entry.addrs.push(addr);
            }
        }
    }
}

fn place(endpoint: &ConnectedPoint) -> (Multiaddr, Direction) {
    match endpoint {
        ConnectedPoint::Dialer { address, .. } => (address.clone(), Direction::Outbound),
        ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr.clone(), Direction::Inbound),
    }
}

/// A stranger's text, at most [`limits::MAX_AGENT_BYTES`] long and without control characters.
fn cut(text: &str) -> String {
    // A replacement takes three bytes where a control character took one; room for it is part of the cap.
    let mut bytes = 0;
    let printable = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    printable
        .take_while(|c| {
            bytes += c.len_utf8();
            bytes <= limits::MAX_AGENT_BYTES
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/8.8.8.8/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_direct_connection_is_shown_before_an_older_relayed_one() {
        let (mut peers, peer, now) = (Peers::default(), PeerId::random(), Instant::now());
        let relayed = addr(1).with(libp2p::multiaddr::Protocol::P2pCircuit);
        for (id, remote) in [(1, relayed), (2, addr(2)), (3, addr(3))] {
            let endpoint = ConnectedPoint::Dialer {
                address: remote,
                role_override: libp2p::core::Endpoint::Dialer,
                port_use: libp2p::core::transport::PortUse::Reuse,
            };
            peers.opened(peer, ConnectionId::new_unchecked(id), &endpoint, now);
        }
        let shown = |peers: &Peers| peers.list(now, |_| ()).pop().map(|it| (it.relayed, it.connections));
        assert_eq!(shown(&peers), Some((false, 3)));
        assert_eq!(peers.list(now, |_| ())[0].addr, addr(2));
        peers.closed(&peer, ConnectionId::new_unchecked(2));
        peers.closed(&peer, ConnectionId::new_unchecked(3));
        assert_eq!(shown(&peers), Some((true, 1)));
    }

    #[test]
    fn known_peers_are_capped_and_the_oldest_contact_makes_room() {
        let mut peers = Peers::default();
        let first = PeerId::random();
        peers.remember(first, [addr(1)], false);
        for _ in 1..limits::MAX_PERSISTED_PEERS {
            peers.remember(PeerId::random(), [addr(1)], false);
        }
        assert_eq!(peers.known().len(), limits::MAX_PERSISTED_PEERS);
        assert!(peers.known().iter().any(|known| known.peer == first));
        peers.remember(PeerId::random(), [addr(1)], false);
        assert_eq!(peers.known().len(), limits::MAX_PERSISTED_PEERS);
        assert!(!peers.known().iter().any(|known| known.peer == first));
    }

    #[test]
    fn an_address_that_worked_comes_first_and_their_number_is_capped() {
        let (mut peers, peer) = (Peers::default(), PeerId::random());
        peers.remember(peer, (1..40).map(addr), false);
        peers.remember(peer, [addr(99)], true);
        let known = peers.known();
        assert_eq!(known[0].addrs.len(), limits::MAX_ADDRS_PER_PEER);
        assert_eq!(known[0].addrs[0], addr(99));
    }

    #[test]
    fn a_restored_list_keeps_its_order() {
        let list: Vec<_> = (1..4).map(|port| KnownPeer { peer: PeerId::random(), addrs: vec![addr(port)] }).collect();
        let mut peers = Peers::with_known(&list);
        assert_eq!(peers.known(), list);
        assert_eq!(peers.changed_known(), None);
    }

    #[test]
    fn texts_of_strangers_are_cut_and_hold_no_control_characters() {
        assert_eq!(cut("kubo/0.30\u{1b}[2J"), "kubo/0.30\u{fffd}[2J");
        assert_eq!(cut(&"é".repeat(500)).len(), limits::MAX_AGENT_BYTES);
        assert!(cut(&"\0".repeat(500)).len() <= limits::MAX_AGENT_BYTES);
    }
}
