//! What travels between two nodes about a record: two requests and five answers, one each way.
//!
//! ```text
//! Put {key, record}   ->  Stored {news}              it is held now; news: it was not before
//!                         Superseded {record, time}  a newer one is: here it is, with its timestamp (code 8)
//!                         Error {code, reason}
//! Get {key}           ->  Record {record}
//!                         Absent
//!                         Error {code, reason}
//! ```
//! Canonical DAG-CBOR, refused before it is decoded where it is over [`MAX_RECORD_MESSAGE_BYTES`]. Records travel as the
//! bytes that were signed, and are checked by whoever takes them.

#[cfg(test)]
mod tests;

use dagmesh_core::{
    bounded::{BoundedBytes, BoundedString, OverBound},
    cbor::{self, CborError},
    limits::{MAX_KAD_KEY_BYTES, MAX_REASON_BYTES, MAX_RECORD_BYTES, MAX_RECORD_MESSAGE_BYTES},
};
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use crate::error::{Code, RecordError};

/// Name of the protocol: one request and its answer a stream.
pub const PROTOCOL: &str = "/dagmesh/records/1.0.0";

/// A key of the DHT as it travels.
pub type KeyBytes = BoundedBytes<MAX_KAD_KEY_BYTES>;
/// A record as it travels, not checked.
pub type RecordBytes = BoundedBytes<MAX_RECORD_BYTES>;

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Over its cap.
    #[error("a message of {len} bytes where at most {max} may stand")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// Not canonical DAG-CBOR, or not the fields.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// Well-formed, but of a kind that is not known.
    #[error("a message of an unknown kind")]
    UnknownKind,
    /// A key, record or reason over its bound.
    #[error(transparent)]
    Bound(#[from] OverBound),
    /// A number that is no code.
    #[error("{0} is no error code")]
    Code(u8),
}

impl MessageError {
    /// What a request that is refused so is answered with.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } | Self::Bound(_) => Code::TooBig,
            Self::UnknownKind => Code::UnknownRequest,
            Self::Cbor(_) | Self::Code(_) => Code::BadRequest,
        }
    }
}

/// From one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Keep this record.
    Put {
        /// Its key.
        key: KeyBytes,
        /// It.
        record: RecordBytes,
    },
    /// Which record is held under this key?
    Get {
        /// The key.
        key: KeyBytes,
    },
}

/// A code and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {}", &**reason)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// For people.
    pub reason: BoundedString<MAX_REASON_BYTES>,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The record that was put is held.
    Stored {
        /// Whether it was not before.
        news: bool,
    },
    /// A newer record is held (code 8).
    Superseded {
        /// It.
        record: RecordBytes,
        /// Its time, in Unix milliseconds: the holder's word, for people; the record tells it for certain.
        timestamp_ms: u64,
    },
    /// The record that was asked for.
    Record(RecordBytes),
    /// There is none.
    Absent,
    /// It is not done.
    Error(Refusal),
}

/// As long as they are, so that what is too long can be told from what is no request.
#[derive(Serialize, Deserialize)]
enum RequestWire {
    #[serde(rename = "p")]
    Put(ByteBuf, ByteBuf),
    #[serde(rename = "g")]
    Get(ByteBuf),
}

#[derive(Serialize, Deserialize)]
enum AnswerWire {
    #[serde(rename = "s")]
    Stored(bool),
    #[serde(rename = "n")]
    Superseded(RecordBytes, u64),
    #[serde(rename = "r")]
    Record(RecordBytes),
    #[serde(rename = "a")]
    Absent,
    #[serde(rename = "e")]
    Error(u8, BoundedString<MAX_REASON_BYTES>),
}

impl Request {
    /// Asks to keep a record; an error where one of the two is over its bound.
    pub fn put(key: &[u8], record: &[u8]) -> Result<Self, MessageError> {
        Ok(Self::Put { key: KeyBytes::new(key)?, record: RecordBytes::new(record)? })
    }

    /// Asks for a record; an error where the key is over its bound.
    pub fn get(key: &[u8]) -> Result<Self, MessageError> {
        Ok(Self::Get { key: KeyBytes::new(key)? })
    }

    /// Encodes it.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(&match self.clone() {
            Self::Put { key, record } => RequestWire::Put(key.into_inner().into(), record.into_inner().into()),
            Self::Get { key } => RequestWire::Get(key.into_inner().into()),
        })
    }

    /// Decodes it, bounded; a record in it is not checked yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        match decode(bytes, &["p", "g"])? {
            RequestWire::Put(key, record) => Self::put(&key, &record),
            RequestWire::Get(key) => Self::get(&key),
        }
    }
}

impl Answer {
    /// An error of this code; the reason is cut where it is too long.
    pub fn error(code: Code, reason: impl ToString) -> Self {
        Self::Error(Refusal { code, reason: BoundedString::cut(&reason.to_string()) })
    }

    /// What a record that is refused is answered with.
    pub fn refusal(error: &RecordError) -> Self {
        if let RecordError::Superseded { newer } = error
            && let Ok(record) = RecordBytes::new(newer.bytes())
        {
            return Self::Superseded { record, timestamp_ms: newer.order().unix_ms() };
        }
        Self::error(error.code(), error)
    }

    /// Encodes it.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode(&match self.clone() {
            Self::Stored { news } => AnswerWire::Stored(news),
            Self::Superseded { record, timestamp_ms } => AnswerWire::Superseded(record, timestamp_ms),
            Self::Record(record) => AnswerWire::Record(record),
            Self::Absent => AnswerWire::Absent,
            Self::Error(Refusal { code, reason }) => AnswerWire::Error(code.number(), reason),
        })
    }

    /// Decodes it, bounded; a record in it is not checked yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Ok(match decode(bytes, &["s", "n", "r", "a", "e"])? {
            AnswerWire::Stored(news) => Self::Stored { news },
            AnswerWire::Superseded(record, timestamp_ms) => Self::Superseded { record, timestamp_ms },
            AnswerWire::Record(record) => Self::Record(record),
            AnswerWire::Absent => Self::Absent,
            AnswerWire::Error(number, reason) => {
                let code = Code::try_from(number).map_err(MessageError::Code)?;
                Self::Error(Refusal { code, reason })
            }
        })
    }
}

fn encode<T: Serialize>(wire: &T) -> Result<Vec<u8>, MessageError> {
    let bytes = cbor::to_vec(wire)?;
    check_len(bytes.len()).map(|()| bytes)
}

/// `kinds`: those that `T` knows, to tell a message of a later version from one that is broken.
fn decode<T: DeserializeOwned>(bytes: &[u8], kinds: &[&str]) -> Result<T, MessageError> {
    check_len(bytes.len())?;
    let unknown = |kind: &str| !kinds.contains(&kind);
    cbor::from_slice(bytes).map_err(|error| match cbor::from_slice(bytes) {
        Ok(Ipld::Map(map)) if map.len() == 1 && map.keys().all(|kind| unknown(kind)) => MessageError::UnknownKind,
        Ok(Ipld::String(kind)) if unknown(&kind) => MessageError::UnknownKind,
        _ => error.into(),
    })
}

fn check_len(len: usize) -> Result<(), MessageError> {
    let max = MAX_RECORD_MESSAGE_BYTES;
    if len > max { Err(MessageError::TooLarge { len, max }) } else { Ok(()) }
}
