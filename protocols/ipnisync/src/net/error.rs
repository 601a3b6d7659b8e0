use std::{net::IpAddr, time::Duration};

use dagmesh_dag::BlockError;
use libp2p_identity::PeerId;

use crate::IpniError;

/// Why a client or server cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Certificates or a key that cannot be read.
    #[error("{what} cannot be read from PEM: {reason}")]
    Pem {
        /// What should stand there.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// TLS does not take them.
    #[error("TLS could not be configured: {0}")]
    Tls(#[from] rustls::Error),
    /// A user agent that no header can hold.
    #[error("{0:?} cannot stand in a header as the user agent")]
    UserAgent(String),
}

/// Why a publisher did not give what it was asked for. `at` says where it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// None of the addresses is one that can be used.
    #[error("none of the {given} addresses of {publisher} can be used for HTTP{example}")]
    NoAddress {
        /// Whose they are.
        publisher: Box<PeerId>,
        /// How many there were.
        given: usize,
        /// What is wrong with the first.
        example: String,
    },
    /// No URL that could be asked.
    #[error("{url:?} is no URL of an indexer: {reason}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// An address that is not the whole internet's, where only such are allowed.
    #[error("{at} leads to {ip}, which is not globally reachable")]
    NotReachable {
        /// Where it was asked.
        at: String,
        /// The address.
        ip: IpAddr,
    },
    /// No connection.
    #[error("{at} cannot be reached: {reason}")]
    Unreachable {
        /// Where it was asked.
        at: String,
        /// Why.
        reason: String,
        /// Whether it may be different a moment later.
        temporary: bool,
    },
    /// The connection ended before the answer did.
    #[error("the connection with {at} was lost: {reason}")]
    Lost {
        /// Where it was asked.
        at: String,
        /// How.
        reason: String,
    },
    /// Nothing came in time.
    #[error("{at}: no {what} within {within:?}")]
    Deadline {
        /// Where it was asked.
        at: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        within: Duration,
    },
    /// An answer that comes too slowly.
    #[error("{at}: fewer than {min} bytes of the answer in {within:?}")]
    TooSlow {
        /// Where it was asked.
        at: String,
        /// How many bytes there had to be.
        min: u64,
        /// In what time.
        within: Duration,
    },
    /// What came is no HTTP.
    #[error("{at} does not speak HTTP: {reason}")]
    NoHttp {
        /// Where it was asked.
        at: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The publisher does not have it, or says so.
    #[error("{at}: not found")]
    NotFound {
        /// Where it was asked.
        at: String,
    },
    /// The publisher has published nothing yet.
    #[error("{at}: there is no chain yet")]
    NoHead {
        /// Where it was asked.
        at: String,
    },
    /// Another answer than the one asked for.
    #[error("{at} answered with status {status}{reason}")]
    Status {
        /// Where it was asked.
        at: String,
        /// The status code.
        status: u16,
        /// What it said about it, behind a colon; empty where that was nothing.
        reason: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// A redirect that is not followed.
    #[error("{at} redirects {reason}")]
    Redirect {
        /// Where it was asked.
        at: String,
        /// Where to, and why it is not followed.
        reason: String,
    },
    /// A body over its cap.
    #[error("{at}: the answer has more than the {max} bytes that it may")]
    TooLarge {
        /// Where it was asked.
        at: String,
        /// The cap.
        max: usize,
    },
    /// A body in an encoding that was not asked for.
    #[error("{at}: the answer is encoded as {encoding:?}, which was not asked for")]
    Encoding {
        /// Where it was asked.
        at: String,
        /// The encoding.
        encoding: String,
    },
    /// Not the block that was asked for.
    #[error("{at}: {error}")]
    Block {
        /// Where it was asked.
        at: String,
        /// What is wrong with it.
        error: BlockError,
    },
    /// No head, or one whose signature does not hold.
    #[error("{at}: {error}")]
    Head {
        /// Where it was asked.
        at: String,
        /// What is wrong with it.
        error: Box<IpniError>,
    },
    /// A head of somebody else.
    #[error("{at}: the head is signed by {signer} and not by {publisher}")]
    Signer {
        /// Where it was asked.
        at: String,
        /// Whose it is.
        signer: Box<PeerId>,
        /// Whose it should be.
        publisher: Box<PeerId>,
    },
}

impl NetError {
    /// Whether what came broke the rules: a false block or head, a body over its cap, no HTTP. Too slow, busy and away
    /// do not. Over HTTP it says something about who answers at that address, which need not be the publisher.
    pub fn is_bad_peer(&self) -> bool {
        match self {
            Self::NoHttp { .. }
            | Self::TooLarge { .. }
            | Self::Encoding { .. }
            | Self::Head { .. }
            | Self::Signer { .. } => true,
            // A CID that nothing can prove is the asker's, or stands in the publisher's chain.
            Self::Block { error, .. } => !matches!(error, BlockError::Cid { .. }),
            _ => false,
        }
    }

    /// Whether the publisher answered that it does not have what was asked for.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NoHead { .. } | Self::Status { status: 410, .. })
    }

    /// Whether the same request may well succeed a moment later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Lost { .. } => true,
            Self::Unreachable { temporary, .. } => *temporary,
            Self::Status { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// How long the publisher wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// How much the error says about the publisher: of those of several addresses, the one that says most is told.
    pub(crate) fn weight(&self) -> u8 {
        match self {
            error if error.is_bad_peer() => 3,
            error if error.is_not_found() => 4,
            Self::Status { .. } | Self::Redirect { .. } | Self::TooSlow { .. } | Self::Block { .. } => 2,
            Self::Lost { .. } | Self::Deadline { .. } => 1,
            _ => 0,
        }
    }
}
