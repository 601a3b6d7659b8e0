//! DAGs of strangers.

use proptest::prelude::*;

use super::*;

fn refused(store: &MemoryBlockstore, cid: &Cid) -> UnixfsError {
    let dir = tempfile::tempdir().expect("a folder");
    let error = get(store, cid, &dir.path().join("sub")).expect_err("refused");
    assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 0, "nothing is left: {error}");
    error
}

#[test]
fn names_that_lead_out_of_their_folder_are_refused() {
    let store = MemoryBlockstore::new();
    let file = raw(&store, b"x");
    let long = "n".repeat(256);
    for name in ["", ".", "..", "/", "a/b", "/etc/passwd", "../x", "a/", "a\0b", long.as_str()] {
        let root = folder(&store, vec![(name, file, 1)]);
        let error = refused(&store, &root);
        assert!(matches!(error, UnixfsError::UnsafeName { .. }), "{name:?}: {error}");
    }
}

#[test]
fn nothing_is_written_through_a_symlink_of_the_dag() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = MemoryBlockstore::new();
    let file = raw(&store, b"x");
    let out = symlink(&store, &dir.path().display().to_string());
    let sub = folder(&store, vec![("file", file, 1)]);
    let twice = folder(&store, vec![("a", out, 0), ("a", sub, 0)]);
    let error = get(&store, &twice, &dir.path().join("to")).expect_err("one name twice");
    assert!(matches!(error, UnixfsError::Malformed { .. }), "{error}");

    // Names that a filesystem may fold into one stand side by side where it does not.
    let root = folder(&store, vec![("A", out, 0), ("a", sub, 0)]);
    let _ = get(&store, &root, &dir.path().join("to"));
    assert!(!dir.path().join("file").exists());
}

#[test]
fn sizes_that_do_not_hold_are_an_error() {
    let store = MemoryBlockstore::new();
    let (five, other) = (raw(&store, b"12345"), folder(&store, Vec::new()));
    let inner = put(&store, vec![("", five, 5)], file_data(&[], &[5]));
    let claim = |links, data| put(&store, links, data);
    let filesize = |size| Data { filesize: size, ..file_data(&[], &[5]) };
    let cases = [
        ("a leaf longer than claimed", claim(vec![("", five, 4)], file_data(&[], &[4]))),
        ("a leaf shorter than claimed", claim(vec![("", five, 6)], file_data(&[], &[6]))),
        ("an inner node longer than claimed", claim(vec![("", inner, 4)], file_data(&[], &[4]))),
        ("a leaf claimed to be empty", claim(vec![("", five, 0)], file_data(&[], &[0]))),
        ("fewer sizes than links", claim(vec![("", five, 5), ("", five, 5)], file_data(&[], &[5]))),
        ("more sizes than links", claim(vec![("", five, 5)], file_data(&[], &[5, 5]))),
        ("a file size too large", claim(vec![("", five, 5)], filesize(Some(6)))),
        ("no file size", claim(vec![("", five, 5)], filesize(None))),
        ("sizes beyond 64 bits", {
            let data = Data { filesize: Some(4), blocksizes: vec![u64::MAX, 5], ..file_data(&[], &[]) };
            claim(vec![("", five, 5), ("", five, 5)], data)
        }),
        ("a named part", claim(vec![("name", five, 5)], file_data(&[], &[5]))),
        ("a folder as a part", claim(vec![("", other, 5)], file_data(&[], &[5]))),
        ("a symlink as a part", claim(vec![("", symlink(&store, "12345"), 5)], file_data(&[], &[5]))),
    ];
    for (name, cid) in cases {
        let error = refused(&store, &cid);
        assert!(matches!(error, UnixfsError::Malformed { .. }), "{name}: {error}");
    }
}

#[test]
fn inline_data_comes_before_the_parts() {
    let store = MemoryBlockstore::new();
    let tail = put(&store, vec![("", raw(&store, b"three"), 5)], file_data(b"two ", &[5]));
    let root = put(&store, vec![("", tail, 9)], file_data(b"one ", &[9]));
    assert_eq!(read_all(&store, &root), b"one two three");
    let old = Data { filesize: Some(3), ..Data::new(DataType::Raw, Metadata::default()) };
    let old = put(&store, Vec::new(), Data { data: Some(b"old".to_vec().into()), ..old });
    assert_eq!(read_all(&store, &old), b"old");
    let mut file = cat(&store, &root).expect("opens");
    file.seek_to(6);
    assert_eq!(file.next_chunk().expect("reads").expect("a chunk"), b"o "[..]);
    let inline = Block::new(Codec::Raw, HashCode::Identity, &b"inside"[..]).expect("a block");
    assert_eq!(read_all(&store, inline.cid()), b"inside");
}

#[test]
fn files_are_read_at_the_depth_cap_and_refused_beyond_it() {
    let store = MemoryBlockstore::new();
    let mut file = raw(&store, b"x");
    for _ in 0..dagmesh_core::limits::MAX_FILE_DEPTH {
        file = put(&store, vec![("", file, 1)], file_data(&[], &[1]));
    }
    assert_eq!(read_all(&store, &file), b"x");
    let deeper = put(&store, vec![("", file, 1)], file_data(&[], &[1]));
    assert!(matches!(refused(&store, &deeper), UnixfsError::Malformed { .. }));
}

#[test]
fn parts_without_bytes_are_read_at_their_cap_and_refused_beyond_it() {
    let store = MemoryBlockstore::new();
    let empty = raw(&store, b"");
    let max = dagmesh_core::limits::MAX_EMPTY_PARTS;
    let with = |count: usize| put(&store, vec![("", empty, 0); count], file_data(b"x", &vec![0; count]));
    assert_eq!(read_all(&store, &with(max)), b"x");
    assert!(matches!(refused(&store, &with(max + 1)), UnixfsError::Malformed { .. }));
    let mut bomb = empty;
    for _ in 0..20 {
        bomb = put(&store, vec![("", bomb, 0), ("", bomb, 0)], file_data(&[], &[0, 0]));
    }
    assert!(matches!(refused(&store, &bomb), UnixfsError::Malformed { .. }), "2^20 of them");
}

fn shard(store: &MemoryBlockstore, links: Vec<(&str, Cid, u64)>, change: impl FnOnce(&mut Data)) -> Cid {
    let mut data = Data {
        data: Some(vec![0xff; 32].into()),
        hash_type: Some(0x22),
        fanout: Some(256),
        ..Data::new(DataType::HamtShard, Metadata::default())
    };
    change(&mut data);
    put(store, links, data)
}

#[test]
fn shards_whose_claims_do_not_hold_are_refused() {
    let store = MemoryBlockstore::new();
    let file = raw(&store, b"x");
    let bucket = (fastmurmur3::hash(b"name") as u64) >> 56;
    let good = format!("{bucket:02X}name");
    let cases = [
        ("another place", shard(&store, vec![(&format!("{:02X}name", bucket ^ 1), file, 1)], |_| {})),
        ("no number", shard(&store, vec![("+1name", file, 1)], |_| {})),
        ("a name too short", shard(&store, vec![("A", file, 1)], |_| {})),
        ("a cut character", shard(&store, vec![("Añame", file, 1)], |_| {})),
        ("fanout 0", shard(&store, vec![(&good, file, 1)], |data| data.fanout = None)),
        ("fanout 4", shard(&store, vec![(&good, file, 1)], |data| data.fanout = Some(4))),
        ("fanout 257", shard(&store, vec![(&good, file, 1)], |data| data.fanout = Some(257))),
        ("fanout 2048", shard(&store, vec![(&good, file, 1)], |data| data.fanout = Some(2048))),
        ("another hash", shard(&store, vec![(&good, file, 1)], |data| data.hash_type = Some(0x12))),
        ("a file where a shard belongs", shard(&store, vec![(&good[..2], file, 1)], |_| {})),
        ("one name twice", shard(&store, vec![(&good, file, 1), (&good, file, 1)], |_| {})),
        ("an empty shard below", {
            let empty = shard(&store, Vec::new(), |_| {});
            shard(&store, vec![("00", empty, 1)], |_| {})
        }),
        ("another fanout below", {
            let other = shard(&store, vec![("00x", file, 1)], |data| data.fanout = Some(1024));
            shard(&store, vec![("00", other, 1)], |_| {})
        }),
    ];
    for (name, cid) in cases {
        let error = refused(&store, &cid);
        assert!(matches!(error, UnixfsError::Malformed { .. }), "{name}: {error}");
        assert!(list(&store, &cid).is_err(), "{name}");
    }
    assert_eq!(list(&store, &shard(&store, vec![(&good, file, 1)], |_| {})).expect("lists").len(), 1);
    let empty = shard(&store, Vec::new(), |_| {});
    assert_eq!(list(&store, &empty).expect("an empty root is a folder"), []);
}

#[test]
fn a_shard_linked_from_every_bucket_is_not_walked_again_and_again() {
    let store = MemoryBlockstore::new();
    let mut bomb = shard(&store, vec![("00name", raw(&store, b"x"), 1)], |_| {});
    let buckets: Vec<_> = (0..256).map(|bucket| format!("{bucket:02X}")).collect();
    for _ in 0..7 {
        bomb = shard(&store, buckets.iter().map(|bucket| (bucket.as_str(), bomb, 1)).collect(), |_| {});
    }
    assert!(matches!(list(&store, &bomb), Err(UnixfsError::Malformed { .. })));
    let deeper = shard(&store, vec![("00", bomb, 1)], |_| {});
    assert!(matches!(list(&store, &deeper), Err(UnixfsError::Malformed { .. })), "deeper than the hash");
}

#[test]
fn buckets_that_stand_twice_or_out_of_order_are_refused() {
    let store = MemoryBlockstore::new();
    let inner = shard(&store, vec![("00a", raw(&store, b"x"), 1)], |_| {});
    let twice = shard(&store, vec![("00", inner, 1), ("00", inner, 1)], |_| {});
    let error = list(&store, &twice).expect_err("refused");
    assert!(matches!(&error, UnixfsError::Malformed { cid, .. } if **cid == inner || **cid == twice), "{error}");
    let names: Vec<_> = (0..40).map(|n| (fastmurmur3::hash(format!("{n}").as_bytes()) as u64 >> 56, n)).collect();
    let (bucket, first, second) = names
        .iter()
        .find_map(|(a, x)| names.iter().find(|(b, y)| a == b && x < y).map(|(_, y)| (*a, *x, *y)))
        .expect("40 names share a bucket somewhere");
    let links = [format!("{bucket:02X}{first}"), format!("{bucket:02X}{second}")];
    let file = raw(&store, b"x");
    let cid = shard(&store, links.iter().map(|name| (name.as_str(), file, 1)).collect(), |_| {});
    assert!(matches!(list(&store, &cid), Err(UnixfsError::Malformed { .. })));
}

#[test]
fn folders_are_listed_at_the_cap_of_entries_and_refused_beyond_it() {
    let store = MemoryBlockstore::new();
    let file = raw(&store, b"x");
    let buckets: Vec<_> = ["a", "b", "c"].map(|name| (fastmurmur3::hash(name.as_bytes()) as u64 >> 56, name)).into();
    let mut names: Vec<_> = buckets.iter().map(|(bucket, name)| format!("{bucket:02X}{name}")).collect();
    names.sort();
    let sharded = shard(&store, names.iter().map(|name| (name.as_str(), file, 1)).collect(), |_| {});
    let flat = folder(&store, vec![("a", file, 1), ("b", file, 1), ("c", file, 1)]);
    for cid in [sharded, flat] {
        let up_to = |max| directory::entries_up_to(max, &store, &cid, node::load(&store, &cid).expect("loads"));
        assert_eq!(up_to(3).expect("lists").len(), 3);
        assert!(matches!(up_to(2), Err(UnixfsError::TooMany { max: 2, .. })));
    }
}

#[test]
fn links_of_one_node_are_taken_at_their_cap_and_refused_beyond_it() {
    let store = MemoryBlockstore::new();
    let tiny = Cid::try_from("bafkqaaa").expect("the empty identity CID");
    let names: Vec<_> = (0..=dagmesh_core::limits::MAX_LINKS_PER_BLOCK).map(|n| format!("{n:05}")).collect();
    let with = |count: usize| folder(&store, names[..count].iter().map(|name| (name.as_str(), tiny, 0)).collect());
    assert_eq!(list(&store, &with(names.len() - 1)).expect("lists").len(), names.len() - 1);
    assert!(matches!(list(&store, &with(names.len())), Err(UnixfsError::Malformed { .. })));
}

#[test]
fn shards_of_other_widths_are_read() {
    let store = MemoryBlockstore::new();
    let file = raw(&store, b"x");
    for (fanout, pad) in [(8u64, 1), (16, 1), (32, 2), (512, 3), (1024, 3)] {
        let bucket = (fastmurmur3::hash(b"name") as u64) >> (64 - fanout.trailing_zeros());
        let name = format!("{bucket:0pad$X}name");
        let cid = shard(&store, vec![(&name, file, 1)], |data| data.fanout = Some(fanout));
        assert_eq!(list(&store, &cid).expect("lists")[0].name, "name", "fanout {fanout}");
        assert_eq!(resolve(&store, &cid, "name").expect("resolves"), file, "fanout {fanout}");
    }
}

#[test]
fn what_is_no_unixfs_is_refused_by_name() {
    let store = MemoryBlockstore::new();
    let cbor = Block::new(Codec::DagCbor, HashCode::Sha2_256, vec![0xa0]).expect("a block");
    let bare = Block::new(Codec::DagPb, HashCode::Sha2_256, Vec::new()).expect("a block");
    let junk = Block::new(Codec::DagPb, HashCode::Sha2_256, vec![0xff; 40]).expect("a block");
    let untyped = put(&store, Vec::new(), Data::default());
    let metadata = put(&store, Vec::new(), Data::new(DataType::Metadata, Metadata::default()));
    let linked = {
        let data = Data::new(DataType::Symlink, Metadata::default());
        put(&store, vec![("", untyped, 0)], data)
    };
    store.put_many(&[cbor.clone(), bare.clone(), junk.clone()]).expect("puts");
    for cid in [*cbor.cid(), *bare.cid(), *junk.cid(), untyped, metadata, linked] {
        let error = refused(&store, &cid);
        assert!(
            matches!(&error, UnixfsError::Malformed { .. }) && error.to_string().contains(&cid.to_string()),
            "{error}"
        );
        assert!(list(&store, &cid).is_err() && cat(&store, &cid).is_err() && resolve(&store, &cid, "a").is_err());
    }
    let weak = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x11, &[1; 20]).expect("fits"));
    assert!(matches!(refused(&store, &weak), UnixfsError::Cid { .. }));
    let file = raw(&store, b"x");
    assert!(matches!(list(&store, &file), Err(UnixfsError::NotADirectory(_))));
    assert!(matches!(resolve(&store, &file, "a"), Err(UnixfsError::NotADirectory(_))));
    assert!(matches!(cat(&store, &folder(&store, Vec::new())), Err(UnixfsError::NotAFile(_))));
}

#[test]
fn a_folder_with_missing_children_is_listed() {
    let store = MemoryBlockstore::new();
    let here = folder(&store, Vec::new());
    let gone = folder(&MemoryBlockstore::new(), vec![("x", here, 0)]);
    let root = folder(&store, vec![("b", gone, 77), ("a", here, 4), ("c", symlink(&store, "to"), 9)]);
    let listed = list(&store, &root).expect("lists");
    let found: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.size, entry.kind)).collect();
    assert_eq!(found, [("a", 4, Kind::Directory), ("b", 77, Kind::Unknown), ("c", 2, Kind::Symlink)]);
    assert_eq!(resolve(&store, &root, "b").expect("resolves"), gone);
    assert!(matches!(resolve(&store, &root, "b/x"), Err(UnixfsError::Missing(cid)) if *cid == gone));
}

proptest! {
    #[test]
    fn no_bytes_panic_the_reader(
        bytes in any::<Vec<u8>>(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let store = MemoryBlockstore::new();
        let file = raw(&store, b"12345");
        let originals = [
            folder(&store, vec![("a", file, 5), ("b", file, 5)]),
            put(&store, vec![("", file, 5), ("", file, 5)], file_data(b"x", &[5, 5])),
            shard(&store, vec![("00a", file, 5)], |_| {}),
        ];
        let mut all = vec![bytes];
        for cid in originals {
            let mut damaged = store.get(&cid).expect("gets").expect("held").to_vec();
            let at = at.index(damaged.len());
            damaged[at] = value;
            all.push(damaged);
        }
        for bytes in all {
            let block = Block::new(Codec::DagPb, HashCode::Sha2_256, bytes).expect("a block");
            store.put(&block).expect("puts");
            let _ = stat(&store, block.cid());
            let _ = list(&store, block.cid());
            let _ = resolve(&store, block.cid(), "a");
            if let Ok(mut file) = cat(&store, block.cid()) {
                let _ = std::io::copy(&mut file, &mut std::io::sink());
            }
        }
    }
}
