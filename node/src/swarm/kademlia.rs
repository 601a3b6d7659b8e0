use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll};
use std::time::Duration;

use dagmesh_core::limits;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::FromSwarm;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, kad};

use super::config::{KadMode, SwarmConfig};
use super::diversity::{Diversity, Told, ip_of};
use super::error::SwarmError;
use super::kad_store::KadStore;

type Inner = kad::Behaviour<KadStore>;
/// What a connection is told.
type ToHandler = THandlerInEvent<Inner>;
/// What a connection tells.
type FromHandler = THandlerOutEvent<Inner>;

/// Kademlia whose store is told who sends what it is to keep, and whose queries take only so many peers of one part of the
/// internet.
///
/// With `StoreInserts::FilterBoth` libp2p-kad acknowledges a PUT before anybody has looked at it; without, it asks the
/// store. The store is the place to judge, then; but it is not told the sender, whom the caps for each peer and the bans
/// need. All that a peer sends comes in through `on_connection_handler_event`, and is put into the store before that
/// returns: so the sender is noted there.
///
/// What the store refuses is answered with another record, as if one had been asked for: no acknowledgement of a PUT to
/// libp2p-kad, nor to go-libp2p and js-libp2p, which look for the value in it. (Without any record go-libp2p-kad-dht 0.39
/// panics.) libp2p-kad 0.49 itself would reset the stream, but does not wake it, so that the sender waits for its own
/// time-out of 10 s.
pub(super) struct Kademlia {
    inner: Inner,
    diversity: Diversity,
    /// What the running queries have been told.
    told: HashMap<kad::QueryId, Told>,
}

impl Kademlia {
    pub(super) fn new(config: &SwarmConfig, peer: PeerId, store: KadStore) -> Result<Self, SwarmError> {
        let mut kad_config = kad::Config::new(config.kad_protocol()?);
        kad_config
            .set_query_timeout(Duration::from_secs(limits::QUERY_TIMEOUT_SECS))
            .disjoint_query_paths(true)
            .set_max_packet_size(limits::MAX_KAD_MESSAGE_BYTES)
            .set_record_filtering(kad::StoreInserts::Unfiltered)
            // A record says itself until when it is valid, and the service puts it again.
            .set_record_ttl(None)
            .set_replication_interval(None)
            .set_publication_interval(None)
            // Of whom a search has asked, all that had nothing are told.
            .set_caching(kad::Caching::Enabled { max_peers: u16::MAX })
            .set_provider_publication_interval(Some(Duration::from_secs(12 * 60 * 60)))
            .set_provider_record_ttl(Some(Duration::from_secs(48 * 60 * 60)))
            // The worker puts into the routing table whom identify has shown to serve our DHT.
            .set_kbucket_inserts(kad::BucketInserts::Manual);
        let mut inner = kad::Behaviour::with_config(peer, store, kad_config);
        inner.set_mode(kad_mode(config.kad_mode));
        Ok(Self { inner, diversity: config.dht_diversity, told: HashMap::new() })
    }

    /// Leaves out of an answer to a query what is too much of one part of the internet.
    fn limit(&mut self, event: &mut FromHandler) {
        let (closer, query) = match event {
            FromHandler::FindNodeRes { closer_peers, query_id } => (closer_peers, query_id),
            FromHandler::GetProvidersRes { closer_peers, query_id, .. } => (closer_peers, query_id),
            FromHandler::GetRecordRes { closer_peers, query_id, .. } => (closer_peers, query_id),
            _ => return,
        };
        if self.diversity == Diversity::Off || self.inner.query(query).is_none() {
            return;
        }
        let told = self.told.entry(*query).or_default();
        closer.retain_mut(|peer| {
            // A name beside an address would lead to where nobody counts.
            if peer.multiaddrs.iter().any(|addr| ip_of(addr).is_some()) {
                peer.multiaddrs.retain(|addr| ip_of(addr).is_some());
            }
            told.takes(self.diversity, peer.node_id, &peer.multiaddrs)
        });
    }
}

/// The mode as libp2p-kad has it; `None` switches by confirmed external addresses.
pub(super) fn kad_mode(mode: KadMode) -> Option<kad::Mode> {
    match mode {
        KadMode::Auto => None,
        KadMode::Client => Some(kad::Mode::Client),
        KadMode::Server => Some(kad::Mode::Server),
    }
}

fn refuse(event: ToHandler) -> ToHandler {
    match event {
        ToHandler::Reset(request_id) => {
            let record = Some(kad::Record::new(Vec::new(), b"refused".to_vec()));
            ToHandler::GetRecordRes { record, closer_peers: Vec::new(), request_id }
        }
        other => other,
    }
}

impl Deref for Kademlia {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Kademlia {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl NetworkBehaviour for Kademlia {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = <Inner as NetworkBehaviour>::ToSwarm;

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
        self.inner.handle_established_outbound_connection(id, peer, addr, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, mut event: THandlerOutEvent<Self>) {
        self.limit(&mut event);
        self.inner.store_mut().set_sender(Some(peer));
        self.inner.on_connection_handler_event(peer, id, event);
        self.inner.store_mut().set_sender(None);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let event = std::task::ready!(self.inner.poll(cx));
        if let ToSwarm::GenerateEvent(kad::Event::OutboundQueryProgressed { id, step, .. }) = &event
            && step.last
        {
            self.told.remove(id);
        }
        Poll::Ready(event.map_in(refuse))
    }
}
