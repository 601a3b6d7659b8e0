//! What the follower machine wants done: look-ups and syncs.

use std::sync::Arc;

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::StoreError;
use dagmesh_dagsync::{
    Fetch, FetchError, Observer,
    feed_sync::{Failed, FeedSync, Plan, Provider, Report, Saved, Schema},
    follower::{Effect, FailureKind, FollowKey, Head, Input, Share, StartSync, Summary},
    head::HeadQuery,
    net::PeerProvider,
};
use libp2p::PeerId;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Follower;
use crate::{
    error::NodeError,
    services::{
        ipni::{self, ChainProvider, Wanted},
        journal::{self, FollowJournal, Gauge},
        rendezvous, syncer,
    },
    types::Event,
};

/// Somebody to fetch from.
enum Hand {
    /// Whoever holds a feed, over the native protocol.
    Peer(PeerProvider),
    /// The publisher of a chain of the IPNI network, over whatever it speaks.
    Chain(Box<ChainProvider>),
}

impl Provider for Hand {
    async fn ready(&self) -> Result<(), FetchError> {
        match self {
            Self::Peer(peer) => peer.ready().await,
            Self::Chain(publisher) => publisher.ready().await,
        }
    }

    async fn sync<O: Observer>(&self, fetch: Fetch<O>) -> (Option<Fetch<O>>, Result<(), FetchError>) {
        match self {
            Self::Peer(peer) => peer.sync(fetch).await,
            Self::Chain(publisher) => publisher.sync(fetch).await,
        }
    }
}

impl Follower {
    pub(super) fn act(&self, effect: Effect) {
        let this = self.clone();
        match effect {
            Effect::QueryHead { call, key } => self.context.spawn(async move {
                let (asker, named) = (this.clone(), key.clone());
                this.context.spawn(async move { asker.ask_name(named, false).await });
                this.recall_addrs(&key).await;
                this.machine.input(match this.ask_head(&key).await {
                    Ok(head) => Input::HeadFound { call, head: head.map(Box::new) },
                    Err(reason) => Input::HeadFailed { call, reason },
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
                    // Only our own heads can be told by others: the IPNI network's have no number.
                    if ipni::network_of(&key.feed).is_some() {
                        return;
                    }
                    let (reader, of) = (this.clone(), key.clone());
                    this.context.spawn(async move { reader.ask_record(of).await });
                    if !this.asking.lock().insert(key.clone()) {
                        // Those asked before have not all answered; what they say comes in by itself.
                        return;
                    }
                    for head in rendezvous::ask_around(&this.context, &key).await {
                        this.machine.input(Input::Announced(Box::new(Head::Signed(head))));
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
        let chain = ipni::network_of(&key.feed).is_some();
        let plan = Plan {
            schema: if chain { ipni::ADS } else { Schema::FEED },
            head: *head.entry(),
            seq: head.seq(),
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
            head: *head.entry(),
            events: self.context.events.clone(),
            gauge: Gauge::default(),
            machine: self.machine.clone(),
            outbox: self.context.outbox.clone(),
            protection: Mutex::new(self.context.store.protect()),
        };
        let mut sync = FeedSync::new(self.context.store.clone(), journal, self.context.hook.clone(), plan);
        let addrs = if chain { self.known_addrs(&key).await } else { Vec::new() };
        let first_depth = policy.first_sync_depth.filter(|_| latest.is_none());
        let wanted = Wanted {
            stop: latest.map(|latest| latest.entry),
            depth: policy.depth.into_iter().chain(first_depth).min(),
            keep: policy.keep,
        };
        let hand = |peer: &PeerId| match chain && *peer == key.publisher {
            true => Hand::Chain(Box::new(self.ipni.provider(*peer, &addrs, wanted))),
            false => Hand::Peer(self.context.client.provider(*peer)),
        };
        let peers: Vec<_> = providers.iter().map(hand).collect();
        let mut on_failure = |index: usize, error: &FetchError| {
            let Some(provider) = providers.get(index).copied() else { return };
            tracing::debug!(%key, %provider, %error, "a provider could not do its part of a sync");
            self.machine.input(Input::ProviderFailed { id, provider, bad: error.is_bad_peer() });
        };
        match sync.run_with(&peers, &mut on_failure).await {
            Ok(report) => {
                self.in_sync(&head);
                for (entry, reason) in &report.refused {
                    tracing::warn!(%key, %entry, reason, "an advertisement is not believed, and its entries are left out");
                    let (publisher, feed, reason) = (key.publisher, key.feed.clone(), reason.clone());
                    self.context.events.tell(Event::EntryRefused { publisher, feed, entry: *entry, reason });
                }
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

    /// Asks the publisher for its head; `None` where it has none.
    async fn ask_head(&self, key: &FollowKey) -> Result<Option<Head>, String> {
        if ipni::network_of(&key.feed).is_none() {
            let query = HeadQuery { publisher: None, feed: Some(key.feed.clone()) };
            let heads = self.context.client.heads(key.publisher, &query).await.map_err(|error| error.to_string())?;
            let head = heads.into_iter().next();
            // An older one that is announced from now on is passed on no more.
            head.iter().for_each(|head| self.context.validator.lock().learn(head));
            return Ok(head.map(Head::Signed));
        }
        let addrs = self.known_addrs(key).await;
        let entry = match self.ipni.head(key.publisher, &addrs).await {
            Ok(entry) => entry,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        // A head has no number: an old one could be told again.
        let behind = self.ipni.is_behind(key, entry).await.map_err(|error| error.to_string())?;
        Ok(Some(Head::Bare { key: key.clone(), entry: behind.unwrap_or(entry) }))
    }

    /// Keeps the head that is being synced, so that a restart knows it, and gives back where an earlier sync stood.
    async fn begin(&self, key: &FollowKey, head: &Head) -> Result<Option<Saved>, NodeError> {
        let (key, head) = (key.clone(), head.clone());
        self.context
            .blocking(move |store| {
                let (signed, bare): (_, Option<Cid>) = match &head {
                    Head::Signed(head) => (Some(serde_bytes::ByteBuf::from(head.encode())), None),
                    Head::Bare { entry, .. } => (None, Some(*entry)),
                };
                if bare.is_some() {
                    ipni::hold_no_entries(store)?;
                }
                let known = store.follow(&key.publisher, &key.feed)?;
                if known.is_some_and(|record| record.newest_head != signed || record.newest_entry != bare) {
                    store.update_follow(&key.publisher, &key.feed, |record| {
                        record.newest_head = signed;
                        record.newest_entry = bare;
                    })?;
                }
                Ok(journal::load(store, &key)?)
            })
            .await
    }

    /// Tells the world that this node has the head too, and the publisher that it arrived.
    fn in_sync(&self, head: &Head) {
        self.provide(head);
        let Head::Signed(head) = head.clone() else { return };
        let this = self.clone();
        self.context.spawn(async move {
            if let Err(error) = this.announcer.tell(head.publisher(), &head).await {
                tracing::debug!(%error, "the publisher was not told that its head arrived");
            }
        });
    }

    pub(super) fn provide(&self, head: &Head) {
        let (key, entry) = (head.key(), head.entry());
        let before = self.provided.lock().insert(key.clone(), rendezvous::head_key(entry));
        rendezvous::provide(&self.context, &key, entry, before);
    }
}

fn summary(report: &Report, providers: &[PeerId]) -> Summary {
    let shares = report.shares.iter().zip(providers).filter(|(share, _)| share.blocks > 0);
    let from = shares.map(|(share, peer)| Share { provider: *peer, blocks: share.blocks, bytes: share.bytes });
    let stats = report.stats;
    Summary { entries: report.entries, blocks: stats.blocks, bytes: stats.bytes, from: from.collect() }
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
