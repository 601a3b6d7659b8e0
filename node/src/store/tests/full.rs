//! A full disk (row 33 of the table of faults): nothing that failed is acknowledged, and what was acknowledged stays.

use super::*;

/// A small file system in memory; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, where this process may not mount one.
    fn new(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        match mount(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"], dir.path()) {
            Ok(()) => Some(Self(dir)),
            Err(reason) => {
                eprintln!("skipped: a small file system cannot be mounted: {reason}");
                None
            }
        }
    }

    fn grow(&self, mebibytes: u32) {
        mount(&["-o", &format!("remount,size={mebibytes}m")], self.0.path()).expect("grows");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

fn mount(args: &[&str], at: &Path) -> Result<(), String> {
    let output = std::process::Command::new("mount").args(args).arg(at).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// Puts blocks until the store refuses; those acknowledged, and the refusal.
fn fill(store: &Store) -> (Vec<Block>, StoreError) {
    let mut acknowledged = Vec::new();
    for n in 0u64.. {
        let block = raw(n.to_be_bytes().repeat(16 << 10));
        match store.put(&block) {
            Ok(()) => acknowledged.push(block),
            Err(error) => return (acknowledged, error),
        }
    }
    unreachable!("the disk is small")
}

#[test]
fn row_33_a_full_disk_stops_the_store_and_loses_nothing_acknowledged() {
    // The journal fills the first disk; the second fills while the engine writes out what it gathered.
    for size in [8, 48] {
        let Some(disk) = SmallDisk::new(size) else { return };
        let store = open(disk.0.path());
        let (acknowledged, error) = fill(&store);
        assert!(acknowledged.len() > 8, "{} were acknowledged on {size} MiB", acknowledged.len());
        assert!(matches!(error, StoreError::NoSpace | StoreError::Closed(_)), "{error:?}");
        for _ in 0..3 {
            assert!(matches!(store.put(&raw("another")), Err(StoreError::Closed(_))), "it takes no more writes");
        }
        assert!(matches!(store.sync(), Err(StoreError::Closed(_))));
        assert!(matches!(store.kv_put("key", b""), Err(Error::Store(StoreError::Closed(_)))));
        for block in &acknowledged {
            assert_eq!(store.get(block.cid()).expect("reads on").as_ref(), Some(block.data()));
        }
        drop(store);
        disk.grow(256);
        let store = open(disk.0.path());
        for block in &acknowledged {
            assert_eq!(store.verified_block(block.cid()).expect("reads").as_ref(), Some(block), "on {size} MiB");
        }
        assert!(store.verify(|_| ()).expect("verifies").is_sound());
        store.put(&raw("another")).expect("puts again");
    }
}

#[test]
fn row_33_a_write_into_the_reserve_is_refused_until_there_is_space() {
    let Some(disk) = SmallDisk::new(64) else { return };
    let store = Store::open_with(disk.0.path(), &StoreOptions { reserve_bytes: 32 << 20 }).expect("opens");
    let (acknowledged, error) = fill(&store);
    assert!(matches!(error, StoreError::NoSpace), "{error:?}");
    store.sync().expect("what was taken can be synced");
    // What is gathered in memory counts as taken; once it is written out, there may be room for one more.
    let next = store.put(&raw(vec![0; 1 << 20]));
    assert!(matches!(next, Ok(()) | Err(StoreError::NoSpace)), "it is refused, not closed: {next:?}");
    let kept = acknowledged.first().expect("a block");
    store.remove(&[*acknowledged.last().expect("a block").cid()]).expect("what frees space may use the reserve");
    assert!(store.has(kept.cid()).expect("has"));
    disk.grow(256);
    store.put(&raw(vec![0; 1 << 20])).expect("puts again");
    for block in acknowledged.iter().rev().skip(1) {
        assert!(store.has(block.cid()).expect("has"));
    }
}
