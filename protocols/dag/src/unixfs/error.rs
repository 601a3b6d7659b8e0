use std::{
    io,
    path::{Path, PathBuf},
};

use cid::Cid;

use crate::{BlockError, CidError, StoreError};

/// Why a file or folder could not be imported, read or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnixfsError {
    /// The filesystem said no.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name that UnixFS cannot hold.
    #[error("the name of {} is not UTF-8; rename it to import it", .0.display())]
    NotUtf8(PathBuf),
    /// The path to import is a socket, a device or the like.
    #[error("{} is neither file, folder nor symlink", .0.display())]
    Special(PathBuf),
    /// Folders nested deeper than the cap.
    #[error("{} is nested deeper than {max} folders", path.display())]
    TooDeep {
        /// The first folder that is too deep.
        path: PathBuf,
        /// The cap.
        max: usize,
    },
    /// Options that cannot be followed.
    #[error("these options cannot be followed: {0}")]
    Options(String),
    /// Two names whose 64-bit hashes are equal: a HAMT cannot hold both.
    #[error("a folder cannot hold both {first:?} and {second:?}: their hashes are equal")]
    Collision {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// The path to export to exists.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The path to export to has no name of its own.
    #[error("{} cannot be exported to: it names no new file or folder", .0.display())]
    NoName(PathBuf),
    /// More than the caller allows.
    #[error("{what} under {cid}: more than {max} where no more are allowed")]
    TooMany {
        /// The root.
        cid: Box<Cid>,
        /// What was counted.
        what: &'static str,
        /// The cap.
        max: u64,
    },
    /// A block that the store does not hold, or holds damaged.
    #[error("block {0} is missing")]
    Missing(Box<Cid>),
    /// A CID that we do not take.
    #[error("{cid} is refused: {reason}")]
    Cid {
        /// The CID.
        cid: Box<Cid>,
        /// Why.
        reason: CidError,
    },
    /// A block that is no UnixFS, or whose claims do not hold.
    #[error("{cid} is no sound UnixFS node: {what}")]
    Malformed {
        /// The block.
        cid: Box<Cid>,
        /// What was wrong.
        what: String,
    },
    /// A name that would lead out of its folder, or that no filesystem takes.
    #[error("folder {cid} has an entry with the unsafe name {name:?}")]
    UnsafeName {
        /// The folder.
        cid: Box<Cid>,
        /// The name, cut to a bounded length.
        name: String,
    },
    /// A folder or symlink where a file was expected.
    #[error("{0} is no file")]
    NotAFile(Box<Cid>),
    /// A file or symlink where a folder was expected.
    #[error("{0} is no folder")]
    NotADirectory(Box<Cid>),
    /// No entry of that name.
    #[error("folder {cid} has no entry {name:?}")]
    NotFound {
        /// The folder.
        cid: Box<Cid>,
        /// The name.
        name: String,
    },
    /// A path that leads out of its root.
    #[error("the path {0:?} leads out of its root")]
    Path(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A block could not be made.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl UnixfsError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn malformed(cid: &Cid, what: impl Into<String>) -> Self {
        Self::Malformed { cid: Box::new(*cid), what: what.into() }
    }
}

/// For readers that speak `std::io`: the error stays inside and can be taken out again by downcasting.
impl From<UnixfsError> for io::Error {
    fn from(error: UnixfsError) -> Self {
        let kind = match &error {
            UnixfsError::Io { source, .. } => source.kind(),
            UnixfsError::Missing(_) | UnixfsError::NotFound { .. } => io::ErrorKind::NotFound,
            UnixfsError::Malformed { .. } | UnixfsError::Cid { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
