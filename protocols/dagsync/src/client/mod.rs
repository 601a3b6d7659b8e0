//! The fetching side: walks along with the server, verifies each block before it follows one link of it, and stores.
//!
//! [`Fetch`] holds the walk and every rule, without I/O but the store's;
//! [`transfer`](crate::transfer) drives it over a stream.

mod types;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use dagmesh_core::limits;
use dagmesh_dag::{
    Block, BlockError, Blockstore, Codec, Selector, StoreError, check_cid_with,
    walk::{FrontierEntry, Root, Visit, Walk, WalkConfig, WalkError},
};

pub use self::types::{Checkpoint, FetchConfig, FetchError, FetchStats, Flow, Observer, Step};
use crate::message::{Chain, End, Frame, Request, Status};

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
    /// What the running request still brings is of no use: the walk was sent elsewhere, or is at its end.
    enough: bool,
    /// The end of what the running request asked for is somebody else's by now.
    cut: bool,
    /// Whether the running request names a chain, and whether one did that its provider could not follow.
    names_chain: bool,
    named_in_vain: bool,
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
            enough: false,
            cut: false,
            names_chain: false,
            named_in_vain: false,
            first_root,
            stats: FetchStats::default(),
        }
    }

    /// The first root that it was given.
    pub fn first_root(&self) -> Option<&Root> {
        self.first_root.as_ref()
    }

    /// What was moved so far.
    pub fn stats(&self) -> FetchStats {
        self.stats
    }

    /// Whether the last request has brought any block yet.
    #[cfg(feature = "net")]
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
        (self.enough, self.cut) = (false, false);
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
        let mut rest: Vec<_> = self.walk.frontier_entries().into_iter().map(|entry| self.with_origin(entry)).collect();
        let chain = self.name_chain(&mut rest)?;
        self.names_chain = chain.is_some();
        let mut roots: Vec<Root> = self.current.iter().map(root_of).collect();
        for (_, root) in rest.into_iter().take(limits::MAX_REQUEST_ROOTS - 1) {
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
            check_cid_with(&root.cid, self.config.digests)
                .map_err(|reason| WalkError::Cid { cid: Box::new(root.cid), reason })?;
        }
        self.budget = self.config.segment.unwrap_or(limits::MAX_SEGMENT_BLOCKS).clamp(1, limits::MAX_SEGMENT_BLOCKS);
        (self.received, self.answered) = (0, false);
        self.stats.segments += 1;
        Ok(Some(Request {
            roots,
            chain,
            stop: self.config.stop.clone(),
            depth: None,
            blocks: self.budget,
            bytes: limits::MAX_SEGMENT_BYTES,
        }))
    }

    /// Takes contents off the end of what is to be asked for that the chain can name: untouched ones of consecutive
    /// entries, each compared with the one before.
    fn name_chain(&self, rest: &mut Vec<(usize, Root)>) -> Result<Option<Chain>, FetchError> {
        let (entries, all) = (&self.config.chain, Selector::all());
        let first = entries.first().map_or(0, |entry| entry.seq as usize);
        let (mut chain, mut kept) = (None::<Chain>, rest.len());
        for (seq, root) in rest.iter().rev().take(limits::MAX_REQUEST_ENTRIES).take_while(|_| !self.named_in_vain) {
            let Some([before, entry]) = seq.checked_sub(first + 1).and_then(|at| entries.get(at..at + 2)) else {
                break;
            };
            let is_next = chain.is_none_or(|chain| chain.after == entry.cid);
            let is_what_it_names =
                root.cid == entry.content && root.held == Some(before.content) && root.selector == all;
            // A leaf that is held is walked here when its turn comes.
            let is_held = entry.content.codec() == Codec::Raw as u64 && self.holds(&entry.content)?;
            if !is_next || !is_what_it_names || is_held {
                break;
            }
            chain = Some(Chain { after: before.cid, to: chain.map_or(entry.cid, |chain| chain.to) });
            kept -= 1;
        }
        rest.truncate(kept);
        Ok(chain)
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
        // After a cut the provider does not know where to stop.
        self.enough |= self.cut && self.current.is_none() && self.walk.waiting() == 0;
        Ok(if self.enough { Step::Enough } else { Step::More })
    }

    /// Walks what is held; then the links among the next `count` that are neither held nor in `asked`, next first.
    /// Empty at the end of the walk alone: the first one stands there even where it is in `asked`.
    ///
    /// Reads the store: call it on a thread that may block.
    pub(crate) fn wanted(&mut self, count: usize, asked: &HashSet<Cid>) -> Result<Vec<Cid>, FetchError> {
        if !self.advance(None)? {
            return Ok(Vec::new());
        }
        let mut wanted: Vec<Cid> = self.current.iter().map(|visit| visit.cid).collect();
        for cid in self.walk.waiting_links().take(count.saturating_sub(1)) {
            if !asked.contains(cid) && !wanted.contains(cid) && !self.holds(cid)? {
                wanted.push(*cid);
            }
        }
        Ok(wanted)
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

    /// Gives the observer the last half of the links that wait under the root that is being walked, and all under later
    /// roots, if it wants them. Called between frames.
    pub(crate) fn share(&mut self) -> Result<(), FetchError> {
        if !self.observer.wants_share(self.walk.waiting()) {
            return Ok(());
        }
        let mut roots = self.walk.waiting_roots().map(|root| self.origin(root)).peekable();
        let walked = self.current.as_ref().map(|visit| self.origin(visit.root)).or_else(|| roots.peek().copied());
        let waiting = roots.take_while(|root| Some(*root) == walked).count();
        if waiting < 2 {
            return Ok(());
        }
        self.checkpoint()?;
        let given = self.walk.split_off(waiting.div_ceil(2));
        let given: Vec<_> = given.into_iter().map(|entry| self.with_origin(entry)).collect();
        if !given.is_empty() {
            self.cut = true;
            let kept = self.frontier();
            self.observer.share(kept, given);
        }
        Ok(())
    }

    /// The links still to walk, in order; those that a provider did not hold come first.
    pub fn frontier(&self) -> Vec<(usize, Root)> {
        let mut frontier = self.missing.clone();
        frontier.extend(self.current.iter().map(|visit| (self.origin(visit.root), root_of(visit))));
        let rest = self.walk.frontier_entries();
        frontier.extend(rest.into_iter().map(|entry| self.with_origin(entry)));
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
            self.enough |= self.cut && self.current.is_none();
            return if self.enough { Ok(()) } else { self.on_unexpected(cid) };
        }
        let block = Block::verify_with(cid, data, self.config.digests).map_err(|error| match error {
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
            self.enough |= self.cut && self.current.is_none();
            return if self.enough { Ok(()) } else { self.count_useless() };
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
        let is_whole = self.current.is_none() && self.walk.waiting() == 0;
        self.named_in_vain |= self.names_chain && !is_whole && end.status != Status::Segment;
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
            self.observer.held();
            if self.enough && until.is_some() {
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
                self.enough = true;
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

    fn with_origin(&self, entry: FrontierEntry) -> (usize, Root) {
        (self.origin(entry.from), entry.root)
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
