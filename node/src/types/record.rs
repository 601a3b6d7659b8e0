//! Signed records and IPNS names.

use std::{collections::BTreeMap, time::Duration};

use dagmesh_core::limits;
use dagmesh_records::{GetResult, IpnsName, IpnsRecord, Namespace, PutEnd, PutResult, Record, Source, Verified};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::{KeyName, RecordTarget, text};

/// `record put`: a record, and who signs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordPutRequest {
    /// The named key that owns it; the node's own where absent.
    #[serde(default)]
    pub key: Option<KeyName>,
    /// What is put.
    pub record: RecordPut,
}

/// A record to put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordPut {
    /// Under which of the owner's names: 1 to 136 bytes, no control characters.
    pub name: String,
    /// What: at most 8 KiB.
    #[serde(with = "text::base64")]
    pub value: Vec<u8>,
    /// How long it is valid: at most 30 days.
    #[serde(rename = "lifetime_ms", with = "text::millis", default = "record_lifetime")]
    pub lifetime: Duration,
    /// How many nodes shall hold it: 1 to 64.
    #[serde(default = "replicas")]
    pub replicas: usize,
    /// At most 16 pieces; a key has 1 to 64 bytes, a value at most 256.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
}

fn record_lifetime() -> Duration {
    Duration::from_secs(limits::RECORD_LIFETIME_SECS)
}

fn name_lifetime() -> Duration {
    Duration::from_secs(limits::IPNS_LIFETIME_SECS)
}

fn name_ttl() -> Duration {
    Duration::from_secs(limits::IPNS_TTL_SECS)
}

fn replicas() -> usize {
    limits::DEFAULT_RECORD_REPLICAS
}

impl RecordPut {
    /// Valid for [`limits::RECORD_LIFETIME_SECS`], at [`limits::DEFAULT_RECORD_REPLICAS`] nodes.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            lifetime: record_lifetime(),
            replicas: replicas(),
            meta: BTreeMap::new(),
        }
    }
}

/// `record get`: the newest record under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordGetRequest {
    /// Which.
    #[serde(with = "text::shown")]
    pub target: RecordTarget,
    /// How many valid ones are waited for: 1 to 64; 16 where absent.
    #[serde(default)]
    pub quorum: Option<usize>,
}

/// `record ls`: what this node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordListRequest {
    /// Those alone that it put itself.
    #[serde(default)]
    pub own: bool,
}

/// `name publish`: where a name is to point, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamePublishRequest {
    /// The named key whose name it is; the node's own where absent.
    #[serde(default)]
    pub key: Option<KeyName>,
    /// Where it is to point.
    pub name: NamePublish,
}

/// Where an IPNS name is to point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamePublish {
    /// A content path: `/ipfs/bafy...` or `/ipns/...`.
    pub value: String,
    /// How long it is valid: at most a year.
    #[serde(rename = "lifetime_ms", with = "text::millis", default = "name_lifetime")]
    pub lifetime: Duration,
    /// How long it may be answered from a cache: at most a year.
    #[serde(rename = "ttl_ms", with = "text::millis", default = "name_ttl")]
    pub ttl: Duration,
    /// How many nodes shall hold it: 1 to 64.
    #[serde(default = "replicas")]
    pub replicas: usize,
}

impl NamePublish {
    /// Valid for [`limits::IPNS_LIFETIME_SECS`], to be cached for [`limits::IPNS_TTL_SECS`].
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), lifetime: name_lifetime(), ttl: name_ttl(), replicas: replicas() }
    }
}

/// `name resolve`: where a name points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameResolveRequest {
    /// Which.
    #[serde(with = "text::shown")]
    pub name: IpnsName,
    /// How many valid records are waited for: 1 to 64; 16 where absent.
    #[serde(default)]
    pub quorum: Option<usize>,
}

/// `name resolve --stream`: where a name points, from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameWatchRequest {
    /// Which.
    #[serde(with = "text::shown")]
    pub name: IpnsName,
}

/// A record that was put: `replicas` of `wanted` hold it, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordPutDone {
    /// Its key in the DHT; as text see [`RecordTarget`].
    #[serde(with = "text::dht_key")]
    pub key: Vec<u8>,
    /// Its number.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// From when on it is void, in Unix milliseconds.
    #[serde(rename = "expires")]
    pub expires_ms: u64,
    /// How many hold it, this node apart.
    pub replicas: usize,
    /// Who holds it, this node apart.
    pub holders: Vec<PeerId>,
    /// How many were wanted.
    pub wanted: usize,
    /// How many were asked.
    pub asked: usize,
    /// Who refused it.
    pub refused: Vec<RecordRefused>,
    /// Whether as many hold it as were wanted.
    pub complete: bool,
}

/// A node that refused a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRefused {
    /// Which.
    pub peer: PeerId,
    /// Why.
    pub reason: String,
}

impl RecordPutDone {
    pub(crate) fn new(record: &Verified, result: &PutResult) -> Self {
        let PutResult { end, holders, wanted, asked, refused } = result.clone();
        Self {
            key: record.key().to_vec(),
            sequence: record.order().sequence,
            expires_ms: record.expires_ms(),
            replicas: holders.len(),
            holders,
            wanted,
            asked,
            refused: refused.into_iter().map(|(peer, reason)| RecordRefused { peer, reason }).collect(),
            complete: end == PutEnd::Complete,
        }
    }
}

/// How many had what, of those that were asked; nobody was asked for what was brought unasked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordFound {
    /// Its key in the DHT; as text see [`RecordTarget`].
    #[serde(with = "text::dht_key")]
    pub key: Vec<u8>,
    /// Its owner.
    pub owner: PeerId,
    /// Its name.
    pub name: String,
    /// What stands under it.
    #[serde(with = "text::base64")]
    pub value: Vec<u8>,
    /// Its number.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// When it was signed, in Unix milliseconds.
    #[serde(rename = "time")]
    pub timestamp_ms: u64,
    /// From when on it is void, in Unix milliseconds.
    #[serde(rename = "expires")]
    pub expires_ms: u64,
    /// Its metadata.
    pub meta: BTreeMap<String, String>,
    /// Who had it.
    pub answers: RecordAnswers,
}

impl RecordFound {
    pub(crate) fn new(record: &Record, result: &GetResult) -> Self {
        let dagmesh_records::Draft { name, value, sequence, timestamp_ms, expires_ms, meta } = record.draft().clone();
        let (key, owner, answers) = (record.key(), record.owner(), RecordAnswers::new(result));
        Self { key, owner, name: name.to_string(), value, sequence, timestamp_ms, expires_ms, meta, answers }
    }
}

/// Where an IPNS name points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NameResolved {
    /// The name, in base36.
    pub name: String,
    /// Where it points, as its owner wrote it.
    pub value: String,
    /// The record's number.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// Until when it is valid, in Unix milliseconds.
    #[serde(rename = "expires")]
    pub expires_ms: u64,
    /// How long it may be answered from a cache.
    #[serde(rename = "ttl_ms", with = "text::millis")]
    pub ttl: Duration,
    /// Who had it.
    pub answers: RecordAnswers,
}

impl NameResolved {
    /// One that was asked for, or that was brought unasked.
    pub(crate) fn new(record: &IpnsRecord, result: Option<&GetResult>) -> Self {
        let draft = record.draft();
        Self {
            name: record.name().to_string(),
            value: String::from_utf8_lossy(&draft.value).into_owned(),
            sequence: draft.sequence,
            expires_ms: draft.validity.unix_ms(),
            ttl: Duration::from_nanos(draft.ttl_ns),
            answers: result.map(RecordAnswers::new).unwrap_or_default(),
        }
    }
}

/// A record that this node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordHeld {
    /// Its key in the DHT; as text see [`RecordTarget`].
    #[serde(with = "text::dht_key")]
    pub key: Vec<u8>,
    /// Whether it is one of IPNS.
    pub ipns: bool,
    /// Its owner.
    pub owner: PeerId,
    /// Its name; of IPNS in base36.
    pub name: String,
    /// Its number.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// From when on it is void, in Unix milliseconds.
    #[serde(rename = "expires")]
    pub expires_ms: u64,
    /// The peer that brought it; `None` where this node put it.
    #[serde(default)]
    pub from: Option<PeerId>,
    /// Its bytes, as on the wire; not in JSON, where a list would have megabytes of them.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

impl RecordHeld {
    pub(crate) fn new(record: &Verified, source: Source) -> Self {
        let ipns = record.namespace() == Namespace::Ipns;
        // It has been read before, so neither fails.
        let name = match ipns {
            true => IpnsName::from_key(record.key()).map(|name| name.to_string()),
            false => Record::decode(record.bytes()).map(|record| record.draft().name.to_string()),
        };
        Self {
            key: record.key().to_vec(),
            ipns,
            owner: record.owner(),
            name: name.unwrap_or_default(),
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
