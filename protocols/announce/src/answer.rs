use std::fmt;

use dagmesh_core::{bounded::BoundedString, cbor, limits::MAX_REASON_BYTES};

use crate::{AnnounceError, Verdict};

/// The answer to a direct announcement.
///
/// On the wire: a DAG-CBOR array of two: 0 accepted, 1 ignored, 2 refused; the reason as text of at most
/// [`MAX_REASON_BYTES`], empty where it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Taken, and acted on.
    Accepted,
    /// Understood, and not needed: already known, say, or too many at once.
    Ignored(String),
    /// Not taken, and not to be sent again as it is.
    Refused(String),
}

type Wire = (u8, BoundedString<MAX_REASON_BYTES>);

impl Answer {
    /// Its bytes; a reason over the cap is cut.
    pub fn encode(&self) -> Result<Vec<u8>, AnnounceError> {
        let (code, reason) = match self {
            Self::Accepted => (0u8, ""),
            Self::Ignored(reason) => (1, reason.as_str()),
            Self::Refused(reason) => (2, reason.as_str()),
        };
        Ok(cbor::to_vec::<Wire>(&(code, BoundedString::cut(reason)))?)
    }

    /// Reads an answer. Total and bounded.
    pub fn decode(bytes: &[u8]) -> Result<Self, AnnounceError> {
        let (code, reason): Wire = cbor::from_slice(bytes)?;
        match code {
            0 => Ok(Self::Accepted),
            1 => Ok(Self::Ignored(reason.into_inner())),
            2 => Ok(Self::Refused(reason.into_inner())),
            _ => Err(cbor::CborError::Schema(format!("{code} is none of the answers 0, 1, 2")).into()),
        }
    }
}

impl From<&Verdict> for Answer {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Accept(_) => Self::Accepted,
            Verdict::Fork { known, .. } => {
                Self::Refused(format!("another head with number {} is known: {}", known.seq(), known.head()))
            }
            Verdict::Ignore(why) => Self::Ignored(why.to_string()),
            Verdict::Reject(why) => Self::Refused(why.to_string()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Ignored(reason) => write!(f, "ignored: {reason}"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use dagmesh_core::limits::MAX_ANSWER_BYTES;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_comes_back_as_it_was_given() {
        for answer in [Answer::Accepted, Answer::Ignored("known".into()), Answer::Refused("not allowed".into())] {
            assert_eq!(Answer::decode(&answer.encode().expect("encodes")), Ok(answer));
        }
    }

    #[test]
    fn a_reason_is_cut_on_writing_and_refused_on_reading_beyond_the_cap() {
        let bytes = Answer::Refused("ä".repeat(MAX_REASON_BYTES)).encode().expect("encodes");
        assert!(bytes.len() <= MAX_ANSWER_BYTES);
        assert_eq!(Answer::decode(&bytes), Ok(Answer::Refused("ä".repeat(MAX_REASON_BYTES / 2))));
        let at = |len: usize| Answer::decode(&cbor::to_vec(&(1u8, "r".repeat(len))).expect("encodes"));
        assert!(at(MAX_REASON_BYTES).is_ok());
        assert!(at(MAX_REASON_BYTES + 1).is_err());
        assert!(Answer::decode(&cbor::to_vec(&(3u8, "")).expect("encodes")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in any::<Vec<u8>>()) {
            let _ = Answer::decode(&bytes);
        }
    }
}
