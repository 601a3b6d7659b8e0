//! A disk: what is on it, what only seems to be, and what goes wrong.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use dagmesh_core::limits::{MAX_SIM_DISK_BYTES, MAX_SIM_WRITES};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{Durability, Latency, link::happens};

/// How long a disk takes, and how often it fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiskModel {
    /// How long one write takes; writes wait for one another.
    pub latency: Latency,
    /// How likely a write fails, from 0 to 1. Nothing of it is on the disk then.
    pub failure: f64,
}

impl Default for DiskModel {
    /// A solid-state disk that does not fail: 1 to 5 ms a write.
    fn default() -> Self {
        let latency = Latency::Uniform(Duration::from_millis(1), Duration::from_millis(5));
        Self { latency, failure: 0.0 }
    }
}

/// Why a write is not on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The disk said so.
    #[error("the disk failed")]
    Failed,
    /// There is no room: [`MAX_SIM_DISK_BYTES`] on it, or [`MAX_SIM_WRITES`] waiting.
    #[error("the disk is full")]
    Full,
}

/// What a node's disk holds, by key. A machine sees it at its start.
///
/// What was synced is always there after a crash. Of what was not, a beginning of random length is, in the order of the
/// writes, as a journal leaves it.
#[derive(Debug, Default)]
pub struct Disk {
    synced: BTreeMap<Bytes, Bytes>,
    buffered: VecDeque<(Bytes, Option<Bytes>)>,
    waiting: VecDeque<Write>,
    /// Keys and values of all three.
    bytes: usize,
    /// When the last write that waits will be done, in nanoseconds.
    pub(crate) busy_until: u64,
}

#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) token: u64,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
    pub(crate) durability: Durability,
    pub(crate) failed: bool,
}

impl Disk {
    /// What is on the disk under this key; writes that are only buffered do not count.
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.synced.get(key)
    }

    /// All that is on the disk, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.synced.iter()
    }

    /// Takes in a write, to be done later.
    pub(crate) fn accept(
        &mut self,
        mut write: Write,
        model: &DiskModel,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), DiskError> {
        write.failed = happens(rng, model.failure);
        let bytes = size(&write.key, write.value.as_ref());
        if self.waiting.len() >= MAX_SIM_WRITES || self.bytes + bytes > MAX_SIM_DISK_BYTES {
            return Err(DiskError::Full);
        }
        self.bytes += bytes;
        self.waiting.push_back(write);
        Ok(())
    }

    /// Does the write that waits for longest.
    pub(crate) fn complete(&mut self) -> Option<(u64, Result<(), DiskError>)> {
        let Write { token, key, value, durability, failed } = self.waiting.pop_front()?;
        if failed {
            self.bytes -= size(&key, value.as_ref());
            return Some((token, Err(DiskError::Failed)));
        }
        self.buffered.push_back((key, value));
        if durability == Durability::Synced {
            self.sync(usize::MAX);
        } else if self.buffered.len() > MAX_SIM_WRITES {
            // As a system writes back what has waited for long.
            self.sync(1);
        }
        Some((token, Ok(())))
    }

    /// The machine stopped in good order: all that was done is on the disk, and all that waits too.
    pub(crate) fn stop(&mut self) {
        while self.complete().is_some() {}
        self.sync(usize::MAX);
        self.busy_until = 0;
    }

    /// The machine crashed.
    pub(crate) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        for write in self.waiting.drain(..) {
            if write.failed {
                self.bytes -= size(&write.key, write.value.as_ref());
            } else {
                self.buffered.push_back((write.key, write.value));
            }
        }
        let survive = rng.random_range(0..=self.buffered.len() as u64) as usize;
        self.sync(survive);
        for (key, value) in self.buffered.drain(..) {
            self.bytes -= size(&key, value.as_ref());
        }
        self.busy_until = 0;
    }

    /// The first `count` buffered writes are on the disk.
    fn sync(&mut self, count: usize) {
        let count = count.min(self.buffered.len());
        for (key, value) in self.buffered.drain(..count) {
            // Its key was counted with each write; on the disk it stands once.
            let old = match value {
                Some(value) => self.synced.insert(key.clone(), value),
                None => {
                    self.bytes -= key.len();
                    self.synced.remove(&key)
                }
            };
            if let Some(old) = old {
                self.bytes -= size(&key, Some(&old));
            }
        }
    }
}

fn size(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn write(key: &'static str, value: Option<&'static str>, durability: Durability) -> Write {
        let value = value.map(|value| Bytes::from_static(value.as_bytes()));
        Write { token: 0, key: Bytes::from_static(key.as_bytes()), value, durability, failed: false }
    }

    #[test]
    fn what_was_synced_survives_and_of_the_rest_a_beginning() {
        let mut survived = [0; 4];
        for seed in 0..100 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (mut disk, model) = (Disk::default(), DiskModel::default());
            disk.accept(write("a", Some("old"), Durability::Synced), &model, &mut rng).expect("room");
            disk.complete().expect("a write").1.expect("written");
            for key in ["b", "c", "d"] {
                disk.accept(write(key, Some("new"), Durability::Buffered), &model, &mut rng).expect("room");
            }
            disk.complete().expect("a write").1.expect("written");
            assert_eq!(disk.get(b"b"), None, "it is only buffered");
            disk.crash(&mut rng);
            let keys: Vec<_> = disk.iter().map(|(key, _)| key.as_ref()).collect();
            let all: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
            assert_eq!(keys, all[..keys.len()], "seed {seed}");
            assert_eq!(disk.bytes, 4 * keys.len());
            survived[keys.len() - 1] += 1;
        }
        assert!(survived.iter().all(|count| *count > 10), "{survived:?}");
    }

    #[test]
    fn bytes_are_given_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut disk, model) = (Disk::default(), DiskModel::default());
        for value in [Some("long value"), Some("short"), None, None] {
            disk.accept(write("key", value, Durability::Synced), &model, &mut rng).expect("room");
            disk.complete().expect("a write").1.expect("written");
            assert_eq!(disk.bytes, value.map_or(0, |value| value.len() + 3));
        }
    }

    #[test]
    fn a_full_disk_refuses_one_byte_more() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut disk, model) = (Disk::default(), DiskModel::default());
        let mut fill = |disk: &mut Disk, key, bytes| {
            let value = Some(Bytes::from(vec![0; bytes]));
            let write = Write { value, ..write(key, None, Durability::Synced) };
            disk.accept(write, &model, &mut rng)
        };
        assert_eq!(fill(&mut disk, "a", MAX_SIM_DISK_BYTES), Err(DiskError::Full));
        assert_eq!(fill(&mut disk, "a", MAX_SIM_DISK_BYTES - 1), Ok(()));
        assert_eq!(fill(&mut disk, "", 1), Err(DiskError::Full));
        disk.stop();
        assert_eq!(disk.get(b"a").map(Bytes::len), Some(MAX_SIM_DISK_BYTES - 1));
    }

    #[test]
    fn one_write_too_many_is_refused_and_the_buffer_is_written_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut disk, model) = (Disk::default(), DiskModel::default());
        let mut accept =
            |disk: &mut Disk, key| disk.accept(write(key, Some(""), Durability::Buffered), &model, &mut rng);
        assert!((0..MAX_SIM_WRITES).all(|_| accept(&mut disk, "a") == Ok(())));
        assert_eq!(accept(&mut disk, "b"), Err(DiskError::Full));
        while disk.complete().is_some() {}
        assert_eq!((disk.buffered.len(), disk.get(b"a")), (MAX_SIM_WRITES, None));
        assert_eq!(accept(&mut disk, "b"), Ok(()));
        disk.complete().expect("a write").1.expect("written");
        assert_eq!((disk.buffered.len(), disk.get(b"a")), (MAX_SIM_WRITES, Some(&Bytes::new())));
    }
}
