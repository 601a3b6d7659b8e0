//! The one error of the node's handle, its local API and its commands.

use std::{io, path::Path, time::Duration};

use dagmesh_dag::{BlockError, CidError, StoreError};
use serde::{Deserialize, Serialize};

use crate::store::{self, OpenError};

/// What went wrong, as scripts tell it apart: each kind has an exit code and a status of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// None of those below.
    Error,
    /// What was asked for makes no sense: a wrong argument, a wrong config.
    Usage,
    /// No daemon answers.
    NoDaemon,
    /// A block, head, follow, file or peer is not there.
    NotFound,
    /// It took longer than its deadline.
    Timeout,
    /// Nobody is connected who could help.
    NoPeers,
    /// The caller, or we at a peer, may not do this.
    Unauthorised,
    /// Bytes, a signature or a head did not prove what they claim.
    Verification,
    /// Part of it was done; the message says which.
    Partial,
    /// Stopped from outside: a signal, or the client went away.
    Interrupted,
    /// The node is stopping, or so busy that it takes no more of this.
    Unavailable,
    /// The disk is full, failed, or holds what was never written.
    Storage,
}

impl ErrorKind {
    /// The exit code of the command (a contract with scripts).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Error | Self::Unavailable | Self::Storage => 1,
            Self::Usage => 2,
            Self::NoDaemon => 3,
            Self::NotFound => 4,
            Self::Timeout | Self::NoPeers => 5,
            Self::Unauthorised => 6,
            Self::Verification => 7,
            Self::Partial => 8,
            Self::Interrupted => 130,
        }
    }

    /// The status of an HTTP response that says so.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Error | Self::Partial | Self::Interrupted => 500,
            Self::Usage => 400,
            Self::NotFound => 404,
            Self::Timeout => 504,
            Self::NoDaemon | Self::NoPeers | Self::Unavailable => 503,
            Self::Unauthorised => 403,
            Self::Verification => 422,
            Self::Storage => 507,
        }
    }
}

/// An error for the person or program that asked: what was tried with what, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct NodeError {
    /// Its kind.
    pub kind: ErrorKind,
    /// One sentence or two, without a trailing full stop.
    pub message: String,
}

impl NodeError {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// An error of no special kind.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Error, message)
    }

    /// What was asked for makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Something is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// `doing` was given up after `after`.
    pub fn timeout(doing: impl std::fmt::Display, after: Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("{doing} took longer than {} s", after.as_secs_f32()))
    }

    /// Nobody who could help is connected.
    pub fn no_peers(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NoPeers, message)
    }

    /// A proof failed.
    pub fn verification(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Verification, message)
    }

    /// The node is stopping.
    pub fn stopping() -> Self {
        Self::new(ErrorKind::Unavailable, "the node is stopping; start it again with `dagmesh daemon`")
    }

    /// The file at `path` could not be used for `doing` ("read", "create").
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Unauthorised,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Storage,
            _ => ErrorKind::Error,
        };
        Self::new(kind, format!("cannot {doing} {}: {error}", path.display()))
    }

    /// Puts what was tried in front of the message.
    #[must_use]
    pub fn context(mut self, tried: impl std::fmt::Display) -> Self {
        self.message = format!("{tried}: {}", self.message);
        self
    }

    /// The exit code of the command that failed with this.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }
}

impl From<StoreError> for NodeError {
    fn from(error: StoreError) -> Self {
        let (kind, advice) = match &error {
            StoreError::NoSpace => (ErrorKind::Storage, "; free some space, or run `dagmesh gc`, then start again"),
            StoreError::Io(_) | StoreError::Closed(_) => (ErrorKind::Storage, ""),
            StoreError::Corrupt(_) => (ErrorKind::Storage, "; `dagmesh repo verify` says how much of it"),
            StoreError::Block(_) => (ErrorKind::Verification, ""),
            _ => (ErrorKind::Error, ""),
        };
        Self::new(kind, format!("{error}{advice}"))
    }
}

impl From<OpenError> for NodeError {
    fn from(error: OpenError) -> Self {
        let message = error.to_string();
        match error {
            OpenError::Engine { source, .. } => Self { message, ..source.into() },
            OpenError::InUse { .. } => {
                Self::new(ErrorKind::Unavailable, format!("{message}; stop it first, or ask the daemon there"))
            }
            _ => Self::new(ErrorKind::Storage, message),
        }
    }
}

impl From<store::Error> for NodeError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Store(error) => error.into(),
            store::Error::Busy(_) => Self::new(ErrorKind::Unavailable, format!("{error}; try again later")),
            _ => Self::other(error.to_string()),
        }
    }
}

impl From<BlockError> for NodeError {
    fn from(error: BlockError) -> Self {
        Self::verification(error.to_string())
    }
}

impl From<CidError> for NodeError {
    fn from(error: CidError) -> Self {
        Self::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_that_scripts_rely_on() {
        let table = [
            (ErrorKind::Error, 1, "error"),
            (ErrorKind::Usage, 2, "usage"),
            (ErrorKind::NoDaemon, 3, "no_daemon"),
            (ErrorKind::NotFound, 4, "not_found"),
            (ErrorKind::Timeout, 5, "timeout"),
            (ErrorKind::NoPeers, 5, "no_peers"),
            (ErrorKind::Unauthorised, 6, "unauthorised"),
            (ErrorKind::Verification, 7, "verification"),
            (ErrorKind::Partial, 8, "partial"),
            (ErrorKind::Interrupted, 130, "interrupted"),
        ];
        for (kind, code, name) in table {
            assert_eq!(kind.exit_code(), code, "{kind:?}");
            assert_eq!(serde_json::to_value(kind).expect("encodes"), name);
        }
    }

    #[test]
    fn a_missing_file_is_not_found_and_named() {
        let error = NodeError::file("read", Path::new("/no/such"), &io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.contains("cannot read /no/such"), "{error}");
    }
}
