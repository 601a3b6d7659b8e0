//! Storing many blocks: the caller reads and hashes, a thread beside it writes batches.

use std::{
    panic,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use dagmesh_core::limits;

use crate::{Block, Blockstore, StoreError};

/// Batches that wait for the disk. One is being filled and one written; with one more, neither side idles.
const WAITING_BATCHES: usize = 1;

/// Takes blocks and hands them on in batches of [`limits::STORE_BATCH_BLOCKS`] or [`limits::STORE_BATCH_BYTES`].
#[derive(Debug)]
pub(crate) struct Sink {
    sender: SyncSender<Vec<Block>>,
    batch: Vec<Block>,
    batch_bytes: usize,
    stored: Stored,
}

/// What went into the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Blocks put, repeated ones too.
    pub(crate) blocks: u64,
    /// Those that were not held before.
    pub(crate) new_blocks: u64,
    /// Bytes of all blocks put.
    pub(crate) bytes: u64,
}

/// Runs `fill` with a sink into `store`, and makes all of it durable before it returns.
///
/// Where it fails, some batches may be in the store; none of them is claimed. What the store said comes before what
/// `fill` said, since a sink that has lost its store only knows that.
pub(crate) fn store_batched<T, E: From<StoreError>>(
    store: &dyn Blockstore,
    fill: impl FnOnce(&mut Sink) -> Result<T, E>,
) -> Result<(T, Stored), E> {
    let (sender, receiver) = sync_channel::<Vec<Block>>(WAITING_BATCHES);
    let mut sink = Sink { sender, batch: Vec::new(), batch_bytes: 0, stored: Stored::default() };
    let (filled, written) = thread::scope(|scope| {
        let writer = thread::Builder::new().name("dag-import".into()).spawn_scoped(scope, move || {
            receiver.into_iter().try_fold(0, |new, batch| Ok(new + store.put_many(&batch)? as u64))
        });
        let writer = writer.map_err(StoreError::Io)?;
        let filled = fill(&mut sink).and_then(|value| {
            sink.flush()?;
            Ok(value)
        });
        let stored = sink.stored;
        drop(sink);
        let written: Result<u64, StoreError> = writer.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
        Ok::<_, E>((filled.map(|value| (value, stored)), written))
    })?;
    let new_blocks = written?;
    let (value, stored) = filled?;
    store.sync()?;
    Ok((value, Stored { new_blocks, ..stored }))
}

impl Sink {
    /// Takes one block; waits while the disk is behind.
    pub(crate) fn put(&mut self, block: Block) -> Result<(), StoreError> {
        let len = block.data().len();
        self.stored.blocks += 1;
        self.stored.bytes += len as u64;
        self.batch_bytes += len;
        self.batch.push(block);
        if self.batch.len() >= limits::STORE_BATCH_BLOCKS || self.batch_bytes >= limits::STORE_BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.sender.send(batch).map_err(|_| StoreError::Closed("its writer has stopped".into()))
    }
}
