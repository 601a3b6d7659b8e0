//! The store's tests, one file a class of promise.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use cid::Cid;
use dagmesh_dag::{Block, Blockstore, Codec, HashCode, StoreError};
use tempfile::TempDir;

use super::*;

mod blocks;
mod damage;
mod durable;
mod full;
mod garbage;
mod groups;
mod lanes;
mod records;
mod tables;
mod torn;

/// A store in a directory of its own, which goes with it.
pub(super) struct TempStore {
    pub(super) store: Arc<Store>,
    pub(super) dir: TempDir,
}

impl TempStore {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { store: open(dir.path()), dir }
    }

    /// Closes the store and opens it again.
    pub(super) fn reopen(self) -> Self {
        let Self { store, dir } = self;
        assert_eq!(Arc::strong_count(&store), 1, "nobody else holds it");
        drop(store);
        Self { store: open(dir.path()), dir }
    }
}

impl std::ops::Deref for TempStore {
    type Target = Arc<Store>;
    fn deref(&self) -> &Arc<Store> {
        &self.store
    }
}

impl Blockstore for TempStore {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        self.store.get(cid)
    }
    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        self.store.has(cid)
    }
    fn put_many(&self, blocks: &[Block]) -> Result<usize, StoreError> {
        self.store.put_many(blocks)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }
    fn remove(&self, cids: &[Cid]) -> Result<(), StoreError> {
        self.store.remove(cids)
    }
    fn quarantine(&self, cid: &Cid) -> Result<(), StoreError> {
        self.store.quarantine(cid)
    }
}

/// Opens without the check of free space, so that a full disk fails no test.
pub(super) fn open(dir: &Path) -> Arc<Store> {
    Store::open_with(dir, &StoreOptions { reserve_bytes: 0 }).expect("opens")
}

pub(super) fn raw(content: impl Into<Vec<u8>>) -> Block {
    Block::new(Codec::Raw, HashCode::Sha2_256, content.into()).expect("a block")
}
