use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::task::{Context, Poll};

use dagmesh_announce::is_globally_reachable;
use dagmesh_core::limits;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{FromSwarm, NewExternalAddrOfPeer};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, PeerAddresses, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

/// Addresses of peers, for everybody in the Swarm who dials a peer by its id alone (streams, gossip, Kademlia).
///
/// Bounded by [`limits::MAX_KNOWN_PEERS`] peers of ten addresses each; the least recently used make room. An
/// address that fails is forgotten. With `global_only`, addresses that strangers name are taken only where they
/// are globally reachable, so nobody can make us dial into our own network.
pub(super) struct PeerBook {
    addresses: PeerAddresses,
    global_only: bool,
}

impl PeerBook {
    pub(super) fn new(global_only: bool) -> Self {
        let peers = NonZeroUsize::new(limits::MAX_KNOWN_PEERS).unwrap_or(NonZeroUsize::MIN);
        Self { addresses: PeerAddresses::new(peers), global_only }
    }

    /// Takes an address that the user gave: any is welcome.
    pub(super) fn add_trusted(&mut self, peer: PeerId, addr: Multiaddr) {
        self.addresses.add(peer, addr);
    }

    /// Takes an address that a stranger gave, if it may be used.
    pub(super) fn add(&mut self, peer: PeerId, addr: Multiaddr) {
        if self.accepts(&addr) {
            self.addresses.add(peer, addr);
        }
    }

    /// Whether an address that a stranger gave may be used.
    pub(super) fn accepts(&self, addr: &Multiaddr) -> bool {
        accepts(addr, self.global_only)
    }

    /// The known addresses of a peer, with `/p2p/`.
    pub(super) fn get(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        self.addresses.get(peer).collect()
    }
}

/// Whether an address that a stranger gave may be used; with `global_only`, by everybody.
pub(super) fn accepts(addr: &Multiaddr, global_only: bool) -> bool {
    addr.len() <= limits::MAX_ADDR_BYTES && (!global_only || is_globally_reachable(addr))
}

impl NetworkBehaviour for PeerBook {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map(|peer| self.get(&peer)).unwrap_or_default())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewExternalAddrOfPeer(NewExternalAddrOfPeer { peer_id, addr }) => {
                self.add(peer_id, addr.clone());
            }
            event => {
                self.addresses.on_swarm_event(&event);
            }
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_name_private_addresses_on_a_public_network_but_the_user_can() {
        let (private, public): (Multiaddr, Multiaddr) =
            ("/ip4/192.168.1.7/tcp/1".parse().unwrap(), "/ip4/8.8.8.8/tcp/1".parse().unwrap());
        let (peer, friend) = (PeerId::random(), PeerId::random());
        let mut book = PeerBook::new(true);
        book.add(peer, private.clone());
        book.add(peer, public.clone());
        book.add_trusted(friend, private.clone());
        assert_eq!(book.get(&peer), [public.with_p2p(peer).unwrap()]);
        assert_eq!(book.get(&friend), [private.clone().with_p2p(friend).unwrap()]);
        let mut local = PeerBook::new(false);
        local.add(peer, private.clone());
        assert_eq!(local.get(&peer), [private.with_p2p(peer).unwrap()]);
    }

    #[test]
    fn addresses_of_one_peer_are_capped() {
        let (mut book, peer) = (PeerBook::new(false), PeerId::random());
        for port in 1..100 {
            book.add(peer, format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
        }
        assert_eq!(book.get(&peer).len(), limits::MAX_ADDRS_PER_PEER);
    }
}
