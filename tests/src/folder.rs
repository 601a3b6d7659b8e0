//! Folders that are the same for the same seed, and their comparison.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Files in one folder before a new one is begun, and folders in one before a new level: no level gets long.
const FANOUT: usize = 64;
/// Differences named before a comparison gives up counting.
const MAX_DIFFERENCES: usize = 16;
/// What is read or written at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Stems of file names: plain, with a blank, hidden, without and with several extensions, beyond ASCII, long.
const STEMS: [&str; 8] =
    ["data", "with blank", ".hidden", "notes.tar", "Grüße", "数据", "UPPER", "a-rather-long-stem-of-a-name"];
const EXTENSIONS: [&str; 5] = ["", ".txt", ".bin", ".json", ".d"];

/// Makes `files` files with `bytes` bytes in all below `path`, the same for the same `seed` on every machine.
///
/// They lie nested, about 64 a folder, under names of every sort. Sizes are skewed as in real folders: some files are
/// empty, most are small, a few hold most of the bytes. Content is random, so nothing deduplicates. Returns the paths
/// in the order of their making. For links and empty folders see [`make_oddities`].
///
/// # Panics
/// When the filesystem refuses.
pub fn make_folder(path: impl AsRef<Path>, files: usize, bytes: u64, seed: u64) -> Vec<PathBuf> {
    let path = path.as_ref();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let sizes = sizes(&mut rng, files, bytes);
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("making {}: {error}", path.display()));
    let mut made = Vec::with_capacity(files);
    for (index, size) in sizes.into_iter().enumerate() {
        let file = path.join(place(&mut rng, index));
        let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fill(&file, size, &mut rng));
        written.unwrap_or_else(|error| panic!("writing {size} bytes to {}: {error}", file.display()));
        made.push(file);
    }
    made
}

/// Adds what folders have beside files: an empty folder, folders nested without a file, a link to a file, a link to a
/// folder, and a link to nothing. All links are relative.
///
/// # Panics
/// When the filesystem refuses.
pub fn make_oddities(path: impl AsRef<Path>) {
    let path = path.as_ref();
    let make = || {
        fs::create_dir_all(path.join("empty"))?;
        fs::create_dir_all(path.join("hollow/one/two"))?;
        fs::create_dir_all(path.join("target-folder"))?;
        fs::write(path.join("target-folder/file"), "linked to")?;
        std::os::unix::fs::symlink("target-folder/file", path.join("link-to-file"))?;
        std::os::unix::fs::symlink("target-folder", path.join("link-to-folder"))?;
        std::os::unix::fs::symlink("../nowhere", path.join("link-to-nothing"))
    };
    make().unwrap_or_else(|error: io::Error| panic!("making oddities in {}: {error}", path.display()));
}

/// Changes `count` of the files below `path`, spread over all of it and the same for the same `seed`: each keeps its
/// length, or grows to 16 bytes, and has other bytes at its middle. Returns them, sorted.
///
/// # Panics
/// When there are fewer files than `count`, or the filesystem refuses.
pub fn edit_files(path: impl AsRef<Path>, count: usize, seed: u64) -> Vec<PathBuf> {
    let path = path.as_ref();
    let mut files: Vec<PathBuf> =
        listing(path).into_iter().filter(|(_, kind)| matches!(kind, Kind::File(_))).map(|(name, _)| name).collect();
    assert!(files.len() >= count, "{} has {} files, {count} to change", path.display(), files.len());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut chosen: Vec<PathBuf> = (0..count)
        .map(|_| {
            let index = below(&mut rng, files.len() as u64) as usize;
            path.join(files.swap_remove(index))
        })
        .collect();
    chosen.sort();
    for file in &chosen {
        edit(file, &mut rng).unwrap_or_else(|error| panic!("changing {}: {error}", file.display()));
    }
    chosen
}

/// Asserts that two folders hold the same: names, kinds, bytes of files, targets of links, empty folders. Times,
/// owners and modes do not count. Returns how many entries it compared, never 0.
///
/// # Panics
/// When they differ, naming the first differences; or when both are empty, as then nothing was shown.
pub fn assert_same_folder(a: impl AsRef<Path>, b: impl AsRef<Path>) -> usize {
    let (a, b) = (a.as_ref(), b.as_ref());
    let differences = folder_differences(a, b);
    assert!(differences.is_empty(), "{} and {} differ:\n  {}", a.display(), b.display(), differences.join("\n  "));
    let entries = listing(a).len();
    assert!(entries > 0, "{} and {} are both empty", a.display(), b.display());
    entries
}

/// What differs between two folders, in the order of the names; at most 16 differences, then a line that says so.
///
/// # Panics
/// When one of them cannot be read.
pub fn folder_differences(a: impl AsRef<Path>, b: impl AsRef<Path>) -> Vec<String> {
    let (a, b) = (a.as_ref(), b.as_ref());
    let (left, mut right) = (listing(a), listing(b));
    let mut found = Vec::new();
    for (name, kind) in left {
        let difference = match right.remove(&name) {
            None => Some(format!("{}: only in {}", name.display(), a.display())),
            Some(other) if other != kind => Some(format!("{}: {kind:?} against {other:?}", name.display())),
            Some(Kind::File(_)) => first_other_byte(&a.join(&name), &b.join(&name))
                .unwrap_or_else(|error| panic!("comparing {}: {error}", name.display()))
                .map(|at| format!("{}: other content from byte {at} on", name.display())),
            Some(_) => None,
        };
        found.extend(difference);
        if found.len() >= MAX_DIFFERENCES {
            found.push("and perhaps more".to_owned());
            return found;
        }
    }
    found.extend(right.into_keys().map(|name| format!("{}: only in {}", name.display(), b.display())));
    if found.len() > MAX_DIFFERENCES {
        found.truncate(MAX_DIFFERENCES);
        found.push("and more".to_owned());
    }
    found
}

/// What an entry is, as far as it counts for being the same.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A file of so many bytes.
    File(u64),
    Folder,
    LinkTo(PathBuf),
    Other,
}

/// Every entry below `path`, by its path from there. Links are not followed.
fn listing(path: &Path) -> BTreeMap<PathBuf, Kind> {
    let mut entries = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let read = list_one(path, &folder, &mut entries, &mut folders);
        read.unwrap_or_else(|error| panic!("reading {}: {error}", path.join(&folder).display()));
    }
    entries
}

fn list_one(
    root: &Path,
    folder: &Path,
    entries: &mut BTreeMap<PathBuf, Kind>,
    folders: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        let kind = entry.file_type()?;
        let kind = if kind.is_symlink() {
            Kind::LinkTo(fs::read_link(entry.path())?)
        } else if kind.is_dir() {
            folders.push(name.clone());
            Kind::Folder
        } else if kind.is_file() {
            Kind::File(entry.metadata()?.len())
        } else {
            Kind::Other
        };
        entries.insert(name, kind);
    }
    Ok(())
}

/// Where two files of the same length differ first.
fn first_other_byte(a: &Path, b: &Path) -> io::Result<Option<u64>> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (Vec::with_capacity(CHUNK_BYTES), Vec::with_capacity(CHUNK_BYTES));
    let mut at = 0;
    loop {
        left.clear();
        right.clear();
        (&a).take(CHUNK_BYTES as u64).read_to_end(&mut left)?;
        (&b).take(CHUNK_BYTES as u64).read_to_end(&mut right)?;
        if left != right {
            let same = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
            return Ok(Some(at + same as u64));
        }
        if left.is_empty() {
            return Ok(None);
        }
        at += left.len() as u64;
    }
}

/// Shares `bytes` out over `files`, skewed.
fn sizes(rng: &mut ChaCha8Rng, files: usize, bytes: u64) -> Vec<u64> {
    // A weight is 2 to the power of 0..=11, and every sixteenth file or so stays empty.
    let weights: Vec<u64> = (0..files).map(|_| if below(rng, 16) == 0 { 0 } else { 1 << below(rng, 12) }).collect();
    let total: u64 = weights.iter().sum();
    let share = |weight: u64| (u128::from(bytes) * u128::from(weight) / u128::from(total.max(1))) as u64;
    let mut sizes: Vec<u64> = weights.into_iter().map(share).collect();
    let rest = bytes - sizes.iter().sum::<u64>();
    if let Some(last) = sizes.last_mut() {
        *last += rest;
    }
    sizes
}

/// Where the file of this number lies: its folder follows from the number, its name is drawn.
fn place(rng: &mut ChaCha8Rng, index: usize) -> PathBuf {
    let mut place = PathBuf::new();
    let mut folder = index / FANOUT;
    while folder > 0 {
        place.push(format!("folder-{:02}", folder % FANOUT));
        folder /= FANOUT;
    }
    let stem = STEMS.get(below(rng, STEMS.len() as u64) as usize).copied().unwrap_or_default();
    let extension = EXTENSIONS.get(below(rng, EXTENSIONS.len() as u64) as usize).copied().unwrap_or_default();
    // The number keeps names apart, also where a filesystem ignores case.
    place.push(OsString::from(format!("{stem}-{index}{extension}")));
    place
}

fn fill(path: &Path, size: u64, rng: &mut ChaCha8Rng) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut buffer = vec![0; size.min(CHUNK_BYTES as u64) as usize];
    let mut left = size;
    while left > 0 {
        buffer.truncate(left.min(CHUNK_BYTES as u64) as usize);
        rng.fill_bytes(&mut buffer);
        file.write_all(&buffer)?;
        left -= buffer.len() as u64;
    }
    Ok(())
}

fn edit(path: &Path, rng: &mut ChaCha8Rng) -> io::Result<()> {
    let mut content = fs::read(path)?;
    content.resize(content.len().max(16), 0);
    let middle = content.len() / 2;
    for byte in content.iter_mut().skip(middle - 8).take(16) {
        // Never 0, so that a byte always becomes another one.
        *byte ^= (below(rng, 255) + 1) as u8;
    }
    fs::write(path, content)
}

/// A number under `bound`. The bias of the remainder does not matter here.
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    rng.next_u64() % bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_folder_and_another_seed_another_one() {
        let temp = tempfile::tempdir().expect("a folder");
        let (a, b, c) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("c"));
        let files = make_folder(&a, 300, 1_000_000, 7);
        make_folder(&b, 300, 1_000_000, 7);
        make_folder(&c, 300, 1_000_000, 8);
        assert_eq!(files.len(), 300);
        assert_eq!(files.iter().map(|file| fs::metadata(file).expect("a file").len()).sum::<u64>(), 1_000_000);
        assert!(files.iter().any(|file| fs::metadata(file).expect("a file").len() == 0));
        assert!(assert_same_folder(&a, &b) > 300, "files and folders");
        assert!(!folder_differences(&a, &c).is_empty());
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let temp = tempfile::tempdir().expect("a folder");
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        let both = |path: &str, change: &dyn Fn(&Path)| {
            for folder in [&a, &b] {
                let _ = fs::remove_dir_all(folder);
                make_folder(folder, 5, 1000, 1);
                make_oddities(folder);
            }
            assert_eq!(folder_differences(&a, &b), Vec::<String>::new());
            change(&b.join(path));
            let found = folder_differences(&a, &b);
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert!(found[0].starts_with(path), "{path}: {found:?}");
            let back = folder_differences(&b, &a);
            assert!(back.len() == 1 && back[0].starts_with(path), "{path}: {back:?}");
        };
        both("target-folder/file", &|path| fs::write(path, "linked tO").expect("written"));
        both("target-folder/file", &|path| fs::write(path, "shorter").expect("written"));
        both("target-folder/more", &|path| fs::write(path, "").expect("written"));
        both("empty", &|path| fs::remove_dir(path).expect("removed"));
        both("empty/er", &|path| fs::create_dir(path).expect("made"));
        both("link-to-nothing", &|path| fs::remove_file(path).expect("removed"));
        both("link-to-file", &|path| {
            fs::remove_file(path).expect("removed");
            fs::copy(a.join("target-folder/file"), path).expect("the file in place of the link");
        });
    }

    #[test]
    fn an_edit_changes_as_many_files_as_it_says() {
        let temp = tempfile::tempdir().expect("a folder");
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        make_folder(&a, 200, 100_000, 3);
        make_folder(&b, 200, 100_000, 3);
        assert_eq!(edit_files(&a, 10, 5).len(), 10);
        assert_eq!(folder_differences(&a, &b).len(), 10);
        edit_files(&b, 10, 5);
        assert_same_folder(&a, &b);
    }

    #[test]
    #[should_panic(expected = "both empty")]
    fn two_empty_folders_show_nothing() {
        let temp = tempfile::tempdir().expect("a folder");
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        fs::create_dir(&a).expect("made");
        fs::create_dir(&b).expect("made");
        assert_same_folder(&a, &b);
    }
}
