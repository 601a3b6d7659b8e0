//! Shared by the tests of this module.

mod export;
mod hostile;
mod kubo;
mod roundtrip;

use std::{collections::BTreeMap, fs, path::Path};

use cid::Cid;
use ipld_dagpb::{PbLink, PbNode};
use prost::Message;

use super::{
    node::{Data, DataType},
    *,
};
use crate::{Block, Blockstore, Codec, HashCode, MemoryBlockstore};

/// Bytes that look random and are the same everywhere.
fn pattern(len: usize) -> Vec<u8> {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    };
    std::iter::repeat_n((), len).scan(1u32, |state, ()| next(state)).collect()
}

fn add(store: &dyn Blockstore, path: &Path, options: &ImportOptions) -> Imported {
    import(store, path, options, &mut |_| {}).expect("imports")
}

fn fixed(size: usize) -> ImportOptions {
    ImportOptions { chunker: Chunker::Fixed(size), ..ImportOptions::default() }
}

fn get(store: &dyn Blockstore, cid: &Cid, to: &Path) -> Result<Exported, UnixfsError> {
    export(store, cid, to, &ExportOptions::default(), &mut |_| {})
}

/// All that stands at a path: folders as `None`, symlinks as their target behind an arrow.
fn tree(path: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    fn walk(path: &Path, name: String, found: &mut BTreeMap<String, Option<Vec<u8>>>) {
        let kind = fs::symlink_metadata(path).expect("exists").file_type();
        if kind.is_symlink() {
            let target = format!("-> {}", fs::read_link(path).expect("a target").display());
            found.insert(name, Some(target.into_bytes()));
        } else if kind.is_dir() {
            for entry in fs::read_dir(path).expect("a folder") {
                let entry = entry.expect("an entry");
                let child = format!("{name}/{}", entry.file_name().to_string_lossy());
                walk(&entry.path(), child, found);
            }
            found.insert(name, None);
        } else {
            found.insert(name, Some(fs::read(path).expect("a file")));
        }
    }
    let mut found = BTreeMap::new();
    walk(path, String::new(), &mut found);
    found
}

fn raw(store: &MemoryBlockstore, data: &[u8]) -> Cid {
    let block = Block::new(Codec::Raw, HashCode::Sha2_256, data.to_vec()).expect("a block");
    store.put(&block).expect("puts");
    *block.cid()
}

fn put(store: &MemoryBlockstore, links: Vec<(&str, Cid, u64)>, data: Data) -> Cid {
    let link = |(name, cid, size): (&str, Cid, u64)| PbLink { cid, name: Some(name.to_owned()), size: Some(size) };
    let links = links.into_iter().map(link).collect();
    let bytes = PbNode { links, data: Some(data.encode_to_vec().into()) }.into_bytes();
    let block = Block::new(Codec::DagPb, HashCode::Sha2_256, bytes).expect("a block");
    store.put(&block).expect("puts");
    *block.cid()
}

fn folder(store: &MemoryBlockstore, links: Vec<(&str, Cid, u64)>) -> Cid {
    put(store, links, Data::new(DataType::Directory, Metadata::default()))
}

fn symlink(store: &MemoryBlockstore, target: &str) -> Cid {
    let data =
        Data { data: Some(target.as_bytes().to_vec().into()), ..Data::new(DataType::Symlink, Metadata::default()) };
    put(store, Vec::new(), data)
}

fn file_data(own: &[u8], blocksizes: &[u64]) -> Data {
    Data {
        data: Some(own.to_vec().into()).filter(|_| !own.is_empty()),
        filesize: Some(own.len() as u64 + blocksizes.iter().sum::<u64>()),
        blocksizes: blocksizes.to_vec(),
        ..Data::new(DataType::File, Metadata::default())
    }
}

fn read_all(store: &dyn Blockstore, cid: &Cid) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut cat(store, cid).expect("a file"), &mut bytes).expect("reads");
    bytes
}
