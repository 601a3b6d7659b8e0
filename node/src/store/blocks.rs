//! The blocks, by multihash.

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use dagmesh_dag::{Block, Blockstore, Codec, HashCode, StoreError};
use tokio::sync::Notify;

use super::{
    Batch, Store,
    error::{from_engine, is_damage},
    gate::block_id,
    lanes::Place,
};

/// From here on a value is handed out as it stands in the cache, and not copied.
const SHARE_FROM_BYTES: usize = 16 * 1024;
/// Most damaged blocks whose bytes are kept for somebody to look at; of more, only the count is.
const MAX_QUARANTINED: u64 = 1024;

impl Blockstore for Store {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        if let Some(inline) = Block::inline(cid) {
            return Ok(Some(inline.into_parts().1));
        }
        let mut gate = self.gate.enter();
        if let Some(gate) = &mut gate {
            gate.touched.insert(block_id(cid.hash()));
        }
        let found = self.read_block(cid.hash());
        drop(gate);
        match found? {
            Found::Bytes(bytes) => Ok(Some(bytes)),
            Found::Nothing => Ok(None),
            Found::Damaged => {
                // Whoever reads inside a transaction has the lock already; the next reader puts the block aside.
                if let Some(writer) = self.writer.try_lock() {
                    tracing::warn!(%cid, "a stored block is damaged and counts as not held");
                    self.write_with(writer, |batch| batch.quarantine_block(cid.hash()))?;
                }
                Ok(None)
            }
        }
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        if cid.hash().code() == HashCode::Identity as u64 {
            return Ok(true);
        }
        let mut gate = self.gate.enter();
        if let Some(gate) = &mut gate {
            gate.touched.insert(block_id(cid.hash()));
        }
        self.holds_block(cid.hash())
    }

    fn put_many(&self, blocks: &[Block]) -> Result<usize, StoreError> {
        self.transaction_unsynced(|batch| batch.put_only(blocks))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.engine.sync()
    }

    fn remove(&self, cids: &[Cid]) -> Result<(), StoreError> {
        let mut hashes: Vec<_> = cids.iter().map(Cid::hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        self.transaction_unsynced(|batch| {
            for hash in hashes {
                batch.remove_block(&hash.to_bytes())?;
            }
            Ok(())
        })
    }

    fn quarantine(&self, cid: &Cid) -> Result<(), StoreError> {
        tracing::warn!(%cid, "a stored block is damaged and counts as not held");
        self.transaction_unsynced(|batch| batch.quarantine_block(cid.hash()))
    }
}

/// What stands under a multihash.
pub(super) enum Found {
    Bytes(Bytes),
    Nothing,
    /// The engine's own checksum does not match.
    Damaged,
}

impl Store {
    /// Reads a block past the gate.
    pub(super) fn read_block(&self, hash: &Multihash<64>) -> Result<Found, StoreError> {
        match self.engine.keyspaces.blocks.get(&hash.to_bytes()) {
            Ok(Some(value)) if value.len() >= SHARE_FROM_BYTES => Ok(Found::Bytes(Bytes::from_owner(value))),
            Ok(Some(value)) => Ok(Found::Bytes(Bytes::copy_from_slice(&value))),
            Ok(None) => Ok(Found::Nothing),
            Err(error) if is_damage(&error) => Ok(Found::Damaged),
            Err(error) => Err(from_engine(error)),
        }
    }

    /// Blocks that were put aside and are not held again: of the first 1,024 that ever were. The store knows no codec, so
    /// they are told as raw.
    pub fn damaged(&self) -> Result<Vec<Cid>, StoreError> {
        let mut damaged = Vec::new();
        if self.writer.lock().quarantined == 0 {
            return Ok(damaged);
        }
        for row in self.engine.keyspaces.quarantine.iter() {
            let Ok(hash) = Multihash::<64>::from_bytes(&row.key().map_err(from_engine)?) else { continue };
            if !self.holds_block(&hash)? {
                damaged.push(Cid::new_v1(Codec::Raw as u64, hash));
            }
        }
        Ok(damaged)
    }

    /// Told once for whoever waits, or is the next to wait, when a block was put aside.
    pub fn damage(&self) -> &Notify {
        &self.damage
    }

    /// Looks a block up past the gate.
    pub(super) fn holds_block(&self, hash: &Multihash<64>) -> Result<bool, StoreError> {
        Ok(matches!(self.engine.keyspaces.blocks.locate(&hash.to_bytes())?, Place::In(_)))
    }
}

impl Batch<'_> {
    /// Puts a block aside.
    pub(super) fn quarantine_block(&mut self, hash: &Multihash<64>) -> Result<(), StoreError> {
        let found = self.store.read_block(hash)?;
        let key = hash.to_bytes();
        if !self.remove_block(&key)? {
            return Ok(());
        }
        if self.counters.quarantined < MAX_QUARANTINED {
            // Without bytes where the engine could not read them.
            let bytes = if let Found::Bytes(bytes) = found { bytes } else { Bytes::new() };
            self.insert(&self.store.engine.keyspaces.quarantine, &key, &bytes);
        }
        self.counters.quarantined += 1;
        Ok(())
    }
}
