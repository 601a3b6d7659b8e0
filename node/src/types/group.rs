//! Groups: what is asked of a node about them, and what it answers.

use cid::Cid;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::{request::Content, text};
use crate::ticket::GroupTarget;

/// `group create`: a group of a new name, or the own closed one of this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupCreateRequest {
    /// Its name: 1 to 128 bytes, no control characters.
    pub name: String,
    /// Only those on a list that we sign may write. The list is ours to change; everybody may still read.
    #[serde(default)]
    pub closed: bool,
    /// Of a closed group: who is on the list beside us, at most 1,000.
    #[serde(default)]
    pub members: Vec<PeerId>,
}

/// `group join`: takes part in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupJoinRequest {
    /// Which: the name of an open group, or a ticket.
    pub target: GroupTarget,
    /// Answers once our state is that of the others.
    #[serde(default)]
    pub wait: bool,
}

/// A group that is taken part in: `group create`, `group join`, `group ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its name; of those taken part in, each has another.
    pub group: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// Whether only those on its list may write.
    pub closed: bool,
    /// Whose list it is; none where it is open.
    #[serde(default)]
    pub owner: Option<PeerId>,
    /// Whether we may write.
    pub writable: bool,
    /// Whether our state is that of the others, as far as is known.
    pub initialized: bool,
    /// Peers of the group that are connected.
    pub peers: usize,
    /// Publications that our log was told, the next one's index; of more than 262,144 the oldest have given way.
    pub entries: u64,
    /// A string that leads to it, for `dagmesh group join`.
    pub ticket: String,
}

/// A group that is taken part in, by name: `group leave`, `group state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRequest {
    /// Its name.
    pub name: String,
}

/// `group publish`, `group send`: what we tell the group next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPublishRequest {
    /// The group's name.
    pub name: String,
    /// What.
    pub body: GroupBody,
}

/// What a publication carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBody {
    /// Text, at most 16 KiB.
    Text(String),
    /// A DAG: a path on the daemon's machine, or a CID.
    Content(Content),
}

/// A publication of ours: durable, and told to whoever is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPublished {
    /// The group.
    pub group: String,
    /// Under whose name.
    pub producer: PeerId,
    /// Its session.
    pub session: u64,
    /// Its number in the session.
    pub seq: u64,
    /// The block that says it.
    #[serde(with = "text::one")]
    pub entry: Cid,
    /// The DAG that it carries.
    #[serde(default, with = "text::option", skip_serializing_if = "Option::is_none")]
    pub head: Option<Cid>,
    /// Peers of the group that are connected; with none, the others learn of it when they are.
    pub peers: usize,
}

/// `group log`: a part of our log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupLogRequest {
    /// The group's name.
    pub name: String,
    /// From this index on; where absent, the newest `limit`.
    #[serde(default)]
    pub from: Option<u64>,
    /// How many, at most 10,000.
    pub limit: usize,
}

/// One publication, as it stands in our log. Each (producer, session, sequence) stands there once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Its place in our log: 0 is the first. Others may have learnt it in another order.
    pub index: u64,
    /// Who published it.
    pub producer: PeerId,
    /// In which session.
    pub session: u64,
    /// Its number in the session.
    pub seq: u64,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The DAG that it carries, where it is no text.
    #[serde(default, with = "text::option", skip_serializing_if = "Option::is_none")]
    pub head: Option<Cid>,
    /// The block that says it.
    #[serde(with = "text::one")]
    pub entry: Cid,
    /// When it was published, by the producer's clock, in Unix milliseconds.
    pub time: u64,
    /// When we learnt it, in Unix milliseconds.
    pub received: u64,
    /// Whether we learnt it by catching up, not as it was published.
    pub recovery: bool,
}

/// `group members`: who is in the group; with `add` or `remove`, the owner of a closed one changes its list first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupMembersRequest {
    /// The group's name.
    pub name: String,
    /// Who may write from now on.
    #[serde(default)]
    pub add: Vec<PeerId>,
    /// Who may not any more; what they wrote leaves the state and stays in our log.
    #[serde(default)]
    pub remove: Vec<PeerId>,
}

/// Who is in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMembers {
    /// The group.
    pub group: String,
    /// The version of its list; 0 where it is open, or no list is known yet.
    pub version: u64,
    /// Everybody who has written, is connected, or may write, by peer id.
    pub members: Vec<GroupMember>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// Who.
    pub producer: PeerId,
    /// Whether it may write.
    pub writer: bool,
    /// Whether it is connected with us, in this group.
    pub connected: bool,
    /// Its newest session; none where it has written nothing.
    #[serde(default)]
    pub session: Option<u64>,
    /// Its newest number in it.
    #[serde(default)]
    pub seq: u64,
}

/// `group state`: what our state is, and who is ahead of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// The group.
    pub group: String,
    /// The root digest, in hexadecimal.
    pub root: String,
    /// Sessions of producers in it.
    pub leaves: u64,
    /// The sum of their numbers: publications, if none was skipped.
    pub sum: u64,
    /// Producers in it.
    pub members: u64,
    /// Peers of the group that are connected.
    pub peers: usize,
    /// Whether our state is that of the others, as far as is known.
    pub initialized: bool,
    /// Who says to know more than we do.
    pub ahead: Vec<PeerId>,
    /// Publications whose entries we do not hold yet.
    pub missing: u64,
    /// Every session, by producer.
    pub heads: Vec<GroupHeadInfo>,
}

/// How far one session of a producer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupHeadInfo {
    /// Whose.
    pub producer: PeerId,
    /// Which session.
    pub session: u64,
    /// Its newest number.
    pub seq: u64,
    /// The newest number that stands in our log.
    pub told: u64,
}

/// `group watch`: what happens in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupWatchRequest {
    /// The group's name.
    pub name: String,
    /// First what stands in the log from this index on, then what comes; where absent, what comes alone.
    #[serde(default)]
    pub from: Option<u64>,
}

/// Something happened in a group. In JSON an object whose `event` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupEvent {
    /// A publication stands in our log now. Each is told once a watch, without gaps in `index`, unless the watch is so far
    /// behind that rows of the log have given way.
    Entry(Box<GroupEntry>),
    /// The DAG of a publication is whole on our disk.
    Fetched {
        /// The publication's place in our log.
        index: u64,
        /// The DAG.
        #[serde(with = "text::one")]
        head: Cid,
    },
    /// Publications that cannot be had: their producer's chain does not hold them.
    Gap {
        /// Whose.
        producer: PeerId,
        /// In which session.
        session: u64,
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
        /// Why.
        reason: String,
    },
    /// Our state is that of the others now; told once a watch.
    Initialized,
    /// The first publication of this producer.
    MemberSeen {
        /// Who.
        producer: PeerId,
    },
    /// The owner has changed the list of who may write.
    MembersChanged {
        /// Its version.
        version: u64,
    },
    /// A producer has signed two heads of one number.
    Equivocation {
        /// Who.
        producer: PeerId,
        /// In which session.
        session: u64,
        /// The number.
        seq: u64,
        /// The entries that they name, the kept one first.
        #[serde(with = "text::list")]
        entries: Vec<Cid>,
    },
    /// The owner has signed two lists of one version.
    MembersEquivocation {
        /// The version.
        version: u64,
    },
    /// The DAG of a publication is not fetched, or no further: it can be had by hand.
    NotFetched {
        /// The publication's place in our log.
        index: u64,
        /// The DAG.
        #[serde(with = "text::one")]
        head: Cid,
        /// Why.
        reason: String,
    },
}
