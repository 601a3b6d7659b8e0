use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

use dagmesh_core::limits;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, FromSwarm, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

/// Keeps one machine from taking all places for inbound connections.
///
/// The limits of libp2p count connections in all and by peer id. A peer id costs nothing, and a connection that is
/// still being set up has none; so connections are counted by where they come from too: [`limits::MAX_PENDING_PER_SOURCE`]
/// that are being set up, and [`Self::established`] that stand. A source is an IPv4 address, or the first half of an
/// IPv6 address, which is what one customer gets. Relayed connections are not counted: their source is the relay.
#[derive(Debug)]
pub(super) struct Sources {
    established: u32,
    connections: HashMap<ConnectionId, (IpAddr, State)>,
    counts: HashMap<IpAddr, Count>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Established,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    pending: u32,
    established: u32,
}

/// One machine has as many connections as it may.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{from} has {max} inbound connections already, and may have no more")]
struct TooMany {
    from: IpAddr,
    max: u32,
}

impl Sources {
    /// At most so many established inbound connections from one source.
    pub(super) fn new(established: u32) -> Self {
        Self { established: established.max(1), connections: HashMap::new(), counts: HashMap::new() }
    }

    fn admit(&mut self, id: ConnectionId, from: &Multiaddr) -> Result<(), ConnectionDenied> {
        let Some(source) = source_of(from) else { return Ok(()) };
        let count = self.counts.entry(source).or_default();
        let max = limits::MAX_PENDING_PER_SOURCE;
        if count.pending >= max {
            return Err(ConnectionDenied::new(TooMany { from: source, max }));
        }
        count.pending += 1;
        self.connections.insert(id, (source, State::Pending));
        Ok(())
    }

    fn establish(&mut self, id: ConnectionId) -> Result<(), ConnectionDenied> {
        let Some((source, State::Pending)) = self.connections.get(&id).copied() else { return Ok(()) };
        let max = self.established;
        let full = self.counts.get(&source).is_some_and(|count| count.established >= max);
        self.forget(id);
        if full {
            return Err(ConnectionDenied::new(TooMany { from: source, max }));
        }
        self.counts.entry(source).or_default().established += 1;
        self.connections.insert(id, (source, State::Established));
        Ok(())
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some((source, state)) = self.connections.remove(&id) else { return };
        let Some(count) = self.counts.get_mut(&source) else { return };
        match state {
            State::Pending => count.pending = count.pending.saturating_sub(1),
            State::Established => count.established = count.established.saturating_sub(1),
        }
        if count.pending == 0 && count.established == 0 {
            self.counts.remove(&source);
        }
    }
}

/// Where a connection comes from; `None` where that says nothing about whose it is.
fn source_of(addr: &Multiaddr) -> Option<IpAddr> {
    if addr.iter().any(|part| part == Protocol::P2pCircuit) {
        return None;
    }
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(match ip.to_ipv4_mapped() {
            Some(ip) => ip.into(),
            None => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        }),
        _ => None,
    }
}

impl NetworkBehaviour for Sources {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.admit(id, from)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.establish(id).map(|()| dummy::ConnectionHandler)
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
            // Also where a behaviour after this one has refused it.
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. })
            | FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => self.forget(connection_id),
            _ => {}
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

    fn addr(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    fn id(n: u32) -> ConnectionId {
        ConnectionId::new_unchecked(n as usize)
    }

    #[test]
    fn pending_connections_of_a_source_are_taken_at_the_cap_and_refused_beyond_it() {
        let (mut sources, max) = (Sources::new(2), limits::MAX_PENDING_PER_SOURCE);
        let greedy = addr("/ip4/192.0.2.1/tcp/1");
        for n in 0..max {
            sources.admit(id(n), &greedy).expect("within the cap");
        }
        assert!(sources.admit(id(max), &addr("/ip4/192.0.2.1/udp/9/quic-v1")).is_err());
        assert!(sources.admit(id(max + 1), &addr("/ip4/192.0.2.2/tcp/1")).is_ok(), "others are let in");
        sources.forget(id(0));
        assert!(sources.admit(id(max + 2), &greedy).is_ok());
    }

    #[test]
    fn established_connections_of_a_source_are_taken_at_the_cap_and_refused_beyond_it() {
        let mut sources = Sources::new(2);
        let from = |n: u32| addr(&format!("/ip6/2001:db8::{n}/tcp/1"));
        for n in 0..3 {
            sources.admit(id(n), &from(n + 1)).expect("few are pending");
        }
        assert!(sources.establish(id(0)).is_ok() && sources.establish(id(1)).is_ok());
        assert!(sources.establish(id(2)).is_err(), "one customer's network counts as one");
        sources.admit(id(3), &addr("/ip6/2001:db8:0:1::1/tcp/1")).expect("another network");
        assert!(sources.establish(id(3)).is_ok());
        sources.forget(id(0));
        sources.admit(id(4), &from(9)).expect("few are pending");
        assert!(sources.establish(id(4)).is_ok());
        (0..5).for_each(|n| sources.forget(id(n)));
        assert!(sources.counts.is_empty() && sources.connections.is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn relayed_connections_and_mapped_addresses_count_as_what_they_are() {
        let relayed = "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit";
        assert_eq!(source_of(&addr(relayed)), None);
        assert_eq!(source_of(&addr("/memory/1")), None);
        assert_eq!(source_of(&addr("/ip6/::ffff:192.0.2.1/tcp/1")), source_of(&addr("/ip4/192.0.2.1/tcp/2")));
    }
}
