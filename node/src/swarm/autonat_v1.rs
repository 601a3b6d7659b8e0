use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use dagmesh_core::limits;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure, FromSwarm};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol, autonat};

use tokio::time::{Instant, Sleep, sleep_until};

use super::address;
use super::config::{Profile, SwarmConfig};

/// What a peer offers that tests addresses by AutoNAT v2, whose answers are proven, address by address.
const V2: &str = "/libp2p/autonat/2/dial-request";

/// How long a connection that was opened for a client is left to it: it may have begun to use it.
const DIAL_BACK_KEPT: Duration = Duration::from_secs(5);

/// AutoNAT v1, for peers that know no other: those of go-libp2p by default, and older ones.
///
/// As a server it dials back only to where the client is seen at, and only so often
/// ([`limits::AUTONAT_V1_DIALS_PER_MINUTE`]), so that nobody is dialled on another's behalf. As a client it is a witness
/// and no more: a server names the address that it has reached, and proves nothing. So nothing here becomes an external
/// address by itself; [`Observed::vouched`](super::reachability::Observed::vouched) says when enough of them agree.
pub(super) struct AutonatV1 {
    inner: autonat::Behaviour,
    global_only: bool,
    /// Own addresses that the inner behaviour has been told of, and names in each request.
    candidates: HashSet<Multiaddr>,
    /// Connections that we opened, for whatever reason, and that no relay carries.
    outbound: HashSet<ConnectionId>,
    /// Dials for clients that are under way.
    dial_backs: HashSet<ConnectionId>,
    /// Connections that were opened for clients, the oldest first, and what wakes us when that is to be closed.
    opened: VecDeque<(Instant, PeerId, ConnectionId)>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl AutonatV1 {
    pub(super) fn new(local: PeerId, config: &SwarmConfig) -> Self {
        let minute = Duration::from_secs(60);
        // In a test nobody waits for a minute. No server is asked twice before the others have been: it is several
        // witnesses that are wanted.
        let (boot_delay, retry_interval, throttle_server_period) = match config.profile {
            Profile::Test => (minute / 120, minute / 120, minute / 12),
            _ => (minute / 4, minute * 3 / 2, minute * 15),
        };
        let inner = autonat::Config {
            boot_delay,
            retry_interval,
            throttle_server_period,
            // Only peers that are known to serve it are asked; see `identified`.
            use_connected: false,
            max_peer_addresses: limits::AUTONAT_V1_ADDRS,
            throttle_clients_period: minute,
            throttle_clients_global_max: limits::AUTONAT_V1_DIALS_PER_MINUTE,
            throttle_clients_peer_max: limits::AUTONAT_V1_DIALS_PER_PEER,
            only_global_ips: config.global_only(),
            ..autonat::Config::default()
        };
        Self {
            inner: autonat::Behaviour::new(local, inner),
            global_only: config.global_only(),
            candidates: HashSet::new(),
            outbound: HashSet::new(),
            dial_backs: HashSet::new(),
            opened: VecDeque::new(),
            wait: None,
        }
    }

    /// Takes a peer for a server that serves this version alone, and whose view is one from outside.
    ///
    /// Only what it says on a connection of ours counts: on those of its own, nodes like this one do not offer v2.
    pub(super) fn identified(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        protocols: &[StreamProtocol],
        addrs: &[Multiaddr],
    ) {
        if !self.outbound.contains(&id) {
            return;
        }
        let offers = |name: &str| protocols.iter().any(|it| it.as_ref() == name);
        let outside = !self.global_only || addrs.iter().any(dagmesh_announce::is_globally_reachable);
        if outside && offers(autonat::DEFAULT_PROTOCOL_NAME.as_ref()) && !offers(V2) {
            self.inner.add_server(peer, None);
        } else {
            self.inner.remove_server(&peer);
        }
    }

    /// The next connection that was opened for a client and is to be closed: that it stands is all that was to be
    /// learnt from it, and it takes one of the places that the peer has.
    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<(PeerId, ConnectionId)> {
        let Some((since, peer, id)) = self.opened.front().copied() else { return Poll::Pending };
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep_until(since + DIAL_BACK_KEPT)));
        ready!(wait.as_mut().poll(cx));
        (self.wait, _) = (None, self.opened.pop_front());
        Poll::Ready((peer, id))
    }

    /// Asks a peer no longer: it is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        self.inner.remove_server(peer);
    }
}

impl NetworkBehaviour for AutonatV1 {
    type ConnectionHandler = <autonat::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = autonat::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addrs, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if role == Endpoint::Dialer && !address::is_relayed(addr) {
            self.outbound.insert(id);
        }
        self.inner.handle_established_outbound_connection(id, peer, addr, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::NewExternalAddrCandidate(candidate) => {
                // Strangers name them, and the inner behaviour forgets none.
                let full = self.candidates.len() >= limits::AUTONAT_V1_ADDRS;
                if full || !self.candidates.insert(candidate.addr.clone()) {
                    return;
                }
            }
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. })
                if self.dial_backs.remove(connection_id) =>
            {
                self.opened.push_back((Instant::now(), *peer_id, *connection_id));
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.dial_backs.remove(connection_id);
                self.outbound.remove(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.outbound.remove(connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Poll::Ready((peer_id, id)) = self.poll_opened(cx) {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
        }
        loop {
            match ready!(self.inner.poll(cx)) {
                // One server's word; it comes as an event too.
                ToSwarm::ExternalAddrConfirmed(_) => {}
                ToSwarm::Dial { opts } => {
                    self.dial_backs.insert(opts.connection_id());
                    return Poll::Ready(ToSwarm::Dial { opts });
                }
                other => return Poll::Ready(other),
            }
        }
    }
}
