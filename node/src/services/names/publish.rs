//! Keeps names at the heads of own feeds.
//!
//! One task a feed: it puts the newest head, and again while there is a newer one. So however fast a feed moves, one put of it
//! runs at a time, and the last one is of the newest head.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dagmesh_core::{cbor, limits};
use dagmesh_dag::{FeedName, SignedHead};
use dagmesh_records::{IpnsName, record_key};
use libp2p::identity::Keypair;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, broadcast::error::RecvError};
use tokio_util::sync::CancellationToken;

use super::record_name;
use crate::{
    error::NodeError,
    keys::Keyring,
    services::{Context, publisher::Publisher, records::Records, unix_ms},
    swarm::MeshEvent,
    types::{KeyName, NamePublish, RecordPut},
};

/// Where bindings are kept; the feed's name follows.
const ROWS: &str = "names/";
/// Feeds whose names are put at once.
const PUT_AT_ONCE: usize = 4;
/// Waits before a put that reached nobody is tried again: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10 * 60));

/// The names of own feeds. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Names {
    context: Context,
    publisher: Publisher,
    records: Records,
    keys: Keyring,
    bound: Arc<Mutex<BTreeMap<FeedName, Bound>>>,
    /// One binding at a time is made or ended.
    binding: Arc<tokio::sync::Mutex<()>>,
    places: Arc<Semaphore>,
}

/// A feed that has a name.
#[derive(Clone)]
struct Bound {
    key: Arc<Keypair>,
    /// Counts bindings: of several feeds of one key the IPNS record shows that which was bound last.
    order: u64,
    moved: Arc<Notify>,
    stop: CancellationToken,
}

/// A binding as it is on the disk.
#[derive(Serialize, Deserialize)]
struct Row {
    key: KeyName,
    order: u64,
}

impl Names {
    /// Takes up the bindings of the store.
    pub(crate) async fn start(
        context: &Context,
        publisher: &Publisher,
        records: &Records,
        keys: Keyring,
    ) -> Result<Self, NodeError> {
        let this = Self {
            context: context.clone(),
            publisher: publisher.clone(),
            records: records.clone(),
            keys,
            bound: Arc::default(),
            binding: Arc::default(),
            places: Arc::new(Semaphore::new(PUT_AT_ONCE)),
        };
        for (row, value) in context.blocking(|store| Ok(store.kv_list(ROWS)?)).await? {
            let feed = row.strip_prefix(ROWS).and_then(|feed| FeedName::new(feed).ok());
            let Some((feed, Row { key, order })) = feed.zip(cbor::from_slice::<Row>(&value).ok()) else {
                tracing::warn!(row, "a name's row cannot be read; `publish --name` makes it anew");
                continue;
            };
            match this.key(&key).await {
                Ok(key) => drop(this.take_up(feed, key, order)),
                Err(error) => tracing::warn!(%feed, %error, "the name of a feed is not moved"),
            }
        }
        Ok(this)
    }

    /// The key of this name.
    pub(crate) async fn key(&self, key: &KeyName) -> Result<Arc<Keypair>, NodeError> {
        let (keys, name) = (self.keys.clone(), key.clone());
        self.context.blocking(move |_| keys.get(&name)).await.map(Arc::new)
    }

    /// Gives a feed a name, from now on and over restarts: each publication moves it. Gives the name. The put goes on by
    /// itself.
    pub(crate) async fn bind(&self, feed: FeedName, key: &KeyName) -> Result<IpnsName, NodeError> {
        let _one_at_a_time = self.binding.lock().await;
        let keypair = self.key(key).await?;
        let order = self.next_order();
        let row =
            cbor::to_vec(&Row { key: key.clone(), order }).map_err(|error| NodeError::other(error.to_string()))?;
        let at = format!("{ROWS}{feed}");
        self.context.blocking(move |store| Ok(store.kv_put(&at, &row)?)).await?;
        Ok(self.take_up(feed, keypair, order))
    }

    /// Moves the name of a feed no longer; what was put stands until it expires. Gives whether it had one.
    pub(crate) async fn unbind(&self, feed: &FeedName) -> Result<bool, NodeError> {
        let _one_at_a_time = self.binding.lock().await;
        let at = format!("{ROWS}{feed}");
        self.context.blocking(move |store| Ok(store.kv_remove(&at)?)).await?;
        let bound = self.bound.lock().remove(feed);
        bound.iter().for_each(|bound| bound.stop.cancel());
        Ok(bound.is_some())
    }

    /// The name of a feed.
    pub(crate) fn name_of(&self, feed: &FeedName) -> Option<IpnsName> {
        self.bound.lock().get(feed).map(|bound| IpnsName::of(&bound.key.public()))
    }

    /// A feed has a newer head.
    pub(crate) fn moved(&self, feed: &FeedName) {
        self.bound.lock().get(feed).iter().for_each(|bound| bound.moved.notify_one());
    }

    fn next_order(&self) -> u64 {
        self.bound.lock().values().map(|bound| bound.order).max().map_or(0, |order| order.saturating_add(1))
    }

    fn take_up(&self, feed: FeedName, key: Arc<Keypair>, order: u64) -> IpnsName {
        let name = IpnsName::of(&key.public());
        let stop = self.context.stop.child_token();
        let bound = Bound { key, order, moved: Arc::new(Notify::new()), stop: stop.clone() };
        let before = self.bound.lock().insert(feed.clone(), bound.clone());
        before.iter().for_each(|before| before.stop.cancel());
        let (this, of_feed) = (self.clone(), Context { stop, ..self.context.clone() });
        of_feed.spawn(async move { this.keep(feed, bound).await });
        name
    }

    /// While it is held, no put runs.
    #[cfg(test)]
    pub(super) async fn hold_places(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.places.acquire_many(PUT_AT_ONCE as u32).await.expect("is open")
    }

    /// Keeps one feed's name at its head, until it is dropped.
    async fn keep(&self, feed: FeedName, bound: Bound) {
        let mut events = self.context.swarm.events();
        let mut wait = RETRY.0;
        loop {
            let reached = match self.publisher.head(&feed) {
                Some(head) => self.put(&head, &bound).await,
                None => Ok(()),
            };
            let due = match reached {
                Ok(()) => {
                    wait = RETRY.0;
                    // Renewed before it expires.
                    Duration::from_secs(limits::IPNS_LIFETIME_SECS / 4)
                }
                Err(error) => {
                    tracing::info!(%feed, head = ?self.publisher.head(&feed).map(|head| head.seq()), %error, "the name of a feed could not be moved; trying again");
                    let now = wait;
                    wait = (wait * 2).min(RETRY.1);
                    now
                }
            };
            let failed = wait > RETRY.0;
            let somebody_new = async {
                // Of many that come at once one is enough.
                tokio::time::sleep(RETRY.0 / 4).await;
                loop {
                    match events.recv().await {
                        Ok(MeshEvent::PeerIdentified { .. }) if failed => return,
                        Ok(_) | Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = bound.moved.notified() => {}
                () = somebody_new => {}
                () = tokio::time::sleep(due) => {}
            }
        }
    }

    /// Puts both records, where they do not stand so already; an error where somebody is to hold them and nobody does.
    async fn put(&self, head: &SignedHead, bound: &Bound) -> Result<(), NodeError> {
        let Ok(_place) = self.places.acquire().await else { return Err(NodeError::stopping()) };
        let (feed, key) = (head.feed(), &bound.key);
        let public = key.public();
        let name =
            dagmesh_records::RecordName::new(record_name(feed)).map_err(|error| NodeError::usage(error.to_string()))?;
        let (value, at) = (head.encode(), record_key(&public, &name));
        let half = |secs: u64| unix_ms().saturating_add(secs * 1000 / 2);
        // The head first, so that whoever hears of the name over gossip finds it.
        let reached = match self.records.held_value(&at, half(limits::RECORD_LIFETIME_SECS)) {
            Some(held) if held == value => self.records.put_held(&at).await,
            _ => {
                let put = RecordPut::new(name.to_string(), value);
                self.records.put(Some(Keypair::clone(key)), put).await.map(|_| ())
            }
        };
        if self.shows(feed, bound) {
            let (path, at) = (format!("/ipfs/{}", head.head()), IpnsName::of(&public).key());
            match self.records.held_value(&at, half(limits::IPNS_LIFETIME_SECS)) {
                Some(held) if held == path.as_bytes() => self.records.put_held(&at).await?,
                _ => drop(self.records.publish(Some(Keypair::clone(key)), NamePublish::new(path)).await?),
            }
        }
        reached
    }

    /// Whether the IPNS record of the key is this feed's.
    fn shows(&self, feed: &FeedName, bound: &Bound) -> bool {
        let name = bound.key.public();
        let others = self.bound.lock();
        let mut others = others.iter().filter(|(other, bound)| *other != feed && bound.key.public() == name);
        others.all(|(_, other)| other.order < bound.order)
    }
}
