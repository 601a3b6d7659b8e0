use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dagmesh_core::limits;
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::TopicHash;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::address;
use super::behaviour::Behaviour;
use super::bootstrap::Rejoin;
use super::command::Command;
use super::config::SwarmConfig;
use super::error::SwarmError;
use super::event::{GossipMessage, GossipValidator, HeldMessage, KnownPeer, MeshEvent};
use super::metrics::Counters;
use super::peers::Peers;
use super::queries::Queries;
use super::reachability::Observed;
use super::transport;

/// How often the list of known peers is renewed, and expired DHT records are dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How long closing waits for connections to end in good order.
const CLOSING: Duration = Duration::from_secs(2);
/// How long after its end a listener at a relay is opened again.
const RELAY_RETRY: Duration = Duration::from_secs(30);

/// The only owner of the Swarm: one task that handles its events and the commands of the handles.
///
/// Nothing here waits for disk or for room in a channel.
pub(super) struct Worker {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) config: SwarmConfig,
    pub(super) validator: Box<dyn GossipValidator>,
    pub(super) gossip_out: mpsc::Sender<GossipMessage>,
    pub(super) metrics: Arc<Counters>,
    pub(super) peers: Peers,
    pub(super) queries: Queries,
    pub(super) observed: Observed,
    pub(super) rejoin: Rejoin,
    pub(super) dials: HashMap<ConnectionId, Dial>,
    /// Topics whose messages others judge.
    pub(super) holding: HashMap<TopicHash, Holding>,
    pub(super) listeners: HashMap<ListenerId, Multiaddr>,
    /// Listeners of which no address is known yet, while the swarm starts.
    pub(super) starting: BTreeSet<Multiaddr>,
    pub(super) start_error: Option<SwarmError>,
    /// Relays to listen at again, and when.
    pub(super) relays: Vec<(Multiaddr, Instant)>,
    command_queue: mpsc::Receiver<Command>,
    events: broadcast::Sender<MeshEvent>,
    known_out: watch::Sender<Arc<Vec<KnownPeer>>>,
    done_out: watch::Sender<bool>,
    stop: CancellationToken,
    housekeeping: Instant,
}

pub(super) struct Parts {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) config: SwarmConfig,
    pub(super) validator: Box<dyn GossipValidator>,
    pub(super) command_queue: mpsc::Receiver<Command>,
    pub(super) gossip_out: mpsc::Sender<GossipMessage>,
    pub(super) events: broadcast::Sender<MeshEvent>,
    pub(super) known_out: watch::Sender<Arc<Vec<KnownPeer>>>,
    pub(super) done_out: watch::Sender<bool>,
    pub(super) stop: CancellationToken,
    pub(super) metrics: Arc<Counters>,
}

/// A dial that a caller waits for.
pub(super) struct Dial {
    pub(super) peer: Option<PeerId>,
    pub(super) target: String,
    /// The address that the user gave, remembered once it works.
    pub(super) given: Option<Multiaddr>,
    pub(super) reply: oneshot::Sender<Result<PeerId, SwarmError>>,
}

/// Where the messages of one topic go to be judged.
pub(super) struct Holding {
    pub(super) queue: mpsc::Sender<HeldMessage>,
    /// The bytes that may wait.
    bytes: usize,
    /// Of those, what is left.
    room: Arc<Semaphore>,
    /// Of those, what each neighbour may still take: one that floods leaves room to the others.
    shares: HashMap<PeerId, Arc<Semaphore>>,
}

/// A held message's part of the room, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _of_all: OwnedSemaphorePermit,
    _of_neighbour: OwnedSemaphorePermit,
}

impl Holding {
    pub(super) fn new(queue: mpsc::Sender<HeldMessage>, bytes: usize) -> Self {
        Self { queue, bytes, room: Arc::new(Semaphore::new(bytes)), shares: HashMap::new() }
    }

    /// Room for a message of so many bytes from this neighbour, where there is any.
    pub(super) fn room(&mut self, neighbour: PeerId, bytes: usize) -> Option<Room> {
        // Small ones weigh more than their bytes, so that the queue has a place for all that fit.
        let bytes = u32::try_from(bytes.max(limits::HELD_MESSAGE_BYTES)).ok()?;
        let of_one = self.bytes / 2;
        self.shares.retain(|peer, share| *peer == neighbour || share.available_permits() < of_one);
        let share = self.shares.entry(neighbour).or_insert_with(|| Arc::new(Semaphore::new(of_one)));
        let _of_neighbour = Arc::clone(share).try_acquire_many_owned(bytes).ok()?;
        let _of_all = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()?;
        Some(Room { _of_all, _of_neighbour })
    }
}

impl Worker {
    pub(super) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        let Parts { mut swarm, config, validator, .. } = parts;
        for addr in &config.external {
            swarm.add_external_address(address::without_peer(addr));
        }
        let behaviour = swarm.behaviour_mut();
        for KnownPeer { peer, addrs } in &config.known_peers {
            addrs.iter().for_each(|addr| behaviour.book.add(*peer, addr.clone()));
        }
        for (peer, addr) in config.bootstrap_peers() {
            behaviour.book.add_trusted(peer, addr);
            // A small mesh stays joined through its bootstrap peers; those of the public network serve everybody.
            if !config.global_only() {
                behaviour.protect.set(peer, true);
            }
        }
        Self {
            swarm,
            validator,
            gossip_out: parts.gossip_out,
            metrics: parts.metrics,
            peers: Peers::with_known(&config.known_peers),
            queries: Queries::default(),
            observed: Observed::new(config.profile, config.autonat),
            rejoin: Rejoin::new(config.bootstrap_peers(), now),
            dials: HashMap::new(),
            holding: HashMap::new(),
            listeners: HashMap::new(),
            starting: BTreeSet::new(),
            start_error: None,
            relays: Vec::new(),
            command_queue: parts.command_queue,
            events: parts.events,
            known_out: parts.known_out,
            done_out: parts.done_out,
            stop: parts.stop,
            housekeeping: now + HOUSEKEEPING,
            config,
        }
    }

    /// Opens the listeners and waits until each has an address.
    pub(super) async fn listen(&mut self) -> Result<(), SwarmError> {
        transport::probe(&self.config.listen)?;
        let mut skipped = None;
        for addr in self.config.listen.clone() {
            if address::is_relayed(&addr) {
                self.relays.push((addr, Instant::now()));
                continue;
            }
            match self.swarm.listen_on(addr.clone()) {
                Ok(id) => {
                    self.listeners.insert(id, addr.clone());
                    self.starting.insert(addr);
                }
                Err(error) => {
                    let error = transport::listen_failure(error);
                    let ip = address::socket_of(&addr).map(|(ip, _)| ip);
                    if !ip.is_some_and(|ip| transport::is_missing_family(ip, &error)) {
                        return Err(transport::listen_error(&addr, &error));
                    }
                    tracing::info!(%addr, %error, "this machine has no IPv6: not listening there");
                    skipped = Some(transport::listen_error(&addr, &error));
                }
            }
        }
        if let Some(error) = skipped.filter(|_| self.listeners.is_empty()) {
            return Err(error);
        }
        let all_up = async {
            while !self.starting.is_empty() && self.start_error.is_none() {
                let event = self.swarm.select_next_some().await;
                self.on_event(event);
            }
        };
        // A listener on all addresses of a family that has none reports nothing; it goes on waiting for one.
        let late = timeout(Duration::from_secs(limits::LISTEN_TIMEOUT_SECS), all_up).await.is_err();
        if let Some(error) = self.start_error.take() {
            return Err(error);
        }
        if late {
            tracing::warn!(addrs = ?self.starting, "no address yet on these listeners");
            if let Some(addr) = self.starting.first().filter(|_| self.swarm.listeners().next().is_none()) {
                let reason = format!("no address within {} s", limits::LISTEN_TIMEOUT_SECS);
                let fix = "check the machine's network interfaces".to_owned();
                return Err(SwarmError::Listen { addr: addr.clone(), reason, fix });
            }
        }
        self.starting.clear();
        Ok(())
    }

    /// Runs until it is told to stop, or no handle is left.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        self.tick(Instant::now());
        loop {
            let wake = self.next_tick(Instant::now());
            tokio::select! {
                () = stop.cancelled() => break,
                command = self.command_queue.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                () = sleep_until(wake.into()) => self.tick(Instant::now()),
            }
        }
        self.close().await;
    }

    /// Tells every watcher; nobody watching is fine.
    pub(super) fn emit(&self, event: MeshEvent) {
        let _nobody_watches = self.events.send(event);
    }

    /// The addresses under which a peer could be dialled now: the book's, the routing table's, and those that a
    /// running query has brought up.
    pub(super) fn known_addrs(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        use libp2p::swarm::NetworkBehaviour;
        let behaviour = self.swarm.behaviour_mut();
        let mut addrs = behaviour.book.get(&peer);
        // libp2p-kad shows the addresses of running queries only to a dial about to begin; the question changes
        // nothing there.
        let dial = ConnectionId::new_unchecked(usize::MAX);
        let from_kad =
            behaviour.kad.handle_pending_outbound_connection(dial, Some(peer), &[], libp2p::core::Endpoint::Dialer);
        for addr in from_kad.unwrap_or_default() {
            if let Some(addr) = address::with_peer(addr, peer).filter(|addr| behaviour.book.accepts(addr))
                && !addrs.contains(&addr)
            {
                addrs.push(addr);
            }
        }
        addrs
    }

    fn next_tick(&self, now: Instant) -> Instant {
        let mut next = now + self.queries.pace();
        for due in [self.rejoin.due(), self.queries.publish_due()].into_iter().flatten() {
            next = next.min(due);
        }
        next
    }

    fn tick(&mut self, now: Instant) {
        self.end_queries(now);
        self.publish_waiting(now);
        let known = self.peers.known();
        for (peer, addrs) in self.rejoin.dials(&known, now) {
            self.dial_quietly(peer, addrs);
        }
        self.listen_at_relays(now);
        self.dials.retain(|_, dial| !dial.reply.is_closed());
        if now >= self.housekeeping {
            self.housekeeping = now + HOUSEKEEPING;
            self.swarm.behaviour_mut().kad.store_mut().sweep(now);
            if let Some(known) = self.peers.changed_known() {
                self.known_out.send_replace(Arc::new(known));
            }
        }
    }

    /// Opens the listeners at relays whose time has come.
    pub(super) fn listen_at_relays(&mut self, now: Instant) {
        let due: Vec<_> = self.relays.extract_if(.., |(_, at)| *at <= now).collect();
        for (addr, _) in due {
            match self.swarm.listen_on(addr.clone()) {
                Ok(id) => {
                    self.listeners.insert(id, addr);
                }
                Err(error) => {
                    tracing::warn!(%addr, %error, "cannot listen at this relay; trying again");
                    self.relays.push((addr, now + RELAY_RETRY));
                }
            }
        }
    }

    /// A listener has ended; at a relay it is opened again in a while.
    pub(super) fn listener_closed(&mut self, id: ListenerId) -> Option<Multiaddr> {
        let addr = self.listeners.remove(&id)?;
        if address::is_relayed(&addr) {
            self.relays.push((addr.clone(), Instant::now() + RELAY_RETRY));
        }
        Some(addr)
    }

    async fn close(self) {
        let Self { mut swarm, listeners, peers, known_out, done_out, events, command_queue, validator, .. } = self;
        // Commands not yet answered fail at once with "stopped".
        drop(command_queue);
        known_out.send_replace(Arc::new(peers.known()));
        for id in listeners.keys() {
            swarm.remove_listener(*id);
        }
        let connected: Vec<_> = swarm.connected_peers().copied().collect();
        for peer in connected {
            let _already_gone = swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while swarm.connected_peers().next().is_some() {
                if let SwarmEvent::ConnectionClosed { peer_id, .. } = swarm.select_next_some().await {
                    tracing::trace!(%peer_id, "closed");
                }
            }
        };
        if timeout(CLOSING, closed).await.is_err() {
            tracing::debug!("connections left open at the end");
        }
        drop(swarm);
        // It may hold whatever its owner put into it: whoever is told that this is done may count on that being free.
        drop(validator);
        let _nobody_watches = events.send(MeshEvent::Stopped);
        done_out.send_replace(true);
    }
}
