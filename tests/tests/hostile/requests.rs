//! Requests to our server that would cost it more than they are worth: row 12.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use cid::Cid;
use dagmesh::{
    dag::{Block, Blockstore, MemoryBlockstore, SignedHead, StoreError},
    dagsync::{
        Status,
        head::HeadQuery,
        net::{self, Access},
        server::ServeBudget,
    },
    swarm::{AcceptAll, Profile, RunningSwarm, SwarmConfig},
};
use dagmesh_core::limits;
use dagmesh_tests::hostile::{
    Hostile,
    ask::{self, Loose},
    dag::{leaf, node},
};
use futures::future::BoxFuture;
use ipld_core::{ipld, ipld::Ipld};
use libp2p::{PeerId, identity::Keypair};

/// A store that counts how often it is asked for anything.
#[derive(Default)]
struct Counting {
    store: MemoryBlockstore,
    asked: AtomicUsize,
}

impl Blockstore for Counting {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.store.get(cid)
    }

    fn has(&self, cid: &Cid) -> Result<bool, StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.store.has(cid)
    }

    fn put_many(&self, blocks: &[Block]) -> Result<usize, StoreError> {
        self.store.put_many(blocks)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn remove(&self, cids: &[Cid]) -> Result<(), StoreError> {
        self.store.remove(cids)
    }

    fn quarantine(&self, cid: &Cid) -> Result<(), StoreError> {
        self.store.quarantine(cid)
    }
}

struct Everybody;

impl Access for Everybody {
    fn allows(&self, _: &PeerId) -> bool {
        true
    }

    fn heads(&self, _: HeadQuery) -> BoxFuture<'static, Vec<SignedHead>> {
        Box::pin(async { Vec::new() })
    }
}

/// Our server on our swarm, over a store that counts, and a hostile node that is connected with it.
struct Server {
    swarm: RunningSwarm,
    store: Arc<Counting>,
    root: Cid,
    hostile: Hostile,
}

impl Server {
    async fn start() -> Self {
        let config = SwarmConfig::for_profile(Profile::Test);
        let start = dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll));
        let (swarm, hostile) = tokio::join!(start, Hostile::start());
        let (swarm, store) = (swarm.expect("a swarm"), Arc::new(Counting::default()));
        let leaves = ["one", "two"].map(leaf);
        let root = node(&leaves.clone().map(|leaf| *leaf.cid()));
        store.put_many(&leaves).expect("stored");
        store.put(&root).expect("stored");
        let spawn = |task: BoxFuture<'static, ()>| drop(tokio::spawn(task));
        let (access, blocks) = (Arc::new(Everybody), Arc::clone(&store));
        let serving = net::serve(swarm.handle.streams(), blocks, access, ServeBudget::default(), spawn);
        tokio::spawn(serving.expect("protocols that are not served yet"));
        let addr = swarm.handle.addrs().await.expect("addresses");
        let tcp = |addr: &&libp2p::Multiaddr| addr.to_string().contains("/tcp/") && !addr.to_string().contains("/ws");
        hostile.connect(addr.iter().find(tcp).expect("an address over TCP").clone()).await;
        Self { swarm, store, root: *root.cid(), hostile }
    }

    /// The request is refused for this reason, and the store has not been asked for anything.
    async fn refuses(&self, what: &str, request: &[u8], why: &str) {
        let answer = ask::ask(&self.hostile, self.swarm.handle.local_peer_id(), request).await;
        println!("{what}: {answer:?}");
        ask::assert_refused(&answer, why);
        assert_eq!(self.store.asked.load(Ordering::Relaxed), 0, "{what}: the store is not touched");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_a_selector_bomb_is_refused_before_the_store_is_touched() {
    let server = Server::start().await;
    for (what, selector) in ask::bombs() {
        server.refuses(what, &Loose::selected(&server.root, &selector).encode(), "selector").await;
    }
    let label = ipld!({".": {"label": "x".repeat(limits::MAX_SELECTOR_BYTES)}});
    server.refuses("too many bytes", &Loose::selected(&server.root, &label).encode(), "").await;
    let nonsense = ipld!({"?": {}});
    server.refuses("no selector", &Loose::selected(&server.root, &nonsense).encode(), "no clause").await;

    // What is asked for in the end is served, so it was the selectors that were refused.
    let answer =
        ask::ask(&server.hostile, server.swarm.handle.local_peer_id(), &Loose::all(&server.root).encode()).await;
    let end = ask::end_of(&answer);
    assert_eq!((end.status, end.blocks), (Status::Done, 3));
    assert!(server.store.asked.load(Ordering::Relaxed) >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_lists_of_a_request_over_their_caps_are_refused_before_the_store_is_touched() {
    let server = Server::start().await;
    let all = Loose::all(&server.root);
    let many = |count: usize| vec![(Ipld::Link(server.root), 0); count];
    let cases = [
        ("roots", Loose { roots: many(limits::MAX_REQUEST_ROOTS + 1), ..all.clone() }),
        (
            "selectors",
            Loose { selectors: vec![all.selectors[0].clone(); limits::MAX_REQUEST_SELECTORS + 1], ..all.clone() },
        ),
        ("stop links", Loose { stop: vec![server.root; limits::MAX_STOP_LINKS + 1], ..all.clone() }),
        ("no roots", Loose { roots: Vec::new(), ..all.clone() }),
        ("a selector that is not there", Loose { roots: vec![(Ipld::Link(server.root), 1)], ..all.clone() }),
        ("a root that is no link", Loose { roots: vec![(Ipld::Integer(1), 0)], ..all.clone() }),
    ];
    for (what, request) in cases {
        server.refuses(what, &request.encode(), "").await;
    }
    // At the caps, and with budgets as large as can be written.
    let budgets = (Some(u64::MAX), u64::MAX, u64::MAX);
    let stop = vec![*leaf("one").cid(); limits::MAX_STOP_LINKS];
    let full = Loose { roots: many(limits::MAX_REQUEST_ROOTS), stop, budgets, ..all };
    let answer = ask::ask(&server.hostile, server.swarm.handle.local_peer_id(), &full.encode()).await;
    let end = ask::end_of(&answer);
    assert_eq!((end.status, end.blocks), (Status::Done, 2), "each block once, however many roots lead to it");
}
