//! The two lanes that blocks are written by: through the journal, or, where they come in bulk, past it.
//!
//! What goes through the journal is written twice, to the journal and later to a file of the engine, and waits in memory
//! in between. That suits what comes in handfuls, for one sync of the disk makes all of it durable. In bulk the second
//! copy costs more than everything else the store does. So a large batch is sorted and written straight into files
//! ("ingested"): once, and durable at once. Each lane is a keyspace; a block stands in one of them.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dagmesh_core::cbor;
use dagmesh_dag::StoreError;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Slice};
use serde::{Deserialize, Serialize};

use super::error::{bad_row, from_engine, is_damage};

/// A batch is ingested from so many bytes on: it costs about eight syncs of the disk. The store alone, on 2 cores, 1 GiB
/// in blocks of 256 KiB: 1 MiB at a time takes 4.8 s of CPU, 2 MiB 1.6 s, 4 MiB 0.8 to 1.2 s, 8 MiB 1.0 s, and the journal
/// 1.3 to 3.9 s. In blocks of 1 KiB: 8 MiB at a time 8.2 s and 73 MiB of memory, the journal 12.1 s and 181 MiB.
const INGEST_FROM_BYTES: u64 = 4 << 20;
/// And only if its blocks have so many on average. Of smaller ones the content does not stand in blob files, and each
/// merging of tables would write it again.
const INGEST_FROM_MEAN_BYTES: u64 = super::engine::SEPARATE_FROM_BYTES as u64;
/// Where the ingested lane counts itself. No multihash: one needs two bytes at least.
const TOTALS_ROW: &[u8] = &[0];

/// The blocks, multihash -> content, in two lanes.
pub(super) struct Lanes {
    journalled: Keyspace,
    ingested: Keyspace,
    /// Whether anything was ever ingested: a store that never was given much at once looks everything up once.
    used: AtomicBool,
}

/// What was ever ingested. It is written with what it counts, in one step of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

/// Where a key stands.
pub(super) enum Place<'a> {
    Nowhere,
    In(&'a Keyspace),
    /// The engine cannot read the part of this lane where it may stand.
    Damaged(&'a Keyspace),
}

impl Lanes {
    pub(super) fn open(db: &Database, options: impl Fn() -> KeyspaceCreateOptions) -> fjall::Result<Self> {
        let (journalled, ingested) = (db.keyspace("blocks", &options)?, db.keyspace("bulk_blocks", &options)?);
        let used = AtomicBool::new(ingested.contains_key(TOTALS_ROW)?);
        Ok(Self { journalled, ingested, used })
    }

    /// Where blocks go that come one by one, or with other rows.
    pub(super) fn journalled(&self) -> &Keyspace {
        &self.journalled
    }

    /// Both, to go through all that is held. What is no multihash there is no block.
    pub(super) fn all(&self) -> [&Keyspace; 2] {
        [&self.journalled, &self.ingested]
    }

    /// Whether a batch of so many new blocks is to be ingested.
    pub(super) fn suits(blocks: usize, bytes: u64) -> bool {
        bytes >= INGEST_FROM_BYTES && bytes / (blocks.max(1) as u64) >= INGEST_FROM_MEAN_BYTES
    }

    /// The content of a block; fails where the engine's own checksum does not match.
    pub(super) fn get(&self, key: &[u8]) -> fjall::Result<Option<Slice>> {
        for lane in self.in_use() {
            if let Some(value) = lane.get(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    pub(super) fn locate(&self, key: &[u8]) -> Result<Place<'_>, StoreError> {
        for lane in self.in_use() {
            match lane.contains_key(key) {
                Ok(true) => return Ok(Place::In(lane)),
                Ok(false) => {}
                Err(error) if is_damage(&error) => return Ok(Place::Damaged(lane)),
                Err(error) => return Err(from_engine(error)),
            }
        }
        Ok(Place::Nowhere)
    }

    /// Writes blocks that are held nowhere, and `totals` with them: all or none, durable when it returns.
    pub(super) fn ingest(&self, blocks: &[(Vec<u8>, Bytes)], totals: Totals) -> Result<(), StoreError> {
        let mut sorted: Vec<_> = blocks.iter().map(|(key, data)| (key.as_slice(), data.as_ref())).collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        let totals = cbor::to_vec(&totals).map_err(|error| bad_row("bulk_blocks", error))?;
        let write = || {
            let mut rows = self.ingested.start_ingestion()?;
            rows.write(TOTALS_ROW, totals)?;
            for (key, value) in sorted {
                rows.write(key, value)?;
            }
            rows.finish()
        };
        write().map_err(from_engine)?;
        self.used.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        match self.ingested.get(TOTALS_ROW).map_err(from_engine)? {
            Some(row) => cbor::from_slice(&row).map_err(|error| bad_row("bulk_blocks", error)),
            None => Ok(Totals::default()),
        }
    }

    fn in_use(&self) -> impl Iterator<Item = &Keyspace> {
        let lanes = if self.used.load(Ordering::Acquire) { 2 } else { 1 };
        self.all().into_iter().take(lanes)
    }
}

/// The size of what a lane holds under a key; 0 where it cannot be read.
pub(super) fn size_of(lane: &Keyspace, key: &[u8]) -> Result<u64, StoreError> {
    match lane.size_of(key) {
        Ok(size) => Ok(u64::from(size.unwrap_or(0))),
        Err(error) if is_damage(&error) => Ok(0),
        Err(error) => Err(from_engine(error)),
    }
}
