use std::time::{Duration, Instant};

use dagmesh_core::limits;
use libp2p::gossipsub::{self, IdentTopic, TopicHash};
use libp2p::kad::{Quorum, Record, RecordKey};
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::address;
use super::command::{Command, Target};
use super::error::{DialAttempt, PublishError, SwarmError, chain};
use super::event::{FoundRecords, PeerInfo, Provided};
use super::kademlia::kad_mode;
use super::queries::{Closest, Providers, Query};
use super::topics;
use super::worker::{Dial, Holding, Worker};

/// How often a search for the closest peers begins anew where all that it began with have gone.
const WALK_RETRIES: usize = 3;

/// Answers a caller; one that has gone needs no answer.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _caller_has_gone = reply.send(value);
}

impl Worker {
    pub(super) fn on_command(&mut self, command: Command) {
        self.metrics.commands.add();
        match command {
            Command::ListenAddrs(reply) => answer(reply, self.swarm.listeners().cloned().collect()),
            Command::ExternalAddrs(reply) => answer(reply, self.swarm.external_addresses().cloned().collect()),
            Command::Dial { target, reply } => self.dial(target, reply),
            Command::Disconnect { peer, reply } => answer(reply, self.swarm.disconnect_peer_id(peer).is_ok()),
            Command::Peers(reply) => answer(reply, self.list_peers()),
            Command::Speaks { peer, protocol, reply } => answer(reply, self.peers.speaks(&peer, protocol.as_ref())),
            Command::AddAddress { peer, addr, reply } => {
                self.swarm.behaviour_mut().book.add_trusted(peer, addr);
                answer(reply, ());
            }
            Command::FindPeer { peer, tried, reply } => self.find_peer(peer, tried, reply),
            Command::Provide { key, reply } => self.provide(key, reply),
            Command::StopProviding { key, reply } => {
                self.queries.withdrawn(&key);
                self.swarm.behaviour_mut().kad.stop_providing(&RecordKey::from(key));
                answer(reply, ());
            }
            Command::FindProviders { key, limit, reply } => self.find_providers(key, limit, reply),
            Command::ClosestPeers { key, count, reply } => self.closest_peers(key, count, reply),
            Command::PutRecordTo { peer, key, value, reply } => {
                self.put_record_to(peer, Record::new(key, value), reply)
            }
            Command::FindRecords { key, reply } => self.find_records(key, reply),
            Command::Bootstrap(reply) => self.bootstrap(reply),
            Command::Subscribe { topic, holding, reply } => {
                let result = self.subscribe(&topic);
                if let (Ok(_), Some((queue, bytes))) = (&result, holding) {
                    self.holding.insert(TopicHash::from_raw(&topic), Holding::new(queue, bytes));
                }
                answer(reply, result);
            }
            Command::Judge { held, acceptance } => self.judge(held, acceptance),
            Command::Unsubscribe { topic, reply } => {
                self.holding.remove(&TopicHash::from_raw(&topic));
                answer(reply, self.swarm.behaviour_mut().gossip.unsubscribe(&IdentTopic::new(topic)));
            }
            Command::Publish { topic, data, reply } => {
                let result = self.publish(topic, data);
                answer(reply, result);
            }
            Command::MeshPeers { topic, reply } => {
                let topic = TopicHash::from_raw(topic);
                answer(reply, self.swarm.behaviour().gossip.mesh_peers(&topic).copied().collect());
            }
            Command::Reachability(reply) => {
                let (listen, external) = (self.swarm.listeners(), self.swarm.external_addresses());
                answer(reply, self.observed.report(listen, external, self.peers.count()));
            }
            Command::SetKadMode { mode, reply } => {
                self.swarm.behaviour_mut().kad.set_mode(kad_mode(mode));
                answer(reply, ());
            }
            Command::Protect { peer, keep, reply } => {
                let behaviour = self.swarm.behaviour_mut();
                behaviour.protect.set(peer, keep);
                if keep {
                    behaviour.limits.bypass_peer_id(&peer);
                } else {
                    behaviour.limits.remove_peer_id(&peer);
                }
                answer(reply, ());
            }
            Command::Ban { peer, banned, reply } => {
                let bans = &mut self.swarm.behaviour_mut().bans;
                let _changed = if banned { bans.block_peer(peer) } else { bans.unblock_peer(peer) };
                answer(reply, ());
            }
            Command::AddExternal { addr, reply } => {
                let addr = address::without_peer(&addr);
                if !self.config.external.contains(&addr) {
                    self.config.external.push(addr.clone());
                }
                self.swarm.add_external_address(addr);
                answer(reply, ());
            }
        }
    }

    /// Dials without anybody waiting for it. Gives whether it was begun.
    pub(super) fn dial_quietly(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) -> bool {
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).addresses(addrs).build();
        let begun = self.swarm.dial(opts);
        if let Err(error) = &begun {
            tracing::debug!(%peer, %error, "not dialled");
        }
        begun.is_ok()
    }

    fn dial(&mut self, target: Target, reply: oneshot::Sender<Result<PeerId, SwarmError>>) {
        let (peer, name, given) = match &target {
            Target::Addr(addr) => (address::peer_of(addr), addr.to_string(), Some(addr.clone())),
            Target::Peer { peer, .. } => (Some(*peer), peer.to_string(), None),
        };
        if let Some(peer) = peer {
            if peer == *self.swarm.local_peer_id() {
                let addr = given.unwrap_or_else(|| Multiaddr::empty().with(libp2p::multiaddr::Protocol::P2p(peer)));
                return answer(reply, Err(SwarmError::OwnAddress { addr }));
            }
            if self.swarm.is_connected(&peer) {
                return answer(reply, Ok(peer));
            }
        }
        let opts = match (target, peer) {
            (Target::Addr(addr), Some(peer)) => {
                DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![addr]).build()
            }
            (Target::Addr(addr), None) => DialOpts::unknown_peer_id().address(addr).build(),
            (Target::Peer { peer, addrs }, _) if addrs.is_empty() => {
                DialOpts::peer_id(peer).condition(PeerCondition::Always).build()
            }
            (Target::Peer { peer, addrs }, _) => {
                DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addrs).build()
            }
        };
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dials.insert(id, Dial { peer, target: name, given, reply });
            }
            Err(error) => {
                self.metrics.dials_failed.add();
                let error = self.dial_error(name, peer, error);
                answer(reply, Err(error));
            }
        }
    }

    /// What a caller is told about a failed dial.
    pub(super) fn dial_error(&self, target: String, peer: Option<PeerId>, error: DialError) -> SwarmError {
        match error {
            DialError::NoAddresses => match peer {
                Some(peer) => SwarmError::NoAddress { peer, connected: self.peers.count() },
                None => SwarmError::Unreachable { target, tried: Vec::new() },
            },
            DialError::LocalPeerId { address } => SwarmError::OwnAddress { addr: address },
            DialError::WrongPeerId { obtained, address } => {
                let reason = format!("another peer answers there: {obtained}");
                SwarmError::Unreachable { target, tried: vec![DialAttempt { addr: address, reason }] }
            }
            DialError::Denied { cause } => SwarmError::Denied { target, reason: chain(&cause) },
            DialError::Transport(errors) => {
                let tried = errors.into_iter().map(|(addr, error)| DialAttempt { addr, reason: chain(&error) });
                SwarmError::Unreachable { target, tried: tried.collect() }
            }
            DialError::Aborted | DialError::DialPeerConditionFalse(_) => {
                SwarmError::Denied { target, reason: "the attempt was given up".to_owned() }
            }
        }
    }

    fn list_peers(&self) -> Vec<PeerInfo> {
        let behaviour = self.swarm.behaviour();
        let topics: std::collections::HashMap<_, _> = behaviour.gossip.all_peers().collect();
        self.peers.list(Instant::now(), |info| {
            info.protected = behaviour.protect.contains(&info.peer);
            if let Some(topics) = topics.get(&info.peer) {
                info.topics = topics.iter().map(|topic| topic.to_string()).collect();
                info.topics.sort_unstable();
            }
        })
    }

    fn find_peer(
        &mut self,
        peer: PeerId,
        tried: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<Vec<Multiaddr>, SwarmError>>,
    ) {
        let known = untried(self.known_addrs(peer), &tried);
        if !known.is_empty() {
            return answer(reply, Ok(known));
        }
        if let Err(error) = self.queries.check_room("finding a peer") {
            return answer(reply, Err(error));
        }
        let id = self.swarm.behaviour_mut().kad.get_closest_peers(peer);
        self.queries.insert(id, Query::FindPeer { peer, tried, reply });
    }

    fn provide(&mut self, key: Vec<u8>, reply: oneshot::Sender<Result<Provided, SwarmError>>) {
        let result = self.queries.check_room("providing").and_then(|()| {
            let started = self.swarm.behaviour_mut().kad.start_providing(RecordKey::from(key.clone()));
            started.map_err(|error| SwarmError::Provide {
                key: data_encoding::HEXLOWER.encode(&key),
                reason: chain(&error),
            })
        });
        match result {
            Ok(id) => self.queries.insert(id, Query::Provide { reply }),
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn find_providers(&mut self, key: Vec<u8>, limit: usize, reply: oneshot::Sender<Result<Vec<PeerId>, SwarmError>>) {
        if limit == 0 {
            return answer(reply, Ok(Vec::new()));
        }
        if let Err(error) = self.queries.check_room("finding providers") {
            return answer(reply, Err(error));
        }
        let until = Instant::now() + Duration::from_secs(limits::QUERY_TIMEOUT_SECS);
        let id = self.swarm.behaviour_mut().kad.get_providers(RecordKey::from(key));
        self.queries.insert(id, Query::Providers(Providers { found: Vec::new(), limit, until, reply }));
    }

    fn closest_peers(&mut self, key: Vec<u8>, count: usize, reply: oneshot::Sender<Result<Vec<PeerId>, SwarmError>>) {
        if let Err(error) = self.queries.check_room("finding the closest peers") {
            return answer(reply, Err(error));
        }
        self.walk(Closest { key, retries: WALK_RETRIES, found: Vec::new(), count, reply });
    }

    /// Begins a search, or begins it anew.
    pub(super) fn walk(&mut self, search: Closest) {
        let id = self.swarm.behaviour_mut().kad.get_closest_peers(search.key.clone());
        self.queries.insert(id, Query::Closest(search));
    }

    fn put_record_to(&mut self, peer: PeerId, record: Record, reply: oneshot::Sender<Result<bool, SwarmError>>) {
        if let Err(error) = self.queries.check_room("putting a record") {
            return answer(reply, Err(error));
        }
        let id = self.swarm.behaviour_mut().kad.put_record_to(record, [peer].into_iter(), Quorum::One);
        self.queries.insert(id, Query::PutRecord { reply });
    }

    fn find_records(&mut self, key: Vec<u8>, reply: oneshot::Sender<Result<FoundRecords, SwarmError>>) {
        if let Err(error) = self.queries.check_room("finding records") {
            return answer(reply, Err(error));
        }
        let id = self.swarm.behaviour_mut().kad.get_record(RecordKey::from(key));
        self.queries.insert(id, Query::Records { found: FoundRecords::default(), reply });
    }

    fn bootstrap(&mut self, reply: oneshot::Sender<Result<(), SwarmError>>) {
        let result = self.queries.check_room("joining the DHT").and_then(|()| {
            let started = self.swarm.behaviour_mut().kad.bootstrap();
            started.map_err(|_| SwarmError::NoPeers { what: "joining the DHT" })
        });
        match result {
            Ok(id) => self.queries.insert(id, Query::Bootstrap { reply }),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// Gives up queries whose caller has gone, answers those whose time is over, and those for a peer of which an
    /// address has come up.
    pub(super) fn end_queries(&mut self, now: Instant) {
        for (id, query) in self.queries.take_over(now) {
            self.finish(id);
            if let Query::Providers(Providers { found, reply, .. }) = query {
                answer(reply, Ok(found));
            }
        }
        for (id, peer, tried) in self.queries.peer_searches() {
            let addrs = untried(self.known_addrs(peer), &tried);
            if !addrs.is_empty()
                && let Some(Query::FindPeer { reply, .. }) = self.queries.remove(&id)
            {
                self.finish(id);
                answer(reply, Ok(addrs));
            }
        }
    }

    /// Publishes provider records that have reached nobody so far.
    pub(super) fn publish_waiting(&mut self, now: Instant) {
        for key in self.queries.due_keys(now) {
            if let Err(error) = self.swarm.behaviour_mut().kad.start_providing(RecordKey::from(key)) {
                tracing::debug!(%error, "provider record not published again");
            }
        }
    }

    pub(super) fn finish(&mut self, id: libp2p::kad::QueryId) {
        if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
            query.finish();
        }
    }

    fn subscribe(&mut self, topic: &str) -> Result<bool, SwarmError> {
        let refuse = |reason: String| Err(SwarmError::Topic { topic: topic.to_owned(), reason });
        if !topics::filter(&self.config).allows(topic) {
            return refuse(self.topic_rule());
        }
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        let name = IdentTopic::new(topic);
        if gossip.topics().all(|held| *held != name.hash()) && gossip.topics().count() >= self.config.max_topics {
            return refuse(format!("{} topics are subscribed to, the most there may be", self.config.max_topics));
        }
        let news = gossip.subscribe(&name).or_else(|error| refuse(error.to_string()))?;
        if news && let Err(error) = gossip.set_topic_params(name, topics::topic_score()) {
            tracing::warn!(topic, error, "peers are not scored on this topic");
        }
        Ok(news)
    }

    fn publish(&mut self, topic: String, data: Vec<u8>) -> Result<usize, PublishError> {
        let (bytes, limit, connected) = (data.len(), limits::MAX_GOSSIP_CONTENT_BYTES, self.peers.count());
        if !topics::filter(&self.config).allows(&topic) {
            return Err(PublishError::Topic { topic, reason: self.topic_rule() });
        }
        if bytes > limit {
            return Err(PublishError::TooLarge { topic, bytes, limit });
        }
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        let hash = TopicHash::from_raw(topic.as_str());
        match gossip.publish(hash.clone(), data) {
            Ok(_) => {
                self.metrics.gossip_published.add();
                Ok(gossip.all_peers().filter(|(_, topics)| topics.contains(&&hash)).count())
            }
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Err(PublishError::NoPeers { topic, connected }),
            Err(gossipsub::PublishError::Duplicate) => Err(PublishError::Duplicate { topic }),
            Err(gossipsub::PublishError::AllQueuesFull(peers)) => {
                Err(PublishError::Failed { topic, reason: format!("the queues to all {peers} peers are full") })
            }
            Err(error) => Err(PublishError::Failed { topic, reason: chain(&error) }),
        }
    }

    fn topic_rule(&self) -> String {
        let prefixes = self.config.topic_prefixes.join(", ");
        format!("topics here begin with one of: {prefixes}; and have at most {} bytes", limits::MAX_TOPIC_BYTES)
    }
}

/// The addresses that are not among those tried in vain.
pub(super) fn untried(mut addrs: Vec<Multiaddr>, tried: &[Multiaddr]) -> Vec<Multiaddr> {
    let tried: Vec<_> = tried.iter().map(address::without_peer).collect();
    addrs.retain(|addr| !tried.contains(&address::without_peer(addr)));
    addrs
}
