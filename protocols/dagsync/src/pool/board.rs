//! The board: what is left of a walk, in pieces that keep its order, and what each provider tells of its piece.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use dagmesh_dag::{
    Block, StoreError,
    walk::{Root, Visit},
};

use super::OnCheckpoint;
use crate::{
    client::{Checkpoint, FetchStats, Flow, Observer},
    feed_sync::BlockHook,
};

/// All that is left of a walk, in its order.
pub(super) struct Board {
    pub(super) pieces: Vec<Piece>,
    /// Numbers pieces and runs.
    next: u64,
    /// What fetches that have ended moved.
    moved: FetchStats,
    on_checkpoint: OnCheckpoint,
    pub(super) closed: bool,
}

pub(super) struct Piece {
    pub(super) id: u64,
    /// Links to walk; all before them is durable.
    frontier: Vec<(usize, Root)>,
    /// The run that works on it.
    pub(super) run: Option<u64>,
    /// What that run has moved, as far as it is durable.
    stats: FetchStats,
    /// Providers that do not hold all of it.
    pub(super) lacking: BTreeSet<usize>,
}

impl Board {
    pub(super) fn new(roots: Vec<(usize, Root)>, on_checkpoint: OnCheckpoint) -> Self {
        let mut board =
            Self { pieces: Vec::new(), next: 0, moved: FetchStats::default(), on_checkpoint, closed: false };
        board.insert(0, roots, BTreeSet::new());
        board
    }

    /// Pieces that somebody can start on: whatever their links are compared with is held whole.
    pub(super) fn ready(&self) -> impl Iterator<Item = &Piece> {
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

    pub(super) fn drop_finished(&mut self) {
        self.pieces.retain(|piece| piece.run.is_some() || !piece.frontier.is_empty());
    }

    pub(super) fn piece(&self, id: u64) -> Option<&Piece> {
        self.pieces.iter().find(|piece| piece.id == id)
    }

    fn piece_mut(&mut self, id: u64) -> Option<(usize, &mut Piece)> {
        self.pieces.iter_mut().enumerate().find(|(_, piece)| piece.id == id)
    }

    /// Begins a run over a piece. Where there are more `hands` than one, over the first of as many equal parts of what
    /// hangs under its first root; the rest stays on the board.
    pub(super) fn begin(&mut self, id: u64, hands: usize) -> (u64, Vec<(usize, Root)>) {
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
    pub(super) fn end(&mut self, id: u64, stats: Option<FetchStats>) -> FetchStats {
        let Some((_, piece)) = self.piece_mut(id) else { return FetchStats::default() };
        piece.run = None;
        let stats = stats.unwrap_or(piece.stats);
        piece.stats = FetchStats::default();
        self.moved += stats;
        stats
    }

    pub(super) fn lacks(&mut self, id: u64, member: usize) {
        if let Some((_, piece)) = self.piece_mut(id) {
            piece.lacking.insert(member);
        }
    }

    pub(super) fn stats(&self) -> FetchStats {
        let mut stats = self.moved;
        for piece in &self.pieces {
            stats += piece.stats;
        }
        stats
    }

    pub(super) fn tell(&mut self) -> Result<(), StoreError> {
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

/// Between a running fetch and the pool.
#[derive(Default)]
pub(super) struct Meter {
    /// Of blocks that came.
    pub(super) bytes: AtomicU64,
    /// Blocks that were held.
    pub(super) held: AtomicU64,
    /// Links that wait to be walked.
    pub(super) waiting: AtomicUsize,
    /// Whether somebody waits for the last half of them.
    pub(super) wanted: AtomicBool,
}

/// One provider's eye on its piece.
pub(super) struct Lane {
    pub(super) board: Arc<Mutex<Board>>,
    pub(super) piece: u64,
    pub(super) run: u64,
    pub(super) hook: Option<Arc<dyn BlockHook>>,
    pub(super) meter: Arc<Meter>,
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
