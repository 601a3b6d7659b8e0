//! The database below the store: its keyspaces and options, and when it stops taking writes.

use std::{
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dagmesh_dag::StoreError;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, PersistMode,
    Slice,
    config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry},
};

use super::{
    commit::GroupCommit,
    error::{OpenError, from_engine},
    lanes::{Lanes, Totals},
    lock::DirLock,
};

/// The format that this program writes, and the newest that it reads.
pub(super) const FORMAT: u64 = 4;
const FORMAT_ROW: &[u8] = b"format";

/// Where the database stands inside the store's directory.
const DATABASE_DIR: &str = "db";
/// Blocks of the index and of values kept in memory. What is read often is kept by the system's own page cache too.
const CACHE_BYTES: u64 = 32 << 20;
/// Writes to blocks gathered in memory before they are written out in order. Up to four of these exist at once, one of
/// them up to half over its size.
/// With 16 MiB the follower of 400,000 blocks of 1 KiB peaks 25 MiB higher; CPU is the same.
const BLOCKS_MEMTABLE_BYTES: u64 = 8 << 20;
/// The same for the small tables.
const TABLE_MEMTABLE_BYTES: u64 = 4 << 20;
/// Sealed journals kept on disk before the tables that hold them back are written out too: the least the engine takes.
/// Twice as much is no faster and takes 8 % more disk for 1 GiB of 1 KiB blocks.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Values from here on stand in blob files, out of the way of compaction. Measured on 2 cores with a sync every
/// 4 MiB: 1 KiB blocks are written at 102,000 a second with separation, 59,000 without.
pub(super) const SEPARATE_FROM_BYTES: u32 = 512;
/// Size of a blob file: the unit in which space comes back.
const BLOB_FILE_BYTES: u64 = 64 << 20;
/// A blob file is rewritten once this part of it is dead.
const BLOB_STALENESS: f32 = 0.25;
/// Writers wait while so many memtables wait to be written out; the engine's own, uninterruptible wait starts at 4.
const MAX_SEALED_MEMTABLES: usize = 2;
/// Writers wait while so many tables wait to be merged; the engine's own wait starts at 30.
const MAX_LEVEL_0_TABLES: usize = 20;
/// Threads that write out and merge. With two, one of them hands the merging back and forth to itself, without a pause,
/// for as long as the other is busy (fjall 3.1, `worker_tick`).
const WORKERS: usize = 1;
/// How often a waiting writer looks again.
const THROTTLE_STEP: Duration = Duration::from_millis(2);

/// The keyspaces, one a concern.
pub(super) struct Keyspaces {
    /// multihash -> content.
    pub(super) blocks: Lanes,
    /// multihash -> content that no longer matches it.
    pub(super) quarantine: Keyspace,
    /// The format's version and the counters.
    pub(super) meta: Keyspace,
    /// generation and chunk -> links of a saved frontier.
    pub(super) frontier_links: Keyspace,
    feeds: Keyspace,
    follows: Keyspace,
    frontiers: Keyspace,
    outbox: Keyspace,
    pins: Keyspace,
    peers: Keyspace,
    groups: Keyspace,
    records: Keyspace,
    kv: Keyspace,
}

/// A table of small rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// feed -> own newest head.
    Feeds,
    /// publisher and feed -> what is known of it.
    Follows,
    /// key -> header of a saved frontier.
    Frontiers,
    /// number -> event for the hooks.
    Outbox,
    /// CID -> pin.
    Pins,
    /// peer -> addresses.
    Peers,
    /// Memberships, and what belongs to each.
    Groups,
    /// Records of the DHT, marks of those that are gone, bans.
    Records,
    /// Small values of other services.
    Kv,
}

impl Keyspaces {
    pub(super) fn of(&self, table: Table) -> &Keyspace {
        match table {
            Table::Feeds => &self.feeds,
            Table::Follows => &self.follows,
            Table::Frontiers => &self.frontiers,
            Table::Outbox => &self.outbox,
            Table::Pins => &self.pins,
            Table::Peers => &self.peers,
            Table::Groups => &self.groups,
            Table::Records => &self.records,
            Table::Kv => &self.kv,
        }
    }

    /// The rows of a table whose keys start with `prefix`, in the order of their keys.
    pub(super) fn rows(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), StoreError>> + use<> {
        self.of(table).prefix(prefix).map(|row| row.into_inner().map_err(from_engine))
    }
}

/// The open database.
///
/// Fail stop: after the first write or sync that fails, no write is taken any more, because what is on the disk is
/// no longer known. Reading goes on.
pub(super) struct Engine {
    pub(super) keyspaces: Keyspaces,
    db: Database,
    dir: PathBuf,
    reserve_bytes: u64,
    commits: GroupCommit,
    /// Bytes written since a memtable was last sealed for being too large.
    unsealed_bytes: AtomicU64,
    failed: OnceLock<String>,
    // Last, so that it is released after the database is closed.
    _lock: DirLock,
}

impl Engine {
    pub(super) fn open(dir: &Path, reserve_bytes: u64) -> Result<Self, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Io {
            what: "create the directory",
            path: dir.to_owned(),
            source,
        })?;
        let lock = DirLock::take(dir)?;
        let failed = |error| OpenError::Engine { dir: dir.to_owned(), source: from_engine(error) };
        let db = Database::builder(dir.join(DATABASE_DIR))
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .journal_compression(CompressionType::None)
            .worker_threads(WORKERS)
            .open()
            .map_err(failed)?;
        let meta = db.keyspace("meta", table).map_err(failed)?;
        check_format(dir, &db, &meta)?;
        sync_directories(dir);
        let open = |name: &str| db.keyspace(name, table).map_err(failed);
        let keyspaces = Keyspaces {
            blocks: Lanes::open(&db, blocks).map_err(failed)?,
            quarantine: db.keyspace("quarantine", blocks).map_err(failed)?,
            feeds: open("feeds")?,
            follows: open("follows")?,
            frontiers: open("frontiers")?,
            frontier_links: open("frontier_links")?,
            outbox: open("outbox")?,
            pins: open("pins")?,
            peers: open("peers")?,
            groups: open("groups")?,
            records: open("records")?,
            kv: open("kv")?,
            meta,
        };
        // What a killed process wrote last may stand in the system's cache alone. From here on it is told to others.
        db.persist(PersistMode::SyncAll).map_err(failed)?;
        Ok(Self {
            keyspaces,
            db,
            dir: dir.to_owned(),
            reserve_bytes,
            commits: GroupCommit::default(),
            unsealed_bytes: AtomicU64::new(0),
            failed: OnceLock::new(),
            _lock: lock,
        })
    }

    /// An empty batch; [`commit`](Self::commit) writes it.
    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.db.batch()
    }

    /// Refuses once a write has failed.
    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(cause) => Err(StoreError::Closed(cause.clone())),
            None => Ok(()),
        }
    }

    /// Writes a batch of about `bytes`; it can be read at once, and is durable after the next [`sync`](Self::sync).
    /// One that frees space may use the reserve: on a full disk it is what the reserve is for.
    pub(super) fn commit(&self, batch: OwnedWriteBatch, bytes: u64, reserved: bool) -> Result<(), StoreError> {
        self.check_open()?;
        if !reserved {
            self.check_space(bytes)?;
        }
        self.throttle()?;
        batch.commit().map_err(|error| self.fail(from_engine(error)))?;
        self.commits.wrote();
        self.seal_overfull(bytes)
    }

    /// Writes blocks of `bytes` in all past the journal, all or none, durable when it returns.
    pub(super) fn ingest(&self, blocks: &[(Vec<u8>, Bytes)], bytes: u64, totals: Totals) -> Result<(), StoreError> {
        self.check_open()?;
        self.check_space(bytes)?;
        self.throttle()?;
        self.keyspaces.blocks.ingest(blocks, totals).map_err(|error| self.fail(error))
    }

    /// Makes durable what was committed before. Callers on several threads share one sync of the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.check_open()?;
        self.commits.sync(|| {
            self.check_open()?;
            self.db.persist(PersistMode::SyncAll).map_err(|error| self.fail(from_engine(error)))
        })
    }

    /// How many times the disk has been synced since the start.
    pub(super) fn persists(&self) -> u64 {
        self.commits.persists()
    }

    /// Rewrites the files of the blocks without what was removed. Takes as long as reading and writing the index,
    /// and the blob files of which much is dead.
    pub(super) fn reclaim(&self) -> Result<(), StoreError> {
        self.flush_blocks()?;
        // The first pass finds out what is dead, the second leaves it behind.
        for lane in self.keyspaces.blocks.all() {
            for _ in 0..2 {
                lane.major_compact().map_err(from_engine)?;
            }
        }
        Ok(())
    }

    /// Writes out the blocks that are gathered in memory.
    pub(super) fn flush_blocks(&self) -> Result<(), StoreError> {
        for lane in self.keyspaces.blocks.all() {
            lane.rotate_memtable().map_err(|error| self.fail(from_engine(error)))?;
            while lane.sealed_memtable_count() > 0 {
                self.check_workers()?;
                std::thread::sleep(THROTTLE_STEP);
            }
        }
        Ok(())
    }

    /// What the files take up on the disk, in bytes.
    pub(super) fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.dir)
    }

    /// Takes no more writes, because of `error`.
    fn fail(&self, error: StoreError) -> StoreError {
        let cause = error.to_string();
        if self.failed.set(cause).is_ok() {
            tracing::error!(dir = %self.dir.display(), %error, "the store takes no more writes");
        }
        error
    }

    /// Seals the memtable of the blocks where it has grown far over its size. The engine leaves that to its worker, and
    /// while that merges, for seconds, the memtable would take in whatever comes.
    fn seal_overfull(&self, bytes: u64) -> Result<(), StoreError> {
        let blocks = self.keyspaces.blocks.journalled();
        // The buffers of all tables are counted as one: that others fill theirs must not seal this one again and again.
        if self.unsealed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes < BLOCKS_MEMTABLE_BYTES {
            return Ok(());
        }
        let sealed_bytes = blocks.sealed_memtable_count() as u64 * BLOCKS_MEMTABLE_BYTES;
        if self.db.write_buffer_size().saturating_sub(sealed_bytes) > BLOCKS_MEMTABLE_BYTES * 3 / 2 {
            blocks.rotate_memtable().map_err(|error| self.fail(from_engine(error)))?;
            self.unsealed_bytes.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits while the engine is behind with its own writing. It would wait by itself, but then also for a worker
    /// that has died.
    fn throttle(&self) -> Result<(), StoreError> {
        let behind = |keyspace: &Keyspace| {
            keyspace.sealed_memtable_count() >= MAX_SEALED_MEMTABLES || keyspace.l0_table_count() >= MAX_LEVEL_0_TABLES
        };
        while self.keyspaces.blocks.all().into_iter().chain([&self.keyspaces.frontier_links]).any(behind) {
            self.check_workers()?;
            std::thread::sleep(THROTTLE_STEP);
        }
        Ok(())
    }

    /// Fails where the engine has lost its workers.
    fn check_workers(&self) -> Result<(), StoreError> {
        self.db.persist(PersistMode::Buffer).map_err(|error| self.fail(from_engine(error)))
    }

    /// Refuses a write that would leave less than the reserve, so that the engine's own writing never fails halfway.
    fn check_space(&self, bytes: u64) -> Result<(), StoreError> {
        // What stands in memory will be written once more.
        let needed = self.reserve_bytes.saturating_add(bytes).saturating_add(self.db.write_buffer_size());
        match free_bytes(&self.dir) {
            Some(free) if self.reserve_bytes > 0 && free < needed => Err(StoreError::NoSpace),
            _ => Ok(()),
        }
    }
}

fn check_format(dir: &Path, db: &Database, meta: &Keyspace) -> Result<(), OpenError> {
    let failed = |error| OpenError::Engine { dir: dir.to_owned(), source: from_engine(error) };
    match meta.get(FORMAT_ROW).map_err(failed)? {
        None => {
            meta.insert(FORMAT_ROW, FORMAT.to_be_bytes()).map_err(failed)?;
            db.persist(PersistMode::SyncAll).map_err(failed)
        }
        Some(row) => {
            let found = <[u8; 8]>::try_from(&*row).map_or(u64::MAX, u64::from_be_bytes);
            if found > FORMAT {
                return Err(OpenError::NewerFormat { dir: dir.to_owned(), found, known: FORMAT });
            }
            if found < FORMAT {
                // An older program would not find what this one writes.
                meta.insert(FORMAT_ROW, FORMAT.to_be_bytes()).map_err(failed)?;
                db.persist(PersistMode::SyncAll).map_err(failed)?;
            }
            Ok(())
        }
    }
}

fn blocks() -> KeyspaceCreateOptions {
    let separation = KvSeparationOptions::default()
        .compression(CompressionType::None)
        .separation_threshold(SEPARATE_FROM_BYTES)
        .file_target_size(BLOB_FILE_BYTES)
        .staleness_threshold(BLOB_STALENESS)
        .age_cutoff(1.0);
    table().max_memtable_size(BLOCKS_MEMTABLE_BYTES).with_kv_separation(Some(separation))
}

fn table() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(TABLE_MEMTABLE_BYTES)
        .data_block_compression_policy(CompressionPolicy::disabled())
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0))))
}

/// Makes it durable that the directory exists; its content the database syncs itself. Best effort: some file systems
/// cannot sync a directory.
#[cfg(unix)]
fn sync_directories(dir: &Path) {
    for dir in [Some(dir), dir.parent()].into_iter().flatten() {
        if let Err(error) = std::fs::File::open(dir).and_then(|dir| dir.sync_all()) {
            tracing::debug!(dir = %dir.display(), %error, "cannot sync a directory");
        }
    }
}

#[cfg(not(unix))]
fn sync_directories(_dir: &Path) {}

/// Bytes that may still be written to the device of `dir`; `None` where the system does not say.
#[cfg(unix)]
fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_dir: &Path) -> Option<u64> {
    None
}

fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => allocated(&metadata),
        // Gone since it was listed.
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// The journal is allocated ahead as a sparse file, so its length says nothing.
#[cfg(unix)]
fn allocated(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata).saturating_mul(512)
}

#[cfg(not(unix))]
fn allocated(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}

#[cfg(test)]
impl Engine {
    pub(super) fn format(&self) -> u64 {
        let row = self.keyspaces.meta.get(FORMAT_ROW).expect("reads").expect("a format");
        u64::from_be_bytes(row.as_ref().try_into().expect("eight bytes"))
    }

    /// Writes another format.
    pub(super) fn set_format(&self, format: u64) {
        self.keyspaces.meta.insert(FORMAT_ROW, format.to_be_bytes()).expect("inserts");
    }
}
