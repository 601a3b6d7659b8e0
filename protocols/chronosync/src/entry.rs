//! What the content of a head points to: a producer's publications, as a chain of blocks.
//!
//! The head of number n names the entry of number n, whose `previous` is the entry of number n - 1: whoever was told of
//! n alone fetches the chain down to the last entry it holds. An entry of number 1 has none before it, or the last one
//! of an earlier session; who walks a session stops at number 1.

use cid::Cid;
use dagmesh_core::{
    bounded::BoundedString,
    cbor,
    limits::{MAX_GROUP_ENTRY_BYTES, MAX_GROUP_INLINE_BYTES, MAX_GROUP_TEXT_BYTES},
};
use dagmesh_dag::{Block, BlockError, Codec, HashCode, check_cid};
use serde::{Deserialize, Serialize};

use crate::head::{GroupHead, Payload};

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Not an entry.
    #[error("{cid} is no entry of a group: {reason}")]
    Entry {
        /// The block.
        cid: Box<Cid>,
        /// What is wrong with it.
        reason: String,
    },
    /// Not one that may be made.
    #[error("cannot be an entry of a group: {0}")]
    Fields(String),
    /// The block cannot be made, or the bytes beside a head are not the block that it names.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// One publication.
///
/// As a block (DAG-CBOR, SHA2-256) of at most [`MAX_GROUP_ENTRY_BYTES`]: a map of `prev` (link or null), `time` (Unix
/// milliseconds) and either `text` or `content` (link).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The entry before this one.
    pub previous: Option<Cid>,
    /// When it was published, by the producer's clock, in Unix milliseconds.
    pub time: u64,
    /// What is published.
    pub body: Body,
}

/// What an [`Entry`] publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Text of at most [`MAX_GROUP_TEXT_BYTES`] of UTF-8.
    Text(String),
    /// The root of a DAG.
    Content(Cid),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    prev: Option<Cid>,
    time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<BoundedString<MAX_GROUP_TEXT_BYTES>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Cid>,
}

impl Entry {
    /// The field that links to the entry before: what a chain selector follows.
    pub const CHAIN_FIELD: &'static str = "prev";

    /// The entry as a block.
    pub fn to_block(&self) -> Result<Block, EntryError> {
        let (text, content) = match &self.body {
            Body::Text(text) => (Some(BoundedString::new(text.as_str()).map_err(fields)?), None),
            Body::Content(content) => (None, Some(*content)),
        };
        for link in self.previous.iter().chain(&content) {
            check_cid(link).map_err(fields)?;
        }
        let wire = Wire { prev: self.previous, time: self.time, text, content };
        let bytes = cbor::to_vec(&wire).map_err(fields)?;
        Ok(Block::new(Codec::DagCbor, HashCode::Sha2_256, bytes)?)
    }

    /// Reads an entry from its block; an entry has one spelling.
    pub fn from_block(block: &Block) -> Result<Self, EntryError> {
        let refuse = |reason: String| EntryError::Entry { cid: Box::new(*block.cid()), reason };
        let kind = check_cid(block.cid()).map_err(|error| refuse(error.to_string()))?;
        if kind != (Codec::DagCbor, HashCode::Sha2_256) {
            return Err(refuse("its CID is not of dag-cbor and sha2-256".into()));
        }
        let len = block.data().len();
        if len > MAX_GROUP_ENTRY_BYTES {
            return Err(refuse(format!("it has {len} bytes where at most {MAX_GROUP_ENTRY_BYTES} may stand")));
        }
        let wire: Wire = cbor::from_slice(block.data()).map_err(|error| refuse(error.to_string()))?;
        let body = match (wire.text, wire.content) {
            (Some(text), None) => Body::Text(text.into_inner()),
            (None, Some(content)) => Body::Content(content),
            _ => return Err(refuse("it has not exactly one of text and content".into())),
        };
        let entry = Self { previous: wire.prev, time: wire.time, body };
        // A null that should not be there, or none where one should; a link that nobody could follow.
        match entry.to_block() {
            Ok(again) if again == *block => Ok(entry),
            Ok(_) => Err(refuse("it is not in its one form".into())),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// The payload of the head that names this entry's block: its CID and, where they are at most
    /// [`MAX_GROUP_INLINE_BYTES`], its bytes, so that members need no round trip.
    pub fn payload(block: &Block) -> Result<Payload, EntryError> {
        Self::from_block(block)?;
        let inline = match block.data().len() <= MAX_GROUP_INLINE_BYTES {
            true => Payload::inline(block.data()).map_err(fields)?.inline,
            false => None,
        };
        Ok(Payload { content: Some(*block.cid()), inline })
    }

    /// The entry that a head carries in place, with its block; `None` where it carries none. An error where its bytes
    /// are not the block that its content names, or that is no entry.
    pub fn of_head(head: &GroupHead) -> Result<Option<(Block, Self)>, EntryError> {
        let (Some(content), Some(inline)) = (head.content(), head.inline()) else { return Ok(None) };
        let block = Block::verify(*content, inline.to_vec())?;
        let entry = Self::from_block(&block)?;
        Ok(Some((block, entry)))
    }
}

fn fields(error: impl std::fmt::Display) -> EntryError {
    EntryError::Fields(error.to_string())
}

#[cfg(test)]
mod tests {
    use dagmesh_core::limits::MAX_CID_BYTES;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{NOW_MS, group, key};

    fn link(text: &str) -> Cid {
        *Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block").cid()
    }

    fn text(len: usize) -> Entry {
        Entry { previous: Some(link("before")), time: NOW_MS, body: Body::Text("x".repeat(len)) }
    }

    fn block(bytes: Vec<u8>) -> Block {
        Block::new(Codec::DagCbor, HashCode::Sha2_256, bytes).expect("a block")
    }

    fn head(payload: Payload) -> GroupHead {
        GroupHead::sign(&key(1), &group(), 1, 1, payload, NOW_MS).expect("signs")
    }

    #[test]
    fn text_is_taken_at_the_cap_and_refused_beyond_it() {
        assert!(text(MAX_GROUP_TEXT_BYTES).to_block().is_ok());
        assert!(text(MAX_GROUP_TEXT_BYTES + 1).to_block().is_err());
        let long = |len| {
            let map = std::collections::BTreeMap::from([("text", "x".repeat(len))]);
            let rest = std::collections::BTreeMap::from([("prev", None::<Cid>)]);
            let (map, rest) = (cbor::to_vec(&map).expect("encodes"), cbor::to_vec(&rest).expect("encodes"));
            // `{prev, text, time}`, by hand.
            block([&[0xa3], &rest[1..], &map[1..], b"\x64time\x01"].concat())
        };
        assert!(Entry::from_block(&long(MAX_GROUP_TEXT_BYTES)).is_ok());
        assert!(Entry::from_block(&long(MAX_GROUP_TEXT_BYTES + 1)).is_err());
        // The longest that there can be is within the cap on the block.
        let digest = cid::multihash::Multihash::wrap(0x13, &[1; 64]).expect("fits");
        let widest = Cid::new_v1(0x71, digest);
        assert!(widest.encoded_len() < MAX_CID_BYTES);
        let entry = Entry { previous: Some(widest), time: u64::MAX, ..text(MAX_GROUP_TEXT_BYTES) };
        let bytes = entry.to_block().expect("a block").data().len();
        assert!(bytes + MAX_CID_BYTES - widest.encoded_len() <= MAX_GROUP_ENTRY_BYTES, "{bytes}");
        assert!(Entry::from_block(&block(vec![0; MAX_GROUP_ENTRY_BYTES + 1])).is_err());
    }

    #[test]
    fn an_entry_has_one_spelling_and_exactly_one_body() {
        let map = |pairs: &[&[u8]]| block([&[0xa0 + pairs.len() as u8], &pairs.concat()[..]].concat());
        let (prev, body, time) = (&b"\x64prev\xf6"[..], &b"\x64text\x61x"[..], &b"\x64time\x01"[..]);
        let none = &b"\x67content\xf6"[..];
        let expected = Entry { previous: None, time: 1, body: Body::Text("x".into()) };
        assert_eq!(Entry::from_block(&map(&[prev, body, time])), Ok(expected));
        let wrong: [&[&[u8]]; 5] = [
            &[body, time],
            &[prev, time],
            &[prev, body],
            &[prev, body, time, none],
            &[prev, body, time, b"\x67another\x01"],
        ];
        for pairs in wrong {
            assert!(Entry::from_block(&map(pairs)).is_err(), "{pairs:?}");
        }
        let content = [&b"\x67content"[..], &cbor::to_vec(&link("x")).expect("a link")].concat();
        assert!(Entry::from_block(&map(&[prev, time, &content])).is_ok());
        assert!(Entry::from_block(&map(&[prev, body, time, &content])).is_err());
        let raw = Block::new(Codec::Raw, HashCode::Sha2_256, text(1).to_block().expect("a block").data().clone());
        assert!(Entry::from_block(&raw.expect("a block")).is_err(), "not of its codec");
    }

    #[test]
    fn a_head_carries_its_entry_while_that_is_small_and_no_other_bytes_pass_for_it() {
        let len = |entry: &Entry| entry.to_block().expect("a block").data().len();
        let most = (0..MAX_GROUP_INLINE_BYTES).rev().find(|n| len(&text(*n)) <= MAX_GROUP_INLINE_BYTES).expect("fits");
        let (small, large) = (text(most).to_block().expect("a block"), text(most + 1).to_block().expect("a block"));
        assert_eq!((small.data().len(), large.data().len()), (MAX_GROUP_INLINE_BYTES, MAX_GROUP_INLINE_BYTES + 1));
        let payload = Entry::payload(&small).expect("an entry");
        assert_eq!(Entry::of_head(&head(payload.clone())), Ok(Some((small.clone(), text(most)))));
        let far = Entry::payload(&large).expect("an entry");
        assert_eq!((far.content, far.inline.is_none()), (Some(*large.cid()), true));
        assert_eq!(Entry::of_head(&head(far.clone())), Ok(None));
        // Its bytes are of another entry; they are of its content, and that is no entry.
        let another = Payload { content: far.content, inline: payload.inline };
        assert!(matches!(Entry::of_head(&head(another)), Err(EntryError::Block(_))));
        let no_entry = block(vec![0xa0]);
        assert!(Entry::payload(&no_entry).is_err());
        let inline = Payload::inline(no_entry.data()).expect("short");
        let no_entry = Payload { content: Some(*no_entry.cid()), ..inline.clone() };
        assert!(matches!(Entry::of_head(&head(no_entry)), Err(EntryError::Entry { .. })));
        assert_eq!(Entry::of_head(&head(inline)), Ok(None), "it names none");
    }

    proptest! {
        #[test]
        fn an_entry_is_its_block(
            previous in prop::option::of("[a-z]{3}"), time: u64, body in ".{0,40}", is_text: bool,
        ) {
            let content = if is_text { Body::Text(body) } else { Body::Content(link(&body)) };
            let entry = Entry { previous: previous.map(|text| link(&text)), time, body: content };
            let block = entry.to_block().expect("a block");
            prop_assert_eq!(Entry::from_block(&block), Ok(entry));
        }

        #[test]
        fn any_bytes_are_an_entry_of_one_spelling_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), byte: u8,
        ) {
            let mut changed = text(9).to_block().expect("a block").data().to_vec();
            *at.get_mut(&mut changed) = byte;
            for bytes in [bytes, changed] {
                let block = block(bytes);
                if let Ok(entry) = Entry::from_block(&block) {
                    prop_assert_eq!(entry.to_block().expect("a block"), block);
                }
            }
        }
    }
}
