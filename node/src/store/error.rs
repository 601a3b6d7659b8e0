//! What can go wrong with the store, and how the engine's errors are told.

use std::{io, path::PathBuf};

use dagmesh_core::cbor::CborError;
use dagmesh_dag::{StoreError, feed::FeedError};

/// Why the store of a home cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store in {dir} is in use by {}", holder(*.pid))]
    InUse {
        /// The store's directory.
        dir: PathBuf,
        /// The process that holds it, where it could be told.
        pid: Option<u32>,
    },
    /// Written by a newer dagmesh.
    #[error("the store in {dir} has format {found}; this dagmesh reads up to format {known}: use a newer one")]
    NewerFormat {
        /// The store's directory.
        dir: PathBuf,
        /// The format found.
        found: u64,
        /// The newest format that this program reads.
        known: u64,
    },
    /// A file or directory cannot be used.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The database is there, and cannot be read.
    #[error("the store in {dir} cannot be opened: {source}")]
    Engine {
        /// The store's directory.
        dir: PathBuf,
        /// What the engine said.
        source: StoreError,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Why a call on one of the store's tables failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A sequence number that is not the next one of the feed: it was used, or one was skipped.
    #[error("entry {seq} cannot be published in feed {feed}: the next one is {next}")]
    Sequence {
        /// The feed.
        feed: String,
        /// The number that was tried.
        seq: u64,
        /// The number that would be taken.
        next: u64,
    },
    /// An entry and a head that do not belong together, or to the feed's last entry.
    #[error("cannot publish in feed {feed}: {reason}")]
    Publish {
        /// The feed.
        feed: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// An entry or head that cannot be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A record that cannot be written as DAG-CBOR.
    #[error(transparent)]
    Encode(#[from] CborError),
    /// Something else has to end first.
    #[error("not now: {0}")]
    Busy(&'static str),
    /// A table is full.
    #[error("{what} are at their cap of {max}")]
    Full {
        /// Of what there are too many.
        what: &'static str,
        /// The cap.
        max: usize,
    },
}

/// A stored row that does not decode.
pub(super) fn bad_row(table: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("a row of {table} cannot be read: {error}"))
}

/// Tells the engine's error in the words of [`StoreError`].
pub(super) fn from_engine(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => from_io(error),
        fjall::Error::Poisoned => StoreError::Closed("an earlier write in the background failed".to_owned()),
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn from_io(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace,
        _ => StoreError::Io(error),
    }
}

/// Whether the engine found bytes that are not those it wrote.
pub(super) fn is_damage(error: &fjall::Error) -> bool {
    use fjall::LsmError;
    match error {
        fjall::Error::Storage(error) => matches!(
            error,
            LsmError::ChecksumMismatch { .. }
                | LsmError::InvalidTag(_)
                | LsmError::InvalidTrailer
                | LsmError::InvalidHeader(_)
                | LsmError::Decompress(_)
        ),
        _ => false,
    }
}
