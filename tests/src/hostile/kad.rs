//! Kademlia written by hand: requests that no library makes, and nodes that lie to whoever asks them.
//!
//! Source: the specification of libp2p's Kademlia, <https://github.com/libp2p/specs/tree/master/kad-dht>.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dagmesh_core::frame::{self, FrameReader};
use futures::{AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identify, identity::Keypair, kad::KBucketKey,
    multiaddr::Protocol, noise, ping, swarm::NetworkBehaviour, tcp, yamux,
};
use libp2p_stream::IncomingStreams;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Hostile, proto, swarm::listen_at};
use crate::peer::SOON;

/// The DHT of the network of the profile `test`.
pub const KAD: StreamProtocol = StreamProtocol::new("/dagmesh/test/kad/1.0.0");

const PUT_VALUE: u64 = 0;
const GET_VALUE: u64 = 1;
const ADD_PROVIDER: u64 = 2;
const GET_PROVIDERS: u64 = 3;
const FIND_NODE: u64 = 4;
/// Largest message that is read.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A stream on which requests are written by hand, one after the other.
pub struct KadLine {
    stream: Stream,
}

impl Hostile {
    /// Opens a stream of the DHT to a peer; `None` where it is refused.
    pub async fn kad(&self, peer: PeerId) -> Option<KadLine> {
        let opened = self.streams().open_stream(peer, KAD).await;
        opened.ok().map(|stream| KadLine { stream })
    }
}

impl KadLine {
    /// Puts a value: whether it was acknowledged; `None` where the stream is gone.
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Option<bool> {
        let request = [proto::number(1, PUT_VALUE), proto::bytes(2, key), record(key, value)].concat();
        let answer = self.ask(&request).await?;
        Some(value_of(&answer).is_some_and(|taken| taken == value))
    }

    /// The value that the peer has under a key; `None` where the stream is gone.
    pub async fn get(&mut self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let answer = self.ask(&[proto::number(1, GET_VALUE), proto::bytes(2, key)].concat()).await?;
        Some(value_of(&answer))
    }

    /// Says that `provider` has what this key names; nobody answers that.
    pub async fn provide(&mut self, key: &[u8], provider: PeerId) -> std::io::Result<()> {
        let addr: Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().expect("an address");
        let provider = proto::bytes(9, &peer(&provider, &[addr]));
        self.send(&[proto::number(1, ADD_PROVIDER), proto::bytes(2, key), provider].concat()).await
    }

    /// Who has what this key names, as far as the peer knows; `None` where the stream is gone.
    pub async fn providers(&mut self, key: &[u8]) -> Option<Vec<PeerId>> {
        self.peers(GET_PROVIDERS, key, 9).await
    }

    /// The nodes closest to a key that the peer knows; `None` where the stream is gone.
    pub async fn closest(&mut self, key: &[u8]) -> Option<Vec<PeerId>> {
        self.peers(FIND_NODE, key, 8).await
    }

    async fn peers(&mut self, kind: u64, key: &[u8], field: u64) -> Option<Vec<PeerId>> {
        let answer = self.ask(&[proto::number(1, kind), proto::bytes(2, key)].concat()).await?;
        let id = |peer: Vec<u8>| PeerId::from_bytes(&proto::all(&peer, 1).next()?).ok();
        Some(proto::all(&answer, field).filter_map(id).collect())
    }

    /// Sends any bytes behind their length.
    pub async fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        frame::write(&mut self.stream, message).await?;
        self.stream.flush().await
    }

    async fn ask(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let asking = async {
            self.send(request).await.ok()?;
            let answer = FrameReader::new(&mut self.stream, MAX_MESSAGE_BYTES).next().await.ok()??;
            Some(answer.to_vec())
        };
        tokio::time::timeout(SOON, asking).await.expect("an end of the request in time")
    }
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    proto::bytes(3, &[proto::bytes(1, key), proto::bytes(2, value)].concat())
}

fn value_of(message: &[u8]) -> Option<Vec<u8>> {
    proto::all(&proto::all(message, 3).next()?, 2).next()
}

fn peer(id: &PeerId, addrs: &[Multiaddr]) -> Vec<u8> {
    let addrs = addrs.iter().flat_map(|addr| proto::bytes(2, &addr.to_vec()));
    proto::bytes(1, &id.to_bytes()).into_iter().chain(addrs).collect()
}

/// A key pair whose place in the DHT has its first `bits` in common with that of `key`.
pub fn near(key: &[u8], bits: u32) -> Keypair {
    let target = KBucketKey::new(key.to_vec());
    loop {
        let pair = Keypair::generate_ed25519();
        let distance = target.distance(&KBucketKey::from(pair.public().to_peer_id()));
        if distance.ilog2().is_none_or(|log| log < 256 - bits) {
            return pair;
        }
    }
}

/// Nodes of the DHT that name nobody but one another, acknowledge what is put and keep nothing, and answer who asks with
/// nothing, or with what is none. They end when dropped.
pub struct Ring {
    nodes: Vec<RingNode>,
    swallowed: Arc<AtomicUsize>,
}

struct RingNode {
    peer: PeerId,
    addr: Multiaddr,
    dial: mpsc::Sender<Multiaddr>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for RingNode {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[derive(NetworkBehaviour)]
struct RingBehaviour {
    streams: libp2p_stream::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

impl Ring {
    /// One node for each key pair, all at this address of loopback; every second one answers a GET with `garbage`.
    pub async fn start(ip: std::net::Ipv4Addr, pairs: Vec<Keypair>, garbage: &[u8]) -> Self {
        let mut swarms = Vec::new();
        for pair in pairs {
            let mut swarm = ring_swarm(&pair);
            let addr = listen_at(&mut swarm, ip).await;
            swarm.add_external_address(addr.clone());
            swarms.push((swarm, addr));
        }
        let all = swarms.iter().map(|(swarm, addr)| (*swarm.local_peer_id(), addr.clone())).collect::<Vec<_>>();
        let fellows: Vec<u8> =
            all.iter().flat_map(|(id, addr)| proto::bytes(8, &peer(id, std::slice::from_ref(addr)))).collect();
        let swallowed = Arc::<AtomicUsize>::default();
        let run = |(n, (mut swarm, addr)): (usize, (Swarm<RingBehaviour>, Multiaddr))| {
            let lies = Lies {
                fellows: fellows.clone(),
                garbage: (n % 2 == 0).then(|| garbage.to_vec()),
                swallowed: Arc::clone(&swallowed),
            };
            let streams = swarm.behaviour().streams.new_control().accept(KAD).expect("a protocol that is not served");
            let (dial, mut dials) = mpsc::channel::<Multiaddr>(64);
            let peer = *swarm.local_peer_id();
            let running = tokio::spawn(async move {
                loop {
                    tokio::select! {
                        Some(addr) = dials.recv() => swarm.dial(addr).expect("a dial"),
                        _ = swarm.select_next_some() => {}
                    }
                }
            });
            RingNode { peer, addr, dial, tasks: [running, tokio::spawn(lies.answer(streams))] }
        };
        Self { nodes: swarms.into_iter().enumerate().map(run).collect(), swallowed }
    }

    /// Who they are.
    pub fn peers(&self) -> Vec<PeerId> {
        self.nodes.iter().map(|node| node.peer).collect()
    }

    /// Where the first of them is.
    pub fn addr(&self) -> Multiaddr {
        let first = self.nodes.first().expect("a node");
        first.addr.clone().with(Protocol::P2p(first.peer))
    }

    /// Each of them connects with the node at this address, and says who is there.
    pub async fn connect(&self, addr: &Multiaddr) {
        for node in &self.nodes {
            node.dial.send(addr.clone()).await.expect("a running swarm");
        }
    }

    /// How many records they have acknowledged, and not kept.
    pub fn swallowed(&self) -> usize {
        self.swallowed.load(Ordering::Relaxed)
    }
}

fn ring_swarm(pair: &Keypair) -> Swarm<RingBehaviour> {
    let behaviour = |key: &Keypair| RingBehaviour {
        streams: libp2p_stream::Behaviour::new(),
        ping: ping::Behaviour::default(),
        identify: identify::Behaviour::new(identify::Config::new("/dagmesh/test/1.0.0".to_owned(), key.public())),
    };
    SwarmBuilder::with_existing_identity(pair.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(behaviour)
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(SOON))
        .build()
}

/// What one node of a ring says.
struct Lies {
    fellows: Vec<u8>,
    garbage: Option<Vec<u8>>,
    swallowed: Arc<AtomicUsize>,
}

impl Lies {
    async fn answer(self, mut streams: IncomingStreams) {
        let this = Arc::new(self);
        while let Some((_, stream)) = streams.next().await {
            let this = Arc::clone(&this);
            tokio::spawn(async move {
                let mut reader = FrameReader::new(stream, MAX_MESSAGE_BYTES);
                while let Ok(Some(request)) = reader.next().await {
                    let answer = this.of(&request);
                    let (stream, _) = reader.into_inner();
                    let Some(stream) = this.send(stream, answer).await else { return };
                    reader = FrameReader::new(stream, MAX_MESSAGE_BYTES);
                }
            });
        }
    }

    async fn send(&self, mut stream: Stream, answer: Option<Vec<u8>>) -> Option<Stream> {
        if let Some(answer) = answer {
            frame::write(&mut stream, &answer).await.ok()?;
            stream.flush().await.ok()?;
        }
        Some(stream)
    }

    fn of(&self, request: &[u8]) -> Option<Vec<u8>> {
        let kind = proto::number_of(request, 1).unwrap_or(PUT_VALUE);
        let key = proto::all(request, 2).next().unwrap_or_default();
        match (kind, &self.garbage) {
            (PUT_VALUE, _) => {
                self.swallowed.fetch_add(1, Ordering::Relaxed);
                Some(request.to_vec())
            }
            (ADD_PROVIDER, _) => None,
            (GET_VALUE, Some(garbage)) => {
                Some([proto::number(1, kind), record(&key, garbage), self.fellows.clone()].concat())
            }
            _ => Some([proto::number(1, kind), self.fellows.clone()].concat()),
        }
    }
}
