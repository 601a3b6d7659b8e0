//! Files and folders of strangers.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    sync::LazyLock,
};

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{
    Block, Blockstore, Codec, HashCode, MemoryBlockstore,
    unixfs::{self, ExportOptions, Kind, cat, export, list, resolve, stat},
};
use ipld_dagpb::{PbLink, PbNode};
use tempfile::TempDir;

use crate::input::Input;

/// Most nodes of one DAG.
const MAX_NODES: usize = 24;
/// Most bytes that are read of one file.
const MAX_READ_BYTES: u64 = 256 * 1024;

/// A DAG of nodes that the bytes describe, each linking to those before it and claiming what it likes (or a single block
/// of the bytes themselves): what one reads, lists and exports of it. What a file claims is what is read, or an error;
/// a folder's names differ; an export writes at its target or leaves nothing, and never over its bounds.
pub fn unixfs(data: &[u8]) {
    let store = MemoryBlockstore::new();
    let mut input = Input::new(data);
    let nodes = match input.byte() % 4 {
        0 => vec![put(&store, Codec::DagPb, input.rest().to_vec())],
        _ => nodes(&store, &mut input),
    };
    // The last nodes have most below them.
    for cid in nodes.iter().rev().take(4) {
        read(&store, cid);
    }
    if let Some(root) = nodes.last() {
        write(&store, root);
    }
}

fn put(store: &MemoryBlockstore, codec: Codec, bytes: Vec<u8>) -> Cid {
    let block = Block::new(codec, HashCode::Sha2_256, bytes).expect("a block");
    store.put(&block).expect("puts");
    *block.cid()
}

fn nodes(store: &MemoryBlockstore, input: &mut Input<'_>) -> Vec<Cid> {
    // Each with the bytes of content that it has, if it is honest.
    let mut nodes: Vec<(Cid, u64)> = Vec::new();
    while !input.is_empty() && nodes.len() < MAX_NODES {
        let kind = input.byte();
        let lie = |size: u64| if kind & 0x80 == 0 { size } else { size.wrapping_add(u64::from(kind >> 4 & 3)) };
        let node = match kind & 7 {
            0 => {
                let len = input.below(32);
                let bytes = input.take(len);
                (put(store, Codec::Raw, bytes.to_vec()), bytes.len() as u64)
            }
            1..=3 => {
                let own = input.below(8);
                let own = input.take(own);
                let parts: Vec<_> = picks(input, &nodes).collect();
                let sizes: Vec<_> = parts.iter().map(|(_, size)| lie(*size)).collect();
                let size = sizes.iter().fold(own.len() as u64, |sum, size| sum.wrapping_add(*size));
                let links = parts.iter().map(|(cid, size)| link(*cid, "", *size)).collect();
                (put(store, Codec::DagPb, node(links, 2, own, Some(lie(size)), &sizes, &[])), size)
            }
            4 | 5 => {
                let picked: Vec<_> = picks(input, &nodes).collect();
                let links = picked.iter().map(|(cid, size)| link(*cid, name(input), *size)).collect();
                (put(store, Codec::DagPb, node(links, 1, &[], None, &[], &[])), 0)
            }
            6 => {
                let picked: Vec<_> = picks(input, &nodes).collect();
                let bits = 3 + u32::from(kind >> 3 & 7);
                let pad = format!("{:X}", (1u64 << bits) - 1).len();
                let mut links: Vec<_> = picked
                    .iter()
                    .map(|(cid, size)| {
                        let name = name(input);
                        let bucket = match name {
                            // No name: a shard below.
                            "" => input.byte() as u64 & ((1 << bits) - 1),
                            name => (fastmurmur3::hash(name.as_bytes()) as u64) >> (64 - bits),
                        };
                        link(*cid, &format!("{bucket:0pad$X}{name}"), *size)
                    })
                    .collect();
                links.sort_by(|a, b| a.name.cmp(&b.name));
                (put(store, Codec::DagPb, node(links, 5, &[0xff; 4], None, &[], &[(5, 0x22), (6, 1 << bits)])), 0)
            }
            _ => {
                let target = input.text(16).to_owned();
                (put(store, Codec::DagPb, node(Vec::new(), 4, target.as_bytes(), None, &[], &[])), target.len() as u64)
            }
        };
        nodes.push(node);
    }
    nodes.into_iter().map(|(cid, _)| cid).collect()
}

/// Some of the nodes so far, repeated ones too.
fn picks<'a>(input: &mut Input<'_>, nodes: &'a [(Cid, u64)]) -> impl Iterator<Item = (Cid, u64)> + use<'a> {
    let count = if nodes.is_empty() { 0 } else { input.below(9) };
    let picked: Vec<_> = (0..count).filter_map(|_| nodes.get(input.below(nodes.len())).copied()).collect();
    picked.into_iter()
}

/// A name: mostly one that a folder may have.
fn name<'a>(input: &mut Input<'a>) -> &'a str {
    const NAMES: [&str; 14] =
        ["a", "b", "c", "d", "A", "é", "", ".", "..", "../up", "/abs", "a/b", "a\0", ".dagmesh-x"];
    match input.below(20) {
        known if known < NAMES.len() => NAMES[known],
        _ => input.text(6),
    }
}

fn link(cid: Cid, name: &str, size: u64) -> PbLink {
    PbLink { cid, name: Some(name.to_owned()), size: Some(size) }
}

/// A UnixFS node as protobuf: type, data, file size, block sizes, further fields.
fn node(
    links: Vec<PbLink>,
    kind: u64,
    data: &[u8],
    size: Option<u64>,
    sizes: &[u64],
    fields: &[(u64, u64)],
) -> Vec<u8> {
    fn varint(bytes: &mut Vec<u8>, number: u64) {
        bytes.extend_from_slice(unsigned_varint::encode::u64(number, &mut unsigned_varint::encode::u64_buffer()));
    }
    fn number(bytes: &mut Vec<u8>, field: u64, number: u64) {
        varint(bytes, field << 3);
        varint(bytes, number);
    }
    let mut bytes = Vec::new();
    number(&mut bytes, 1, kind);
    varint(&mut bytes, 2 << 3 | 2);
    varint(&mut bytes, data.len() as u64);
    bytes.extend_from_slice(data);
    size.into_iter().for_each(|size| number(&mut bytes, 3, size));
    sizes.iter().for_each(|size| number(&mut bytes, 4, *size));
    fields.iter().for_each(|(field, value)| number(&mut bytes, *field, *value));
    PbNode { links, data: Some(bytes.into()) }.into_bytes().into()
}

fn read(store: &MemoryBlockstore, cid: &Cid) {
    let Ok(told) = stat(store, cid) else {
        assert!(list(store, cid).is_err() && cat(store, cid).is_err());
        return;
    };
    if let Ok(entries) = list(store, cid) {
        assert_eq!(told.kind, Kind::Directory);
        assert!(entries.len() <= limits::MAX_DIRECTORY_ENTRIES);
        assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted, none twice");
        for entry in &entries {
            let plain = !entry.name.contains('/') && !["", ".", ".."].contains(&entry.name.as_str());
            assert!(!plain || resolve(store, cid, &entry.name).expect("what is listed is found") == entry.cid);
        }
    }
    let _ = resolve(store, cid, "a/../b/./c");
    if let Ok(mut file) = cat(store, cid) {
        assert!(told.kind == Kind::File && told.size == file.size());
        let mut bytes = Vec::new();
        let whole = (&mut file).take(MAX_READ_BYTES).read_to_end(&mut bytes);
        if whole.is_ok() && (bytes.len() as u64) < MAX_READ_BYTES {
            assert_eq!(bytes.len() as u64, told.size, "the size that a file claims is the one it has");
            let from = bytes.len() / 2;
            let mut rest = Vec::new();
            file.seek(SeekFrom::Start(from as u64)).expect("seeks");
            file.read_to_end(&mut rest).expect("what was read can be read again");
            assert_eq!(rest, bytes[from..]);
        }
    }
}

fn write(store: &MemoryBlockstore, root: &Cid) {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));
    let to = FOLDER.path().join("to");
    let mut options = ExportOptions::default();
    (options.max_entries, options.max_bytes) = (32, 4096);
    let result = export(store, root, &to, &options, &mut |_| {});
    let left: Vec<_> = fs::read_dir(FOLDER.path()).expect("reads").map(|entry| entry.expect("reads").path()).collect();
    match result {
        Ok(done) => {
            assert_eq!(left, [to.clone()], "nothing but the target is written");
            assert!(
                done.files + done.folders + done.symlinks <= options.max_entries && done.bytes <= options.max_bytes
            );
            let told = stat(store, root).expect("what was written can be told of");
            match fs::symlink_metadata(&to).expect("the target") {
                file if file.is_dir() => {
                    assert_eq!(told.kind, Kind::Directory);
                    fs::remove_dir_all(&to).expect("removes");
                }
                file => {
                    assert!(told.kind == Kind::Symlink || file.len() == told.size);
                    fs::remove_file(&to).expect("removes");
                }
            }
        }
        Err(unixfs::UnixfsError::Io { action, path, source }) => {
            // The system may refuse a name or a target; what was begun is gone all the same.
            assert!(left.is_empty(), "{action} {}: {source}: {left:?}", path.display());
        }
        Err(error) => assert!(left.is_empty(), "{error}: {left:?}"),
    }
}
