//! Following: carries out what the follower machine decides.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use cid::Cid;
use dagmesh_announce::VerifiedAnnouncement;
use dagmesh_core::limits;
use dagmesh_dag::{FeedName, SignedHead, StoreError};
use dagmesh_dagsync::{
    FetchError,
    feed_sync::{Failed, FeedSync, Plan, Report},
    follower::{
        Config, Effect, Event as Said, FailureKind, FollowKey, Follower as Machine, Input, Latest, Policy, Share,
        StartSync, State, Status, Summary, SyncId,
    },
    head::HeadQuery,
};
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use tokio::sync::{broadcast::error::RecvError, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    announcer::HeadAnnouncer,
    driven::Driven,
    journal::{self, FollowJournal, Gauge},
    rendezvous, syncer, unix_ms,
};
use crate::{
    api::ProgressSink,
    error::{ErrorKind, NodeError},
    store::{FollowPolicy, FollowRecord},
    swarm::MeshEvent,
    types::{self, Event, Follow, FollowState},
};

/// Addresses kept of a followed publisher.
const MAX_KEPT_ADDRS: usize = limits::MAX_ANNOUNCEMENT_ADDRS;

/// The following side of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Follower {
    context: Context,
    announcer: HeadAnnouncer,
    machine: Driven<Machine>,
    running: Arc<Mutex<HashMap<SyncId, CancellationToken>>>,
    /// The keys of the heads that this node provides in the DHT.
    provided: Arc<Mutex<HashMap<FollowKey, Vec<u8>>>>,
    /// Feeds whose heads others are being asked for.
    asking: Arc<Mutex<HashSet<FollowKey>>>,
    /// Counts every change of any follow's state.
    changes: Arc<watch::Sender<u64>>,
    segment: Option<u64>,
}

impl Follower {
    /// Takes up what the store says is followed.
    pub(crate) async fn start(
        context: &Context,
        announcer: HeadAnnouncer,
        max_syncs: usize,
        segment: Option<u64>,
    ) -> Result<Self, NodeError> {
        let own = context.key.public().to_peer_id();
        let config = Config { max_syncs, ..Config::new(own, rand::random()) };
        let this = Self {
            context: context.clone(),
            announcer,
            machine: Driven::new(Machine::new(config)),
            running: Arc::default(),
            asking: Arc::default(),
            provided: Arc::default(),
            changes: Arc::new(watch::Sender::new(0)),
            segment,
        };
        for (publisher, feed, record) in context.blocking(|store| Ok(store.follows()?)).await? {
            this.take_up(FollowKey { publisher, feed }, &record).await?;
        }
        let (driver, listener) = (this.clone(), this.clone());
        context.spawn(async move { driver.machine.run(|effect| driver.act(effect)).await });
        context.spawn(async move { listener.watch_mesh().await });
        Ok(this)
    }

    /// Follows a feed from now on, also after a restart; of one that is followed already, changes the policy.
    pub(crate) async fn follow(&self, key: FollowKey, addrs: &[Multiaddr], policy: Policy) -> Result<(), NodeError> {
        if key.publisher == self.context.key.public().to_peer_id() {
            return Err(NodeError::usage("this is the node's own peer id; a node does not follow itself"));
        }
        let (stored, addrs) = (key.clone(), addrs.to_vec());
        let record = self
            .context
            .blocking(move |store| {
                let known = store.follow(&stored.publisher, &stored.feed)?;
                let mut record =
                    known.unwrap_or_else(|| FollowRecord { created_ms: unix_ms(), ..FollowRecord::default() });
                record.policy =
                    FollowPolicy { depth: policy.depth, keep: policy.keep, first_sync_depth: policy.first_sync_depth };
                remember(&mut record.addrs, addrs);
                store.set_follow(&stored.publisher, &stored.feed, &record)?;
                Ok(record)
            })
            .await?;
        self.take_up(key, &record).await
    }

    /// Follows a feed no longer. What has been fetched stays until the next collection of garbage.
    pub(crate) async fn unfollow(&self, publisher: PeerId, feed: Option<FeedName>) -> Result<Vec<FeedName>, NodeError> {
        let (removed, left) = self
            .context
            .blocking(move |store| {
                let (mut removed, mut left) = (Vec::new(), 0);
                for (peer, name, _) in store.follows()?.into_iter().filter(|(peer, ..)| *peer == publisher) {
                    if feed.as_ref().is_none_or(|feed| *feed == name) {
                        store.remove_follow(&peer, &name)?;
                        removed.push(name);
                    } else {
                        left += 1;
                    }
                }
                Ok((removed, left))
            })
            .await?;
        for feed in &removed {
            let key = FollowKey { publisher, feed: feed.clone() };
            rendezvous::withdraw(&self.context, &key, self.provided.lock().remove(&key));
            self.machine.input(Input::Unfollow(key));
        }
        if left == 0 {
            self.context.swarm.unprotect(publisher).await?;
        }
        Ok(removed)
    }

    /// Sets what counts as synced; `None`: nothing.
    pub(crate) async fn set_latest(&self, key: FollowKey, latest: Option<(Cid, u64)>) -> Result<(), NodeError> {
        let stored = key.clone();
        let changed = self.context.blocking(move |store| {
            Ok(store.update_follow(&stored.publisher, &stored.feed, |record| {
                record.latest = latest.map(|(entry, _)| entry);
                record.latest_seq = latest.map_or(0, |(_, seq)| seq);
            })?)
        });
        if changed.await?.is_none() {
            return Err(NodeError::not_found(format!("{key} is not followed; `dagmesh follows` lists what is")));
        }
        self.machine.input(Input::SetLatest { key, latest: latest.map(|(entry, seq)| Latest { entry, seq }) });
        Ok(())
    }

    /// How each follow stands.
    pub(crate) fn follows(&self) -> Vec<Follow> {
        self.machine.look(|machine| machine.statuses(Instant::now()).map(shown).collect())
    }

    /// How one follow stands.
    pub(crate) fn status(&self, key: &FollowKey) -> Option<Follow> {
        self.machine.look(|machine| machine.status(Instant::now(), key)).map(shown)
    }

    /// Waits until a follow is in sync, showing how far it is. Without end where the publisher never comes; fails where
    /// it cannot go on by itself.
    pub(crate) async fn wait(&self, key: &FollowKey, progress: &ProgressSink) -> Result<Follow, NodeError> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let follow = self.status(key).ok_or_else(|| NodeError::not_found(format!("{key} is not followed")))?;
            match follow.state {
                FollowState::InSync => return Ok(follow),
                FollowState::Failed => {
                    let reason = follow.reason.unwrap_or_default();
                    return Err(NodeError::new(ErrorKind::Error, format!("{key} cannot be synced: {reason}")));
                }
                _ => {
                    progress.send(crate::types::Progress {
                        phase: if follow.state == FollowState::Syncing {
                            crate::types::Phase::Content
                        } else {
                            crate::types::Phase::Connecting
                        },
                        done_blocks: follow.have_blocks,
                        known_blocks: follow.known_blocks,
                        note: follow.reason,
                        ..crate::types::Progress::default()
                    });
                }
            }
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| NodeError::stopping())?,
                () = self.context.stop.cancelled() => return Err(NodeError::stopping()),
            }
        }
    }

    /// A head was announced, and proved itself. Never blocks: the swarm's worker calls it.
    pub(crate) fn announced(&self, announcement: &VerifiedAnnouncement) {
        let key = FollowKey::of(&announcement.head);
        if !self.machine.look(|machine| machine.is_followed(&key)) {
            return;
        }
        let (this, addrs, head) = (self.clone(), announcement.addrs.clone(), announcement.head.clone());
        self.context.spawn(async move {
            this.learn_addrs(&key, addrs).await;
            this.machine.input(Input::Announced(Box::new(head)));
        });
    }

    /// A publisher has signed two heads with one number.
    pub(crate) fn forked(&self, known: &SignedHead, other: &SignedHead) {
        for head in [known, other] {
            self.machine.input(Input::Announced(Box::new(head.clone())));
        }
    }

    /// Ends what runs; what came is saved.
    pub(crate) fn close(&self) {
        self.machine.input(Input::Close);
    }

    async fn take_up(&self, key: FollowKey, record: &FollowRecord) -> Result<(), NodeError> {
        for addr in &record.addrs {
            self.context.swarm.add_address(key.publisher, addr.clone()).await?;
        }
        self.context.swarm.protect(key.publisher).await?;
        let head = record.head();
        if let Some(head) = &head {
            self.context.validator.lock().learn(head);
            if record.latest == Some(*head.head()) {
                self.provide(head);
            }
        }
        self.machine.input(Input::Follow {
            key,
            policy: Policy {
                depth: record.policy.depth,
                keep: record.policy.keep,
                first_sync_depth: record.policy.first_sync_depth,
            },
            latest: record.latest.map(|entry| Latest { entry, seq: record.latest_seq }),
            head: head.map(Box::new),
        });
        Ok(())
    }

    async fn learn_addrs(&self, key: &FollowKey, addrs: Vec<Multiaddr>) {
        for addr in &addrs {
            let _ = self.context.swarm.add_address(key.publisher, addr.clone()).await;
        }
        let key = key.clone();
        let kept = self.context.blocking(move |store| {
            let known = store.follow(&key.publisher, &key.feed)?;
            // A write costs a sync of the disk: only where there is something new.
            if known.is_some_and(|record| addrs.iter().any(|addr| !record.addrs.contains(addr))) {
                store.update_follow(&key.publisher, &key.feed, |record| remember(&mut record.addrs, addrs))?;
            }
            Ok(())
        });
        if let Err(error) = kept.await {
            tracing::warn!(%error, "the addresses of a publisher could not be kept");
        }
    }

    /// Tells the swarm again where the publisher was: it forgets an address after one vain dial, and a publisher that
    /// was away for a while comes back.
    async fn recall_addrs(&self, key: &FollowKey) {
        let (publisher, feed) = (key.publisher, key.feed.clone());
        let known = self.context.blocking(move |store| Ok(store.follow(&publisher, &feed)?)).await;
        for addr in known.ok().flatten().map(|record| record.addrs).unwrap_or_default() {
            let _ = self.context.swarm.add_address(publisher, addr).await;
        }
    }

    /// Tells the machine of connections, and whoever watches.
    async fn watch_mesh(&self) {
        let mut events = self.context.swarm.events();
        loop {
            match events.recv().await {
                Ok(MeshEvent::PeerConnected { peer, addr, .. }) => {
                    self.machine.input(Input::Connected(peer));
                    self.context.events.tell(Event::PeerConnected { peer_id: peer, addr });
                }
                Ok(MeshEvent::PeerDisconnected { peer, reason }) => {
                    self.context.events.tell(Event::PeerDisconnected { peer_id: peer, reason });
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn act(&self, effect: Effect) {
        let this = self.clone();
        match effect {
            Effect::QueryHead { call, key } => self.context.spawn(async move {
                this.recall_addrs(&key).await;
                let query = HeadQuery { publisher: None, feed: Some(key.feed.clone()) };
                this.machine.input(match this.context.client.heads(key.publisher, &query).await {
                    Ok(heads) => {
                        let head = heads.into_iter().next();
                        // An older one that is announced from now on is passed on no more.
                        head.iter().for_each(|head| this.context.validator.lock().learn(head));
                        Input::HeadFound { call, head: head.map(Box::new) }
                    }
                    Err(error) => Input::HeadFailed { call, reason: error.to_string() },
                });
            }),
            Effect::FindPeer { call, key } => self.context.spawn(async move {
                // Side by side, so that whoever is slow to tell a head does not delay finding the publisher.
                let finding = async {
                    this.machine.input(match this.context.swarm.find_peer(key.publisher).await {
                        Ok(addrs) if !addrs.is_empty() => Input::PeerFound(call),
                        Ok(_) => Input::PeerNotFound { call, reason: "the DHT names no address of it".to_owned() },
                        Err(error) => Input::PeerNotFound { call, reason: error.to_string() },
                    });
                };
                let asking = async {
                    if !this.asking.lock().insert(key.clone()) {
                        // Those asked before have not all answered; what they say comes in by itself.
                        return;
                    }
                    for head in rendezvous::ask_around(&this.context, &key).await {
                        this.machine.input(Input::Announced(Box::new(head)));
                    }
                    this.asking.lock().remove(&key);
                };
                tokio::join!(finding, asking);
            }),
            Effect::FindProviders { call, head, .. } => self.context.spawn(async move {
                let found = this.context.swarm.find_providers(head.hash().to_bytes(), limits::MAX_PROVIDERS).await;
                this.machine.input(Input::ProvidersFound { call, providers: found.unwrap_or_default() });
            }),
            Effect::StartSync(sync) => {
                let cancel = CancellationToken::new();
                self.running.lock().insert(sync.id, cancel.clone());
                self.context.spawn(async move {
                    let id = sync.id;
                    let end = cancel.run_until_cancelled(this.sync(*sync)).await.unwrap_or(Input::Cancelled(id));
                    this.running.lock().remove(&id);
                    this.machine.input(end);
                });
            }
            Effect::CancelSync(id) => {
                if let Some(cancel) = self.running.lock().get(&id) {
                    cancel.cancel();
                }
            }
            Effect::Event(event) => self.tell(event),
        }
    }

    /// Runs one sync; what it gives back ends it.
    async fn sync(&self, start: StartSync) -> Input {
        let StartSync { id, key, head, latest, policy, providers, .. } = start;
        self.recall_addrs(&key).await;
        let saved = match self.begin(&key, &head).await {
            Ok(saved) => saved,
            Err(error) => {
                return Input::SyncFailed {
                    id,
                    provider: None,
                    reason: error.to_string(),
                    kind: FailureKind::Retryable,
                };
            }
        };
        let plan = Plan {
            head: *head.head(),
            seq: Some(head.seq()),
            latest: latest.map(|latest| (latest.entry, latest.seq)),
            depth: policy.depth,
            first_depth: policy.first_sync_depth,
            keep: policy.keep,
            segment: self.segment,
            saved,
        };
        let journal = FollowJournal {
            store: Arc::clone(&self.context.store),
            key: key.clone(),
            id,
            head: *head.head(),
            events: self.context.events.clone(),
            gauge: Gauge::default(),
            machine: self.machine.clone(),
            outbox: self.context.outbox.clone(),
            protection: Mutex::new(self.context.store.protect()),
        };
        let mut sync = FeedSync::new(self.context.store.clone(), journal, self.context.hook.clone(), plan);
        let peers: Vec<_> = providers.iter().map(|peer| self.context.client.provider(*peer)).collect();
        let mut on_failure = |index: usize, error: &FetchError| {
            let Some(provider) = providers.get(index).copied() else { return };
            tracing::debug!(%key, %provider, %error, "a provider could not do its part of a sync");
            self.machine.input(Input::ProviderFailed { id, provider, bad: error.is_bad_peer() });
        };
        match sync.run_with(&peers, &mut on_failure).await {
            Ok(report) => {
                self.in_sync(&head);
                Input::SyncFinished { id, summary: summary(&report, &providers) }
            }
            Err(Failed { provider, error }) => {
                let provider = provider.and_then(|index| providers.get(index)).copied();
                let reason = match provider {
                    Some(provider) => syncer::failed(provider, &error).to_string(),
                    None => error.to_string(),
                };
                Input::SyncFailed { id, provider, reason, kind: kind(&error) }
            }
        }
    }

    /// Keeps the head that is being synced, so that a restart knows it, and gives back where an earlier sync stood.
    async fn begin(
        &self,
        key: &FollowKey,
        head: &SignedHead,
    ) -> Result<Option<dagmesh_dagsync::feed_sync::Saved>, NodeError> {
        let (key, head) = (key.clone(), head.clone());
        self.context
            .blocking(move |store| {
                let bytes = Some(serde_bytes::ByteBuf::from(head.encode()));
                if store.follow(&key.publisher, &key.feed)?.is_some_and(|record| record.newest_head != bytes) {
                    store.update_follow(&key.publisher, &key.feed, |record| record.newest_head = bytes)?;
                }
                Ok(journal::load(store, &key)?)
            })
            .await
    }

    /// Tells the world that this node has the head too, and the publisher that it arrived.
    fn in_sync(&self, head: &SignedHead) {
        self.provide(head);
        let (this, head) = (self.clone(), head.clone());
        self.context.spawn(async move {
            if let Err(error) = this.announcer.tell(head.publisher(), &head).await {
                tracing::debug!(%error, "the publisher was not told that its head arrived");
            }
        });
    }

    fn provide(&self, head: &SignedHead) {
        let before = self.provided.lock().insert(FollowKey::of(head), rendezvous::head_key(head));
        rendezvous::provide(&self.context, head, before);
    }

    fn tell(&self, event: Said) {
        let said = match event {
            Said::StateChanged(_) => {
                self.changes.send_modify(|count| *count = count.wrapping_add(1));
                return;
            }
            Said::FollowRefused { key, reason } => return tracing::warn!(%key, %reason, "a feed is not followed"),
            Said::HeadAnnounced { key, head } => {
                Event::HeadAnnounced { publisher: key.publisher, feed: key.feed, head: head.entry, seq: head.seq }
            }
            Said::SyncStarted { key, head, stop, from, .. } => Event::SyncStarted {
                publisher: key.publisher,
                feed: key.feed,
                head: head.entry,
                stop: stop.map(|stop| stop.entry),
                from,
            },
            Said::SyncFinished { key, head, summary, took, .. } => Event::SyncFinished {
                publisher: key.publisher,
                feed: key.feed,
                head: head.entry,
                count: summary.entries,
                blocks: summary.blocks,
                bytes: summary.bytes,
                duration_ms: took.as_millis() as u64,
                from: summary.from.iter().map(shown_share).collect(),
            },
            Said::SyncFailed { key, head, reason, retry_in, .. } => Event::SyncFailed {
                publisher: key.publisher,
                feed: key.feed,
                head: Some(head.entry),
                reason,
                retry_in_ms: retry_in.map(|wait| wait.as_millis() as u64),
            },
            Said::LatestMoved { key, latest, content } => Event::LatestMoved {
                publisher: key.publisher,
                feed: key.feed,
                entry: latest.entry,
                seq: latest.seq,
                content,
            },
            Said::Equivocation { key, known, other } => Event::Equivocation {
                publisher: key.publisher,
                feed: key.feed,
                seq: known.seq(),
                heads: vec![*known.head(), *other.head()],
            },
            _ => return,
        };
        self.context.events.tell(said);
    }
}

/// Puts new addresses in front; the oldest make room.
fn remember(known: &mut Vec<Multiaddr>, new: Vec<Multiaddr>) {
    for addr in new {
        known.retain(|old| *old != addr);
        known.insert(0, addr);
    }
    known.truncate(MAX_KEPT_ADDRS);
}

fn summary(report: &Report, providers: &[PeerId]) -> Summary {
    let shares = report.shares.iter().zip(providers).filter(|(share, _)| share.blocks > 0);
    let from = shares.map(|(share, peer)| Share { provider: *peer, blocks: share.blocks, bytes: share.bytes });
    let stats = report.stats;
    Summary { entries: report.entries, blocks: stats.blocks, bytes: stats.bytes, from: from.collect() }
}

fn shown_share(share: &Share) -> types::Share {
    types::Share { peer_id: share.provider, blocks: share.blocks, bytes: share.bytes }
}

fn kind(error: &FetchError) -> FailureKind {
    match error {
        // Space can be made, and a disk that failed closes the store anyway.
        FetchError::Store(StoreError::NoSpace) => FailureKind::Retryable,
        FetchError::BadFeed(_) | FetchError::Walk(_) | FetchError::Hook(_) => FailureKind::Fatal,
        error if error.is_bad_peer() => FailureKind::BadPeer,
        _ => FailureKind::Retryable,
    }
}

fn shown(status: Status) -> Follow {
    let now = unix_ms();
    let reason = status.sentence();
    let cid = |latest: Option<Latest>| -> Option<Cid> { latest.map(|latest| latest.entry) };
    Follow {
        publisher: status.key.publisher,
        feed: status.key.feed,
        state: match status.state {
            State::Waiting => FollowState::Waiting,
            State::Behind => FollowState::Behind,
            State::Syncing => FollowState::Syncing,
            State::InSync => FollowState::InSync,
            State::Failed => FollowState::Failed,
        },
        reason,
        latest: cid(status.latest),
        announced: cid(status.announced),
        known_blocks: status.known_blocks,
        have_blocks: status.have_blocks,
        latest_seq: status.latest.map(|latest| latest.seq),
        announced_seq: status.announced.map(|head| head.seq),
        since: now.saturating_sub(status.for_how_long.as_millis() as u64),
        retry_at: status.next_try.map(|wait| now + wait.as_millis() as u64),
        keep: status.policy.keep,
        depth: status.policy.first_sync_depth,
    }
}
