//! Writes that happen together or not at all, across all tables.

use std::collections::{HashMap, HashSet};

use cid::{Cid, multihash::Multihash};
use dagmesh_core::cbor;
use dagmesh_dag::{Block, HashCode, StoreError};
use fjall::{Keyspace, OwnedWriteBatch};
use serde::{Deserialize, Serialize};

use super::{
    Store,
    engine::Table,
    error::{bad_row, from_engine, is_damage},
    gate::block_id,
};

const COUNTERS_ROW: &[u8] = b"counters";

/// Writes that happen together or not at all. Made by [`Store::transaction`].
///
/// What a batch reads includes its own writes. Reading through the store inside a transaction gives what was there
/// before it; nobody else writes meanwhile.
pub struct Batch<'a> {
    pub(super) store: &'a Store,
    pub(super) counters: Counters,
    inner: OwnedWriteBatch,
    bytes: u64,
    /// Whether it removes blocks.
    frees: bool,
    /// Blocks that this batch puts.
    put: HashSet<Multihash<64>>,
    /// Rows as this batch leaves them; `None` where it deletes them.
    rows: HashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

/// What is counted as it changes, so that [`Store::stat`] reads nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Counters {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    pub(super) quarantined: u64,
    pub(super) feeds: u64,
    pub(super) follows: u64,
    pub(super) pins: u64,
    pub(super) peers: u64,
    /// The number of the next row of the outbox; none is used twice.
    pub(super) next_outbox: u64,
    /// The generation of the next saved frontier.
    pub(super) next_frontier: u64,
}

impl Counters {
    pub(super) fn load(meta: &Keyspace) -> Result<Self, StoreError> {
        match meta.get(COUNTERS_ROW).map_err(from_engine)? {
            Some(row) => cbor::from_slice(&row).map_err(|error| bad_row("meta", error)),
            None => Ok(Self::default()),
        }
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(store: &'a Store, counters: Counters) -> Self {
        Self {
            store,
            counters,
            inner: store.engine.batch(),
            bytes: 0,
            frees: false,
            put: HashSet::new(),
            rows: HashMap::new(),
        }
    }

    /// The store, as it was before this batch.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Puts blocks and returns how many of them were not held before; see
    /// [`Blockstore::put_many`](dagmesh_dag::Blockstore::put_many).
    pub fn put_blocks(&mut self, blocks: &[Block]) -> Result<usize, StoreError> {
        let held_in = &self.store.engine.keyspaces.blocks;
        let mut gate = self.store.gate.enter();
        let mut new = 0;
        for block in blocks {
            let hash = block.cid().hash();
            if hash.code() == HashCode::Identity as u64 {
                continue;
            }
            if let Some(gate) = &mut gate {
                gate.touched.insert(block_id(hash));
            }
            let key = hash.to_bytes();
            let held = match held_in.contains_key(&key) {
                Ok(held) => held,
                // What cannot be read is replaced.
                Err(error) if is_damage(&error) => false,
                Err(error) => return Err(from_engine(error)),
            };
            if held || !self.put.insert(*hash) {
                continue;
            }
            self.counters.blocks += 1;
            self.counters.bytes += block.data().len() as u64;
            self.insert(held_in, &key, block.data());
            new += 1;
        }
        Ok(new)
    }

    /// Removes the block with this key, if it is held.
    pub(super) fn remove_block(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let blocks = &self.store.engine.keyspaces.blocks;
        let size = match blocks.size_of(key) {
            Ok(Some(size)) => size,
            Ok(None) => return Ok(false),
            Err(error) if is_damage(&error) => 0,
            Err(error) => return Err(from_engine(error)),
        };
        self.counters.blocks = self.counters.blocks.saturating_sub(1);
        self.counters.bytes = self.counters.bytes.saturating_sub(u64::from(size));
        self.remove(blocks, key);
        self.frees = true;
        Ok(true)
    }

    /// Tells a collection that runs that these have become roots.
    pub(super) fn roots<I: IntoIterator<Item = Cid>>(&self, roots: impl FnOnce() -> I) {
        if let Some(mut gate) = self.store.gate.enter() {
            gate.roots.extend(roots());
        }
    }

    /// A row as this batch leaves it.
    pub(super) fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(row) = self.rows.get(&(table, key.to_vec())) {
            return Ok(row.clone());
        }
        let row = self.store.engine.keyspaces.of(table).get(key).map_err(from_engine)?;
        Ok(row.map(|row| row.to_vec()))
    }

    /// Writes a row; whether there was none before.
    pub(super) fn put_row(&mut self, table: Table, key: &[u8], value: Vec<u8>) -> Result<bool, StoreError> {
        let new = self.row(table, key)?.is_none();
        self.insert(self.store.engine.keyspaces.of(table), key, &value);
        self.rows.insert((table, key.to_vec()), Some(value));
        Ok(new)
    }

    /// Deletes a row; whether there was one.
    pub(super) fn delete_row(&mut self, table: Table, key: &[u8]) -> Result<bool, StoreError> {
        let held = self.row(table, key)?.is_some();
        if held {
            self.remove(self.store.engine.keyspaces.of(table), key);
            self.rows.insert((table, key.to_vec()), None);
        }
        Ok(held)
    }

    pub(super) fn insert(&mut self, keyspace: &Keyspace, key: &[u8], value: &[u8]) {
        self.bytes += (key.len() + value.len()) as u64;
        self.inner.insert(keyspace, key, value);
    }

    pub(super) fn remove(&mut self, keyspace: &Keyspace, key: &[u8]) {
        self.bytes += key.len() as u64;
        self.inner.remove(keyspace, key);
    }

    /// Writes it all, and returns the counters as they now are.
    pub(super) fn commit(mut self, before: Counters) -> Result<Counters, StoreError> {
        if self.counters != before {
            let row = cbor::to_vec(&self.counters).map_err(|error| bad_row("meta", error))?;
            self.insert(&self.store.engine.keyspaces.meta, COUNTERS_ROW, &row);
        }
        if self.inner.is_empty() {
            return Ok(before);
        }
        self.store.engine.commit(self.inner, self.bytes, self.frees && self.put.is_empty())?;
        Ok(self.counters)
    }
}
