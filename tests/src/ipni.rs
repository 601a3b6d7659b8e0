//! The IPNI network: chains of advertisements made by hand, daemons that publish and follow them, and a publisher that
//! speaks HTTP over streams and nothing of ours.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use dagmesh::dag::{Block, Blockstore, Codec, HashCode, MemoryBlockstore};
use dagmesh_ipnisync::{
    Advertisement, Chunks, NO_ENTRIES, SignedHead,
    net::{AnnounceBody, HTTP, Refusal, Server, Source},
};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, SwarmBuilder, identify, identity::Keypair, multiaddr::Protocol, noise, swarm::NetworkBehaviour,
    tcp, yamux,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{Daemon, api::api_call, hostile::listen, peer::SOON, wait_for_some};

/// The topic on which the network that is meant where none is named announces its heads.
pub const TOPIC: &str = "/indexer/ingest/mainnet";

// ---- Daemons ---------------------------------------------------------------------------------------------------

/// Publishes `count` advertisements of three multihashes each, which nobody hears of where they are `silent`; the CIDs of
/// these, the newest last.
pub async fn publish(daemon: &Daemon, count: usize, silent: bool) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("list");
    let mut ads = Vec::new();
    for n in 0..count {
        let list: String = (0..3).map(|m| format!("1220{:056x}{:08x}\n", mark(), n * 10 + m)).collect();
        std::fs::write(&path, list).expect("a list");
        let made = api_call(daemon, "ipni/publish", &json!({"path": path, "no_announce": silent})).await;
        ads.push(made.get("ad").and_then(Value::as_str).expect("an advertisement").to_owned());
    }
    ads
}

/// A number that no other call in this process gives.
fn mark() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Where the daemon serves its chain over HTTP or HTTPS, with its peer id; `host` in place of the IP address.
pub async fn http_addr(daemon: &Daemon, host: &str) -> String {
    let url = url(daemon).await;
    let (scheme, rest) = url.split_once("://").expect("a scheme");
    let (_, port) = rest.rsplit_once(':').expect("a port");
    format!("{host}/tcp/{port}/{scheme}/p2p/{}", daemon.peer_id())
}

/// Where the daemon serves its chain over HTTP or HTTPS, as a URL.
pub async fn url(daemon: &Daemon) -> String {
    let status = api_call(daemon, "status", &json!({})).await;
    status.get("ipni_http").and_then(Value::as_str).expect("a URL").to_owned()
}

/// How a daemon stands with a publisher's chain.
pub async fn standing(daemon: &Daemon, publisher: &str) -> Option<Value> {
    let follows = api_call(daemon, "follows", &json!({})).await;
    let of = |follow: &&Value| {
        let field = |name| follow.get(name).and_then(Value::as_str);
        field("publisher") == Some(publisher) && field("feed").is_some_and(|feed| feed.starts_with("ipni:"))
    };
    follows.as_array().expect("a list").iter().find(of).cloned()
}

/// Waits until how a daemon stands with a publisher's chain `fits`.
pub async fn stands(daemon: &Daemon, publisher: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    wait_for_some(SOON, &format!("the chain of {publisher}: {what}"), async || {
        let follow = standing(daemon, publisher).await?;
        let reason = follow.get("reason").cloned().unwrap_or_default();
        if last != reason {
            println!("{follow}");
            last = reason;
        }
        fits(&follow).then_some(follow)
    })
    .await
}

/// Waits until the chain of `publisher` is in sync at `head`.
pub async fn in_sync_at(daemon: &Daemon, publisher: &str, head: &str) -> Value {
    let at = |follow: &Value| is(follow, "state", "in_sync") && is(follow, "latest", head);
    stands(daemon, publisher, &format!("in sync at {head}"), at).await
}

/// A chain as far as a daemon holds it, the newest advertisement first; the daemon's own where `publisher` is itself.
pub async fn ads(daemon: &Daemon, publisher: &str) -> Vec<Value> {
    let ads = api_call(daemon, "ipni/ads", &json!({"target": publisher, "limit": 10_000})).await;
    ads.as_array().expect("a list").clone()
}

fn is(value: &Value, field: &str, text: &str) -> bool {
    value.get(field).is_some_and(|it| it == text)
}

// ---- Chains ----------------------------------------------------------------------------------------------------

/// A chain of advertisements and the blocks of it, made in memory with a real key.
#[derive(Clone)]
pub struct AdChain {
    key: Keypair,
    store: Arc<MemoryBlockstore>,
    ads: Vec<Cid>,
}

impl AdChain {
    /// An empty chain of whoever has this key.
    pub fn new(key: &Keypair) -> Self {
        Self { key: key.clone(), store: Arc::default(), ads: Vec::new() }
    }

    /// Whose it is.
    pub fn key(&self) -> &Keypair {
        &self.key
    }

    /// Its blocks.
    pub fn store(&self) -> Arc<MemoryBlockstore> {
        Arc::clone(&self.store)
    }

    /// Its advertisements, the newest last.
    pub fn ads(&self) -> &[Cid] {
        &self.ads
    }

    /// The newest advertisement.
    pub fn head(&self) -> Cid {
        *self.ads.last().expect("an advertisement")
    }

    /// Puts blocks beside the chain.
    pub fn put(&self, blocks: &[Block]) {
        self.store.put_many(blocks).expect("a store in memory");
    }

    /// Puts a chunk of two multihashes beside the chain, another one each time.
    pub fn chunk(&self) -> Cid {
        let chunk = Chunks::new([mark(), mark()].map(hash), Codec::DagJson, 16).next();
        let chunk = chunk.expect("two multihashes").expect("a chunk");
        self.put(std::slice::from_ref(&chunk));
        *chunk.cid()
    }

    /// Appends `count` advertisements, each with a chunk of its own.
    pub fn grow(&mut self, count: usize) {
        for _ in 0..count {
            self.append(self.chunk());
        }
    }

    /// Appends an advertisement with these entries.
    pub fn append(&mut self, entries: Cid) -> Cid {
        let ad = self.ad(entries, self.ads.last().copied());
        self.append_ad(&ad)
    }

    /// Appends an advertisement as it stands, right or not.
    pub fn append_ad(&mut self, ad: &Advertisement) -> Cid {
        let block = ad.to_block(Codec::DagJson).expect("a block");
        self.put(std::slice::from_ref(&block));
        self.ads.push(*block.cid());
        *block.cid()
    }

    /// An advertisement that is signed, and nowhere yet.
    pub fn ad(&self, entries: Cid, previous: Option<Cid>) -> Advertisement {
        let mut ad = Advertisement {
            previous_id: previous,
            provider: self.key.public().to_peer_id().to_string(),
            addresses: vec!["/ip4/127.0.0.1/tcp/4101".to_owned()],
            signature: Vec::new(),
            entries,
            context_id: mark().to_be_bytes().to_vec(),
            metadata: vec![0x90, 0x12],
            is_rm: false,
            extended_provider: None,
        };
        ad.sign(&self.key).expect("signs");
        ad
    }
}

/// The signed head of a chain, as it is served.
pub fn signed_head(key: &Keypair, head: Cid) -> Vec<u8> {
    let head = SignedHead::sign(key, head, TOPIC).and_then(|head| head.encode(Codec::DagJson));
    head.expect("a head")
}

fn hash(number: u64) -> Multihash<64> {
    HashCode::Sha2_256.digest(&number.to_be_bytes()).expect("hashes")
}

// ---- A publisher over streams --------------------------------------------------------------------------------------

/// A peer that serves a chain by HTTP over streams and speaks no protocol of ours, as go-libipni's publisher does. Ends
/// when dropped.
pub struct StreamPublisher {
    addr: Multiaddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: libp2p_stream::Behaviour,
    identify: identify::Behaviour,
}

impl StreamPublisher {
    /// Serves this chain.
    pub async fn start(chain: &AdChain) -> Self {
        let mut swarm = SwarmBuilder::with_existing_identity(chain.key.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|key: &Keypair| Behaviour {
                streams: libp2p_stream::Behaviour::new(),
                identify: identify::Behaviour::new(identify::Config::new("/other/1.0.0".to_owned(), key.public())),
            })
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::from_secs(600)))
            .build();
        let addr = listen(&mut swarm).await.with(Protocol::P2p(*swarm.local_peer_id()));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let source = Served { chain: chain.clone(), asked: Arc::clone(&asked) };
        let incoming = swarm.behaviour().streams.new_control().accept(HTTP).expect("a protocol that is served once");
        let task = tokio::spawn(async move {
            let server = Server::new(Arc::new(source));
            let driving = async {
                loop {
                    swarm.select_next_some().await;
                }
            };
            tokio::join!(driving, server.serve_streams(incoming));
        });
        Self { addr, asked, task }
    }

    /// Where it is, with its peer id.
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// What it was asked for: heads and CIDs.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for StreamPublisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Served {
    chain: AdChain,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Served {
    fn note(&self, what: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

impl Source for Served {
    fn allows(&self, _: Option<&PeerId>) -> bool {
        true
    }

    fn head(&self) -> BoxFuture<'static, Result<Option<Bytes>, String>> {
        self.note("head".to_owned());
        let head = self.chain.ads.last().map(|head| signed_head(&self.chain.key, *head).into());
        futures::future::ready(Ok(head)).boxed()
    }

    fn block(&self, cid: Cid) -> BoxFuture<'static, Result<Option<Bytes>, String>> {
        self.note(cid.to_string());
        // Nobody serves what stands for no entries.
        let block = (cid != NO_ENTRIES).then(|| self.chain.store.get(&cid).expect("a store in memory")).flatten();
        futures::future::ready(Ok(block)).boxed()
    }

    fn announced(&self, _: AnnounceBody, _: Option<PeerId>) -> BoxFuture<'static, Result<(), Refusal>> {
        futures::future::ready(Err(Refusal::Forbidden("nothing is taken".to_owned()))).boxed()
    }
}
