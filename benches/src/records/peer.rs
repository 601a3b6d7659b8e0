//! A peer with nothing but Kademlia and records, over memory.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use dagmesh_core::{Machine, limits};
use dagmesh_records::{Answer, Bans, Effect, Input, Store, StoreConfig, net, serve};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport as _,
    core::{transport::MemoryTransport, upgrade::Version},
    identify,
    identity::Keypair,
    kad::{self, KBucketKey, store::MemoryStore},
    noise,
    swarm::{Config, DialError, NetworkBehaviour, SwarmEvent},
    yamux,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::trace::Trace;

const KAD: StreamProtocol = StreamProtocol::new("/dagmesh/bench/kad/1.0.0");
/// How long a connection stays open that nobody uses: it keeps memory in bounds.
const IDLE: Duration = Duration::from_secs(20);
/// Walks to random places with which a newcomer fills its routing table. A node refreshes each bucket of it, about log2 of
/// the peers: with 1,000 peers in one process that takes most of an hour.
const JOIN_WALKS: usize = 3;
/// As the node has it: so often a walk begins anew where all whom it began with are gone.
const WALK_RETRIES: usize = 3;

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: libp2p_stream::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

enum Command {
    /// Takes these into the routing table and walks the DHT: to its own place, then to some others.
    Join { known: Vec<(PeerId, Multiaddr)>, reply: oneshot::Sender<()> },
    /// The peers closest to a key.
    Closest { key: Vec<u8>, reply: oneshot::Sender<Vec<PeerId>> },
}

/// A peer that runs until it is dropped.
pub(super) struct Peer {
    pub(super) key: Keypair,
    pub(super) id: PeerId,
    pub(super) addr: Multiaddr,
    commands: mpsc::Sender<Command>,
    streams: libp2p_stream::Control,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Peer {
    /// Listens in memory, and serves records.
    pub(super) async fn start(key: Keypair, seed: u64, trace: Arc<Trace>) -> Result<Self> {
        let id = key.public().to_peer_id();
        let mut swarm = swarm(&key)?;
        swarm.listen_on("/memory/0".parse()?)?;
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let mut streams = swarm.behaviour().streams.new_control();
        let incoming = streams.accept(net::PROTOCOL)?;
        let book = Arc::new(Mutex::new((Store::new(StoreConfig::new(id, seed)), Bans::new())));
        let (commands, received) = mpsc::channel(16);
        let tasks = [
            tokio::spawn(Running { swarm, trace, joining: None, walks: HashMap::new() }.run(received)),
            tokio::spawn(net::serve_on(incoming, move |peer, request| {
                let (store, bans) = &mut *book.lock().unwrap_or_else(PoisonError::into_inner);
                let served = serve(store, bans, unix_ms(), peer, &request);
                // Nothing is written to a disk here.
                while store.poll_effect().is_some() {}
                std::future::ready(Some(served.answer))
            })),
        ];
        Ok(Self { key, id, addr, commands, streams, tasks })
    }

    /// Joins a mesh through peers that are in it.
    pub(super) async fn join(&self, known: Vec<(PeerId, Multiaddr)>) -> Result<()> {
        let (reply, joined) = oneshot::channel();
        self.commands.send(Command::Join { known, reply }).await.ok().context("the peer has stopped")?;
        joined.await.context("the peer has stopped")
    }

    /// Runs a put or a get to its result, and tells `seen` of each answer. What would come after the result does not.
    pub(super) async fn drive<M, T>(&self, mut machine: M, mut seen: impl FnMut(&PeerId, &Answer)) -> Result<T>
    where
        M: Machine<Input = Input, Effect = Effect<T>>,
    {
        let mut calls = FuturesUnordered::<BoxFuture<'_, Input>>::new();
        loop {
            while let Some(effect) = machine.poll_effect() {
                match effect {
                    Effect::FindClosest(key) => calls.push(self.closest(key).map(Input::Closest).boxed()),
                    Effect::Send { peer, request } => {
                        let mut streams = self.streams.clone();
                        calls.push(Box::pin(async move {
                            match net::ask(&mut streams, peer, &request).await {
                                Ok(answer) => Input::Answered { peer, answer },
                                Err(_) => Input::Failed(peer),
                            }
                        }));
                    }
                    Effect::Result(result) => return Ok(result),
                    Effect::Newer(_) | Effect::Fault(_) | Effect::Done => {}
                }
            }
            let due = machine.poll_timeout().context("a machine that does not end")?;
            tokio::select! {
                Some(input) = calls.next() => {
                    if let Input::Answered { peer, answer } = &input {
                        seen(peer, answer);
                    }
                    machine.handle(Instant::now(), input);
                }
                () = tokio::time::sleep_until(due.into()) => machine.handle_timeout(Instant::now()),
            }
        }
    }

    async fn closest(&self, key: Vec<u8>) -> Vec<PeerId> {
        let (reply, found) = oneshot::channel();
        let _stopped = self.commands.send(Command::Closest { key, reply }).await;
        found.await.unwrap_or_default()
    }
}

/// A peer's Swarm, and what it was told to do.
struct Running {
    swarm: Swarm<Behaviour>,
    trace: Arc<Trace>,
    joining: Option<Joining>,
    walks: HashMap<kad::QueryId, Walk>,
}

struct Joining {
    queries: HashSet<kad::QueryId>,
    /// Walks that come then.
    left: usize,
    reply: oneshot::Sender<()>,
}

struct Walk {
    key: Vec<u8>,
    retries: usize,
    reply: oneshot::Sender<Vec<PeerId>>,
}

impl Running {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Join { known, reply }) => self.join(known, reply),
                    Some(Command::Closest { key, reply }) => self.walk(Walk { key, retries: WALK_RETRIES, reply }),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
    }

    fn join(&mut self, known: Vec<(PeerId, Multiaddr)>, reply: oneshot::Sender<()>) {
        let local = *self.swarm.local_peer_id();
        let kad = &mut self.swarm.behaviour_mut().kad;
        for (peer, addr) in known {
            kad.add_address(&peer, addr);
        }
        let own = kad.get_closest_peers(local);
        self.joining = Some(Joining { queries: [own].into(), left: JOIN_WALKS, reply });
    }

    /// A query has ended: if it was the last of those with which we join, the next ones follow.
    fn joined(&mut self, query: kad::QueryId) {
        let Some(joining) = &mut self.joining else { return };
        if !joining.queries.remove(&query) || !joining.queries.is_empty() {
            return;
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        let left = std::mem::take(&mut joining.left);
        joining.queries.extend((0..left).map(|_| kad.get_closest_peers(PeerId::random())));
        if joining.queries.is_empty()
            && let Some(joining) = self.joining.take()
        {
            let _has_gone = joining.reply.send(());
        }
    }

    fn walk(&mut self, walk: Walk) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let key = KBucketKey::new(walk.key.clone());
        let known: Vec<_> = kad.get_closest_local_peers(&key).take(kad::K_VALUE.get()).collect();
        self.trace.known(known.into_iter().map(KBucketKey::into_preimage));
        let id = kad.get_closest_peers(walk.key.clone());
        self.walks.insert(id, walk);
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let local = *self.swarm.local_peer_id();
        let kad = &mut self.swarm.behaviour_mut().kad;
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }))
                if !self.trace.is_frozen() && info.protocols.contains(&KAD) =>
            {
                // A full bucket would dial its oldest peer, find it alive, and keep it: nobody dies while the mesh grows.
                let full = kad.kbucket(peer_id).is_some_and(|bucket| bucket.num_entries() >= kad::K_VALUE.get());
                for addr in info.listen_addrs.into_iter().filter(|_| !full) {
                    kad.add_address(&peer_id, addr);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::InboundRequest {
                request: kad::InboundRequest::FindNode { .. },
            })) => {
                if let Some((key, asking)) = self.trace.running() {
                    let key = KBucketKey::new(key);
                    let told = kad.find_closest_local_peers(&key, &asking).map(|peer| peer.node_id).collect();
                    self.trace.told(local, told);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                step,
                ..
            })) if step.last => {
                self.joined(id);
                if let (Some(walk), kad::QueryResult::GetClosestPeers(result)) = (self.walks.remove(&id), result) {
                    let peers = result.map_or_else(
                        |kad::GetClosestPeersError::Timeout { peers, .. }| peers,
                        |kad::GetClosestPeersOk { peers, .. }| peers,
                    );
                    self.walked(
                        walk,
                        peers.into_iter().map(|info| info.peer_id).filter(|peer| *peer != local).collect(),
                    );
                }
            }
            // As in the node: who cannot be reached leaves the routing table.
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error: DialError::Transport(_), .. }
                if !self.swarm.is_connected(&peer) =>
            {
                self.swarm.behaviour_mut().kad.remove_peer(&peer);
            }
            _ => {}
        }
    }

    fn walked(&mut self, walk: Walk, found: Vec<PeerId>) {
        let Walk { key, retries, reply } = walk;
        if found.is_empty() && retries > 0 && self.swarm.behaviour_mut().kad.kbuckets().next().is_some() {
            return self.walk(Walk { key, retries: retries - 1, reply });
        }
        let _has_gone = reply.send(found);
    }
}

fn swarm(key: &Keypair) -> Result<Swarm<Behaviour>> {
    let transport = MemoryTransport::new()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(yamux::Config::default())
        .boxed();
    let id = key.public().to_peer_id();
    let mut config = kad::Config::new(KAD);
    config
        .set_query_timeout(Duration::from_secs(limits::QUERY_TIMEOUT_SECS))
        .disjoint_query_paths(true)
        .set_replication_factor(NonZeroUsize::new(limits::DEFAULT_RECORD_REPLICAS).context("a number above 0")?)
        .set_periodic_bootstrap_interval(None)
        .set_kbucket_inserts(kad::BucketInserts::Manual);
    let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), config);
    kad.set_mode(Some(kad::Mode::Server));
    let identify = identify::Config::new("/dagmesh/bench/1.0.0".to_owned(), key.public());
    let behaviour =
        Behaviour { streams: libp2p_stream::Behaviour::new(), identify: identify::Behaviour::new(identify), kad };
    let config = Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE)
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    Ok(Swarm::new(transport, behaviour, id, config))
}

/// Now, in Unix milliseconds.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
