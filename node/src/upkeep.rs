//! Upkeep of the store: what `gc`, `repo verify` and `repo stat` do, with a node around it or without.
//!
//! The calls block on the disk: async code makes them on a thread of their own.

use std::path::Path;

use cid::Cid;

use crate::{
    api::{ProgressSink, Result},
    config::{Config, Home},
    store::{Store, StoreOptions},
    types::{GcReport, GcRequest, Phase, Progress, RepoStat, VerifyReport},
};

/// How the store of a node is opened.
pub fn store_options(config: &Config) -> StoreOptions {
    StoreOptions { reserve_bytes: config.store.reserve_bytes }
}

/// Where the store of a node is.
pub fn store_dir(home: &Home, config: &Config) -> std::path::PathBuf {
    config.store.path.clone().unwrap_or_else(|| home.store_dir())
}

/// Removes what nothing refers to; what is held below `roots` stays too. As [`Store::gc`].
pub fn gc(store: &Store, roots: &[Cid], request: GcRequest, progress: &ProgressSink) -> Result<GcReport> {
    progress.send(Progress { phase: Phase::Walking, known_blocks: store.stat().blocks, ..Progress::default() });
    let report = store.gc(roots, request.dry_run)?;
    Ok(GcReport { removed: report.removed, bytes: report.bytes, kept: report.kept, dry_run: request.dry_run })
}

/// Hashes every block again, puts aside those that fail, and looks for what is missing. As [`Store::verify`].
pub fn verify(store: &Store, progress: &ProgressSink) -> Result<VerifyReport> {
    let report = store.verify(|so_far| {
        progress.send(Progress {
            phase: Phase::Verifying,
            done_blocks: so_far.blocks,
            known_blocks: so_far.of,
            bytes: so_far.bytes,
            ..Progress::default()
        });
    })?;
    Ok(VerifyReport {
        checked: report.blocks,
        bytes: report.bytes,
        damaged: report.damaged,
        damaged_cids: report.damaged_cids,
        missing: report.missing,
        missing_cids: report.missing_cids,
    })
}

/// The size of the store in `dir`.
pub fn stat(store: &Store, dir: &Path) -> RepoStat {
    let stat = store.stat();
    RepoStat {
        path: dir.to_owned(),
        blocks: stat.blocks,
        bytes: stat.bytes,
        disk_bytes: stat.disk_bytes,
        feeds: stat.feeds,
        follows: stat.follows,
        quarantined: stat.quarantined,
    }
}
