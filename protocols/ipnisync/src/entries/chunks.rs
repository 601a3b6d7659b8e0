use std::iter::Peekable;

use cid::{Cid, multihash::Multihash};
use dagmesh_core::limits::{MAX_BLOCK_BYTES, MAX_IPNI_CHUNK_ENTRIES};
use dagmesh_dag::{Block, Codec};

use super::EntryChunk;
use crate::IpniError;

/// What a chunk takes beside its entries: names, brackets, the link to the next.
const ENVELOPE_BYTES: usize = 512;

/// Turns multihashes into a chain of entry chunks, one block at a time, in the order in which they link: each links to
/// the one before it. The last block is what the advertisement names; where there is none, it names
/// [`NO_ENTRIES`](crate::NO_ENTRIES).
///
/// A chunk is closed when it has the number of entries that was asked for, or when the next one would take its block over
/// [`MAX_BLOCK_BYTES`]. Holds one chunk in memory. Ends at the first error.
///
/// Source: index-provider, `engine/chunker/chain_chunker.go`: the same multihashes and number give the same blocks.
pub struct Chunks<I: Iterator> {
    multihashes: Peekable<I>,
    codec: Codec,
    max_entries: usize,
    next: Option<Cid>,
    failed: bool,
}

impl<I: Iterator<Item = Multihash<64>>> Chunks<I> {
    /// Chunks of `max_entries`, from 1 to [`MAX_IPNI_CHUNK_ENTRIES`];
    /// [`DEFAULT_IPNI_CHUNK_ENTRIES`](dagmesh_core::limits::DEFAULT_IPNI_CHUNK_ENTRIES) is the usual figure. Numbers beyond
    /// these bounds are taken for the nearest one.
    pub fn new(multihashes: impl IntoIterator<IntoIter = I>, codec: Codec, max_entries: usize) -> Self {
        let max_entries = max_entries.clamp(1, MAX_IPNI_CHUNK_ENTRIES);
        Self { multihashes: multihashes.into_iter().peekable(), codec, max_entries, next: None, failed: false }
    }

    fn chunk(&mut self) -> Option<EntryChunk> {
        let (codec, mut left) = (self.codec, MAX_BLOCK_BYTES - ENVELOPE_BYTES);
        let mut entries = Vec::new();
        while entries.len() < self.max_entries {
            let fits = |entry: &Multihash<64>| entry_bytes(codec, entry) <= left;
            let Some(entry) = self.multihashes.next_if(fits) else { break };
            left = left.saturating_sub(entry_bytes(codec, &entry));
            entries.push(entry.to_bytes());
        }
        (!entries.is_empty()).then_some(EntryChunk { entries, next: self.next })
    }
}

impl<I: Iterator<Item = Multihash<64>>> Iterator for Chunks<I> {
    type Item = Result<Block, IpniError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let block = self.chunk()?.to_block(self.codec);
        match &block {
            Ok(block) => self.next = Some(*block.cid()),
            Err(_) => self.failed = true,
        }
        Some(block)
    }
}

/// What an entry takes in its chunk.
fn entry_bytes(codec: Codec, entry: &Multihash<64>) -> usize {
    let len = entry.encoded_len();
    match codec {
        // {"/":{"bytes":"..."}} and a comma, the bytes in base64.
        Codec::DagJson => (len * 4).div_ceil(3) + 19,
        _ => len + if len < 24 { 1 } else { 2 },
    }
}
