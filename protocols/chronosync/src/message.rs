//! What travels: four messages on the group's topic, two requests and three answers between two peers.
//!
//! ```text
//! topic     Update   a publication: the roots before and after it, the head, the whole vector while it is small
//!           Digest   the heartbeat: root, leaves, sum, version of the list of members
//!           Members  the list of members, when it is new
//!           Recover  a call to the whole group, when no peer answers a request
//!           Page     an answer to it, with Members where those are behind too
//! request   Hello    our digest                       answer   Digest
//!           Recover  what we lack, from a root or a place on;   Page, Busy
//!                    what the page before shows you to lack
//! ```
//! Canonical DAG-CBOR, refused before it is decoded where it is over its cap. Heads travel as the byte strings that were
//! signed, and are read by whoever applies them.

#[cfg(test)]
mod tests;

use dagmesh_core::{
    bounded::{BoundedBytes, BoundedVec, OverBound},
    cbor::{self, CborError},
    limits::{
        MAX_GROUP_GOSSIP_BYTES, MAX_GROUP_HEAD_BYTES, MAX_GROUP_LEAVES, MAX_GROUP_MEMBER_LIST_BYTES,
        MAX_GROUP_MESSAGE_BYTES, MAX_GROUP_PAGE_HEADS, MAX_GROUP_SEQUENCE,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteArray;

use crate::{head::LeafKey, state::Summary, tree::Digest};

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Over its cap.
    #[error("a message of {len} bytes where at most {max} may stand")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// Not canonical DAG-CBOR, or not the fields.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// A list over its bound.
    #[error(transparent)]
    Bound(#[from] OverBound),
    /// A digest that no state can have.
    #[error("a state of {leaves} leaves with a sum of {sum}")]
    Impossible {
        /// Its leaves.
        leaves: u64,
        /// Their sum.
        sum: u64,
    },
}

/// A head as it travels, its signature not checked.
pub type HeadBytes = BoundedBytes<MAX_GROUP_HEAD_BYTES>;
/// At most [`MAX_GROUP_PAGE_HEADS`] heads.
pub type HeadList = BoundedVec<HeadBytes, MAX_GROUP_PAGE_HEADS>;

/// A list of members as it travels, its signature not checked.
pub type MemberBytes = BoundedBytes<MAX_GROUP_MEMBER_LIST_BYTES>;

/// On the group's topic. At most [`MAX_GROUP_GOSSIP_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gossip {
    /// A publication.
    Update(Update),
    /// The heartbeat. `bucket` is a time that members share: equal heartbeats of one time are one message to the mesh,
    /// those of the next time are not taken for duplicates of it.
    Digest {
        /// The sender's state.
        state: Summary,
        /// The time.
        bucket: u64,
    },
    /// A call to the whole group. `bucket` as above.
    Recover {
        /// From where on.
        from: Cursor,
        /// The version of the sender's list of members.
        members: u64,
        /// The time.
        bucket: u64,
    },
    /// An answer to it.
    Page {
        /// What it answers.
        to: Cursor,
        /// The answer, without a list of members: there is no room for both.
        page: Page,
    },
    /// The list of members of a closed group.
    Members(MemberBytes),
}

/// One publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The sender's root before it.
    pub previous: Digest,
    /// The sender's state after it.
    pub state: Summary,
    /// The heads that it changed.
    pub changed: HeadList,
    /// All other heads, while the message takes no more than [`dagmesh_core::limits::GROUP_VECTOR_BYTES`]; else none.
    pub vector: HeadList,
}

/// From where on a member wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The root at which the recovery began. Whoever knows it tells the difference alone, the others everything.
    pub base: Digest,
    /// The last place that is known already; `None` at the beginning.
    pub after: Option<LeafKey>,
}

/// Heads in the fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The sender's state.
    pub state: Summary,
    /// Whether only what has changed since the base is told: then what is not there is known, not lacking.
    pub difference: bool,
    /// The heads.
    pub heads: HeadList,
    /// The last place that this page has told of; `None` where it tells to the end.
    pub next: Option<LeafKey>,
    /// The sender's list of members, where the asker has another.
    pub members: Option<MemberBytes>,
}

/// From one peer to another. At most [`MAX_GROUP_MESSAGE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// On a new connection or subscription.
    Hello(Summary),
    /// A page is wanted.
    Recover {
        /// From where on.
        from: Cursor,
        /// The asker's state.
        state: Summary,
        /// What the pages before have shown the asked one to lack.
        heads: HeadList,
        /// The asker's list of members, where the asked one has another.
        members: Option<MemberBytes>,
    },
}

/// The answer to a [`Request`]. At most [`MAX_GROUP_MESSAGE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a hello: the state.
    Digest(Summary),
    /// A page.
    Page(Page),
    /// Asked too often.
    Busy,
}

type Hash = ByteArray<32>;
type SummaryWire = (Hash, u64, u64, u64);
type KeyWire = Option<(Hash, u64)>;
type CursorWire = (Hash, KeyWire);
type PageWire = (SummaryWire, bool, HeadList, KeyWire, Option<MemberBytes>);

#[derive(Serialize, Deserialize)]
enum GossipWire {
    #[serde(rename = "u")]
    Update(Hash, SummaryWire, HeadList, HeadList),
    #[serde(rename = "d")]
    Digest(SummaryWire, u64),
    #[serde(rename = "r")]
    Recover(CursorWire, u64, u64),
    #[serde(rename = "p")]
    Page(CursorWire, PageWire),
    #[serde(rename = "m")]
    Members(MemberBytes),
}

#[derive(Serialize, Deserialize)]
enum RequestWire {
    #[serde(rename = "h")]
    Hello(SummaryWire),
    #[serde(rename = "r")]
    Recover(CursorWire, SummaryWire, HeadList, Option<MemberBytes>),
}

#[derive(Serialize, Deserialize)]
enum AnswerWire {
    #[serde(rename = "d")]
    Digest(SummaryWire),
    #[serde(rename = "p")]
    Page(PageWire),
    #[serde(rename = "b")]
    Busy,
}

impl Gossip {
    /// Encodes it; an error where it is over its cap.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let wire = match self.clone() {
            Self::Update(Update { previous, state, changed, vector }) => {
                GossipWire::Update(ByteArray::new(previous), summary_out(&state), changed, vector)
            }
            Self::Digest { state, bucket } => GossipWire::Digest(summary_out(&state), bucket),
            Self::Recover { from, members, bucket } => GossipWire::Recover(cursor_out(&from), members, bucket),
            Self::Page { to, page } => GossipWire::Page(cursor_out(&to), page_out(page)),
            Self::Members(list) => GossipWire::Members(list),
        };
        encode(&wire, MAX_GROUP_GOSSIP_BYTES)
    }

    /// Decodes it, bounded; heads are not checked yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Ok(match decode(bytes, MAX_GROUP_GOSSIP_BYTES)? {
            GossipWire::Update(previous, state, changed, vector) => {
                if changed.len() + vector.len() > MAX_GROUP_PAGE_HEADS {
                    let len = changed.len() + vector.len();
                    return Err(OverBound { unit: "heads", len, max: MAX_GROUP_PAGE_HEADS }.into());
                }
                Self::Update(Update { previous: previous.into_array(), state: summary_in(state)?, changed, vector })
            }
            GossipWire::Digest(state, bucket) => Self::Digest { state: summary_in(state)?, bucket },
            GossipWire::Recover(from, members, bucket) => Self::Recover { from: cursor_in(from), members, bucket },
            GossipWire::Page(to, page) => {
                if page.4.is_some() {
                    return Err(OverBound { unit: "lists of members", len: 1, max: 0 }.into());
                }
                Self::Page { to: cursor_in(to), page: page_in(page)? }
            }
            GossipWire::Members(list) => Self::Members(list),
        })
    }
}

impl Request {
    /// Encodes it; an error where it is over its cap.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let wire = match self {
            Self::Hello(state) => RequestWire::Hello(summary_out(state)),
            Self::Recover { from, state, heads, members } => {
                RequestWire::Recover(cursor_out(from), summary_out(state), heads.clone(), members.clone())
            }
        };
        encode(&wire, MAX_GROUP_MESSAGE_BYTES)
    }

    /// Decodes it, bounded; heads are not checked yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Ok(match decode(bytes, MAX_GROUP_MESSAGE_BYTES)? {
            RequestWire::Hello(state) => Self::Hello(summary_in(state)?),
            RequestWire::Recover(from, state, heads, members) => {
                Self::Recover { from: cursor_in(from), state: summary_in(state)?, heads, members }
            }
        })
    }
}

impl Answer {
    /// Encodes it; an error where it is over its cap.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let wire = match self {
            Self::Digest(state) => AnswerWire::Digest(summary_out(state)),
            Self::Page(page) => AnswerWire::Page(page_out(page.clone())),
            Self::Busy => AnswerWire::Busy,
        };
        encode(&wire, MAX_GROUP_MESSAGE_BYTES)
    }

    /// Decodes it, bounded; heads are not checked yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Ok(match decode(bytes, MAX_GROUP_MESSAGE_BYTES)? {
            AnswerWire::Digest(state) => Self::Digest(summary_in(state)?),
            AnswerWire::Page(page) => Self::Page(page_in(page)?),
            AnswerWire::Busy => Self::Busy,
        })
    }
}

fn encode<T: Serialize>(wire: &T, max: usize) -> Result<Vec<u8>, MessageError> {
    let bytes = cbor::to_vec(wire)?;
    check_len(bytes.len(), max).map(|()| bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, MessageError> {
    check_len(bytes.len(), max)?;
    Ok(cbor::from_slice(bytes)?)
}

fn check_len(len: usize, max: usize) -> Result<(), MessageError> {
    if len > max { Err(MessageError::TooLarge { len, max }) } else { Ok(()) }
}

fn summary_out(state: &Summary) -> SummaryWire {
    (ByteArray::new(state.root), state.leaves, state.sum, state.members)
}

fn summary_in((root, leaves, sum, members): SummaryWire) -> Result<Summary, MessageError> {
    let possible = leaves <= MAX_GROUP_LEAVES as u64 && (leaves..=leaves * MAX_GROUP_SEQUENCE).contains(&sum);
    let state = Summary { members, root: root.into_array(), leaves, sum };
    if possible { Ok(state) } else { Err(MessageError::Impossible { leaves, sum }) }
}

fn key_out(key: Option<LeafKey>) -> KeyWire {
    key.map(|LeafKey { name, session }| (ByteArray::new(name), session))
}

fn key_in(key: KeyWire) -> Option<LeafKey> {
    key.map(|(name, session)| LeafKey { name: name.into_array(), session })
}

fn cursor_out(from: &Cursor) -> CursorWire {
    (ByteArray::new(from.base), key_out(from.after))
}

fn cursor_in((base, after): CursorWire) -> Cursor {
    Cursor { base: base.into_array(), after: key_in(after) }
}

fn page_out(page: Page) -> PageWire {
    (summary_out(&page.state), page.difference, page.heads, key_out(page.next), page.members)
}

fn page_in((state, difference, heads, next, members): PageWire) -> Result<Page, MessageError> {
    Ok(Page { state: summary_in(state)?, difference, heads, next: key_in(next), members })
}
