//! How a machine meets the network: what a [`Host`] is told and what it can do.

use std::{
    fmt::{self, Debug, Display, Formatter},
    time::{Duration, Instant},
};

use bytes::Bytes;
use dagmesh_core::Machine;

use crate::disk::{Disk, DiskError};

/// A machine, and how it meets the network: turns its effects into messages, writes and reports, and what arrives
/// into its inputs.
///
/// This is what a driver does on the real network, without the I/O. A host holds what such a driver holds (which of
/// its calls a token stands for, say) and no rules of the protocol. Like the machine it reads no clock, no global
/// randomness, and iterates over nothing unordered.
pub trait Host {
    /// The machine.
    type Machine: Machine;
    /// What the application is to be told everywhere: a publication, a message. Its spread is measured.
    type Event: Ord + Clone + Debug;

    /// The machine.
    fn machine(&self) -> &Self::Machine;

    /// The machine, to be driven.
    fn machine_mut(&mut self) -> &mut Self::Machine;

    /// Carries out one effect of the machine.
    fn carry_out(&mut self, effect: Effect<Self>, out: &mut Outbox<Self::Event>);

    /// Makes the machine's input of what arrives; `None` where it is not for the machine, or cannot be decoded. What
    /// needs no machine (an answer from what the host holds) goes straight to `out`.
    fn arrive(&mut self, delivery: Delivery, out: &mut Outbox<Self::Event>) -> Option<Input<Self>>;

    /// Whether a publication that was not seen before is taken and passed on. Called before [`arrive`](Self::arrive).
    fn validate(&mut self, from: NodeId, topic: Topic, packet: &Packet) -> Verdict {
        let _ = (from, topic, packet);
        Verdict::Accept
    }

    /// By what duplicates of a publication are known: as gossipsub's `message_id_fn`, of the message alone. By
    /// default the hash of its content, so a node that publishes the same bytes within the time of the cache is
    /// refused.
    fn message_id(topic: Topic, packet: &Packet) -> MessageId {
        MessageId(packet.hash ^ (u128::from(topic.0) << 64))
    }
}

/// The effect of a host's machine.
pub type Effect<H> = <<H as Host>::Machine as Machine>::Effect;
/// The input of a host's machine.
pub type Input<H> = <<H as Host>::Machine as Machine>::Input;

/// A node, by its number: 0 is the first. A node that restarts keeps its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A gossip topic, by a number that the host gives it. All topics travel on one overlay, and all nodes are subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(pub u32);

/// By what duplicates of a publication are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

/// A request that a node was sent, to be named in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(crate) u64);

/// A message: bytes as they would be on the wire, and the name that they are counted under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Bytes,
    pub(crate) hash: u128,
}

impl Packet {
    /// A message of these bytes, counted as `kind`. At most
    /// [`MAX_SIM_PACKET_BYTES`](dagmesh_core::limits::MAX_SIM_PACKET_BYTES); sending a larger one ends the run.
    pub fn new(kind: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let hash = blake3::hash(&bytes);
        let half = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        Self { kind, bytes, hash: u128::from_le_bytes(half) }
    }

    /// What it is counted as.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// What becomes of a publication, in gossipsub's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is delivered and passed on.
    Accept,
    /// It is neither delivered nor passed on.
    Ignore,
}

/// What arrives at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A message from a node to this one.
    Message {
        /// The sender.
        from: NodeId,
        /// The message.
        packet: Packet,
    },
    /// A publication that this node had not seen.
    Gossip {
        /// The neighbour that passed it on.
        from: NodeId,
        /// Who published it.
        origin: NodeId,
        /// The topic.
        topic: Topic,
        /// Over how many links it came: 1 from the publisher itself.
        hops: u32,
        /// The message.
        packet: Packet,
    },
    /// The overlay did not take a publication of this node.
    NotPublished {
        /// The topic.
        topic: Topic,
        /// The message.
        packet: Packet,
        /// Why.
        why: PublishError,
    },
    /// A request; to be answered with [`Outbox::answer`].
    Request {
        /// Who asks.
        from: NodeId,
        /// To be named in the answer.
        call: CallId,
        /// The request.
        packet: Packet,
    },
    /// The answer to a request of this node.
    Answer {
        /// Who answers.
        from: NodeId,
        /// What the request was made with.
        token: u64,
        /// The answer.
        packet: Packet,
    },
    /// There is no answer to a request of this node.
    NoAnswer {
        /// Who was asked.
        from: NodeId,
        /// What the request was made with.
        token: u64,
        /// Why.
        why: RequestError,
    },
    /// A write is done.
    Written {
        /// What the write was made with.
        token: u64,
        /// Whether it is on the disk.
        result: Result<(), DiskError>,
    },
    /// There is a connection to a neighbour on the overlay: it is on the topics now.
    PeerUp(NodeId),
    /// There is none any more.
    PeerDown(NodeId),
}

/// Why the overlay did not take a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no neighbour.
    #[error("no peers on this topic")]
    NoPeers,
    /// A message of the same id was seen a moment ago.
    #[error("a message of the same id was seen a moment ago")]
    Duplicate,
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The node can be reached and does not run.
    #[error("the node does not run")]
    NotRunning,
    /// Nothing came until the deadline.
    #[error("no answer until the deadline")]
    TimedOut,
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is in the disk's buffer: a crash may take it back.
    Buffered,
    /// Once it and every write before it is on the disk.
    Synced,
}

/// What a host is built from, at its node's start and at each restart.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The node.
    pub node: NodeId,
    /// How often it was started before.
    pub restarts: u32,
    /// How often its disk was emptied.
    pub wipes: u32,
    /// The instant.
    pub now: Instant,
    /// What the disk holds.
    pub disk: &'a Disk,
    /// For the machine's generator; another one at each start.
    pub seed: u64,
}

/// What a host wants done, in order.
#[derive(Debug)]
pub struct Outbox<E> {
    pub(crate) now: Instant,
    pub(crate) node: NodeId,
    pub(crate) actions: Vec<Action<E>>,
}

#[derive(Debug)]
pub(crate) enum Action<E> {
    Send { to: NodeId, packet: Packet },
    Publish { topic: Topic, packet: Packet },
    Request { to: NodeId, token: u64, packet: Packet, timeout: Duration },
    Answer { call: CallId, packet: Packet },
    Write { token: u64, key: Bytes, value: Option<Bytes>, durability: Durability },
    Published(E),
    Delivered(E),
}

impl<E> Outbox<E> {
    /// The instant.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Sends a message to one node, whether it is a neighbour or not. Nobody says whether it came.
    pub fn send(&mut self, to: NodeId, packet: Packet) {
        self.actions.push(Action::Send { to, packet });
    }

    /// Publishes on a topic. Answered with [`Delivery::NotPublished`] where the overlay does not take it.
    pub fn publish(&mut self, topic: Topic, packet: Packet) {
        self.actions.push(Action::Publish { topic, packet });
    }

    /// Asks one node; answered with [`Delivery::Answer`] or [`Delivery::NoAnswer`] of this token, once.
    pub fn request(&mut self, to: NodeId, token: u64, packet: Packet, timeout: Duration) {
        self.actions.push(Action::Request { to, token, packet, timeout });
    }

    /// Answers a request. Only the first answer counts.
    pub fn answer(&mut self, call: CallId, packet: Packet) {
        self.actions.push(Action::Answer { call, packet });
    }

    /// Writes a value, or with `None` removes the key; answered with [`Delivery::Written`] of this token. Writes of
    /// one node are done in order.
    pub fn write(&mut self, token: u64, key: impl Into<Bytes>, value: Option<Bytes>, durability: Durability) {
        self.actions.push(Action::Write { token, key: key.into(), value, durability });
    }

    /// Says that the application published this event here, now.
    pub fn published(&mut self, event: E) {
        self.actions.push(Action::Published(event));
    }

    /// Says that the application was told this event here, now.
    pub fn delivered(&mut self, event: E) {
        self.actions.push(Action::Delivered(event));
    }
}

impl Display for NodeId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}
