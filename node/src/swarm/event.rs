use std::time::{Duration, Instant};

use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::{Multiaddr, PeerId};

/// What happens in the mesh. Sent to every [`super::SwarmHandle::events`]; a watcher that lags behind
/// [`dagmesh_core::limits::EVENT_QUEUE`] is told how many it missed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MeshEvent {
    /// The first connection with a peer stands.
    PeerConnected {
        /// The peer.
        peer: PeerId,
        /// Its address on this connection.
        addr: Multiaddr,
        /// Who dialled.
        direction: Direction,
    },
    /// A peer has said what it is (identify); comes again when that changes.
    PeerIdentified {
        /// The peer.
        peer: PeerId,
        /// The protocols it speaks.
        protocols: Vec<String>,
        /// Its program and version, in its own words.
        agent: String,
    },
    /// The last connection with a peer is closed.
    PeerDisconnected {
        /// The peer.
        peer: PeerId,
        /// Why, unless it was closed in good order.
        reason: Option<String>,
    },
    /// The last connection of all is closed; the node dials again.
    Isolated,
    /// A listener has a new address.
    Listening {
        /// The address.
        addr: Multiaddr,
    },
    /// An address is no longer listened on.
    ListenExpired {
        /// The address.
        addr: Multiaddr,
    },
    /// A listener closed with an error, or a relay ended its reservation.
    ListenerFailed {
        /// Addresses that went with it.
        addrs: Vec<Multiaddr>,
        /// Why.
        reason: String,
    },
    /// An address is proven (or known by configuration) to reach this node from outside.
    ExternalAddrConfirmed {
        /// The address.
        addr: Multiaddr,
    },
    /// An external address does not hold any longer.
    ExternalAddrExpired {
        /// The address.
        addr: Multiaddr,
    },
    /// A peer tried to reach one of our addresses (AutoNAT).
    AddressTested {
        /// The address.
        addr: Multiaddr,
        /// The peer that tried.
        by: PeerId,
        /// Why it failed; `None` where it worked.
        error: Option<String>,
    },
    /// The node began or ceased to answer Kademlia queries.
    KadServing {
        /// Whether it answers now.
        serving: bool,
    },
    /// A peer subscribed to a topic.
    TopicJoined {
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: String,
    },
    /// A peer unsubscribed from a topic.
    TopicLeft {
        /// The peer.
        peer: PeerId,
        /// The topic.
        topic: String,
    },
    /// A relay holds a place for this node.
    RelayReserved {
        /// The relay.
        relay: PeerId,
    },
    /// A relayed connection was replaced by a direct one, or the try failed.
    HolePunched {
        /// The peer.
        peer: PeerId,
        /// Why it failed; `None` where it worked.
        error: Option<String>,
    },
    /// The worker has ended; the last event.
    Stopped,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// We did.
    Outbound,
}

/// A connected peer.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// The peer.
    pub peer: PeerId,
    /// Its address on the oldest direct connection, or the oldest of all where none is direct.
    pub addr: Multiaddr,
    /// Who dialled that connection.
    pub direction: Direction,
    /// Whether that connection runs through a relay; the address of one that came in does not tell.
    pub relayed: bool,
    /// Connections with it.
    pub connections: usize,
    /// The protocols it speaks; empty until identify is through.
    pub protocols: Vec<String>,
    /// Its program and version, in its own words; `None` until identify is through.
    pub agent: Option<String>,
    /// Round-trip time of the last ping.
    pub rtt: Option<Duration>,
    /// The gossip topics it subscribed to, of those taken part in.
    pub topics: Vec<String>,
    /// How long the oldest connection stands.
    pub connected_for: Duration,
    /// Whether an unused connection with it is kept.
    pub protected: bool,
}

/// A peer that was connected, with the addresses that led to it or that it gave; kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// The peer.
    pub peer: PeerId,
    /// Its addresses, without `/p2p/`; those that worked first.
    pub addrs: Vec<Multiaddr>,
}

/// Whether a provider record has reached anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provided {
    /// At least one peer was given the record.
    Published,
    /// Nobody was there to take it; it is published as soon as the routing table gains a peer.
    Waiting,
}

/// A gossip message that the validator accepted.
#[derive(Debug, Clone)]
pub struct GossipMessage {
    /// The topic.
    pub topic: String,
    /// The peer that signed the message.
    pub author: Option<PeerId>,
    /// The peer that passed it on to us.
    pub propagation: PeerId,
    /// The content.
    pub data: Vec<u8>,
}

/// A gossip message that its topic's owner judges: it goes no further before
/// [`SwarmHandle::judge`](super::SwarmHandle::judge) has been told the verdict.
#[derive(Debug)]
pub struct HeldMessage {
    /// The peer that signed the message.
    pub author: PeerId,
    /// The peer that passed it on to us.
    pub neighbour: PeerId,
    /// The content.
    pub data: Vec<u8>,
    /// What the verdict is given for.
    pub held: Held,
}

/// A message that waits for its verdict. Dropped without one, it goes no further, and nobody is blamed.
#[derive(Debug)]
pub struct Held {
    pub(super) id: gossipsub::MessageId,
    pub(super) neighbour: PeerId,
    pub(super) since: Instant,
    pub(super) _room: super::worker::Room,
}

/// Decides over a gossip message before it travels on.
///
/// Called in the worker, one message at a time: bounded decoding, one signature, tables in memory; never disk,
/// never waiting.
pub trait GossipValidator: Send {
    /// Decides over `message`, which `source` passed on to us at `now`; its author is `message.source`.
    ///
    /// `Accept`: it is handed to the node and forwarded. `Ignore`: dropped. `Reject`: dropped, and the score of
    /// `source` suffers.
    fn validate(&mut self, now: Instant, source: PeerId, message: &gossipsub::Message) -> MessageAcceptance;
}

/// Accepts every message, for nodes whose topics carry nothing to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct AcceptAll;

impl GossipValidator for AcceptAll {
    fn validate(&mut self, _: Instant, _: PeerId, _: &gossipsub::Message) -> MessageAcceptance {
        MessageAcceptance::Accept
    }
}

impl<F> GossipValidator for F
where
    F: FnMut(Instant, PeerId, &gossipsub::Message) -> MessageAcceptance + Send,
{
    fn validate(&mut self, now: Instant, source: PeerId, message: &gossipsub::Message) -> MessageAcceptance {
        self(now, source, message)
    }
}

/// What a walk of the DHT brought up under a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundRecords {
    /// Who had something, and what: not checked. At most [`MAX_RECORD_PEERS`](dagmesh_core::limits::MAX_RECORD_PEERS).
    pub found: Vec<(PeerId, Vec<u8>)>,
    /// Who was asked and had nothing.
    pub without: Vec<PeerId>,
}
