//! The one database on disk: blocks, and the tables of every service.
//!
//! One fjall database a home, one keyspace a concern. Rules:
//!
//! - Writes are atomic across tables ([`Store::transaction`]) and, unless said otherwise, durable when the call
//!   returns. Blocks are the exception: they are durable after the next `sync`, which all callers share.
//! - Fail stop: after a write or a sync that failed, the store takes no more writes and says why. Nothing that failed
//!   is ever acknowledged. What was acknowledged survives a kill at any moment.
//! - A write that would leave less than a reserve of free space is refused before anything is written
//!   ([`StoreOptions::reserve_bytes`]); that ends nothing, and works again once there is space.
//! - Blocks are keyed by their multihash; what stands under a key can be proven without knowing its codec.
//!
//! All calls block on the disk: async code makes them on a thread of their own.

use std::{path::Path, sync::Arc};

use dagmesh_dag::{Blockstore, StoreError};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

mod batch;
mod blocks;
mod chains;
mod closure;
mod commit;
mod engine;
mod error;
mod feeds;
mod follows;
mod frontiers;
mod gate;
mod gc;
mod groups;
mod lanes;
mod lock;
mod records;
mod tables;
#[cfg(test)]
mod tests;
mod verify;

pub use self::{
    batch::Batch,
    chains::OwnChain,
    error::{Error, OpenError},
    follows::{FollowPolicy, FollowRecord},
    frontiers::{FrontierKey, FrontierLink, SavedFrontier, StagedFrontier},
    gate::Protection,
    gc::GcReport,
    groups::{
        GroupContent, GroupContentState, GroupGap, GroupKey, GroupLeaf, GroupLogRow, GroupPeer, GroupProgress,
        GroupRecord,
    },
    records::KeptRecords,
    tables::{PeerRecord, Pin, PinKind},
    verify::{VerifyProgress, VerifyReport},
};
use self::{
    batch::Counters,
    engine::{Engine, Table},
    error::from_engine,
    gate::Gate,
};

/// The store of one home. Cheap calls, safe from any thread.
pub struct Store {
    engine: Engine,
    gate: Gate,
    /// Held by whoever writes.
    writer: Mutex<Counters>,
    /// Held by the collection of garbage that runs.
    collecting: Mutex<()>,
    damage: Notify,
}

/// How a store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Free space on the device below which writes are refused, in bytes; 0 turns the check off. On top of it stands
    /// what the database holds in memory and will write once more. Default 64 MiB.
    pub reserve_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { reserve_bytes: 64 << 20 }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct StoreStat {
    /// Blocks held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the files take up on the disk, in bytes.
    pub disk_bytes: u64,
    /// Own feeds.
    pub feeds: u64,
    /// Feeds followed.
    pub follows: u64,
    /// Pins.
    pub pins: u64,
    /// Blocks found damaged and put aside, ever.
    pub quarantined: u64,
}

impl Store {
    /// Opens the store in `dir`, and creates it where there is none.
    ///
    /// One process at a time: a second one gets [`OpenError::InUse`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Arc<Self>, OpenError> {
        Self::open_with(dir, &StoreOptions::default())
    }

    /// [`open`](Self::open) with options.
    pub fn open_with(dir: impl AsRef<Path>, options: &StoreOptions) -> Result<Arc<Self>, OpenError> {
        let dir = dir.as_ref();
        let failed = |source| OpenError::Engine { dir: dir.to_owned(), source };
        let engine = Engine::open(dir, options.reserve_bytes)?;
        let counters = Counters::load(&engine.keyspaces).map_err(failed)?;
        let store = Self {
            engine,
            gate: Gate::default(),
            writer: Mutex::new(counters),
            collecting: Mutex::new(()),
            damage: Notify::new(),
        };
        store.drop_stale_frontiers().map_err(|error| match error {
            Error::Store(source) => failed(source),
            other => failed(StoreError::Corrupt(other.to_string())),
        })?;
        Ok(Arc::new(store))
    }

    /// Writes to any number of tables, all or none, durable when it returns.
    ///
    /// `write` fills the batch; where it fails nothing is written. It runs while nobody else writes, so what it reads
    /// does not change under it; it must not write through the store itself.
    pub fn transaction<T, E: From<StoreError>>(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let value = self.transaction_unsynced(write)?;
        self.sync()?;
        Ok(value)
    }

    /// [`transaction`](Self::transaction), but durable only after the next `sync`.
    pub fn transaction_unsynced<T, E: From<StoreError>>(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_with(self.writer.lock(), write)
    }

    /// Writes while `counters`, the writer's lock, is held.
    fn write_with<T, E: From<StoreError>>(
        &self,
        mut counters: MutexGuard<'_, Counters>,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.engine.check_open()?;
        let mut batch = Batch::new(self, *counters);
        let value = write(&mut batch)?;
        let quarantined = counters.quarantined;
        *counters = batch.commit(*counters)?;
        if counters.quarantined > quarantined {
            self.damage.notify_one();
        }
        Ok(value)
    }

    /// Keeps a collection of garbage away from a piece of work; see [`Protection`].
    pub fn protect(&self) -> Protection {
        self.gate.protect()
    }

    /// What the store holds. Reads no table, only counters and the sizes of files.
    pub fn stat(&self) -> StoreStat {
        let counters = *self.writer.lock();
        StoreStat {
            blocks: counters.blocks,
            bytes: counters.bytes,
            disk_bytes: self.engine.disk_bytes(),
            feeds: counters.feeds,
            follows: counters.follows,
            pins: counters.pins,
            quarantined: counters.quarantined,
        }
    }

    fn read_row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.engine.keyspaces.of(table).get(key).map_err(from_engine)?;
        Ok(row.map(|row| row.to_vec()))
    }

    /// How many times the disk has been synced since the store was opened.
    pub fn syncs(&self) -> u64 {
        self.engine.persists()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
