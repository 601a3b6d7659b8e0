//! What every store of blocks offers.

use std::io;

use bytes::Bytes;
use cid::Cid;

use crate::{Block, BlockError, Digests};

/// Where blocks are kept, by multihash: one content under two codecs is held once.
///
/// The calls block on the disk; async code makes them on a thread of their own (`blocking::unblock`,
/// `spawn_blocking`), in batches. Identity CIDs are always held, never stored. Every implementation passes
/// [`conformance`](crate::conformance).
pub trait Blockstore: Send + Sync + 'static {
    /// The bytes of `cid`; `None` where they are not held.
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError>;

    /// Whether `cid` is held.
    fn has(&self, cid: &Cid) -> Result<bool, StoreError>;

    /// Stores blocks, all or none, and returns how many of them were not held before. They can be read at once;
    /// they are durable after the next [`sync`](Self::sync).
    fn put_many(&self, blocks: &[Block]) -> Result<usize, StoreError>;

    /// Makes all that was put before this call durable. Calls from several threads share one sync of the disk.
    fn sync(&self) -> Result<(), StoreError>;

    /// Removes blocks; those not held are passed over.
    fn remove(&self, cids: &[Cid]) -> Result<(), StoreError>;

    /// Puts a block aside whose bytes no longer match its CID: it counts as not held and can be put again.
    fn quarantine(&self, cid: &Cid) -> Result<(), StoreError>;

    /// The block of `cid`, trusted as stored.
    fn block(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        Ok(self.get(cid)?.map(|data| Block::trusted(*cid, data)))
    }

    /// The block of `cid`, hashed again; one that fails is quarantined and counts as not held.
    fn verified_block(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        let Some(data) = self.get(cid)? else { return Ok(None) };
        // What is stored was proven when it was put, by whichever rule.
        match Block::verify_with(*cid, data, Digests::OrCut) {
            Ok(block) => Ok(Some(block)),
            Err(_) => {
                self.quarantine(cid)?;
                Ok(None)
            }
        }
    }

    /// Stores one block and makes it durable.
    fn put(&self, block: &Block) -> Result<(), StoreError> {
        self.put_many(std::slice::from_ref(block))?;
        self.sync()
    }
}

/// Why a store could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full. Nothing of the call was acknowledged.
    #[error("no space left on the device that holds the store")]
    NoSpace,
    /// The disk failed. Nothing of the call was acknowledged.
    #[error("the store's disk failed: {0}")]
    Io(#[from] io::Error),
    /// What is on the disk is not what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The block itself is refused.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The store has been closed, or has failed before and takes no more writes.
    #[error("the store is closed: {0}")]
    Closed(String),
}
