//! Folders of the demo: the copy it works on, the changes it makes there, and the comparison at the end.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    api::Result,
    error::{ErrorKind, NodeError},
};

/// Files that a change edits, where there are so many.
const EDITS: usize = 10;
/// From so many files on, a change takes one away and renames one too.
const MANY_FILES: usize = 20;
/// What is read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// The sample that is made where there is no repository: files, and bytes of each at most.
const SAMPLE: (u64, u64) = (1000, 8192);

/// What is published.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// What stands at this path; at its top, build output and history of versions are left out where nobody named it.
    Path { path: PathBuf, named: bool },
    /// A folder that the demo makes.
    Sample,
}

impl Source {
    /// Takes `path`; else the folder `protocols` of the repository we are in; else that repository; else a sample.
    pub(super) fn choose(path: Option<&Path>, here: &Path) -> Result<Self> {
        let Some(path) = path else {
            let is_repository = here.join("Cargo.toml").is_file() || here.join(".git").exists();
            let candidates = [here.join("protocols"), here.to_owned()];
            let found = candidates.into_iter().find(|path| is_repository && path.is_dir());
            return Ok(found.map_or(Self::Sample, |path| Self::Path { path, named: false }));
        };
        let real = fs::canonicalize(path).map_err(|error| NodeError::file("read", path, &error))?;
        let kind = fs::metadata(&real).map_err(|error| NodeError::file("read", path, &error))?;
        if !kind.is_file() && !kind.is_dir() {
            return Err(NodeError::usage(format!("{} is neither a file nor a folder", path.display())));
        }
        Ok(Self::Path { path: real, named: true })
    }

    /// What the copy is called.
    pub(super) fn name(&self) -> String {
        let name = match self {
            Self::Path { path, .. } => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Self::Sample => Some("sample".to_owned()),
        };
        name.unwrap_or_else(|| "folder".to_owned())
    }

    /// The same for a person.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Path { path, .. } => super::super::output::visible(&path.display().to_string()),
            Self::Sample => "a sample folder (there is no repository here)".to_owned(),
        }
    }
}

/// What an entry of a tree is, as far as a DAG of files keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File(u64),
    Folder,
    Link(PathBuf),
}

/// The entries of a tree by their path below the root; the root's own is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<PathBuf, Kind>);

impl Tree {
    /// Lists `root`, symlinks as symlinks. Sockets, devices and the like are passed over, as the import does.
    pub(super) fn list(root: &Path, skip_builds: bool, stop: &AtomicBool) -> Result<Self> {
        let mut tree = BTreeMap::new();
        let mut folders = Vec::new();
        let look = |path: &Path| fs::symlink_metadata(path).map_err(|error| NodeError::file("look at", path, &error));
        let kind = look(root)?;
        if kind.is_dir() {
            tree.insert(PathBuf::new(), Kind::Folder);
            folders.push(PathBuf::new());
        } else {
            tree.insert(PathBuf::new(), Kind::File(kind.len()));
        }
        while let Some(folder) = folders.pop() {
            check(stop)?;
            let path = at(root, &folder);
            let failed = |error| NodeError::file("read the folder", &path, &error);
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let (name, kind) = (entry.file_name(), entry.file_type().map_err(failed)?);
                if skip_builds && folder.as_os_str().is_empty() && (name == "target" || name == ".git") {
                    continue;
                }
                let below = folder.join(name);
                let kind = if kind.is_dir() {
                    folders.push(below.clone());
                    Kind::Folder
                } else if kind.is_symlink() {
                    let read = fs::read_link(entry.path());
                    Kind::Link(read.map_err(|error| NodeError::file("read the symlink", &entry.path(), &error))?)
                } else if kind.is_file() {
                    Kind::File(look(&entry.path())?.len())
                } else {
                    continue;
                };
                tree.insert(below, kind);
            }
        }
        Ok(Self(tree))
    }

    /// Its files, in the order of their paths.
    fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.0.iter().filter_map(|(path, kind)| match kind {
            Kind::File(bytes) => Some((path.as_path(), *bytes)),
            _ => None,
        })
    }

    /// How many files there are.
    pub(super) fn file_count(&self) -> u64 {
        self.files().count() as u64
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files().map(|(_, bytes)| bytes).sum()
    }

    /// Copies it from `from` to `to`, where nothing stands yet, telling the bytes that are done.
    pub(super) fn copy(&self, from: &Path, to: &Path, stop: &AtomicBool, done: impl Fn(u64)) -> Result<()> {
        // A folder sorts before what is in it.
        for (path, kind) in &self.0 {
            check(stop)?;
            let (source, target) = (at(from, path), at(to, path));
            let copied = match kind {
                Kind::Folder => fs::create_dir(&target),
                Kind::Link(to) => std::os::unix::fs::symlink(to, &target),
                Kind::File(_) => fs::copy(&source, &target).map(&done),
            };
            copied.map_err(|error| NodeError::file("copy", &source, &error))?;
        }
        Ok(())
    }

    /// The first difference between two trees with this listing and `other`'s; `None`: they are the same in names,
    /// kinds, bytes and targets of symlinks.
    pub(super) fn difference(
        &self,
        root: &Path,
        other: &Self,
        other_root: &Path,
        stop: &AtomicBool,
    ) -> Result<Option<String>> {
        for (path, kind) in &self.0 {
            check(stop)?;
            let differs = match (kind, other.0.get(path)) {
                (_, None) => Some("is not there".to_owned()),
                (kind, Some(found)) if kind != found => Some(format!("is {found:?} where {kind:?} was expected")),
                (Kind::File(_), _) => {
                    let (left, right) = (at(root, path), at(other_root, path));
                    let same = same_bytes(&left, &right);
                    let same = same.map_err(|error| NodeError::file("compare", &right, &error))?;
                    (!same).then(|| "has other bytes".to_owned())
                }
                _ => None,
            };
            if let Some(differs) = differs {
                return Ok(Some(format!("{} {differs}", at(other_root, path).display())));
            }
        }
        let more = other.0.keys().find(|path| !self.0.contains_key(*path));
        Ok(more.map(|path| format!("{} is there and should not be", at(other_root, path).display())))
    }
}

/// What a change did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Change {
    pub(super) edited: u64,
    pub(super) added: u64,
    pub(super) removed: u64,
    pub(super) renamed: u64,
}

/// Changes the files below `root`, spread over all of it and always in the same way: edits some, adds one, and where
/// there are many, renames one and takes one away. A single file is edited.
pub(super) fn change(root: &Path, tree: &Tree) -> Result<Change> {
    let mut change = Change::default();
    let files = tree.files().map(|(path, _)| at(root, path)).collect::<Vec<_>>();
    let many = files.len() >= MANY_FILES;
    let edits = EDITS.min(files.len());
    // The slots between two edits are free, for the file that goes and the one that moves.
    let slot = |index: usize| index * files.len() / edits.max(1);
    let next_to = |index: usize| files.get(slot(index) + 1);
    for file in (0..edits).filter_map(|index| files.get(slot(index))) {
        edit(file).map_err(|error| NodeError::file("change", file, &error))?;
        change.edited += 1;
    }
    if root.is_dir() {
        let new = free_name(root, "added-by-dagmesh-demo");
        fs::write(&new, "This file came with the second entry.\n")
            .map_err(|error| NodeError::file("write", &new, &error))?;
        change.added += 1;
    }
    if many && let Some(file) = next_to(0) {
        fs::remove_file(file).map_err(|error| NodeError::file("remove", file, &error))?;
        change.removed += 1;
    }
    if many && let Some(file) = next_to(EDITS / 2) {
        let new = free_name(file.parent().unwrap_or(root), "renamed-by-dagmesh-demo");
        fs::rename(file, &new).map_err(|error| NodeError::file("rename", file, &error))?;
        change.renamed += 1;
    }
    Ok(change)
}

/// Makes a folder that is the same on every machine.
pub(super) fn make_sample(root: &Path, stop: &AtomicBool) -> Result<()> {
    let mut state = 1_u64;
    for index in 0..SAMPLE.0 {
        check(stop)?;
        let folder = root.join(format!("part-{:02}", index / 50));
        let file = folder.join(format!("{index:04}.dat"));
        let mut content = Vec::with_capacity(SAMPLE.1 as usize);
        for _ in 0..next(&mut state) % (SAMPLE.1 / 8) {
            content.extend(next(&mut state).to_le_bytes());
        }
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, content));
        written.map_err(|error| NodeError::file("write", &file, &error))?;
    }
    Ok(())
}

/// Fails where `bytes` more do not fit beside `dir`; where nobody can say, the disk itself will.
pub(super) fn check_space(dir: &Path, bytes: u64) -> Result<()> {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= bytes {
        return Ok(());
    }
    let size = super::super::output::size;
    Err(NodeError::new(
        ErrorKind::Storage,
        format!(
            "the demo needs about {} in {}, where {} are free; set TMPDIR to another place, or name a smaller folder",
            size(bytes),
            dir.display(),
            size(free)
        ),
    ))
}

/// Stands up for what waits for the end.
fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(NodeError::new(ErrorKind::Interrupted, "interrupted")) } else { Ok(()) }
}

fn at(root: &Path, path: &Path) -> PathBuf {
    // An empty path would append a slash, which no file may have.
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn free_name(folder: &Path, stem: &str) -> PathBuf {
    let first = folder.join(format!("{stem}.txt"));
    let others = (2_u64..).map(|n| folder.join(format!("{stem}-{n}.txt")));
    std::iter::once(first.clone()).chain(others).find(|path| path.symlink_metadata().is_err()).unwrap_or(first)
}

/// Other bytes in the middle, or a line more at the end of a short file.
fn edit(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o600))?;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut bytes = [0; 16];
    if len < bytes.len() as u64 {
        return file.write_all_at(b"changed by dagmesh demo\n", len);
    }
    let middle = len / 2 - bytes.len() as u64 / 2;
    file.read_exact_at(&mut bytes, middle)?;
    file.write_all_at(&bytes.map(|byte| byte ^ 0x5a), middle)
}

fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (Vec::with_capacity(CHUNK_BYTES), Vec::with_capacity(CHUNK_BYTES));
    loop {
        left.clear();
        right.clear();
        (&a).take(CHUNK_BYTES as u64).read_to_end(&mut left)?;
        (&b).take(CHUNK_BYTES as u64).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// The next number of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
