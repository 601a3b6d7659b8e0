//! The fetching side: walks along with the server, verifies each block before it follows one link of it, and stores.
//!
//! [`Fetch`] holds the walk and every rule, without I/O but the store's;
//! [`transfer`](crate::transfer) drives it over a stream.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use dagmesh_core::limits;
use dagmesh_dag::{
    Block, BlockError, Blockstore, Codec, Selector, StoreError, check_cid,
    walk::{Root, Visit, Walk, WalkConfig, WalkError},
};

use crate::message::{End, Frame, MessageError, Request, Status};

/// What to fetch.
#[derive(Debug, Clone, Default)]
pub struct FetchConfig {
    /// Links that are neither fetched nor walked.
    pub stop: Vec<Cid>,
    /// Blocks of one request at the most: the segment. `None` leaves it to the server.
    pub segment: Option<u64>,
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
    /// A hook sent the walk elsewhere: drop the stream and make the next request.
    Redirected,
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
    /// No stream to the peer could be opened.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Stream(String),
    /// The peer is too slow.
    #[error("the peer is too slow: {0}")]
    TooSlow(#[from] crate::rate::TooSlow),
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
        )
    }

    /// Whether no other peer can help: our store, our hook, or the feed itself.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::BadFeed(_) | Self::Walk(_) | Self::Store(_) | Self::Hook(_))
    }
}

/// One sync: a walk over roots, fed by one provider after another.
pub struct Fetch<O> {
    store: Arc<dyn Blockstore>,
    observer: O,
    config: FetchConfig,
    walk: Walk,
    /// The index of each root of `walk` among the roots that the caller gave.
    origins: Vec<usize>,
    /// The visit that the next block must answer.
    current: Option<Visit>,
    /// Visits whose block the provider did not hold.
    missing: Vec<(usize, Root)>,
    batch: Batch,
    /// The batch before, on its way into the store.
    storing: Option<Storing>,
    since_checkpoint: (usize, usize),
    /// How many blocks the running request asked for, and how many it has brought.
    budget: u64,
    received: u64,
    /// Whether the running request has brought anything that was asked for.
    answered: bool,
    /// A hook has sent the walk elsewhere: what the running request still brings is of no use.
    redirected: bool,
    first_root: Option<Root>,
    stats: FetchStats,
}

/// Blocks that are verified and not yet stored.
#[derive(Default)]
struct Batch {
    blocks: Vec<Block>,
    bytes: usize,
    index: HashMap<Multihash<64>, Bytes>,
}

/// A batch that is being stored on a thread of its own, so that hashing and walking go on meanwhile.
struct Storing {
    /// What can be read though it is perhaps not in the store yet.
    index: HashMap<Multihash<64>, Bytes>,
    /// Where the walk stood with this batch, if it is made durable too.
    checkpoint: Option<(Vec<(usize, Root)>, FetchStats)>,
    stored: blocking::Task<Result<(), StoreError>>,
}

impl<O: Observer> Fetch<O> {
    /// A sync of `roots`, in order, or of a frontier that an earlier one saved: each root with the index it counts for.
    pub fn new(store: Arc<dyn Blockstore>, config: FetchConfig, roots: Vec<(usize, Root)>, observer: O) -> Self {
        let first_root = roots.first().map(|(_, root)| root.clone());
        let (walk, origins) = walk(&config, roots);
        Self {
            store,
            observer,
            config,
            walk,
            origins,
            current: None,
            missing: Vec::new(),
            batch: Batch::default(),
            storing: None,
            since_checkpoint: (0, 0),
            budget: 0,
            received: 0,
            answered: false,
            redirected: false,
            first_root,
            stats: FetchStats::default(),
        }
    }

    /// What was moved so far.
    pub fn stats(&self) -> FetchStats {
        self.stats
    }

    /// Whether the last request has brought any block yet.
    pub(crate) fn has_answer(&self) -> bool {
        self.received > 0
    }

    /// Ends the sync and gives the observer back.
    pub fn into_observer(self) -> O {
        self.observer
    }

    /// Walks what the store holds, then asks for what comes next; `None` once everything is walked.
    ///
    /// Reads the store: call it on a thread that may block.
    pub fn next_request(&mut self) -> Result<Option<Request>, FetchError> {
        self.redirected = false;
        // What was visited is remembered, within bounds; past them the walk starts anew from where it stands.
        if self.walk.visits() as u64 >= limits::MAX_SEGMENT_BLOCKS {
            let frontier = self.frontier();
            (self.missing, self.current) = (Vec::new(), None);
            (self.walk, self.origins) = walk(&self.config, frontier);
        }
        if !self.advance(None)? {
            self.checkpoint()?;
            return Ok(None);
        }
        let mut roots: Vec<Root> = self.current.iter().map(root_of).collect();
        for root in self.walk.frontier().into_iter().take(limits::MAX_REQUEST_ROOTS - 1) {
            // A leaf that is held is walked here when its turn comes.
            if root.cid.codec() != Codec::Raw as u64 || !self.holds(&root.cid)? {
                roots.push(root);
            }
        }
        // A request carries few selectors; a root with one too many waits for the next request.
        let mut kinds: Vec<Selector> = Vec::new();
        let fit = roots.iter().take_while(|root| {
            if !kinds.contains(&root.selector) {
                kinds.push(root.selector.clone());
            }
            kinds.len() <= limits::MAX_REQUEST_SELECTORS
        });
        let roots: Vec<Root> = fit.cloned().collect();
        // Nobody may serve what no bytes can prove: the whole request would be refused, whomever it is made to.
        for root in &roots {
            check_cid(&root.cid).map_err(|reason| WalkError::Cid { cid: Box::new(root.cid), reason })?;
        }
        self.budget = self.config.segment.unwrap_or(limits::MAX_SEGMENT_BLOCKS).clamp(1, limits::MAX_SEGMENT_BLOCKS);
        (self.received, self.answered) = (0, false);
        self.stats.segments += 1;
        Ok(Some(Request {
            roots,
            stop: self.config.stop.clone(),
            depth: None,
            blocks: self.budget,
            bytes: limits::MAX_SEGMENT_BYTES,
        }))
    }

    /// Takes one frame of the answer to the last request.
    ///
    /// Hashes, walks and stores: call it on a thread that may block.
    pub fn on_frame(&mut self, frame: Frame) -> Result<Step, FetchError> {
        match frame {
            Frame::Block { cid, data } => self.on_block(cid, data)?,
            Frame::Missing(cid) => self.on_missing(cid)?,
            Frame::End(end) => return self.on_end(end).map(Step::End),
        }
        Ok(if self.redirected { Step::Redirected } else { Step::More })
    }

    /// Whether something waits to be stored or made durable.
    pub fn is_dirty(&self) -> bool {
        !self.batch.blocks.is_empty() || self.storing.is_some() || self.since_checkpoint.0 > 0
    }

    /// Stores what is waiting and saves where the walk stands. Called when the stream is quiet, and at each end.
    pub fn checkpoint(&mut self) -> Result<(), FetchError> {
        self.finish_storing()?;
        let Batch { blocks, .. } = std::mem::take(&mut self.batch);
        if !blocks.is_empty() {
            self.store.put_many(&blocks)?;
        }
        if !blocks.is_empty() || self.since_checkpoint.0 > 0 {
            self.store.sync()?;
        }
        self.since_checkpoint = (0, 0);
        let (frontier, stats) = (self.frontier(), self.stats);
        self.tell_checkpoint(&frontier, stats)
    }

    /// The links still to walk, in order; those that a provider did not hold come first.
    pub fn frontier(&self) -> Vec<(usize, Root)> {
        let mut frontier = self.missing.clone();
        frontier.extend(self.current.iter().map(|visit| (self.origin(visit.root), root_of(visit))));
        let rest = self.walk.frontier_entries();
        frontier.extend(rest.into_iter().map(|entry| (self.origin(entry.from), entry.root)));
        frontier
    }

    /// Puts what the last provider did not hold back to the front, to be asked of another one.
    /// Returns how many links that are.
    pub fn retry_missing(&mut self) -> usize {
        let count = self.missing.len();
        if count > 0 {
            let frontier = self.frontier();
            self.missing.clear();
            self.current = None;
            (self.walk, self.origins) = walk(&self.config, frontier);
        }
        count
    }

    /// The first link that the last provider did not hold.
    pub fn first_missing(&self) -> Option<Cid> {
        self.missing.first().map(|(_, root)| root.cid)
    }

    fn on_block(&mut self, cid: Cid, data: Bytes) -> Result<(), FetchError> {
        if self.received >= self.budget {
            return Err(FetchError::OverBudget(self.budget));
        }
        self.received += 1;
        if !self.reach(&cid)? {
            return if self.redirected { Ok(()) } else { self.on_unexpected(cid) };
        }
        let block = Block::verify(cid, data).map_err(|error| match error {
            // The walk asked for it: it is the DAG that is wrong, not who sent it.
            BlockError::Cid { cid, reason } => WalkError::Cid { cid, reason }.into(),
            error => FetchError::FalseBlock(error),
        })?;
        let Some(visit) = self.current.take() else { return Ok(()) };
        self.answered = true;
        self.stats.blocks += 1;
        self.stats.bytes += block.data().len() as u64;
        self.enter(&visit, &block)?;
        self.batch.push(block.clone());
        self.hook(&visit, &block, true)?;
        if self.batch.blocks.len() >= limits::STORE_BATCH_BLOCKS || self.batch.bytes >= limits::STORE_BATCH_BYTES {
            self.store_batch()?;
        }
        Ok(())
    }

    /// A block that is held already is passed over, up to a budget; any other was not asked for.
    fn on_unexpected(&mut self, cid: Cid) -> Result<(), FetchError> {
        if !self.holds(&cid)? {
            let expected = self.current.as_ref().map_or("nothing".to_owned(), |visit| visit.cid.to_string());
            return Err(FetchError::Unasked { got: Box::new(cid), expected });
        }
        self.count_useless()
    }

    fn count_useless(&mut self) -> Result<(), FetchError> {
        self.stats.repeated += 1;
        if self.stats.repeated > limits::MAX_REPEATED_BLOCKS + self.stats.blocks / 4 {
            return Err(FetchError::Repeated(self.stats.repeated));
        }
        Ok(())
    }

    fn on_missing(&mut self, cid: Cid) -> Result<(), FetchError> {
        if !self.reach(&cid)? {
            return self.count_useless();
        }
        self.answered = true;
        let visit = self.current.take();
        self.missing.extend(visit.map(|visit| (self.origin(visit.root), root_of(&visit))));
        if self.missing.len() > limits::MAX_REQUEST_ROOTS { Err(self.missing_error()) } else { Ok(()) }
    }

    fn on_end(&mut self, end: End) -> Result<End, FetchError> {
        self.checkpoint()?;
        match end.status {
            Status::Refused => return Err(FetchError::Refused(end.reason().to_owned())),
            Status::Busy => return Err(FetchError::Busy(end.reason().to_owned())),
            Status::Failed => return Err(FetchError::Failed(end.reason().to_owned())),
            Status::Done | Status::Segment | Status::Missing => {}
        }
        // An honest answer brings at least the first root; without that a request could be answered with nothing, for ever.
        if !self.answered
            && let Some(visit) = &self.current
        {
            return Err(FetchError::Withheld(Box::new(visit.cid)));
        }
        Ok(end)
    }

    /// The error for what no provider held.
    pub fn missing_error(&self) -> FetchError {
        let first = Box::new(self.first_missing().unwrap_or_default());
        FetchError::Missing { count: self.missing.len(), first }
    }

    /// Whether `cid` is what the walk asks for next, after what is held has been walked.
    fn reach(&mut self, cid: &Cid) -> Result<bool, FetchError> {
        Ok(self.advance(Some(cid))? && self.current.as_ref().is_some_and(|visit| visit.cid == *cid))
    }

    /// Walks what is held until a visit that is not held becomes current, or the one of `until`. False at the end, and
    /// where a hook sent the walk elsewhere while `until` was looked for.
    fn advance(&mut self, until: Option<&Cid>) -> Result<bool, FetchError> {
        while let Some(visit) = self.current.take().or_else(|| self.walk.next_visit()) {
            // The block just received is taken without a look into the store.
            if until == Some(&visit.cid) || !self.walk_held(&visit)? {
                self.current = Some(visit);
                return Ok(true);
            }
            if self.redirected && until.is_some() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Walks the block of a visit if it is held; false if it is not.
    fn walk_held(&mut self, visit: &Visit) -> Result<bool, FetchError> {
        let wanted = self.observer.wants_held();
        if visit.cid.codec() == Codec::Raw as u64 && !wanted {
            let held = self.holds(&visit.cid)?;
            self.stats.from_cache += u64::from(held);
            return Ok(held);
        }
        let Some(block) = self.load(&visit.cid)? else { return Ok(false) };
        self.stats.from_cache += 1;
        self.enter(visit, &block)?;
        if wanted {
            self.hook(visit, &block, false)?;
        }
        Ok(true)
    }

    fn enter(&mut self, visit: &Visit, block: &Block) -> Result<(), FetchError> {
        let held = if visit.cid.codec() == Codec::Raw as u64 { None } else { visit.held };
        let held = held.map(|cid| self.load(&cid)).transpose()?.flatten();
        Ok(self.walk.enter(visit, block, held.as_ref())?)
    }

    fn hook(&mut self, visit: &Visit, block: &Block, received: bool) -> Result<(), FetchError> {
        let origin = self.origin(visit.root);
        match self.observer.block(origin, visit, block, received) {
            Flow::Continue => Ok(()),
            Flow::Fail(reason) => {
                self.checkpoint()?;
                Err(FetchError::Hook(reason))
            }
            Flow::Next(cid) => {
                let selector =
                    self.first_root.as_ref().map_or_else(|| visit.selector().clone(), |root| root.selector.clone());
                self.missing.clear();
                self.current = None;
                self.redirected = true;
                (self.walk, self.origins) = walk(&self.config, vec![(origin, Root { cid, selector, held: None })]);
                Ok(())
            }
        }
    }

    /// Hands the batch to a thread that stores it, once the one before is stored; where a checkpoint is due, it is made
    /// durable too, and the observer hears of it once it is.
    fn store_batch(&mut self) -> Result<(), FetchError> {
        self.finish_storing()?;
        let Batch { blocks, bytes, index } = std::mem::take(&mut self.batch);
        self.since_checkpoint.0 += blocks.len();
        self.since_checkpoint.1 += bytes;
        let (blocks_since, bytes_since) = self.since_checkpoint;
        let due = blocks_since >= limits::CHECKPOINT_BLOCKS || bytes_since >= limits::CHECKPOINT_BYTES;
        let checkpoint = due.then(|| (self.frontier(), self.stats));
        if due {
            self.since_checkpoint = (0, 0);
        }
        let store = Arc::clone(&self.store);
        let stored = blocking::unblock(move || {
            store.put_many(&blocks)?;
            if due { store.sync() } else { Ok(()) }
        });
        self.storing = Some(Storing { index, checkpoint, stored });
        Ok(())
    }

    /// Waits for the batch that is being stored.
    fn finish_storing(&mut self) -> Result<(), FetchError> {
        let Some(Storing { checkpoint, stored, .. }) = self.storing.take() else { return Ok(()) };
        futures::executor::block_on(stored)?;
        match checkpoint {
            Some((frontier, stats)) => self.tell_checkpoint(&frontier, stats),
            None => Ok(()),
        }
    }

    fn tell_checkpoint(&mut self, frontier: &[(usize, Root)], stats: FetchStats) -> Result<(), FetchError> {
        let roots_done = frontier.iter().map(|(root, _)| *root).min().unwrap_or(usize::MAX);
        Ok(self.observer.checkpoint(Checkpoint { roots_done, frontier, stats })?)
    }

    fn load(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        match self.underway(cid) {
            Some(data) => Ok(Some(Block::trusted(*cid, data.clone()))),
            None => self.store.block(cid),
        }
    }

    fn holds(&self, cid: &Cid) -> Result<bool, StoreError> {
        Ok(self.underway(cid).is_some() || self.store.has(cid)?)
    }

    /// A block that is verified and perhaps not in the store yet.
    fn underway(&self, cid: &Cid) -> Option<&Bytes> {
        let storing = self.storing.as_ref().map(|storing| &storing.index);
        [Some(&self.batch.index), storing].into_iter().flatten().find_map(|index| index.get(cid.hash()))
    }

    fn origin(&self, root: usize) -> usize {
        self.origins.get(root).copied().unwrap_or(root)
    }
}

impl Batch {
    fn push(&mut self, block: Block) {
        self.bytes += block.data().len();
        self.index.insert(*block.cid().hash(), block.data().clone());
        self.blocks.push(block);
    }
}

fn root_of(visit: &Visit) -> Root {
    Root { cid: visit.cid, selector: visit.selector().clone(), held: visit.held }
}

fn walk(config: &FetchConfig, roots: Vec<(usize, Root)>) -> (Walk, Vec<usize>) {
    let (origins, roots) = roots.into_iter().unzip();
    let config = WalkConfig { stop: config.stop.iter().copied().collect(), ..WalkConfig::default() };
    (Walk::new(config, roots), origins)
}
