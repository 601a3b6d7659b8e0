//! The multihashes that an advertisement is about.
//!
//! They stand in a chain of chunks ([`EntryChunk`]), or in a HAMT that is used as a set ([`HamtNode`]).

mod chunks;
mod hamt;
#[cfg(test)]
mod tests;

use cid::{Cid, multihash::Multihash};
use dagmesh_core::limits::{MAX_BLOCK_BYTES, MAX_IPNI_CHUNK_ENTRIES};
use dagmesh_dag::{Block, Codec, HashCode};
use serde::{Deserialize, Serialize};

pub use self::{chunks::Chunks, hamt::HamtNode};
use crate::{
    IpniError,
    wire::{self, Map, check, codec_of},
};

const WHAT: &str = "entry chunk";

/// What [`Advertisement::entries`](crate::Advertisement::entries) leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entries {
    /// The first chunk of a chain.
    Chunk(EntryChunk),
    /// The root of a HAMT.
    Hamt(HamtNode),
}

impl Entries {
    /// Reads the block that an advertisement names.
    pub fn from_block(block: &Block) -> Result<Self, IpniError> {
        match EntryChunk::from_block(block) {
            Ok(chunk) => Ok(Self::Chunk(chunk)),
            Err(error) => HamtNode::root_from_block(block).map(Self::Hamt).map_err(|_| error),
        }
    }
}

/// Some of the multihashes, and a link to the chunk with more.
///
/// On the wire: a map `{Entries, Next}` in a block of at most [`MAX_BLOCK_BYTES`], DAG-JSON or DAG-CBOR, `Next` left out in
/// the last.
///
/// Source: go-libipni 0.7, `ingest/schema/schema.ipldsch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct EntryChunk {
    /// The multihashes as they came, at most [`MAX_IPNI_CHUNK_ENTRIES`]; see [`EntryChunk::multihashes`].
    #[serde(with = "wire::blobs")]
    pub entries: Vec<Vec<u8>>,
    /// The next chunk.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::optional_link")]
    pub next: Option<Cid>,
}

impl EntryChunk {
    /// Reads a chunk. Total and bounded; the entries may be anything.
    pub fn decode(codec: Codec, bytes: &[u8]) -> Result<Self, IpniError> {
        let Map(chunk) = wire::decode(WHAT, codec, bytes, MAX_BLOCK_BYTES)?;
        Ok(chunk)
    }

    /// Its bytes, canonical. Fails where a cap is passed.
    pub fn encode(&self, codec: Codec) -> Result<Vec<u8>, IpniError> {
        check("entries of a chunk", self.entries.len(), MAX_IPNI_CHUNK_ENTRIES)?;
        wire::encode(WHAT, codec, self, MAX_BLOCK_BYTES)
    }

    /// Reads a chunk from its block, in the codec that the CID names.
    pub fn from_block(block: &Block) -> Result<Self, IpniError> {
        Self::decode(codec_of(block)?, block.data())
    }

    /// The chunk as a block, under SHA2-256.
    pub fn to_block(&self, codec: Codec) -> Result<Block, IpniError> {
        Ok(Block::new(codec, HashCode::Sha2_256, self.encode(codec)?)?)
    }

    /// The entries that are multihashes with a digest of at most 64 bytes. Others are passed over: an indexer drops what
    /// it cannot read and keeps the rest.
    pub fn multihashes(&self) -> impl Iterator<Item = Multihash<64>> {
        multihashes(&self.entries)
    }
}

fn multihashes(entries: &[Vec<u8>]) -> impl Iterator<Item = Multihash<64>> {
    entries.iter().filter_map(|entry| Multihash::from_bytes(entry).ok())
}
