//! What was imported is exported, byte by byte.

use std::io::{Read, Seek, SeekFrom};

use proptest::prelude::*;

use super::*;

fn there_and_back(from: &Path, options: &ImportOptions) -> Imported {
    let store = MemoryBlockstore::new();
    let imported = add(&store, from, options);
    let out = tempfile::tempdir().expect("a folder");
    let to = out.path().join("out");
    let exported = get(&store, &imported.cid, &to).expect("exports");
    assert_eq!(tree(&to), tree(from));
    assert_eq!(
        (exported.files, exported.folders, exported.symlinks, exported.bytes),
        (imported.files, imported.folders, imported.symlinks, imported.bytes)
    );
    assert_eq!(fs::read_dir(out.path()).expect("reads").count(), 1, "nothing else is left beside the target");
    assert_eq!(add(&store, from, options), Imported { new_blocks: 0, ..imported.clone() }, "the same CID again");
    imported
}

fn all() -> ImportOptions {
    ImportOptions { hidden: true, ..ImportOptions::default() }
}

#[test]
fn a_folder_of_everything_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path();
    fs::create_dir_all(root.join("a/b/c")).expect("creates");
    fs::create_dir_all(root.join("empty folder")).expect("creates");
    fs::create_dir_all(root.join(".hidden")).expect("creates");
    fs::write(root.join("empty file"), "").expect("writes");
    fs::write(root.join(".hidden/file"), "hidden").expect("writes");
    fs::write(root.join("a/b/c/large"), pattern(1_000_000)).expect("writes");
    fs::write(root.join("a/b/exactly one chunk"), pattern(262_144)).expect("writes");
    let names = [
        "日本語",
        "العربية",
        "עברית",
        "हिन्दी",
        "ру́сский",
        "🦀🧵",
        "e\u{301}",
        "\u{e9}",
        "a\\b",
        "new\nline",
        " ",
        "...",
    ];
    for name in names {
        fs::write(root.join(name), name).expect("writes");
    }
    fs::write(root.join("n".repeat(255)), "the longest name").expect("writes");
    std::os::unix::fs::symlink("a/b", root.join("link")).expect("links");
    std::os::unix::fs::symlink("/nowhere/at all", root.join("a/dangling")).expect("links");
    for chunker in [Chunker::default(), Chunker::Fixed(1000), Chunker::Fixed(limits_max()), Chunker::content_defined()]
    {
        for hash in [HashCode::Sha2_256, HashCode::Blake3, HashCode::Sha2_512] {
            let imported = there_and_back(root, &ImportOptions { chunker, hash, ..all() });
            assert_eq!(imported.hidden, 0);
        }
    }
}

fn limits_max() -> usize {
    dagmesh_core::limits::MAX_CHUNK_BYTES
}

#[test]
fn a_file_a_symlink_and_an_empty_folder_can_be_roots() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "content").expect("writes");
    fs::create_dir(dir.path().join("folder")).expect("creates");
    std::os::unix::fs::symlink("file", dir.path().join("link")).expect("links");
    for name in ["file", "folder", "link"] {
        there_and_back(&dir.path().join(name), &all());
    }
}

#[test]
fn hidden_names_are_left_out_and_counted_unless_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join(".secret"), "x").expect("writes");
    fs::write(dir.path().join("open"), "x").expect("writes");
    let store = MemoryBlockstore::new();
    let without = add(&store, dir.path(), &ImportOptions::default());
    assert_eq!((without.files, without.hidden), (1, 1));
    let with = add(&store, dir.path(), &all());
    assert_eq!((with.files, with.hidden), (2, 0));
    assert_eq!(add(&store, &dir.path().join(".secret"), &ImportOptions::default()).files, 1, "named itself");
}

#[test]
fn sockets_are_left_out_and_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).expect("binds");
    let store = MemoryBlockstore::new();
    let imported = add(&store, dir.path(), &ImportOptions::default());
    assert_eq!((imported.special, imported.files), (1, 0));
    let error = import(&store, &dir.path().join("socket"), &ImportOptions::default(), &mut |_| {});
    assert!(matches!(error, Err(UnixfsError::Special(_))));
}

#[test]
fn names_that_are_not_utf_8_and_paths_that_are_not_there_are_named_in_the_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"bad-\xff");
    fs::write(dir.path().join(name), "x").expect("writes");
    let store = MemoryBlockstore::new();
    let error = import(&store, dir.path(), &ImportOptions::default(), &mut |_| {}).expect_err("not UTF-8");
    assert!(matches!(error, UnixfsError::NotUtf8(_)) && error.to_string().contains("bad-"), "{error}");
    let error = import(&store, &dir.path().join("gone"), &ImportOptions::default(), &mut |_| {}).expect_err("gone");
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn folders_are_taken_at_the_depth_cap_and_refused_beyond_it() {
    let max = dagmesh_core::limits::MAX_FOLDER_DEPTH;
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("d");
    let mut deepest = root.clone();
    (0..max).for_each(|_| deepest.push("d"));
    fs::create_dir_all(&deepest).expect("creates");
    assert_eq!(there_and_back(&root, &all()).folders, max as u64 + 1);
    fs::create_dir(deepest.join("d")).expect("creates");
    let store = MemoryBlockstore::new();
    let error = import(&store, &root, &all(), &mut |_| {}).expect_err("too deep");
    assert!(matches!(error, UnixfsError::TooDeep { .. }), "{error}");

    let mut chain = folder(&store, Vec::new());
    for _ in 0..=max {
        chain = folder(&store, vec![("d", chain, 0)]);
    }
    let error = get(&store, &chain, &dir.path().join("out")).expect_err("too deep");
    assert!(matches!(error, UnixfsError::TooDeep { .. }), "{error}");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_large_folder_comes_back_through_its_shards() {
    let dir = tempfile::tempdir().expect("a folder");
    for number in 0..7_000 {
        fs::write(dir.path().join(format!("{number} 🦀 ein längerer Name")), number.to_string()).expect("writes");
    }
    let imported = there_and_back(dir.path(), &all());
    assert_eq!(imported.files, 7_000);
}

#[test]
fn modes_and_times_come_back_when_asked_for() {
    use std::{
        os::unix::fs::PermissionsExt,
        time::{Duration, UNIX_EPOCH},
    };
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub")).expect("creates");
    fs::write(root.join("sub/small"), "small").expect("writes");
    fs::write(root.join("empty"), "").expect("writes");
    fs::write(root.join("sub/large"), pattern(600_000)).expect("writes");
    let set = |path: &Path, mode: u32, seconds: u64| {
        let file = fs::File::open(path).expect("opens");
        file.set_modified(UNIX_EPOCH + Duration::new(seconds, 5)).expect("sets");
        file.set_permissions(fs::Permissions::from_mode(mode)).expect("sets");
    };
    set(&root.join("sub/small"), 0o4755, 1_000);
    set(&root.join("sub/large"), 0o400, 2_000);
    set(&root.join("empty"), 0o644, 3_000);
    set(&root.join("sub"), 0o500, 4_000);
    set(&root, 0o750, 5_000);
    let store = MemoryBlockstore::new();
    let imported = add(&store, &root, &ImportOptions { metadata: true, ..all() });
    let to = dir.path().join("out");
    get(&store, &imported.cid, &to).expect("exports");
    for (path, mode) in [("sub/small", 0o755), ("sub/large", 0o400), ("empty", 0o644), ("sub", 0o500), ("", 0o750)] {
        let (was, is) = (fs::metadata(root.join(path)).expect("was"), fs::metadata(to.join(path)).expect("is"));
        assert_eq!(is.permissions().mode() & 0o7777, mode, "{path:?}: set-uid is dropped, all else is kept");
        assert_eq!(is.modified().expect("a time"), was.modified().expect("a time"), "{path:?}");
    }
    assert_eq!(tree(&to), tree(&root));
    let small = resolve(&store, &imported.cid, "sub/small").expect("resolves");
    assert_eq!(stat(&store, &small).expect("stats").metadata.mode, Some(0o4755));
    for folder in [root.join("sub"), to.join("sub")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("so that it can be removed");
    }
}

#[test]
fn an_insertion_changes_few_content_defined_chunks() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("file");
    let store = MemoryBlockstore::new();
    let options = ImportOptions {
        chunker: Chunker::ContentDefined { min: 1024, average: 4096, max: 16_384 },
        ..ImportOptions::default()
    };
    let mut content = pattern(1_000_000);
    fs::write(&path, &content).expect("writes");
    let before = add(&store, &path, &options);
    content.splice(500_000..500_000, *b"inserted");
    fs::write(&path, &content).expect("writes");
    let after = add(&store, &path, &options);
    assert!(after.new_blocks < 10 && before.blocks > 100, "{} of {} are new", after.new_blocks, after.blocks);
    assert_eq!(read_all(&store, &after.cid), content);
}

#[test]
fn chunk_sizes_are_taken_at_their_caps_and_refused_beyond_them() {
    let max = limits_max();
    let cut = |min, average, max| Chunker::ContentDefined { min, average, max };
    let dir = tempfile::tempdir().expect("a folder");
    let try_with = |chunker| {
        let options = ImportOptions { chunker, ..ImportOptions::default() };
        import(&MemoryBlockstore::new(), dir.path(), &options, &mut |_| {})
    };
    for chunker in [Chunker::Fixed(1), Chunker::Fixed(max), cut(64, 256, 1024), cut(max, max, max)] {
        assert!(try_with(chunker).is_ok(), "{chunker:?}");
    }
    let refused = [
        Chunker::Fixed(0),
        Chunker::Fixed(max + 1),
        cut(62, 256, 1024),
        cut(64, 254, 1024),
        cut(64, 256, 1022),
        cut(65, 256, 1024),
        cut(512, 256, 1024),
        cut(64, 2048, 1024),
        cut(64, 256, max + 2),
    ];
    for chunker in refused {
        assert!(matches!(try_with(chunker), Err(UnixfsError::Options(_))), "{chunker:?}");
    }
    let identity = ImportOptions { hash: HashCode::Identity, ..ImportOptions::default() };
    let error = import(&MemoryBlockstore::new(), dir.path(), &identity, &mut |_| {});
    assert!(matches!(error, Err(UnixfsError::Options(_))));
}

#[test]
fn progress_ends_at_the_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("a"), pattern(600_000)).expect("writes");
    fs::write(dir.path().join("b"), "b").expect("writes");
    let store = MemoryBlockstore::new();
    let mut seen = Vec::new();
    let imported = import(&store, dir.path(), &ImportOptions::default(), &mut |now| seen.push((now.files, now.bytes)));
    assert!(seen.is_sorted() && seen.len() >= 4, "{seen:?}");
    assert_eq!(seen.last(), Some(&(2, 600_001)));
    let mut seen = Vec::new();
    let to = dir.path().join("out");
    export(&store, &imported.expect("imports").cid, &to, &ExportOptions::default(), &mut |now| {
        seen.push((now.files, now.bytes));
    })
    .expect("exports");
    assert_eq!(seen.last(), Some(&(2, 600_001)));
}

#[test]
fn seeking_reads_no_block_that_it_skips() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("file");
    let content = pattern(100_000);
    fs::write(&path, &content).expect("writes");
    let store = MemoryBlockstore::new();
    let cid = add(&store, &path, &fixed(100)).cid;
    let first = Block::new(Codec::Raw, HashCode::Sha2_256, content[..100].to_vec()).expect("a block");
    store.remove(&[*first.cid()]).expect("removes");
    let mut file = cat(&store, &cid).expect("opens");
    assert_eq!(file.size(), 100_000);
    for at in [100usize, 99_999, 50_050, 17_400, 100_000, 100_001] {
        file.seek(SeekFrom::Start(at as u64)).expect("seeks");
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).expect("reads");
        assert!(rest == content[at.min(100_000)..], "from {at}");
    }
    assert_eq!(file.seek(SeekFrom::End(-10)).expect("seeks"), 99_990);
    assert_eq!(file.seek(SeekFrom::Current(-90)).expect("seeks"), 99_900);
    assert_eq!(file.next_chunk().expect("reads").expect("a chunk"), content[99_900..]);
    assert!(file.seek(SeekFrom::Current(-100_001)).is_err());

    file.seek_to(99);
    for _ in 0..2 {
        let error = file.read(&mut [0; 10]).expect_err("the block is missing, and stays missing");
        let inner = error.into_inner().and_then(|inner| inner.downcast::<UnixfsError>().ok()).expect("ours");
        assert!(matches!(*inner, UnixfsError::Missing(missing) if *missing == *first.cid()));
    }
    store.put(&first).expect("puts");
    assert_eq!(file.next_chunk().expect("reads").expect("a chunk"), content[99..100], "it came after all");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_tree_comes_back(
        entries in prop::collection::btree_map("[^/\0.]{1,20}", prop::collection::vec(any::<u8>(), 0..2000), 0..8),
        chunk in 1usize..64,
        seek in 0u64..3000,
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let store = MemoryBlockstore::new();
        for (index, (name, content)) in entries.iter().enumerate() {
            let parent = dir.path().join(format!("{}", index % 3));
            fs::create_dir_all(&parent).expect("creates");
            let path = parent.join(name);
            fs::write(&path, content).expect("writes");
            let imported = add(&store, &path, &fixed(chunk));
            let mut file = cat(&store, &imported.cid).expect("opens");
            file.seek_to(seek);
            let mut rest = Vec::new();
            file.read_to_end(&mut rest).expect("reads");
            prop_assert_eq!(&rest[..], content.get(seek as usize..).unwrap_or_default());
        }
        there_and_back(dir.path(), &ImportOptions { hidden: true, ..fixed(chunk) });
    }
}
