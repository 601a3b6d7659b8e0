//! Asking a peer for the newest record under a key, as IPNS over PubSub does it: who joins a topic asks those who are there.
//!
//! ```text
//! FetchRequest  { string identifier = 1; }            the key in the DHT, which need not be UTF-8
//! FetchResponse { StatusCode status = 1;              OK = 0, NOT_FOUND = 1, ERROR = 2
//!                 bytes data = 2; }                   the record as on the wire, not checked
//! ```
//! Protobuf, each message behind its length as an unsigned varint; one request and its answer a stream.
//!
//! Source: <https://specs.ipfs.tech/ipns/ipns-pubsub-router/>, <https://github.com/libp2p/specs/tree/master/fetch>, and
//! go-libp2p-pubsub-router where they are silent.

use dagmesh_core::{
    bounded::OverBound,
    limits::{MAX_FETCH_ANSWER_BYTES, MAX_FETCH_REQUEST_BYTES},
};
use prost::Message;

use crate::message::{KeyBytes, RecordBytes};

/// Name of the protocol.
pub const FETCH_PROTOCOL: &str = "/libp2p/fetch/0.0.1";

/// Why a message of the protocol is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Over its cap.
    #[error("a message of {len} bytes where at most {max} may stand")]
    TooLarge {
        /// Its length, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// No protobuf of this form.
    #[error("no message of the protocol fetch: {0}")]
    Form(String),
    /// A key or record over its bound.
    #[error(transparent)]
    Bound(#[from] OverBound),
    /// A status that is not known.
    #[error("an answer of the unknown status {0}")]
    Status(i32),
}

/// Which record do you have under this key?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Its key in the DHT.
    pub key: KeyBytes,
}

/// What a peer says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchAnswer {
    /// This one, not checked.
    Found(RecordBytes),
    /// None that is valid.
    NotFound,
    /// It cannot tell.
    Error,
}

#[derive(Clone, PartialEq, Message)]
struct RequestWire {
    // A string in the definition; Go does not check that it is UTF-8, and no key of IPNS is.
    #[prost(bytes = "vec", tag = "1")]
    identifier: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerWire {
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

const OK: i32 = 0;
const NOT_FOUND: i32 = 1;
const ERROR: i32 = 2;

impl FetchRequest {
    /// Asks for a key; an error where it is over its bound.
    pub fn new(key: &[u8]) -> Result<Self, FetchError> {
        Ok(Self { key: KeyBytes::new(key)? })
    }

    /// Its bytes, without the length.
    pub fn encode(&self) -> Vec<u8> {
        RequestWire { identifier: self.key.to_vec() }.encode_to_vec()
    }

    /// Reads it, bounded.
    pub fn decode(bytes: &[u8]) -> Result<Self, FetchError> {
        Self::new(&decode::<RequestWire>(bytes, MAX_FETCH_REQUEST_BYTES)?.identifier)
    }
}

impl FetchAnswer {
    /// Gives this record; an error where it is over its bound.
    pub fn found(record: &[u8]) -> Result<Self, FetchError> {
        Ok(Self::Found(RecordBytes::new(record)?))
    }

    /// Its bytes, without the length.
    pub fn encode(&self) -> Vec<u8> {
        let (status, data) = match self {
            Self::Found(record) => (OK, record.to_vec()),
            Self::NotFound => (NOT_FOUND, Vec::new()),
            Self::Error => (ERROR, Vec::new()),
        };
        AnswerWire { status, data }.encode_to_vec()
    }

    /// Reads it, bounded; a record in it is not checked yet. An OK without one finds nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, FetchError> {
        let AnswerWire { status, data } = decode(bytes, MAX_FETCH_ANSWER_BYTES)?;
        match status {
            OK if !data.is_empty() => Self::found(&data),
            OK | NOT_FOUND => Ok(Self::NotFound),
            ERROR => Ok(Self::Error),
            other => Err(FetchError::Status(other)),
        }
    }
}

fn decode<T: Message + Default>(bytes: &[u8], max: usize) -> Result<T, FetchError> {
    if bytes.len() > max {
        return Err(FetchError::TooLarge { len: bytes.len(), max });
    }
    T::decode(bytes).map_err(|error| FetchError::Form(error.to_string()))
}

#[cfg(test)]
mod tests {
    use dagmesh_core::limits::{MAX_IPNS_RECORD_BYTES, MAX_KAD_KEY_BYTES, MAX_RECORD_BYTES};

    use super::*;
    use crate::{ipns::IpnsName, testing::key};

    #[test]
    fn messages_are_those_that_go_writes() {
        // A key of IPNS is no UTF-8: the identity multihash of an Ed25519 key has bytes beyond ASCII.
        let name = IpnsName::of(&key(1).public()).key();
        assert!(name.len() == 44 && std::str::from_utf8(&name).is_err());
        let request = FetchRequest::new(&name).expect("fits");
        let go = [&[0x0a, 44][..], &name].concat();
        assert_eq!(request.encode(), go);
        assert_eq!(FetchRequest::decode(&go), Ok(request));

        let found = FetchAnswer::found(b"record").expect("fits");
        for (answer, go) in [
            // Go leaves out what is zero.
            (found, &b"\x12\x06record"[..]),
            (FetchAnswer::NotFound, &[0x08, 1]),
            (FetchAnswer::Error, &[0x08, 2]),
        ] {
            assert_eq!(answer.encode(), go);
            assert_eq!(FetchAnswer::decode(go), Ok(answer));
        }
        // As it may write an OK without a record, and with its status said.
        assert_eq!(FetchAnswer::decode(b""), Ok(FetchAnswer::NotFound));
        assert_eq!(FetchAnswer::decode(b"\x08\x00\x12\x01x"), FetchAnswer::found(b"x"));
        // A field of a later version is passed over.
        assert_eq!(FetchAnswer::decode(b"\x08\x01\x1a\x01x"), Ok(FetchAnswer::NotFound));
    }

    #[test]
    fn what_is_none_is_refused() {
        assert_eq!(FetchAnswer::decode(&[0x08, 3]), Err(FetchError::Status(3)));
        assert!(matches!(FetchAnswer::decode(b"\x12\x09short"), Err(FetchError::Form(_))));
        assert!(matches!(FetchRequest::decode(&[0x08, 1]), Err(FetchError::Form(_))), "a number for a key");
    }

    #[test]
    fn keys_and_records_are_taken_at_their_caps_and_refused_beyond() {
        let largest = FetchRequest::new(&[7; MAX_KAD_KEY_BYTES]).expect("fits");
        assert_eq!(FetchRequest::decode(&largest.encode()), Ok(largest));
        assert!(FetchRequest::new(&[7; MAX_KAD_KEY_BYTES + 1]).is_err());
        let key = RequestWire { identifier: vec![7; MAX_KAD_KEY_BYTES + 1] }.encode_to_vec();
        assert!(matches!(FetchRequest::decode(&key), Err(FetchError::Bound(_) | FetchError::TooLarge { .. })));
        let long = [b"\x1a", vec![0; MAX_FETCH_REQUEST_BYTES].as_slice()].concat();
        assert!(matches!(FetchRequest::decode(&long), Err(FetchError::TooLarge { .. })));
        const { assert!(MAX_IPNS_RECORD_BYTES <= MAX_RECORD_BYTES) };
        let largest = FetchAnswer::found(&[7; MAX_RECORD_BYTES]).expect("fits");
        assert_eq!(FetchAnswer::decode(&largest.encode()), Ok(largest));
        assert!(FetchAnswer::found(&[7; MAX_RECORD_BYTES + 1]).is_err());
    }
}
