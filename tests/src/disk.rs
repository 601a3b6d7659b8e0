//! Disks of a test's own: one that is small, and one that fails when it is told to.
//!
//! Both are real filesystems that the kernel mounts, so they need the right to mount. Where that is missing, the reason is
//! printed and there is none.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A small filesystem in memory, unmounted when it goes.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// A disk of `bytes`; `None`, with the reason printed, where none can be mounted.
    pub fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={bytes}");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path(folder.path())]);
        mounted.map_err(|why| println!("skipped: no tmpfs can be mounted: {why}")).ok()?;
        Some(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives it another size.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn resize(&self, bytes: u64) {
        run("mount", &["-o", &format!("remount,size={bytes}"), path(self.path())]).expect("another size");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", path(self.path())]);
    }
}

/// How a [`FailingDisk`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The first sync whose bytes do not reach the device fails, and so does every write from then on.
    Stops,
    /// A sync fails once, as its bytes do not reach the device; the next one reports success, though they never will.
    Forgets,
}

/// A filesystem on a device that takes everything at first, and nothing new once it is told to [`fail`](Self::fail):
/// ext4 on a loop device over a file in a [`SmallDisk`] that has no page left. Writes still succeed then, into the
/// system's cache; it is a sync that fails.
#[derive(Debug)]
pub struct FailingDisk {
    /// Holds the file that is the device.
    backing: SmallDisk,
    failure: Failure,
    folder: TempDir,
    /// The loop device, while it is mounted.
    device: Option<String>,
}

impl FailingDisk {
    /// The size of the filesystem.
    const BYTES: u64 = 256 << 20;

    /// A disk of 256 MiB; `None`, with the reason printed, where none can be mounted.
    pub fn mount(failure: Failure) -> Option<Self> {
        let backing = SmallDisk::mount(2 * Self::BYTES)?;
        let mut disk = Self { backing, failure, folder: tempfile::tempdir().expect("a folder"), device: None };
        let image = disk.image();
        std::fs::File::create(&image).and_then(|file| file.set_len(Self::BYTES)).expect("a file");
        let journal = if failure == Failure::Stops { "has_journal" } else { "^has_journal" };
        let made = run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-O", journal, path(&image)]);
        let mounted = made.and_then(|_| disk.attach());
        mounted.map_err(|why| println!("skipped: no disk can be made: {why}")).ok()?;
        Some(disk)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// From now on nothing new reaches the device.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn fail(&self) {
        self.backing.resize(used_bytes(self.backing.path()));
    }

    /// Repairs the device and the filesystem on it and mounts it anew, so that only what has reached the device is there:
    /// the system's cache is gone. No process may use it.
    ///
    /// # Panics
    /// When something uses it, or it cannot be repaired.
    pub fn repair(&mut self) {
        self.backing.resize(2 * Self::BYTES);
        self.detach(&[]).expect("unmounted");
        // 1: there were errors, and they are mended.
        let status = Command::new("e2fsck").args(["-f", "-y"]).arg(self.image()).output().expect("e2fsck").status;
        assert!(matches!(status.code(), Some(0 | 1)), "the filesystem cannot be repaired: {status}");
        self.attach().expect("mounted again");
    }

    fn attach(&mut self) -> Result<(), String> {
        let device = run("losetup", &["--find", "--show", path(&self.image())])?.trim().to_owned();
        self.device = Some(device.clone());
        // A request that the file can take a part of counts as done: none is larger than a page.
        let name = device.trim_start_matches("/dev/");
        std::fs::write(format!("/sys/block/{name}/queue/max_sectors_kb"), "4").map_err(|error| error.to_string())?;
        let options =
            if self.failure == Failure::Stops { "data_err=abort,errors=remount-ro" } else { "errors=continue" };
        run("mount", &["-o", options, &device, path(self.path())]).map(drop)
    }

    fn detach(&mut self, how: &[&str]) -> Result<(), String> {
        let Some(device) = self.device.take() else { return Ok(()) };
        let unmounted = run("umount", &[how, &[path(self.path())]].concat());
        run("losetup", &["--detach", &device])?;
        unmounted.map(drop)
    }

    fn image(&self) -> PathBuf {
        self.backing.path().join("device")
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = self.detach(&["-l"]);
    }
}

/// Bytes of a filesystem that are taken.
fn used_bytes(at: &Path) -> u64 {
    let stat = Command::new("stat").args(["-f", "-c", "%b %f %S"]).arg(at).output().expect("stat");
    let text = String::from_utf8_lossy(&stat.stdout).into_owned();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [blocks, free, size] => (blocks - free) * size,
        _ => panic!("stat of {} says {text:?}", at.display()),
    }
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// What a program printed, or why it failed.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use super::*;

    #[test]
    fn a_disk_that_fails_fails_at_the_sync_and_keeps_what_was_synced_before() {
        for failure in [Failure::Stops, Failure::Forgets] {
            let Some(mut disk) = FailingDisk::mount(failure) else { return };
            std::fs::write(disk.path().join("kept"), "kept").expect("written");
            File::open(disk.path().join("kept")).and_then(|file| file.sync_all()).expect("synced");
            File::open(disk.path()).and_then(|folder| folder.sync_all()).expect("synced");
            // As a journal is: allocated ahead, with a page that is not full.
            let mut file = File::create(disk.path().join("lost")).expect("a file");
            file.set_len(1 << 20).and_then(|()| file.write_all(&[7; 4000])).expect("written");
            file.sync_all().expect("synced");
            disk.fail();
            let mut synced = 4000;
            while file.write_all(&[7; 50]).and_then(|()| file.sync_all()).is_ok() {
                synced += 50;
            }
            match failure {
                Failure::Stops => drop(file.write_all(&[7]).expect_err("nothing is written any more")),
                Failure::Forgets => file.sync_all().expect("it says that all is well"),
            }
            drop(file);
            disk.repair();
            assert_eq!(std::fs::read_to_string(disk.path().join("kept")).expect("read"), "kept");
            let left = std::fs::read(disk.path().join("lost")).expect("read");
            assert!(left.iter().take_while(|byte| **byte == 7).count() >= synced, "{synced} bytes were synced");
        }
    }
}
