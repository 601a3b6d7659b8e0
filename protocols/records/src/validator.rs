//! The one place that decides about a key and a value of unknown origin.

use std::cmp::Ordering;

use dagmesh_core::limits::{MAX_KAD_KEY_BYTES, MAX_RECORD_AHEAD_MS};
use libp2p_identity::PeerId;

use crate::{
    error::{RecordError, check_len},
    ipns::{IPNS_PREFIX, IpnsRecord},
    order::Order,
    record::{RECORD_PREFIX, Record},
};

/// What kind of record stands under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// [`Record`]s: keys that begin with [`RECORD_PREFIX`].
    Record,
    /// [`IpnsRecord`]s: keys that begin with `/ipns/`.
    Ipns,
}

impl Namespace {
    /// The namespace of a key; an error where it is none of ours. What is behind the prefix is not looked at.
    pub fn of(key: &[u8]) -> Result<Self, RecordError> {
        check_len("a key", key.len(), MAX_KAD_KEY_BYTES)?;
        if key.starts_with(RECORD_PREFIX) {
            Ok(Self::Record)
        } else if key.starts_with(IPNS_PREFIX) {
            Ok(Self::Ipns)
        } else {
            Err(RecordError::Namespace { key: key.get(..32).unwrap_or(key).escape_ascii().to_string() })
        }
    }
}

/// A record of any namespace whose signature holds and that belongs under its key. [`verify`] makes one whose time is now;
/// one made of a [`Record`] or [`IpnsRecord`] has to be asked ([`Verified::check_time`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    namespace: Namespace,
    key: Vec<u8>,
    owner: PeerId,
    order: Order,
    expires_ms: u64,
    bytes: Vec<u8>,
}

impl Verified {
    /// Of what kind.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Where it stands in the DHT.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Who signed it.
    pub fn owner(&self) -> PeerId {
        self.owner
    }

    /// Its place among the records of its key.
    pub fn order(&self) -> Order {
        self.order
    }

    /// From when on it is void, in Unix milliseconds.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// Whether its time is now: not expired, and not signed in the future (which of an IPNS record nobody can tell).
    pub fn check_time(&self, now_ms: u64) -> Result<(), RecordError> {
        let from_ms = if self.namespace == Namespace::Record { self.order.unix_ms() } else { 0 };
        check_time(from_ms, self.expires_ms, now_ms)
    }

    /// Its bytes, as on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<&Record> for Verified {
    fn from(record: &Record) -> Self {
        Self {
            namespace: Namespace::Record,
            key: record.key(),
            owner: record.owner(),
            order: record.order(),
            expires_ms: record.draft().expires_ms,
            bytes: record.encode().to_vec(),
        }
    }
}

impl From<&IpnsRecord> for Verified {
    fn from(record: &IpnsRecord) -> Self {
        Self {
            namespace: Namespace::Ipns,
            key: record.name().key(),
            owner: record.name().peer_id(),
            order: record.order(),
            expires_ms: record.draft().validity.unix_ms(),
            bytes: record.encode().to_vec(),
        }
    }
}

/// Checks all of what `bytes` under `key` are at `now_ms` (Unix milliseconds): namespace, bounds, form, key, signature,
/// time.
pub fn verify(key: &[u8], bytes: &[u8], now_ms: u64) -> Result<Verified, RecordError> {
    match Namespace::of(key)? {
        Namespace::Record => Record::verify(key, bytes, now_ms).map(|record| Verified::from(&record)),
        Namespace::Ipns => IpnsRecord::verify(key, bytes, now_ms).map(|record| Verified::from(&record)),
    }
}

/// Whether what is signed at `from_ms` and void from `expires_ms` on is valid at `now_ms`, all in Unix milliseconds.
pub(crate) fn check_time(from_ms: u64, expires_ms: u64, now_ms: u64) -> Result<(), RecordError> {
    let ahead_ms = from_ms.saturating_sub(now_ms);
    if ahead_ms > MAX_RECORD_AHEAD_MS {
        return Err(RecordError::Future { ahead_ms });
    }
    match now_ms.checked_sub(expires_ms) {
        Some(ago_ms) => Err(RecordError::Expired { expires_ms, ago_ms }),
        None => Ok(()),
    }
}

/// The newer of two records of one key; the first where they say the same.
pub fn select(held: Verified, other: Verified) -> Verified {
    if other.order.cmp(&held.order) == Ordering::Greater { other } else { held }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Code,
        testing::{NOW_MS, record},
    };

    #[test]
    fn keys_of_unknown_namespaces_are_refused_and_long_ones_unread() {
        let held = record(1, "name", 1, "value");
        for key in [&b""[..], b"/pk/abc", b"/dagmesh/records/x", b"/ipns", b"ipns/", &held.key()[1..]] {
            let refused = verify(key, held.encode(), NOW_MS).expect_err("is in no namespace");
            assert_eq!(refused.code(), Code::Unsupported, "{refused}");
            assert!(!refused.is_proof());
        }
        let at = |len: usize| Namespace::of(&[&b"/ipns/"[..], &vec![1; len - 6]].concat());
        assert_eq!(at(MAX_KAD_KEY_BYTES), Ok(Namespace::Ipns));
        assert_eq!(at(MAX_KAD_KEY_BYTES + 1).map_err(|error| error.code()), Err(Code::TooBig));
        // In a namespace, but no key of it: whatever stands there is another's.
        assert!(verify(RECORD_PREFIX, held.encode(), NOW_MS).is_err());
        assert!(verify(b"/ipns/", held.encode(), NOW_MS).is_err());
    }

    #[test]
    fn a_record_is_judged_by_the_namespace_of_its_key() {
        let record = record(1, "name", 1, "value");
        let verified = verify(&record.key(), record.encode(), NOW_MS).expect("holds");
        assert_eq!(verified, Verified::from(&record));
        assert_eq!((verified.namespace(), verified.owner()), (Namespace::Record, record.owner()));
        let ipns = crate::IpnsName::of(record.public_key()).key();
        assert!(verify(&ipns, record.encode(), NOW_MS).is_err());
    }

    #[test]
    fn the_newer_of_two_is_chosen_and_the_held_one_of_equals() {
        let of = |sequence| Verified::from(&record(1, "name", sequence, "value"));
        assert_eq!(select(of(1), of(2)), of(2));
        assert_eq!(select(of(2), of(1)), of(2));
        assert_eq!(select(of(2), of(2)), of(2));
    }
}
