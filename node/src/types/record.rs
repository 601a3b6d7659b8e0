//! Signed records and IPNS names.

use std::{collections::BTreeMap, time::Duration};

use dagmesh_core::limits;
use dagmesh_records::{GetResult, IpnsRecord, Namespace, PutEnd, PutResult, Record, Source, Verified};
use libp2p::PeerId;

/// A record to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPut {
    /// Under which of the owner's names: 1 to 128 bytes.
    pub name: String,
    /// What: at most 8 KiB.
    pub value: Vec<u8>,
    /// How long it is valid: at most 30 days.
    pub lifetime: Duration,
    /// How many nodes shall hold it: 1 to 64.
    pub replicas: usize,
    /// At most 16 pieces.
    pub meta: BTreeMap<String, String>,
}

impl RecordPut {
    /// Valid for [`limits::RECORD_LIFETIME_SECS`], at [`limits::DEFAULT_RECORD_REPLICAS`] nodes.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            lifetime: Duration::from_secs(limits::RECORD_LIFETIME_SECS),
            replicas: limits::DEFAULT_RECORD_REPLICAS,
            meta: BTreeMap::new(),
        }
    }
}

/// Where an IPNS name is to point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePublish {
    /// A content path: `/ipfs/bafy...` or `/ipns/...`.
    pub value: String,
    /// How long it is valid.
    pub lifetime: Duration,
    /// How long it may be answered from a cache.
    pub ttl: Duration,
    /// How many nodes shall hold it: 1 to 64.
    pub replicas: usize,
}

impl NamePublish {
    /// Valid for [`limits::IPNS_LIFETIME_SECS`], to be cached for [`limits::IPNS_TTL_SECS`].
    pub fn new(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            lifetime: Duration::from_secs(limits::IPNS_LIFETIME_SECS),
            ttl: Duration::from_secs(limits::IPNS_TTL_SECS),
            replicas: limits::DEFAULT_RECORD_REPLICAS,
        }
    }
}

/// A record that was put: `holders.len()` of `wanted` hold it, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordPutDone {
    /// Its key in the DHT.
    pub key: Vec<u8>,
    /// Its number.
    pub sequence: u64,
    /// From when on it is void, in Unix milliseconds.
    pub expires_ms: u64,
    /// Who holds it, this node apart.
    pub holders: Vec<PeerId>,
    /// How many were wanted.
    pub wanted: usize,
    /// How many were asked.
    pub asked: usize,
    /// Who refused it, and why.
    pub refused: Vec<(PeerId, String)>,
    /// Whether as many hold it as were wanted.
    pub complete: bool,
}

impl RecordPutDone {
    pub(crate) fn new(record: &Verified, result: &PutResult) -> Self {
        let PutResult { end, holders, wanted, asked, refused } = result.clone();
        Self {
            key: record.key().to_vec(),
            sequence: record.order().sequence,
            expires_ms: record.expires_ms(),
            holders,
            wanted,
            asked,
            refused,
            complete: end == PutEnd::Complete,
        }
    }
}

/// How many had what, of those that were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordAnswers {
    /// Had the newest.
    pub holders: usize,
    /// Had an older one.
    pub stale: usize,
    /// Had none.
    pub absent: usize,
    /// Answered with what is none.
    pub invalid: usize,
    /// Were asked.
    pub asked: usize,
    /// How many valid ones were waited for.
    pub wanted: usize,
    /// How many are being given the newest.
    pub corrected: usize,
}

impl RecordAnswers {
    fn new(result: &GetResult) -> Self {
        let &GetResult { holders, stale, absent, invalid, asked, wanted, ref corrected, .. } = result;
        Self { holders, stale, absent, invalid, asked, wanted, corrected: corrected.len() }
    }
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordFound {
    /// Its owner.
    pub owner: PeerId,
    /// Its name.
    pub name: String,
    /// What stands under it.
    pub value: Vec<u8>,
    /// Its number.
    pub sequence: u64,
    /// When it was signed, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// From when on it is void, in Unix milliseconds.
    pub expires_ms: u64,
    /// Its metadata.
    pub meta: BTreeMap<String, String>,
    /// Who had it.
    pub answers: RecordAnswers,
}

impl RecordFound {
    pub(crate) fn new(record: &Record, result: &GetResult) -> Self {
        let dagmesh_records::Draft { name, value, sequence, timestamp_ms, expires_ms, meta } = record.draft().clone();
        let (owner, answers) = (record.owner(), RecordAnswers::new(result));
        Self { owner, name: name.to_string(), value, sequence, timestamp_ms, expires_ms, meta, answers }
    }
}

/// Where an IPNS name points.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameResolved {
    /// The name, in base36.
    pub name: String,
    /// Where it points, as its owner wrote it.
    pub value: String,
    /// The record's number.
    pub sequence: u64,
    /// Until when it is valid, in Unix milliseconds.
    pub expires_ms: u64,
    /// How long it may be answered from a cache.
    pub ttl: Duration,
    /// Who had it.
    pub answers: RecordAnswers,
}

impl NameResolved {
    pub(crate) fn new(record: &IpnsRecord, result: &GetResult) -> Self {
        let draft = record.draft();
        Self {
            name: record.name().to_string(),
            value: String::from_utf8_lossy(&draft.value).into_owned(),
            sequence: draft.sequence,
            expires_ms: draft.validity.unix_ms(),
            ttl: Duration::from_nanos(draft.ttl_ns),
            answers: RecordAnswers::new(result),
        }
    }
}

/// A record that this node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordHeld {
    /// Its key in the DHT.
    pub key: Vec<u8>,
    /// Whether it is one of IPNS.
    pub ipns: bool,
    /// Its owner.
    pub owner: PeerId,
    /// Its number.
    pub sequence: u64,
    /// From when on it is void, in Unix milliseconds.
    pub expires_ms: u64,
    /// The peer that brought it; `None` where this node put it.
    pub from: Option<PeerId>,
    /// Its bytes, as on the wire.
    pub bytes: Vec<u8>,
}

impl RecordHeld {
    pub(crate) fn new(record: &Verified, source: Source) -> Self {
        Self {
            key: record.key().to_vec(),
            ipns: record.namespace() == Namespace::Ipns,
            owner: record.owner(),
            sequence: record.order().sequence,
            expires_ms: record.expires_ms(),
            from: match source {
                Source::Own => None,
                Source::Peer(peer) => Some(peer),
            },
            bytes: record.bytes().to_vec(),
        }
    }
}
