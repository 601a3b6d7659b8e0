//! Nodes in this process: [`Peer`], and the [`Events`] that it tells.

use std::{
    net::Ipv4Addr,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Once},
    time::Duration,
};

use cid::Cid;
use dagmesh::{
    Api, Node,
    api::{EventStream, ProgressSink},
    config::{Config, Diversity, Profile},
    dag::{Block, Codec, Entry, FeedName, HashCode, SignedHead},
    dagsync::feed_sync::BlockHook,
    store::Store,
    ticket::Target,
    types::{Content, Event, Follow, FollowRequest, FollowState, PublishRequest, Published, TicketRequest},
};
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use tempfile::TempDir;

use crate::{wait_for, wait_for_some};

/// How long anything may take that is certain to come: a debug build on a loaded machine, with room.
pub const SOON: Duration = Duration::from_secs(60);

/// A node in this process, with a home that goes when it does.
pub struct Peer {
    node: Node,
    home: Arc<TempDir>,
}

impl Deref for Peer {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

/// How a [`Peer`] is started.
#[derive(Default)]
pub struct PeerOptions {
    /// A home that is there already; a new one where absent.
    pub home: Option<Arc<TempDir>>,
    /// The node's key; a new one where absent.
    pub key: Option<Keypair>,
    /// Listens on TCP alone.
    pub tcp_only: bool,
    /// Whom it joins the mesh through.
    pub bootstrap: Vec<Multiaddr>,
    /// The network's name; that of the profile `test` where absent.
    pub network: Option<&'static str>,
    /// Passes on announcements that reach it directly.
    pub republish: bool,
    /// Whose announcements are taken and who is served; everybody's where empty.
    pub allow: Vec<PeerId>,
    /// Names go over the DHT alone, and not over gossip too.
    pub no_pubsub: bool,
    /// Syncs at once; as many as are the default where absent.
    pub max_syncs: Option<usize>,
    /// Listens on TCP at this address of loopback alone.
    pub at: Option<Ipv4Addr>,
    /// Of which peers only so many of one network are relied on in the DHT.
    pub diversity: Diversity,
    /// How often it puts records again, in seconds; as often as is the default where absent.
    pub republish_records: Option<u64>,
}

impl Peer {
    /// A node with a new home on free ports of loopback.
    ///
    /// # Panics
    /// When it cannot start; so does all else here that must succeed and does not.
    pub async fn start() -> Self {
        Self::with(PeerOptions::default()).await
    }

    /// A node as `options` say.
    pub async fn with(options: PeerOptions) -> Self {
        Self::launch(options, None::<fn(&Block, bool) -> dagmesh::dagsync::Flow>).await
    }

    /// A node whose every sync is seen by `hook`.
    pub async fn hooked(hook: impl BlockHook) -> Self {
        Self::launch(PeerOptions::default(), Some(hook)).await
    }

    /// A node as `options` say, whose every sync is seen by `hook`.
    pub async fn launch(options: PeerOptions, hook: Option<impl BlockHook>) -> Self {
        logs();
        let home = options.home.unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a home")));
        let mut config = Config::of_profile(Profile::Test);
        if options.tcp_only {
            config.swarm.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
        }
        config.swarm.bootstrap = options.bootstrap;
        if let Some(ip) = options.at {
            config.swarm.listen = vec![Multiaddr::from(ip).with(Protocol::Tcp(0))];
        }
        config.swarm.dht_diversity = options.diversity;
        config.records.republish_secs = options.republish_records.unwrap_or(config.records.republish_secs);
        config.sync.republish = options.republish;
        config.records.pubsub = !options.no_pubsub;
        config.sync.allow = options.allow;
        config.sync.max_syncs = options.max_syncs.unwrap_or(config.sync.max_syncs);
        if let Some(network) = options.network {
            config.swarm.network = network.to_owned();
        }
        let mut builder = Node::builder().home(home.path()).config(config);
        if let Some(key) = options.key {
            builder = builder.key(key);
        }
        if let Some(hook) = hook {
            builder = builder.block_hook(hook);
        }
        Self { node: builder.start().await.expect("a node"), home }
    }

    /// A new node on the home of this one, which is to be shut down.
    pub async fn again(self) -> Self {
        let home = self.into_home();
        // A sync that was cut short holds the store until what came is on disk.
        let store = home.path().join("store");
        wait_for(SOON, "a home that nobody uses", async || Store::open(&store).is_ok()).await;
        Self::with(PeerOptions { home: Some(home), ..PeerOptions::default() }).await
    }

    /// The home of this one, which is to be shut down.
    pub fn into_home(self) -> Arc<TempDir> {
        self.home
    }

    /// A file or folder of the test's own, beside what the node keeps.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("test-files").join(name)
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// Publishes a file of its own with this content.
    pub async fn publish_text(&self, content: &str) -> Published {
        let path = self.write("published", content);
        self.node.publish(PublishRequest::new(Content::Path(path)), ProgressSink::none()).await.expect("published")
    }

    /// Publishes `count` files, one an entry, each with another content; the newest entry.
    pub async fn publish_many(&self, count: usize, mark: &str) -> Published {
        let mut last = None;
        for n in 0..count {
            last = Some(self.publish_text(&format!("{mark} {n}")).await);
        }
        last.expect("an entry")
    }

    /// What leads to its feed `main`.
    pub async fn target(&self) -> Target {
        self.node.ticket(TicketRequest::default()).await.expect("a ticket").ticket.parse().expect("a target")
    }

    /// Its address over TCP, with its peer id.
    pub async fn tcp_addr(&self) -> Multiaddr {
        let addrs = self.node.addrs().await.expect("addresses");
        let tcp = |addr: &&Multiaddr| addr.to_string().contains("/tcp/") && !addr.to_string().contains("/ws");
        addrs.iter().find(tcp).expect("an address over TCP").clone()
    }

    /// Follows, and waits until that is in sync.
    pub async fn follow_wait(&self, request: FollowRequest) -> Follow {
        let follow = self.node.follow(FollowRequest { wait: true, ..request }, ProgressSink::none());
        tokio::time::timeout(SOON, follow).await.expect("in sync in time").expect("in sync")
    }

    /// How it stands with a publisher's feed `main`.
    pub async fn standing(&self, publisher: PeerId) -> Option<Follow> {
        let follows = self.node.follows().await.expect("follows");
        follows.into_iter().find(|follow| follow.publisher == publisher && follow.feed == FeedName::default())
    }

    /// Waits until it is in sync with `publisher` at `seq`.
    pub async fn in_sync_at(&self, publisher: PeerId, seq: u64) -> Follow {
        let mut last = None;
        wait_for_some(SOON, &format!("{publisher} in sync at {seq}"), async || {
            let follow = self.standing(publisher).await?;
            if last != Some(follow.state) {
                println!("{follow:?}");
                last = Some(follow.state);
            }
            Some(follow).filter(|follow| follow.state == FollowState::InSync && follow.latest_seq == Some(seq))
        })
        .await
    }

    /// Whether it holds this block.
    pub fn holds(&self, cid: &Cid) -> bool {
        self.node.blockstore().has(cid).expect("a look into the store")
    }

    /// The events from now on.
    pub async fn events(&self) -> Events {
        Events { stream: self.node.watch().await.expect("events"), seen: Vec::new() }
    }

    /// The entries of `publisher`'s chain that it holds, from `head` down.
    pub fn chain(&self, head: Cid) -> Vec<(Cid, Entry)> {
        let (store, mut next, mut chain) = (self.node.blockstore(), Some(head), Vec::new());
        while let Some(cid) = next
            && let Some(block) = store.block(&cid).expect("a look into the store")
        {
            let entry = Entry::from_block(&block).expect("an entry");
            next = entry.previous;
            chain.push((cid, entry));
        }
        chain
    }
}

/// The events of a node in this process.
pub struct Events {
    stream: EventStream,
    /// All that have been read.
    pub seen: Vec<Event>,
}

impl Events {
    /// Reads on until an event `fits`, and gives it.
    pub async fn until(&mut self, what: &str, mut fits: impl FnMut(&Event) -> bool) -> Event {
        let reading = async {
            loop {
                let event = self.stream.next().await.expect("a node that runs");
                self.seen.push(event.clone());
                if fits(&event) {
                    return event;
                }
            }
        };
        match tokio::time::timeout(SOON, reading).await {
            Ok(event) => event,
            Err(_) => panic!("waited in vain for {what}; there were {:#?}", self.seen),
        }
    }

    /// Reads on until the sync with `head` is done: entries, blocks, bytes, and how long it took.
    pub async fn finished(&mut self, of: Cid) -> (u64, u64, u64, Duration) {
        let what = format!("the end of the sync with {of}");
        match self.until(&what, |event| matches!(event, Event::SyncFinished { head, .. } if *head == of)).await {
            Event::SyncFinished { count, blocks, bytes, duration_ms, .. } => {
                (count, blocks, bytes, Duration::from_millis(duration_ms))
            }
            _ => unreachable!("it fits"),
        }
    }

    /// The heads of the syncs that began so far.
    pub fn started(&self) -> Vec<Cid> {
        let head = |event: &Event| match event {
            Event::SyncStarted { head, .. } => Some(*head),
            _ => None,
        };
        self.seen.iter().filter_map(head).collect()
    }

    /// The sequence numbers that `latest` moved over so far.
    pub fn latest(&self) -> Vec<u64> {
        let seq = |event: &Event| match event {
            Event::LatestMoved { seq, .. } => Some(*seq),
            _ => None,
        };
        self.seen.iter().filter_map(seq).collect()
    }
}

/// A publisher's home with a chain of `entries` entries, each with a content of its own, written in one transaction:
/// to publish them one by one costs a sync of the disk each. Gives the key, the home, and the CIDs of the entries by
/// their number, from 1 on (0 is unused).
pub fn long_chain(entries: u64) -> (Keypair, Arc<TempDir>, Vec<Cid>) {
    let (key, home) = (Keypair::generate_ed25519(), Arc::new(tempfile::tempdir().expect("a home")));
    let store = Store::open(home.path().join("store")).expect("a store");
    let (feed, mut cids) = (FeedName::default(), vec![Cid::default()]);
    store
        .transaction(|batch| {
            let mut previous = None;
            for seq in 1..=entries {
                let data = format!("content {seq}").into_bytes();
                let content = Block::new(Codec::Raw, HashCode::Sha2_256, data).expect("a block");
                let entry = Entry { previous, seq, time: seq, content: *content.cid(), meta: None };
                let block = entry.to_block().expect("an entry");
                let head = SignedHead::sign(&key, &feed, *block.cid(), seq, seq).expect("a head");
                batch.put_blocks(&[content])?;
                batch.publish_entry(&block, &head)?;
                previous = Some(*block.cid());
                cids.push(*block.cid());
            }
            Ok::<_, dagmesh::store::Error>(())
        })
        .expect("a chain");
    (key, home, cids)
}

/// What nodes in this process log is shown with the test that fails.
fn logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::new("warn,dagmesh=debug");
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
    });
}
