//! Why a record is refused, and the numbers that say so on the wire.

use dagmesh_core::{
    cbor::CborError,
    limits::{MAX_RECORD_AHEAD_MS, MAX_RECORD_LIFETIME_MS},
};
use libp2p_identity::PeerId;

use crate::validator::Verified;

/// The error codes of a record's exchange, by their numbers on the wire.
///
/// Source: drogulus, whose numbers they keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[repr(u8)]
#[non_exhaustive]
pub enum Code {
    /// Not a message, not a record, or one that may not stand: expired, from the future.
    #[error("bad request")]
    BadRequest = 1,
    /// A message of a kind that is not known.
    #[error("unknown request")]
    UnknownRequest = 2,
    /// Our own fault, or no room.
    #[error("internal error")]
    Internal = 3,
    /// Over a cap.
    #[error("too big")]
    TooBig = 4,
    /// A namespace or a version that is not served here.
    #[error("unsupported")]
    Unsupported = 5,
    /// The signature does not hold, or whose it is cannot be told.
    #[error("unverifiable provenance")]
    Unverifiable = 6,
    /// The record belongs under another key.
    #[error("key mismatch")]
    KeyMismatch = 7,
    /// A newer record is known; the answer carries it with its timestamp.
    #[error("superseded")]
    Superseded = 8,
}

impl Code {
    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl TryFrom<u8> for Code {
    type Error = u8;

    /// Gives the number back where no code has it.
    fn try_from(number: u8) -> Result<Self, u8> {
        Ok(match number {
            1 => Self::BadRequest,
            2 => Self::UnknownRequest,
            3 => Self::Internal,
            4 => Self::TooBig,
            5 => Self::Unsupported,
            6 => Self::Unverifiable,
            7 => Self::KeyMismatch,
            8 => Self::Superseded,
            other => return Err(other),
        })
    }
}

/// Why a record, a key or a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Over its cap.
    #[error("{what} of {len} bytes where at most {max} may stand")]
    TooLarge {
        /// What it was.
        what: &'static str,
        /// Its length, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// Not canonical DAG-CBOR, or not the fields.
    #[error("no record: {0}")]
    Cbor(#[from] CborError),
    /// Not a record, a name or a key: what is wrong with it.
    #[error("no {what}: {reason}")]
    Form {
        /// What it should have been.
        what: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// A version that is not known here.
    #[error("version {0} of records is not known here")]
    Version(u64),
    /// A key of no namespace that is kept here.
    #[error("the key {key} is in no namespace that is kept here")]
    Namespace {
        /// The first bytes of the key, escaped.
        key: String,
    },
    /// The signature is not the owner's.
    #[error("the signature of the record is not by {owner}")]
    Signature {
        /// Whose key stands in the record.
        owner: PeerId,
    },
    /// Whose it is cannot be told: an IPNS record without the public key that its name is the hash of.
    #[error("the record of {owner} carries no public key")]
    NoPublicKey {
        /// Whose name it is.
        owner: PeerId,
    },
    /// It belongs under another key: another's, or another name.
    #[error("the record of {owner} belongs under another key")]
    KeyMismatch {
        /// Whose record it is.
        owner: PeerId,
    },
    /// Its time is over.
    #[error("the record expired at {expires_ms} (Unix ms), {ago_ms} ms ago")]
    Expired {
        /// When it did, in Unix milliseconds.
        expires_ms: u64,
        /// How long ago, in milliseconds.
        ago_ms: u64,
    },
    /// Signed in the future.
    #[error("the record was signed {ahead_ms} ms in the future; {MAX_RECORD_AHEAD_MS} ms are allowed")]
    Future {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
    /// It would live longer than records may, or ends before it begins.
    #[error("the record is from {from_ms} to {to_ms} (Unix ms); it may live {MAX_RECORD_LIFETIME_MS} ms")]
    Lifetime {
        /// Its timestamp, in Unix milliseconds.
        from_ms: u64,
        /// When it expires, in Unix milliseconds.
        to_ms: u64,
    },
    /// A newer one is known.
    #[error("a newer record is known, with sequence {}", newer.order().sequence)]
    Superseded {
        /// It.
        newer: Box<Verified>,
    },
    /// A newer one was known, and is gone since: what is older than it does not come back.
    #[error("a newer record was known, with sequence {sequence}")]
    Outlived {
        /// Its sequence.
        sequence: u64,
    },
    /// There is no room for it.
    #[error("no room for the record: {0}")]
    Full(&'static str),
    /// The key cannot sign.
    #[error("cannot sign: {0}")]
    Signing(String),
}

impl RecordError {
    /// Its code on the wire. [`Self::Outlived`] is superseded too, by a record that nobody can be given any more: on the
    /// wire it is an error with that number.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::TooBig,
            Self::Cbor(_) | Self::Form { .. } => Code::BadRequest,
            Self::Expired { .. } | Self::Future { .. } | Self::Lifetime { .. } => Code::BadRequest,
            Self::Version(_) | Self::Namespace { .. } => Code::Unsupported,
            Self::Signature { .. } | Self::NoPublicKey { .. } => Code::Unverifiable,
            Self::KeyMismatch { .. } => Code::KeyMismatch,
            Self::Superseded { .. } | Self::Outlived { .. } => Code::Superseded,
            Self::Full(_) | Self::Signing(_) => Code::Internal,
        }
    }

    /// Whether it proves that whoever handed this over does what no honest node does. A signature that does not hold is
    /// checked by everybody before it is passed on; all else may be clocks, versions or a race.
    pub fn is_proof(&self) -> bool {
        matches!(self, Self::Signature { .. })
    }

    pub(crate) fn form(what: &'static str, reason: impl ToString) -> Self {
        Self::Form { what, reason: reason.to_string() }
    }
}

pub(crate) fn check_len(what: &'static str, len: usize, max: usize) -> Result<(), RecordError> {
    if len > max { Err(RecordError::TooLarge { what, len, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_numbers_1_to_8_and_come_back() {
        for number in 0..=u8::MAX {
            match Code::try_from(number) {
                Ok(code) => assert!((1..=8).contains(&number) && code.number() == number),
                Err(back) => assert!(back == number && !(1..=8).contains(&number)),
            }
        }
    }
}
