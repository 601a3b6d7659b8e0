//! IPNS over PubSub: the records of a name travel on a topic of its own, beside the DHT.
//!
//! - A name that this node publishes, resolves or follows is subscribed to. Own ones stay; of the others the one unused for
//!   longest makes room beyond [`MAX_NAME_TOPICS`](limits::MAX_NAME_TOPICS).
//! - What comes goes to the book, as from the DHT: a newer record is kept and passed on, what is older or equal is ignored,
//!   what does not hold is rejected.
//! - Whoever joins a topic is asked for the newest record it has, over `/libp2p/fetch/0.0.1`, and asks us: that is how a
//!   record outlives the moment in which it was said, and how a newcomer gets it.
//! - [`find`]: others on the topic, by provider records in the DHT.
//!
//! Source: <https://specs.ipfs.tech/ipns/ipns-pubsub-router/>; go-libp2p-pubsub-router, whose intervals these are.

mod find;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use dagmesh_announce::Rates;
use dagmesh_core::limits::{self, MAX_NAME_FETCHES, MAX_NAME_TOPICS};
use dagmesh_records::{
    FetchAnswer, IpnsName, Namespace, Order, RecordError, Source, Stored, Verified, net::fetch, verify,
};
use libp2p::{PeerId, gossipsub::MessageAcceptance};
use parking_lot::Mutex;
use tokio::sync::{
    Notify, Semaphore,
    broadcast::{self, error::RecvError},
    mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::NodeError,
    services::{Context, unix_ms},
    swarm::{HeldMessage, MeshEvent, RecordBook},
};

const REBROADCAST: Duration = Duration::from_secs(limits::NAME_REBROADCAST_SECS);

/// Names over gossip. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PubSub {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    book: RecordBook,
    topics: Mutex<Topics>,
    /// What neighbours may say.
    rates: Mutex<Rates>,
    fetches: Semaphore,
    /// One topic at a time is joined or left.
    changing: tokio::sync::Mutex<()>,
    /// Held while it is noted who is there: a list of peers and what came after it are never noted in the wrong order.
    noting: tokio::sync::Mutex<()>,
    /// There may be a topic to find others for.
    seek: Notify,
    /// A question was answered, or will not be.
    answered: Notify,
    news: broadcast::Sender<IpnsName>,
}

#[derive(Default)]
struct Topics {
    of: BTreeMap<IpnsName, Topic>,
    /// Counts uses.
    clock: u64,
}

struct Topic {
    /// A name that this node publishes.
    own: bool,
    used: u64,
    /// Held by those who want to go on hearing of it.
    users: Arc<()>,
    /// Who is on it, of those connected with us.
    peers: BTreeSet<PeerId>,
    /// Who is being asked for the newest record.
    asking: BTreeSet<PeerId>,
    sought: find::Sought,
    /// Of which record was told last.
    told: Option<Order>,
    stop: CancellationToken,
}

/// While it is held, the name stays subscribed to.
#[must_use]
pub(crate) struct Listening {
    _user: Arc<()>,
}

impl Topics {
    /// Uses a topic that is there.
    fn take(&mut self, name: &IpnsName, own: bool) -> Option<Listening> {
        self.clock += 1;
        let clock = self.clock;
        let topic = self.of.get_mut(name)?;
        topic.own |= own;
        topic.used = clock;
        Some(Listening { _user: Arc::clone(&topic.users) })
    }

    /// What makes room for another.
    fn least_used(&self) -> Option<IpnsName> {
        let idle = self.of.iter().filter(|(_, topic)| !topic.own && Arc::strong_count(&topic.users) == 1);
        idle.min_by_key(|(_, topic)| topic.used).map(|(name, _)| *name)
    }
}

impl PubSub {
    /// Answers who asks for the record of a name, and subscribes to the own names again.
    pub(super) fn start(context: &Context, book: &RecordBook) -> Result<Self, NodeError> {
        let inner = Inner {
            context: context.clone(),
            book: book.clone(),
            topics: Mutex::default(),
            rates: Mutex::new(Rates::new(1)),
            fetches: Semaphore::new(MAX_NAME_FETCHES),
            changing: tokio::sync::Mutex::default(),
            noting: tokio::sync::Mutex::default(),
            seek: Notify::new(),
            answered: Notify::new(),
            news: broadcast::Sender::new(limits::EVENT_QUEUE),
        };
        let this = Self { inner: Arc::new(inner) };
        let incoming = context.swarm.streams().accept(fetch::PROTOCOL);
        let incoming = incoming.map_err(|error| NodeError::other(format!("a protocol is served twice: {error}")))?;
        let held = book.clone();
        context.spawn(fetch::serve_on(incoming, move |peer, request| {
            let answer = (!held.is_banned(&peer)).then(|| serve(&held, &request.key));
            async move { answer }
        }));
        let (watcher, events) = (this.clone(), context.swarm.events());
        context.spawn(async move { watcher.watch_mesh(events).await });
        let again = this.clone();
        context.spawn(async move { again.rebroadcast().await });
        let finder = this.clone();
        context.spawn(async move { finder.find().await });
        let own = book.list(true).into_iter().filter_map(|(record, _)| name_of(&record)).collect::<Vec<_>>();
        let owner = this.clone();
        context.spawn(async move {
            for name in own {
                let _stays = owner.join(name, true).await;
            }
        });
        Ok(this)
    }

    /// Says a record of ours on its topic, now and for as long as it is valid. Does not wait.
    pub(super) fn announce(&self, record: &Verified) {
        let Some(name) = name_of(record) else { return };
        let (this, bytes) = (self.clone(), record.bytes().to_vec());
        self.inner.context.spawn(async move {
            if let Some(_listening) = this.join(name, true).await {
                this.say(&name, bytes).await;
            }
        });
    }

    /// Subscribes to a name, where there is room, until what is given is dropped and another name needs the place.
    pub(crate) async fn listen(&self, name: IpnsName) -> Option<Listening> {
        self.join(name, false).await
    }

    /// Subscribes to a name; what is given ends once those on its topic who are connected have been asked, each within
    /// [`limits::CALL_TIMEOUT_SECS`]. Begins at once.
    pub(super) fn catch_up(&self, name: IpnsName) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        let task = self.inner.context.tasks.spawn(async move {
            let stop = this.inner.context.stop.clone();
            let _listening = stop.run_until_cancelled(this.join(name, false)).await;
            let silent = async {
                loop {
                    let answered = this.inner.answered.notified();
                    let asking = this.inner.topics.lock().of.get(&name).is_some_and(|topic| !topic.asking.is_empty());
                    if !asking {
                        return;
                    }
                    answered.await;
                }
            };
            stop.run_until_cancelled(silent).await;
        });
        async move { drop(task.await) }
    }

    /// Whether the name with this key in the DHT is subscribed to.
    pub(super) fn listens_to(&self, key: &[u8]) -> bool {
        IpnsName::from_key(key).is_ok_and(|name| self.inner.topics.lock().of.contains_key(&name))
    }

    /// The names of which gossip brings a newer record, or one that the DHT brought a moment before, from now on.
    pub(crate) fn news(&self) -> broadcast::Receiver<IpnsName> {
        self.inner.news.subscribe()
    }

    /// Goes on to its end though the caller be gone.
    async fn join(&self, name: IpnsName, own: bool) -> Option<Listening> {
        if let Some(listening) = self.inner.topics.lock().take(&name, own) {
            return Some(listening);
        }
        let this = self.clone();
        let joined = self.inner.context.tasks.spawn(async move {
            let _one_at_a_time = this.inner.changing.lock().await;
            if let Some(listening) = this.inner.topics.lock().take(&name, own) {
                return Ok(listening);
            }
            this.subscribe(name, own).await
        });
        match joined.await {
            Ok(Ok(listening)) => Some(listening),
            Ok(Err(error)) => {
                tracing::debug!(%name, %error, "a name goes without gossip");
                None
            }
            Err(_) => None,
        }
    }

    async fn subscribe(&self, name: IpnsName, own: bool) -> Result<Listening, NodeError> {
        let Inner { context, topics, seek, .. } = &*self.inner;
        let (full, idle) = {
            let topics = topics.lock();
            (topics.of.len() >= MAX_NAME_TOPICS, topics.least_used())
        };
        if full {
            let in_use = || NodeError::other(format!("{MAX_NAME_TOPICS} names are subscribed to, and all are in use"));
            self.leave(idle.ok_or_else(in_use)?).await?;
        }
        let gossip = context.swarm.subscribe_held(name.topic(), limits::NAME_GOSSIP_BYTES).await?;
        let stop = context.stop.child_token();
        let topic = Topic {
            own,
            used: 0,
            users: Arc::default(),
            peers: BTreeSet::new(),
            asking: BTreeSet::new(),
            sought: find::Sought::default(),
            told: None,
            stop: stop.clone(),
        };
        let listening = Listening { _user: Arc::clone(&topic.users) };
        {
            let mut topics = topics.lock();
            topics.of.insert(name, topic);
            topics.take(&name, own);
        }
        let (this, of_topic) = (self.clone(), Context { stop, ..context.clone() });
        of_topic.spawn(async move { this.hear(name, gossip).await });
        self.look_around().await?;
        seek.notify_one();
        Ok(listening)
    }

    async fn leave(&self, name: IpnsName) -> Result<(), NodeError> {
        let topic = self.inner.topics.lock().of.remove(&name);
        topic.iter().for_each(|topic| topic.stop.cancel());
        self.inner.answered.notify_waiters();
        let swarm = &self.inner.context.swarm;
        swarm.unsubscribe(name.topic()).await?;
        if let Some(key) = find::key(&name) {
            swarm.stop_providing(key).await?;
        }
        Ok(())
    }

    /// Judges what comes on a topic.
    async fn hear(&self, name: IpnsName, mut gossip: mpsc::Receiver<HeldMessage>) {
        let key = name.key();
        while let Some(HeldMessage { author, neighbour, data, held }) = gossip.recv().await {
            let acceptance = self.judge(&name, &key, author, neighbour, &data);
            if self.inner.context.swarm.judge(held, acceptance).await.is_err() {
                return;
            }
        }
    }

    fn judge(&self, name: &IpnsName, key: &[u8], author: PeerId, neighbour: PeerId, data: &[u8]) -> MessageAcceptance {
        let book = &self.inner.book;
        // Everybody says it again from time to time.
        let said = book.get(key).is_some_and(|held| held.bytes() == data);
        if said {
            // The DHT may have brought it a moment before.
            self.tell(name);
        }
        if said || book.is_banned(&author) || !self.inner.rates.lock().take(Instant::now(), neighbour) {
            return MessageAcceptance::Ignore;
        }
        let record = verify(key, data, unix_ms());
        match record.and_then(|record| book.put(Source::Peer(neighbour), record)) {
            Ok((Stored::Same, _)) => MessageAcceptance::Ignore,
            Ok((Stored::First | Stored::Newer, _)) => {
                self.tell(name);
                MessageAcceptance::Accept
            }
            Err(why) => {
                // Whoever passes on what another says may check nothing, and have been deceived.
                if author == neighbour {
                    book.report(author, &why);
                }
                acceptance(&why)
            }
        }
    }

    /// Asks whoever came to a topic for the newest record it has. One question at a time to each.
    fn ask(&self, name: IpnsName, peer: PeerId) {
        let news = self.inner.topics.lock().of.get_mut(&name).is_some_and(|topic| topic.asking.insert(peer));
        if !news {
            return;
        }
        let this = self.clone();
        self.inner.context.spawn(async move {
            if let Ok(_place) = this.inner.fetches.acquire().await {
                this.fetch(&name, peer).await;
            }
            if let Some(topic) = this.inner.topics.lock().of.get_mut(&name) {
                topic.asking.remove(&peer);
            }
            this.inner.answered.notify_waiters();
        });
    }

    async fn fetch(&self, name: &IpnsName, peer: PeerId) {
        let key = name.key();
        match fetch::ask(&mut self.inner.context.swarm.streams(), peer, &key).await {
            // Whoever answers has checked it: who asks gets nothing that is not valid.
            Ok(FetchAnswer::Found(record)) => match self.inner.book.put_of_peer(peer, &key, &record) {
                Ok(Stored::First | Stored::Newer | Stored::Same) => self.tell(name),
                Err(error) => tracing::debug!(%peer, %name, %error, "what a peer has of a name is not taken"),
            },
            Ok(FetchAnswer::NotFound | FetchAnswer::Error) => {}
            Err(error) => tracing::debug!(%error, "what a peer has of a name is not known"),
        }
    }

    /// Tells of what is held of a name, once. Nobody listening is fine.
    fn tell(&self, name: &IpnsName) {
        let Some(held) = self.inner.book.get(&name.key()).map(|held| held.order()) else { return };
        let mut topics = self.inner.topics.lock();
        let Some(topic) = topics.of.get_mut(name).filter(|topic| topic.told.is_none_or(|told| told < held)) else {
            return;
        };
        topic.told = Some(held);
        drop(topics);
        let _nobody_listens = self.inner.news.send(*name);
    }

    async fn say(&self, name: &IpnsName, record: Vec<u8>) {
        match self.inner.context.swarm.publish(name.topic(), record).await {
            Ok(peers) => tracing::debug!(%name, peers, "a record said on its topic"),
            Err(error) => tracing::debug!(%name, %error, "a record not said on its topic; who joins it is told"),
        }
    }

    /// Says what is held of each name again, for those whom gossip did not reach.
    async fn rebroadcast(&self) {
        loop {
            tokio::time::sleep(REBROADCAST).await;
            let names: Vec<_> = self.inner.topics.lock().of.keys().copied().collect();
            for name in names {
                if let Some(held) = self.inner.book.get(&name.key()) {
                    self.say(&name, held.bytes().to_vec()).await;
                }
            }
        }
    }

    fn joined(&self, name: IpnsName, peer: PeerId) {
        let known = self.inner.topics.lock().of.get_mut(&name).map(|topic| topic.peers.insert(peer));
        if known.is_some() {
            self.ask(name, peer);
        }
    }

    fn left(&self, of: Option<IpnsName>, peer: &PeerId) {
        let mut topics = self.inner.topics.lock();
        for (name, topic) in &mut topics.of {
            if of.is_none_or(|of| of == *name) && topic.peers.remove(peer) && topic.peers.is_empty() {
                self.inner.seek.notify_one();
            }
        }
    }

    /// Who of those connected is on which topic.
    async fn look_around(&self) -> Result<(), NodeError> {
        let _in_order = self.inner.noting.lock().await;
        let connected = self.inner.context.swarm.peers().await?;
        let names: Vec<_> = self.inner.topics.lock().of.keys().map(|name| (*name, name.topic())).collect();
        for (name, topic) in names {
            let there: BTreeSet<_> =
                connected.iter().filter(|peer| peer.topics.contains(&topic)).map(|peer| peer.peer).collect();
            let new: Vec<_> = {
                let mut topics = self.inner.topics.lock();
                let Some(topic) = topics.of.get_mut(&name) else { continue };
                let new = there.difference(&topic.peers).copied().collect();
                topic.peers = there;
                new
            };
            new.into_iter().for_each(|peer| self.ask(name, peer));
        }
        Ok(())
    }

    fn note(&self, event: MeshEvent) {
        match event {
            MeshEvent::TopicJoined { peer, topic } => {
                IpnsName::from_topic(&topic).into_iter().for_each(|name| self.joined(name, peer));
            }
            MeshEvent::TopicLeft { peer, topic } => {
                IpnsName::from_topic(&topic).into_iter().for_each(|name| self.left(Some(name), &peer));
            }
            MeshEvent::PeerDisconnected { peer, .. } => self.left(None, &peer),
            _ => {}
        }
    }

    async fn watch_mesh(&self, mut events: broadcast::Receiver<MeshEvent>) {
        loop {
            match events.recv().await {
                Ok(event) => {
                    let _in_order = self.inner.noting.lock().await;
                    self.note(event);
                }
                Err(RecvError::Lagged(_)) => {
                    if let Err(error) = self.look_around().await {
                        tracing::debug!(%error, "who is on which topic is not known");
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// What a peer that asks for a name is told. Records of other namespaces are not for this protocol.
fn serve(book: &RecordBook, key: &[u8]) -> FetchAnswer {
    let held = Namespace::of(key).is_ok_and(|namespace| namespace == Namespace::Ipns).then(|| book.get(key)).flatten();
    held.and_then(|held| FetchAnswer::found(held.bytes()).ok()).unwrap_or(FetchAnswer::NotFound)
}

/// The name whose record it is.
fn name_of(record: &Verified) -> Option<IpnsName> {
    IpnsName::from_key(record.key()).ok()
}

/// What a message is worth whose record is refused. A clock that differs, a race and want of room are nobody's fault.
fn acceptance(why: &RecordError) -> MessageAcceptance {
    match why {
        RecordError::Superseded { .. }
        | RecordError::Outlived { .. }
        | RecordError::Expired { .. }
        | RecordError::Future { .. }
        | RecordError::Full(_) => MessageAcceptance::Ignore,
        _ => MessageAcceptance::Reject,
    }
}
