//! The node: its parts put together, and the handle to it.

mod commands;
mod group;
mod records;

pub use group::Group;
pub use records::Records;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use dagmesh_announce::{Publishers, Validator, ValidatorConfig, net as announce_net, topic};
use dagmesh_core::limits;
use dagmesh_dag::{Blockstore, FeedName};
use dagmesh_dagsync::{
    feed_sync::BlockHook,
    follower::FollowKey,
    net::{self, Client},
    server::ServeBudget,
};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{ProgressSink, Result},
    config::{Config, Home, Profile},
    error::NodeError,
    identity,
    keys::Keyring,
    services::{
        Context,
        access::{Listener, Serving},
        events::Events,
        follower::Follower,
        groups::Groups,
        healer,
        ipni::{Ingest, Ipni, Listening},
        names::publish::Names,
        outbox::{EntryHook, Outbox},
        publisher::Publisher,
        records as record_service, syncer, unix_ms,
    },
    store::Store,
    swarm::{self, KnownPeer},
    types::{SyncRequest, Synced},
    upkeep,
};

/// A running node. Cheap to clone; [`Api`](crate::Api) is what it does. It runs until [`Api::shutdown`](crate::Api::shutdown), or until the last handle
/// is dropped, which stops it without waiting.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    publisher: Publisher,
    names: Names,
    follower: Follower,
    ipni: Ipni,
    groups: Groups,
    records: record_service::Records,
    keys: Keyring,
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

    /// [`Api::sync`](crate::Api::sync) with a hook of its own, which sees each block and says at once how the sync goes on.
    ///
    /// Dropped half-way, the sync ends; what came stays.
    pub async fn sync_with_hook(
        &self,
        request: SyncRequest,
        hook: impl BlockHook,
        progress: ProgressSink,
    ) -> Result<Synced> {
        syncer::sync(&self.inner.context, &self.inner.ipni, request, Some(Arc::new(hook)), progress).await
    }

    /// Sets what counts as synced of a followed feed; `None`: nothing, so that all is walked again.
    pub async fn set_latest(&self, publisher: PeerId, feed: FeedName, latest: Option<(cid::Cid, u64)>) -> Result<()> {
        self.inner.follower.set_latest(FollowKey { publisher, feed }, latest).await
    }
}

#[cfg(test)]
impl Node {
    pub(crate) fn groups(&self) -> &Groups {
        &self.inner.groups
    }

    pub(crate) fn context(&self) -> &Context {
        &self.inner.context
    }

    pub(crate) fn names(&self) -> &Names {
        &self.inner.names
    }

    pub(crate) fn record_service(&self) -> &record_service::Records {
        &self.inner.records
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

    // Before anything runs: a port that is taken costs nothing yet.
    let listening = Listening::bind(&config.ipni).await?;
    let own = key.public().to_peer_id();
    let public = config.swarm.profile == Profile::Public;
    let validator = ValidatorConfig { own, publishers: Publishers::Any, only_reachable: public };
    let ingest = Ingest::new(validator.clone(), config.sync.republish);
    let validator = Arc::new(Mutex::new(Validator::new(validator)));
    let network = config.swarm.network.clone();
    let listener = Listener {
        validator: Arc::clone(&validator),
        topic: topic::heads(&network),
        follower: Arc::new(OnceLock::new()),
        republish: config.sync.republish,
    };
    let (gossip_listener, gossip_ingest) = (listener.clone(), ingest.clone());
    let mut swarm_config = swarm_config(&config, known_peers(&store)?)?;
    swarm_config.records = Some(record_service::book(&store, own, &config.records)?);
    let running = swarm::start(
        swarm_config,
        key.clone(),
        Box::new(move |now, source: PeerId, message: &libp2p::gossipsub::Message| {
            let of_ipni = gossip_ingest.gossip(now, source, message);
            of_ipni.unwrap_or_else(|| gossip_listener.gossip(now, source, message))
        }),
    )
    .await?;

    let stop = CancellationToken::new();
    let keys = Keyring::new(home, key.clone());
    let context = Context {
        key: Arc::new(key),
        network,
        store,
        client: Client::new(running.handle.streams()),
        swarm: running.handle,
        events: Events::new(stop.clone()),
        validator,
        hook: hooks.block,
        outbox: Outbox::new(hooks.entry),
        stop,
        tasks: TaskTracker::new(),
    };
    // What the validator accepted has been acted on already; the queue only has to be kept empty.
    let mut gossip = running.gossip;
    context.spawn(async move { while gossip.recv().await.is_some() {} });
    context.swarm.subscribe(topic::heads(&context.network)).await?;

    let publisher = Publisher::start(&context).await?;
    let ipni = Ipni::new(&context, &config.ipni, public)?;
    serve(&context, &publisher, &listener, &ipni, listening, &ingest, &config)?;
    let segment = Some(config.sync.segment_blocks).filter(|blocks| *blocks < limits::MAX_SEGMENT_BLOCKS);
    let announcer = publisher.announcer().clone();
    let records = record_service::Records::start(&context, keys.clone(), config.records.pubsub)?;
    let names = Names::start(&context, &publisher, &records, keys.clone()).await?;
    let follower =
        Follower::start(&context, announcer, ipni.clone(), records.clone(), config.sync.max_syncs, segment).await?;
    let _ = listener.follower.set(follower.clone());
    ipni.start(follower.clone(), &ingest).await?;
    let groups = Groups::start(&context, config.groups.max_content_bytes).await?;
    context.outbox.start(&context);
    context.spawn(keep_peers(context.clone()));
    context.spawn(healer::run(context.clone()));
    let inner = Inner {
        context,
        publisher,
        names,
        follower,
        ipni,
        groups,
        records,
        keys,
        config,
        store_dir,
        started: Instant::now(),
    };
    Ok(Node { inner: Arc::new(inner) })
}

/// Answers what peers ask.
fn serve(
    context: &Context,
    publisher: &Publisher,
    listener: &Listener,
    ipni: &Ipni,
    listening: Option<Listening>,
    ingest: &Ingest,
    config: &Config,
) -> Result<()> {
    let twice =
        |error: libp2p_stream::AlreadyRegistered| NodeError::other(format!("a protocol is served twice: {error}"));
    let allowed = match config.sync.allow.as_slice() {
        [] => Publishers::Any,
        allow => Publishers::Only(allow.iter().copied().collect()),
    };
    ipni.serve(listening, ingest, allowed.clone())?;
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
    to.kad_protocol.clone_from(&from.kad_protocol);
    to.dht_diversity = from.dht_diversity;
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

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.context.stop.cancel();
    }
}
