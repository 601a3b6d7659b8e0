//! Folders: flat while their links are few, HAMT shards beyond that.

use std::path::{Component, Path};

use cid::Cid;
use dagmesh_core::limits;
use ipld_dagpb::PbLink;

use super::{
    Kind, Metadata, UnixfsError,
    node::{self, Linked, Node, Shard, directory_block, shard_block},
};
use crate::{Blockstore, Codec, HashCode, batch::Sink};

/// Bits of the hash that names are sorted by.
const HASH_BITS: u32 = u64::BITS;

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirEntry {
    /// Its name as the folder has it: any text, also such as no filesystem takes.
    pub name: String,
    /// What it links to.
    pub cid: Cid,
    /// Bytes of content of a file or symlink, as its node claims; for a folder, and where the block is not held, what
    /// the link claims for all blocks below it.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
}

/// The entries of a folder, sorted by the bytes of their names. Needs the folder's own blocks; an entry whose block is
/// not held is [`Kind::Unknown`]. At most [`limits::MAX_DIRECTORY_ENTRIES`].
pub fn list(store: &dyn Blockstore, cid: &Cid) -> Result<Vec<DirEntry>, UnixfsError> {
    let entries = entries(store, cid, node::load(store, cid)?)?;
    let describe = |Entry { name, cid, tree_bytes }: Entry| {
        // A raw leaf need not be read: it can be nothing but a file, and its link tells its length.
        if cid.codec() == Codec::Raw as u64 {
            return Ok(DirEntry { name, cid, size: tree_bytes, kind: Kind::File });
        }
        match node::stat(store, &cid) {
            Ok(stat) => {
                let size = if stat.kind == Kind::Directory { tree_bytes } else { stat.size };
                Ok(DirEntry { name, cid, size, kind: stat.kind })
            }
            Err(UnixfsError::Missing(_) | UnixfsError::Cid { .. } | UnixfsError::Malformed { .. }) => {
                Ok(DirEntry { name, cid, size: tree_bytes, kind: Kind::Unknown })
            }
            Err(error) => Err(error),
        }
    };
    entries.into_iter().map(describe).collect()
}

/// Follows `path` (names joined by `/`; empty ones and `.` are passed over, `..` goes back up) from `root`. Symlinks
/// are not followed. Of a HAMT, only the shards on the way are read.
pub fn resolve(store: &dyn Blockstore, root: &Cid, path: &str) -> Result<Cid, UnixfsError> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop().ok_or_else(|| UnixfsError::Path(cut(path)))?),
            name => names.push(name),
        }
    }
    names.into_iter().try_fold(*root, |cid, name| {
        find(store, &cid, name)?.ok_or_else(|| UnixfsError::NotFound { cid: Box::new(cid), name: cut(name) })
    })
}

/// A folder's entry as its link has it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) cid: Cid,
    pub(super) tree_bytes: u64,
}

impl From<Entry> for PbLink {
    fn from(entry: Entry) -> Self {
        Self { cid: entry.cid, name: Some(entry.name), size: Some(entry.tree_bytes) }
    }
}

/// Builds the folder of `entries`, whose names differ.
pub(super) fn build(
    sink: &mut Sink,
    hash: HashCode,
    mut entries: Vec<Entry>,
    metadata: Metadata,
) -> Result<Linked, UnixfsError> {
    // Kubo's estimate of what the links take.
    let links: usize = entries.iter().map(|entry| entry.name.len() + entry.cid.encoded_len()).sum();
    let (block, linked) = if links > limits::MAX_FLAT_DIRECTORY_BYTES {
        let mut hashed: Vec<_> = entries.drain(..).map(|entry| (name_hash(&entry.name), entry)).collect();
        hashed.sort_unstable_by(|(a, x), (b, y)| (a, &x.name).cmp(&(b, &y.name)));
        return build_shard(sink, hash, &hashed, 0, metadata);
    } else {
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        directory_block(hash, entries.into_iter().map(PbLink::from).collect(), metadata)?
    };
    sink.put(block)?;
    Ok(linked)
}

/// Builds the shard of `entries`, which are sorted by hash and agree in its first `depth` bytes.
fn build_shard(
    sink: &mut Sink,
    hash: HashCode,
    entries: &[(u64, Entry)],
    depth: u32,
    metadata: Metadata,
) -> Result<Linked, UnixfsError> {
    let bits = limits::HAMT_FANOUT.trailing_zeros();
    let bucket_of = |(hash, _): &(u64, Entry)| bucket(*hash, depth, bits).unwrap_or(0);
    if let ([(_, first), (_, second), ..], true) = (entries, (depth + 1) * bits > HASH_BITS) {
        return Err(UnixfsError::Collision { first: first.name.clone(), second: second.name.clone() });
    }
    let mut bitfield = [0u8; limits::HAMT_FANOUT / 8];
    let mut links = Vec::new();
    for group in entries.chunk_by(|a, b| bucket_of(a) == bucket_of(b)) {
        let Some(bucket) = group.first().map(bucket_of) else { continue };
        if let Some(byte) = bitfield.iter_mut().rev().nth(bucket as usize / 8) {
            *byte |= 1 << (bucket % 8);
        }
        let (name, cid, tree_bytes) = match group {
            [(_, entry)] => (entry.name.as_str(), entry.cid, entry.tree_bytes),
            _ => {
                let child = build_shard(sink, hash, group, depth + 1, Metadata::default())?;
                ("", child.cid, child.tree_bytes)
            }
        };
        links.push(PbLink { cid, name: Some(format!("{bucket:02X}{name}")), size: Some(tree_bytes) });
    }
    let (block, linked) = shard_block(hash, links, &bitfield, metadata)?;
    sink.put(block)?;
    Ok(linked)
}

/// All entries of the folder `node`, sorted by name; two of one name are an error.
pub(super) fn entries(store: &dyn Blockstore, cid: &Cid, node: Node) -> Result<Vec<Entry>, UnixfsError> {
    entries_up_to(limits::MAX_DIRECTORY_ENTRIES, store, cid, node)
}

pub(super) fn entries_up_to(
    max: usize,
    store: &dyn Blockstore,
    cid: &Cid,
    node: Node,
) -> Result<Vec<Entry>, UnixfsError> {
    let mut collector = Collector { store, root: *cid, max, found: Vec::new() };
    match node {
        Node::Directory { links, .. } => {
            for link in links {
                collector.push(link.name.unwrap_or_default(), link.cid, link.size)?;
            }
        }
        Node::Shard(shard) => collector.shard(cid, shard, 0, 0)?,
        Node::File(_) | Node::Symlink(_) => return Err(UnixfsError::NotADirectory(Box::new(*cid))),
    }
    let mut found = collector.found;
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match found.windows(2).find(|pair| matches!(pair, [a, b] if a.name == b.name)) {
        Some([twice, ..]) => {
            Err(UnixfsError::malformed(cid, format!("two entries have the name {:?}", cut(&twice.name))))
        }
        _ => Ok(found),
    }
}

/// Gathers the entries of one folder.
struct Collector<'a> {
    store: &'a dyn Blockstore,
    root: Cid,
    max: usize,
    found: Vec<Entry>,
}

impl Collector<'_> {
    /// Gathers what stands below one shard. `prefix` holds the buckets on the way to it: each name must hash to where
    /// it stands, each bucket stands once, and no shard is empty, so shards that are linked from many places cannot be
    /// walked again and again.
    fn shard(&mut self, cid: &Cid, shard: Shard, depth: u32, prefix: u64) -> Result<(), UnixfsError> {
        let malformed = |what: String| UnixfsError::malformed(cid, what);
        let before = self.found.len();
        let bits = shard.bits;
        let mut lowest = 0;
        for link in shard.links {
            let link_name = link.name.unwrap_or_default();
            let (bucket, name) = split_name(&link_name, shard.pad)
                .filter(|(bucket, _)| (lowest..1 << bits).contains(bucket))
                .ok_or_else(|| malformed(format!("a link {:?} of a HAMT, or out of order", cut(&link_name))))?;
            lowest = bucket + 1;
            let here = prefix << bits | bucket;
            if name.is_empty() {
                let child = load_shard(self.store, &link.cid, bits, depth + 1)?;
                self.shard(&link.cid, child, depth + 1, here)?;
            } else if name_hash(name) >> (HASH_BITS - (depth + 1) * bits) != here {
                return Err(malformed(format!("{:?} stands where its hash does not lead", cut(name))));
            } else {
                self.push(name.to_owned(), link.cid, link.size)?;
            }
        }
        if depth > 0 && self.found.len() == before { Err(malformed("an empty shard".into())) } else { Ok(()) }
    }

    fn push(&mut self, name: String, cid: Cid, tree_bytes: Option<u64>) -> Result<(), UnixfsError> {
        let max = self.max;
        if self.found.len() >= max {
            return Err(UnixfsError::TooMany {
                cid: Box::new(self.root),
                what: "entries of a folder",
                max: max as u64,
            });
        }
        self.found.push(Entry { name, cid, tree_bytes: tree_bytes.unwrap_or(0) });
        Ok(())
    }
}

fn load_shard(store: &dyn Blockstore, cid: &Cid, bits: u32, depth: u32) -> Result<Shard, UnixfsError> {
    if (depth + 1) * bits > HASH_BITS {
        return Err(UnixfsError::malformed(cid, "a HAMT deeper than its hash"));
    }
    match node::load(store, cid)? {
        Node::Shard(shard) if shard.bits == bits => Ok(shard),
        Node::Shard(_) => Err(UnixfsError::malformed(cid, "a shard whose fanout is not its parent's")),
        _ => Err(UnixfsError::malformed(cid, "no HAMT shard where a parent links to one")),
    }
}

/// The entry `name` of the folder `cid`.
fn find(store: &dyn Blockstore, cid: &Cid, name: &str) -> Result<Option<Cid>, UnixfsError> {
    let mut shard = match node::load(store, cid)? {
        Node::Directory { links, .. } => {
            let found = links.into_iter().find(|link| link.name.as_deref() == Some(name));
            return Ok(found.map(|link| link.cid));
        }
        Node::Shard(shard) => shard,
        Node::File(_) | Node::Symlink(_) => return Err(UnixfsError::NotADirectory(Box::new(*cid))),
    };
    let hash = name_hash(name);
    for depth in 0.. {
        let Some(bucket) = bucket(hash, depth, shard.bits) else { break };
        let wanted = |link: &PbLink| {
            let (at, rest) = split_name(link.name.as_deref()?, shard.pad)?;
            (at == bucket && (rest.is_empty() || rest == name)).then_some((link.cid, rest.is_empty()))
        };
        match shard.links.iter().find_map(wanted) {
            Some((child, true)) => shard = load_shard(store, &child, shard.bits, depth + 1)?,
            found => return Ok(found.map(|(cid, _)| cid)),
        }
    }
    Ok(None)
}

/// Which bucket a hash falls into at `depth`; `None` where the hash is used up.
fn bucket(hash: u64, depth: u32, bits: u32) -> Option<u64> {
    let left = HASH_BITS.checked_sub(bits.checked_mul(depth + 1)?)?;
    Some((hash >> left) & ((1 << bits) - 1))
}

/// The first 64 bits of murmur3-x64-128: what UnixFS calls murmur3-x64-64.
fn name_hash(name: &str) -> u64 {
    fastmurmur3::hash(name.as_bytes()) as u64
}

/// Cuts the bucket's number, in upper-case hexadecimal, from the name of a shard's link.
fn split_name(name: &str, pad: usize) -> Option<(u64, &str)> {
    let (number, rest) = name.split_at_checked(pad)?;
    let is_number = number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    u64::from_str_radix(number, 16).ok().filter(|_| is_number).map(|number| (number, rest))
}

/// Whether a filesystem takes `name` as one name, and as nothing else.
pub(super) fn is_safe_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let is_one =
        matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name);
    let separators: &[char] = if cfg!(windows) { &['/', '\0', '\\', ':'] } else { &['/', '\0'] };
    is_one && !name.contains(separators) && name.len() <= limits::MAX_NAME_BYTES
}

/// A name in an error: at most 80 characters of it.
pub(super) fn cut(name: &str) -> String {
    name.chars().take(80).collect()
}
