//! What the machine is told, and what it wants.

use std::time::Duration;

use libp2p_identity::{Keypair, PeerId};

use crate::{
    head::{GroupHead, GroupId, Payload},
    members::{MemberList, Membership},
};

/// A request of ours, to be named in its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(super) u64);

/// A write that the machine waits for, to be named when it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub(super) u64);

/// What a [`Group`](super::Group) is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which group.
    pub group: GroupId,
    /// Whose heads are taken.
    pub membership: Membership,
    /// The clock at the machine's beginning, in Unix milliseconds.
    pub unix_ms: u64,
    /// Seed of all that is random.
    pub seed: u64,
    /// Shortest interval of the heartbeat: after a difference.
    pub heartbeat_min: Duration,
    /// Longest interval of the heartbeat: while all agree.
    pub heartbeat_max: Duration,
    /// How long an unknown digest waits at most before recovery; at least a third of that.
    pub moment: Duration,
    /// How long a peer may take to answer a request.
    pub request_timeout: Duration,
    /// How long an answer to a call to the whole group waits at most, so that one member answers for all.
    pub answer_delay: Duration,
    /// How long a member that hears of nobody waits before it takes itself for the first.
    pub settle: Duration,
}

impl Config {
    /// Heartbeat from 1 s to 30 s; an unknown digest waits up to 600 ms; requests take up to 10 s; answers to the whole
    /// group are spread over 500 ms; a group without others is whole after 3 s. Open to all.
    pub fn new(group: GroupId, unix_ms: u64, seed: u64) -> Self {
        Self {
            group,
            membership: Membership::Open,
            unix_ms,
            seed,
            heartbeat_min: Duration::from_secs(1),
            heartbeat_max: Duration::from_secs(30),
            moment: Duration::from_millis(600),
            request_timeout: Duration::from_secs(10),
            answer_delay: Duration::from_millis(500),
            settle: Duration::from_secs(3),
        }
    }
}

/// What a [`Group`](super::Group) is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// The newest list of members of a closed group: the stored one, before [`Input::Restored`], or one that its owner has
    /// just signed here. One that is no news, or not of this group and its owner, is passed over.
    Members(MemberList),
    /// The state that was stored, before anything else but the list of members; heads of others than those are passed
    /// over. Brings no events.
    Restored(Vec<GroupHead>),
    /// Publish under this key too. `session`: the last one stored for it, to go on with; `None` begins a new one, and so
    /// does a closed group where no head of that session was restored: its numbers may be used, by one taken off the list.
    AddProducer {
        /// The key.
        key: Box<Keypair>,
        /// Its session.
        session: Option<u64>,
    },
    /// Publish under this key no more. What waits is dropped. Added again to this machine, it begins a new session.
    RemoveProducer(PeerId),
    /// The producer's next head. Ends with [`Event::Published`] or [`Event::Refused`].
    Publish {
        /// Which of ours.
        producer: PeerId,
        /// What.
        payload: Payload,
    },
    /// This write is durable.
    Persisted(PersistId),
    /// This write failed, or nobody knows.
    PersistFailed(PersistId),
    /// A gossip message has come. Ends with one [`Effect::Verdict`].
    Gossip {
        /// To be named in the verdict.
        token: u64,
        /// Who signed it into the mesh.
        author: PeerId,
        /// Who handed it to us.
        neighbour: PeerId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A peer of the group is connected now, or has subscribed.
    PeerJoined(PeerId),
    /// It is gone, or has unsubscribed.
    PeerLeft(PeerId),
    /// A peer's request has come. Ends with one [`Effect::Answer`].
    Request {
        /// To be named in the answer.
        token: u64,
        /// Whose.
        peer: PeerId,
        /// The request.
        bytes: Vec<u8>,
    },
    /// The answer to a request of ours.
    Answered {
        /// The request.
        call: CallId,
        /// The answer.
        bytes: Vec<u8>,
    },
    /// A request of ours has failed: no connection, no answer, refused.
    Failed(CallId),
    /// The clock, where it was set: Unix milliseconds.
    Clock(u64),
}

/// What a [`Group`](super::Group) wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this to the group's topic. Without peers it may be dropped.
    Gossip(Vec<u8>),
    /// What the gossip protocol is to do with a message.
    Verdict {
        /// The message.
        token: u64,
        /// What.
        acceptance: Acceptance,
    },
    /// Ask this peer; answer with [`Input::Answered`] or [`Input::Failed`].
    Request {
        /// To be named in the answer.
        call: CallId,
        /// Whom.
        peer: PeerId,
        /// The request.
        bytes: Vec<u8>,
    },
    /// Answer a request.
    Answer {
        /// The request.
        token: u64,
        /// The answer; `None`: drop the stream.
        answer: Option<Vec<u8>>,
    },
    /// Make this session of ours durable; answer with [`Input::Persisted`] or [`Input::PersistFailed`].
    PersistSession {
        /// To be named in the answer.
        id: PersistId,
        /// Which producer.
        producer: PeerId,
        /// Its session.
        session: u64,
    },
    /// Make this head of ours durable; answer with [`Input::Persisted`] or [`Input::PersistFailed`].
    PersistHead {
        /// To be named in the answer.
        id: PersistId,
        /// The head.
        head: Box<GroupHead>,
    },
    /// Store this list of members over the one before, before what follows is done.
    StoreMembers(MemberList),
    /// Store these heads of others, before the events that follow are told; lost ones come again.
    Store(Vec<GroupHead>),
    /// To be told to whoever watches.
    Event(Event),
}

/// What the gossip protocol is to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// Pass it on.
    Accept,
    /// Do not pass it on.
    Ignore,
    /// Do not pass it on, and hold it against the neighbour.
    Reject,
}

/// What happened, for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The state is that of the others, or there are none. Told once.
    Initialized,
    /// The numbers from `first` to the head's own are new; each number of a session is told once, in order, and anew only of
    /// one who was taken off the list of members and is on it again. Only the last has its head here: those before are
    /// reached through its DAG.
    New {
        /// The head.
        head: Box<GroupHead>,
        /// The first new number.
        first: u64,
        /// Whether it was learnt by catching up, not as it was published.
        is_recovery: bool,
    },
    /// The first head of this producer.
    MemberSeen(PeerId),
    /// A publication of ours is durable and sent.
    Published(Box<GroupHead>),
    /// A producer of ours publishes under this session now.
    SessionOpened {
        /// Which producer.
        producer: PeerId,
        /// Its session.
        session: u64,
    },
    /// A publication is not made.
    Refused {
        /// Which producer.
        producer: PeerId,
        /// Why.
        reason: String,
    },
    /// A producer has signed two heads of one number.
    Equivocation {
        /// The head that is kept.
        kept: Box<GroupHead>,
        /// The other one.
        other: Box<GroupHead>,
    },
    /// The list of members is a newer one. The heads of those who are no members any more have left the state.
    MembersChanged {
        /// Its version.
        version: u64,
    },
    /// The owner has signed two lists of one version. Told once a version; whoever saw both keeps the same one.
    MembersEquivocation {
        /// The version.
        version: u64,
    },
    /// A peer broke the protocol.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// How.
        reason: String,
    },
}
