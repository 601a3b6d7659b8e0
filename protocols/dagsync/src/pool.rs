//! Several providers at one walk: each works on a piece of it, and whoever has nothing to do takes over from another.
//!
//! The links still to walk lie on a board, in pieces that keep the order of the walk. A provider is given a piece and
//! walks it as a [`Fetch`] of its own; one that is done takes the last half of a piece that is being worked on, so that
//! the fast do what the slow would have done. What the board holds of all pieces is what a checkpoint saves, so that a
//! killed node goes on from the sum of them.
//!
//! Only what hangs under one root is divided: the trees under later roots are walked beside those of earlier ones, which
//! must be whole for that. They follow when they are first in line.
//!
//! A small sync sees one provider alone: the others come in after [`limits::PARALLEL_AFTER_MS`], or when one fails.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use dagmesh_core::limits;
use dagmesh_dag::{
    Block, Blockstore, StoreError,
    walk::{Root, Visit},
};
use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use futures_timer::Delay;

use crate::{
    client::{Checkpoint, Fetch, FetchConfig, FetchError, FetchStats, Flow, Observer},
    feed_sync::{BlockHook, Failed, Provider},
};

/// How often the pool looks for providers with nothing to do; all its times are counted in ticks.
const TICK_MS: u64 = 50;
const TICK: Duration = Duration::from_millis(TICK_MS);
const PARALLEL_AFTER: u64 = limits::PARALLEL_AFTER_MS / TICK_MS;
const STALL: u64 = limits::STALL_MS / TICK_MS;
/// A provider so many times slower than another one that has nothing to do is relieved.
const SLOW_FACTOR: u64 = 8;

/// One walk to be done.
pub(crate) struct Job {
    pub(crate) store: Arc<dyn Blockstore>,
    pub(crate) config: FetchConfig,
    /// Links to walk, in order, each with what it counts for.
    pub(crate) roots: Vec<(usize, Root)>,
    /// Wants the blocks in walk order: then one provider works at a time.
    pub(crate) hook: Option<Arc<dyn BlockHook>>,
    /// Hears where all of it stands, in the order of the walk.
    pub(crate) on_checkpoint: OnCheckpoint,
}

pub(crate) type OnCheckpoint = Box<dyn FnMut(Checkpoint<'_>) -> Result<(), StoreError> + Send>;

/// Who takes part in a sync, and how they have done so far; outlives the single walk.
pub(crate) struct Crew {
    members: Vec<Member>,
    clock: Delay,
    /// Ticks since the sync began; they stand still where there is nobody to wait for.
    now: u64,
}

struct Member {
    standing: Standing,
    /// Works, or is being reached.
    busy: bool,
    /// Whether trees that are held are named to it. Not to one that lacks them: it would send all that the walk beside
    /// them passes over.
    prune: bool,
    /// Bytes a tick, over the last piece it worked on.
    rate: u64,
    moved: FetchStats,
    reported: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Good,
    /// Relieved for being slow: for when nobody else is left.
    Slow,
    /// Not asked again in this sync.
    Failed,
}

impl Crew {
    pub(crate) fn new(count: usize) -> Self {
        let member = || Member {
            standing: Standing::Unknown,
            busy: false,
            prune: true,
            rate: 0,
            moved: FetchStats::default(),
            reported: false,
        };
        Self { members: (0..count).map(|_| member()).collect(), clock: Delay::new(TICK), now: 0 }
    }

    /// What each of them moved.
    pub(crate) fn shares(&self) -> Vec<FetchStats> {
        self.members.iter().map(|member| member.moved).collect()
    }

    fn idle(&self, standing: Standing) -> impl Iterator<Item = usize> {
        let fits = move |member: &Member| !member.busy && member.standing == standing;
        self.members.iter().enumerate().filter(move |(_, member)| fits(member)).map(|(index, _)| index)
    }
}

/// Does the whole job with these providers; returns what was moved, whatever came of it.
///
/// `on_failure` hears of each provider that fails while others may go on.
///
/// Cancel-safe as [`Provider::sync`] is.
pub(crate) async fn run<P: Provider>(
    providers: &[P],
    crew: &mut Crew,
    job: Job,
    on_failure: &mut (dyn FnMut(usize, &FetchError) + Send),
) -> (FetchStats, Result<(), Failed>) {
    let Job { store, config, roots, hook, on_checkpoint } = job;
    let board = Arc::new(Mutex::new(Board::new(roots, on_checkpoint)));
    let mut pool = Pool { providers, crew, store, config, hook, board, running: Vec::new(), on_failure, last: None };
    let result = pool.work().await;
    let mut board = pool.board();
    // A thread that is still at it has nothing to tell any more.
    board.closed = true;
    (board.stats(), result)
}

struct Pool<'a, P> {
    providers: &'a [P],
    crew: &'a mut Crew,
    store: Arc<dyn Blockstore>,
    config: FetchConfig,
    hook: Option<Arc<dyn BlockHook>>,
    board: Arc<Mutex<Board>>,
    running: Vec<Running>,
    on_failure: &'a mut (dyn FnMut(usize, &FetchError) + Send),
    last: Option<Failed>,
}

/// A provider at work.
struct Running {
    member: usize,
    piece: u64,
    run: u64,
    meter: Arc<Meter>,
    since: u64,
    /// Bytes and held blocks at the last look, and when either last grew.
    seen: (u64, u64, u64),
    abort: AbortHandle,
}

/// Between a running fetch and the pool.
#[derive(Default)]
struct Meter {
    /// Of blocks that came.
    bytes: AtomicU64,
    /// Blocks that were held.
    held: AtomicU64,
    /// Links that wait to be walked.
    waiting: AtomicUsize,
    /// Whether somebody waits for the last half of them.
    wanted: AtomicBool,
}

/// What a future of the pool ends with.
enum Ended {
    /// A provider was reached, or not, before it was given anything to do.
    Reached(usize, Result<(), FetchError>),
    /// The run with this number ended.
    Worked(u64, Option<FetchStats>, Result<(), FetchError>),
    /// A run was relieved.
    Relieved,
}

type Working<'a> = FuturesUnordered<BoxFuture<'a, Ended>>;

impl<'a, P: Provider> Pool<'a, P> {
    async fn work(&mut self) -> Result<(), Failed> {
        if self.board().pieces.is_empty() {
            let told = self.board().tell();
            return told.map_err(|error| Failed { provider: None, error: error.into() });
        }
        let mut working = Working::new();
        loop {
            self.board().drop_finished();
            while let Some((member, piece)) = self.pick() {
                working.push(self.start(member, piece));
            }
            if self.may_share() {
                let unknown: Vec<usize> = self.crew.idle(Standing::Unknown).collect();
                for member in unknown {
                    working.push(self.reach(member));
                }
                self.ask_for_shares();
                self.relieve();
            }
            if self.running.is_empty() && (working.is_empty() || self.board().pieces.is_empty()) {
                return self.finish();
            }
            let ended = if self.crew.members.len() == 1 {
                working.next().await
            } else {
                match select(working.next(), &mut self.crew.clock).await {
                    Either::Left((ended, _)) => ended,
                    Either::Right(_) => {
                        self.crew.clock.reset(TICK);
                        self.crew.now += 1;
                        None
                    }
                }
            };
            match ended {
                Some(Ended::Reached(member, result)) => self.reached(member, result),
                Some(Ended::Worked(run, stats, result)) => self.worked(run, stats, result)?,
                Some(Ended::Relieved) | None => {}
            }
        }
    }

    fn finish(&mut self) -> Result<(), Failed> {
        if self.board().pieces.is_empty() {
            return Ok(());
        }
        let nobody = || Failed { provider: None, error: FetchError::Unreachable("nobody is known who has it".into()) };
        Err(self.last.take().unwrap_or_else(nobody))
    }

    /// Whether more than one may work.
    fn may_share(&self) -> bool {
        self.crew.members.len() > 1 && self.hook.is_none() && self.crew.now >= PARALLEL_AFTER
    }

    /// Who is to start on which piece.
    fn pick(&self) -> Option<(usize, u64)> {
        let alone = self.running.is_empty();
        if !alone && !self.may_share() {
            return None;
        }
        let board = self.board();
        let find = |standing: Standing| {
            board.ready().find_map(|piece| {
                let member = self.crew.idle(standing).find(|member| !piece.lacking.contains(member))?;
                Some((member, piece.id))
            })
        };
        let next = || if alone { find(Standing::Unknown).or_else(|| find(Standing::Slow)) } else { None };
        find(Standing::Good).or_else(next)
    }

    /// Sets a provider to work on a piece, or on its share of it.
    fn start(&mut self, member: usize, piece: u64) -> BoxFuture<'a, Ended> {
        let hands = if self.may_share() { self.crew.idle(Standing::Good).count() } else { 1 };
        let (run, mut roots) = self.board().begin(piece, hands);
        let now = self.crew.now;
        let (abort, aborted) = AbortHandle::new_pair();
        let meter = Arc::new(Meter::default());
        let mut prune = true;
        if let Some(member) = self.crew.members.get_mut(member) {
            member.busy = true;
            prune = member.prune;
        }
        if !prune {
            roots.iter_mut().for_each(|(_, root)| root.held = None);
        }
        self.running.push(Running {
            member,
            piece,
            run,
            meter: Arc::clone(&meter),
            since: now,
            seen: (0, 0, now),
            abort,
        });
        let lane = Lane { board: Arc::clone(&self.board), piece, run, hook: self.hook.clone(), meter };
        let fetch = Fetch::new(Arc::clone(&self.store), self.config.clone(), roots, lane);
        let Some(provider) = self.providers.get(member) else { return Box::pin(async { Ended::Relieved }) };
        let work = async move {
            let (fetch, result) = provider.sync(fetch).await;
            Ended::Worked(run, fetch.map(|fetch| fetch.stats()), result)
        };
        Abortable::new(work, aborted).map(|ended| ended.unwrap_or(Ended::Relieved)).boxed()
    }

    fn reach(&mut self, member: usize) -> BoxFuture<'a, Ended> {
        if let Some(member) = self.crew.members.get_mut(member) {
            member.busy = true;
        }
        let Some(provider) = self.providers.get(member) else { return Box::pin(async { Ended::Relieved }) };
        async move { Ended::Reached(member, provider.ready().await) }.boxed()
    }

    fn reached(&mut self, index: usize, result: Result<(), FetchError>) {
        let Some(member) = self.crew.members.get_mut(index) else { return };
        member.busy = false;
        match result {
            Ok(()) => member.standing = Standing::Good,
            Err(error) => self.fail(index, Standing::Failed, error),
        }
    }

    fn worked(&mut self, run: u64, stats: Option<FetchStats>, result: Result<(), FetchError>) -> Result<(), Failed> {
        let Some(at) = self.running.iter().position(|running| running.run == run) else { return Ok(()) };
        let Running { member: index, piece, meter, since, .. } = self.running.swap_remove(at);
        let stats = self.board().end(piece, stats);
        let Some(member) = self.crew.members.get_mut(index) else { return Ok(()) };
        member.busy = false;
        member.rate = rate(&meter, since, self.crew.now);
        member.moved += stats;
        match result {
            Ok(()) => member.standing = Standing::Good,
            Err(FetchError::Repeated(_)) if member.prune => member.prune = false,
            Err(error) if error.is_fatal() => return Err(Failed { provider: Some(index), error }),
            // It may well hold the other pieces.
            Err(error @ FetchError::Missing { .. }) => {
                member.standing = Standing::Good;
                self.board().lacks(piece, index);
                self.fail(index, Standing::Good, error);
            }
            Err(error) => self.fail(index, Standing::Failed, error),
        }
        Ok(())
    }

    fn fail(&mut self, index: usize, standing: Standing, error: FetchError) {
        let Some(member) = self.crew.members.get_mut(index) else { return };
        member.standing = standing;
        if !std::mem::replace(&mut member.reported, true) || error.is_bad_peer() {
            (self.on_failure)(index, &error);
        }
        self.last = Some(Failed { provider: Some(index), error });
    }

    /// Has the piece with the most links divided, where somebody could take the half of it.
    fn ask_for_shares(&self) {
        if self.crew.idle(Standing::Good).next().is_none() || self.board().ready().next().is_some() {
            return;
        }
        let most = self.running.iter().max_by_key(|running| running.meter.waiting.load(Relaxed));
        if let Some(running) = most {
            running.meter.wanted.store(true, Relaxed);
        }
    }

    /// Takes the work from whoever brings nothing, or much less than one that has nothing to do.
    fn relieve(&mut self) {
        let now = self.crew.now;
        let mut relieved = Vec::new();
        for (at, running) in self.running.iter_mut().enumerate() {
            let (bytes, held) = (running.meter.bytes.load(Relaxed), running.meter.held.load(Relaxed));
            if held > running.seen.1 {
                // It walks what is held: that is our own time, not the provider's.
                running.since = now;
                running.meter.bytes.store(0, Relaxed);
                running.seen = (0, held, now);
                continue;
            }
            if bytes > running.seen.0 {
                running.seen = (bytes, held, now);
            }
            let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            let lacking = board.piece(running.piece).map(|piece| piece.lacking.clone()).unwrap_or_default();
            let spare = self.crew.idle(Standing::Good).filter(|member| !lacking.contains(member));
            let spare = spare.filter_map(|member| self.crew.members.get(member)).map(|member| member.rate).max();
            let Some(spare) = spare else { continue };
            let slow = now - running.since >= STALL
                && rate(&running.meter, running.since, now).saturating_mul(SLOW_FACTOR) < spare;
            if slow || now - running.seen.2 >= STALL {
                relieved.push(at);
            }
        }
        for at in relieved.into_iter().rev() {
            let running = self.running.swap_remove(at);
            running.abort.abort();
            let stats = self.board().end(running.piece, None);
            if let Some(member) = self.crew.members.get_mut(running.member) {
                member.busy = false;
                member.rate = rate(&running.meter, running.since, now);
                member.moved += stats;
            }
            let bytes = running.meter.bytes.load(Relaxed);
            self.fail(running.member, Standing::Slow, FetchError::Overtaken(bytes));
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rate(meter: &Meter, since: u64, now: u64) -> u64 {
    meter.bytes.load(Relaxed) / (now - since).max(1)
}

/// All that is left of a walk, in its order.
struct Board {
    pieces: Vec<Piece>,
    /// Numbers pieces and runs.
    next: u64,
    /// What fetches that have ended moved.
    moved: FetchStats,
    on_checkpoint: OnCheckpoint,
    closed: bool,
}

struct Piece {
    id: u64,
    /// Links to walk; all before them is durable.
    frontier: Vec<(usize, Root)>,
    /// The run that works on it.
    run: Option<u64>,
    /// What that run has moved, as far as it is durable.
    stats: FetchStats,
    /// Providers that do not hold all of it.
    lacking: BTreeSet<usize>,
}

impl Board {
    fn new(roots: Vec<(usize, Root)>, on_checkpoint: OnCheckpoint) -> Self {
        let mut board =
            Self { pieces: Vec::new(), next: 0, moved: FetchStats::default(), on_checkpoint, closed: false };
        board.insert(0, roots, BTreeSet::new());
        board
    }

    /// Pieces that somebody can start on: whatever their links are compared with is held whole.
    fn ready(&self) -> impl Iterator<Item = &Piece> {
        let first = self.pieces.first().and_then(Piece::root);
        self.pieces.iter().filter(move |piece| {
            let is_first = piece.root() == first || piece.frontier.iter().all(|(_, root)| root.held.is_none());
            piece.run.is_none() && is_first
        })
    }

    /// Inserts pieces from there on: one for what hangs under the first root, one for the rest.
    fn insert_parts(&mut self, at: usize, mut frontier: Vec<(usize, Root)>, lacking: BTreeSet<usize>) {
        let rest = frontier.split_off(first_root(&frontier));
        self.insert(at, rest, lacking.clone());
        self.insert(at, frontier, lacking);
    }

    fn insert(&mut self, at: usize, frontier: Vec<(usize, Root)>, lacking: BTreeSet<usize>) {
        if frontier.is_empty() {
            return;
        }
        self.next += 1;
        let piece = Piece { id: self.next, frontier, run: None, stats: FetchStats::default(), lacking };
        self.pieces.insert(at.min(self.pieces.len()), piece);
    }

    fn drop_finished(&mut self) {
        self.pieces.retain(|piece| piece.run.is_some() || !piece.frontier.is_empty());
    }

    fn piece(&self, id: u64) -> Option<&Piece> {
        self.pieces.iter().find(|piece| piece.id == id)
    }

    fn piece_mut(&mut self, id: u64) -> Option<(usize, &mut Piece)> {
        self.pieces.iter_mut().enumerate().find(|(_, piece)| piece.id == id)
    }

    /// Begins a run over a piece. Where there are more `hands` than one, over the first of as many equal parts of what
    /// hangs under its first root; the rest stays on the board.
    fn begin(&mut self, id: u64, hands: usize) -> (u64, Vec<(usize, Root)>) {
        self.next += 1;
        let run = self.next;
        let Some((at, piece)) = self.piece_mut(id) else { return (run, Vec::new()) };
        let divisible = first_root(&piece.frontier);
        let share = if hands > 1 && divisible > 1 { divisible.div_ceil(hands) } else { piece.frontier.len() };
        let rest = piece.frontier.split_off(share);
        piece.run = Some(run);
        let (roots, lacking) = (piece.frontier.clone(), piece.lacking.clone());
        self.insert_parts(at + 1, rest, lacking);
        (run, roots)
    }

    /// Ends the run over a piece; `stats` are what it moved, where that is known better than from its checkpoints.
    fn end(&mut self, id: u64, stats: Option<FetchStats>) -> FetchStats {
        let Some((_, piece)) = self.piece_mut(id) else { return FetchStats::default() };
        piece.run = None;
        let stats = stats.unwrap_or(piece.stats);
        piece.stats = FetchStats::default();
        self.moved += stats;
        stats
    }

    fn lacks(&mut self, id: u64, member: usize) {
        if let Some((_, piece)) = self.piece_mut(id) {
            piece.lacking.insert(member);
        }
    }

    fn stats(&self) -> FetchStats {
        let mut stats = self.moved;
        for piece in &self.pieces {
            stats += piece.stats;
        }
        stats
    }

    fn tell(&mut self) -> Result<(), StoreError> {
        let stats = self.stats();
        let joined: Vec<_>;
        let frontier = match self.pieces.as_slice() {
            [piece] => &piece.frontier,
            pieces => {
                joined = pieces.iter().flat_map(|piece| piece.frontier.iter().cloned()).collect();
                &joined
            }
        };
        let roots_done = frontier.iter().map(|(root, _)| *root).min().unwrap_or(usize::MAX);
        (self.on_checkpoint)(Checkpoint { roots_done, frontier, stats })
    }
}

impl Piece {
    /// What its first link counts for.
    fn root(&self) -> Option<usize> {
        self.frontier.first().map(|(root, _)| *root)
    }
}

/// How many links, from the first on, count for the same.
fn first_root(frontier: &[(usize, Root)]) -> usize {
    frontier.iter().take_while(|(root, _)| Some(*root) == frontier.first().map(|(first, _)| *first)).count()
}

/// One provider's eye on its piece.
struct Lane {
    board: Arc<Mutex<Board>>,
    piece: u64,
    run: u64,
    hook: Option<Arc<dyn BlockHook>>,
    meter: Arc<Meter>,
}

impl Lane {
    /// Does something with the piece, unless it is somebody else's by now.
    fn with<T>(&self, act: impl FnOnce(&mut Board, usize) -> T) -> Option<T> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, piece) = board.piece_mut(self.piece)?;
        let mine = piece.run == Some(self.run);
        (mine && !board.closed).then(|| act(&mut board, at))
    }
}

impl Observer for Lane {
    fn block(&mut self, _: usize, _: &Visit, block: &Block, received: bool) -> Flow {
        if received {
            self.meter.bytes.fetch_add(block.data().len() as u64, Relaxed);
        }
        self.hook.as_ref().map_or(Flow::Continue, |hook| hook.block(block, received))
    }

    fn wants_held(&self) -> bool {
        self.hook.is_some()
    }

    fn held(&mut self) {
        self.meter.held.fetch_add(1, Relaxed);
    }

    fn wants_share(&mut self, waiting: usize) -> bool {
        self.meter.waiting.store(waiting, Relaxed);
        self.meter.wanted.load(Relaxed)
    }

    fn share(&mut self, kept: Vec<(usize, Root)>, given: Vec<(usize, Root)>) {
        self.meter.wanted.store(false, Relaxed);
        self.with(|board, at| {
            let lacking = board.pieces.get_mut(at).map(|piece| {
                piece.frontier = kept;
                piece.lacking.clone()
            });
            board.insert_parts(at + 1, given, lacking.unwrap_or_default());
        });
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint<'_>) -> Result<(), StoreError> {
        let told = self.with(|board, at| {
            if let Some(piece) = board.pieces.get_mut(at) {
                piece.frontier = checkpoint.frontier.to_vec();
                piece.stats = checkpoint.stats;
            }
            board.tell()
        });
        told.unwrap_or(Ok(()))
    }
}
