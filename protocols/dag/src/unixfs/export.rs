use std::{
    fs::{self, File, FileTimes, OpenOptions},
    io::{self, Write},
    panic,
    path::{Path, PathBuf},
    process,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits;

use super::{
    FileReader, Metadata, Progress, UnixfsError,
    directory::{self, cut, is_safe_name},
    node::{self, FileNode, Node, Shard},
};
use crate::Blockstore;

/// Permission bits that are taken from a DAG: nobody's files become set-uid, set-gid or sticky by a stranger's word.
#[cfg(unix)]
const EXPORTED_MODE_BITS: u32 = 0o777;

/// A file of so many bytes is written by a thread of its own, while the blocks that follow are read and hashed.
const WRITE_BESIDE_FROM_BYTES: u64 = 4 << 20;
/// Pieces of it that wait to be written.
const WAITING_PIECES: usize = 4;

/// How [`export`] writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportOptions {
    /// Whether what stands at the target is replaced, whole: a folder's other content goes too. Without it, an
    /// existing target is an error.
    pub overwrite: bool,
    /// Most files, folders and symlinks that are written.
    pub max_entries: u64,
    /// Most bytes of content that are written.
    pub max_bytes: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { overwrite: false, max_entries: limits::MAX_EXPORT_ENTRIES, max_bytes: u64::MAX }
    }
}

/// What [`export`] wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Files.
    pub files: u64,
    /// Folders, the root's own too.
    pub folders: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Bytes of the files' content.
    pub bytes: u64,
}

/// Writes the file, folder or symlink `cid` to the path `to`, whose parent must exist. Blocks the thread.
///
/// All is written under a name of its own beside `to` (`.dagmesh-*.partial`) and renamed when it is whole, so nothing
/// half-written ever stands at `to`, and what stood there stays until then. Nothing is written outside of it: names
/// that would lead elsewhere are refused, every file and folder is new, and the symlinks of a folder come after all
/// else in it, so nothing is ever written through one. Where a symlink points is the DAG's own affair.
///
/// Modes (without set-uid, set-gid and sticky) and times are set where the DAG has them. The system is not told to
/// sync its disk.
///
/// # Errors
/// A missing block is named; so is a node that claims what its blocks do not keep. Then all that was written is
/// removed again.
pub fn export(
    store: &dyn Blockstore,
    cid: &Cid,
    to: &Path,
    options: &ExportOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Exported, UnixfsError> {
    if to.file_name().is_none() {
        return Err(UnixfsError::NoName(to.to_owned()));
    }
    let exists = || fs::symlink_metadata(to).is_ok();
    if !options.overwrite && exists() {
        return Err(UnixfsError::Exists(to.to_owned()));
    }
    let staging = Staging::beside(to)?;
    let mut exporter =
        Exporter { store, root: *cid, options, progress, exported: Exported::default(), folders: Vec::new() };
    let root = Place { real: staging.path.clone(), shown: to.to_owned() };
    exporter.node(cid, node::load(store, cid)?, root, 0)?;
    let Exporter { exported, folders, .. } = exporter;
    // Last, and children first: a folder that may not be written to can still be filled until here.
    for (place, metadata) in folders {
        let folder = File::open(&place.real).map_err(UnixfsError::io("open", &place.shown))?;
        apply(&folder, &place.shown, metadata)?;
    }
    if !options.overwrite && exists() {
        return Err(UnixfsError::Exists(to.to_owned()));
    }
    staging.place(to)?;
    Ok(exported)
}

/// Where something is written, and where it will stand in the end.
struct Place {
    real: PathBuf,
    shown: PathBuf,
}

impl Place {
    fn join(&self, name: &str) -> Self {
        Self { real: self.real.join(name), shown: self.shown.join(name) }
    }
}

struct Exporter<'a> {
    store: &'a dyn Blockstore,
    root: Cid,
    options: &'a ExportOptions,
    progress: &'a mut dyn FnMut(Progress<'_>),
    exported: Exported,
    /// Folders with metadata to set, children before parents.
    folders: Vec<(Place, Metadata)>,
}

impl Exporter<'_> {
    fn node(&mut self, cid: &Cid, node: Node, to: Place, depth: usize) -> Result<(), UnixfsError> {
        match node {
            Node::File(file) => self.file(cid, file, &to),
            Node::Symlink(target) => self.symlink(&target, &to),
            Node::Directory { metadata, .. } | Node::Shard(Shard { metadata, .. }) => {
                self.folder(cid, node, &to, depth)?;
                if metadata != Metadata::default() {
                    self.folders.push((to, metadata));
                }
                Ok(())
            }
        }
    }

    fn folder(&mut self, cid: &Cid, node: Node, to: &Place, depth: usize) -> Result<(), UnixfsError> {
        let max = limits::MAX_FOLDER_DEPTH;
        if depth > max {
            return Err(UnixfsError::TooDeep { path: to.shown.clone(), max });
        }
        let entries = directory::entries(self.store, cid, node)?;
        fs::create_dir(&to.real).map_err(UnixfsError::io("create the folder", &to.shown))?;
        self.exported.folders += 1;
        self.count()?;
        let mut symlinks = Vec::new();
        for entry in entries {
            if !is_safe_name(&entry.name) {
                return Err(UnixfsError::UnsafeName { cid: Box::new(*cid), name: cut(&entry.name) });
            }
            let place = to.join(&entry.name);
            match node::load(self.store, &entry.cid)? {
                Node::Symlink(target) => symlinks.push((target, place)),
                node => self.node(&entry.cid, node, place, depth + 1)?,
            }
        }
        symlinks.into_iter().try_for_each(|(target, place)| self.symlink(&target, &place))
    }

    fn file(&mut self, cid: &Cid, node: FileNode, to: &Place) -> Result<(), UnixfsError> {
        let max = self.options.max_bytes;
        if node.size > max.saturating_sub(self.exported.bytes) {
            return Err(UnixfsError::TooMany { cid: Box::new(self.root), what: "bytes of content", max });
        }
        let metadata = node.metadata;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&to.real)
            .map_err(UnixfsError::io("create the file", &to.shown))?;
        let reader = FileReader::new(self.store, *cid, node);
        if reader.size() < WRITE_BESIDE_FROM_BYTES {
            self.content(reader, &to.shown, |piece| file.write_all(&piece))?;
        } else {
            self.content_beside(reader, &to.shown, &mut file)?;
        }
        apply(&file, &to.shown, metadata)?;
        self.exported.files += 1;
        self.tell(&to.shown);
        self.count()
    }

    /// Hands the content over, piece by piece.
    fn content(
        &mut self,
        mut reader: FileReader<'_>,
        path: &Path,
        mut write: impl FnMut(Bytes) -> io::Result<()>,
    ) -> Result<(), UnixfsError> {
        while let Some(piece) = reader.next_chunk()? {
            let len = piece.len() as u64;
            write(piece).map_err(UnixfsError::io("write", path))?;
            self.exported.bytes += len;
            self.tell(path);
        }
        Ok(())
    }

    /// The same, with a thread that writes while this one reads.
    fn content_beside(&mut self, reader: FileReader<'_>, path: &Path, file: &mut File) -> Result<(), UnixfsError> {
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<Bytes>(WAITING_PIECES);
            let write = move || receiver.into_iter().try_for_each(|piece| file.write_all(&piece));
            let writer = thread::Builder::new().name("dag-export".into()).spawn_scoped(scope, write);
            let writer = writer.map_err(UnixfsError::io("write", path))?;
            let read = self.content(reader, path, |piece| sender.send(piece).map_err(io::Error::other));
            drop(sender);
            let written = writer.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
            // Where the writer failed, all that the reader knows is that it has gone.
            written.map_err(UnixfsError::io("write", path)).and(read)
        })
    }

    fn symlink(&mut self, target: &Bytes, to: &Place) -> Result<(), UnixfsError> {
        make_symlink(target, &to.real).map_err(UnixfsError::io("create the symlink", &to.shown))?;
        self.exported.symlinks += 1;
        self.count()
    }

    fn tell(&mut self, path: &Path) {
        (self.progress)(Progress { path, files: self.exported.files, bytes: self.exported.bytes });
    }

    fn count(&self) -> Result<(), UnixfsError> {
        let Exported { files, folders, symlinks, .. } = self.exported;
        let max = self.options.max_entries;
        if files + folders + symlinks > max {
            return Err(UnixfsError::TooMany { cid: Box::new(self.root), what: "files, folders and symlinks", max });
        }
        Ok(())
    }
}

/// A path beside the target, ours alone; what stands at it is removed unless it was put in place.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn beside(to: &Path) -> Result<Self, UnixfsError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = to.with_file_name(format!(".dagmesh-{}-{number}.partial", process::id()));
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { path }),
                Err(error) => return Err(UnixfsError::io("look at", &path)(error)),
                // Left by a process of the same number that was killed.
                Ok(_) => {}
            }
        }
    }

    /// Renames it to `to`. What stands there is replaced: at once where neither is a folder, else by way of a name
    /// beside it, for no system replaces a folder in one step.
    fn place(self, to: &Path) -> Result<(), UnixfsError> {
        let is_dir = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(UnixfsError::io("rename to", to));
        let old = if fs::symlink_metadata(to).is_ok() && (is_dir(to) || is_dir(&self.path)) {
            let old = Self::beside(to)?;
            rename(to, &old.path)?;
            Some(old)
        } else {
            None
        };
        let placed = rename(&self.path, to);
        if placed.is_err()
            && let Some(old) = old
        {
            // Back where it was; should that fail too, it must at least not be removed.
            let _ = fs::rename(&old.path, to);
            std::mem::forget(old);
        }
        placed
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a rename there is nothing left here, which is no failure.
        let _ = match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(error) => Err(error),
        };
    }
}

fn apply(file: &File, path: &Path, metadata: Metadata) -> Result<(), UnixfsError> {
    if let Some(mtime) = metadata.mtime {
        file.set_times(FileTimes::new().set_modified(mtime)).map_err(UnixfsError::io("set the time of", path))?;
    }
    #[cfg(unix)]
    if let Some(mode) = metadata.mode {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode & EXPORTED_MODE_BITS);
        file.set_permissions(mode).map_err(UnixfsError::io("set the mode of", path))?;
    }
    Ok(())
}

#[cfg(unix)]
fn make_symlink(target: &Bytes, to: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink::<&std::ffi::OsStr, _>(std::os::unix::ffi::OsStrExt::from_bytes(target), to)
}

#[cfg(windows)]
fn make_symlink(target: &Bytes, to: &Path) -> io::Result<()> {
    let target = std::str::from_utf8(target).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    std::os::windows::fs::symlink_file::<&std::ffi::OsStr, _>(target.as_ref(), to)
}

#[cfg(not(any(unix, windows)))]
fn make_symlink(_: &Bytes, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
