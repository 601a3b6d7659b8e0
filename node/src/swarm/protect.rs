use std::collections::{BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, FromSwarm};
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, NetworkBehaviour, NotifyHandler,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

/// Keeps connections with chosen peers open while nothing uses them. Speaks no protocol.
///
/// Peers that speak gossipsub hold a stream with one another anyway; this is for the others.
#[derive(Default)]
pub(super) struct Protect {
    peers: BTreeSet<PeerId>,
    connections: HashMap<PeerId, BTreeSet<ConnectionId>>,
    pending: VecDeque<ToSwarm<Infallible, bool>>,
    waker: Option<Waker>,
}

impl Protect {
    /// Protects the peer, connected or not, or ends that.
    pub(super) fn set(&mut self, peer: PeerId, keep: bool) {
        let changed = if keep { self.peers.insert(peer) } else { self.peers.remove(&peer) };
        if !changed {
            return;
        }
        for connection in self.connections.get(&peer).into_iter().flatten() {
            let handler = NotifyHandler::One(*connection);
            self.pending.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: keep });
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }
}

impl NetworkBehaviour for Protect {
    type ConnectionHandler = Keeper;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Keeper { keep: self.contains(&peer) })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Keeper { keep: self.contains(&peer) })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.connections.entry(peer_id).or_default().insert(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(open) = self.connections.get_mut(&peer_id) {
                    open.remove(&connection_id);
                    if open.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.pending.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Says of one connection whether it is kept.
pub(super) struct Keeper {
    keep: bool,
}

impl ConnectionHandler for Keeper {
    type FromBehaviour = bool;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep
    }

    fn on_behaviour_event(&mut self, keep: bool) {
        self.keep = keep;
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, _: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;
    use libp2p::swarm::{ConnectionError, SwarmEvent};
    use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn swarm() -> Swarm<Protect> {
        SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| Protect::default())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_millis(100)))
            .build()
    }

    /// Starts a swarm in the background that keeps all its connections with `friend`; returns where it listens.
    async fn other(friend: PeerId) -> (PeerId, Multiaddr) {
        let mut swarm = swarm();
        swarm.behaviour_mut().set(friend, true);
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let peer = *swarm.local_peer_id();
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                tokio::spawn(async move { while swarm.next().await.is_some() {} });
                return (peer, address);
            }
        }
    }

    async fn closed_for_idleness(swarm: &mut Swarm<Protect>) -> PeerId {
        let closed = async {
            loop {
                if let SwarmEvent::ConnectionClosed { peer_id, cause, .. } = swarm.select_next_some().await {
                    assert!(matches!(cause, Some(ConnectionError::KeepAliveTimeout)), "{cause:?}");
                    return peer_id;
                }
            }
        };
        timeout(DEADLINE, closed).await.unwrap()
    }

    #[tokio::test]
    async fn an_idle_connection_ends_unless_the_peer_is_protected() {
        let mut swarm = swarm();
        let local = *swarm.local_peer_id();
        let (kept, kept_addr) = other(local).await;
        let (dropped, dropped_addr) = other(local).await;
        swarm.behaviour_mut().set(kept, true);
        swarm.behaviour_mut().set(dropped, true);
        swarm.dial(kept_addr).unwrap();
        swarm.dial(dropped_addr).unwrap();
        let connected = async {
            while swarm.connected_peers().count() < 2 {
                swarm.select_next_some().await;
            }
        };
        timeout(DEADLINE, connected).await.unwrap();
        swarm.behaviour_mut().set(dropped, false);
        assert_eq!(closed_for_idleness(&mut swarm).await, dropped);
        assert!(swarm.is_connected(&kept));
        swarm.behaviour_mut().set(kept, false);
        assert_eq!(closed_for_idleness(&mut swarm).await, kept);
    }
}
