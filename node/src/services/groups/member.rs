//! One group that this node takes part in: its machine, and what carries out what that wants.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_chronosync::{
    Acceptance, Body, CallId, Config, Effect, Entry, Group as Machine, GroupHead, GroupId, Input, MemberList,
    Membership, net,
};
use dagmesh_core::limits;
use dagmesh_dag::Block;
use data_encoding::HEXLOWER;
use libp2p::{PeerId, gossipsub::MessageAcceptance};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};

use super::{
    backlog::{Backlog, Work},
    fetch, find,
    tracker::{Leaf, Tracker},
    writer::{self, Ends},
};
use crate::{
    error::{ErrorKind, NodeError},
    services::{Context, driven::Driven, unix_ms},
    store::{GroupPeer, GroupRecord, Store},
    swarm::{Held, HeldMessage},
    types::GroupEvent,
};

/// Messages over this many bytes may hold more signatures than an async thread should check.
const LIGHT_BYTES: usize = 8 * 1024;
/// How often the machine is told what the clock says.
const CLOCK: Duration = Duration::from_secs(30);

/// What all groups of a node share.
#[derive(Clone)]
pub(super) struct Places {
    /// Requests of ours.
    pub(super) calls: Arc<Semaphore>,
    /// Chains and contents that are fetched.
    pub(super) fetches: Arc<Semaphore>,
    /// Bytes that one content may bring.
    pub(super) content_bytes: u64,
}

/// A group that is taken part in.
pub(super) struct Member {
    /// Ends with the membership.
    pub(super) context: Context,
    pub(super) places: Places,
    pub(super) group: GroupId,
    pub(super) name: String,
    /// Whose list says who may write; none where the group is open.
    pub(super) owner: Option<PeerId>,
    /// Members that tickets named, or that were there, and where they can be dialled.
    pub(super) known: Mutex<Vec<GroupPeer>>,
    pub(super) machine: Driven<Machine>,
    pub(super) backlog: Backlog,
    /// Held by the thread that writes.
    pub(super) writing: Mutex<()>,
    pub(super) tracker: Mutex<Tracker>,
    /// There may be something to fetch.
    pub(super) wanted: Notify,
    /// There is somebody new to dial.
    pub(super) seek: Notify,
    /// Somebody came.
    pub(super) met: Notify,
    /// Who came or went.
    pub(super) neighbours: Notify,
    /// Rows of the log.
    pub(super) entries: AtomicU64,
    /// Counts what was written.
    pub(super) changes: watch::Sender<u64>,
    pub(super) initialized: watch::Sender<bool>,
    pub(super) events: broadcast::Sender<GroupEvent>,
    pub(super) misbehaved: AtomicU64,
    /// Bytes that were fetched of contents which are not whole yet, by their place in the log; counted anew after a restart.
    pub(super) fetched: Arc<Mutex<HashMap<u64, u64>>>,
    /// Who told us last of a producer's publication: at hand to be asked for it.
    pub(super) heard: Mutex<HashMap<PeerId, PeerId>>,
    /// The entry of the publication that is being made.
    pub(super) own_block: Mutex<Option<Block>>,
    voice: mpsc::Sender<Say>,
    held: Mutex<BTreeMap<u64, Held>>,
    asked: Mutex<BTreeMap<u64, oneshot::Sender<Option<Vec<u8>>>>>,
    tokens: AtomicU64,
    /// One change of the list at a time.
    listing: tokio::sync::Mutex<()>,
    /// Our last entry; one publication at a time is made.
    publishing: tokio::sync::Mutex<Option<Cid>>,
    pub(super) waiting: Semaphore,
    published: Mutex<Option<oneshot::Sender<Result<GroupHead, String>>>>,
}

/// What goes to the topic.
enum Say {
    Gossip(Vec<u8>),
    Verdict(Held, MessageAcceptance),
}

impl Member {
    /// Takes up a membership that is on the disk.
    pub(super) async fn start(
        context: &Context,
        places: Places,
        group: GroupId,
        record: GroupRecord,
    ) -> Result<Arc<Self>, NodeError> {
        let context = Context { stop: context.stop.child_token(), ..context.clone() };
        let id = *group.as_bytes();
        let (heads, progress, waiting, ends) = context
            .blocking(move |store| {
                let ends = Ends { log: store.group_log_end(&id)?, gaps: store.group_gaps_end(&id)? };
                Ok((store.group_heads(&id)?, store.group_progress(&id)?, store.group_waiting(&id)?, ends))
            })
            .await?;
        let mut restored = Vec::with_capacity(heads.len());
        for (_, head) in &heads {
            match GroupHead::decode(&group, head) {
                Ok(head) => restored.push(head),
                Err(error) => tracing::warn!(group = record.name, %error, "a stored head is left out"),
            }
        }
        let own = context.key.public().to_peer_id();
        let progress: BTreeMap<_, _> = progress.into_iter().collect();
        let waiting: BTreeSet<_> = waiting.into_iter().collect();
        let ours = restored.iter().filter(|head| head.producer() == own);
        let last = ours.max_by_key(|head| head.session()).and_then(|head| head.content().copied());

        let owner = record.owner.as_ref().and_then(|owner| PeerId::from_bytes(owner).ok());
        let membership = owner.map_or(Membership::Open, |owner| Membership::Closed { owner });
        let config = Config { membership, ..Config::new(group, unix_ms(), rand::random()) };
        let machine = Driven::new(Machine::new(std::time::Instant::now(), config));
        if let (Some(owner), Some(list)) = (owner, &record.members) {
            match MemberList::decode(&group, &owner, list) {
                Ok(list) => machine.input(Input::Members(list)),
                Err(error) => tracing::warn!(group = record.name, %error, "the stored list of members is left out"),
            }
        }
        machine.input(Input::Restored(restored));
        // What of the state is not told is caught up on.
        let mut tracker = Tracker::default();
        machine.look(|machine| {
            for head in machine.state().heads() {
                let key = head.key();
                let progress = progress.get(&(key.name, key.session)).copied().unwrap_or_default();
                let mut leaf = Leaf::new(head.producer(), progress);
                leaf.aim(head, true);
                leaf.waiting = waiting.contains(&(key.name, key.session));
                tracker.leaves.insert(key, leaf);
            }
        });
        let key = Box::new((*context.key).clone());
        machine.input(Input::AddProducer { key, session: record.session });
        let (voice, saying) = mpsc::channel(limits::GROUP_VOICE_QUEUE);
        let this = Arc::new(Self {
            places,
            group,
            name: record.name.clone(),
            owner,
            known: Mutex::new(record.peers),
            machine,
            backlog: Backlog::new(),
            writing: Mutex::default(),
            tracker: Mutex::new(tracker),
            wanted: Notify::new(),
            seek: Notify::new(),
            met: Notify::new(),
            neighbours: Notify::new(),
            entries: AtomicU64::new(ends.log),
            changes: watch::Sender::new(0),
            initialized: watch::Sender::new(false),
            events: broadcast::Sender::new(limits::EVENT_QUEUE),
            misbehaved: AtomicU64::new(0),
            fetched: Arc::default(),
            heard: Mutex::default(),
            own_block: Mutex::default(),
            voice,
            held: Mutex::default(),
            asked: Mutex::default(),
            tokens: AtomicU64::new(0),
            listing: tokio::sync::Mutex::default(),
            publishing: tokio::sync::Mutex::new(last),
            waiting: Semaphore::new(limits::MAX_GROUP_PUBLISH_QUEUE),
            published: Mutex::default(),
            context,
        });
        let gossip = this.context.swarm.subscribe_held(this.topic(), limits::GROUP_GOSSIP_BYTES).await?;
        this.run(gossip, saying, ends);
        Ok(this)
    }

    fn run(self: &Arc<Self>, mut gossip: mpsc::Receiver<HeldMessage>, mut saying: mpsc::Receiver<Say>, ends: Ends) {
        let context = &self.context;
        let this = Arc::clone(self);
        context.spawn(async move { this.machine.run(|effect| this.act(effect)).await });
        context.spawn(writer::run(Arc::clone(self), ends));
        context.spawn(fetch::run(Arc::clone(self)));
        context.spawn(find::run(Arc::clone(self)));
        context.spawn(find::remember(Arc::clone(self)));
        let this = Arc::clone(self);
        context.spawn(async move {
            while let Some(message) = gossip.recv().await {
                this.heard(message).await;
            }
        });
        let this = Arc::clone(self);
        context.spawn(async move {
            while let Some(say) = saying.recv().await {
                this.say(say).await;
            }
        });
        let this = Arc::clone(self);
        context.spawn(async move {
            loop {
                tokio::time::sleep(CLOCK).await;
                this.machine.input(Input::Clock(unix_ms()));
            }
        });
    }

    /// Who we publish as.
    pub(super) fn producer(&self) -> PeerId {
        self.context.key.public().to_peer_id()
    }

    /// Its topic.
    pub(super) fn topic(&self) -> String {
        topic(&self.group)
    }

    /// Tells whoever watches; nobody watching is fine.
    pub(super) fn tell(&self, event: GroupEvent) {
        let _nobody_watches = self.events.send(event);
    }

    /// A peer of the group is there.
    pub(super) fn joined(&self, peer: PeerId) {
        self.machine.input(Input::PeerJoined(peer));
        self.tracker.lock().hope();
        self.wanted.notify_one();
        self.met.notify_one();
        self.neighbours.notify_one();
    }

    /// A peer of the group is gone.
    pub(super) fn left(&self, peer: PeerId) {
        self.machine.input(Input::PeerLeft(peer));
        self.neighbours.notify_one();
    }

    /// Whether this producer's heads are taken.
    pub(super) fn may_write(&self, producer: &PeerId) -> bool {
        self.owner.is_none_or(|owner| owner == *producer || self.list().1.contains(producer))
    }

    /// The version of the list of who may write, and who stands on it; 0 and nobody where none is known.
    pub(super) fn list(&self) -> (u64, BTreeSet<PeerId>) {
        self.machine.look(|machine| {
            machine.member_list().map_or_else(Default::default, |list| (list.version(), list.members().clone()))
        })
    }

    /// Changes the list; for its owner alone. Durable when it answers.
    pub(super) async fn change_list(&self, add: Vec<PeerId>, remove: &[PeerId]) -> Result<(), NodeError> {
        let own = self.producer();
        match self.owner {
            None => {
                return Err(NodeError::usage(format!("{} is open to all; it has no list of members", self.name)));
            }
            Some(owner) if owner != own => {
                let refusal = format!("{} is {owner}'s group: only its owner changes its list", self.name);
                return Err(NodeError::new(ErrorKind::Unauthorised, refusal));
            }
            Some(_) => {}
        }
        let _one_at_a_time = self.listing.lock().await;
        let mut events = self.events.subscribe();
        let (version, mut members) = self.list();
        members.extend(add);
        members.retain(|member| !remove.contains(member));
        let version = version.saturating_add(1);
        let list = MemberList::sign(&self.context.key, &self.group, version, members, unix_ms());
        self.machine.input(Input::Members(list.map_err(|error| NodeError::usage(error.to_string()))?));
        loop {
            match events.recv().await {
                Ok(GroupEvent::MembersChanged { version: written }) if written >= version => return Ok(()),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) if self.list().0 >= version => return Ok(()),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Err(NodeError::stopping()),
            }
        }
    }

    /// Keeps members and where they are, to dial them when they are missed. The newest come first.
    pub(super) async fn remember(&self, peers: Vec<GroupPeer>) -> Result<(), NodeError> {
        let known = {
            let mut known = self.known.lock();
            if peers.iter().all(|peer| known.contains(peer)) {
                return Ok(());
            }
            known.retain(|known| peers.iter().all(|peer| peer.peer != known.peer));
            known.extend(peers);
            let over = known.len().saturating_sub(limits::MAX_GROUP_KNOWN_PEERS);
            known.drain(..over);
            known.clone()
        };
        let id = *self.group.as_bytes();
        let keep = move |store: &Store| {
            Ok(store.transaction(|batch| {
                let Some(record) = batch.group(&id)? else { return Ok(()) };
                batch.set_group(&id, &GroupRecord { peers: known, ..record })
            })?)
        };
        self.context.blocking(keep).await
    }

    /// The peers of the group that are connected.
    pub(super) fn peers(&self) -> Vec<PeerId> {
        self.machine.look(|machine| machine.peers().collect())
    }

    /// Answers a request of a peer; `None` drops it.
    pub(super) async fn asked(&self, peer: PeerId, request: Bytes) -> Option<Vec<u8>> {
        self.backlog.room().await;
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.asked.lock().insert(token, reply);
        let light = request.len() <= LIGHT_BYTES;
        self.input(Input::Request { token, peer, bytes: request.into() }, light).await;
        answer.await.ok().flatten()
    }

    /// Publishes one thing, after those that were to be published before: durable, and told to whoever is there.
    ///
    /// Dropped half-way, it may be published all the same.
    pub(super) async fn publish(self: &Arc<Self>, body: Body) -> Result<GroupHead, NodeError> {
        let this = Arc::clone(self);
        // A task of its own: the next entry links to this one, also where nobody waits for it any more.
        let work = async move {
            let _place = this.waiting.try_acquire().map_err(|_| {
                let max = limits::MAX_GROUP_PUBLISH_QUEUE;
                NodeError::new(ErrorKind::Unavailable, format!("{max} publications of {} wait already", this.name))
            })?;
            let stop = this.context.stop.clone();
            stop.run_until_cancelled(this.publish_next(body)).await.unwrap_or_else(|| Err(NodeError::stopping()))
        };
        let task = self.context.tasks.spawn(work);
        task.await.map_err(|error| NodeError::other(format!("publishing broke: {error}")))?
    }

    async fn publish_next(&self, body: Body) -> Result<GroupHead, NodeError> {
        let mut previous = self.publishing.lock().await;
        let refused = |error: dagmesh_chronosync::EntryError| NodeError::usage(format!("cannot be published: {error}"));
        let block = Entry { previous: *previous, time: unix_ms(), body }.to_block().map_err(refused)?;
        let payload = Entry::payload(&block).map_err(refused)?;
        let (reply, answer) = oneshot::channel();
        *self.published.lock() = Some(reply);
        *self.own_block.lock() = Some(block.clone());
        self.machine.input(Input::Publish { producer: self.producer(), payload });
        let head = answer.await.map_err(|_| NodeError::stopping())?;
        let head = head
            .map_err(|reason| NodeError::other(format!("the publication in {} was not made: {reason}", self.name)))?;
        *previous = Some(*block.cid());
        Ok(head)
    }

    /// The publication under way was made, or was not.
    pub(super) fn acknowledge(&self, result: Result<GroupHead, String>) {
        if let Some(reply) = self.published.lock().take() {
            let _caller_has_gone = reply.send(result);
        }
    }

    /// A message has come over the topic.
    async fn heard(&self, message: HeldMessage) {
        self.backlog.room().await;
        let HeldMessage { author, neighbour, data, held } = message;
        {
            let mut heard = self.heard.lock();
            if heard.len() >= limits::MAX_GROUP_PEERS && !heard.contains_key(&author) {
                heard.clear();
            }
            heard.insert(author, neighbour);
        }
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        self.held.lock().insert(token, held);
        let light = data.len() <= LIGHT_BYTES;
        self.input(Input::Gossip { token, author, neighbour, bytes: data }, light).await;
    }

    /// Tells the machine something that may take it a while: with thousands of signatures, a tenth of a second.
    async fn input(&self, input: Input, light: bool) {
        if light {
            return self.machine.input(input);
        }
        let machine = self.machine.clone();
        let told = self.context.blocking(move |_| {
            machine.input(input);
            Ok(())
        });
        if let Err(error) = told.await {
            tracing::warn!(group = self.name, %error, "a message of a group was not taken");
        }
    }

    /// Never blocks.
    fn act(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Gossip(bytes) => self.say_soon(Say::Gossip(bytes)),
            Effect::Verdict { token, acceptance } => {
                let Some(held) = self.held.lock().remove(&token) else { return };
                self.say_soon(Say::Verdict(
                    held,
                    match acceptance {
                        Acceptance::Accept => MessageAcceptance::Accept,
                        Acceptance::Ignore => MessageAcceptance::Ignore,
                        Acceptance::Reject => MessageAcceptance::Reject,
                    },
                ));
            }
            Effect::Request { call, peer, bytes } => {
                let this = Arc::clone(self);
                self.context.spawn(async move { this.ask(call, peer, bytes).await });
            }
            Effect::Answer { token, answer } => {
                if let Some(reply) = self.asked.lock().remove(&token) {
                    let _asker_has_gone = reply.send(answer);
                }
            }
            Effect::PersistSession { id, session, .. } => self.backlog.push(Work::Session(id, session)),
            Effect::PersistHead { id, head } => self.backlog.push(Work::Head(id, head)),
            Effect::StoreMembers(list) => self.backlog.push(Work::Members(list)),
            Effect::Store(heads) => self.backlog.push(Work::Store(heads)),
            Effect::Event(event) => self.backlog.push(Work::Event(event)),
        }
    }

    /// Asks a peer. The machine bounds how many it asks, and gives up by itself.
    async fn ask(&self, call: CallId, peer: PeerId, bytes: Vec<u8>) {
        let Ok(_place) = self.places.calls.acquire().await else { return };
        let answer = net::ask(&mut self.context.swarm.streams(), peer, &self.group, &bytes).await;
        match answer {
            Ok(answer) => {
                self.backlog.room().await;
                let light = answer.len() <= LIGHT_BYTES;
                self.input(Input::Answered { call, bytes: answer.into() }, light).await;
            }
            Err(error) => {
                tracing::debug!(group = self.name, %error, "a request of a group was not answered");
                self.machine.input(Input::Failed(call));
            }
        }
    }

    fn say_soon(&self, say: Say) {
        if self.voice.try_send(say).is_err() {
            tracing::debug!(group = self.name, "a message of a group found no room on its way out");
        }
    }

    async fn say(&self, say: Say) {
        match say {
            // With nobody there it is not missed: whoever comes is told.
            Say::Gossip(bytes) => {
                if let Err(error) = self.context.swarm.publish(self.topic(), bytes).await {
                    tracing::trace!(group = self.name, %error, "a message of a group was not sent");
                }
            }
            Say::Verdict(held, acceptance) => {
                let _stopping = self.context.swarm.judge(held, acceptance).await;
            }
        }
    }
}

/// The topic of a group.
pub(super) fn topic(group: &GroupId) -> String {
    format!("/dagmesh/groups/{}", HEXLOWER.encode(group.as_bytes()))
}
