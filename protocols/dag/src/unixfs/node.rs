//! One UnixFS node: its protobuf, read with all its claims checked, and written.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits;
use ipld_dagpb::{PbLink, PbNode};
use prost::Message;

use super::UnixfsError;
use crate::{Block, Blockstore, Codec, HashCode, check_cid};

/// The multicodec of murmur3-x64-64, the one hash that HAMT shards use.
const MURMUR3: u64 = 0x22;
/// Permission bits that have a meaning (UnixFS specification, "mode").
const MODE_BITS: u32 = 0o7777;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Directory,
    /// A symlink.
    Symlink,
    /// Its block is not held, or is no UnixFS.
    Unknown,
}

/// Mode and time of a node, where it has them (UnixFS 1.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// Permission bits: the lower twelve.
    pub mode: Option<u32>,
    /// When the content was last changed; what lies before 1970 is read as 1970.
    pub mtime: Option<SystemTime>,
}

/// What [`stat`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Bytes of content: of a file, of a symlink's target; 0 for a folder.
    pub size: u64,
    /// Mode and time, where the node has them.
    pub metadata: Metadata,
    /// Where a symlink points, as it was imported.
    pub target: Option<Bytes>,
}

/// Reads what one node says of itself; needs its block alone.
pub fn stat(store: &dyn Blockstore, cid: &Cid) -> Result<Stat, UnixfsError> {
    Ok(match load(store, cid)? {
        Node::File(file) => Stat { kind: Kind::File, size: file.size, metadata: file.metadata, target: None },
        Node::Directory { metadata, .. } | Node::Shard(Shard { metadata, .. }) => {
            Stat { kind: Kind::Directory, size: 0, metadata, target: None }
        }
        Node::Symlink(target) => {
            Stat { kind: Kind::Symlink, size: target.len() as u64, metadata: Metadata::default(), target: Some(target) }
        }
    })
}

/// A node with all its claims checked that its own block can prove.
pub(super) enum Node {
    File(FileNode),
    Directory { links: Vec<PbLink>, metadata: Metadata },
    Shard(Shard),
    Symlink(Bytes),
}

/// A file, or an inner node of one: its own bytes, then its parts.
#[derive(Clone)]
pub(super) struct FileNode {
    pub(super) data: Bytes,
    pub(super) parts: Vec<Part>,
    /// Bytes of content, itself and all parts.
    pub(super) size: u64,
    pub(super) metadata: Metadata,
}

/// One part of a file, with the size that its parent claims.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) cid: Cid,
    pub(super) size: u64,
}

/// One node of a HAMT.
pub(super) struct Shard {
    pub(super) links: Vec<PbLink>,
    /// Bits of a name's hash that choose a bucket.
    pub(super) bits: u32,
    /// Length of the bucket's number before each link's name.
    pub(super) pad: usize,
    pub(super) metadata: Metadata,
}

/// Reads the block of `cid`, hashed again, as a node.
pub(super) fn load(store: &dyn Blockstore, cid: &Cid) -> Result<Node, UnixfsError> {
    check_cid(cid).map_err(|reason| UnixfsError::Cid { cid: Box::new(*cid), reason })?;
    let block = store.verified_block(cid)?.ok_or_else(|| UnixfsError::Missing(Box::new(*cid)))?;
    Node::from_block(&block)
}

impl Node {
    pub(super) fn from_block(block: &Block) -> Result<Self, UnixfsError> {
        let malformed = |what: String| UnixfsError::malformed(block.cid(), what);
        match Codec::try_from(block.cid().codec()) {
            Ok(Codec::Raw) => {
                let data = block.data().clone();
                let size = data.len() as u64;
                return Ok(Self::File(FileNode { data, parts: Vec::new(), size, metadata: Metadata::default() }));
            }
            Ok(Codec::DagPb) => {}
            _ => return Err(malformed(format!("codec 0x{:x} carries none", block.cid().codec()))),
        }
        let node = PbNode::from_bytes(block.data().clone()).map_err(|error| malformed(error.to_string()))?;
        let max = limits::MAX_LINKS_PER_BLOCK;
        if node.links.len() > max {
            return Err(malformed(format!("{} links where at most {max} may stand", node.links.len())));
        }
        let data = node.data.ok_or_else(|| malformed("it has no data field".into()))?;
        let data = Data::decode(data).map_err(|error| malformed(error.to_string()))?;
        Self::from_parts(node.links, data).map_err(malformed)
    }

    fn from_parts(links: Vec<PbLink>, data: Data) -> Result<Self, String> {
        let metadata = data.metadata()?;
        let kind = data.kind.ok_or("it has no type")?;
        match DataType::try_from(kind) {
            Ok(DataType::Raw | DataType::File) => FileNode::from_parts(links, data, metadata).map(Self::File),
            Ok(DataType::Directory) => Ok(Self::Directory { links, metadata }),
            Ok(DataType::HamtShard) => Shard::from_parts(links, &data, metadata).map(Self::Shard),
            Ok(DataType::Symlink) if !links.is_empty() => Err("a symlink with links".into()),
            Ok(DataType::Symlink) => Ok(Self::Symlink(data.data.unwrap_or_default())),
            Ok(DataType::Metadata) | Err(_) => Err(format!("type {kind} is neither file, folder nor symlink")),
        }
    }
}

impl FileNode {
    fn from_parts(links: Vec<PbLink>, data: Data, metadata: Metadata) -> Result<Self, String> {
        if links.len() != data.blocksizes.len() {
            return Err(format!("{} block sizes for {} links", data.blocksizes.len(), links.len()));
        }
        if links.iter().any(|link| link.name.as_ref().is_some_and(|name| !name.is_empty())) {
            return Err("a part of a file has a name".into());
        }
        let own = data.data.unwrap_or_default();
        let size = data.blocksizes.iter().try_fold(own.len() as u64, |sum, size| sum.checked_add(*size));
        let claimed = data.filesize.unwrap_or(0);
        if size != Some(claimed) {
            return Err(format!("a file size of {claimed} that is not the sum of its parts"));
        }
        let parts = links.iter().zip(&data.blocksizes).map(|(link, size)| Part { cid: link.cid, size: *size });
        Ok(Self { data: own, parts: parts.collect(), size: claimed, metadata })
    }
}

impl Shard {
    fn from_parts(links: Vec<PbLink>, data: &Data, metadata: Metadata) -> Result<Self, String> {
        let fanout = data.fanout.unwrap_or(0);
        if !fanout.is_power_of_two() || !(8..=limits::MAX_HAMT_FANOUT).contains(&fanout) {
            return Err(format!("a fanout of {fanout}, no power of two from 8 to {}", limits::MAX_HAMT_FANOUT));
        }
        if data.hash_type != Some(MURMUR3) {
            return Err("a HAMT whose hash is not murmur3-x64-64".into());
        }
        Ok(Self { links, bits: fanout.trailing_zeros(), pad: format!("{:X}", fanout - 1).len(), metadata })
    }
}

/// What a parent must know of a child to link to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linked {
    pub(super) cid: Cid,
    /// Bytes of all blocks below and including it ("Tsize").
    pub(super) tree_bytes: u64,
}

/// Makes the block of a file's inner node.
pub(super) fn file_block(
    hash: HashCode,
    parts: &[(Part, u64)],
    metadata: Metadata,
) -> Result<(Block, Linked), UnixfsError> {
    let links = parts.iter().map(|(part, tree)| PbLink { cid: part.cid, name: Some(String::new()), size: Some(*tree) });
    let blocksizes: Vec<u64> = parts.iter().map(|(part, _)| part.size).collect();
    let filesize = Some(blocksizes.iter().sum());
    block(hash, links.collect(), Data { filesize, blocksizes, ..Data::new(DataType::File, metadata) })
}

/// Makes the block of a flat folder.
pub(super) fn directory_block(
    hash: HashCode,
    links: Vec<PbLink>,
    metadata: Metadata,
) -> Result<(Block, Linked), UnixfsError> {
    block(hash, links, Data::new(DataType::Directory, metadata))
}

/// Makes the block of a HAMT shard; `bitfield` is big-endian.
pub(super) fn shard_block(
    hash: HashCode,
    links: Vec<PbLink>,
    bitfield: &[u8],
    metadata: Metadata,
) -> Result<(Block, Linked), UnixfsError> {
    // The Go implementation, whose CIDs all others follow, leaves out leading zeros.
    let zeros = bitfield.iter().take_while(|byte| **byte == 0).count();
    let bitfield = Bytes::copy_from_slice(bitfield.get(zeros..).unwrap_or_default());
    let data = Data {
        data: Some(bitfield),
        hash_type: Some(MURMUR3),
        fanout: Some(limits::HAMT_FANOUT as u64),
        ..Data::new(DataType::HamtShard, metadata)
    };
    block(hash, links, data)
}

/// Makes the block of a symlink.
pub(super) fn symlink_block(hash: HashCode, target: Vec<u8>) -> Result<(Block, Linked), UnixfsError> {
    let data = Data { data: Some(target.into()), ..Data::new(DataType::Symlink, Metadata::default()) };
    block(hash, Vec::new(), data)
}

fn block(hash: HashCode, links: Vec<PbLink>, data: Data) -> Result<(Block, Linked), UnixfsError> {
    let below = links.iter().fold(0u64, |sum, link| sum.saturating_add(link.size.unwrap_or(0)));
    let node = PbNode { links, data: Some(data.encode_to_vec().into()) };
    let block = Block::new(Codec::DagPb, hash, node.into_bytes())?;
    let linked = Linked { cid: *block.cid(), tree_bytes: below.saturating_add(block.data().len() as u64) };
    Ok((block, linked))
}

/// The `Data` message of the UnixFS specification.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Data {
    #[prost(enumeration = "DataType", optional, tag = "1")]
    pub(super) kind: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) data: Option<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) filesize: Option<u64>,
    #[prost(uint64, repeated, packed = "false", tag = "4")]
    pub(super) blocksizes: Vec<u64>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) hash_type: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) fanout: Option<u64>,
    #[prost(uint32, optional, tag = "7")]
    pub(super) mode: Option<u32>,
    #[prost(message, optional, tag = "8")]
    pub(super) mtime: Option<UnixTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum DataType {
    Raw = 0,
    Directory = 1,
    File = 2,
    Metadata = 3,
    Symlink = 4,
    HamtShard = 5,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub(super) struct UnixTime {
    #[prost(int64, optional, tag = "1")]
    pub(super) seconds: Option<i64>,
    #[prost(fixed32, optional, tag = "2")]
    pub(super) nanos: Option<u32>,
}

impl Data {
    pub(super) fn new(kind: DataType, metadata: Metadata) -> Self {
        let mtime = metadata.mtime.map(|mtime| {
            let since = mtime.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let nanos = Some(since.subsec_nanos()).filter(|nanos| *nanos > 0);
            UnixTime { seconds: i64::try_from(since.as_secs()).ok(), nanos }
        });
        Self { kind: Some(kind as i32), mode: metadata.mode, mtime, ..Self::default() }
    }

    fn metadata(&self) -> Result<Metadata, String> {
        let mode = self.mode.map(|mode| mode & MODE_BITS);
        let Some(time) = self.mtime else { return Ok(Metadata { mode, mtime: None }) };
        let nanos = time.nanos.unwrap_or(0);
        if nanos > 999_999_999 || time.nanos == Some(0) {
            return Err(format!("{nanos} nanoseconds where 1 to 999999999 may stand"));
        }
        let seconds = u64::try_from(time.seconds.unwrap_or(0));
        let since = seconds.map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos));
        // A time that the system cannot hold is as good as none.
        Ok(Metadata { mode, mtime: SystemTime::UNIX_EPOCH.checked_add(since) })
    }
}
