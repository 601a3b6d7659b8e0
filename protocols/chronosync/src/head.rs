//! The signed head of a group: a producer's word on how far one of its sessions is.

use std::{cmp::Ordering, fmt};

use cid::Cid;
use dagmesh_core::{
    bounded::BoundedBytes,
    cbor, frame,
    limits::{MAX_CID_BYTES, MAX_GROUP_HEAD_BYTES, MAX_GROUP_INLINE_BYTES, MAX_GROUP_NAME_BYTES, MAX_GROUP_SEQUENCE},
};
use dagmesh_dag::check_cid;
use libp2p_identity::{Keypair, PeerId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::tree::{self, Digest};

/// Domain of the signature of a head.
const HEAD_DOMAIN: &[u8] = b"dagmesh-group-head-v1";
/// Domain of the id of a group that is open to all.
const GROUP_DOMAIN: &[u8] = b"dagmesh-group-v1";
/// Domain of the id of a group with an owner.
const CLOSED_DOMAIN: &[u8] = b"dagmesh-group-closed-v1";
/// Version of the head.
const HEAD_VERSION: u64 = 1;

/// Why a head, a payload, a list of members or a group's name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Not a usable name of a group.
    #[error("a group's name has 1 to {MAX_GROUP_NAME_BYTES} bytes and no control characters")]
    Name,
    /// Not a head: bytes, fields or numbers.
    #[error("no head of a group: {0}")]
    Head(String),
    /// Over a cap.
    #[error("{what} of {len} bytes where at most {max} may stand")]
    TooLarge {
        /// What it was.
        what: &'static str,
        /// Its length, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// The signature is not the producer's, or is for another group.
    #[error("the signature of the head is not by {producer} for this group")]
    Signature {
        /// Whose key stands in the head.
        producer: PeerId,
    },
    /// Not a list of members: bytes, fields or numbers.
    #[error("no list of members: {0}")]
    Members(String),
    /// The owner has not signed the list, or has for another group.
    #[error("the list of members is not signed by {owner} for this group")]
    Owner {
        /// Whose list it should be.
        owner: PeerId,
    },
    /// The key cannot sign.
    #[error("cannot sign: {0}")]
    Signing(String),
}

/// The id of a group: 32 bytes that every head's signature is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId([u8; 32]);

impl GroupId {
    /// The id of the open group of this name: 1 to [`MAX_GROUP_NAME_BYTES`] bytes, no control characters.
    pub fn open(name: &str) -> Result<Self, HeadError> {
        Self::hash(name, &[GROUP_DOMAIN, name.as_bytes()])
    }

    /// The id of this owner's closed group of this name, which may be as above: no other key can sign its lists of
    /// members.
    pub fn closed(name: &str, owner: &PeerId) -> Result<Self, HeadError> {
        Self::hash(name, &[CLOSED_DOMAIN, name.as_bytes(), &owner.to_bytes()])
    }

    fn hash(name: &str, parts: &[&[u8]]) -> Result<Self, HeadError> {
        if name.is_empty() || name.len() > MAX_GROUP_NAME_BYTES || name.contains(char::is_control) {
            return Err(HeadError::Name);
        }
        let mut bytes = Vec::with_capacity(256);
        parts.iter().for_each(|part| frame::append(&mut bytes, &[part]));
        Ok(Self(tree::sha256(&bytes)))
    }

    /// An id that was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What a head carries; one of the two, or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Payload {
    /// The producer's DAG.
    pub content: Option<Cid>,
    /// A few bytes in place, at most [`MAX_GROUP_INLINE_BYTES`].
    pub inline: Option<BoundedBytes<MAX_GROUP_INLINE_BYTES>>,
}

impl Payload {
    /// A DAG.
    pub fn content(content: Cid) -> Self {
        Self { content: Some(content), inline: None }
    }

    /// Bytes in place.
    pub fn inline(bytes: &[u8]) -> Result<Self, HeadError> {
        let max = MAX_GROUP_INLINE_BYTES;
        let too_large = |_| HeadError::TooLarge { what: "an inline payload", len: bytes.len(), max };
        Ok(Self { content: None, inline: Some(BoundedBytes::new(bytes).map_err(too_large)?) })
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = self.content.map(|content| content.to_string());
        f.debug_struct("Payload").field("content", &content).field("inline", &self.inline.as_deref()).finish()
    }
}

/// Where a head stands in the state: leaves are sorted by the hash of their producer's name, then by session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafKey {
    /// SHA-256 of the producer's peer id.
    pub name: [u8; 32],
    /// The session.
    pub session: u64,
}

impl LeafKey {
    /// The key of a producer's session.
    pub fn new(producer: &PeerId, session: u64) -> Self {
        Self { name: tree::sha256(&producer.to_bytes()), session }
    }
}

/// A head on the wire: a list, since thousands travel in one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fields {
    v: u64,
    pubkey: serde_bytes::ByteBuf,
    session: u64,
    sequence: u64,
    time: u64,
    content: Option<Cid>,
    inline: Option<BoundedBytes<MAX_GROUP_INLINE_BYTES>>,
}

type Wire = (
    u64,
    serde_bytes::ByteBuf,
    u64,
    u64,
    u64,
    Option<Cid>,
    Option<BoundedBytes<MAX_GROUP_INLINE_BYTES>>,
    serde_bytes::ByteBuf,
);

impl Fields {
    fn check(&self) -> Result<(), HeadError> {
        let refuse = |reason: String| Err(HeadError::Head(reason));
        if self.v != HEAD_VERSION {
            return refuse(format!("its version is {}, not {HEAD_VERSION}", self.v));
        }
        if self.sequence == 0 || self.sequence > MAX_GROUP_SEQUENCE {
            return refuse(format!("its sequence number is {}", self.sequence));
        }
        if self.content.is_none() && self.inline.is_none() {
            return refuse("it carries nothing".into());
        }
        let Some(content) = &self.content else { return Ok(()) };
        if content.encoded_len() > MAX_CID_BYTES {
            return refuse("its CID is too long".into());
        }
        check_cid(content).map(drop).map_err(|error| HeadError::Head(error.to_string()))
    }

    /// What is signed: the domain, the group, then each field, each behind its length as an unsigned varint; integers
    /// as eight bytes, big endian; a payload that is not there as nothing, one that is behind a byte 1.
    fn signed_bytes(&self, group: &GroupId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let (v, session) = (self.v.to_be_bytes(), self.session.to_be_bytes());
        let (sequence, time) = (self.sequence.to_be_bytes(), self.time.to_be_bytes());
        for part in [HEAD_DOMAIN, group.as_bytes(), &v, &self.pubkey, &session, &sequence, &time] {
            frame::append(&mut bytes, &[part]);
        }
        let content = self.content.map(|content| content.to_bytes());
        for part in [content.as_deref(), self.inline.as_deref()] {
            match part {
                Some(part) => frame::append(&mut bytes, &[&[1], part]),
                None => frame::append(&mut bytes, &[]),
            }
        }
        bytes
    }
}

/// A producer's word that a session of it in this group is at this sequence number. Exists only with a checked
/// signature.
///
/// On the wire: a DAG-CBOR list `[v, pubkey, session, sequence, time, content, inline, sig]` of at most
/// [`MAX_GROUP_HEAD_BYTES`]; `pubkey` is libp2p's protobuf encoding, absent payloads are null. The group is not in it,
/// but in what is signed: a head of one group is none in another.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupHead {
    fields: Fields,
    producer: PeerId,
    key: LeafKey,
    signed: Digest,
    bytes: Vec<u8>,
}

/// How a head stands to one that is known of the same producer and session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOrder {
    /// A higher sequence number.
    Newer,
    /// The very same fields.
    Same,
    /// A lower sequence number.
    Older,
    /// The same sequence number and other fields: the producer has said two things.
    Fork,
}

impl GroupHead {
    /// Signs that `session` is at `sequence` (1 to [`MAX_GROUP_SEQUENCE`]); `time` in Unix milliseconds.
    pub fn sign(
        key: &Keypair,
        group: &GroupId,
        session: u64,
        sequence: u64,
        payload: Payload,
        time: u64,
    ) -> Result<Self, HeadError> {
        let pubkey = key.public().encode_protobuf().into();
        let Payload { content, inline } = payload;
        let fields = Fields { v: HEAD_VERSION, pubkey, session, sequence, time, content, inline };
        fields.check()?;
        let signed = fields.signed_bytes(group);
        let sig = key.sign(&signed).map_err(|error| HeadError::Signing(error.to_string()))?;
        let Fields { v, pubkey, session, sequence, time, content, inline } = fields.clone();
        let wire: Wire = (v, pubkey, session, sequence, time, content, inline, sig.into());
        let bytes = cbor::to_vec(&wire).map_err(|error| HeadError::Head(error.to_string()))?;
        check_len(bytes.len())?;
        let producer = key.public().to_peer_id();
        let (key, signed) = (LeafKey::new(&producer, session), tree::sha256(&signed));
        Ok(Self { fields, producer, key, signed, bytes })
    }

    /// Reads a head of this group and checks its signature.
    pub fn decode(group: &GroupId, bytes: &[u8]) -> Result<Self, HeadError> {
        Unverified::parse(group, bytes)?.verify()
    }

    /// Its bytes, as on the wire.
    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    /// Who signed it.
    pub fn producer(&self) -> PeerId {
        self.producer
    }

    /// Which session of its producer: the producer's clock at its start, in Unix milliseconds.
    pub fn session(&self) -> u64 {
        self.fields.session
    }

    /// The sequence number, from 1 in each session.
    pub fn sequence(&self) -> u64 {
        self.fields.sequence
    }

    /// When it was signed, by the producer's clock, in Unix milliseconds.
    pub fn time(&self) -> u64 {
        self.fields.time
    }

    /// The producer's DAG.
    pub fn content(&self) -> Option<&Cid> {
        self.fields.content.as_ref()
    }

    /// The bytes in place.
    pub fn inline(&self) -> Option<&[u8]> {
        self.fields.inline.as_deref()
    }

    /// Its place in the state.
    pub fn key(&self) -> LeafKey {
        self.key
    }

    /// How this head stands to `known`, a head of the same producer and session.
    pub fn compare(&self, known: &Self) -> HeadOrder {
        order(self.sequence(), &self.signed, known)
    }

    /// The total order that the maximum is taken by: the sequence, and between two of one number the hash of what was
    /// signed, so that members who have seen both keep the same one.
    pub(crate) fn outranks(&self, known: &Self) -> bool {
        (self.sequence(), self.signed).cmp(&(known.sequence(), known.signed)) == Ordering::Greater
    }
}

impl fmt::Debug for GroupHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupHead({}/{}/{})", self.producer, self.session(), self.sequence())
    }
}

/// A head whose signature is not checked yet: enough to see whether that is worth the while.
pub(crate) struct Unverified<'a> {
    fields: Fields,
    sig: serde_bytes::ByteBuf,
    public: PublicKey,
    pub(crate) producer: PeerId,
    pub(crate) key: LeafKey,
    signed: Vec<u8>,
    bytes: &'a [u8],
}

impl<'a> Unverified<'a> {
    pub(crate) fn parse(group: &GroupId, bytes: &'a [u8]) -> Result<Self, HeadError> {
        check_len(bytes.len())?;
        let wire: Wire = cbor::from_slice(bytes).map_err(|error| HeadError::Head(error.to_string()))?;
        let (v, pubkey, session, sequence, time, content, inline, sig) = wire;
        let fields = Fields { v, pubkey, session, sequence, time, content, inline };
        fields.check()?;
        let public =
            PublicKey::try_decode_protobuf(&fields.pubkey).map_err(|error| HeadError::Head(error.to_string()))?;
        let producer = public.to_peer_id();
        let (key, signed) = (LeafKey::new(&producer, session), fields.signed_bytes(group));
        Ok(Self { fields, sig, public, producer, key, signed, bytes })
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.fields.sequence
    }

    /// Whether it could say anything that `known` does not.
    pub(crate) fn is_news_to(&self, known: &GroupHead) -> bool {
        let order = order(self.fields.sequence, &tree::sha256(&self.signed), known);
        matches!(order, HeadOrder::Newer | HeadOrder::Fork)
    }

    pub(crate) fn verify(self) -> Result<GroupHead, HeadError> {
        let Self { fields, sig, public, producer, key, signed, bytes } = self;
        if !public.verify(&signed, &sig) {
            return Err(HeadError::Signature { producer });
        }
        Ok(GroupHead { fields, producer, key, signed: tree::sha256(&signed), bytes: bytes.to_vec() })
    }
}

fn order(sequence: u64, signed: &Digest, known: &GroupHead) -> HeadOrder {
    match sequence.cmp(&known.sequence()) {
        Ordering::Greater => HeadOrder::Newer,
        Ordering::Less => HeadOrder::Older,
        Ordering::Equal if *signed == known.signed => HeadOrder::Same,
        Ordering::Equal => HeadOrder::Fork,
    }
}

fn check_len(len: usize) -> Result<(), HeadError> {
    let max = MAX_GROUP_HEAD_BYTES;
    if len > max { Err(HeadError::TooLarge { what: "a head of a group", len, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{group, head, key};

    #[test]
    fn a_head_comes_back_as_it_was_signed_and_no_byte_of_it_can_be_changed() {
        let signed = head(1, 7, 3, "text");
        assert_eq!(GroupHead::decode(&group(), signed.encode()), Ok(signed.clone()));
        for at in 0..signed.encode().len() {
            for bit in [1, 0x80] {
                let mut bytes = signed.encode().to_vec();
                bytes[at] ^= bit;
                assert!(GroupHead::decode(&group(), &bytes).is_err(), "byte {at} changed and the head was taken");
            }
        }
    }

    #[test]
    fn a_head_of_one_group_is_none_in_another() {
        let other = GroupId::open("another").expect("a name");
        let (signed, producer) = (head(1, 7, 3, "text"), key(1).public().to_peer_id());
        assert_eq!(GroupHead::decode(&other, signed.encode()), Err(HeadError::Signature { producer }));
    }

    #[test]
    fn heads_are_bounded() {
        let sign = |sequence, payload| GroupHead::sign(&key(1), &group(), 1, sequence, payload, 1);
        let text = |len| Payload::inline(&vec![7; len]);
        assert!(sign(MAX_GROUP_SEQUENCE, text(MAX_GROUP_INLINE_BYTES).expect("fits")).is_ok());
        assert!(text(MAX_GROUP_INLINE_BYTES + 1).is_err());
        assert!(sign(MAX_GROUP_SEQUENCE + 1, text(1).expect("fits")).is_err());
        assert!(sign(0, text(1).expect("fits")).is_err());
        assert!(sign(1, Payload::default()).is_err(), "it carries nothing");
        let long = vec![0; MAX_GROUP_HEAD_BYTES + 1];
        let refused = GroupHead::decode(&group(), &long);
        assert!(matches!(refused, Err(HeadError::TooLarge { .. })));
        assert!(!matches!(GroupHead::decode(&group(), &long[1..]), Err(HeadError::TooLarge { .. })));
        assert!(GroupId::open(&"n".repeat(MAX_GROUP_NAME_BYTES)).is_ok());
        for bad in ["", "a\nb", &"n".repeat(MAX_GROUP_NAME_BYTES + 1)] {
            assert!(GroupId::open(bad).is_err());
        }
    }

    #[test]
    fn an_absent_payload_and_an_empty_one_are_signed_differently() {
        let empty = Fields { inline: Some(Default::default()), ..head(1, 1, 1, "x").fields };
        let absent = Fields { inline: None, ..empty.clone() };
        assert_ne!(empty.signed_bytes(&group()), absent.signed_bytes(&group()));
    }
}
