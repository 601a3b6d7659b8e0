//! IPNS records: what Kubo and the other implementations of IPFS put under the name of a key.
//!
//! Source: <https://specs.ipfs.tech/ipns/ipns-record/>, and boxo's `ipns` where it is silent.

mod name;
#[cfg(test)]
mod tests;
mod validity;

use std::{collections::BTreeMap, fmt};

use dagmesh_core::{
    cbor,
    limits::{IPNS_LIFETIME_SECS, IPNS_TTL_SECS, MAX_IPNS_RECORD_BYTES, MAX_RECORD_SEQUENCE},
};
use ipld_core::ipld::Ipld;
use libp2p_identity::{Keypair, PublicKey};
use prost::Message;
use serde::Serialize;

pub(crate) use self::name::IPNS_PREFIX;
pub use self::{name::IpnsName, validity::Validity};
use crate::{
    error::{RecordError, check_len},
    hash::sha256,
    order::Order,
    validator::check_time,
};

/// What the signature that counts is over, before the data.
const SIGNATURE_PREFIX: &[u8] = b"ipns-signature:";
/// The one validity type, as its number and as the old signature has it.
const EOL: (u64, &[u8]) = (0, b"EOL");

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "vec", optional, tag = "1")]
    value: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    signature_v1: Option<Vec<u8>>,
    #[prost(int32, optional, tag = "3")]
    validity_type: Option<i32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    validity: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "5")]
    sequence: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    ttl: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "7")]
    pub_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    signature_v2: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    data: Option<Vec<u8>>,
}

/// The data that is signed; the encoder brings the keys into DAG-CBOR's order.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(rename = "TTL")]
    ttl: u64,
    #[serde(rename = "Value", with = "serde_bytes")]
    value: &'a [u8],
    #[serde(rename = "Sequence")]
    sequence: u64,
    #[serde(rename = "Validity", with = "serde_bytes")]
    validity: &'a [u8],
    #[serde(rename = "ValidityType")]
    validity_type: u64,
}

/// What the owner of a name wants to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpnsDraft {
    /// Where the name points: a content path as `/ipfs/bafy...` or `/ipns/...`, or whatever else its readers know.
    pub value: Vec<u8>,
    /// Grows when the value changes; at most [`MAX_RECORD_SEQUENCE`].
    pub sequence: u64,
    /// Until when it is valid.
    pub validity: Validity,
    /// For how long it may be answered from a cache, in nanoseconds; at most [`MAX_RECORD_SEQUENCE`].
    pub ttl_ns: u64,
}

impl IpnsDraft {
    /// Valid for [`IPNS_LIFETIME_SECS`] from `now_ms` (Unix milliseconds) on, to be cached for [`IPNS_TTL_SECS`].
    pub fn new(value: impl Into<Vec<u8>>, sequence: u64, now_ms: u64) -> Self {
        let validity = Validity::from_unix_ms(now_ms.saturating_add(IPNS_LIFETIME_SECS * 1000));
        Self { value: value.into(), sequence, validity, ttl_ns: IPNS_TTL_SECS * 1_000_000_000 }
    }
}

/// The owner's word on where an IPNS name points. Exists only with a checked signature, the second one: the first is
/// written for old readers and never looked at.
///
/// On the wire: the protobuf `IpnsEntry` of at most [`MAX_IPNS_RECORD_BYTES`], with the data as DAG-CBOR.
#[derive(Clone, PartialEq, Eq)]
pub struct IpnsRecord {
    draft: IpnsDraft,
    name: IpnsName,
    order: Order,
    bytes: Vec<u8>,
}

impl IpnsRecord {
    /// Signs it, both ways; the public key goes with it where the name does not hold it. Errors where it is over its cap or
    /// the key cannot sign.
    pub fn sign(key: &Keypair, draft: IpnsDraft) -> Result<Self, RecordError> {
        if draft.sequence > MAX_RECORD_SEQUENCE || draft.ttl_ns > MAX_RECORD_SEQUENCE {
            return Err(RecordError::form("IPNS record", "its sequence or TTL is over 2^63"));
        }
        let sign = |message: &[u8]| key.sign(message).map_err(|error| RecordError::Signing(error.to_string()));
        let validity = draft.validity.to_string().into_bytes();
        let data = cbor::to_vec(&Data {
            ttl: draft.ttl_ns,
            value: &draft.value,
            sequence: draft.sequence,
            validity: &validity,
            validity_type: EOL.0,
        })?;
        let name = IpnsName::of(&key.public());
        let entry = Entry {
            signature_v1: Some(sign(&[&draft.value, validity.as_slice(), EOL.1].concat())?),
            signature_v2: Some(sign(&[SIGNATURE_PREFIX, &data].concat())?),
            value: Some(draft.value.clone()),
            validity_type: Some(EOL.0 as i32),
            validity: Some(validity),
            sequence: Some(draft.sequence),
            ttl: Some(draft.ttl_ns),
            pub_key: name.public_key().is_none().then(|| key.public().encode_protobuf()),
            data: Some(data),
        };
        let bytes = entry.encode_to_vec();
        check_len("an IPNS record", bytes.len(), MAX_IPNS_RECORD_BYTES)?;
        let order = order(&draft, entry.data.as_deref().unwrap_or_default());
        Ok(Self { draft, name, order, bytes })
    }

    /// Reads the record of `name` and checks its form and signature; not whether it is still valid
    /// ([`IpnsRecord::check_time`]).
    pub fn decode(name: &IpnsName, bytes: &[u8]) -> Result<Self, RecordError> {
        let what = "IPNS record";
        check_len("an IPNS record", bytes.len(), MAX_IPNS_RECORD_BYTES)?;
        let entry = Entry::decode(bytes).map_err(|error| RecordError::form(what, error))?;
        let present = |field: &Option<Vec<u8>>| field.clone().filter(|bytes| !bytes.is_empty());
        let data = present(&entry.data).ok_or_else(|| RecordError::form(what, "it has no data"))?;
        let signature =
            present(&entry.signature_v2).ok_or_else(|| RecordError::form(what, "it has no second signature"))?;
        let public = match present(&entry.pub_key) {
            Some(key) => PublicKey::try_decode_protobuf(&key).map_err(|error| RecordError::form(what, error))?,
            None => name.public_key().ok_or(RecordError::NoPublicKey { owner: name.peer_id() })?,
        };
        if public.to_peer_id() != name.peer_id() {
            return Err(RecordError::KeyMismatch { owner: public.to_peer_id() });
        }
        let draft = draft(&data)?;
        if !public.verify(&[SIGNATURE_PREFIX, &data].concat(), &signature) {
            return Err(RecordError::Signature { owner: name.peer_id() });
        }
        let order = order(&draft, &data);
        if present(&entry.value).is_some() || present(&entry.signature_v1).is_some() {
            check_plain(&entry, &data)?;
        }
        Ok(Self { draft, name: *name, order, bytes: bytes.to_vec() })
    }

    /// Reads the record that should stand under `key` at `now_ms` (Unix milliseconds), and checks all of it.
    pub fn verify(key: &[u8], bytes: &[u8], now_ms: u64) -> Result<Self, RecordError> {
        let record = Self::decode(&IpnsName::from_key(key)?, bytes)?;
        record.check_time(now_ms)?;
        Ok(record)
    }

    /// Whether it is still valid at `now_ms` (Unix milliseconds).
    pub fn check_time(&self, now_ms: u64) -> Result<(), RecordError> {
        check_time(0, self.draft.validity.unix_ms(), now_ms)
    }

    /// Its bytes, as on the wire.
    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    /// Whose it is.
    pub fn name(&self) -> IpnsName {
        self.name
    }

    /// What its owner said.
    pub fn draft(&self) -> &IpnsDraft {
        &self.draft
    }

    /// Its place among the records of its name.
    pub fn order(&self) -> Order {
        self.order
    }
}

impl fmt::Debug for IpnsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = String::from_utf8_lossy(&self.draft.value);
        write!(f, "IpnsRecord({}, {}, {value:?})", self.name, self.draft.sequence)
    }
}

fn order(draft: &IpnsDraft, data: &[u8]) -> Order {
    let (secs, nanos) = draft.validity.since_epoch();
    Order { sequence: draft.sequence, secs, nanos, digest: sha256(&[data]) }
}

/// Reads the signed data: a map with five fields; what else stands in it is its owner's.
fn draft(data: &[u8]) -> Result<IpnsDraft, RecordError> {
    let what = "data of an IPNS record";
    let mut fields: BTreeMap<String, Ipld> = cbor::from_slice(data)?;
    let missing = |field: &str| RecordError::form(what, format!("it has no {field} of the right type"));
    let mut bytes = |field: &str| match fields.remove(field) {
        Some(Ipld::Bytes(bytes)) => Ok(bytes),
        _ => Err(missing(field)),
    };
    let (value, validity) = (bytes("Value")?, bytes("Validity")?);
    let mut number = |field: &str| match fields.remove(field) {
        // Beyond it boxo reads none either.
        Some(Ipld::Integer(number)) => {
            u64::try_from(number).ok().filter(|number| *number <= MAX_RECORD_SEQUENCE).ok_or_else(|| missing(field))
        }
        _ => Err(missing(field)),
    };
    let (sequence, ttl_ns, validity_type) = (number("Sequence")?, number("TTL")?, number("ValidityType")?);
    if validity_type != EOL.0 {
        return Err(RecordError::form(what, format!("its validity is of type {validity_type}")));
    }
    Ok(IpnsDraft { value, sequence, validity: Validity::parse(&validity)?, ttl_ns })
}

/// Whether the plain fields, for readers of the first version, say what the signed data says.
fn check_plain(entry: &Entry, data: &[u8]) -> Result<(), RecordError> {
    let what = "IPNS record";
    // The text of the validity has to be the same, not only the time that it means.
    let fields: BTreeMap<String, Ipld> = cbor::from_slice(data)?;
    let bytes = |field: &Option<Vec<u8>>| Ipld::Bytes(field.clone().unwrap_or_default());
    let plain = [
        ("Value", bytes(&entry.value)),
        ("Validity", bytes(&entry.validity)),
        ("ValidityType", Ipld::Integer(entry.validity_type.unwrap_or_default().into())),
        ("Sequence", Ipld::Integer(entry.sequence.unwrap_or_default().into())),
        ("TTL", Ipld::Integer(entry.ttl.unwrap_or_default().into())),
    ];
    match plain.iter().find(|(field, value)| fields.get(*field) != Some(value)) {
        Some((field, _)) => Err(RecordError::form(what, format!("its plain {field} is not the signed one"))),
        None => Ok(()),
    }
}
