use std::fmt;

use cid::{Cid, multihash::Multihash};
use dagmesh_core::{
    bounded::BoundedVec,
    limits::{MAX_BLOCK_BYTES, MAX_IPNI_HAMT_FANOUT},
};
use dagmesh_dag::Block;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value},
};

use super::multihashes;
use crate::{
    IpniError,
    wire::{self, Blob, Link, Map, codec_of},
};

const ROOT: &str = "root of a HAMT";
const NODE: &str = "node of a HAMT";

/// One node of a HAMT whose keys are the multihashes: those in its own buckets, and links to the nodes below.
///
/// It is read as a set: whoever walks all nodes has all keys, and needs neither the hash that sorts them into buckets nor
/// the bitmap that says which buckets there are. Neither is checked; a key may come twice.
///
/// Source: <https://ipld.io/specs/advanced-data-layouts/hamt/spec/>, go-ipld-adl-hamt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HamtNode {
    /// The keys in its buckets, as they came.
    pub entries: Vec<Vec<u8>>,
    /// The nodes below it, at most [`MAX_IPNI_HAMT_FANOUT`].
    pub links: Vec<Cid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    #[serde(rename = "hashAlg")]
    _hash_alg: u64,
    #[serde(rename = "bucketSize")]
    _bucket_size: u64,
    hamt: Node,
}

/// The bitmap, and an element for each of its bits.
type Node = (Blob, BoundedVec<Element, MAX_IPNI_HAMT_FANOUT>);
/// Keys, and values of no account.
type Bucket = BoundedVec<(Blob, IgnoredAny), MAX_IPNI_HAMT_FANOUT>;

enum Element {
    Link(Cid),
    Bucket(Bucket),
}

impl HamtNode {
    /// Reads the root, the node that an advertisement names.
    pub fn root_from_block(block: &Block) -> Result<Self, IpniError> {
        let Map(root): Map<Root> = wire::decode(ROOT, codec_of(block)?, block.data(), MAX_BLOCK_BYTES)?;
        Ok(root.hamt.into())
    }

    /// Reads a node below the root.
    pub fn from_block(block: &Block) -> Result<Self, IpniError> {
        let node: Node = wire::decode(NODE, codec_of(block)?, block.data(), MAX_BLOCK_BYTES)?;
        Ok(node.into())
    }

    /// The keys that are multihashes with a digest of at most 64 bytes; others are passed over.
    pub fn multihashes(&self) -> impl Iterator<Item = Multihash<64>> {
        multihashes(&self.entries)
    }
}

impl From<Node> for HamtNode {
    fn from((_, elements): Node) -> Self {
        let (mut entries, mut links) = (Vec::new(), Vec::new());
        for element in elements.into_inner() {
            match element {
                Element::Link(cid) => links.push(cid),
                Element::Bucket(bucket) => entries.extend(bucket.into_inner().into_iter().map(|(key, _)| key.0)),
            }
        }
        Self { entries, links }
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByKind;

        impl<'de> Visitor<'de> for ByKind {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a link or a bucket")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Element, A::Error> {
                Bucket::deserialize(value::SeqAccessDeserializer::new(list)).map(Element::Bucket)
            }

            // A link in DAG-JSON.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                Link::deserialize(value::MapAccessDeserializer::new(map)).map(|link| Element::Link(link.0))
            }

            // A link in DAG-CBOR.
            fn visit_newtype_struct<D: Deserializer<'de>>(self, bytes: D) -> Result<Element, D::Error> {
                bytes.deserialize_bytes(cid::serde::BytesToCidVisitor).map(Element::Link)
            }
        }

        deserializer.deserialize_any(ByKind)
    }
}
