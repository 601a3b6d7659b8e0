//! Publishing: appends entries to own feeds, moves their heads, provides them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cid::Cid;
use dagmesh_dag::{Blockstore, Entry, FeedName, SignedHead, StoreError};
use dagmesh_dagsync::follower::FollowKey;
use ipld_core::ipld::Ipld;
use libp2p::PeerId;
use parking_lot::Mutex;

use super::{Context, announcer::HeadAnnouncer, rendezvous, unix_ms};
use crate::{
    error::{ErrorKind, NodeError},
    types::{Event, FeedStatus},
};

/// The publishing side of a node.
#[derive(Clone)]
pub(crate) struct Publisher {
    context: Context,
    announcer: HeadAnnouncer,
    /// One entry at a time: the next one links to it.
    publishing: Arc<tokio::sync::Mutex<()>>,
    /// The newest head of each feed that is on the disk. The store also shows one that it could not make durable; whoever
    /// was told of that would see its number used again.
    heads: Arc<Mutex<BTreeMap<FeedName, SignedHead>>>,
    seen: Arc<Mutex<BTreeMap<FeedName, Seen>>>,
}

/// What is known of an own head's way into the world.
#[derive(Default)]
struct Seen {
    head: Cid,
    fetched: Option<u64>,
    confirmed: HashMap<PeerId, u64>,
}

/// Peers remembered for each head as having confirmed it: enough to show that it is out there.
const MAX_CONFIRMED: usize = 1024;

impl Publisher {
    /// Takes up the feeds of the store: announces and provides their heads.
    pub(crate) async fn start(context: &Context) -> Result<Self, NodeError> {
        let heads = context.blocking(|store| Ok(store.own_heads()?)).await?;
        let this = Self {
            context: context.clone(),
            announcer: HeadAnnouncer::start(context, heads.clone()),
            publishing: Arc::default(),
            heads: Arc::new(Mutex::new(heads.iter().map(|head| (head.feed().clone(), head.clone())).collect())),
            seen: Arc::default(),
        };
        for head in heads {
            this.provide(&head, None);
        }
        Ok(this)
    }

    pub(crate) fn announcer(&self) -> &HeadAnnouncer {
        &self.announcer
    }

    /// Appends an entry that carries `content`, a DAG that is held. Entry and head are on the disk, both or neither,
    /// before anybody hears of them. Returns the head and how many peers it was announced to.
    ///
    /// Dropped half-way, the entry may have been published all the same; it is announced at the next start.
    pub(crate) async fn publish(
        &self,
        feed: FeedName,
        content: Cid,
        meta: Option<Ipld>,
        announce: bool,
    ) -> Result<(SignedHead, usize), NodeError> {
        let _one_at_a_time = self.publishing.lock().await;
        let key = Arc::clone(&self.context.key);
        let (before, head) = self.context.blocking(move |store| append(store, &key, &feed, content, meta)).await?;
        self.heads.lock().insert(head.feed().clone(), head.clone());
        self.context.validator.lock().learn(&head);
        self.context.events.tell(Event::Published { feed: head.feed().clone(), head: *head.head(), seq: head.seq() });
        self.provide(&head, before.as_ref());
        let peers = if announce { self.announce(&head).await } else { 0 };
        Ok((head, peers))
    }

    /// Announces an own head again.
    pub(crate) async fn announce(&self, head: &SignedHead) -> usize {
        self.announcer.announce(head.clone()).await
    }

    /// The newest head of an own feed.
    pub(crate) fn head(&self, feed: &FeedName) -> Option<SignedHead> {
        self.heads.lock().get(feed).cloned()
    }

    /// The newest head of each own feed, by name.
    pub(crate) fn heads(&self) -> Vec<SignedHead> {
        self.heads.lock().values().cloned().collect()
    }

    /// A peer was sent these blocks first in an answer: one of our heads may be among them.
    pub(crate) fn fetched(&self, roots: &[Cid]) {
        let now = unix_ms();
        for seen in self.seen.lock().values_mut().filter(|seen| roots.contains(&seen.head)) {
            seen.fetched.get_or_insert(now);
        }
    }

    /// A peer says that it is in sync with a head of ours. `false` where that is not our newest.
    pub(crate) fn confirmed(&self, peer: PeerId, head: &SignedHead) -> bool {
        if head.publisher() != self.context.key.public().to_peer_id() {
            return false;
        }
        if self.head(head.feed()).as_ref() != Some(head) {
            return false;
        }
        self.seen(head, |seen| {
            if seen.confirmed.len() < MAX_CONFIRMED {
                seen.confirmed.entry(peer).or_insert_with(unix_ms);
            }
        });
        true
    }

    /// How each own feed stands.
    pub(crate) fn feeds(&self) -> Vec<FeedStatus> {
        let heads = self.heads();
        let seen = self.seen.lock();
        let status = |head: SignedHead| {
            let seen = seen.get(head.feed()).filter(|seen| seen.head == *head.head());
            let announced = self.announcer.announced(&head);
            FeedStatus {
                feed: head.feed().clone(),
                head: *head.head(),
                seq: head.seq(),
                published: head.time(),
                announced: announced.map(|(ago, _)| unix_ms().saturating_sub(ago.as_millis() as u64)),
                announced_to: announced.map_or(0, |(_, peers)| peers),
                fetched: seen.and_then(|seen| seen.fetched),
                confirmed: seen.and_then(|seen| seen.confirmed.values().min().copied()),
                confirmed_by: seen.map_or(0, |seen| seen.confirmed.len()),
            }
        };
        heads.into_iter().map(status).collect()
    }

    /// Provides the new head in Kademlia, and the one before it no longer.
    fn provide(&self, head: &SignedHead, before: Option<&SignedHead>) {
        self.seen(head, |_| {});
        let before = before.map(|before| rendezvous::head_key(before.head()));
        rendezvous::provide(&self.context, &FollowKey::of(head), head.head(), before);
    }

    fn seen(&self, head: &SignedHead, change: impl FnOnce(&mut Seen)) {
        let mut feeds = self.seen.lock();
        let seen = feeds.entry(head.feed().clone()).or_default();
        if seen.head != *head.head() {
            *seen = Seen { head: *head.head(), ..Seen::default() };
        }
        change(seen);
    }
}

/// Writes the next entry and its head in one transaction.
fn append(
    store: &crate::store::Store,
    key: &libp2p::identity::Keypair,
    feed: &FeedName,
    content: Cid,
    meta: Option<Ipld>,
) -> Result<(Option<SignedHead>, SignedHead), NodeError> {
    dagmesh_dag::check_cid(&content)?;
    if !store.has(&content)? {
        return Err(NodeError::not_found(format!(
            "{content} is not held, so it cannot be published; `dagmesh add` or `dagmesh dag import` it first"
        )));
    }
    let before = store.own_head(feed)?;
    // A clock that was set back must not make the new head older than the one before.
    let time = before.as_ref().map_or(0, SignedHead::time).max(unix_ms());
    let seq = before.as_ref().map_or(1, |head| head.seq() + 1);
    let entry = Entry { previous: before.as_ref().map(|head| *head.head()), seq, time, content, meta };
    let block = entry.to_block().map_err(feed_error)?;
    let head = SignedHead::sign(key, feed, *block.cid(), seq, time).map_err(feed_error)?;
    store.publish_entry(&block, &head)?;
    Ok((before, head))
}

fn feed_error(error: dagmesh_dag::FeedError) -> NodeError {
    NodeError::new(ErrorKind::Usage, format!("the entry cannot be made: {error}"))
}

/// The store's errors on the way through services that speak [`StoreError`].
pub(crate) fn store_error(error: crate::store::Error) -> StoreError {
    match error {
        crate::store::Error::Store(error) => error,
        error => StoreError::Closed(error.to_string()),
    }
}
