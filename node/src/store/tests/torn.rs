//! A torn tail (row 32 of the table of faults): whatever stands at the end of the journal after a kill or a loss of
//! power, what was acknowledged before it is intact.

use std::{fs, path::PathBuf};

use super::*;

/// What the engine allocates ahead for a journal.
const ALLOCATED_BYTES: u64 = 64 << 20;

/// A store as a kill left it, with writes that were acknowledged and writes that were not.
struct Killed {
    dir: TempDir,
    acknowledged: Vec<Block>,
    /// The journal, up to its last byte that was written.
    journal: Vec<u8>,
    /// Where in it the writes begin that were never acknowledged.
    tail: usize,
}

impl Killed {
    fn new() -> Self {
        let store = TempStore::new();
        let block = |n: usize| raw(format!("block {n} ").repeat(n % 7 * 40 + 1));
        let acknowledged: Vec<_> = (0..60).map(block).collect();
        for blocks in acknowledged.chunks(7) {
            store.put_many(blocks).expect("puts");
        }
        store.kv_put("acknowledged", b"yes").expect("puts, and syncs all of it");
        let tail = written(&store.dir).len();
        for blocks in (100..130).map(block).collect::<Vec<_>>().chunks(11) {
            store.put_many(blocks).expect("puts");
        }
        // The files of a process that is killed stay as they stand now.
        let journal = written(&store.dir);
        let dir = tempfile::tempdir().expect("a directory");
        copy(store.dir.path(), dir.path());
        let name = journal_of(store.dir.path()).file_name().expect("a name").to_owned();
        fs::write(dir.path().join("db").join(name), &journal).expect("writes");
        Self { dir, acknowledged, journal, tail }
    }

    /// Opens the store with this as its journal, allocated ahead as it was.
    fn open_with(&self, journal: &[u8], allocated: bool) -> Result<Arc<Store>, OpenError> {
        let path = journal_of(self.dir.path());
        fs::write(&path, journal).expect("writes");
        if allocated {
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(ALLOCATED_BYTES))
                .expect("grows");
        }
        Store::open_with(self.dir.path(), &StoreOptions { reserve_bytes: 0 })
    }

    /// All that was acknowledged is there, nothing else is half there, and the store goes on.
    fn assert_intact(&self, store: Arc<Store>, what: &str) {
        let held = |store: &Store| {
            for block in &self.acknowledged {
                assert_eq!(store.verified_block(block.cid()).expect("reads").as_ref(), Some(block), "{what}");
            }
            assert_eq!(store.kv_get("acknowledged").expect("reads"), Some(Bytes::from("yes")), "{what}");
            let report = store.verify(|_| ()).expect("verifies");
            assert!(report.is_sound(), "{what}: {report:?}");
            assert_eq!((store.stat().blocks, store.stat().bytes), (report.blocks, report.bytes), "{what}");
        };
        held(&store);
        store.put(&raw("after it")).expect("puts");
        drop(store);
        let store = open(self.dir.path());
        held(&store);
        assert!(store.has(raw("after it").cid()).expect("has"), "{what}");
    }
}

#[test]
fn row_32_a_journal_cut_anywhere_in_its_tail_keeps_what_was_acknowledged() {
    let killed = Killed::new();
    let (tail, end) = (killed.tail, killed.journal.len());
    assert!(end > tail + 2_000, "{} bytes were not acknowledged", end - tail);
    // At each byte of the first frames, around the end, and between them.
    let cuts = (tail..tail + 70).chain((tail + 70..end - 40).step_by(997)).chain(end - 40..=end);
    for (n, cut) in cuts.enumerate() {
        // A file that ends there, and one whose rest was allocated and not written.
        let allocated = n % 2 == 0;
        let what = format!("cut at byte {} of {} that were not acknowledged, {allocated}", cut - tail, end - tail);
        let store =
            killed.open_with(&killed.journal[..cut], allocated).unwrap_or_else(|error| panic!("{what}: {error}"));
        killed.assert_intact(store, &what);
    }
}

#[test]
fn row_32_a_journal_with_garbage_in_its_tail_keeps_what_was_acknowledged_or_refuses_and_stays_as_it_is() {
    let killed = Killed::new();
    let (tail, end) = (killed.tail, killed.journal.len());
    let mut seed = 7u64;
    let (mut intact, mut refused) = (0, 0);
    for at in (tail..end).step_by((end - tail) / 40) {
        let mut journal = killed.journal.clone();
        // Sectors arrive in any order: one that did not has what was there before, one that was torn has anything.
        let lost = at..(at + 512).min(end);
        for byte in journal.get_mut(lost).expect("inside") {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = if at % 2 == 0 { 0 } else { (seed >> 56) as u8 };
        }
        let what = format!("garbage at byte {} of {} that were not acknowledged", at - tail, end - tail);
        match killed.open_with(&journal, true) {
            Ok(store) => {
                killed.assert_intact(store, &what);
                intact += 1;
            }
            // The engine does not guess where a batch with a wrong checksum is followed by others.
            Err(error) => {
                assert!(matches!(error, OpenError::Engine { .. }), "{what}: {error}");
                assert_eq!(written_in(killed.dir.path()), journal, "{what}: nothing is thrown away");
                let cut = killed.open_with(&journal[..tail], true).unwrap_or_else(|error| panic!("{what}: {error}"));
                killed.assert_intact(cut, &what);
                refused += 1;
            }
        }
    }
    println!("{intact} were opened, {refused} refused");
    assert!(intact > 0 && refused > 0, "both are shown");
}

/// The newest journal below `dir`.
fn journal_of(dir: &Path) -> PathBuf {
    let journals = fs::read_dir(dir.join("db")).expect("lists").map(|entry| entry.expect("an entry").path());
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let journals = journals.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    journals.max_by_key(number).expect("a journal")
}

fn written(dir: &TempDir) -> Vec<u8> {
    written_in(dir.path())
}

/// The journal below `dir`, up to its last byte that is not 0; no frame ends with a 0.
fn written_in(dir: &Path) -> Vec<u8> {
    let mut bytes = fs::read(journal_of(dir)).expect("reads");
    while bytes.last_chunk() == Some(&[0; 4096]) {
        bytes.truncate(bytes.len() - 4096);
    }
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

/// Copies all but the journals.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("lists") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&to).expect("makes");
            copy(&path, &to);
        } else if path.extension().is_none_or(|extension| extension != "jnl") {
            fs::copy(&path, &to).expect("copies");
        }
    }
}
