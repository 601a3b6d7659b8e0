//! UnixFS: files and folders as DAGs, and back.
//!
//! [`import`] and [`export`] move whole trees between a filesystem and a [`Blockstore`](crate::Blockstore); [`cat`]
//! reads one file, [`list`] one folder, [`stat`] one node, [`resolve`] a path. All of it blocks on the disk; async code
//! runs it on a thread that may block. Memory is bounded whatever the size of a file; the entries of a folder are
//! held while it is worked on.
//!
//! With the default options the CIDs equal those of `ipfs add --cid-version=1` (Kubo): chunks of 256 KiB, raw leaves,
//! the balanced layout with 174 links a node, folders as HAMT shards beyond 256 KiB of links, neither modes nor times.
//!
//! What is read may come from strangers: every block is hashed again, every size that a node claims is held against
//! what is there, and no name leads out of the folder it stands in.
//!
//! Source: <https://specs.ipfs.tech/unixfs/>.

mod chunks;
mod directory;
mod error;
mod export;
mod import;
mod layout;
mod node;
mod read;
#[cfg(all(test, unix))]
mod tests;

use std::path::Path;

pub use self::{
    chunks::Chunker,
    directory::{DirEntry, list, resolve},
    error::UnixfsError,
    export::{ExportOptions, Exported, export},
    import::{ImportOptions, Imported, import},
    node::{Kind, Metadata, Stat, stat},
    read::{FileReader, cat},
};

/// How far an [`import`] or [`export`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The file at work.
    pub path: &'a Path,
    /// Files done.
    pub files: u64,
    /// Bytes of content done.
    pub bytes: u64,
}
