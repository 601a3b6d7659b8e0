//! Writes that happen together or not at all, across all tables.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use dagmesh_core::cbor;
use dagmesh_dag::{Block, HashCode, StoreError};
use fjall::{Keyspace, OwnedWriteBatch};
use serde::{Deserialize, Serialize};

use super::{
    Store,
    engine::{Keyspaces, Table},
    error::{bad_row, from_engine},
    gate::block_id,
    lanes::{self, Lanes, Place, Totals},
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
    /// Those of them that go past the journal.
    ingest: Vec<(Vec<u8>, Bytes)>,
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
    /// What had been ingested when this was written. It counts itself, so that a kill between the two loses no count.
    pub(super) ingested: Totals,
}

impl Counters {
    pub(super) fn load(keyspaces: &Keyspaces) -> Result<Self, StoreError> {
        let mut counters = match keyspaces.meta.get(COUNTERS_ROW).map_err(from_engine)? {
            Some(row) => cbor::from_slice(&row).map_err(|error| bad_row("meta", error))?,
            None => Self::default(),
        };
        let ingested = keyspaces.blocks.totals()?;
        counters.blocks += ingested.blocks.saturating_sub(counters.ingested.blocks);
        counters.bytes += ingested.bytes.saturating_sub(counters.ingested.bytes);
        counters.ingested = ingested;
        Ok(counters)
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
            ingest: Vec::new(),
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
        let before = self.counters.blocks;
        let new = self.new_blocks(blocks)?;
        self.journal(&new);
        Ok((self.counters.blocks - before) as usize)
    }

    /// The same for a batch that has nothing but these: a large one goes past the journal.
    pub(super) fn put_only(&mut self, blocks: &[Block]) -> Result<usize, StoreError> {
        let before = self.counters.blocks;
        let new = self.new_blocks(blocks)?;
        let bytes = new.iter().map(|(_, data)| data.len() as u64).sum();
        if Lanes::suits(new.len(), bytes) {
            self.counters.ingested.blocks += new.len() as u64;
            self.counters.ingested.bytes += bytes;
            self.ingest = new;
        } else {
            self.journal(&new);
        }
        Ok((self.counters.blocks - before) as usize)
    }

    fn journal(&mut self, blocks: &[(Vec<u8>, Bytes)]) {
        let lane = self.store.engine.keyspaces.blocks.journalled();
        blocks.iter().for_each(|(key, data)| self.insert(lane, key, data));
    }

    /// Those that are not held, each once, counted as held from now on.
    fn new_blocks(&mut self, blocks: &[Block]) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let lanes = &self.store.engine.keyspaces.blocks;
        let mut gate = self.store.gate.enter();
        let mut new = Vec::new();
        for block in blocks {
            let hash = block.cid().hash();
            if hash.code() == HashCode::Identity as u64 {
                continue;
            }
            if let Some(gate) = &mut gate {
                gate.touched.insert(block_id(hash));
            }
            let key = hash.to_bytes();
            let damaged = match lanes.locate(&key)? {
                Place::In(_) => continue,
                Place::Nowhere => None,
                Place::Damaged(lane) => Some(lane),
            };
            if !self.put.insert(*hash) {
                continue;
            }
            self.counters.blocks += 1;
            self.counters.bytes += block.data().len() as u64;
            match damaged {
                // What cannot be read is replaced where it stands.
                Some(lane) => self.insert(lane, &key, block.data()),
                None => new.push((key, block.data().clone())),
            }
        }
        Ok(new)
    }

    /// Removes the block with this key, if it is held.
    pub(super) fn remove_block(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let lane = match self.store.engine.keyspaces.blocks.locate(key)? {
            Place::Nowhere => return Ok(false),
            Place::In(lane) | Place::Damaged(lane) => lane,
        };
        let size = lanes::size_of(lane, key)?;
        self.counters.blocks = self.counters.blocks.saturating_sub(1);
        self.counters.bytes = self.counters.bytes.saturating_sub(size);
        self.remove(lane, key);
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
        if !self.ingest.is_empty() {
            let bytes = self.counters.bytes - before.bytes;
            self.store.engine.ingest(&self.ingest, bytes, self.counters.ingested)?;
        }
        // What goes with something ingested may not fail for want of space: that would be half of it.
        let reserved = (self.frees && self.put.is_empty()) || !self.ingest.is_empty();
        self.store.engine.commit(self.inner, self.bytes, reserved)?;
        Ok(self.counters)
    }
}
