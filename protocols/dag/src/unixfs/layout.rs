//! The balanced layout of a file: all leaves at one depth, at most [`limits::MAX_FILE_LINKS`] links a node.

use dagmesh_core::limits;

use super::{
    Metadata, UnixfsError,
    node::{Linked, Part, file_block},
};
use crate::{HashCode, batch::Sink};

/// Takes the leaves of one file in order and builds the nodes above them, in memory for one node a level.
pub(super) struct FileBuilder {
    hash: HashCode,
    /// Level 0 holds leaves. No level is over its cap; a full one is packed when one more comes.
    levels: Vec<Vec<(Part, u64)>>,
}

impl FileBuilder {
    pub(super) fn new(hash: HashCode) -> Self {
        Self { hash, levels: Vec::new() }
    }

    /// Adds a leaf of `size` bytes of content.
    pub(super) fn push(&mut self, sink: &mut Sink, leaf: Linked, size: u64) -> Result<(), UnixfsError> {
        self.add(sink, 0, (Part { cid: leaf.cid, size }, leaf.tree_bytes))
    }

    /// The root; `None` where there was no leaf. A file of one leaf is that leaf, unless it has metadata, which a raw
    /// leaf cannot carry.
    pub(super) fn finish(mut self, sink: &mut Sink, metadata: Metadata) -> Result<Option<Linked>, UnixfsError> {
        let mut level = 0;
        while level < self.levels.len() {
            let parts = self.levels.get_mut(level).map(std::mem::take).unwrap_or_default();
            let is_top = level + 1 == self.levels.len();
            if let ([(part, tree_bytes)], true) = (parts.as_slice(), is_top && metadata == Metadata::default()) {
                return Ok(Some(Linked { cid: part.cid, tree_bytes: *tree_bytes }));
            }
            if is_top && !parts.is_empty() {
                let (block, linked) = file_block(self.hash, &parts, metadata)?;
                sink.put(block)?;
                return Ok(Some(linked));
            }
            if !parts.is_empty() {
                self.pack(sink, level, &parts)?;
            }
            level += 1;
        }
        Ok(None)
    }

    fn add(&mut self, sink: &mut Sink, level: usize, part: (Part, u64)) -> Result<(), UnixfsError> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let Some(parts) = self.levels.get_mut(level) else { return Ok(()) };
        if parts.len() < limits::MAX_FILE_LINKS {
            parts.push(part);
            return Ok(());
        }
        let full = std::mem::replace(parts, vec![part]);
        self.pack(sink, level, &full)
    }

    fn pack(&mut self, sink: &mut Sink, level: usize, parts: &[(Part, u64)]) -> Result<(), UnixfsError> {
        let (block, linked) = file_block(self.hash, parts, Metadata::default())?;
        sink.put(block)?;
        let size = parts.iter().map(|(part, _)| part.size).sum();
        self.add(sink, level + 1, (Part { cid: linked.cid, size }, linked.tree_bytes))
    }
}
