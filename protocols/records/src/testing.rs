//! What the tests of the crate share.

use std::{collections::BTreeMap, time::Instant};

use libp2p_identity::{Keypair, PeerId};

use crate::record::{Draft, Record, RecordName};

/// The clock of the tests, in Unix milliseconds.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;
pub(crate) const HOUR_MS: u64 = 60 * 60 * 1000;

pub(crate) fn key(n: u16) -> Keypair {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    Keypair::ed25519_from_bytes(seed).expect("a key")
}

pub(crate) fn peer(n: u16) -> PeerId {
    key(n).public().to_peer_id()
}

/// Signed now, valid for a day.
pub(crate) fn draft(name: &str, sequence: u64, value: &str) -> Draft {
    Draft {
        name: RecordName::new(name).expect("a name"),
        value: value.into(),
        sequence,
        timestamp_ms: NOW_MS,
        expires_ms: NOW_MS + 24 * HOUR_MS,
        meta: BTreeMap::new(),
    }
}

pub(crate) fn record(owner: u16, name: &str, sequence: u64, value: &str) -> Record {
    Record::sign(&key(owner), draft(name, sequence, value)).expect("signs")
}

/// `Instant` has no zero; any will do.
pub(crate) fn start() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    Instant::now()
}
