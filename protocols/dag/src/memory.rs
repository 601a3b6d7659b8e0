use std::collections::HashMap;

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use parking_lot::RwLock;

use crate::{Block, Blockstore, StoreError, hash::HashCode};

/// A store in memory: for tests, and for nodes that keep nothing.
#[derive(Debug, Default)]
pub struct MemoryBlockstore {
    blocks: RwLock<HashMap<Multihash<64>, Bytes>>,
}

impl MemoryBlockstore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many blocks it holds.
    pub fn len(&self) -> usize {
        self.blocks.read().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Blockstore for MemoryBlockstore {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        if let Some(inline) = Block::inline(cid) {
            return Ok(Some(inline.into_parts().1));
        }
        Ok(self.blocks.read().get(cid.hash()).cloned())
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        Ok(cid.hash().code() == HashCode::Identity as u64 || self.blocks.read().contains_key(cid.hash()))
    }

    fn put_many(&self, blocks: &[Block]) -> Result<usize, StoreError> {
        let mut held = self.blocks.write();
        let stored = blocks.iter().filter(|block| block.cid().hash().code() != HashCode::Identity as u64);
        Ok(stored.filter(|block| held.insert(*block.cid().hash(), block.data().clone()).is_none()).count())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn remove(&self, cids: &[Cid]) -> Result<(), StoreError> {
        let mut held = self.blocks.write();
        for cid in cids {
            held.remove(cid.hash());
        }
        Ok(())
    }

    fn quarantine(&self, cid: &Cid) -> Result<(), StoreError> {
        self.remove(std::slice::from_ref(cid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_store_conforms() {
        crate::conformance::run(MemoryBlockstore::new);
    }
}
