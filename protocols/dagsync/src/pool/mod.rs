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

mod board;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use dagmesh_core::limits;
use dagmesh_dag::{Blockstore, StoreError, walk::Root};
use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use futures_timer::Delay;

use self::board::{Board, Lane, Meter};
use crate::{
    client::{Checkpoint, Fetch, FetchConfig, FetchError, FetchStats},
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
    /// What went wrong last: the reason where nobody is left.
    last: Option<Failed>,
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
        Self { members: (0..count).map(|_| member()).collect(), clock: Delay::new(TICK), now: 0, last: None }
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
    let mut pool = Pool { providers, crew, store, config, hook, board, running: Vec::new(), on_failure };
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
        Err(self.crew.last.take().unwrap_or_else(nobody))
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
        self.crew.last = Some(Failed { provider: Some(index), error });
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
