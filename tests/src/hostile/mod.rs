//! A hostile node: a real libp2p Swarm with a key of its own that speaks our protocols and does what it is told.
//!
//! [`Hostile`] answers each sync request with what its [`Script`] makes of it, each question for heads
//! with what it was told to say, and announces what it likes, directly or by gossip. It can publish a feed of its own,
//! and serve one that somebody else has signed: [`Hostile::provide`] puts it into the DHT beside the honest ones.
//!
//! - [`script`]: answers, as small values: honest ones, and what may be made of them.
//! - [`dag`]: feeds and blocks that no honest node makes.
//! - [`ask`]: requests that no honest client makes.
//! - [`http`]: a publisher of the IPNI network over plain HTTP that answers as it is told.
//! - [`group`]: what a member of a group says that no honest one does.
//! - [`kad`]: Kademlia written by hand, and nodes of the DHT that lie; [`record`]: records that no honest node puts.
//! - [`gossip`]: a peer that writes its gossip by hand; [`raw`]: one that writes its multiplexing by hand.
//!
//! Like all of this crate it panics with the reason where it cannot go on.

pub mod ask;
pub mod dag;
pub mod gossip;
pub mod group;
pub mod http;
pub mod kad;
pub mod proto;
pub mod raw;
pub mod record;
pub mod script;
mod swarm;
pub(crate) use swarm::listen;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cid::Cid;
use dagmesh::{
    dag::{Blockstore, FeedName, SignedHead},
    dagsync::{head, message},
    ticket::{Target, Ticket},
};
use dagmesh_announce::{Answer as Verdict, net};
use dagmesh_core::{
    cbor,
    frame::{self, FrameReader},
    limits,
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use ipld_core::ipld::Ipld;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, identity::Keypair};
use libp2p_stream::{Control, IncomingStreams};
use tokio::{sync::oneshot, task::JoinHandle};

use self::{
    script::{Answer, Asked, Exchange, Script, Step},
    swarm::{Command, Commands},
};
use crate::{
    peer::{Peer, SOON},
    wait_for_some,
};

/// The stream protocol of a sync.
pub const SYNC: StreamProtocol = StreamProtocol::new(message::PROTOCOL);
/// The stream protocol of the question for heads.
pub const HEAD: StreamProtocol = StreamProtocol::new(head::PROTOCOL);

/// Makes an answer of a question for heads, of one feed or of all.
type HeadScript = Arc<dyn Fn(Option<FeedName>) -> Answer + Send + Sync>;

/// A node that does what it is told. It is on loopback over TCP, in the network of the profile `test`, and ends when
/// dropped.
pub struct Hostile {
    key: Keypair,
    addr: Multiaddr,
    control: Control,
    commands: Commands,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks that answer share with whoever tells them what to say.
struct Shared {
    script: Mutex<Script>,
    heads: Mutex<HeadScript>,
    exchanges: Mutex<Vec<Arc<Exchange>>>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Hostile {
    /// A node with a new key. It holds nothing, and knows no heads.
    pub async fn start() -> Self {
        Self::with_key(Keypair::generate_ed25519()).await
    }

    /// A node with this key.
    pub async fn with_key(key: Keypair) -> Self {
        let (mut swarm, addr) = swarm::start(&key).await;
        let mut control = swarm.behaviour().streams.new_control();
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(|_| script::refused("nothing is here"))),
            heads: Mutex::new(Arc::new(|_| script::heads(&[]))),
            exchanges: Mutex::default(),
        });
        let syncs = control.accept(SYNC).expect("a protocol that is not served yet");
        let questions = control.accept(HEAD).expect("a protocol that is not served yet");
        let (commands, received) = swarm::commands();
        let tasks = vec![
            tokio::spawn(async move { swarm::run(&mut swarm, received).await }),
            tokio::spawn(serve_syncs(syncs, Arc::clone(&shared))),
            tokio::spawn(answer_heads(questions, Arc::clone(&shared))),
        ];
        Self { key, addr, control, commands, shared, tasks }
    }

    /// Its key: it signs what it likes with it.
    pub fn key(&self) -> &Keypair {
        &self.key
    }

    /// Who it is.
    pub fn peer_id(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// Where it is, with its peer id.
    pub fn addr(&self) -> Multiaddr {
        self.addr.clone()
    }

    /// What leads to its feed `main`.
    pub fn target(&self) -> Target {
        self.target_of(&FeedName::default())
    }

    /// What leads to one of its feeds.
    pub fn target_of(&self, feed: &FeedName) -> Target {
        let ticket = Ticket::new(self.peer_id(), &[self.addr()], feed.clone()).expect("a ticket");
        ticket.to_string().parse().expect("a target")
    }

    // ---- What it answers ---------------------------------------------------------------------------------------

    /// Answers each sync request from now on with what `script` makes of it. Those that are being answered go on.
    pub fn answer(&self, script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// Serves these blocks from now on as an honest node does.
    pub fn serve(&self, store: &Arc<impl Blockstore>) {
        let store: Arc<dyn Blockstore> = Arc::clone(store) as _;
        self.answer(move |asked| script::steps(script::honest(&store, &asked.request)));
    }

    /// Tells these heads to whoever asks for their feed.
    pub fn tell(&self, heads: &[&SignedHead]) {
        let heads: Vec<SignedHead> = heads.iter().copied().cloned().collect();
        self.answer_heads(move |feed| {
            let asked = heads.iter().filter(|head| feed.as_ref().is_none_or(|feed| feed == head.feed()));
            script::heads(&asked.map(|head| head.encode().to_vec()).collect::<Vec<_>>())
        });
    }

    /// Answers each question for heads from now on with what `script` says.
    pub fn answer_heads(&self, script: impl Fn(Option<FeedName>) -> Answer + Send + Sync + 'static) {
        *lock(&self.shared.heads) = Arc::new(script);
    }

    /// The sync requests that have come so far, in order, and how far each is answered.
    pub fn exchanges(&self) -> Vec<Arc<Exchange>> {
        lock(&self.shared.exchanges).clone()
    }

    /// Waits until it has been asked at least `count` times for a sync.
    pub async fn asked(&self, count: usize) -> Vec<Arc<Exchange>> {
        let what = format!("{count} sync requests to the hostile node");
        let enough = async || Some(self.exchanges()).filter(|exchanges| exchanges.len() >= count);
        wait_for_some(SOON, &what, enough).await
    }

    // ---- What it does ------------------------------------------------------------------------------------------

    /// Connects to an address, and says who is there.
    pub async fn connect(&self, addr: Multiaddr) -> PeerId {
        let mut failed = String::new();
        // Two that dial each other from the ports they listen on, at the same instant, have one connection between them
        // of which both are the client: it fails for both.
        for _ in 0..3 {
            match self.try_connect(addr.clone()).await {
                Ok(peer) => return peer,
                Err(error) => failed = error,
            }
        }
        panic!("dialling {addr}: {failed}");
    }

    /// Dials an address: who is there, or why nobody is. Whoever does not want us may close the connection right after.
    pub async fn try_connect(&self, addr: Multiaddr) -> Result<PeerId, String> {
        let (reply, connected) = oneshot::channel();
        self.command(Command::Dial { addr, reply }).await;
        let connected = tokio::time::timeout(SOON, connected).await.expect("an end of the dial in time");
        connected.expect("a running swarm")
    }

    /// Connects to a node of ours.
    pub async fn connect_to(&self, peer: &Peer) {
        self.connect(peer.tcp_addr().await).await;
    }

    /// Closes all connections with a peer.
    pub async fn disconnect(&self, peer: PeerId) {
        self.command(Command::Disconnect(peer)).await;
    }

    /// Puts itself into the DHT as one who has this block, at those it is connected with. Returns once they have it.
    pub async fn provide(&self, cid: &Cid) {
        let (reply, provided) = oneshot::channel();
        self.command(Command::Provide { key: cid.hash().to_bytes(), reply }).await;
        tokio::time::timeout(SOON, provided).await.expect("in the DHT in time").expect("a running swarm");
    }

    /// Sends bytes as an announcement directly to a peer; its answer, or that it gave none.
    pub async fn announce(&self, peer: PeerId, message: &[u8]) -> Option<Verdict> {
        let mut stream = self.open(peer, net::PROTOCOL).await;
        let exchange = async {
            frame::write(&mut stream, message).await.ok()?;
            stream.flush().await.ok()?;
            let answer = FrameReader::new(&mut stream, limits::MAX_ANSWER_BYTES).next().await.ok()??;
            Some(Verdict::decode(&answer).expect("an answer that can be read"))
        };
        tokio::time::timeout(SOON, exchange).await.expect("an end of the announcement in time")
    }

    /// Publishes bytes on a gossip topic, once somebody it is connected with is on it.
    pub async fn gossip(&self, topic: &str, message: Vec<u8>) {
        let what = format!("somebody on {topic}");
        wait_for_some(SOON, &what, async || {
            let (reply, published) = oneshot::channel();
            let (topic, message) = (topic.to_owned(), message.clone());
            self.command(Command::Gossip { topic, message, reply }).await;
            published.await.expect("a running swarm").then_some(())
        })
        .await;
    }

    /// Opens a stream to a peer that it is connected with.
    pub async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Stream {
        let opened = self.streams().open_stream(peer, protocol.clone()).await;
        opened.unwrap_or_else(|error| panic!("opening {protocol} to {peer}: {error}"))
    }

    /// Opens and accepts streams, for what an honest client does.
    pub fn streams(&self) -> Control {
        self.control.clone()
    }

    async fn command(&self, command: Command) {
        self.commands.send(command).await.expect("a running swarm");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_syncs(mut streams: IncomingStreams, shared: Arc<Shared>) {
    while let Some((from, stream)) = streams.next().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut reader = FrameReader::new(stream, limits::MAX_REQUEST_BYTES);
            let Ok(Some(request)) = reader.next().await else { return };
            let request = message::Request::decode(&request).expect("an honest client's request");
            let (exchange, answer) = {
                let mut exchanges = lock(&shared.exchanges);
                let asked = Asked { from, nth: exchanges.len(), request };
                let answer = lock(&shared.script)(&asked);
                let exchange = Arc::new(Exchange::new(asked));
                exchanges.push(Arc::clone(&exchange));
                (exchange, answer)
            };
            play(reader.into_inner().0, answer, &exchange).await;
        });
    }
}

async fn answer_heads(mut streams: IncomingStreams, shared: Arc<Shared>) {
    while let Some((_, stream)) = streams.next().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut reader = FrameReader::new(stream, limits::MAX_REQUEST_BYTES);
            let Ok(Some(question)) = reader.next().await else { return };
            let feed = match cbor::from_slice(&question) {
                Ok(Ipld::Map(mut fields)) => fields.remove("feed"),
                other => panic!("an honest client's question is {other:?}"),
            };
            let feed = feed.map(|feed| match feed {
                Ipld::String(name) => FeedName::new(&name).expect("a name"),
                other => panic!("the name of a feed is {other:?}"),
            });
            let answer = lock(&shared.heads)(feed);
            play(reader.into_inner().0, answer, &Exchange::default()).await;
        });
    }
}

/// Sends an answer, step by step, until it is over or the peer is gone.
async fn play(mut stream: Stream, answer: Answer, exchange: &Exchange) {
    let mut buffer = Vec::new();
    let playing = async {
        for step in answer {
            match step {
                Step::Frame(frame) => frame.append(&mut buffer).expect("a frame"),
                Step::Bytes(bytes) => buffer.extend_from_slice(&bytes),
                Step::Wait(wait) => {
                    send(&mut stream, &mut buffer, exchange).await?;
                    stream.flush().await?;
                    tokio::time::sleep(wait).await;
                }
                Step::Silence => {
                    send(&mut stream, &mut buffer, exchange).await?;
                    stream.flush().await?;
                    // Whoever asked says no more, so this ends when it is gone.
                    while stream.read(&mut [0; 64]).await? > 0 {}
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
            }
            if buffer.len() >= WRITE_BYTES {
                send(&mut stream, &mut buffer, exchange).await?;
            }
        }
        send(&mut stream, &mut buffer, exchange).await?;
        stream.flush().await?;
        stream.close().await
    };
    let ended: std::io::Result<()> = playing.await;
    exchange.end(ended.is_ok());
}

/// How much is written at once.
const WRITE_BYTES: usize = 64 * 1024;

async fn send(stream: &mut Stream, buffer: &mut Vec<u8>, exchange: &Exchange) -> std::io::Result<()> {
    for part in buffer.chunks(WRITE_BYTES) {
        stream.write_all(part).await?;
        exchange.add_sent(part.len());
    }
    buffer.clear();
    Ok(())
}
