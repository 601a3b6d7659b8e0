//! Syncing one feed, in two phases: its chain of small entries from the head to the latest synced one, then each
//! entry's content, oldest first. `latest` moves entry by entry, and is never ahead of what is on disk.
//!
//! [`FeedSync`] shares the work among its providers, and goes on after a restart from what its [`Journal`] saved.

use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{Block, Blockstore, StoreError, selector::Selector, walk::Root};

pub use crate::schema::{Link, Schema};
use crate::{
    client::{Checkpoint, Fetch, FetchConfig, FetchError, FetchStats, Flow, Observer},
    pool::{self, Crew, Job, OnCheckpoint},
};

/// An entry by its place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef {
    /// Its sequence number.
    pub seq: u64,
    /// Its CID.
    pub cid: Cid,
    /// What it carries.
    pub content: Cid,
}

/// Where a sync stands: what a killed node goes on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The head that is being synced.
    pub head: Cid,
    /// The phase, and how far its roots reach.
    pub phase: Phase,
    /// Links still to walk, in order; in [`Phase::Content`] each with the sequence number of its entry.
    pub frontier: Vec<(usize, Root)>,
}

/// The phases of a feed's sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The chain of entries is being fetched.
    Chain,
    /// The contents of the entries up to this sequence number are being fetched.
    Content {
        /// The last entry that the frontier covers.
        upto: u64,
    },
}

/// Keeps what must outlive a sync. Called on the thread that stores blocks.
pub trait Journal: Send + Sync + 'static {
    /// Replaces what was saved of this sync; nothing where it is over. What was stored before is durable already.
    fn save(&self, saved: Option<&Saved>) -> Result<(), StoreError>;

    /// Moves `latest` over these entries, oldest first, and replaces what was saved, in one transaction. Each entry's
    /// closure is whole and durable.
    fn move_latest(&self, entries: &[EntryRef], saved: Option<&Saved>) -> Result<(), StoreError>;

    /// How far the sync is: what it moved in all, and how many links are known and not walked yet.
    fn progress(&self, _phase: Phase, _stats: FetchStats, _waiting: usize) {}
}

/// Keeps nothing: for a sync that moves no `latest`.
impl Journal for () {
    fn save(&self, _: Option<&Saved>) -> Result<(), StoreError> {
        Ok(())
    }

    fn move_latest(&self, _: &[EntryRef], _: Option<&Saved>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Sees each block of a sync, in walk order, on the thread that stores it; it decides at once how the sync goes on.
pub trait BlockHook: Send + Sync + 'static {
    /// A block was walked; `received` tells those that travelled from those that were held already.
    fn block(&self, block: &Block, received: bool) -> Flow;
}

impl<F: Fn(&Block, bool) -> Flow + Send + Sync + 'static> BlockHook for F {
    fn block(&self, block: &Block, received: bool) -> Flow {
        self(block, received)
    }
}

/// One peer to fetch from.
pub trait Provider: Send + Sync {
    /// Sees to it that the peer can be reached, before it is given a part of the work.
    fn ready(&self) -> impl Future<Output = Result<(), FetchError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Drives the fetch with this peer, as far as the peer can; gives it back.
    fn sync<O: Observer>(
        &self,
        fetch: Fetch<O>,
    ) -> impl Future<Output = (Option<Fetch<O>>, Result<(), FetchError>)> + Send;
}

/// What to sync.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How its entries are read.
    pub schema: Schema,
    /// The head to start from.
    pub head: Cid,
    /// The sequence number that its publisher signed for it, where that is known.
    pub seq: Option<u64>,
    /// The newest entry that is held with its whole content: the stop link. It is neither fetched nor hooked.
    pub latest: Option<(Cid, u64)>,
    /// Most entries of the chain to take.
    pub depth: Option<u64>,
    /// Most entries of the chain to take where there is no `latest`.
    pub first_depth: Option<u64>,
    /// Take the content of so many of the newest entries; of all where absent.
    pub keep: Option<u64>,
    /// Blocks of one request; the server decides where absent.
    pub segment: Option<u64>,
    /// Where an earlier sync of this feed stood.
    pub saved: Option<Saved>,
}

/// What a finished sync has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was moved, over all providers.
    pub stats: FetchStats,
    /// Entries that are new.
    pub entries: u64,
    /// What each provider moved, in the order in which they were given.
    pub shares: Vec<FetchStats>,
    /// Entries that were refused, and why, the newest first; at most [`limits::MAX_REFUSED_ENTRIES`] of them.
    pub refused: Vec<(Cid, String)>,
}

/// Why a sync did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// At which of the providers it failed last, if at any.
    pub provider: Option<usize>,
    /// Why.
    #[source]
    pub error: FetchError,
}

impl From<FetchError> for Failed {
    fn from(error: FetchError) -> Self {
        Self { provider: None, error }
    }
}

/// One sync of one feed.
pub struct FeedSync<J> {
    store: Arc<dyn Blockstore>,
    shared: Arc<Shared<J>>,
    hook: Option<Arc<dyn BlockHook>>,
    plan: Plan,
    /// The chain, once it is whole.
    listed: Option<Listed>,
}

/// A chain, as far as it is to be synced.
#[derive(Clone, Default)]
struct Listed {
    /// The entries, newest first, each with its number.
    entries: Vec<(u64, Cid)>,
    /// The numbers of those that are refused.
    refused: HashSet<u64>,
    /// The first of them, with the reasons.
    reasons: Vec<(Cid, String)>,
}

/// Who takes part in a run, and who hears of those that fail.
struct Hands<'a, P> {
    providers: &'a [P],
    crew: Crew,
    on_failure: &'a mut (dyn FnMut(usize, &FetchError) + Send),
}

struct Shared<J> {
    journal: J,
    saved: Mutex<Option<Saved>>,
    latest: Mutex<Option<(Cid, u64)>>,
    /// What the fetches that have ended moved.
    moved: Mutex<FetchStats>,
}

impl<J: Journal> FeedSync<J> {
    /// A sync as `plan` says.
    pub fn new(store: Arc<dyn Blockstore>, journal: J, hook: Option<Arc<dyn BlockHook>>, mut plan: Plan) -> Self {
        let saved = Mutex::new(plan.saved.take());
        let shared = Shared { journal, saved, latest: Mutex::new(plan.latest), moved: Mutex::default() };
        Self { store, shared: Arc::new(shared), hook, plan, listed: None }
    }

    /// Goes on with `provider` until all is synced, or the provider can do no more; then call it with another one.
    pub async fn run<P: Provider>(&mut self, provider: &P) -> Result<Report, FetchError> {
        let providers = std::slice::from_ref(provider);
        self.run_with(providers, &mut |_, _| {}).await.map_err(|failed| failed.error)
    }

    /// Goes on with these providers, the likeliest first, until all is synced, or none of them can do more.
    ///
    /// The chain comes from one at a time; so does everything where a hook wants the blocks in walk order. What takes
    /// longer than a moment is shared: each fetches a part, and takes over from those that are slow, that withhold
    /// blocks, or that fail. `on_failure` hears of each of those, and why, while others go on.
    ///
    /// Cancel-safe: what came is kept, and the journal knows where it stands.
    pub async fn run_with<P: Provider>(
        &mut self,
        providers: &[P],
        on_failure: &mut (dyn FnMut(usize, &FetchError) + Send),
    ) -> Result<Report, Failed> {
        let mut hands = Hands { providers, crew: Crew::new(providers.len()), on_failure };
        if self.listed.is_none() {
            self.chain(&mut hands).await?;
            self.listed = Some(self.list().await?);
        }
        let Listed { entries, refused, reasons } = self.listed.clone().unwrap_or_default();
        self.contents(&mut hands, &entries, Arc::new(refused)).await?;
        let shared = Arc::clone(&self.shared);
        blocking::unblock(move || shared.set(None)).await.map_err(FetchError::from)?;
        let (stats, shares) = (self.shared.moved(), hands.crew.shares());
        Ok(Report { stats, entries: entries.len() as u64, shares, refused: reasons })
    }

    /// Phase one: the entries from the head down to the stop link.
    async fn chain<P: Provider>(&mut self, hands: &mut Hands<'_, P>) -> Result<(), Failed> {
        let saved = self.shared.saved().filter(|saved| saved.phase == Phase::Chain && saved.head == self.plan.head);
        let roots = saved.map(|saved| saved.frontier).unwrap_or_else(|| {
            let selector = Selector::chain(self.plan.schema.field, self.limit(), None);
            vec![(0, Root { cid: self.plan.head, selector, held: None })]
        });
        // A content phase that was cut short by this newer head keeps what it saved until its turn comes again.
        let keep_saved = matches!(self.shared.saved(), Some(Saved { phase: Phase::Content { .. }, .. }));
        let (shared, head) = (Arc::clone(&self.shared), self.plan.head);
        let on_checkpoint = move |checkpoint: Checkpoint<'_>| {
            shared.progress(Phase::Chain, &checkpoint);
            if keep_saved {
                return Ok(());
            }
            shared.set(Some(Saved { head, phase: Phase::Chain, frontier: checkpoint.frontier.to_vec() }))
        };
        let stop = self.plan.latest.iter().map(|(cid, _)| *cid).collect();
        let Plan { segment, schema: Schema { digests, .. }, .. } = self.plan;
        let config = FetchConfig { stop, segment, digests, ..FetchConfig::default() };
        self.fetch(hands, config, roots, Box::new(on_checkpoint)).await
    }

    /// How many entries the chain may have at the most.
    fn limit(&self) -> Option<u64> {
        let Plan { latest, seq, depth, first_depth, .. } = self.plan;
        let span = match (latest, seq) {
            (Some((_, latest)), Some(seq)) => Some(seq.saturating_sub(latest).max(1)),
            (Some(_), None) => None,
            (None, _) => first_depth,
        };
        depth.into_iter().chain(span).min()
    }

    /// Reads the fetched chain from the store, newest first, and checks that it is one.
    async fn list(&self) -> Result<Listed, FetchError> {
        let (store, plan, limit) = (Arc::clone(&self.store), self.plan.clone(), self.limit());
        blocking::unblock(move || list(store.as_ref(), &plan, limit)).await
    }

    /// Phase two: what the entries carry, oldest first, many entries a request.
    async fn contents<P: Provider>(
        &mut self,
        hands: &mut Hands<'_, P>,
        entries: &[(u64, Cid)],
        refused: Arc<HashSet<u64>>,
    ) -> Result<(), Failed> {
        let Plan { head, segment, schema, .. } = self.plan;
        let total = entries.len() as u64;
        let without_content = total - self.plan.keep.unwrap_or(total).min(total);
        let mut oldest_first = entries.iter().rev().copied().enumerate();
        loop {
            let batch: Vec<(usize, (u64, Cid))> = oldest_first.by_ref().take(limits::MAX_REQUEST_ENTRIES).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let (store, shared) = (Arc::clone(&self.store), Arc::clone(&self.shared));
            let (plan, refused) = (self.plan.clone(), Arc::clone(&refused));
            let prepared =
                blocking::unblock(move || prepare(store.as_ref(), &shared, &plan, batch, without_content, &refused));
            let prepared = prepared.await?;
            let Some(ContentBatch { mut entries, roots }) = prepared else { continue };
            let shared = Arc::clone(&self.shared);
            let chain = if schema.grows { entries.clone().into() } else { Arc::default() };
            let phase = Phase::Content { upto: entries.last().map_or(0, |entry| entry.seq) };
            let on_checkpoint = move |checkpoint: Checkpoint<'_>| {
                shared.progress(phase, &checkpoint);
                let done = entries.partition_point(|entry| (entry.seq as usize) < checkpoint.roots_done);
                let whole: Vec<_> = entries.drain(..done).collect();
                let saved = Saved { head, phase, frontier: checkpoint.frontier.to_vec() };
                if whole.is_empty() { shared.set(Some(saved)) } else { shared.move_latest(&whole, Some(saved)) }
            };
            let config = FetchConfig { chain, segment, digests: schema.digests, ..FetchConfig::default() };
            self.fetch(hands, config, roots, Box::new(on_checkpoint)).await?;
        }
    }

    async fn fetch<P: Provider>(
        &mut self,
        hands: &mut Hands<'_, P>,
        config: FetchConfig,
        roots: Vec<(usize, Root)>,
        on_checkpoint: OnCheckpoint,
    ) -> Result<(), Failed> {
        let (store, hook) = (Arc::clone(&self.store), self.hook.clone());
        let job = Job { store, config, roots, hook, on_checkpoint };
        let (moved, result) = pool::run(hands.providers, &mut hands.crew, job, hands.on_failure).await;
        *self.shared.moved.lock().unwrap_or_else(PoisonError::into_inner) += moved;
        result
    }
}

/// A run of entries whose contents are fetched together.
struct ContentBatch {
    entries: Vec<EntryRef>,
    roots: Vec<(usize, Root)>,
}

/// Reads the entries of a batch and says what is to be fetched for them; `None` where nothing is left to do.
fn prepare<J: Journal>(
    store: &dyn Blockstore,
    shared: &Shared<J>,
    plan: &Plan,
    batch: Vec<(usize, (u64, Cid))>,
    without_content: u64,
    refused: &HashSet<u64>,
) -> Result<Option<ContentBatch>, FetchError> {
    let latest = shared.latest();
    let mut held = match latest {
        Some((cid, _)) if plan.schema.grows => held_content(store, plan.schema, &cid)?,
        _ => None,
    };
    let (mut bare, mut entries, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (seq, cid)) in batch {
        let (Link { content, .. }, _) = link(store, plan.schema, &cid)?;
        let found = EntryRef { seq, cid, content };
        if latest.is_some_and(|(_, latest)| seq <= latest) {
            continue;
        }
        if (index as u64) < without_content {
            bare.push(found);
            continue;
        }
        entries.push(found);
        if !refused.contains(&seq) {
            fresh.push((seq as usize, Root { cid: content, selector: Selector::all(), held }));
            held = plan.schema.grows.then_some(content);
        }
    }
    if !bare.is_empty() {
        shared.move_latest(&bare, shared.saved())?;
    }
    if entries.is_empty() {
        return Ok(None);
    }
    // What an earlier run left over stands for the entries that it covered.
    let roots = match shared.saved() {
        Some(Saved { phase: Phase::Content { upto }, frontier, head }) if plan.seq.is_some() || head == plan.head => {
            let first = entries.first().map_or(0, |entry| entry.seq as usize);
            let mut roots: Vec<_> = frontier.into_iter().filter(|(seq, _)| *seq >= first).collect();
            roots.extend(fresh.into_iter().filter(|(seq, _)| *seq as u64 > upto));
            roots
        }
        _ => fresh,
    };
    Ok(Some(ContentBatch { entries, roots }))
}

/// The content of the latest entry, if it is there: what the client may say it holds.
fn held_content(store: &dyn Blockstore, schema: Schema, latest: &Cid) -> Result<Option<Cid>, FetchError> {
    let Some(block) = store.block(latest)? else { return Ok(None) };
    let content = (schema.read)(&block).ok().map(|link| link.content);
    Ok(match content {
        Some(content) if store.has(&content)? => Some(content),
        _ => None,
    })
}

fn link(store: &dyn Blockstore, schema: Schema, cid: &Cid) -> Result<(Link, Block), FetchError> {
    let block = store.block(cid)?.ok_or_else(|| FetchError::Missing { count: 1, first: Box::new(*cid) })?;
    Ok(((schema.read)(&block).map_err(FetchError::BadFeed)?, block))
}

fn list(store: &dyn Blockstore, plan: &Plan, limit: Option<u64>) -> Result<Listed, FetchError> {
    let Listed { mut entries, mut refused, mut reasons } = Listed::default();
    let mut doubtful = Vec::new();
    let mut next = Some(plan.head);
    let mut expected = plan.seq;
    let stop = plan.latest.map(|(cid, _)| cid);
    while let Some(cid) = next.filter(|cid| Some(*cid) != stop) {
        if limit.is_some_and(|limit| entries.len() as u64 >= limit) {
            break;
        }
        let (Link { seq, previous, .. }, block) = link(store, plan.schema, &cid)?;
        if let (Some(seq), Some(expected)) = (seq, expected)
            && seq != expected
        {
            return Err(FetchError::BadFeed(format!("entry {cid} has number {seq}, not {expected}")));
        }
        if let Err(reason) = (plan.schema.accept)(&block) {
            doubtful.push(entries.len());
            if reasons.len() < limits::MAX_REFUSED_ENTRIES {
                reasons.push((cid, reason));
            }
        }
        entries.push((seq.unwrap_or_default(), cid));
        expected = seq.map(|seq| seq - 1);
        next = previous;
    }
    let before = plan.latest.map_or(0, |(_, seq)| seq);
    for (at, (seq, _)) in entries.iter_mut().rev().enumerate().filter(|(_, (seq, _))| *seq == 0) {
        *seq = before + at as u64 + 1;
    }
    refused.extend(doubtful.into_iter().filter_map(|at| entries.get(at).map(|(seq, _)| *seq)));
    let listed = Listed { entries, refused, reasons };
    match plan.latest {
        Some(_) if plan.depth.is_some_and(|depth| listed.entries.len() as u64 >= depth) => Ok(listed),
        // Either the chain ended, or it went past the number of the stop link: it is another history.
        Some((stop, seq)) if next != Some(stop) => Err(FetchError::BadFeed(format!(
            "its chain does not lead back to entry {stop} (number {seq}), which it had before"
        ))),
        _ => Ok(listed),
    }
}

impl<J: Journal> Shared<J> {
    fn saved(&self) -> Option<Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn latest(&self) -> Option<(Cid, u64)> {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) -> FetchStats {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, phase: Phase, checkpoint: &Checkpoint<'_>) {
        let mut stats = self.moved();
        stats += checkpoint.stats;
        self.journal.progress(phase, stats, checkpoint.frontier.len());
    }

    fn set(&self, saved: Option<Saved>) -> Result<(), StoreError> {
        self.journal.save(saved.as_ref())?;
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
        Ok(())
    }

    fn move_latest(&self, entries: &[EntryRef], saved: Option<Saved>) -> Result<(), StoreError> {
        self.journal.move_latest(entries, saved.as_ref())?;
        if let Some(last) = entries.last() {
            *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some((last.cid, last.seq));
        }
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
        Ok(())
    }
}
