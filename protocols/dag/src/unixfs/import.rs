use std::{
    fs::{self, File, FileType},
    io,
    path::Path,
};

use cid::Cid;
use dagmesh_core::limits;

use super::{
    Chunker, Metadata, Progress, UnixfsError,
    chunks::Chunks,
    directory::{self, Entry},
    layout::FileBuilder,
    node::{Linked, symlink_block},
};
use crate::{
    Block, Blockstore, Codec, HashCode,
    batch::{Sink, store_batched},
};

/// How [`import`] makes a DAG of files. The defaults give the CIDs that Kubo gives with `--cid-version=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Where files are cut.
    pub chunker: Chunker,
    /// The hash of every block; [`HashCode::Identity`] is refused.
    pub hash: HashCode,
    /// Whether names that begin with a dot are taken too. A hidden path that is named itself is always taken.
    pub hidden: bool,
    /// Whether modes and times are kept (UnixFS 1.5). Two copies of one folder then differ in their CIDs.
    pub metadata: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { chunker: Chunker::default(), hash: HashCode::Sha2_256, hidden: false, metadata: false }
    }
}

/// What [`import`] put into the store; durable when it is returned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// The root.
    pub cid: Cid,
    /// Blocks of the DAG, repeated ones too.
    pub blocks: u64,
    /// Those that the store did not hold before.
    pub new_blocks: u64,
    /// Bytes of the files' content.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Folders, the root's own too.
    pub folders: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Sockets, devices and the like, left out.
    pub special: u64,
    /// Entries left out for their hidden name.
    pub hidden: u64,
}

/// Imports the file, folder or symlink `path`: each entry sorted by the bytes of its name, symlinks as symlinks, never
/// followed. Blocks the thread.
///
/// A file that changes while it is read is stored as it was read. Folders nest at most [`limits::MAX_FOLDER_DEPTH`]
/// deep. Memory: some MiB, and the entries of the folders that are open.
///
/// # Errors
/// They name the path. Blocks of what came before may be in the store then, without a root.
pub fn import(
    store: &dyn Blockstore,
    path: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Imported, UnixfsError> {
    if options.hash == HashCode::Identity {
        return Err(UnixfsError::Options("the identity hash holds no block of a file".into()));
    }
    let chunks = Chunks::new(options.chunker)?;
    let (mut imported, stored) = store_batched(store, |sink| {
        let imported = Imported {
            cid: Cid::default(),
            blocks: 0,
            new_blocks: 0,
            bytes: 0,
            files: 0,
            folders: 0,
            symlinks: 0,
            special: 0,
            hidden: 0,
        };
        let mut importer = Importer { sink, options, chunks, progress, imported };
        let kind = fs::symlink_metadata(path).map_err(UnixfsError::io("look at", path))?.file_type();
        let root = importer.path(path, kind, 0)?.ok_or_else(|| UnixfsError::Special(path.to_owned()))?;
        importer.imported.cid = root.cid;
        Ok::<_, UnixfsError>(importer.imported)
    })?;
    (imported.blocks, imported.new_blocks) = (stored.blocks, stored.new_blocks);
    Ok(imported)
}

struct Importer<'a> {
    sink: &'a mut Sink,
    options: &'a ImportOptions,
    chunks: Chunks,
    progress: &'a mut dyn FnMut(Progress<'_>),
    imported: Imported,
}

impl Importer<'_> {
    /// Imports one path; `None` where it is of a kind that is left out.
    fn path(&mut self, path: &Path, kind: FileType, depth: usize) -> Result<Option<Linked>, UnixfsError> {
        if kind.is_dir() {
            self.folder(path, depth).map(Some)
        } else if kind.is_file() {
            self.file(path).map(Some)
        } else if kind.is_symlink() {
            self.symlink(path).map(Some)
        } else {
            self.imported.special += 1;
            Ok(None)
        }
    }

    fn folder(&mut self, path: &Path, depth: usize) -> Result<Linked, UnixfsError> {
        let max = limits::MAX_FOLDER_DEPTH;
        if depth > max {
            return Err(UnixfsError::TooDeep { path: path.to_owned(), max });
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(UnixfsError::io("read the folder", path))? {
            let entry = entry.map_err(UnixfsError::io("read the folder", path))?;
            let name = entry.file_name().into_string().map_err(|_| UnixfsError::NotUtf8(entry.path()))?;
            if name.starts_with('.') && !self.options.hidden {
                self.imported.hidden += 1;
                continue;
            }
            let kind = entry.file_type().map_err(|source| UnixfsError::io("look at", &entry.path())(source))?;
            names.push((name, kind));
        }
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut entries = Vec::with_capacity(names.len());
        for (name, kind) in names {
            if let Some(Linked { cid, tree_bytes }) = self.path(&path.join(&name), kind, depth + 1)? {
                entries.push(Entry { name, cid, tree_bytes });
            }
        }
        self.imported.folders += 1;
        let metadata = self.metadata(path, || fs::symlink_metadata(path))?;
        directory::build(self.sink, self.options.hash, entries, metadata)
    }

    fn file(&mut self, path: &Path) -> Result<Linked, UnixfsError> {
        let mut file = File::open(path).map_err(UnixfsError::io("open", path))?;
        let metadata = self.metadata(path, || file.metadata())?;
        let mut builder = FileBuilder::new(self.options.hash);
        self.chunks.reset();
        let mut is_empty = true;
        while let Some(chunk) = self.chunks.next(&mut file).map_err(UnixfsError::io("read", path))? {
            let len = chunk.len() as u64;
            let leaf = leaf(self.sink, self.options.hash, chunk)?;
            builder.push(self.sink, leaf, len)?;
            self.imported.bytes += len;
            is_empty = false;
            self.tell(path);
        }
        if is_empty {
            let leaf = leaf(self.sink, self.options.hash, &[])?;
            if metadata == Metadata::default() {
                self.file_done(path);
                return Ok(leaf);
            }
            builder.push(self.sink, leaf, 0)?;
        }
        let root = builder.finish(self.sink, metadata)?;
        self.file_done(path);
        // There is at least one leaf, and so a root.
        root.ok_or_else(|| UnixfsError::io("read", path)(io::ErrorKind::UnexpectedEof.into()))
    }

    fn file_done(&mut self, path: &Path) {
        self.imported.files += 1;
        self.tell(path);
    }

    fn tell(&mut self, path: &Path) {
        (self.progress)(Progress { path, files: self.imported.files, bytes: self.imported.bytes });
    }

    fn symlink(&mut self, path: &Path) -> Result<Linked, UnixfsError> {
        let target = fs::read_link(path).map_err(UnixfsError::io("read the symlink", path))?;
        let target = target.into_os_string();
        #[cfg(unix)]
        let target = std::os::unix::ffi::OsStringExt::into_vec(target);
        #[cfg(not(unix))]
        let target = target.into_string().map_err(|_| UnixfsError::NotUtf8(path.to_owned()))?.into_bytes();
        let (block, linked) = symlink_block(self.options.hash, target)?;
        self.sink.put(block)?;
        self.imported.symlinks += 1;
        Ok(linked)
    }

    fn metadata(&self, path: &Path, read: impl FnOnce() -> io::Result<fs::Metadata>) -> Result<Metadata, UnixfsError> {
        if !self.options.metadata {
            return Ok(Metadata::default());
        }
        let found = read().map_err(UnixfsError::io("look at", path))?;
        #[cfg(unix)]
        let mode = Some(std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777);
        #[cfg(not(unix))]
        let mode = None;
        Ok(Metadata { mode, mtime: found.modified().ok() })
    }
}

fn leaf(sink: &mut Sink, hash: HashCode, data: &[u8]) -> Result<Linked, UnixfsError> {
    let block = Block::new(Codec::Raw, hash, data.to_vec())?;
    let linked = Linked { cid: *block.cid(), tree_bytes: data.len() as u64 };
    sink.put(block)?;
    Ok(linked)
}
