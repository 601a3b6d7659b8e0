use cid::Cid;
use dagmesh_core::cbor::CborError;
use dagmesh_dag::FeedError;

/// Why bytes are no announcement that we take, or an announcement cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// Longer than an announcement may be.
    #[error("an announcement of {len} bytes where at most {max} may stand")]
    TooLong {
        /// Its length, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// Not the message.
    #[error("no announcement: {0}")]
    Message(#[from] CborError),
    /// Not the message in its form as JSON.
    #[error("no announcement as JSON: {0}")]
    Json(String),
    /// More addresses than the cap.
    #[error("an announcement with {len} addresses where at most {max} may stand")]
    TooManyAddrs {
        /// How many there were.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// An address that is cut short or otherwise broken. One whose protocols are merely unknown is skipped instead.
    #[error("address {index} of the announcement is broken: {reason}")]
    Addr {
        /// Its place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An address over the cap.
    #[error("address {index} of the announcement has {len} bytes where at most {max} may stand")]
    LongAddr {
        /// Its place in the list, from 0.
        index: usize,
        /// Its length, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// The original publisher is no peer id.
    #[error("the original publisher {text:?} is no peer id")]
    OrigPeer {
        /// What was found, cut to a bounded length.
        text: String,
    },
    /// Over HTTP: no address, or one that does not end with the publisher's peer id, or with another one than the first.
    #[error("address {index} of the announcement does not end with /p2p/ and the publisher, the same as in all")]
    NoPublisher {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// The head that it carries is none.
    #[error("the head in the announcement is refused: {0}")]
    Head(#[from] FeedError),
    /// The head that it carries is signed, but names another entry than the announcement.
    #[error("the announcement names {announced}, the head in it {signed}")]
    OtherHead {
        /// What the announcement names.
        announced: Box<Cid>,
        /// What the head names.
        signed: Box<Cid>,
    },
}
