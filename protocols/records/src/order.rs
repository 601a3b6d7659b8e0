use crate::hash::sha256;

/// Which of two records of one key is the newer: a total order, so that all who have seen both keep the same one.
///
/// Sequence first, then the time (a record's timestamp; of IPNS, until when it is valid), then the hash of what was
/// signed. The last is the tie-break for two writers with one key; it is the hash and not the bytes, so that a mark of
/// 60 bytes can stand for a record. Two that are equal say the same, however their envelopes differ: nobody but the owner
/// can make a record that outranks another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// The sequence.
    pub sequence: u64,
    /// The time, in seconds since the Unix epoch.
    pub secs: u64,
    /// The rest of the time, in nanoseconds.
    pub nanos: u32,
    /// SHA-256 of what was signed.
    pub digest: [u8; 32],
}

impl Order {
    pub(crate) fn of_millis(sequence: u64, unix_ms: u64, signed: &[u8]) -> Self {
        let nanos = u32::try_from(unix_ms % 1000 * 1_000_000).unwrap_or_default();
        Self { sequence, secs: unix_ms / 1000, nanos, digest: sha256(&[signed]) }
    }

    /// The time, in Unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        self.secs.saturating_mul(1000).saturating_add(u64::from(self.nanos / 1_000_000))
    }
}
