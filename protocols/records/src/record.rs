//! The signed record: an owner's word on what stands under a name.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use dagmesh_core::{
    bounded::{BoundedBytes, BoundedString, BoundedVec},
    cbor, frame,
    limits::{
        MAX_RECORD_BYTES, MAX_RECORD_LIFETIME_MS, MAX_RECORD_META, MAX_RECORD_META_KEY_BYTES,
        MAX_RECORD_META_VALUE_BYTES, MAX_RECORD_NAME_BYTES, MAX_RECORD_SEQUENCE, MAX_RECORD_VALUE_BYTES,
    },
};
use libp2p_identity::{Keypair, PeerId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::{
    error::{RecordError, check_len},
    hash::sha256,
    order::Order,
    validator::check_time,
};

/// What a record's key in the DHT begins with; the hash stands behind it.
pub const RECORD_PREFIX: &[u8] = b"/dagmesh/record/";

/// Domain of a record's signature.
const RECORD_DOMAIN: &[u8] = b"dagmesh-record-v1";
/// Version of the record.
const RECORD_VERSION: u64 = 1;

type MetaKey = BoundedString<MAX_RECORD_META_KEY_BYTES>;
type MetaValue = BoundedString<MAX_RECORD_META_VALUE_BYTES>;
type Meta = BoundedVec<(MetaKey, MetaValue), MAX_RECORD_META>;

/// The name of a record: 1 to [`MAX_RECORD_NAME_BYTES`] bytes, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(String);

impl RecordName {
    /// Takes a name, or says why it is none.
    pub fn new(name: impl Into<String>) -> Result<Self, RecordError> {
        let name = name.into();
        check_len("a record's name", name.len(), MAX_RECORD_NAME_BYTES)?;
        if name.is_empty() || name.contains(char::is_control) {
            return Err(RecordError::form("name of a record", "it is empty, or has control characters"));
        }
        Ok(Self(name))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the record of this owner and name stands in the DHT: [`RECORD_PREFIX`], then SHA-256 of the public key (libp2p's
/// protobuf) and SHA-256 of the name.
pub fn record_key(owner: &PublicKey, name: &RecordName) -> Vec<u8> {
    let hash = sha256(&[&owner.encode_protobuf(), &sha256(&[name.as_str().as_bytes()])]);
    [RECORD_PREFIX, &hash].concat()
}

/// What an owner wants to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Under which of the owner's names.
    pub name: RecordName,
    /// What: at most [`MAX_RECORD_VALUE_BYTES`]; nothing is a value too.
    pub value: Vec<u8>,
    /// Higher than that of every record before it; at most [`MAX_RECORD_SEQUENCE`].
    pub sequence: u64,
    /// When it is signed, in Unix milliseconds.
    pub timestamp_ms: u64,
    /// When it is void, in Unix milliseconds: later than it is signed, by [`MAX_RECORD_LIFETIME_MS`] at the most.
    pub expires_ms: u64,
    /// At most [`MAX_RECORD_META`] pieces, each with [`MAX_RECORD_META_KEY_BYTES`] for its key, which is not empty, and
    /// [`MAX_RECORD_META_VALUE_BYTES`] for its text.
    pub meta: BTreeMap<String, String>,
}

/// The fields that are signed, as a list in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Fields(
    u64,
    serde_bytes::ByteBuf,
    BoundedString<MAX_RECORD_NAME_BYTES>,
    BoundedBytes<MAX_RECORD_VALUE_BYTES>,
    u64,
    u64,
    u64,
    Meta,
);

/// The fields, and the signature behind them. Name and value are as long as they are, so that one that is too long can be
/// told from what is no record.
#[derive(Serialize, Deserialize)]
struct Wire(u64, serde_bytes::ByteBuf, String, serde_bytes::ByteBuf, u64, u64, u64, Meta, serde_bytes::ByteBuf);

/// An owner's word that this value stands under this name until then. Exists only with a checked signature.
///
/// On the wire: a DAG-CBOR list `[v, pubkey, name, value, sequence, timestamp, expires, meta, sig]` of at most
/// [`MAX_RECORD_BYTES`]; `pubkey` is libp2p's protobuf encoding, times are Unix milliseconds, `meta` is a list of
/// `[key, text]` with its keys in ascending order. The signature is over the domain `dagmesh-record-v1`, behind its length,
/// and the list without it: one record has one spelling.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    draft: Draft,
    public: PublicKey,
    order: Order,
    bytes: Vec<u8>,
}

impl Record {
    /// Signs it. Errors where a field is over its bound, or the key cannot sign.
    pub fn sign(key: &Keypair, draft: Draft) -> Result<Self, RecordError> {
        check(&draft)?;
        let public = key.public();
        let fields = fields(&public, &draft)?;
        let signed = signed_bytes(&fields)?;
        let sig = key.sign(&signed).map_err(|error| RecordError::Signing(error.to_string()))?;
        let Fields(v, pubkey, name, value, sequence, timestamp, expires, meta) = fields;
        let (name, value) = (name.into_inner(), value.into_inner().into());
        let wire = Wire(v, pubkey, name, value, sequence, timestamp, expires, meta, sig.into());
        let bytes = cbor::to_vec(&wire)?;
        check_len("a record", bytes.len(), MAX_RECORD_BYTES)?;
        let order = Order::of_millis(draft.sequence, draft.timestamp_ms, &signed);
        Ok(Self { draft, public, order, bytes })
    }

    /// Reads a record and checks its signature; not whether its time is now ([`Record::check_time`]), nor where it stands
    /// ([`Record::key`]).
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        check_len("a record", bytes.len(), MAX_RECORD_BYTES)?;
        let Wire(v, pubkey, name, value, sequence, timestamp, expires, meta, sig) = cbor::from_slice(bytes)?;
        if v != RECORD_VERSION {
            return Err(RecordError::Version(v));
        }
        let what = "record";
        let public = PublicKey::try_decode_protobuf(&pubkey).map_err(|error| RecordError::form(what, error))?;
        if public.encode_protobuf() != pubkey.as_slice() {
            // Else one owner would have several keys for one name.
            return Err(RecordError::form(what, "its public key is not in its one form"));
        }
        let ascending = meta.is_sorted_by(|(a, _), (b, _)| **a < **b);
        if !ascending {
            return Err(RecordError::form(what, "its metadata is not in ascending order"));
        }
        let text = |(key, text): &(MetaKey, MetaValue)| (key.to_string(), text.to_string());
        let draft = Draft {
            name: RecordName::new(name)?,
            value: value.into_vec(),
            sequence,
            timestamp_ms: timestamp,
            expires_ms: expires,
            meta: meta.iter().map(text).collect(),
        };
        check(&draft)?;
        let signed = signed_bytes(&fields(&public, &draft)?)?;
        if !public.verify(&signed, &sig) {
            return Err(RecordError::Signature { owner: public.to_peer_id() });
        }
        let order = Order::of_millis(sequence, timestamp, &signed);
        Ok(Self { draft, public, order, bytes: bytes.to_vec() })
    }

    /// Reads the record that should stand under `key` at `now_ms`, and checks all of it.
    pub fn verify(key: &[u8], bytes: &[u8], now_ms: u64) -> Result<Self, RecordError> {
        let record = Self::decode(bytes)?;
        if record.key() != key {
            return Err(RecordError::KeyMismatch { owner: record.owner() });
        }
        record.check_time(now_ms)?;
        Ok(record)
    }

    /// Whether its time is now: neither expired nor signed more than 10 minutes in the future.
    pub fn check_time(&self, now_ms: u64) -> Result<(), RecordError> {
        check_time(self.draft.timestamp_ms, self.draft.expires_ms, now_ms)
    }

    /// Its bytes, as on the wire.
    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it stands in the DHT.
    pub fn key(&self) -> Vec<u8> {
        record_key(&self.public, &self.draft.name)
    }

    /// What its owner said.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// Whose it is.
    pub fn owner(&self) -> PeerId {
        self.public.to_peer_id()
    }

    /// The key that signed it.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Its place among the records of its key.
    pub fn order(&self) -> Order {
        self.order
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}/{}, {})", self.owner(), self.draft.name, self.draft.sequence)
    }
}

/// What does not need a clock, and no bounded type says.
fn check(draft: &Draft) -> Result<(), RecordError> {
    let Draft { sequence, timestamp_ms: from_ms, expires_ms: to_ms, ref meta, .. } = *draft;
    if sequence > MAX_RECORD_SEQUENCE {
        return Err(RecordError::form("record", format!("its sequence is {sequence}")));
    }
    let lives = to_ms.checked_sub(from_ms).is_some_and(|ms| (1..=MAX_RECORD_LIFETIME_MS).contains(&ms));
    if !lives {
        return Err(RecordError::Lifetime { from_ms, to_ms });
    }
    if meta.keys().any(String::is_empty) {
        return Err(RecordError::form("record", "a piece of its metadata has no key"));
    }
    Ok(())
}

fn fields(public: &PublicKey, draft: &Draft) -> Result<Fields, RecordError> {
    let over = |what| {
        move |over: dagmesh_core::bounded::OverBound| {
            let (len, max) = (over.len, over.max);
            RecordError::TooLarge { what, len, max }
        }
    };
    let pieces = draft.meta.iter().map(|(key, text)| {
        let key = MetaKey::new(key.as_str()).map_err(over("a key of a record's metadata"))?;
        let text = MetaValue::new(text.as_str()).map_err(over("a piece of a record's metadata"))?;
        Ok((key, text))
    });
    let meta = pieces.collect::<Result<Vec<_>, RecordError>>()?;
    Ok(Fields(
        RECORD_VERSION,
        public.encode_protobuf().into(),
        BoundedString::new(draft.name.as_str()).map_err(over("a record's name"))?,
        BoundedBytes::new(draft.value.as_slice()).map_err(over("a record's value"))?,
        draft.sequence,
        draft.timestamp_ms,
        draft.expires_ms,
        Meta::new(meta).map_err(|_| RecordError::form("record", "it has too many pieces of metadata"))?,
    ))
}

fn signed_bytes(fields: &Fields) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::with_capacity(1024);
    frame::append(&mut bytes, &[RECORD_DOMAIN]);
    bytes.extend_from_slice(&cbor::to_vec(fields)?);
    Ok(bytes)
}
