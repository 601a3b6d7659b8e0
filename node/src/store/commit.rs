//! Group commit: callers that wait for the disk at the same time share one sync of it.

use std::sync::atomic::{AtomicU64, Ordering};

use dagmesh_dag::StoreError;
use parking_lot::{Condvar, Mutex};

/// Counts writes, and says up to which of them all is on the disk.
#[derive(Debug, Default)]
pub(super) struct GroupCommit {
    /// Writes that the journal has taken in.
    written: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// All writes up to this one are on the disk.
    synced: u64,
    /// Somebody is syncing.
    running: bool,
    /// Syncs of the disk so far.
    persists: u64,
}

impl GroupCommit {
    /// Tells that a write has been taken in by the journal.
    pub(super) fn wrote(&self) {
        self.written.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns once every write told before this call is on the disk. One of those who wait calls `persist` for all.
    ///
    /// Whoever waits while another's `persist` fails tries for itself, so that each gets the reason.
    pub(super) fn sync(&self, persist: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let wanted = self.written.load(Ordering::Acquire);
        let mut state = self.state.lock();
        loop {
            if state.synced >= wanted {
                return Ok(());
            }
            if !state.running {
                break;
            }
            self.changed.wait(&mut state);
        }
        state.running = true;
        drop(state);
        // Everything told by now goes with this sync, also of those who come while it runs the one before.
        let covered = self.written.load(Ordering::Acquire);
        let result = persist();
        let mut state = self.state.lock();
        state.running = false;
        state.persists += 1;
        if result.is_ok() {
            state.synced = state.synced.max(covered);
        }
        drop(state);
        self.changed.notify_all();
        result
    }

    /// How many times the disk has been synced.
    pub(super) fn persists(&self) -> u64 {
        self.state.lock().persists
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn callers_that_come_while_a_sync_runs_share_the_next_one() {
        const CALLERS: usize = 64;
        let commit = Arc::new(GroupCommit::default());
        let (entered, first_runs) = mpsc::sync_channel(1);
        let (release, released) = mpsc::sync_channel::<()>(1);
        commit.wrote();
        let first = std::thread::spawn({
            let commit = Arc::clone(&commit);
            move || {
                commit.sync(|| {
                    entered.send(()).expect("the test waits");
                    released.recv().expect("the test lets go");
                    Ok(())
                })
            }
        });
        first_runs.recv().expect("the first sync runs");
        let (started, all_started) = mpsc::sync_channel(CALLERS);
        let others: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (commit, started) = (Arc::clone(&commit), started.clone());
                std::thread::spawn(move || {
                    commit.wrote();
                    started.send(()).expect("the test counts");
                    commit.sync(|| Ok(()))
                })
            })
            .collect();
        for _ in 0..CALLERS {
            all_started.recv().expect("each has written");
        }
        release.send(()).expect("the first sync waits");
        first.join().expect("ends").expect("syncs");
        for other in others {
            other.join().expect("ends").expect("syncs");
        }
        // All of them wrote before the first sync ended, so the second covers each.
        assert_eq!(commit.persists(), 2);
    }

    #[test]
    fn a_sync_with_nothing_new_leaves_the_disk_alone() {
        let commit = GroupCommit::default();
        commit.sync(|| Ok(())).expect("nothing to do");
        assert_eq!(commit.persists(), 0);
        commit.wrote();
        commit.sync(|| Ok(())).expect("syncs");
        commit.sync(|| Ok(())).expect("nothing to do");
        assert_eq!(commit.persists(), 1);
    }

    #[test]
    fn a_sync_that_fails_acknowledges_nothing() {
        let commit = GroupCommit::default();
        commit.wrote();
        assert!(commit.sync(|| Err(StoreError::NoSpace)).is_err());
        assert!(commit.sync(|| Err(StoreError::NoSpace)).is_err(), "the write is still not on the disk");
    }
}
