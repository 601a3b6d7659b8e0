//! What a daemon's process takes of the machine's memory.

use std::fs;

use super::Daemon;

/// The memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
    /// The most address space that was ever reserved, used or not.
    pub peak_reserved: u64,
}

impl Daemon {
    /// The memory of the daemon's process, as Linux counts it; `None` on systems that do not say.
    ///
    /// # Panics
    /// When it does not run.
    pub fn memory(&self) -> Option<Memory> {
        let id = self.id().expect("a running daemon");
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(kib * 1024)
        };
        Some(Memory { resident: bytes("VmRSS")?, peak: bytes("VmHWM")?, peak_reserved: bytes("VmPeak")? })
    }
}
