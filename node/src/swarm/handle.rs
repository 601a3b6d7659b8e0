use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dagmesh_core::limits;
use libp2p::gossipsub::MessageAcceptance;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::address;
use super::command::{Command, Target};
use super::config::KadMode;
use super::error::{PublishError, SwarmError};
use super::event::{FoundRecords, Held, HeldMessage, KnownPeer, MeshEvent, PeerInfo, Provided};
use super::metrics::{Counters, SwarmMetrics};
use super::reachability::ReachabilityReport;
use super::record_book::RecordBook;

const CALL: Duration = Duration::from_secs(limits::CALL_TIMEOUT_SECS);
const DIAL: Duration = Duration::from_secs(limits::DIAL_TIMEOUT_SECS);
const IDENTIFY: Duration = Duration::from_secs(limits::IDENTIFY_WAIT_SECS);
const QUERY: Duration = Duration::from_secs(limits::QUERY_TIMEOUT_SECS + 5);
/// A refused PUT is told after libp2p-kad's own time-out of 10 s.
const PUT: Duration = Duration::from_secs(limits::CALL_TIMEOUT_SECS + 5);
const SHUTDOWN: Duration = Duration::from_secs(limits::SHUTDOWN_SECS);

/// Asks the swarm's worker. Cheap to clone; the worker stops when the last clone is dropped.
///
/// Every async method has a deadline, after which it fails with [`SwarmError::Timeout`], and is cancel-safe: a
/// dropped call gives its work up and changes nothing else, except where its docs say more. Once the swarm has
/// stopped, each fails with [`SwarmError::Stopped`].
#[derive(Clone)]
pub struct SwarmHandle {
    peer: PeerId,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<MeshEvent>,
    known_peers: watch::Receiver<Arc<Vec<KnownPeer>>>,
    done: watch::Receiver<bool>,
    stop: CancellationToken,
    metrics: Arc<Counters>,
    streams: libp2p_stream::Control,
    records: RecordBook,
}

pub(super) struct Parts {
    pub(super) peer: PeerId,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: broadcast::Sender<MeshEvent>,
    pub(super) known_peers: watch::Receiver<Arc<Vec<KnownPeer>>>,
    pub(super) done: watch::Receiver<bool>,
    pub(super) stop: CancellationToken,
    pub(super) metrics: Arc<Counters>,
    pub(super) streams: libp2p_stream::Control,
    pub(super) records: RecordBook,
}

impl SwarmHandle {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { peer, commands, events, known_peers, done, stop, metrics, streams, records } = parts;
        Self { peer, commands, events, known_peers, done, stop, metrics, streams, records }
    }

    // ---- What it is ----

    /// The id of this node.
    #[must_use]
    pub fn local_peer_id(&self) -> PeerId {
        self.peer
    }

    /// The addresses listened on, without `/p2p/`.
    pub async fn listen_addrs(&self) -> Result<Vec<Multiaddr>, SwarmError> {
        self.call("listen addresses", CALL, Command::ListenAddrs).await
    }

    /// The addresses that reach this node from outside: proven by AutoNAT, mapped by UPnP, reserved at a relay, or
    /// configured; outside the public profile the listen addresses too. Without `/p2p/` unless relayed.
    pub async fn external_addrs(&self) -> Result<Vec<Multiaddr>, SwarmError> {
        self.call("external addresses", CALL, Command::ExternalAddrs).await
    }

    /// The addresses to tell others, each with `/p2p/<this node>`: the external ones, else the listen ones.
    pub async fn addrs(&self) -> Result<Vec<Multiaddr>, SwarmError> {
        let mut addrs = self.external_addrs().await?;
        if addrs.is_empty() {
            addrs = self.listen_addrs().await?;
        }
        Ok(addrs.into_iter().filter_map(|addr| address::with_peer(addr, self.peer)).collect())
    }

    /// Which own addresses peers can reach, and what to do where they cannot.
    pub async fn reachability(&self) -> Result<ReachabilityReport, SwarmError> {
        self.call("reachability", CALL, Command::Reachability).await
    }

    /// Adds an address that the operator knows to reach this node.
    pub async fn add_external_address(&self, addr: Multiaddr) -> Result<(), SwarmError> {
        self.call("adding an external address", CALL, |reply| Command::AddExternal { addr, reply }).await
    }

    /// What has been counted so far.
    #[must_use]
    pub fn metrics(&self) -> SwarmMetrics {
        self.metrics.snapshot()
    }

    /// The events from now on; bounded by [`limits::EVENT_QUEUE`], past which the receiver reports what it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<MeshEvent> {
        self.events.subscribe()
    }

    /// The peers worth knowing after a restart, newest contact first, at most [`limits::MAX_PERSISTED_PEERS`].
    /// Renewed every minute where it changed, and once more when the swarm stops.
    #[must_use]
    pub fn known_peers(&self) -> watch::Receiver<Arc<Vec<KnownPeer>>> {
        self.known_peers.clone()
    }

    /// Opens streams to peers and accepts protocols from them (libp2p-stream). Opening dials the peer where needed;
    /// it has no deadline of its own.
    #[must_use]
    pub fn streams(&self) -> libp2p_stream::Control {
        self.streams.clone()
    }

    /// The records of the DHT that are held here.
    #[must_use]
    pub fn records(&self) -> &RecordBook {
        &self.records
    }

    // ---- Peers ----

    /// Connects to an address, and waits until the peer there has said by identify what it speaks, so that what is asked
    /// next can be asked of it; at most [`limits::IDENTIFY_WAIT_SECS`], and a silent peer counts as connected. Where the
    /// address names a peer that is connected, no dial is made.
    ///
    /// # Errors
    /// [`SwarmError::Unreachable`] with how each resolved address failed; [`SwarmError::OwnAddress`];
    /// [`SwarmError::Denied`]. Dropped, a dial under way may still succeed.
    pub async fn connect(&self, addr: Multiaddr) -> Result<PeerId, SwarmError> {
        let events = self.events();
        let target = Target::Addr(addr);
        let peer = self.try_call("connecting", DIAL, |reply| Command::Dial { target, reply }).await?;
        if timeout(IDENTIFY, self.identified(peer, events)).await.is_err() {
            tracing::debug!(%peer, "connected, and not identified yet");
        }
        Ok(peer)
    }

    /// Connects to a peer at its known addresses, and where these fail, at those that the DHT names.
    ///
    /// # Errors
    /// [`SwarmError::NoAddress`] where none is known and none found; else as [`connect`](Self::connect).
    pub async fn dial_peer(&self, peer: PeerId) -> Result<(), SwarmError> {
        deadline("connecting", DIAL, async {
            let first = match self.dial_at(peer, Vec::new()).await {
                Ok(()) => return Ok(()),
                Err(error @ (SwarmError::NoAddress { .. } | SwarmError::Unreachable { .. })) => error,
                Err(error) => return Err(error),
            };
            let tried = match &first {
                SwarmError::Unreachable { tried, .. } => tried.iter().map(|it| it.addr.clone()).collect(),
                _ => Vec::new(),
            };
            // Half of the time for the search, so that the first dial's error is told where it finds nothing.
            let found = self
                .try_call("finding a peer", DIAL / 2, |reply| Command::FindPeer { peer, tried, reply })
                .await
                .unwrap_or_default();
            if found.is_empty() { Err(first) } else { self.dial_at(peer, found).await }
        })
        .await
    }

    /// Closes every connection with the peer; `false` where there was none.
    pub async fn disconnect(&self, peer: PeerId) -> Result<bool, SwarmError> {
        self.call("disconnecting", CALL, |reply| Command::Disconnect { peer, reply }).await
    }

    /// The connected peers, ordered by id.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, SwarmError> {
        self.call("peers", CALL, Command::Peers).await
    }

    /// Whether a connected peer has told by identify that it serves a protocol; `None` where it has told nothing, or is not
    /// connected.
    pub async fn speaks(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Option<bool>, SwarmError> {
        self.call("looking at a peer", CALL, |reply| Command::Speaks { peer, protocol, reply }).await
    }

    /// How many peers are connected; asks nobody.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.metrics.snapshot().peers
    }

    /// Remembers an address of a peer for later dials. It is trusted: private ones are taken on every profile.
    pub async fn add_address(&self, peer: PeerId, addr: Multiaddr) -> Result<(), SwarmError> {
        self.call("adding an address", CALL, |reply| Command::AddAddress { peer, addr, reply }).await
    }

    /// Keeps connections with this peer open while nothing uses them, and exempts it from the connection limits.
    /// Dialling it again after a loss is the caller's.
    pub async fn protect(&self, peer: PeerId) -> Result<(), SwarmError> {
        self.call("protecting", CALL, |reply| Command::Protect { peer, keep: true, reply }).await
    }

    /// Ends [`protect`](Self::protect).
    pub async fn unprotect(&self, peer: PeerId) -> Result<(), SwarmError> {
        self.call("unprotecting", CALL, |reply| Command::Protect { peer, keep: false, reply }).await
    }

    /// Closes the connections with this peer and refuses new ones, until [`unban`](Self::unban) or the end of the run.
    pub async fn ban(&self, peer: PeerId) -> Result<(), SwarmError> {
        self.call("banning", CALL, |reply| Command::Ban { peer, banned: true, reply }).await
    }

    /// Ends a [`ban`](Self::ban).
    pub async fn unban(&self, peer: PeerId) -> Result<(), SwarmError> {
        self.call("unbanning", CALL, |reply| Command::Ban { peer, banned: false, reply }).await
    }

    // ---- Kademlia ----

    /// The addresses of a peer, with `/p2p/`: those known, else the first that a walk of the DHT brings up. Empty
    /// where nobody knows the peer. Bounded by [`limits::DIAL_TIMEOUT_SECS`].
    pub async fn find_peer(&self, peer: PeerId) -> Result<Vec<Multiaddr>, SwarmError> {
        let tried = Vec::new();
        self.try_call("finding a peer", DIAL, |reply| Command::FindPeer { peer, tried, reply }).await
    }

    /// Tells the DHT that this node provides `key`, and again every 12 h until
    /// [`stop_providing`](Self::stop_providing). The key of a CID is its multihash (`cid.hash().to_bytes()`), as on
    /// the public DHT.
    ///
    /// Returns when the walk has ended. Dropped, or past its deadline, the key stays provided.
    ///
    /// # Errors
    /// [`SwarmError::Provide`] past [`limits::MAX_PROVIDED_KEYS`] keys.
    pub async fn provide(&self, key: Vec<u8>) -> Result<Provided, SwarmError> {
        self.try_call("providing", QUERY, |reply| Command::Provide { key, reply }).await
    }

    /// Publishes `key` no longer; what others hold expires within 48 h.
    pub async fn stop_providing(&self, key: Vec<u8>) -> Result<(), SwarmError> {
        self.call("ending to provide", CALL, |reply| Command::StopProviding { key, reply }).await
    }

    /// Peers other than this node that provide `key`, in the order found. Returns as soon as `limit` are found, else
    /// when the walk has ended, else after [`limits::QUERY_TIMEOUT_SECS`] with those found so far. Their addresses are
    /// remembered, so [`dial_peer`](Self::dial_peer) works on them.
    pub async fn find_providers(&self, key: Vec<u8>, limit: usize) -> Result<Vec<PeerId>, SwarmError> {
        self.try_call("finding providers", QUERY, |reply| Command::FindProviders { key, limit, reply }).await
    }

    /// The peers closest to a key of the DHT, the closest first, without this node: at most `count`, and no more than
    /// libp2p-kad finds (20). Their addresses are remembered, so [`dial_peer`](Self::dial_peer) works on them.
    pub async fn closest_peers(&self, key: Vec<u8>, count: usize) -> Result<Vec<PeerId>, SwarmError> {
        self.try_call("finding the closest peers", QUERY, |reply| Command::ClosestPeers { key, count, reply }).await
    }

    /// Puts a record to one peer by Kademlia's own PUT, and to nobody else; whether it was acknowledged. A peer that
    /// refuses it may acknowledge it all the same. Dropped, it may have been put.
    pub async fn put_record_to(&self, peer: PeerId, key: Vec<u8>, value: Vec<u8>) -> Result<bool, SwarmError> {
        self.try_call("putting a record", PUT, |reply| Command::PutRecordTo { peer, key, value, reply }).await
    }

    /// What the peers near a key have under it, by Kademlia's own GET. Returns when the walk has ended, or as soon as
    /// [`limits::MAX_RECORD_PEERS`] had something. Nothing of it is checked.
    pub async fn find_records(&self, key: Vec<u8>) -> Result<FoundRecords, SwarmError> {
        self.try_call("finding records", QUERY, |reply| Command::FindRecords { key, reply }).await
    }

    /// Walks the DHT to fill the routing table. It is done now and then by itself.
    ///
    /// # Errors
    /// [`SwarmError::NoPeers`] where the routing table is empty.
    pub async fn bootstrap(&self) -> Result<(), SwarmError> {
        self.try_call("joining the DHT", QUERY * 2, Command::Bootstrap).await
    }

    /// Changes whether Kademlia queries are answered.
    pub async fn set_kad_mode(&self, mode: KadMode) -> Result<(), SwarmError> {
        self.call("changing the DHT mode", CALL, |reply| Command::SetKadMode { mode, reply }).await
    }

    // ---- Gossip ----

    /// Subscribes to a topic; `false` where it was already.
    ///
    /// # Errors
    /// [`SwarmError::Topic`] where the topic lies outside the configured prefixes, is too long, or is one too many.
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<bool, SwarmError> {
        let topic = topic.into();
        self.try_call("subscribing", CALL, |reply| Command::Subscribe { topic, holding: None, reply }).await
    }

    /// Subscribes to a topic whose messages the caller judges: each waits in the queue that is returned, and goes no
    /// further before [`judge`](Self::judge) says so. At most `bytes` of them wait, of one neighbour half of that, each
    /// counted as [`limits::HELD_MESSAGE_BYTES`] at least; past that messages are ignored and counted.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn subscribe_held(
        &self,
        topic: impl Into<String>,
        bytes: usize,
    ) -> Result<mpsc::Receiver<HeldMessage>, SwarmError> {
        let topic = topic.into();
        let (queue, held) = mpsc::channel((bytes / limits::HELD_MESSAGE_BYTES).max(1));
        let holding = Some((queue, bytes));
        self.try_call("subscribing", CALL, |reply| Command::Subscribe { topic, holding, reply }).await?;
        Ok(held)
    }

    /// The verdict on a held message. After [`limits::GROUP_VERDICT_MS`] it comes too late: it is counted, and the message
    /// goes no further.
    pub async fn judge(&self, held: Held, acceptance: MessageAcceptance) -> Result<(), SwarmError> {
        deadline("judging", CALL, async {
            self.commands.send(Command::Judge { held, acceptance }).await.map_err(|_| SwarmError::Stopped)
        })
        .await
    }

    /// Unsubscribes from a topic; `false` where it was not subscribed to.
    pub async fn unsubscribe(&self, topic: impl Into<String>) -> Result<bool, SwarmError> {
        let topic = topic.into();
        self.call("unsubscribing", CALL, |reply| Command::Unsubscribe { topic, reply }).await
    }

    /// Publishes a message, subscribed to the topic or not. Returns how many connected peers take part in the topic:
    /// it was sent to those of them whose score allows it.
    ///
    /// # Errors
    /// [`PublishError::NoPeers`] where nobody does; nothing is queued for later then.
    pub async fn publish(&self, topic: impl Into<String>, data: Vec<u8>) -> Result<usize, PublishError> {
        let topic = topic.into();
        self.call("publishing", CALL, |reply| Command::Publish { topic, data, reply }).await?
    }

    /// The peers with which full messages of a topic are exchanged; empty unless subscribed.
    pub async fn mesh_peers(&self, topic: impl Into<String>) -> Result<Vec<PeerId>, SwarmError> {
        let topic = topic.into();
        self.call("mesh peers", CALL, |reply| Command::MeshPeers { topic, reply }).await
    }

    // ---- The end ----

    /// Stops the swarm: closes listeners and connections, and returns when the ports are free. Idempotent; bounded by
    /// [`limits::SHUTDOWN_SECS`]. Dropped, the swarm stops all the same.
    pub async fn shutdown(&self) -> Result<(), SwarmError> {
        self.stop.cancel();
        let mut done = self.done.clone();
        match timeout(SHUTDOWN, done.wait_for(|done| *done)).await {
            // A closed channel means that the worker is gone as well.
            Ok(_) => Ok(()),
            Err(_) => Err(SwarmError::Timeout { what: "stopping the swarm", after: SHUTDOWN }),
        }
    }

    /// Whether the swarm has stopped or is about to.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled() || *self.done.borrow()
    }

    /// Returns when a peer has said what it speaks, or is connected no longer. `events` are older than the connection.
    async fn identified(&self, peer: PeerId, mut events: broadcast::Receiver<MeshEvent>) {
        use broadcast::error::RecvError;
        while let Ok(None) = self.speaks(peer, libp2p::identify::PROTOCOL_NAME).await {
            loop {
                match events.recv().await {
                    Ok(MeshEvent::PeerIdentified { peer: it, .. }) if it == peer => return,
                    Ok(MeshEvent::PeerDisconnected { peer: it, .. }) if it == peer => return,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    async fn dial_at(&self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<(), SwarmError> {
        let target = Target::Peer { peer, addrs };
        self.try_call("connecting", DIAL, |reply| Command::Dial { target, reply }).await.map(|_| ())
    }

    /// Sends a command, once there is room, and waits for its answer.
    async fn call<T>(
        &self,
        what: &'static str,
        after: Duration,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, SwarmError> {
        let (reply, answer) = oneshot::channel();
        let command = command(reply);
        deadline(what, after, async {
            self.commands.send(command).await.map_err(|_| SwarmError::Stopped)?;
            answer.await.map_err(|_| SwarmError::Stopped)
        })
        .await
    }

    async fn try_call<T>(
        &self,
        what: &'static str,
        after: Duration,
        command: impl FnOnce(oneshot::Sender<Result<T, SwarmError>>) -> Command,
    ) -> Result<T, SwarmError> {
        self.call(what, after, command).await?
    }
}

impl fmt::Debug for SwarmHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmHandle").field("peer", &self.peer).field("stopping", &self.is_stopping()).finish()
    }
}

async fn deadline<T>(
    what: &'static str,
    after: Duration,
    work: impl Future<Output = Result<T, SwarmError>>,
) -> Result<T, SwarmError> {
    timeout(after, work).await.unwrap_or(Err(SwarmError::Timeout { what, after }))
}
