//! CIDs that Kubo's own library (boxo 0.36 and later) gives for the same content, and those of the specification.

use super::*;

fn cid(text: &str) -> Cid {
    Cid::try_from(text).expect("a CID")
}

#[test]
fn files_have_kubos_cids_at_every_depth() {
    let cases = [
        (0, 262_144, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", 0),
        (5, 262_144, "bafkreihxpp7cgggf2lqcf4mrhqhbqci4xdl2vkq2itqohia2or2mtozefm", 5),
        (262_144, 262_144, "bafkreidd6k2rtu2k6woh25xxx2nxk2d2ifjrn54h6wjqfbqijyvdl2nrmq", 262_144),
        (262_145, 262_144, "bafybeidmf7miq54symki3qff7ohjgfhn23ysap4nt7fcolcjetgkyvqoaa", 262_249),
        (1_000_000, 262_144, "bafybeicfqavgjm2zjrnv4glvw26k4jcucpmugsrh26lqagqe3vo7hlbfbi", 1_000_208),
        (174 * 16, 16, "bafybeihxagku6cb25bwnhc744kt6h3a5iawjjz5wiswi5luiq4645dothq", 10_796),
        (174 * 16 + 1, 16, "bafybeibvf5uzfcfuvca5dpafdsmww5xyp3w64kxqblkedx3yys2dl7q76e", 10_950),
        (174 * 174 * 16, 16, "bafybeicfd7eqaec4agvm36trhvpiamxf6tupmqsd5mk2ac6agqfns46vuq", 1_886_865),
        (174 * 174 * 16 + 1, 16, "bafybeihhdxypu3g5ed4lztu3u4bfolpspyenvpxeb6h3bo5feid6eyn754", 1_887_074),
        (600_000, 16, "bafybeieyv6gufxoqyhvoeto3iyfznm3v64duegqwqykvfgcv66pwbopbn4", 2_337_222),
    ];
    let dir = tempfile::tempdir().expect("a folder");
    for (len, chunk, expected, tree_bytes) in cases {
        let store = MemoryBlockstore::new();
        let content = pattern(len);
        fs::create_dir_all(dir.path().join("parent")).expect("creates");
        let path = dir.path().join("parent/file");
        fs::write(&path, &content).expect("writes");
        let imported = add(&store, &path, &fixed(chunk));
        assert_eq!(imported.cid, cid(expected), "{len} bytes in chunks of {chunk}");
        assert_eq!((imported.bytes, imported.files), (len as u64, 1));
        assert!(read_all(&store, &imported.cid) == content, "{len} bytes in chunks of {chunk}");
        // A folder's link tells the bytes of the whole tree.
        let parent = add(&store, &dir.path().join("parent"), &fixed(chunk));
        let block = store.block(&parent.cid).expect("gets").expect("held");
        let node = PbNode::from_bytes(block.data().clone()).expect("decodes");
        assert_eq!(node.links[0].size, Some(tree_bytes), "{len} bytes in chunks of {chunk}");
    }
}

#[test]
fn folders_have_kubos_cids_flat_and_sharded() {
    let cases = [
        (0, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
        (1, "bafybeibt5mwpfp3ftiri2tfqmtiaabc7ti7ahpiq47iaxgcdhavtop6cpu"),
        (3, "bafybeiarugo2noixqk6rtiatuddxkt2rgdnjqsxvd4vrrv366fya4be2mu"),
        // The last flat one of this kind, and the first HAMT.
        (5_577, "bafybeia22kvoyfsh6kmake2obi6axhf4ky554cnu3tzdldrwuamlhe7zfa"),
        (5_578, "bafybeiapmllwxkfx5x54ugrzojp6mee6oi4ss7xkco5aeboamdxc75jrcq"),
        (6_000, "bafybeidsbypd4d2vj2h4wv42o4codnk66nlsgxlzxkhuxfqcmvzjkoxjhi"),
        (20_000, "bafybeia65j3qypdvvjygiynweh3gnuqzokwqo5ke5d3e25swmwcfplzgze"),
    ];
    let dir = tempfile::tempdir().expect("a folder");
    let mut written = 0;
    for (count, expected) in cases {
        let store = MemoryBlockstore::new();
        for number in written..count {
            fs::write(dir.path().join(format!("file-{number:06}")), "hello").expect("writes");
        }
        written = count;
        let imported = add(&store, dir.path(), &ImportOptions::default());
        assert_eq!(imported.cid, cid(expected), "{count} files");

        let listed = list(&store, &imported.cid).expect("lists");
        assert_eq!(listed.len(), count);
        assert!(listed.iter().enumerate().all(|(number, entry)| entry.name == format!("file-{number:06}")));
        assert!(listed.iter().all(|entry| (entry.size, entry.kind) == (5, Kind::File)));
        for number in (0..count).step_by(997) {
            let found = resolve(&store, &imported.cid, &format!("file-{number:06}")).expect("resolves");
            assert_eq!(found, listed[number].cid);
        }
        assert!(matches!(resolve(&store, &imported.cid, "file-x"), Err(UnixfsError::NotFound { .. })));
    }
}

#[test]
fn names_symlinks_and_nesting_have_kubos_cids() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = MemoryBlockstore::new();
    for name in ["b", "a", "ünïcode", "日本語.txt", "🦀", "שלום"] {
        fs::write(dir.path().join(name), "hello").expect("writes");
    }
    let scripts = add(&store, dir.path(), &ImportOptions::default());
    assert_eq!(scripts.cid, cid("bafybeiggbcewz4k33n7dw5jxatdoifviu5fket4vrcthpojxkqazal3fie"));

    let nested = dir.path().join("nested");
    fs::create_dir_all(nested.join("sub")).expect("creates");
    fs::create_dir_all(nested.join("empty")).expect("creates");
    for number in 0..3 {
        fs::write(nested.join(format!("sub/file-{number:06}")), "hello").expect("writes");
    }
    std::os::unix::fs::symlink("../target", nested.join("link")).expect("links");
    let imported = add(&store, &nested, &ImportOptions::default());
    assert_eq!(imported.cid, cid("bafybeiglyd5k4qrwibpwuk5dv4j4j74u5g6gpo25e7zxefrmm7t4cnht4y"));
    assert_eq!((imported.files, imported.folders, imported.symlinks), (3, 3, 1));
    let link = add(&store, &nested.join("link"), &ImportOptions::default());
    assert_eq!(link.cid, cid("bafybeid2dyfo3dy5xjihqwfpf4m4x3ht53evimfbxdcmv57yr4z3xlplcm"));
}

#[test]
fn examples_of_the_specification_have_their_cids() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = MemoryBlockstore::new();
    let sub = dir.path().join("root/subdir");
    fs::create_dir_all(&sub).expect("creates");
    fs::write(sub.join("ascii.txt"), "hello application/vnd.ipld.car\n").expect("writes");
    fs::write(sub.join("hello.txt"), "hello world\n").expect("writes");
    let imported = add(&store, &dir.path().join("root"), &ImportOptions::default());
    let hello = resolve(&store, &imported.cid, "/subdir/./x/../hello.txt").expect("resolves");
    assert_eq!(hello, cid("bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"));
    let subdir = resolve(&store, &imported.cid, "subdir").expect("resolves");
    assert_eq!(subdir, cid("bafybeiggghzz6dlue3m6nb2dttnbrygxh3lrjl5764f2m4gq7dgzdt55o4"));
    assert_eq!(imported.cid, cid("bafybeietjm63oynimmv5yyqay33nui4y4wx6u3peezwetxgiwvfmelutzu"));
    assert!(matches!(resolve(&store, &imported.cid, "subdir/../.."), Err(UnixfsError::Path(_))));
}

#[test]
fn the_empty_folder_of_version_0_is_read() {
    let store = MemoryBlockstore::new();
    let empty = folder(&store, Vec::new());
    let v0 = cid("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn");
    assert_eq!(v0.hash(), empty.hash());
    assert_eq!(list(&store, &v0).expect("lists"), []);
    assert_eq!(stat(&store, &v0).expect("stats").kind, Kind::Directory);
}

#[test]
fn files_with_leaves_inside_dag_pb_are_read() {
    // 100,000 bytes in chunks of 1,000, `--raw-leaves=false`.
    let (store, content) = (MemoryBlockstore::new(), pattern(100_000));
    let leaf = |chunk: &[u8]| {
        let cid = put(&store, Vec::new(), file_data(chunk, &[]));
        ("", cid, store.get(&cid).expect("gets").expect("held").len() as u64)
    };
    let links: Vec<_> = content.chunks(1_000).map(leaf).collect();
    let root = put(&store, links, file_data(&[], &[1_000; 100]));
    assert_eq!(root, cid("bafybeiebssrwd2mlhxbdifg5cafluhgjslnbohrnuq5cagwbu4vtuprfp4"));
    assert_eq!(read_all(&store, &root), content);
}

#[test]
fn metadata_of_a_chunked_file_has_kubos_cid() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("file");
    fs::write(&path, pattern(1_000)).expect("writes");
    let mtime = std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123_456_789);
    let file = fs::File::options().write(true).open(&path).expect("opens");
    file.set_modified(mtime).expect("sets");
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o640)).expect("sets");
    let store = MemoryBlockstore::new();
    let imported = add(&store, &path, &ImportOptions { metadata: true, ..fixed(300) });
    assert_eq!(imported.cid, cid("bafybeia54ipqgoyev7xluni2rdrxvggjsrgzxpnbadh2agg4dxrzzzih4m"));
}
