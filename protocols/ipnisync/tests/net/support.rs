//! Chains, publishers, Swarms, and a publisher that answers with whatever bytes a test wants.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_dag::{Block, Codec, HashCode};
use dagmesh_ipnisync::{
    Advertisement, SignedHead,
    net::{AnnounceBody, Client, ClientConfig, HTTP, NetError, Pace, Refusal, Server, Source},
};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    identity::Keypair,
    noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    yamux,
};
use libp2p_stream::Control;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Longer than anything here takes on a machine with other things to do.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(LONG, work).await.expect("in time")
}

/// A block of raw bytes.
pub(crate) fn raw(data: impl Into<Bytes>) -> Block {
    Block::new(Codec::Raw, HashCode::Sha2_256, data).expect("a block")
}

/// What a node would have: blocks, a head, a rule whom to serve, and what was announced to it.
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) blocks: Mutex<HashMap<Cid, Bytes>>,
    pub(crate) head: Mutex<Option<Bytes>>,
    pub(crate) closed: std::sync::atomic::AtomicBool,
    pub(crate) announced: Mutex<Vec<(AnnounceBody, Option<PeerId>)>>,
    pub(crate) refusal: Mutex<Option<Refusal>>,
    /// While it is held, blocks wait.
    pub(crate) gate: Arc<tokio::sync::RwLock<()>>,
    pub(crate) asked: tokio::sync::watch::Sender<usize>,
}

impl Chain {
    /// A chain of `len` signed advertisements of `key`, and its head.
    pub(crate) fn of(key: &Keypair, len: usize) -> (Arc<Self>, Vec<Block>) {
        let chain = Arc::new(Self::default());
        let mut blocks: Vec<Block> = Vec::new();
        for index in 0..len {
            let mut ad = Advertisement {
                previous_id: blocks.last().map(|block| *block.cid()),
                provider: key.public().to_peer_id().to_string(),
                addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned()],
                signature: Vec::new(),
                entries: dagmesh_ipnisync::NO_ENTRIES,
                context_id: index.to_be_bytes().to_vec(),
                metadata: vec![0; 16],
                is_rm: false,
                extended_provider: None,
            };
            ad.sign(key).expect("signs");
            blocks.push(ad.to_block(Codec::DagJson).expect("a block"));
        }
        chain.hold(&blocks);
        if let Some(last) = blocks.last() {
            *chain.head.lock().expect("not poisoned") = Some(head(key, *last.cid()));
        }
        (chain, blocks)
    }

    /// Waits until so many blocks were asked for.
    pub(crate) async fn is_asked(&self, times: usize) {
        soon(self.asked.subscribe().wait_for(|asked| *asked >= times)).await.expect("is counted");
    }

    pub(crate) fn hold<'a>(&self, blocks: impl IntoIterator<Item = &'a Block>) {
        let mut held = self.blocks.lock().expect("not poisoned");
        held.extend(blocks.into_iter().map(|block| (*block.cid(), block.data().clone())));
    }
}

pub(crate) fn head(key: &Keypair, cid: Cid) -> Bytes {
    SignedHead::sign(key, cid, "/indexer/ingest/test").expect("signs").encode(Codec::DagJson).expect("encodes").into()
}

impl Source for Chain {
    fn allows(&self, _: Option<&PeerId>) -> bool {
        !self.closed.load(Ordering::SeqCst)
    }

    fn head(&self) -> BoxFuture<'static, Result<Option<Bytes>, String>> {
        let head = self.head.lock().expect("not poisoned").clone();
        async move { Ok(head) }.boxed()
    }

    fn block(&self, cid: Cid) -> BoxFuture<'static, Result<Option<Bytes>, String>> {
        self.asked.send_modify(|asked| *asked += 1);
        let block = self.blocks.lock().expect("not poisoned").get(&cid).cloned();
        let gate = Arc::clone(&self.gate);
        async move {
            let _open = gate.read().await;
            match block {
                Some(block) if block.as_ref() == b"unreadable" => Err("the disk at /secret/place is gone".to_owned()),
                block => Ok(block),
            }
        }
        .boxed()
    }

    fn announced(&self, body: AnnounceBody, from: Option<PeerId>) -> BoxFuture<'static, Result<(), Refusal>> {
        self.announced.lock().expect("not poisoned").push((body, from));
        let refusal = self.refusal.lock().expect("not poisoned").clone();
        async move { refusal.map_or(Ok(()), Err) }.boxed()
    }
}

/// Serves over TCP until the test ends; gives the address, and how many connections came.
pub(crate) async fn serve_tcp(
    server: &Server,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let behind = listener.local_addr().expect("is bound");
    let server = server.clone();
    tokio::spawn(async move { server.serve(listener, tls, std::future::pending::<()>()).await });
    counted(behind).await
}

/// Passes connections on, and counts them.
async fn counted(behind: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("is bound");
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(behind).await.expect("connects");
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (addr, count)
}

pub(crate) fn http(addr: SocketAddr) -> Multiaddr {
    format!("/ip4/{}/tcp/{}/http", addr.ip(), addr.port()).parse().expect("an address")
}

/// The waits of a node, but for those between attempts: nothing of an honest peer is late on a busy machine.
pub(crate) fn patient() -> Pace {
    let mut pace = Pace::default();
    pace.retries = [10, 20, 40].map(Duration::from_millis).to_vec();
    pace
}

/// A second where a node waits twenty, for peers that are meant to be late.
pub(crate) fn brisk() -> Pace {
    let mut pace = patient();
    pace.answer = Duration::from_secs(1);
    pace.window = Duration::from_secs(1);
    pace.min_bytes = 1024;
    pace
}

pub(crate) fn client(pace: Pace) -> Client {
    Client::new(ClientConfig { pace, ..ClientConfig::default() }, None).expect("a client")
}

/// A Swarm that runs until the test ends, and what opens streams on it.
pub(crate) struct Node {
    pub(crate) peer: PeerId,
    pub(crate) addr: Multiaddr,
    pub(crate) control: Control,
    dial: tokio::sync::mpsc::Sender<(PeerId, Multiaddr, tokio::sync::oneshot::Sender<()>)>,
}

impl Node {
    pub(crate) async fn new(key: &Keypair) -> Self {
        let mut swarm: Swarm<libp2p_stream::Behaviour> = SwarmBuilder::with_existing_identity(key.clone())
            .with_tokio()
            .with_tcp(Default::default(), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(LONG))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("listens");
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let (peer, control) = (*swarm.local_peer_id(), swarm.behaviour().new_control());
        let (dial, mut dials) = tokio::sync::mpsc::channel::<(PeerId, Multiaddr, tokio::sync::oneshot::Sender<()>)>(4);
        tokio::spawn(async move {
            let mut waiting = HashMap::new();
            loop {
                tokio::select! {
                    Some((peer, addr, connected)) = dials.recv() => {
                        waiting.insert(peer, connected);
                        swarm.dial(DialOpts::peer_id(peer).addresses(vec![addr]).build()).expect("dials");
                    }
                    event = swarm.select_next_some() => {
                        if let SwarmEvent::ConnectionEstablished { peer_id, .. } = event
                            && let Some(connected) = waiting.remove(&peer_id)
                        {
                            let _ = connected.send(());
                        }
                    }
                }
            }
        });
        Self { peer, addr, control, dial }
    }

    /// Connects with `other`.
    pub(crate) async fn dial(&self, other: &Node) {
        let (connected, is_connected) = tokio::sync::oneshot::channel();
        self.dial.send((other.peer, other.addr.clone(), connected)).await.expect("the Swarm runs");
        soon(is_connected).await.expect("connects");
    }

    pub(crate) fn serve(&mut self, server: &Server) {
        let incoming = self.control.accept(HTTP).expect("nobody else serves it");
        let server = server.clone();
        tokio::spawn(async move { server.serve_streams(incoming).await });
    }
}

/// A publisher that answers each request with what `answer` makes of its first line and the number of requests so far,
/// on connections that it then closes. It reads one request a connection.
pub(crate) async fn publisher<F, A>(answer: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(String, usize, TcpStream) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("is bound");
    let requests = Arc::new(AtomicUsize::new(0));
    let (count, answer) = (Arc::clone(&requests), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let (count, answer) = (Arc::clone(&count), Arc::clone(&answer));
            tokio::spawn(async move {
                let head = read_head(&mut tcp).await;
                let line = head.lines().next().unwrap_or_default().to_owned();
                let number = count.fetch_add(1, Ordering::SeqCst);
                answer(line, number, tcp).await;
            });
        }
    });
    (addr, requests)
}

/// A publisher that answers everything with the same bytes.
pub(crate) async fn saying(bytes: impl Into<Vec<u8>>) -> (SocketAddr, Arc<AtomicUsize>) {
    let bytes = Bytes::from(bytes.into());
    publisher(move |_, _, tcp| say(tcp, bytes.clone())).await
}

/// Sends an answer and ends the connection as TCP means it: what was sent arrives.
pub(crate) async fn say(mut tcp: TcpStream, answer: impl AsRef<[u8]>) {
    let _ = tcp.write_all(answer.as_ref()).await;
    let _ = tcp.shutdown().await;
    let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
}

pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) async fn read_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Fetches a block from a publisher at `addr`.
pub(crate) async fn fetch(pace: Pace, addr: SocketAddr, block: &Block) -> Result<Block, NetError> {
    let remote = client(pace).remote(PeerId::random(), &[http(addr)]);
    soon(remote.block(*block.cid(), dagmesh_ipnisync::net::Kind::Advertisement)).await
}
