//! Where an export writes, and where it does not.

use super::*;

fn replacing() -> ExportOptions {
    ExportOptions { overwrite: true, ..ExportOptions::default() }
}

#[test]
fn what_exists_is_refused_unless_it_may_be_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = MemoryBlockstore::new();
    let file = raw(&store, b"new");
    let sub = folder(&store, vec![("file", file, 3)]);
    let outside = dir.path().join("outside");
    fs::write(&outside, "outside").expect("writes");
    let to = dir.path().join("to");
    for cid in [file, sub] {
        for kind in ["file", "folder", "link"] {
            match kind {
                "file" => fs::write(&to, "old").expect("writes"),
                "link" => std::os::unix::fs::symlink(&outside, &to).expect("links"),
                _ => {
                    fs::create_dir(&to).expect("creates");
                    fs::write(to.join("old"), "old").expect("writes");
                }
            }
            let before = tree(&to);
            assert!(matches!(get(&store, &cid, &to), Err(UnixfsError::Exists(_))), "{kind}");
            assert_eq!(tree(&to), before, "an existing {kind} is untouched");
            export(&store, &cid, &to, &replacing(), &mut |_| {}).expect("replaces");
            let expected =
                if cid == file { &[("", Some(&b"new"[..]))][..] } else { &[("", None), ("/file", Some(&b"new"[..]))] };
            let found = tree(&to);
            assert!(
                found.iter().map(|(name, content)| (name.as_str(), content.as_deref())).eq(expected.iter().copied())
            );
            assert_eq!(fs::read(&outside).expect("reads"), b"outside", "what a link led to is untouched");
            assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 2, "nothing is left beside it");
            if cid == file { fs::remove_file(&to).expect("removes") } else { fs::remove_dir_all(&to).expect("removes") }
        }
    }
}

#[test]
fn an_export_that_fails_leaves_nothing_and_keeps_what_was_there() {
    // Small, and so large that a thread of its own writes it.
    for (len, chunk) in [(1_000, 100), (5 << 20, 64 << 10)] {
        an_export_that_fails_at_the_end_of(len, chunk);
    }
}

fn an_export_that_fails_at_the_end_of(len: usize, chunk: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("creates");
    fs::write(source.join("a"), "a").expect("writes");
    fs::write(source.join("b"), pattern(len)).expect("writes");
    let store = MemoryBlockstore::new();
    let root = add(&store, &source, &fixed(chunk)).cid;
    let last = Block::new(Codec::Raw, HashCode::Sha2_256, pattern(len).split_off(len - chunk)).expect("a block");
    store.remove(&[*last.cid()]).expect("removes");
    let to = dir.path().join("to");
    fs::write(&to, "old").expect("writes");
    for cid in [root, resolve(&store, &root, "b").expect("resolves")] {
        let error = export(&store, &cid, &to, &replacing(), &mut |_| {}).expect_err("a block is missing");
        assert!(matches!(&error, UnixfsError::Missing(cid) if **cid == *last.cid()), "{error}");
        assert!(error.to_string().contains(&last.cid().to_string()));
        assert_eq!(fs::read(&to).expect("reads"), b"old");
        assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 2, "only source and target stand there");
    }
}

#[test]
fn a_damaged_block_is_not_exported() {
    struct Rotten(MemoryBlockstore);
    impl Blockstore for Rotten {
        fn get(&self, cid: &Cid) -> Result<Option<bytes::Bytes>, crate::StoreError> {
            Ok(self.0.get(cid)?.map(|data| data.iter().map(|byte| byte ^ 1).collect()))
        }
        fn has(&self, cid: &Cid) -> Result<bool, crate::StoreError> {
            self.0.has(cid)
        }
        fn put_many(&self, blocks: &[Block]) -> Result<usize, crate::StoreError> {
            self.0.put_many(blocks)
        }
        fn sync(&self) -> Result<(), crate::StoreError> {
            self.0.sync()
        }
        fn remove(&self, cids: &[Cid]) -> Result<(), crate::StoreError> {
            self.0.remove(cids)
        }
        fn quarantine(&self, cid: &Cid) -> Result<(), crate::StoreError> {
            self.0.quarantine(cid)
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    let store = Rotten(MemoryBlockstore::new());
    let file = raw(&store.0, b"content");
    assert!(matches!(get(&store, &file, &dir.path().join("to")), Err(UnixfsError::Missing(_))));
    assert!(!store.has(&file).expect("has"), "it was put aside, to be fetched again");
}

#[test]
fn targets_without_a_name_or_a_parent_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = MemoryBlockstore::new();
    let file = raw(&store, b"x");
    for to in ["/", "..", "a/.."] {
        assert!(matches!(get(&store, &file, Path::new(to)), Err(UnixfsError::NoName(_))), "{to}");
    }
    let error = get(&store, &file, &dir.path().join("no/such/folder")).expect_err("no parent");
    assert!(error.to_string().contains("no/such"), "{error}");
}

#[test]
fn progress_and_errors_name_the_path_as_it_will_stand() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = MemoryBlockstore::new();
    let root = folder(&store, vec![("file", raw(&store, b"x"), 1)]);
    let to = dir.path().join("to");
    export(&store, &root, &to, &ExportOptions::default(), &mut |now| assert_eq!(now.path, to.join("file")))
        .expect("exports");
    let root = folder(&store, vec![("link", symlink(&store, "a\0b"), 0)]);
    let error = get(&store, &root, &dir.path().join("other")).expect_err("no system takes that target");
    assert!(error.to_string().contains("other/link"), "{error}");
}

#[test]
fn caps_on_entries_and_bytes_hold_at_n_and_n_plus_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = MemoryBlockstore::new();
    let file = raw(&store, b"12345");
    let root = folder(&store, vec![("a", file, 5), ("b", file, 5), ("c", symlink(&store, "a"), 0)]);
    let with = |max_entries, max_bytes| {
        let options = ExportOptions { max_entries, max_bytes, ..replacing() };
        export(&store, &root, &dir.path().join("to"), &options, &mut |_| {})
    };
    assert!(with(4, 10).is_ok());
    assert!(matches!(with(3, 10), Err(UnixfsError::TooMany { .. })));
    assert!(matches!(with(4, 9), Err(UnixfsError::TooMany { .. })));
}

#[test]
fn a_dag_that_doubles_at_each_level_stops_at_the_cap() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = MemoryBlockstore::new();
    let mut bomb = raw(&store, b"");
    for _ in 0..200 {
        bomb = folder(&store, vec![("a", bomb, 0), ("b", bomb, 0)]);
    }
    let options = ExportOptions { max_entries: 1_000, ..ExportOptions::default() };
    let error = export(&store, &bomb, &dir.path().join("to"), &options, &mut |_| {}).expect_err("2^200 files");
    assert!(matches!(error, UnixfsError::TooMany { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 0);
}
