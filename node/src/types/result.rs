//! What a node answers about files, feeds and its store, and how far it is.

use std::path::PathBuf;

use cid::Cid;
use dagmesh_dag::FeedName;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::text;

// ---- Results: files and DAGs -----------------------------------------------------------------------------------

/// A file or folder was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Its root.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Its blocks, each counted once.
    pub blocks: u64,
    /// The bytes of the files in it.
    pub bytes: u64,
    /// Its files.
    #[serde(default)]
    pub files: u64,
    /// Those of its blocks that were not held before.
    #[serde(default)]
    pub new_blocks: u64,
    /// Paths that were passed over (sockets, devices, and what could not be read), at most 100.
    #[serde(default)]
    pub skipped: Vec<String>,
}

/// A file or folder was written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gotten {
    /// Its root.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Not known: its block is not held.
    Unknown,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its name.
    pub name: String,
    /// Its root.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// What it is.
    pub kind: EntryKind,
    /// Size of the file, or of all blocks of a folder; `None` where it is not known.
    pub size: Option<u64>,
}

/// A block was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockPut {
    /// Its CID.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Its size.
    pub bytes: u64,
}

/// The size of a DAG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DagStat {
    /// Its root.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Blocks of it that are held, each counted once.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Longest path from the root, in links.
    pub depth: u64,
    /// Links to blocks that are not held.
    #[serde(default)]
    pub missing: u64,
}

/// A CAR was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarImported {
    /// The roots that its header names.
    #[serde(with = "text::list")]
    pub roots: Vec<Cid>,
    /// Blocks in it.
    pub blocks: u64,
    /// Their bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Those that were not held before.
    #[serde(default)]
    pub new_blocks: u64,
}

// ---- Results: feeds --------------------------------------------------------------------------------------------

/// A feed's head was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Which feed.
    pub feed: FeedName,
    /// Its new head: the entry.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// The entry's sequence number.
    pub seq: u64,
    /// What the entry carries.
    #[serde(with = "text::one")]
    pub content: Cid,
    /// Blocks that were not held before, the entry among them.
    pub blocks_added: u64,
    /// Peers that it was announced to at once; others hear of it when they connect.
    #[serde(default)]
    pub peers: usize,
    /// The IPNS name that leads to the feed, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A signed head, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Who signed it.
    pub publisher: PeerId,
    /// Which feed.
    pub feed: FeedName,
    /// The entry.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// Its sequence number.
    pub seq: u64,
    /// When it was signed.
    pub time: u64,
}

/// A head was announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The head.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// Peers that it was sent to; with 0 it is kept and sent as soon as one is there.
    pub peers: usize,
    /// The IPNS name that leads to the feed, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How far a followed feed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowState {
    /// The publisher's head is not known yet.
    Waiting,
    /// A newer head is known, and its sync waits for its turn or its next try.
    Behind,
    /// A sync runs.
    Syncing,
    /// All that is known is held.
    InSync,
    /// It cannot go on by itself (a fork, or the publisher refuses us).
    Failed,
}

/// A followed feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// Whose.
    pub publisher: PeerId,
    /// Which.
    pub feed: FeedName,
    /// How far it is.
    pub state: FollowState,
    /// Why it is not in sync, and what happens next; `None` where it is.
    pub reason: Option<String>,
    /// The newest entry that is held with its whole content.
    #[serde(with = "text::option")]
    pub latest: Option<Cid>,
    /// The newest head that is known.
    #[serde(with = "text::option")]
    pub announced: Option<Cid>,
    /// Blocks that the running sync knows of, or the last one had.
    pub known_blocks: u64,
    /// Those of them that are held.
    pub have_blocks: u64,
    /// Sequence number of `latest`.
    #[serde(default)]
    pub latest_seq: Option<u64>,
    /// Sequence number of `announced`.
    #[serde(default)]
    pub announced_seq: Option<u64>,
    /// Since when `state` has held.
    #[serde(default)]
    pub since: u64,
    /// When the next try is due, where one is.
    #[serde(default)]
    pub retry_at: Option<u64>,
    /// As [`FollowRequest::keep`](super::FollowRequest::keep).
    #[serde(default)]
    pub keep: Option<u64>,
    /// As [`FollowRequest::depth`](super::FollowRequest::depth).
    #[serde(default)]
    pub depth: Option<u64>,
    /// The IPNS name that it is followed by, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What is followed no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfollowed {
    /// Whose.
    pub publisher: PeerId,
    /// Which feeds.
    pub feeds: Vec<FeedName>,
}

/// One sync is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// Where it began.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// Where it ended: the link that it did not fetch; `None` at the start of the chain.
    #[serde(with = "text::option")]
    pub stop: Option<Cid>,
    /// Blocks that travelled.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that they came in.
    pub segments: u64,
    /// Blocks that were held already.
    pub from_cache: u64,
    /// Entries of the chain that were walked.
    #[serde(default)]
    pub entries: u64,
}

/// One string that leads to a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketMade {
    /// The string, for `dagmesh follow`.
    pub ticket: String,
    /// The peer id in it.
    pub peer_id: PeerId,
    /// The addresses in it.
    pub addrs: Vec<Multiaddr>,
    /// The feed in it.
    pub feed: FeedName,
}

// ---- Results: the store ----------------------------------------------------------------------------------------

/// What `gc` removed, or would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Blocks.
    pub removed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that stay.
    #[serde(default)]
    pub kept: u64,
    /// Whether nothing was really removed.
    #[serde(default)]
    pub dry_run: bool,
}

/// What `repo verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Blocks that were hashed again.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that failed; they were put aside and count as not held.
    pub damaged: u64,
    /// The first 1,024 of those. The store knows no codec, so they are told as raw.
    #[serde(with = "text::list")]
    pub damaged_cids: Vec<Cid>,
    /// Blocks that something needs and that are not held.
    #[serde(default)]
    pub missing: u64,
    /// The first 1,024 of those.
    #[serde(default, with = "text::list")]
    pub missing_cids: Vec<Cid>,
}

/// The size of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStat {
    /// Where it is.
    pub path: PathBuf,
    /// Blocks held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that it takes on the disk.
    pub disk_bytes: u64,
    /// Own feeds.
    #[serde(default)]
    pub feeds: u64,
    /// Feeds followed.
    #[serde(default)]
    pub follows: u64,
    /// Blocks put aside because they no longer match their CID.
    #[serde(default)]
    pub quarantined: u64,
}

/// `{}`: done, with nothing to say about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

// ---- Progress --------------------------------------------------------------------------------------------------

/// What a long command is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Looking for a peer and connecting to it.
    #[default]
    Connecting,
    /// Reading files and making blocks of them.
    Importing,
    /// Fetching the chain of entries.
    Chain,
    /// Fetching the content of an entry.
    Content,
    /// Writing files.
    Exporting,
    /// Walking what is held.
    Walking,
    /// Hashing blocks again.
    Verifying,
    /// Removing blocks.
    Removing,
    /// Nothing has come for a while; [`Progress::note`] says why.
    Stalled,
}

/// How far a long command is. All counts grow, and `known` figures may be passed while more is discovered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Blocks done.
    pub done_blocks: u64,
    /// Blocks known to be part of it so far.
    pub known_blocks: u64,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes known to be part of it, where that is known.
    #[serde(default)]
    pub known_bytes: Option<u64>,
    /// Files done.
    #[serde(default)]
    pub files: u64,
    /// One short sentence, where there is more to say.
    #[serde(default)]
    pub note: Option<String>,
}
