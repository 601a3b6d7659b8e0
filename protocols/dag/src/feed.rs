//! Feeds: a publisher's chain of entries, and the signed head that says which entry is its newest.
//!
//! An [`Entry`] links to the one before it and to its content. A [`SignedHead`] is the publisher's word on where its
//! feed stands; it exists only with a checked signature, so whoever relays it need not be trusted.

use std::{cmp::Ordering, fmt, str::FromStr};

use cid::Cid;
use dagmesh_core::{cbor, limits};
use ipld_core::ipld::Ipld;
use libp2p_identity::{Keypair, PeerId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::{Block, BlockError, Codec, HashCode};

/// Domain of the signature of a head.
const HEAD_DOMAIN: &[u8] = b"dagmesh-head-v1";
/// Version of the signed head.
const HEAD_VERSION: u64 = 1;

/// Why an entry, a head or a feed's name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// Not a usable name.
    #[error("{name:?} is no name for a feed: {reason}")]
    Name {
        /// The name, cut to a bounded length.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not an entry of a feed.
    #[error("{cid} is no entry of a feed: {reason}")]
    Entry {
        /// The block.
        cid: Box<Cid>,
        /// What is wrong with it.
        reason: String,
    },
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
    /// Not a signed head.
    #[error("no signed head: {0}")]
    Head(String),
    /// The signature is not the publisher's.
    #[error("the signature of the head is not by {publisher}")]
    Signature {
        /// Whose key stands in the head.
        publisher: PeerId,
    },
    /// The key cannot sign.
    #[error("the key cannot sign: {0}")]
    Signing(String),
    /// The block cannot be made.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// The name of one of a publisher's feeds: 1 to [`limits::MAX_FEED_NAME_BYTES`] bytes of UTF-8, without control
/// characters and `/`. The default is `main`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FeedName(String);

impl FeedName {
    /// Takes a name, or says what is wrong with it.
    pub fn new(name: &str) -> Result<Self, FeedError> {
        let refuse = |reason| Err(FeedError::Name { name: name.chars().take(80).collect(), reason });
        if name.is_empty() {
            refuse("it is empty")
        } else if name.len() > limits::MAX_FEED_NAME_BYTES {
            refuse("it is longer than 128 bytes")
        } else if name.contains(|c: char| c.is_control() || c == '/') {
            refuse("it holds a control character or a slash")
        } else {
            Ok(Self(name.to_owned()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for FeedName {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl fmt::Display for FeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FeedName {
    type Err = FeedError;
    fn from_str(name: &str) -> Result<Self, FeedError> {
        Self::new(name)
    }
}

impl TryFrom<String> for FeedName {
    type Error = FeedError;
    fn try_from(name: String) -> Result<Self, FeedError> {
        Self::new(&name)
    }
}

impl From<FeedName> for String {
    fn from(name: FeedName) -> String {
        name.0
    }
}

/// One entry of a feed: a DAG-CBOR map of at most [`limits::MAX_ENTRY_BYTES`], absent fields left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The entry before this one; none in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Cid>,
    /// 1 in the first entry, one more in each that follows.
    pub seq: u64,
    /// When it was published, by the publisher's clock, in Unix milliseconds.
    pub time: u64,
    /// The root of what it publishes.
    pub content: Cid,
    /// Whatever the publisher wants to say about it, at most [`limits::MAX_ENTRY_META_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Ipld>,
}

impl Entry {
    /// The field that links to the entry before: what a chain selector follows.
    pub const CHAIN_FIELD: &'static str = "previous";

    /// The entry as a block: DAG-CBOR, SHA2-256.
    pub fn to_block(&self) -> Result<Block, FeedError> {
        self.check_meta()?;
        let bytes = cbor::to_vec(self).map_err(|error| FeedError::Head(error.to_string()))?;
        check_len("an entry", bytes.len(), limits::MAX_ENTRY_BYTES)?;
        Ok(Block::new(Codec::DagCbor, HashCode::Sha2_256, bytes)?)
    }

    /// Reads an entry from its block.
    pub fn from_block(block: &Block) -> Result<Self, FeedError> {
        let refuse = |reason: String| FeedError::Entry { cid: Box::new(*block.cid()), reason };
        if block.cid().codec() != Codec::DagCbor as u64 {
            return Err(refuse("its codec is not dag-cbor".into()));
        }
        check_len("an entry", block.data().len(), limits::MAX_ENTRY_BYTES)?;
        let entry: Self = cbor::from_slice(block.data()).map_err(|error| refuse(error.to_string()))?;
        match (entry.seq, entry.previous) {
            (0, _) => Err(refuse("its sequence number is 0".into())),
            (1, Some(_)) => Err(refuse("it is the first one and yet has a previous one".into())),
            (2.., None) => Err(refuse("it is not the first one and yet has no previous one".into())),
            _ => entry.check_meta().map(|()| entry),
        }
    }

    fn check_meta(&self) -> Result<(), FeedError> {
        let Some(meta) = &self.meta else { return Ok(()) };
        let len = cbor::to_vec(meta).map_err(|error| FeedError::Head(error.to_string()))?.len();
        check_len("an entry's meta", len, limits::MAX_ENTRY_META_BYTES)
    }
}

/// The fields of a signed head on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadFields {
    v: u64,
    head: Cid,
    topic: FeedName,
    seq: u64,
    time: u64,
    pubkey: serde_bytes::ByteBuf,
    sig: serde_bytes::ByteBuf,
}

impl HeadFields {
    /// What holds for a head on both sides, whoever has signed it.
    fn check(&self) -> Result<(), FeedError> {
        if self.seq == 0 {
            return Err(FeedError::Head("its sequence number is 0".into()));
        }
        crate::check_cid(&self.head).map(drop).map_err(|error| FeedError::Head(error.to_string()))
    }

    /// What is signed: the domain, then each field but the signature, each behind its length as an unsigned varint;
    /// integers as eight bytes, big endian.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        let (v, seq, time) = (self.v.to_be_bytes(), self.seq.to_be_bytes(), self.time.to_be_bytes());
        let parts: [&[u8]; 7] =
            [HEAD_DOMAIN, &v, &self.head.to_bytes(), self.topic.0.as_bytes(), &seq, &time, &self.pubkey];
        for part in parts {
            dagmesh_core::frame::append(&mut bytes, &[part]);
        }
        bytes
    }
}

/// How a head stands to one that is already known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOrder {
    /// A higher sequence number: take it.
    Newer,
    /// The very same entry.
    Same,
    /// A lower sequence number: a replay, or a late message.
    Older,
    /// The same sequence number with another entry: the publisher has said two things.
    Fork,
}

/// A publisher's word on the newest entry of one of its feeds. Exists only with a checked signature.
///
/// On the wire: a DAG-CBOR map `{v, head, topic, seq, time, pubkey, sig}` of at most
/// [`limits::MAX_SIGNED_HEAD_BYTES`]; `pubkey` is libp2p's protobuf encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    fields: HeadFields,
    publisher: PeerId,
    bytes: Vec<u8>,
}

impl SignedHead {
    /// Signs that entry `head` with number `seq` is the newest of `feed`; `time` in Unix milliseconds.
    pub fn sign(key: &Keypair, feed: &FeedName, head: Cid, seq: u64, time: u64) -> Result<Self, FeedError> {
        let pubkey = key.public().encode_protobuf().into();
        let mut fields =
            HeadFields { v: HEAD_VERSION, head, topic: feed.clone(), seq, time, pubkey, sig: Default::default() };
        fields.check()?;
        let sig = key.sign(&fields.signed_bytes()).map_err(|error| FeedError::Signing(error.to_string()))?;
        fields.sig = sig.into();
        let bytes = cbor::to_vec(&fields).map_err(|error| FeedError::Head(error.to_string()))?;
        check_len("a signed head", bytes.len(), limits::MAX_SIGNED_HEAD_BYTES)?;
        Ok(Self { fields, publisher: key.public().to_peer_id(), bytes })
    }

    /// Reads a head and checks its signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, FeedError> {
        check_len("a signed head", bytes.len(), limits::MAX_SIGNED_HEAD_BYTES)?;
        let fields: HeadFields = cbor::from_slice(bytes).map_err(|error| FeedError::Head(error.to_string()))?;
        if fields.v != HEAD_VERSION {
            return Err(FeedError::Head(format!("its version is {}, not {HEAD_VERSION}", fields.v)));
        }
        fields.check()?;
        let key = PublicKey::try_decode_protobuf(&fields.pubkey).map_err(|error| FeedError::Head(error.to_string()))?;
        let publisher = key.to_peer_id();
        if !key.verify(&fields.signed_bytes(), &fields.sig) {
            return Err(FeedError::Signature { publisher });
        }
        Ok(Self { fields, publisher, bytes: bytes.to_vec() })
    }

    /// Its bytes, as signed and as on the wire.
    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    /// Who signed it.
    pub fn publisher(&self) -> PeerId {
        self.publisher
    }

    /// Of which feed.
    pub fn feed(&self) -> &FeedName {
        &self.fields.topic
    }

    /// The newest entry.
    pub fn head(&self) -> &Cid {
        &self.fields.head
    }

    /// The newest entry's sequence number, from 1.
    pub fn seq(&self) -> u64 {
        self.fields.seq
    }

    /// When it was signed, by the publisher's clock, in Unix milliseconds.
    pub fn time(&self) -> u64 {
        self.fields.time
    }

    /// How this head stands to `known`, a head of the same publisher and feed.
    pub fn compare(&self, known: &Self) -> HeadOrder {
        match self.seq().cmp(&known.seq()) {
            Ordering::Greater => HeadOrder::Newer,
            Ordering::Less => HeadOrder::Older,
            Ordering::Equal if self.head() == known.head() => HeadOrder::Same,
            Ordering::Equal => HeadOrder::Fork,
        }
    }
}

fn check_len(what: &'static str, len: usize, max: usize) -> Result<(), FeedError> {
    if len > max { Err(FeedError::TooLarge { what, len, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> Cid {
        *Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block").cid()
    }

    fn head(key: &Keypair, seq: u64, text: &str) -> SignedHead {
        SignedHead::sign(key, &FeedName::default(), content(text), seq, 1_700_000_000_000).expect("signs")
    }

    #[test]
    fn a_head_comes_back_as_it_was_signed() {
        let key = Keypair::generate_ed25519();
        let signed = head(&key, 7, "head");
        assert_eq!(SignedHead::decode(signed.encode()), Ok(signed.clone()));
        assert_eq!(signed.publisher(), key.public().to_peer_id());
        assert_eq!((signed.seq(), signed.feed().as_str()), (7, "main"));
    }

    #[test]
    fn no_byte_of_a_head_can_be_changed() {
        let signed = head(&Keypair::generate_ed25519(), 7, "head");
        for at in 0..signed.encode().len() {
            for bit in [1, 0x80] {
                let mut bytes = signed.encode().to_vec();
                bytes[at] ^= bit;
                assert!(SignedHead::decode(&bytes).is_err(), "byte {at} changed and the head was taken");
            }
        }
    }

    #[test]
    fn a_head_that_nobody_would_take_is_not_signed() {
        let (key, feed) = (Keypair::generate_ed25519(), FeedName::default());
        let weak = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x11, &[1; 20]).expect("fits"));
        for (entry, seq) in [(content("one"), 0), (weak, 1)] {
            assert!(matches!(SignedHead::sign(&key, &feed, entry, seq, 1), Err(FeedError::Head(_))));
        }
    }

    #[test]
    fn a_head_with_another_key_put_in_is_refused() {
        let signed = head(&Keypair::generate_ed25519(), 7, "head");
        let other = Keypair::generate_ed25519();
        let mut fields = signed.fields;
        fields.pubkey = other.public().encode_protobuf().into();
        let bytes = cbor::to_vec(&fields).expect("encodes");
        assert_eq!(SignedHead::decode(&bytes), Err(FeedError::Signature { publisher: other.public().to_peer_id() }));
    }

    #[test]
    fn heads_are_ordered_by_sequence_and_a_fork_is_told() {
        let key = Keypair::generate_ed25519();
        let known = head(&key, 7, "seven");
        assert_eq!(head(&key, 8, "eight").compare(&known), HeadOrder::Newer);
        assert_eq!(head(&key, 7, "seven").compare(&known), HeadOrder::Same);
        assert_eq!(head(&key, 6, "six").compare(&known), HeadOrder::Older);
        assert_eq!(head(&key, 7, "another seven").compare(&known), HeadOrder::Fork);
    }

    #[test]
    fn an_entry_is_its_block() {
        let first = Entry { previous: None, seq: 1, time: 5, content: content("one"), meta: None };
        let block = first.to_block().expect("a block");
        assert_eq!(Entry::from_block(&block), Ok(first));
        let meta = Some(Ipld::String("notes".into()));
        let second = Entry { previous: Some(*block.cid()), seq: 2, time: 6, content: content("two"), meta };
        assert_eq!(Entry::from_block(&second.to_block().expect("a block")), Ok(second));
    }

    #[test]
    fn an_entry_whose_number_and_previous_disagree_is_refused() {
        let entry = |seq, previous| Entry { previous, seq, time: 5, content: content("one"), meta: None };
        for (seq, previous) in [(0, None), (1, Some(content("x"))), (2, None)] {
            assert!(Entry::from_block(&entry(seq, previous).to_block().expect("a block")).is_err());
        }
    }

    #[test]
    fn meta_is_taken_at_the_cap_and_refused_beyond_it() {
        let meta = |len: usize| Some(Ipld::Bytes(vec![0; len - 3]));
        let entry = |meta| Entry { previous: None, seq: 1, time: 5, content: content("one"), meta };
        let (fits, over) = (entry(meta(limits::MAX_ENTRY_META_BYTES)), entry(meta(limits::MAX_ENTRY_META_BYTES + 1)));
        assert!(fits.to_block().is_ok() && over.to_block().is_err());
        let read = |entry| {
            let bytes = cbor::to_vec(&entry).expect("encodes");
            Entry::from_block(&Block::new(Codec::DagCbor, HashCode::Sha2_256, bytes).expect("a block"))
        };
        assert!(read(fits).is_ok());
        assert!(matches!(read(over), Err(FeedError::TooLarge { .. })), "nor may a stranger's be longer");
    }

    #[test]
    fn names_of_feeds_are_bounded() {
        assert!(FeedName::new(&"n".repeat(limits::MAX_FEED_NAME_BYTES)).is_ok());
        for bad in ["", "a/b", "a\nb", &"n".repeat(limits::MAX_FEED_NAME_BYTES + 1)] {
            assert!(FeedName::new(bad).is_err(), "{bad:?} was taken");
        }
    }
}
