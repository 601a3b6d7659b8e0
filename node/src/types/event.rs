//! What happens in a node, for whoever watches.

use cid::Cid;
use dagmesh_dag::FeedName;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::text;

/// What one peer brought of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Who.
    pub peer_id: PeerId,
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Something happened. In JSON an object whose `event` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A head of our own moved.
    Published {
        /// Which feed.
        feed: FeedName,
        /// The new head.
        #[serde(with = "text::one")]
        head: Cid,
        /// Its sequence number.
        seq: u64,
    },
    /// A followed publisher's newer head was heard of.
    HeadAnnounced {
        /// Who.
        publisher: PeerId,
        /// Which feed.
        feed: FeedName,
        /// The head.
        #[serde(with = "text::one")]
        head: Cid,
        /// Its sequence number.
        seq: u64,
    },
    /// A sync began.
    SyncStarted {
        /// Whose feed.
        publisher: PeerId,
        /// Which feed.
        feed: FeedName,
        /// From this head.
        #[serde(with = "text::one")]
        head: Cid,
        /// Down to this link.
        #[serde(with = "text::option")]
        stop: Option<Cid>,
        /// Who serves it.
        from: PeerId,
    },
    /// A sync goes on; at most a few a second.
    SyncProgress {
        /// Whose feed.
        publisher: PeerId,
        /// Which feed.
        feed: FeedName,
        /// Its head.
        #[serde(with = "text::one")]
        head: Cid,
        /// Blocks held of it.
        have_blocks: u64,
        /// Blocks known of it so far.
        known_blocks: u64,
        /// Bytes that have travelled.
        bytes: u64,
        /// How long nothing has come.
        stalled_ms: u64,
    },
    /// A sync is done: all of it is on disk.
    SyncFinished {
        /// Whose feed.
        publisher: PeerId,
        /// Which feed.
        feed: FeedName,
        /// Its head.
        #[serde(with = "text::one")]
        head: Cid,
        /// Entries that are new.
        count: u64,
        /// Blocks that travelled.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
        /// How long it took.
        duration_ms: u64,
        /// Who brought any of them, and how much; several where it was fetched from several at once.
        #[serde(default)]
        from: Vec<Share>,
    },
    /// A sync failed.
    SyncFailed {
        /// Whose feed.
        publisher: PeerId,
        /// Which feed.
        feed: FeedName,
        /// Its head, where one was known.
        #[serde(default, with = "text::option")]
        head: Option<Cid>,
        /// Why.
        reason: String,
        /// When it is tried again; `None`: not before something changes.
        retry_in_ms: Option<u64>,
    },
    /// One more entry is held with its whole content.
    LatestMoved {
        /// Whose feed.
        publisher: PeerId,
        /// Which feed.
        feed: FeedName,
        /// The entry.
        #[serde(with = "text::one")]
        entry: Cid,
        /// Its sequence number.
        seq: u64,
        /// What it carries.
        #[serde(with = "text::one")]
        content: Cid,
    },
    /// An entry of a followed chain is not believed; its content was left out, and the chain went on past it.
    EntryRefused {
        /// Whose feed.
        publisher: PeerId,
        /// Which feed.
        feed: FeedName,
        /// The entry.
        #[serde(with = "text::one")]
        entry: Cid,
        /// Why.
        reason: String,
    },
    /// A publisher signed two heads with one sequence number. The one known first is kept; told once a number.
    Equivocation {
        /// Who.
        publisher: PeerId,
        /// Which feed.
        feed: FeedName,
        /// The sequence number.
        seq: u64,
        /// Both heads.
        #[serde(with = "text::list")]
        heads: Vec<Cid>,
    },
    /// The first connection with a peer stands.
    PeerConnected {
        /// Who.
        peer_id: PeerId,
        /// Where.
        addr: Multiaddr,
    },
    /// The last connection with a peer is gone.
    PeerDisconnected {
        /// Who.
        peer_id: PeerId,
        /// Why, where that is known.
        #[serde(default)]
        reason: Option<String>,
    },
    /// This watcher was too slow and missed events.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event {
    /// Its name, as in the field `event`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Published { .. } => "published",
            Self::HeadAnnounced { .. } => "head_announced",
            Self::SyncStarted { .. } => "sync_started",
            Self::SyncProgress { .. } => "sync_progress",
            Self::SyncFinished { .. } => "sync_finished",
            Self::SyncFailed { .. } => "sync_failed",
            Self::LatestMoved { .. } => "latest_moved",
            Self::EntryRefused { .. } => "entry_refused",
            Self::Equivocation { .. } => "equivocation",
            Self::PeerConnected { .. } => "peer_connected",
            Self::PeerDisconnected { .. } => "peer_disconnected",
            Self::Lagged { .. } => "lagged",
        }
    }
}
