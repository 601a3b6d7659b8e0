//! The node: its parts put together, and the handle to it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use dagmesh_announce::{Publishers, Validator, ValidatorConfig, net as announce_net, topic};
use dagmesh_core::limits;
use dagmesh_dag::Blockstore;
use dagmesh_dagsync::{
    feed_sync::BlockHook,
    follower::{FollowKey, Policy},
    net::{self, Client},
    server::ServeBudget,
};
use ipld_core::ipld::Ipld;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{Api, ByteStream, EventStream, ProgressSink, Result},
    config::{Config, Home, Profile},
    error::{ErrorKind, NodeError},
    identity,
    services::{
        Context,
        access::{Listener, Serving},
        events::Events,
        files,
        follower::Follower,
        outbox::{EntryHook, Outbox},
        publisher::Publisher,
        syncer, unix_ms,
    },
    store::Store,
    swarm::{self, KnownPeer, SwarmHandle},
    ticket::Ticket,
    types::{
        AddRequest, Added, AddressStatus, AnnounceRequest, Announced, BlockPut, CarImported, CatRequest, CidRequest,
        ConnectRequest, Connected, Content, DagGetRequest, DagImportRequest, DagPutRequest, DagStat, DirEntry, Follow,
        FollowRequest, FollowState, GcReport, GcRequest, GetRequest, Gotten, Head, HeadRequest, Identity, PeerInfo,
        PublishRequest, Published, Reach, RepoStat, Status, SyncRequest, Synced, TicketMade, TicketRequest,
        UnfollowRequest, Unfollowed, VerifyReport,
    },
    upkeep,
};

/// A running node. Cheap to clone; [`Api`] is what it does. It runs until [`Api::shutdown`], or until the last handle
/// is dropped, which stops it without waiting.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    publisher: Publisher,
    follower: Follower,
    config: Config,
    store_dir: PathBuf,
    started: Instant,
}

/// How a node is started; see [`Node::builder`].
#[must_use = "nothing runs before `start`"]
pub struct NodeBuilder {
    home: Option<PathBuf>,
    config: Config,
    key: Option<Keypair>,
    hook: Option<Arc<dyn BlockHook>>,
    entry_hook: Option<Arc<dyn EntryHook>>,
}

impl Node {
    /// A node with the defaults of the profile `public`; nothing runs before [`NodeBuilder::start`].
    pub fn builder() -> NodeBuilder {
        NodeBuilder {
            home: None,
            config: Config::of_profile(Profile::default()),
            key: None,
            hook: None,
            entry_hook: None,
        }
    }

    /// Its peer id.
    pub fn peer_id(&self) -> PeerId {
        self.inner.context.swarm.local_peer_id()
    }

    /// Where it can be dialled, each address ending with `/p2p/<peer id>`.
    pub async fn addrs(&self) -> Result<Vec<Multiaddr>> {
        Ok(self.inner.context.swarm.addrs().await?)
    }

    /// Its blocks.
    pub fn blockstore(&self) -> Arc<dyn Blockstore> {
        self.inner.context.store.clone()
    }

    /// [`Api::sync`] with a hook of its own, which sees each block and says at once how the sync goes on.
    ///
    /// Dropped half-way, the sync ends; what came stays.
    pub async fn sync_with_hook(
        &self,
        request: SyncRequest,
        hook: impl BlockHook,
        progress: ProgressSink,
    ) -> Result<Synced> {
        syncer::sync(&self.inner.context, request, Some(Arc::new(hook)), progress).await
    }

    /// Sets what counts as synced of a followed feed; `None`: nothing, so that all is walked again.
    pub async fn set_latest(
        &self,
        publisher: PeerId,
        feed: dagmesh_dag::FeedName,
        latest: Option<(cid::Cid, u64)>,
    ) -> Result<()> {
        self.inner.follower.set_latest(FollowKey { publisher, feed }, latest).await
    }
}

impl NodeBuilder {
    /// Where the node keeps its key and its store; created where it is not there. By default the user's data directory.
    pub fn home(mut self, home: impl AsRef<Path>) -> Self {
        self.home = Some(home.as_ref().to_owned());
        self
    }

    /// The set of defaults to start from; replaces what [`config`](Self::config) said.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.config = Config::of_profile(profile);
        self
    }

    /// How the node behaves, whole.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// One more peer to join the mesh through; the address ends with `/p2p/<peer id>`.
    pub fn bootstrap(mut self, addr: Multiaddr) -> Self {
        self.config.swarm.bootstrap.push(addr);
        self
    }

    /// Who the node is; by default the key in its home, made at the first start.
    pub fn key(mut self, key: Keypair) -> Self {
        self.key = Some(key);
        self
    }

    /// Sees each block of every sync of this node, on the thread that stores it.
    pub fn block_hook(mut self, hook: impl BlockHook) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Takes each entry of a followed feed that has become whole, at least once, also over a crash.
    pub fn entry_hook(mut self, hook: impl EntryHook) -> Self {
        self.entry_hook = Some(Arc::new(hook));
        self
    }

    /// Starts the node: store open, listening, feeds served, follows taken up.
    ///
    /// Dropped before it answers, nothing runs on.
    ///
    /// # Errors
    /// The home is in use by another node, the store is damaged, the config contradicts itself, or an address cannot be
    /// listened on.
    pub async fn start(self) -> Result<Node> {
        let home = Home::locate(self.home.as_deref())?;
        home.create()?;
        let key = match self.key {
            Some(key) => key,
            None => identity::load_or_create(&home.key_file())?.0,
        };
        start(&home, self.config, key, Hooks { block: self.hook, entry: self.entry_hook }).await
    }
}

/// What looks on while a node syncs.
#[derive(Default)]
pub(crate) struct Hooks {
    block: Option<Arc<dyn BlockHook>>,
    entry: Option<Arc<dyn EntryHook>>,
}

/// Starts a node whose home is there.
pub(crate) async fn start(home: &Home, config: Config, key: Keypair, hooks: Hooks) -> Result<Node> {
    if let Some(problem) = config.problems().into_iter().next() {
        return Err(NodeError::usage(problem));
    }
    let store_dir = upkeep::store_dir(home, &config);
    let (dir, options) = (store_dir.clone(), upkeep::store_options(&config));
    let opened = tokio::task::spawn_blocking(move || Store::open_with(dir, &options)).await;
    let store = opened.map_err(|error| NodeError::other(format!("opening the store broke: {error}")))??;

    let own = key.public().to_peer_id();
    let public = config.swarm.profile == Profile::Public;
    let validator = ValidatorConfig { own, publishers: Publishers::Any, only_reachable: public };
    let validator = Arc::new(Mutex::new(Validator::new(validator)));
    let network = config.swarm.network.clone();
    let listener = Listener {
        validator: Arc::clone(&validator),
        topic: topic::heads(&network),
        follower: Arc::new(OnceLock::new()),
        republish: config.sync.republish,
    };
    let gossip_listener = listener.clone();
    let running = swarm::start(
        swarm_config(&config, known_peers(&store)?)?,
        key.clone(),
        Box::new(move |now, source: PeerId, message: &libp2p::gossipsub::Message| {
            gossip_listener.gossip(now, source, message)
        }),
    )
    .await?;

    let context = Context {
        key: Arc::new(key),
        network,
        store,
        client: Client::new(running.handle.streams()),
        swarm: running.handle,
        events: Events::new(),
        validator,
        hook: hooks.block,
        outbox: Outbox::new(hooks.entry),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    // What the validator accepted has been acted on already; the queue only has to be kept empty.
    let mut gossip = running.gossip;
    context.spawn(async move { while gossip.recv().await.is_some() {} });
    context.swarm.subscribe(topic::heads(&context.network)).await?;

    let publisher = Publisher::start(&context).await?;
    serve(&context, &publisher, &listener, &config)?;
    let segment = Some(config.sync.segment_blocks).filter(|blocks| *blocks < limits::MAX_SEGMENT_BLOCKS);
    let follower = Follower::start(&context, publisher.announcer().clone(), config.sync.max_syncs, segment).await?;
    let _ = listener.follower.set(follower.clone());
    context.outbox.start(&context);
    context.spawn(keep_peers(context.clone()));
    let inner = Inner { context, publisher, follower, config, store_dir, started: Instant::now() };
    Ok(Node { inner: Arc::new(inner) })
}

/// Answers what peers ask.
fn serve(context: &Context, publisher: &Publisher, listener: &Listener, config: &Config) -> Result<()> {
    let twice =
        |error: libp2p_stream::AlreadyRegistered| NodeError::other(format!("a protocol is served twice: {error}"));
    let allowed = match config.sync.allow.as_slice() {
        [] => Publishers::Any,
        allow => Publishers::Only(allow.iter().copied().collect()),
    };
    let serving = Serving { context: context.clone(), publisher: publisher.clone(), allowed };
    let spawner = context.clone();
    let spawn = move |task: futures::future::BoxFuture<'static, ()>| spawner.spawn(task);
    let store: Arc<dyn Blockstore> = context.store.clone();
    let served = net::serve(context.swarm.streams(), store, Arc::new(serving), ServeBudget::default(), spawn);
    context.spawn(served.map_err(twice)?);
    let (publisher, listener, mut streams) = (publisher.clone(), listener.clone(), context.swarm.streams());
    let incoming = streams.accept(announce_net::PROTOCOL).map_err(twice)?;
    let swarm = context.swarm.clone();
    context.spawn(announce_net::serve_on(incoming, move |peer, message: Bytes| {
        let (swarm, publisher, listener) = (swarm.clone(), publisher.clone(), listener.clone());
        async move { listener.direct(&swarm, publisher, peer, message).await }
    }));
    Ok(())
}

fn swarm_config(config: &Config, known_peers: Vec<KnownPeer>) -> Result<swarm::SwarmConfig> {
    let from = &config.swarm;
    let mut to = swarm::SwarmConfig::for_profile(from.profile);
    if let Some(path) = &from.psk {
        let text = std::fs::read_to_string(path).map_err(|error| NodeError::file("read", path, &error))?;
        let psk = text
            .parse()
            .map_err(|error| NodeError::usage(format!("{} holds no pre-shared key: {error:?}", path.display())))?;
        to.psk = Some(psk);
    }
    to.listen.clone_from(&from.listen);
    to.external.clone_from(&from.external);
    to.bootstrap.clone_from(&from.bootstrap);
    to.known_peers = known_peers;
    to.network.clone_from(&from.network);
    to.max_connections = from.max_connections;
    to.max_connections_per_peer = from.max_connections_per_peer;
    to.relay_server = from.relay_server;
    to.mdns = from.mdns;
    to.upnp = from.upnp;
    to.autonat = from.autonat;
    to.hole_punching = from.hole_punching;
    to.kad_mode = from.kad_mode;
    Ok(to)
}

/// Peers of the last run, the newest contact first.
fn known_peers(store: &Store) -> Result<Vec<KnownPeer>> {
    let mut peers = store.peers()?;
    peers.sort_by_key(|(_, record)| std::cmp::Reverse(record.last_seen_ms));
    Ok(peers.into_iter().map(|(peer, record)| KnownPeer { peer, addrs: record.addrs }).collect())
}

/// Keeps the peers that are worth knowing after a restart.
async fn keep_peers(context: Context) {
    let mut known = context.swarm.known_peers();
    while known.changed().await.is_ok() {
        let peers = Arc::clone(&known.borrow_and_update());
        let kept = context.blocking(move |store| {
            let last_seen_ms = unix_ms();
            for KnownPeer { peer, addrs } in peers.iter() {
                store.record_peer(peer, &crate::store::PeerRecord { addrs: addrs.clone(), last_seen_ms })?;
            }
            Ok(())
        });
        if let Err(error) = kept.await {
            tracing::warn!(%error, "known peers could not be kept");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.context.stop.cancel();
    }
}

impl Api for Node {
    async fn id(&self) -> Result<Identity> {
        Ok(Identity { peer_id: self.peer_id(), addrs: self.addrs().await? })
    }

    async fn status(&self) -> Result<Status> {
        let Inner { context, publisher, follower, config, started, .. } = &*self.inner;
        let (report, follows) = (context.swarm.reachability().await?, follower.follows());
        let count = |state| follows.iter().filter(|follow| follow.state == state).count();
        let stat = context.blocking(|store| Ok(store.stat())).await?;
        let topic_peers = publisher.announcer().listeners().await;
        let peers = context.swarm.peer_count();
        Ok(Status {
            peer_id: self.peer_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: context.network.clone(),
            profile: config.swarm.profile.to_string(),
            uptime_ms: started.elapsed().as_millis() as u64,
            listen: context.swarm.listen_addrs().await?,
            addresses: report.addresses.into_iter().map(address_status).collect(),
            peers,
            topic_peers,
            feeds: publisher.feeds().await?,
            follows: follows.len(),
            in_sync: count(FollowState::InSync),
            syncing: count(FollowState::Syncing),
            blocks: stat.blocks,
            bytes: stat.bytes,
            warnings: warnings(peers, topic_peers, &context.network, &follows, stat.quarantined),
        })
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>> {
        let peers = self.inner.context.swarm.peers().await?;
        let info = |peer: swarm::PeerInfo| PeerInfo {
            peer_id: peer.peer,
            relayed: peer.addr.iter().any(|part| part == libp2p::multiaddr::Protocol::P2pCircuit),
            addr: peer.addr,
            protocols: peer.protocols,
            agent: peer.agent,
            connections: peer.connections as u32,
            rtt_ms: peer.rtt.map(|rtt| rtt.as_millis() as u64),
        };
        Ok(peers.into_iter().map(info).collect())
    }

    async fn connect(&self, request: ConnectRequest) -> Result<Connected> {
        let peer_id = self.inner.context.swarm.connect(request.addr.clone()).await?;
        Ok(Connected { peer_id, addr: request.addr })
    }

    async fn add(&self, request: AddRequest, progress: ProgressSink) -> Result<Added> {
        files::add(&self.inner.context, request, progress).await
    }

    async fn get(&self, request: GetRequest, progress: ProgressSink) -> Result<Gotten> {
        files::get(&self.inner.context, request, progress).await
    }

    async fn cat(&self, request: CatRequest) -> Result<ByteStream> {
        files::cat(&self.inner.context, request).await
    }

    async fn ls(&self, request: CidRequest) -> Result<Vec<DirEntry>> {
        files::ls(&self.inner.context, request.cid).await
    }

    async fn dag_put(&self, request: DagPutRequest) -> Result<BlockPut> {
        files::dag_put(&self.inner.context, request).await
    }

    async fn dag_get(&self, request: DagGetRequest) -> Result<Bytes> {
        files::dag_get(&self.inner.context, request).await
    }

    async fn dag_stat(&self, request: CidRequest, progress: ProgressSink) -> Result<DagStat> {
        files::dag_stat(&self.inner.context, request.cid, progress).await
    }

    async fn dag_import(&self, request: DagImportRequest, _: ProgressSink) -> Result<CarImported> {
        files::dag_import(&self.inner.context, request).await
    }

    async fn dag_export(&self, request: CidRequest) -> Result<ByteStream> {
        files::dag_export(&self.inner.context, request.cid).await
    }

    async fn publish(&self, request: PublishRequest, progress: ProgressSink) -> Result<Published> {
        let Inner { context, publisher, .. } = &*self.inner;
        let meta = request.meta.map(meta).transpose()?;
        // Held until the entry refers to what was imported.
        let _protection = context.store.protect();
        let (content, added) = match request.content {
            Content::Cid(cid) => (cid, 0),
            Content::Path(path) => {
                let imported = files::import(context, path, request.hidden, None, progress).await?;
                (imported.cid, imported.new_blocks)
            }
        };
        let (head, peers) = publisher.publish(request.feed, content, meta, !request.no_announce).await?;
        Ok(Published {
            feed: head.feed().clone(),
            head: *head.head(),
            seq: head.seq(),
            content,
            blocks_added: added + 1,
            peers,
        })
    }

    async fn head(&self, request: HeadRequest) -> Result<Head> {
        let Inner { context, publisher, .. } = &*self.inner;
        let head = match &request.target {
            Some(target) if target.peer() != self.peer_id() => {
                syncer::reach(context, target.peer(), target.addrs()).await?;
                syncer::ask_head(context, target.peer(), &target.feed_or(request.feed.clone())).await?
            }
            _ => {
                let feed = request.feed.unwrap_or_default();
                let head = publisher.head(feed.clone()).await?;
                head.ok_or_else(|| NodeError::not_found(format!("nothing has been published in feed {feed} yet")))?
            }
        };
        Ok(Head {
            publisher: head.publisher(),
            feed: head.feed().clone(),
            head: *head.head(),
            seq: head.seq(),
            time: head.time(),
        })
    }

    async fn announce(&self, request: AnnounceRequest) -> Result<Announced> {
        let publisher = &self.inner.publisher;
        let head = publisher.head(request.feed.clone()).await?;
        let head = head.filter(|head| *head.head() == request.cid).ok_or_else(|| {
            NodeError::not_found(format!(
                "{} is not the head of feed {}; `dagmesh head` shows which is, `dagmesh publish` moves it",
                request.cid, request.feed
            ))
        })?;
        let peers = publisher.announce(&head).await;
        Ok(Announced { head: *head.head(), peers })
    }

    async fn follow(&self, request: FollowRequest, progress: ProgressSink) -> Result<Follow> {
        let follower = &self.inner.follower;
        let target = &request.target;
        let key = FollowKey { publisher: target.peer(), feed: target.feed_or(request.feed.clone()) };
        let policy = Policy { depth: None, keep: request.keep, first_sync_depth: request.depth };
        follower.follow(key.clone(), target.addrs(), policy).await?;
        if request.wait {
            return follower.wait(&key, &progress).await;
        }
        follower
            .status(&key)
            .ok_or_else(|| NodeError::other(format!("{key} could not be followed; there are too many follows")))
    }

    async fn follows(&self) -> Result<Vec<Follow>> {
        Ok(self.inner.follower.follows())
    }

    async fn unfollow(&self, request: UnfollowRequest) -> Result<Unfollowed> {
        let publisher = request.target.peer();
        let feed = request.feed.or_else(|| request.target.feed().cloned());
        let feeds = self.inner.follower.unfollow(publisher, feed).await?;
        if feeds.is_empty() {
            return Err(NodeError::not_found(format!("{publisher} is not followed; `dagmesh follows` lists what is")));
        }
        Ok(Unfollowed { publisher, feeds })
    }

    async fn sync(&self, request: SyncRequest, progress: ProgressSink) -> Result<Synced> {
        syncer::sync(&self.inner.context, request, None, progress).await
    }

    async fn watch(&self) -> Result<EventStream> {
        Ok(self.inner.context.events.watch())
    }

    async fn ticket(&self, request: TicketRequest) -> Result<TicketMade> {
        let (peer_id, addrs) = (self.peer_id(), self.addrs().await?);
        let ticket = Ticket::new(peer_id, &addrs, request.feed.clone())
            .map_err(|error| NodeError::other(format!("no ticket can be made: {error}")))?;
        Ok(TicketMade { ticket: ticket.to_string(), peer_id, addrs: ticket.addrs().to_vec(), feed: request.feed })
    }

    async fn gc(&self, request: GcRequest, progress: ProgressSink) -> Result<GcReport> {
        self.inner.context.blocking(move |store| upkeep::gc(store, &[], request, &progress)).await
    }

    async fn repo_verify(&self, progress: ProgressSink) -> Result<VerifyReport> {
        self.inner.context.blocking(move |store| upkeep::verify(store, &progress)).await
    }

    async fn repo_stat(&self) -> Result<RepoStat> {
        let dir = self.inner.store_dir.clone();
        self.inner.context.blocking(move |store| Ok(upkeep::stat(store, &dir))).await
    }

    async fn shutdown(&self) -> Result<()> {
        let Inner { context, follower, .. } = &*self.inner;
        let bound = Duration::from_secs(limits::SHUTDOWN_SECS);
        // Producers, swarm, store: what still runs has nobody to serve, then nothing to write to.
        follower.close();
        context.stop.cancel();
        context.tasks.close();
        let ended = tokio::time::timeout(bound, context.tasks.wait()).await;
        let swarm = context.swarm.shutdown().await;
        context.blocking_at_the_end(|store| Ok(store.sync()?)).await?;
        if ended.is_err() {
            return Err(NodeError::timeout("ending what was under way", bound));
        }
        Ok(swarm?)
    }
}

/// DAG-JSON, as a person gives it, as the meta of an entry.
fn meta(value: serde_json::Value) -> Result<Ipld> {
    serde_ipld_dagjson::from_slice(value.to_string().as_bytes())
        .map_err(|error| NodeError::usage(format!("the meta is no DAG-JSON: {error}")))
}

fn address_status(status: swarm::AddressStatus) -> AddressStatus {
    AddressStatus {
        addr: status.addr,
        reach: match status.state {
            swarm::Reachability::Reachable => Reach::Reachable,
            swarm::Reachability::Unreachable => Reach::Unreachable,
            _ => Reach::Unknown,
        },
        tested: None,
        advice: Some(status.advice).filter(|_| status.state != swarm::Reachability::Reachable),
    }
}

/// What needs a person's attention, each with the next step.
fn warnings(peers: usize, topic_peers: usize, network: &str, follows: &[Follow], quarantined: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    if peers == 0 {
        warnings.push("no peer is connected; `dagmesh connect MULTIADDR` or set swarm.bootstrap".to_owned());
    } else if topic_peers == 0 {
        let topic = topic::heads(network);
        warnings.push(format!("none of {peers} connected peers is on {topic}; announcements wait for one"));
    }
    for follow in follows.iter().filter(|follow| follow.state == FollowState::Failed) {
        let reason = follow.reason.as_deref().unwrap_or("the reason is not known");
        warnings.push(format!("{} of {} is not in sync: {reason}", follow.feed, follow.publisher));
    }
    if quarantined > 0 {
        warnings.push(format!(
            "{quarantined} damaged blocks were put aside; run `dagmesh repo verify`, and look at the disk"
        ));
    }
    warnings
}

impl From<swarm::SwarmError> for NodeError {
    fn from(error: swarm::SwarmError) -> Self {
        use swarm::SwarmError as E;
        let kind = match &error {
            E::Config { .. } => ErrorKind::Usage,
            E::Unreachable { .. } | E::NoAddress { .. } | E::NoPeers { .. } => ErrorKind::NoPeers,
            E::Timeout { .. } => ErrorKind::Timeout,
            E::OwnAddress { .. } => ErrorKind::Usage,
            _ => ErrorKind::Error,
        };
        Self::new(kind, error.to_string())
    }
}

/// The parts of a stopped node, for whoever embeds one.
impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

const _: fn() = || {
    fn cheap<T: Clone + Send + Sync>() {}
    cheap::<(Node, SwarmHandle)>();
};
