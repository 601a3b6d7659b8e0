//! Following: carries out what the follower machine decides.

mod by_name;
mod execute;
mod show;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use cid::Cid;
use dagmesh_announce::VerifiedAnnouncement;
use dagmesh_core::limits;
use dagmesh_dag::{FeedName, SignedHead};
use dagmesh_dagsync::follower::{Config, FollowKey, Follower as Machine, Head, Input, Latest, Policy, SyncId};
use dagmesh_records::IpnsName;
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use tokio::sync::{broadcast::error::RecvError, watch};
use tokio_util::sync::CancellationToken;

use self::{by_name::Named, show::shown};
use super::{
    Context,
    announcer::HeadAnnouncer,
    driven::Driven,
    ipni::{self, Ipni},
    records::Records,
    rendezvous, unix_ms,
};
use crate::{
    api::ProgressSink,
    error::{ErrorKind, NodeError},
    store::{FollowPolicy, FollowRecord, FrontierKey},
    swarm::MeshEvent,
    types::{Event, Follow, FollowState},
};

/// Addresses kept of a followed publisher.
const MAX_KEPT_ADDRS: usize = limits::MAX_ANNOUNCEMENT_ADDRS;

/// The following side of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Follower {
    context: Context,
    announcer: HeadAnnouncer,
    ipni: Ipni,
    records: Records,
    machine: Driven<Machine>,
    running: Arc<Mutex<HashMap<SyncId, CancellationToken>>>,
    /// The keys of the heads that this node provides in the DHT.
    provided: Arc<Mutex<HashMap<FollowKey, Vec<u8>>>>,
    /// The names that feeds are followed by.
    named: Arc<Mutex<HashMap<FollowKey, Named>>>,
    /// Feeds whose heads others are being asked for.
    asking: Arc<Mutex<HashSet<FollowKey>>>,
    /// Feeds whose heads are being read from the DHT.
    reading: Arc<Mutex<HashSet<FollowKey>>>,
    /// Counts every change of any follow's state.
    changes: Arc<watch::Sender<u64>>,
    segment: Option<u64>,
}

impl Follower {
    /// Takes up what the store says is followed.
    pub(crate) async fn start(
        context: &Context,
        announcer: HeadAnnouncer,
        ipni: Ipni,
        records: Records,
        max_syncs: usize,
        segment: Option<u64>,
    ) -> Result<Self, NodeError> {
        let own = context.key.public().to_peer_id();
        let config = Config { max_syncs, ..Config::new(own, rand::random()) };
        let this = Self {
            context: context.clone(),
            announcer,
            ipni,
            records,
            machine: Driven::new(Machine::new(config)),
            running: Arc::default(),
            named: Arc::default(),
            asking: Arc::default(),
            reading: Arc::default(),
            provided: Arc::default(),
            changes: Arc::new(watch::Sender::new(0)),
            segment,
        };
        for (publisher, feed, record) in context.blocking(|store| Ok(store.follows()?)).await? {
            this.take_up(FollowKey { publisher, feed }, &record).await?;
        }
        let (driver, listener, hearer) = (this.clone(), this.clone(), this.clone());
        context.spawn(async move { driver.machine.run(|effect| driver.act(effect)).await });
        context.spawn(async move { listener.watch_mesh().await });
        context.spawn(async move { hearer.hear_names().await });
        Ok(this)
    }

    /// Follows a feed from now on, also after a restart, by a name where one is given; of one that is followed already,
    /// changes the policy, and the name where one is given.
    pub(crate) async fn follow(
        &self,
        key: FollowKey,
        addrs: &[Multiaddr],
        policy: Policy,
        name: Option<IpnsName>,
    ) -> Result<(), NodeError> {
        if key.publisher == self.context.key.public().to_peer_id() {
            return Err(NodeError::usage("this is the node's own peer id; a node does not follow itself"));
        }
        if let Some(network) = ipni::network_of(&key.feed) {
            self.ipni.hear(network).await?;
        }
        let (stored, addrs) = (key.clone(), addrs.to_vec());
        let record = self
            .context
            .blocking(move |store| {
                let known = store.follow(&stored.publisher, &stored.feed)?;
                let mut record =
                    known.unwrap_or_else(|| FollowRecord { created_ms: unix_ms(), ..FollowRecord::default() });
                record.cut |= record.latest.is_some() && record.policy.cuts();
                record.policy =
                    FollowPolicy { depth: policy.depth, keep: policy.keep, first_sync_depth: policy.first_sync_depth };
                if let Some(name) = name {
                    record.name = Some(ByteBuf::from(name.key()));
                }
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
            self.named.lock().remove(&key);
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
            let changed = store.update_follow(&stored.publisher, &stored.feed, |record| {
                record.latest = latest.map(|(entry, _)| entry);
                record.latest_seq = latest.map_or(0, |(_, seq)| seq);
                record.cut &= latest.is_some();
            })?;
            // What was saved counts the entries of such a chain from where it stood.
            if ipni::network_of(&stored.feed).is_some() {
                store.remove_frontier(&FrontierKey::Follow(stored.publisher, stored.feed))?;
            }
            Ok(changed)
        });
        if changed.await?.is_none() {
            return Err(NodeError::not_found(format!("{key} is not followed; `dagmesh follows` lists what is")));
        }
        self.machine.input(Input::SetLatest { key, latest: latest.map(|(entry, seq)| Latest { entry, seq }) });
        Ok(())
    }

    /// How each follow stands.
    pub(crate) fn follows(&self) -> Vec<Follow> {
        let mut follows: Vec<_> = self.machine.look(|machine| machine.statuses(Instant::now()).map(shown).collect());
        follows.iter_mut().for_each(|follow| self.show_name(follow));
        follows
    }

    /// How one follow stands.
    pub(crate) fn status(&self, key: &FollowKey) -> Option<Follow> {
        let mut follow = self.machine.look(|machine| machine.status(Instant::now(), key)).map(shown);
        follow.iter_mut().for_each(|follow| self.show_name(follow));
        follow
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
        if !self.is_followed(&key) || ipni::network_of(&key.feed).is_some() {
            return;
        }
        let (this, addrs, head) = (self.clone(), announcement.addrs.clone(), announcement.head.clone());
        self.context.spawn(async move {
            this.learn_addrs(&key, addrs).await;
            this.machine.input(Input::Announced(Box::new(Head::Signed(head))));
        });
    }

    /// Whether this feed is followed.
    pub(crate) fn is_followed(&self, key: &FollowKey) -> bool {
        self.machine.look(|machine| machine.is_followed(key))
    }

    /// The chains of the IPNI network that are followed of this publisher.
    pub(crate) fn chains_of(&self, publisher: PeerId) -> Vec<FollowKey> {
        let follows = self.follows().into_iter().filter(|follow| follow.publisher == publisher);
        let chains = follows.filter(|follow| ipni::network_of(&follow.feed).is_some());
        chains.map(|follow| FollowKey { publisher, feed: follow.feed }).collect()
    }

    /// The publisher of a chain has a new head: it says so itself, and it is not behind what is held.
    pub(crate) fn chain_moved(&self, key: FollowKey, entry: Cid) {
        self.machine.input(Input::Announced(Box::new(Head::Bare { key, entry })));
    }

    /// A publisher has signed two heads with one number.
    pub(crate) fn forked(&self, known: &SignedHead, other: &SignedHead) {
        for head in [known, other].into_iter().filter(|head| ipni::network_of(head.feed()).is_none()) {
            self.machine.input(Input::Announced(Box::new(Head::Signed(head.clone()))));
        }
    }

    /// Ends what runs; what came is saved.
    pub(crate) fn close(&self) {
        self.machine.input(Input::Close);
    }

    async fn take_up(&self, key: FollowKey, record: &FollowRecord) -> Result<(), NodeError> {
        for addr in record.addrs.iter().filter(|addr| !ipni::is_http(addr)) {
            self.context.swarm.add_address(key.publisher, addr.clone()).await?;
        }
        self.context.swarm.protect(key.publisher).await?;
        if let Some(name) = record.name.as_ref().and_then(|name| IpnsName::from_key(name).ok()) {
            self.name(key.clone(), name);
        }
        let bare = record.newest_entry.map(|entry| Head::Bare { key: key.clone(), entry });
        let head = record.head().map(Head::Signed).or(bare);
        if let Some(Head::Signed(head)) = &head {
            self.context.validator.lock().learn(head);
        }
        if let Some(head) = head.as_ref().filter(|head| record.latest == Some(*head.entry())) {
            self.provide(head);
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

    /// Keeps where the publisher is said to be.
    pub(crate) async fn learn_addrs(&self, key: &FollowKey, addrs: Vec<Multiaddr>) {
        for addr in addrs.iter().filter(|addr| !ipni::is_http(addr)) {
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
        for addr in self.known_addrs(key).await.into_iter().filter(|addr| !ipni::is_http(addr)) {
            let _ = self.context.swarm.add_address(key.publisher, addr).await;
        }
    }

    /// Where the publisher was before.
    pub(crate) async fn known_addrs(&self, key: &FollowKey) -> Vec<Multiaddr> {
        let (publisher, feed) = (key.publisher, key.feed.clone());
        let known = self.context.blocking(move |store| Ok(store.follow(&publisher, &feed)?)).await;
        known.ok().flatten().map(|record| record.addrs).unwrap_or_default()
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
}

/// Puts new addresses in front; the oldest make room.
fn remember(known: &mut Vec<Multiaddr>, new: Vec<Multiaddr>) {
    for addr in new {
        known.retain(|old| *old != addr);
        known.insert(0, addr);
    }
    known.truncate(MAX_KEPT_ADDRS);
}
