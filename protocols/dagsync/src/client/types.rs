//! What a fetch is told, what it tells, and how it fails.

use std::sync::Arc;

use cid::Cid;
use dagmesh_dag::{
    Block, BlockError, Digests, StoreError,
    walk::{Root, Visit, WalkError},
};

use crate::{
    feed_sync::EntryRef,
    message::{End, MessageError},
};

/// What to fetch.
#[derive(Debug, Clone, Default)]
pub struct FetchConfig {
    /// Links that are neither fetched nor walked.
    pub stop: Vec<Cid>,
    /// Blocks of one request at the most: the segment. `None` leaves it to the server.
    pub segment: Option<u64>,
    /// Entries of a feed, oldest first, numbered without a gap. Contents among the roots, each counting for its entry's
    /// number, are asked for by naming this chain.
    pub chain: Arc<[EntryRef]>,
    /// How much of a digest proves a block.
    pub digests: Digests,
}

/// What a hook wants done after a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Leave what has not been walked yet, and go on from this CID with the selector of the first root.
    Next(Cid),
    /// End the sync with this reason.
    Fail(String),
}

/// Where a sync stands when what it has stored has become durable.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    /// The closures of so many roots, counted from the first, are whole and durable.
    pub roots_done: usize,
    /// Links still to walk, in order, each with the index of its root.
    pub frontier: &'a [(usize, Root)],
    /// What was moved so far.
    pub stats: FetchStats,
}

/// What came of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The answer goes on.
    More,
    /// The answer is over.
    End(End),
    /// What it still brings is of no use: drop the stream and make the next request.
    Enough,
}

/// Looks on while a sync runs. Called on the thread that stores blocks, in walk order.
pub trait Observer: Send + 'static {
    /// A block under root `root` was walked: one received just now and verified, or (`received` false) one that the
    /// store held; the latter only where [`wants_held`](Self::wants_held).
    fn block(&mut self, _root: usize, _visit: &Visit, _block: &Block, _received: bool) -> Flow {
        Flow::Continue
    }

    /// Whether blocks that the store already held are shown too. Without it, held leaves are not even read.
    fn wants_held(&self) -> bool {
        false
    }

    /// A visit's block was held, and was walked or passed over.
    fn held(&mut self) {}

    /// Whether somebody else is to have a part of the `waiting` links that wait to be walked. Asked between blocks,
    /// often.
    fn wants_share(&mut self, _waiting: usize) -> bool {
        false
    }

    /// From now on this fetch walks what `kept` says, and no longer what `given` says; both in order, all before them
    /// durable.
    fn share(&mut self, _kept: Vec<(usize, Root)>, _given: Vec<(usize, Root)>) {}

    /// All blocks walked so far are durable. An error ends the sync.
    fn checkpoint(&mut self, _checkpoint: Checkpoint<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Looks at nothing.
impl Observer for () {}

/// What a sync moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchStats {
    /// Blocks received and stored.
    pub blocks: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
    /// Blocks walked that the store held already.
    pub from_cache: u64,
    /// Blocks received that the store held already; passed over.
    pub repeated: u64,
    /// Requests made.
    pub segments: u64,
}

impl std::ops::AddAssign for FetchStats {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.bytes += other.bytes;
        self.from_cache += other.from_cache;
        self.repeated += other.repeated;
        self.segments += other.segments;
    }
}

/// Why a sync cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The peer sent bytes that are not the block they claim to be.
    #[error("the peer sent a false block: {0}")]
    FalseBlock(#[from] BlockError),
    /// The peer sent a block that the walk does not ask for.
    #[error("the peer sent {got} where {expected} was next")]
    Unasked {
        /// What came.
        got: Box<Cid>,
        /// What the walk asks for next; nothing where it is at its end.
        expected: String,
    },
    /// The peer sent too many blocks again that were held already.
    #[error("the peer sent {0} blocks that are held already")]
    Repeated(u64),
    /// The peer sent more than it was asked for.
    #[error("the peer sent more than the {0} blocks it was asked for")]
    OverBudget(u64),
    /// The peer sent a frame that is none.
    #[error("the peer sent a bad frame: {0}")]
    Message(#[from] MessageError),
    /// The peer says it is done, and yet did not send what it was asked for.
    #[error("the peer ended without sending {0}")]
    Withheld(Box<Cid>),
    /// The peer refuses.
    #[error("the peer refuses: {0}")]
    Refused(String),
    /// The peer has no room now.
    #[error("the peer is busy: {0}")]
    Busy(String),
    /// The peer failed.
    #[error("the peer failed: {0}")]
    Failed(String),
    /// Blocks that no provider held.
    #[error("{count} blocks are missing at the peer, the first is {first}")]
    Missing {
        /// How many.
        count: usize,
        /// The first of them.
        first: Box<Cid>,
    },
    /// The publisher's chain is not what a feed is.
    #[error("the publisher's feed is broken: {0}")]
    BadFeed(String),
    /// The DAG itself cannot be walked.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Our store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A hook ended it.
    #[error("ended by a hook: {0}")]
    Hook(String),
    /// What the peer answered is no answer.
    #[error("the peer answered wrongly: {0}")]
    BadAnswer(String),
    /// No stream to the peer could be opened.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Stream(String),
    /// The peer is too slow.
    #[error("the peer is too slow: {0}")]
    TooSlow(#[from] crate::rate::TooSlow),
    /// The peer is much slower than another one that has nothing to do.
    #[error("the peer brought {0} bytes in the time in which another one could have brought much more")]
    Overtaken(u64),
}

impl FetchError {
    /// Whether the peer broke the protocol, so that it is to be penalised and another one asked.
    pub fn is_bad_peer(&self) -> bool {
        matches!(
            self,
            Self::FalseBlock(_)
                | Self::Unasked { .. }
                | Self::Repeated(_)
                | Self::OverBudget(_)
                | Self::Message(_)
                | Self::Withheld(_)
                | Self::BadAnswer(_)
        )
    }

    /// Whether no other peer can help: our store, our hook, or the feed itself.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::BadFeed(_) | Self::Walk(_) | Self::Store(_) | Self::Hook(_))
    }
}
