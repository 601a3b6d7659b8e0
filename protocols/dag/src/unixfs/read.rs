//! Reading the bytes of a file.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::{Buf, Bytes};
use cid::Cid;
use dagmesh_core::limits;

use super::{
    Metadata, UnixfsError,
    node::{self, FileNode, Node, Part},
};
use crate::Blockstore;

/// Opens a file of a store for reading. Needs its root block; the others are read as the reader comes to them.
pub fn cat<'a>(store: &'a dyn Blockstore, cid: &Cid) -> Result<FileReader<'a>, UnixfsError> {
    match node::load(store, cid)? {
        Node::File(root) => Ok(FileReader::new(store, *cid, root)),
        Node::Directory { .. } | Node::Shard(_) | Node::Symlink(_) => Err(UnixfsError::NotAFile(Box::new(*cid))),
    }
}

/// Reads a file block by block, each hashed again, in memory for one block and the links above it. Seeking reads no
/// block that it skips.
///
/// A size that a node claims and its parts do not keep is an error, as is a block that is missing. Where `Read` must
/// give a [`io::Error`], the [`UnixfsError`] is inside it.
pub struct FileReader<'a> {
    store: &'a dyn Blockstore,
    cid: Cid,
    root: FileNode,
    /// Parts still to read, of the root first.
    open: Vec<std::vec::IntoIter<Part>>,
    chunk: Bytes,
    position: u64,
    /// Bytes to pass over before the next chunk.
    skip: u64,
    empty_parts: usize,
}

impl<'a> FileReader<'a> {
    pub(super) fn new(store: &'a dyn Blockstore, cid: Cid, root: FileNode) -> Self {
        let open = vec![root.parts.clone().into_iter()];
        let chunk = root.data.clone();
        Self { store, cid, root, open, chunk, position: 0, skip: 0, empty_parts: 0 }
    }

    /// Bytes of the whole file, as its root claims; reading it to its end proves it.
    pub fn size(&self) -> u64 {
        self.root.size
    }

    /// Mode and time, where the file has them.
    pub fn metadata(&self) -> Metadata {
        self.root.metadata
    }

    /// The next piece of the file, as it lies in its block, or what is left of it; `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, UnixfsError> {
        self.fill()?;
        let chunk = std::mem::take(&mut self.chunk);
        self.position += chunk.len() as u64;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    /// Goes to `position`, in bytes from the start. Beyond the end there is nothing to read.
    pub fn seek_to(&mut self, position: u64) {
        self.open = vec![self.root.parts.clone().into_iter()];
        self.chunk = self.root.data.clone();
        self.position = position;
        self.skip = position;
        self.empty_parts = 0;
    }

    /// Brings the next bytes into `chunk`; it stays empty at the end alone.
    fn fill(&mut self) -> Result<(), UnixfsError> {
        loop {
            let passed = self.skip.min(self.chunk.len() as u64);
            self.chunk.advance(passed as usize);
            self.skip -= passed;
            if !self.chunk.is_empty() {
                return Ok(());
            }
            let Some(parts) = self.open.last_mut() else { return Ok(()) };
            let Some(part) = parts.as_slice().first().copied() else {
                self.open.pop();
                continue;
            };
            if part.size > 0 && part.size <= self.skip {
                self.skip -= part.size;
                parts.next();
                continue;
            }
            self.enter(part)?;
        }
    }

    /// Reads `part`, the next one of the innermost node. Where that fails the reader stays before it: it can be tried
    /// again when the block has come, and nobody reads past a hole.
    fn enter(&mut self, part: Part) -> Result<(), UnixfsError> {
        if part.size == 0 {
            self.empty_parts += 1;
            if self.empty_parts > limits::MAX_EMPTY_PARTS {
                let what = format!("more than {} parts without bytes", limits::MAX_EMPTY_PARTS);
                return Err(UnixfsError::malformed(&self.cid, what));
            }
        }
        let Node::File(node) = node::load(self.store, &part.cid)? else {
            return Err(UnixfsError::malformed(&part.cid, "no file where a file links to a part of it"));
        };
        if node.size != part.size {
            let what = format!("{} bytes where its parent claims {}", node.size, part.size);
            return Err(UnixfsError::malformed(&part.cid, what));
        }
        if !node.parts.is_empty() && self.open.len() >= limits::MAX_FILE_DEPTH {
            let what = format!("nested deeper than {}", limits::MAX_FILE_DEPTH);
            return Err(UnixfsError::malformed(&self.cid, what));
        }
        self.open.last_mut().and_then(Iterator::next);
        self.chunk = node.data;
        if !node.parts.is_empty() {
            self.open.push(node.parts.into_iter());
        }
        Ok(())
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.fill()?;
        let len = buffer.len().min(self.chunk.len());
        self.chunk.split_to(len).copy_to_slice(buffer.get_mut(..len).unwrap_or_default());
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for FileReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.root.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        if position != self.position {
            self.seek_to(position);
        }
        Ok(position)
    }
}

impl std::fmt::Debug for FileReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader")
            .field("cid", &self.cid)
            .field("size", &self.root.size)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
