//! Fetches what heads name: the entries of a session down to the last one that was told, then the DAGs that they carry.
//!
//! A chain is one sync with the last told entry as stop link, from whoever is there: its producer, who told us of it, the
//! other members in turn. Contents wait in a queue on the disk, and each is compared with the one before of its session.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cid::Cid;
use dagmesh_chronosync::{Body, Entry, LeafKey};
use dagmesh_core::limits;
use dagmesh_dag::{Block, Blockstore, Digests, Root, Selector, StoreError, walk::Visit};
use dagmesh_dagsync::{
    Checkpoint, Fetch, FetchConfig, FetchError, Flow, Observer,
    feed_sync::{BlockHook, FeedSync, Link as ChainLink, Plan, Provider, Schema},
};
use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    backlog::{Chain, Link, Work},
    member::Member,
};
use crate::{
    error::NodeError,
    store::{GroupContent, Protection, Store},
};

/// How long one of these may hold its place while others wait; what came is kept.
const SLICE: Duration = Duration::from_secs(limits::SYNC_SLICE_SECS);
/// Contents of one session that are fetched together.
const CONTENTS: usize = 64;

/// How the entries of a group are read. They carry no numbers: those follow from the head's.
const ENTRIES: Schema = Schema {
    field: Entry::CHAIN_FIELD,
    read: |block| {
        let Entry { previous, body, .. } = Entry::from_block(block).map_err(|error| error.to_string())?;
        let content = match body {
            Body::Content(content) => content,
            Body::Text(_) => *block.cid(),
        };
        Ok(ChainLink { seq: None, previous, content })
    },
    accept: |_| Ok(()),
    grows: false,
    digests: Digests::Whole,
};

/// Fetches for as long as the group is taken part in.
pub(super) async fn run(member: Arc<Member>) {
    loop {
        let now = Instant::now();
        let due = member.tracker.lock().due(now);
        for key in due {
            let Some(place) = place(&member).await else { return };
            let Some(wanted) = take_entries(&member, &key) else { continue };
            let this = Arc::clone(&member);
            member.context.spawn(async move { this.fetch_entries(wanted, place).await });
        }
        let due = member.tracker.lock().contents_due(now);
        for key in due {
            let Some(place) = place(&member).await else { return };
            let Some(rows) = take_contents(&member, &key).await else { continue };
            let this = Arc::clone(&member);
            member.context.spawn(async move { this.fetch_contents(key, rows, place).await });
        }
        let next = member.tracker.lock().next_due(now);
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = member.wanted.notified() => {}
            () = due => {}
        }
    }
}

async fn place(member: &Member) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&member.places.fetches).acquire_owned().await.ok()
}

/// A session whose entries are to be fetched.
pub(super) struct Wanted {
    pub(super) key: LeafKey,
    pub(super) producer: PeerId,
    pub(super) head: (u64, Cid),
    pub(super) after: u64,
    pub(super) stop: Option<Cid>,
}

impl Wanted {
    /// How many entries lie between, as far as they are fetched at all.
    fn span(&self) -> u64 {
        self.head.0.saturating_sub(self.after).min(limits::MAX_GROUP_HISTORY)
    }

    /// Whether all numbers since the last told one are wanted.
    fn is_whole(&self) -> bool {
        self.head.0.saturating_sub(self.after) <= limits::MAX_GROUP_HISTORY
    }
}

/// Takes the turn of a session, if it is still due.
fn take_entries(member: &Member, key: &LeafKey) -> Option<Wanted> {
    let mut tracker = member.tracker.lock();
    let leaf = tracker.leaves.get_mut(key).filter(|leaf| leaf.entries.is_due(Instant::now()))?;
    let (number, entry) = leaf.target?;
    let entry = entry?;
    leaf.entries.busy = true;
    let (after, stop) = (leaf.progress.told, leaf.progress.entry.filter(|_| leaf.progress.told > 0));
    Some(Wanted { key: *key, producer: leaf.producer, head: (number, entry), after, stop })
}

/// Takes the turn of a session's contents, if it is still due and there are any.
async fn take_contents(member: &Member, key: &LeafKey) -> Option<Vec<(u64, GroupContent)>> {
    {
        let mut tracker = member.tracker.lock();
        let leaf = tracker.leaves.get_mut(key).filter(|leaf| leaf.contents.is_due(Instant::now()))?;
        leaf.contents.busy = true;
        // What is written from here on says so again.
        leaf.waiting = false;
    }
    let (id, leaf) = (*member.group.as_bytes(), (key.name, key.session));
    let rows = member.context.blocking(move |store| Ok(store.group_contents(&id, &leaf, CONTENTS)?)).await;
    let mut tracker = member.tracker.lock();
    let leaf = tracker.leaves.get_mut(key)?;
    match rows {
        Ok(rows) if !rows.is_empty() => return Some(rows),
        Ok(_) => leaf.contents.done(),
        Err(error) => {
            tracing::warn!(group = member.name, %error, "waiting contents could not be read");
            leaf.contents_failed(Instant::now());
        }
    }
    None
}

impl Member {
    /// Whom to ask, the likeliest first.
    fn providers(&self, producer: PeerId) -> Vec<PeerId> {
        let connected = self.peers();
        let heard = self.heard.lock().get(&producer).copied();
        let mut providers = Vec::new();
        let own = self.producer();
        let near = [Some(producer).filter(|peer| connected.contains(peer)), heard];
        for peer in near.into_iter().flatten().chain(connected) {
            if peer != own && !providers.contains(&peer) && providers.len() < limits::MAX_PROVIDERS {
                providers.push(peer);
            }
        }
        providers
    }

    async fn fetch_entries(&self, wanted: Wanted, _place: OwnedSemaphorePermit) {
        let wanted = Arc::new(wanted);
        let _protection = self.context.store.protect();
        let chain = match self.held_chain(&wanted).await {
            Ok(Some(chain)) => Ok(Some(chain)),
            Ok(None) => {
                self.sync_chain(&wanted).await;
                self.held_chain(&wanted).await
            }
            Err(error) => Err(error),
        };
        match chain {
            Ok(Some(chain)) => self.backlog.push(Work::Chain(Box::new(chain))),
            Ok(None) => self.entries_failed(&wanted.key),
            Err(error) => {
                tracing::warn!(group = self.name, %error, "the entries of a group could not be read");
                self.entries_failed(&wanted.key);
            }
        }
    }

    fn entries_failed(&self, key: &LeafKey) {
        if let Some(leaf) = self.tracker.lock().leaves.get_mut(key) {
            leaf.entries.failed(Instant::now());
        }
        self.wanted.notify_one();
    }

    /// The chain as far as it is wanted, where all of it is held, or where it is plain that there is no more of it.
    async fn held_chain(&self, wanted: &Arc<Wanted>) -> Result<Option<Chain>, NodeError> {
        let wanted = Arc::clone(wanted);
        self.context.blocking(move |store| Ok(read_chain(store, &wanted)?)).await
    }

    /// Fetches what is lacking of a chain, from one after another.
    async fn sync_chain(&self, wanted: &Wanted) {
        let providers = self.providers(wanted.producer);
        let peers: Vec<_> = providers.iter().map(|peer| self.context.client.provider(*peer)).collect();
        let (number, head) = wanted.head;
        let plan = Plan {
            schema: ENTRIES,
            head,
            seq: Some(number),
            latest: wanted.stop.map(|stop| (stop, wanted.after)),
            depth: Some(limits::MAX_GROUP_HISTORY),
            first_depth: Some(wanted.span()),
            // Contents have their own turn: no text waits for one.
            keep: Some(0),
            segment: None,
            saved: None,
        };
        let mut sync = FeedSync::new(self.context.store.clone(), (), self.context.hook.clone(), plan);
        let mut on_failure = |index: usize, error: &FetchError| {
            let provider = providers.get(index);
            tracing::debug!(group = self.name, ?provider, %error, "entries of a group were not all had from a peer");
        };
        // What it comes to is read from the store.
        match tokio::time::timeout(SLICE, sync.run_with(&peers, &mut on_failure)).await {
            Ok(Ok(report)) => tracing::debug!(group = self.name, ?report, "entries of a group"),
            Ok(Err(error)) => tracing::debug!(group = self.name, %error, "entries of a group are not all here"),
            Err(_) => tracing::debug!(group = self.name, "entries of a group take long; others go first"),
        }
    }

    async fn fetch_contents(&self, key: LeafKey, rows: Vec<(u64, GroupContent)>, _place: OwnedSemaphorePermit) {
        let done = Arc::new(AtomicUsize::new(0));
        let ended = tokio::time::timeout(SLICE, self.sync_contents(&key, &rows, &done)).await;
        let whole = done.load(Ordering::Acquire).min(rows.len());
        let over = {
            let mut fetched = self.fetched.lock();
            for (index, _) in rows.iter().take(whole) {
                fetched.remove(index);
            }
            let over = rows.iter().skip(whole);
            let over = over.filter(|(index, _)| fetched.get(index).is_some_and(|sum| *sum > self.places.content_bytes));
            over.map(|(index, row)| (*index, row.content)).next()
        };
        let finished: Vec<_> = rows.iter().take(whole).cloned().collect();
        let mut broken = None;
        if let Ok(Err(error)) = &ended {
            tracing::debug!(group = self.name, %error, whole, of = rows.len(), "contents of a group are not all here");
            // It is the DAG that is wrong, whoever sends it.
            if let (FetchError::Walk(error), Some((index, row))) = (error, rows.get(whole)) {
                tracing::info!(group = self.name, content = %row.content, %error, "a content cannot be walked");
                broken = Some((*index, error.to_string()));
            }
        }
        if let Some((index, content)) = over.filter(|_| broken.is_none()) {
            let max = self.places.content_bytes;
            tracing::info!(group = self.name, %content, max, "a content is larger than what is fetched unasked");
            self.fetched.lock().remove(&index);
            broken =
                Some((index, format!("it has more than the {max} bytes that `[groups] max_content_bytes` allows")));
        }
        if finished.is_empty() && broken.is_none() {
            if let Some(leaf) = self.tracker.lock().leaves.get_mut(&key) {
                leaf.contents_failed(Instant::now());
            }
            return self.wanted.notify_one();
        }
        self.backlog.push(Work::Contents(key, finished, broken));
    }

    /// Fetches contents from one after another; `done` counts those that are whole.
    async fn sync_contents(
        &self,
        key: &LeafKey,
        rows: &[(u64, GroupContent)],
        done: &Arc<AtomicUsize>,
    ) -> Result<(), FetchError> {
        let leaf = self.tracker.lock().leaves.get(key).map(|leaf| (leaf.producer, leaf.progress.base));
        let Some((producer, base)) = leaf else { return Ok(()) };
        let mut last = FetchError::Unreachable("no member is connected".to_owned());
        let mut fetch = self.contents_fetch(rows, base, true, done);
        // What is held already needs nobody.
        let (held, mut fetch) = blocking::unblock(move || {
            let next = fetch.next_request();
            (next, fetch)
        })
        .await;
        if held?.is_none() {
            return Ok(());
        }
        for peer in self.providers(producer) {
            let provider = self.context.client.provider(peer);
            let (back, mut result) = provider.sync(fetch).await;
            let mut back = back;
            if matches!(result, Err(FetchError::Repeated(_))) {
                // It lacks what the contents were to be compared with, and sends all of them.
                (back, result) = provider.sync(self.contents_fetch(rows, base, false, done)).await;
            }
            match (back, result) {
                (_, Ok(())) => return Ok(()),
                (Some(next), Err(error)) if !error.is_fatal() => {
                    tracing::debug!(group = self.name, %peer, %error, "contents of a group were not all had from a peer");
                    (fetch, last) = (next, error);
                    fetch.retry_missing();
                }
                (_, Err(error)) => return Err(error),
            }
        }
        Err(last)
    }

    fn contents_fetch(
        &self,
        rows: &[(u64, GroupContent)],
        base: Option<Cid>,
        compare: bool,
        done: &Arc<AtomicUsize>,
    ) -> Fetch<Progress> {
        let mut before = base.filter(|_| compare);
        let roots = rows.iter().enumerate().map(|(index, (_, row))| {
            let held = before.filter(|before| *before != row.content);
            before = Some(row.content).filter(|_| compare);
            (index, Root { cid: row.content, selector: Selector::all(), held })
        });
        let store: Arc<dyn Blockstore> = self.context.store.clone();
        let progress = Progress {
            done: Arc::clone(done),
            store: Arc::clone(&self.context.store),
            hook: self.context.hook.clone(),
            places: rows.iter().map(|(index, _)| *index).collect(),
            fetched: Arc::clone(&self.fetched),
            max: self.places.content_bytes,
            _protection: self.context.store.protect(),
        };
        Fetch::new(store, FetchConfig::default(), roots.collect(), progress)
    }
}

/// Counts the contents that are whole, and the bytes of those that are not.
struct Progress {
    done: Arc<AtomicUsize>,
    store: Arc<Store>,
    hook: Option<Arc<dyn BlockHook>>,
    /// Where each content stands in the log.
    places: Vec<u64>,
    fetched: Arc<Mutex<HashMap<u64, u64>>>,
    /// Bytes that one content may bring.
    max: u64,
    /// Keeps a collection of garbage away from what came since the last checkpoint; it hangs below an entry.
    _protection: Protection,
}

impl Observer for Progress {
    fn block(&mut self, root: usize, _: &Visit, block: &Block, received: bool) -> Flow {
        if let Some(place) = self.places.get(root).filter(|_| received) {
            let mut fetched = self.fetched.lock();
            let sum = fetched.entry(*place).or_default();
            *sum += block.data().len() as u64 + limits::GROUP_CONTENT_BLOCK_BYTES;
            if *sum > self.max {
                return Flow::Fail("a content is larger than what is fetched unasked".to_owned());
            }
        }
        self.hook.as_ref().map_or(Flow::Continue, |hook| hook.block(block, received))
    }

    fn wants_held(&self) -> bool {
        self.hook.is_some()
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint<'_>) -> Result<(), StoreError> {
        self.done.fetch_max(checkpoint.roots_done, Ordering::AcqRel);
        self._protection = self.store.protect();
        Ok(())
    }
}

/// Reads a chain from the store; `None` where something of it is neither held nor known not to be there.
pub(super) fn read_chain(store: &Store, wanted: &Wanted) -> Result<Option<Chain>, StoreError> {
    let mut links: Vec<Link> = Vec::new();
    let (mut next, mut reason) = (Some(wanted.head.1), None);
    while (links.len() as u64) < wanted.span() {
        let Some(cid) = next.filter(|cid| Some(*cid) != wanted.stop) else { break };
        let Some(block) = store.block(&cid)? else { return Ok(None) };
        match Entry::from_block(&block) {
            Ok(Entry { previous, body, .. }) => {
                let content = match body {
                    Body::Text(_) => None,
                    Body::Content(content) => Some(content),
                };
                links.push(Link { entry: cid, content });
                next = previous;
            }
            Err(error) => {
                reason = Some(error.to_string());
                break;
            }
        }
    }
    let length = links.len() as u64;
    if length < wanted.span() && next.is_none() {
        reason = reason.or_else(|| Some("its chain ends before them".to_owned()));
    } else if !wanted.is_whole() {
        let max = limits::MAX_GROUP_HISTORY;
        reason = reason.or_else(|| Some(format!("at most {max} publications are caught up on at once")));
    } else if let Some(stop) = wanted.stop
        && length == wanted.span()
        && next != Some(stop)
    {
        // As many entries as there are numbers, and yet another history than the one that was told.
        reason =
            Some(format!("its chain does not lead back to entry {stop}, which was told as number {}", wanted.after));
        links.clear();
    }
    links.reverse();
    Ok(Some(Chain { key: wanted.key, head: wanted.head, after: wanted.after, entries: links, reason }))
}
