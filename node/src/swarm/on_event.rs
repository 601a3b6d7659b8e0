use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use dagmesh_core::limits;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::kad::{
    self, GetClosestPeersError, GetClosestPeersOk, GetProvidersOk, GetRecordError, GetRecordOk, QueryId, QueryResult,
};
use libp2p::swarm::{ConnectionError, ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, autonat, identify, mdns, relay, upnp};

use super::address;
use super::behaviour::BehaviourEvent;
use super::config::Profile;
use super::error::{SwarmError, chain};
use super::event::{Direction, GossipMessage, Held, HeldMessage, MeshEvent, Provided};
use super::on_command::untried;
use super::queries::{Closest, Providers, Query};
use super::transport;
use super::worker::Worker;

impl Worker {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.metrics.connections_closed.add();
                // The younger ones may be those of a peer that was restarted: gossipsub tells our topics on the first
                // connection alone, and that was one of its former life. So they begin anew, with a first one.
                if matches!(cause, Some(ConnectionError::IO(_)))
                    && self.peers.is_of_former_life(&peer_id, connection_id)
                {
                    let _already_gone = self.swarm.disconnect_peer_id(peer_id);
                }
                if self.peers.closed(&peer_id, connection_id) {
                    self.metrics.peers.store(self.peers.count(), Ordering::Relaxed);
                    let reason = cause.map(|cause| chain(&cause));
                    if let Some(autonat) = self.swarm.behaviour_mut().autonat_v1.as_mut() {
                        autonat.disconnected(&peer_id);
                    }
                    self.emit(MeshEvent::PeerDisconnected { peer: peer_id, reason });
                    if self.peers.count() == 0 {
                        self.rejoin.isolated(Instant::now());
                        self.isolated();
                        self.emit(MeshEvent::Isolated);
                    }
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.metrics.dials_failed.add();
                if let Some(peer) = peer_id {
                    self.unreachable(peer, &error);
                }
                if let Some(dial) = self.dials.remove(&connection_id) {
                    let error = self.dial_error(dial.target, dial.peer, error);
                    let _caller_has_gone = dial.reply.send(Err(error));
                } else {
                    tracing::debug!(peer = ?peer_id, %error, "dial failed");
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.metrics.inbound_failed.add();
                tracing::debug!(from = %send_back_addr, error = chain(&error), "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if let Some(addr) = self.listeners.get(&listener_id) {
                    self.starting.remove(addr);
                }
                if self.counts_as_external(&address) {
                    self.swarm.add_external_address(address.clone());
                }
                self.emit(MeshEvent::Listening { addr: address });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listen_expired(address);
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                let addr = self.listener_closed(listener_id);
                for address in &addresses {
                    self.listen_expired(address.clone());
                }
                if let Err(error) = reason {
                    if let Some(addr) = addr.filter(|addr| self.starting.contains(addr)) {
                        self.start_error = Some(transport::listen_error(&addr, &error));
                    }
                    self.emit(MeshEvent::ListenerFailed { addrs: addresses, reason: chain(&error) });
                }
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::debug!(error = chain(&error), "listener error");
            }
            // Seen through a relay, we have a peer id and no address.
            SwarmEvent::NewExternalAddrCandidate { address } if address::socket_of(&address).is_none() => {}
            SwarmEvent::NewExternalAddrCandidate { address } => self.observed.candidate(address),
            SwarmEvent::ExternalAddrConfirmed { address } => {
                // A neighbour on the same network proves nothing to the rest of the world.
                let given = self.config.external.iter().any(|addr| address::without_peer(addr) == address);
                if self.config.global_only() && !given && !dagmesh_announce::is_globally_reachable(&address) {
                    self.swarm.remove_external_address(&address);
                } else {
                    self.emit(MeshEvent::ExternalAddrConfirmed { addr: address });
                }
            }
            SwarmEvent::ExternalAddrExpired { address } => {
                self.observed.expired(&address);
                self.emit(MeshEvent::ExternalAddrExpired { addr: address });
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &libp2p::core::ConnectedPoint) {
        self.metrics.connections_opened.add();
        self.rejoin.connected();
        self.contest_won(&peer);
        let first = self.peers.opened(peer, id, endpoint, Instant::now());
        self.metrics.peers.store(self.peers.count(), Ordering::Relaxed);
        let addr = endpoint.get_remote_address().clone();
        if endpoint.is_dialer() {
            self.swarm.behaviour_mut().book.add_trusted(peer, addr.clone());
        }
        // Whoever waits for this peer has it, over whichever connection.
        let waiting: Vec<_> =
            self.dials.extract_if(|dial_id, dial| *dial_id == id || dial.peer == Some(peer)).collect();
        for (_, dial) in waiting {
            if let Some(given) = dial.given {
                self.swarm.behaviour_mut().book.add_trusted(peer, given);
            }
            let _caller_has_gone = dial.reply.send(Ok(peer));
        }
        if first {
            // A listener at a relay cannot begin while the relay is being dialled for another reason.
            let now = Instant::now();
            for (_, due) in self.relays.iter_mut().filter(|(addr, _)| address::relay_of(addr) == Some(peer)) {
                *due = now;
            }
            self.listen_at_relays(now);
            let direction = if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
            self.emit(MeshEvent::PeerConnected { peer, addr, direction });
        }
    }

    /// No router stands between the peers of a network of one's own: what is listened on can be dialled. In tests of
    /// reachability that is left to be proven.
    fn counts_as_external(&self, address: &Multiaddr) -> bool {
        match self.config.profile {
            Profile::Public => false,
            Profile::Lan | Profile::Private => !address::is_loopback(address) && !address::is_link_local(address),
            Profile::Test => !self.config.autonat,
        }
    }

    fn listen_expired(&mut self, address: Multiaddr) {
        if self.config.profile != Profile::Public && !self.config.external.contains(&address) {
            self.swarm.remove_external_address(&address);
        }
        self.emit(MeshEvent::ListenExpired { addr: address });
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, connection_id, info }) => {
                self.on_identified(peer_id, connection_id, info);
            }
            BehaviourEvent::Ping(event) => {
                if let Ok(rtt) = event.result {
                    self.peers.pinged(&event.peer, rtt);
                }
            }
            BehaviourEvent::AutonatClient(autonat::v2::client::Event { tested_addr, server, result, .. })
                if address::socket_of(&tested_addr).is_some() =>
            {
                let error = result.err().map(|error| error.to_string());
                if self.observed.tested(tested_addr.clone(), server, SystemTime::now(), error.clone()) {
                    self.swarm.remove_external_address(&address::without_peer(&tested_addr));
                }
                self.emit(MeshEvent::AddressTested { addr: tested_addr, by: server, error });
            }
            BehaviourEvent::AutonatV1(autonat::Event::OutboundProbe(event)) => self.on_probe(event),
            BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                renewal: false,
                ..
            }) => self.emit(MeshEvent::RelayReserved { relay: relay_peer_id }),
            BehaviourEvent::Dcutr(event) => {
                let error = event.result.err().map(|error| chain(&error));
                self.emit(MeshEvent::HolePunched { peer: event.remote_peer_id, error });
            }
            BehaviourEvent::Upnp(upnp::Event::GatewayNotFound) => {
                self.observed.no_gateway("The router offers no port mapping (UPnP).");
            }
            BehaviourEvent::Upnp(upnp::Event::NonRoutableGateway) => {
                self.observed.no_gateway("The router has no public address itself, so a port mapping does not help.");
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, addr) in found {
                    if peer != *self.swarm.local_peer_id() && !self.swarm.is_connected(&peer) {
                        self.swarm.behaviour_mut().book.add(peer, addr.clone());
                        self.dial_quietly(peer, vec![addr]);
                    }
                }
            }
            _ => {}
        }
    }

    /// What a peer says by AutoNAT v1.
    fn on_probe(&mut self, event: autonat::OutboundProbeEvent) {
        use autonat::{OutboundProbeError, OutboundProbeEvent, ResponseError};
        let now = SystemTime::now();
        match event {
            OutboundProbeEvent::Response { peer, address, .. } => {
                let addr = address::without_peer(&address);
                let listening = self.swarm.listeners().any(|it| address::without_peer(it) == addr);
                let global = !self.config.global_only() || dagmesh_announce::is_globally_reachable(&addr);
                let known = self.swarm.external_addresses().any(|it| address::without_peer(it) == addr);
                if global && !known && self.observed.vouched(&addr, peer, now, listening) {
                    self.swarm.add_external_address(addr.clone());
                    self.emit(MeshEvent::AddressTested { addr: addr.clone(), by: peer, error: None });
                    self.emit(MeshEvent::ExternalAddrConfirmed { addr });
                }
            }
            OutboundProbeEvent::Error {
                peer: Some(peer),
                error: OutboundProbeError::Response(ResponseError::DialError),
                ..
            } => self.observed.doubted(peer, now),
            OutboundProbeEvent::Request { .. } | OutboundProbeEvent::Error { .. } => {}
        }
    }

    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let behaviour = self.swarm.behaviour_mut();
        if let Some(autonat) = behaviour.autonat_v1.as_mut() {
            autonat.identified(peer, connection, &info.protocols, &info.listen_addrs);
        }
        let mut addrs: Vec<Multiaddr> =
            info.listen_addrs.iter().filter(|addr| behaviour.book.accepts(addr)).cloned().collect();
        addrs.truncate(limits::MAX_ADDRS_PER_PEER);
        let serves_dht = info.protocols.iter().any(|it| behaviour.kad.protocol_names().contains(it));
        for addr in &addrs {
            behaviour.book.add(peer, addr.clone());
        }
        if serves_dht {
            self.admit(peer, addrs.clone());
        } else {
            // A peer that serves no longer is of no use to others either.
            behaviour.kad.remove_peer(&peer);
        }
        if self.peers.identified(peer, &info.protocols, &info.agent_version, &addrs)
            && let Some((protocols, agent)) = self.peers.identity(&peer)
        {
            self.emit(MeshEvent::PeerIdentified { peer, protocols, agent });
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let acceptance = if message.data.len() > limits::MAX_GOSSIP_BYTES {
                    // Peers with other limits pass it on in good faith.
                    self.metrics.gossip_ignored.add();
                    Some(MessageAcceptance::Ignore)
                } else if self.holding.contains_key(&message.topic) {
                    self.hold(propagation_source, &message_id, message)
                } else {
                    Some(self.validate(propagation_source, message))
                };
                if let Some(acceptance) = acceptance {
                    let gossip = &mut self.swarm.behaviour_mut().gossip;
                    gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
                }
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                self.emit(MeshEvent::TopicJoined { peer: peer_id, topic: topic.into_string() });
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.emit(MeshEvent::TopicLeft { peer: peer_id, topic: topic.into_string() });
            }
            gossipsub::Event::GossipsubNotSupported { .. } | gossipsub::Event::SlowPeer { .. } => {}
        }
    }

    /// Decides over a message and hands it on. What finds no room is ignored: a full queue is no fault of the sender.
    fn validate(&mut self, source: PeerId, message: gossipsub::Message) -> MessageAcceptance {
        let Ok(place) = self.gossip_out.try_reserve() else {
            self.metrics.gossip_overflow.add();
            return MessageAcceptance::Ignore;
        };
        let acceptance = self.validator.validate(Instant::now(), source, &message);
        if acceptance == MessageAcceptance::Accept {
            let gossipsub::Message { source: author, data, topic, .. } = message;
            place.send(GossipMessage { topic: topic.into_string(), author, propagation: source, data });
        }
        self.count(acceptance);
        acceptance
    }

    fn count(&self, acceptance: MessageAcceptance) {
        match acceptance {
            MessageAcceptance::Accept => self.metrics.gossip_accepted.add(),
            MessageAcceptance::Ignore => self.metrics.gossip_ignored.add(),
            MessageAcceptance::Reject => self.metrics.gossip_rejected.add(),
        }
    }

    /// Hands a message to whoever judges its topic. What finds no room there is ignored, as above.
    fn hold(
        &mut self,
        neighbour: PeerId,
        id: &gossipsub::MessageId,
        message: gossipsub::Message,
    ) -> Option<MessageAcceptance> {
        let holding = self.holding.get_mut(&message.topic)?;
        let Some(author) = message.source else {
            self.metrics.gossip_rejected.add();
            return Some(MessageAcceptance::Reject);
        };
        let sent = holding.room(neighbour, message.data.len()).and_then(|room| {
            let held = Held { id: id.clone(), neighbour, since: Instant::now(), _room: room };
            holding.queue.try_send(HeldMessage { author, neighbour, data: message.data, held }).ok()
        });
        if sent.is_none() {
            self.metrics.gossip_overflow.add();
            return Some(MessageAcceptance::Ignore);
        }
        None
    }

    /// The verdict on a message that was held.
    pub(super) fn judge(&mut self, held: Held, acceptance: MessageAcceptance) {
        if held.since.elapsed() > Duration::from_millis(limits::GROUP_VERDICT_MS) {
            return self.metrics.gossip_late.add();
        }
        self.count(acceptance);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(&held.id, &held.neighbour, acceptance);
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, stats, step } => {
                self.on_query(id, result, stats.num_successes() > 0, step.last);
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => self.queries.new_peer(Instant::now()),
            kad::Event::ModeChanged { new_mode } => {
                self.emit(MeshEvent::KadServing { serving: new_mode == kad::Mode::Server });
            }
            _ => {}
        }
    }

    fn on_query(&mut self, id: QueryId, result: QueryResult, reached: bool, last: bool) {
        let put = matches!(result, QueryResult::PutRecord(Ok(_)));
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                self.on_providers(id, providers);
            }
            QueryResult::GetClosestPeers(result) => {
                let peers = match result {
                    Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                self.on_closest(id, peers);
            }
            QueryResult::GetRecord(Ok(found)) => self.on_record(id, found),
            QueryResult::GetRecord(Err(GetRecordError::NotFound { closest_peers, .. })) => {
                if let Some(Query::Records { found, .. }) = self.queries.get_mut(&id) {
                    found.without = closest_peers;
                }
            }
            QueryResult::StartProviding(result) | QueryResult::RepublishProvider(result) => {
                let key = match &result {
                    Ok(done) => done.key.to_vec(),
                    Err(error) => error.key().to_vec(),
                };
                // It may have been withdrawn meanwhile; then it is not to come back.
                if self.swarm.behaviour_mut().kad.store_mut().provides(&key) {
                    self.queries.published(&key, reached);
                }
            }
            _ => {}
        }
        if !last {
            return;
        }
        match self.queries.remove(&id) {
            Some(Query::FindPeer { peer, tried, reply }) => {
                let addrs = untried(self.known_addrs(peer), &tried);
                let _caller_has_gone = reply.send(Ok(addrs));
            }
            Some(Query::Providers(Providers { found, reply, .. })) => {
                let _caller_has_gone = reply.send(Ok(found));
            }
            Some(Query::Provide { reply }) => {
                let provided = if reached { Provided::Published } else { Provided::Waiting };
                let _caller_has_gone = reply.send(Ok(provided));
            }
            // A walk begins with the closest that are known, and is over where all of these have gone: those who come
            // next stand in the routing table, and the dead no longer.
            Some(Query::Closest(search)) if search.found.is_empty() && search.retries > 0 && self.knows_dht() => {
                self.walk(Closest { retries: search.retries - 1, ..search });
            }
            Some(Query::Closest(Closest { found, reply, .. })) => {
                let _caller_has_gone = reply.send(Ok(found));
            }
            Some(Query::PutRecord { reply }) => {
                let _caller_has_gone = reply.send(Ok(put));
            }
            Some(Query::Records { found, reply }) => {
                let _caller_has_gone = reply.send(Ok(found));
            }
            Some(Query::Bootstrap { reply }) => {
                let result = if reached { Ok(()) } else { Err(SwarmError::NoPeers { what: "joining the DHT" }) };
                let _caller_has_gone = reply.send(result);
            }
            None => {}
        }
    }

    /// Whether the routing table has anybody.
    fn knows_dht(&mut self) -> bool {
        self.swarm.behaviour_mut().kad.kbuckets().next().is_some()
    }

    fn on_closest(&mut self, id: QueryId, peers: Vec<kad::PeerInfo>) {
        let Some(Query::Closest(search)) = self.queries.get_mut(&id) else { return };
        let local = *self.swarm.local_peer_id();
        let others = peers.into_iter().filter(|info| info.peer_id != local).take(search.count);
        for kad::PeerInfo { peer_id, addrs } in others {
            search.found.push(peer_id);
            // They are known only while the query runs: keep them for the dial that follows.
            addrs.into_iter().for_each(|addr| self.swarm.behaviour_mut().book.add(peer_id, addr));
        }
    }

    fn on_record(&mut self, id: QueryId, ok: GetRecordOk) {
        let Some(Query::Records { found, .. }) = self.queries.get_mut(&id) else { return };
        match ok {
            // One without a peer is our own.
            GetRecordOk::FoundRecord(kad::PeerRecord { peer: None, .. }) => {}
            GetRecordOk::FoundRecord(kad::PeerRecord { peer: Some(peer), record }) => {
                found.found.push((peer, record.value));
                if found.found.len() >= limits::MAX_RECORD_PEERS {
                    self.finish(id);
                }
            }
            GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates } => {
                found.without = cache_candidates.into_values().collect();
            }
        }
    }

    fn on_providers(&mut self, id: QueryId, providers: impl IntoIterator<Item = PeerId>) {
        let local = *self.swarm.local_peer_id();
        let providers: Vec<_> = providers.into_iter().filter(|peer| *peer != local).collect();
        // Their addresses are known only while the query runs: keep them for the dial that follows.
        for peer in &providers {
            for addr in self.known_addrs(*peer) {
                self.swarm.behaviour_mut().book.add(*peer, addr);
            }
        }
        let Some(Query::Providers(search)) = self.queries.get_mut(&id) else { return };
        if search.add(providers)
            && let Some(Query::Providers(Providers { found, reply, .. })) = self.queries.remove(&id)
        {
            self.finish(id);
            let _caller_has_gone = reply.send(Ok(found));
        }
    }
}
