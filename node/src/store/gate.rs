//! What keeps a collection of garbage from taking blocks that somebody is about to need.
//!
//! While one runs, it is recorded which blocks are put or found held, and which become roots: those stay. Work that
//! began before holds a [`Protection`], and the collection waits for it to end before it looks at anything.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cid::{Cid, multihash::Multihash};
use parking_lot::{Condvar, Mutex, MutexGuard};

/// The first 16 bytes of a digest: what is remembered of a block. Two blocks that agree in them stay or go together.
pub(super) type BlockId = u128;

/// The [`BlockId`] of a multihash.
pub(super) fn block_id(hash: &Multihash<64>) -> BlockId {
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(hash.digest()) {
        *to = *from;
    }
    u128::from_be_bytes(id)
}

/// Promises that blocks found held, or put, while it lives stay until it is dropped, and are then kept by the
/// roots that were written meanwhile.
///
/// Hold one from the first `has` or `put` of a piece of work until what refers to its blocks (a pin, a head, a
/// follow, a frontier) is written, and not for longer: a collection of garbage waits for it. A long sync takes a new
/// one at every checkpoint.
#[derive(Debug)]
#[must_use = "it protects only while it is held"]
pub struct Protection {
    id: u64,
    living: Arc<Living>,
}

impl Drop for Protection {
    fn drop(&mut self) {
        self.living.ids.lock().1.remove(&self.id);
        self.living.ended.notify_all();
    }
}

/// The protections that are held: the next number, and those given out.
#[derive(Debug, Default)]
struct Living {
    ids: Mutex<(u64, BTreeSet<u64>)>,
    ended: Condvar,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gate {
    recording: AtomicBool,
    recorded: Mutex<Recorded>,
    living: Arc<Living>,
}

/// What a running collection has to leave.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Put, or found held.
    pub(super) touched: HashSet<BlockId>,
    /// Became roots.
    pub(super) roots: Vec<Cid>,
}

impl Gate {
    /// A new protection.
    pub(super) fn protect(&self) -> Protection {
        let mut ids = self.living.ids.lock();
        let id = ids.0;
        ids.0 += 1;
        ids.1.insert(id);
        Protection { id, living: Arc::clone(&self.living) }
    }

    /// While a collection runs: what it records. A block is looked up with this held, so that it is not removed
    /// between the look and the record.
    pub(super) fn enter(&self) -> Option<MutexGuard<'_, Recorded>> {
        self.recording.load(Ordering::Acquire).then(|| self.recorded.lock())
    }

    /// Starts to record.
    pub(super) fn start(&self) {
        self.recording.store(true, Ordering::Release);
    }

    /// Waits until the protections that were given out before this call are gone; `false` if that takes too long.
    pub(super) fn wait_for_earlier(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut ids = self.living.ids.lock();
        let newest = ids.0;
        while ids.1.first().is_some_and(|oldest| *oldest < newest) {
            if self.living.ended.wait_until(&mut ids, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Ends the record, and forgets it.
    pub(super) fn stop(&self) {
        self.recording.store(false, Ordering::Release);
        *self.recorded.lock() = Recorded::default();
    }
}
