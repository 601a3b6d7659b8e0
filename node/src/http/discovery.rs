//! How a command finds the daemon of its home: the file `api.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    config::{ApiAddr, Home, write_private},
    error::{ErrorKind, NodeError},
};

/// What a running daemon says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Where its API is.
    pub api: ApiAddr,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

impl Daemon {
    /// This process, with its API at `api`.
    pub fn here(api: ApiAddr) -> Self {
        Self { api, pid: std::process::id(), version: env!("CARGO_PKG_VERSION").into() }
    }

    /// Writes the file, in place of one that is there.
    pub fn announce(&self, home: &Home) -> Result<(), NodeError> {
        let path = home.api_file();
        let text = serde_json::to_vec(self).map_err(|error| NodeError::other(error.to_string()))?;
        write_private(&path, &text, true).map_err(|error| NodeError::file("create", &path, &error))
    }

    /// Removes the file where it is still ours.
    pub fn retract(&self, home: &Home) {
        if Self::find(home).is_ok_and(|found| found == *self) {
            let _ = std::fs::remove_file(home.api_file());
        }
    }

    /// Reads the file. Without one, or with one that makes no sense, no daemon is running.
    pub fn find(home: &Home) -> Result<Self, NodeError> {
        let path = home.api_file();
        let text = std::fs::read(&path).map_err(|_| no_daemon(home.root()))?;
        serde_json::from_slice(&text).map_err(|_| no_daemon(home.root()))
    }
}

/// The error of a command that finds no daemon.
pub fn no_daemon(root: &Path) -> NodeError {
    NodeError::new(
        ErrorKind::NoDaemon,
        format!("no daemon is running in {}; start one with `dagmesh daemon`", root.display()),
    )
}
