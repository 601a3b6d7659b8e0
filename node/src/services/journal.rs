//! What a follow keeps of its syncs in the store: `latest`, entry by entry, and the frontier between.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use cid::Cid;
use dagmesh_core::cbor;
use dagmesh_dag::{StoreError, selector::Selector, walk::Root};
use dagmesh_dagsync::{
    FetchStats,
    feed_sync::{EntryRef, Journal, Phase, Saved},
    follower::{FollowKey, Follower, Input, SyncId},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{driven::Driven, events::Events, outbox::Outbox, publisher::store_error};
use crate::{
    store::{self, Batch, FrontierKey, FrontierLink, Protection, SavedFrontier, StagedFrontier, Store},
    types::Event,
};

/// How far a running sync is; read by whoever shows it.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// Blocks that are held of it.
    pub(crate) have: AtomicU64,
    /// Blocks that are known of it.
    pub(crate) known: AtomicU64,
    /// Bytes that have travelled.
    pub(crate) bytes: AtomicU64,
    /// Whether the chain is being fetched.
    pub(crate) chain: AtomicBool,
}

impl Gauge {
    pub(crate) fn set(&self, phase: Phase, stats: FetchStats, waiting: usize) {
        let have = stats.blocks + stats.from_cache;
        self.have.store(have, Ordering::Relaxed);
        self.known.store(have + waiting as u64, Ordering::Relaxed);
        self.bytes.store(stats.bytes, Ordering::Relaxed);
        self.chain.store(phase == Phase::Chain, Ordering::Relaxed);
    }
}

/// The journal of one followed feed.
pub(crate) struct FollowJournal {
    pub(crate) store: Arc<Store>,
    pub(crate) key: FollowKey,
    /// The sync, as the machine knows it.
    pub(crate) id: SyncId,
    /// The head of the running sync, for events.
    pub(crate) head: Cid,
    pub(crate) events: Events,
    pub(crate) gauge: Gauge,
    pub(crate) machine: Driven<Follower>,
    pub(crate) outbox: Outbox,
    /// Keeps a collection of garbage away from what was found held since the last save.
    pub(crate) protection: Mutex<Protection>,
}

/// What a saved frontier says beside its links.
#[derive(Serialize, Deserialize)]
struct State {
    head: Cid,
    /// The last entry covered; `None` in the chain phase.
    upto: Option<u64>,
    /// The sequence number that a link's root counts from.
    base: u64,
}

impl FollowJournal {
    fn stage(&self, saved: &Saved) -> Result<(StagedFrontier, Vec<u8>), store::Error> {
        let base = saved.frontier.iter().map(|(root, _)| *root).min().unwrap_or(0);
        let mut selectors = Encoded::default();
        let mut links = Vec::with_capacity(saved.frontier.len());
        for (root, link) in &saved.frontier {
            let (root, selector) = (u32::try_from(root - base).unwrap_or(u32::MAX), selectors.of(&link.selector)?);
            links.push(FrontierLink { root, cid: link.cid, selector, held: link.held });
        }
        let upto = match saved.phase {
            Phase::Chain => None,
            Phase::Content { upto } => Some(upto),
        };
        let state = cbor::to_vec(&State { head: saved.head, upto, base: base as u64 })?;
        Ok((self.store.stage_frontier(&links)?, state))
    }

    fn write(
        &self,
        saved: Option<&Saved>,
        more: impl FnOnce(&mut Batch<'_>) -> Result<(), store::Error>,
    ) -> Result<(), StoreError> {
        let staged = saved.map(|saved| self.stage(saved)).transpose().map_err(store_error)?;
        let written = self.store.transaction(|batch| {
            match staged {
                Some((links, state)) => batch.save_frontier(&frontier(&self.key), links, &[self.head], &state)?,
                None => {
                    batch.remove_frontier(&frontier(&self.key))?;
                }
            }
            more(batch)
        });
        *self.protection.lock() = self.store.protect();
        written.map_err(store_error)
    }
}

impl Journal for FollowJournal {
    fn save(&self, saved: Option<&Saved>) -> Result<(), StoreError> {
        self.write(saved, |_| Ok(()))
    }

    fn move_latest(&self, entries: &[EntryRef], saved: Option<&Saved>) -> Result<(), StoreError> {
        let Some(last) = entries.last() else { return self.save(saved) };
        self.write(saved, |batch| {
            // Unfollowed meanwhile, or overtaken by the sync that took this one's place: there is nothing to move.
            let Some(mut record) = batch.follow(&self.key.publisher, &self.key.feed)? else { return Ok(()) };
            if record.latest_seq >= last.seq {
                return Ok(());
            }
            record.latest = Some(last.cid);
            record.latest_seq = last.seq;
            self.outbox.write(batch, &self.key, entries)?;
            batch.set_follow(&self.key.publisher, &self.key.feed, &record)
        })?;
        self.outbox.wake();
        for EntryRef { seq, cid, content } in entries {
            self.machine.input(Input::LatestMoved { id: self.id, entry: *cid, seq: *seq, content: *content });
        }
        Ok(())
    }

    fn progress(&self, phase: Phase, stats: FetchStats, waiting: usize) {
        self.gauge.set(phase, stats, waiting);
        let have_blocks = self.gauge.have.load(Ordering::Relaxed);
        let known_blocks = self.gauge.known.load(Ordering::Relaxed);
        self.machine.input(Input::SyncProgress { id: self.id, known_blocks, have_blocks });
        self.events.tell(Event::SyncProgress {
            publisher: self.key.publisher,
            feed: self.key.feed.clone(),
            head: self.head,
            have_blocks,
            known_blocks,
            bytes: stats.bytes,
            stalled_ms: 0,
        });
    }
}

fn frontier(key: &FollowKey) -> FrontierKey {
    FrontierKey::Follow(key.publisher, key.feed.clone())
}

/// Selectors as they are written; a frontier has few different ones.
#[derive(Default)]
struct Encoded(Vec<(Selector, bytes::Bytes)>);

impl Encoded {
    fn of(&mut self, selector: &Selector) -> Result<bytes::Bytes, StoreError> {
        if let Some((_, bytes)) = self.0.iter().find(|(known, _)| known == selector) {
            return Ok(bytes.clone());
        }
        let encoded = selector.to_cbor().map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let bytes = bytes::Bytes::from(encoded);
        // Depth limits make a selector a level; a frontier is no deeper than a few dozen of them.
        if self.0.len() < 64 {
            self.0.push((selector.clone(), bytes.clone()));
        }
        Ok(bytes)
    }
}

/// Where an earlier sync of a followed feed stood. What cannot be read is told and left: the sync then walks what it
/// holds instead.
pub(crate) fn load(store: &Store, key: &FollowKey) -> Result<Option<Saved>, store::Error> {
    let Some(saved) = store.load_frontier(&frontier(key))? else { return Ok(None) };
    let decoded = decode(&saved);
    if decoded.is_none() {
        tracing::warn!(%key, "the saved frontier cannot be read; the sync starts over from what is held");
    }
    Ok(decoded)
}

fn decode(saved: &SavedFrontier) -> Option<Saved> {
    let state: State = cbor::from_slice(&saved.state).ok()?;
    let mut selectors: Vec<(bytes::Bytes, Selector)> = Vec::new();
    let mut frontier = Vec::with_capacity(saved.links.len());
    for link in &saved.links {
        let known = selectors.iter().find(|(bytes, _)| *bytes == link.selector).map(|(_, selector)| selector.clone());
        let selector = match known {
            Some(selector) => selector,
            None => {
                let selector = Selector::from_cbor(&link.selector).ok()?;
                selectors.push((link.selector.clone(), selector.clone()));
                selector
            }
        };
        let root = usize::try_from(state.base).ok()? + link.root as usize;
        frontier.push((root, Root { cid: link.cid, selector, held: link.held }));
    }
    let phase = state.upto.map_or(Phase::Chain, |upto| Phase::Content { upto });
    Some(Saved { head: state.head, phase, frontier })
}
