//! A gossip peer that writes its messages by hand, so that it can send what no gossipsub implementation does.
//!
//! Source: the gossipsub specification, <https://github.com/libp2p/specs/blob/master/pubsub/>.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dagmesh_core::frame::FrameReader;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, io::WriteHalf};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, identity::Keypair, noise, swarm::SwarmEvent, tcp, yamux,
};
use libp2p_stream::{Control, IncomingStreams};
use tokio::{sync::watch, task::JoinHandle};

use super::proto;
use crate::wait_for_some;

/// The protocol that it speaks.
pub const MESHSUB: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");
/// Largest message that it reads.
const MAX_RPC_BYTES: usize = 1024 * 1024;
/// How long anything may take that is certain to come.
const SOON: Duration = Duration::from_secs(60);

/// A peer on a real connection (TCP, Noise, yamux) that speaks gossipsub as it likes and nothing else. Ends when dropped.
pub struct Gossiper {
    key: Keypair,
    peer: PeerId,
    control: Control,
    out: Out,
    heard: Arc<Mutex<Vec<Rpc>>>,
    sequence: u64,
    tasks: Vec<JoinHandle<()>>,
}

/// A stream that is written to, and whether the other side has closed it: it then reads no more, and who only writes
/// would wait for ever.
struct Out {
    stream: WriteHalf<Stream>,
    closed: watch::Receiver<bool>,
}

impl Out {
    async fn open(control: &mut Control, peer: PeerId) -> Result<Self, String> {
        let stream = control.open_stream(peer, MESHSUB).await.map_err(|error| error.to_string())?;
        let (mut read, stream) = stream.split();
        let (tell, closed) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok(1..) = read.read(&mut [0; 64]).await {}
            let _nobody_asks = tell.send(true);
        });
        Ok(Self { stream, closed })
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Self { stream, closed } = self;
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(std::io::ErrorKind::BrokenPipe.into()),
            written = async {
                stream.write_all(bytes).await?;
                stream.flush().await
            } => written,
        }
    }
}

/// What the other side has said in one message.
#[derive(Debug, Clone, Default)]
pub struct Rpc {
    /// Content of the messages it published or passed on.
    pub published: Vec<Vec<u8>>,
    /// Ids of messages that it has.
    pub ihave: Vec<Vec<u8>>,
    /// Ids of messages that it wants.
    pub iwant: Vec<Vec<u8>>,
    /// Topics into whose mesh it takes us.
    pub graft: Vec<String>,
    /// Topics from whose mesh it sends us away.
    pub prune: Vec<String>,
}

impl Drop for Gossiper {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Gossiper {
    /// Connects with a new key.
    ///
    /// # Panics
    /// When it cannot; see [`try_connect`](Self::try_connect).
    pub async fn connect(addr: &Multiaddr) -> Self {
        Self::try_connect(Keypair::generate_ed25519(), addr).await.unwrap_or_else(|why| panic!("{addr}: {why}"))
    }

    /// Connects with this key, and opens its gossip stream; an error where it is refused, or cut off before.
    pub async fn try_connect(key: Keypair, addr: &Multiaddr) -> Result<Self, String> {
        let mut swarm = SwarmBuilder::with_existing_identity(key.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        let mut control = swarm.behaviour().new_control();
        let incoming = control.accept(MESHSUB).expect("not accepted yet");
        swarm.dial(addr.clone()).map_err(|error| error.to_string())?;
        let peer = loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => break peer_id,
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.to_string()),
                _ => {}
            }
        };
        let heard = Arc::default();
        let tasks = vec![
            tokio::spawn(async move {
                loop {
                    swarm.select_next_some().await;
                }
            }),
            tokio::spawn(hear(incoming, Arc::clone(&heard))),
        ];
        let out = Out::open(&mut control, peer).await?;
        Ok(Self { key, peer, control, out, heard, sequence: 0, tasks })
    }

    /// Its key.
    pub fn key(&self) -> &Keypair {
        &self.key
    }

    /// Who it is.
    pub fn peer_id(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// Serves a protocol: counts the streams that are opened to it, each of which is dropped at once.
    pub fn count_streams(&mut self, protocol: StreamProtocol) -> Arc<Mutex<usize>> {
        let mut incoming = self.control.accept(protocol).expect("not accepted yet");
        let count = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&count);
        self.tasks.push(tokio::spawn(async move {
            while incoming.next().await.is_some() {
                *counted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
        }));
        count
    }

    /// Sends one message; an error where the other side has closed the stream.
    pub async fn send(&mut self, rpc: &[u8]) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(rpc.len() + 5);
        proto::varint(&mut bytes, rpc.len() as u64);
        bytes.extend_from_slice(rpc);
        self.send_bytes(&bytes).await
    }

    /// Sends bytes as they are.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write(bytes).await
    }

    /// Opens its gossip stream anew, after the other side has closed it.
    pub async fn reopen(&mut self) {
        self.out = Out::open(&mut self.control, self.peer).await.expect("a connection that stands");
    }

    /// Sends until the other side has closed the stream: how many messages it took.
    pub async fn send_until_closed(&mut self, rpc: &[u8], at_most: usize) -> Option<usize> {
        for sent in 0..at_most {
            if self.send(rpc).await.is_err() {
                return Some(sent);
            }
            tokio::task::yield_now().await;
        }
        None
    }

    /// Publishes bytes on a topic, signed as the protocol wants it, with a sequence number of its own each time.
    pub async fn publish(&mut self, topic: &str, data: &[u8]) {
        self.try_publish(topic, data).await.expect("a stream that stands");
    }

    /// The same; an error where the other side has closed the stream.
    pub async fn try_publish(&mut self, topic: &str, data: &[u8]) -> std::io::Result<()> {
        self.sequence += 1;
        let mut message = proto::bytes(1, &self.peer_id().to_bytes());
        message.extend(proto::bytes(2, data));
        message.extend(proto::bytes(3, &self.sequence.to_be_bytes()));
        message.extend(proto::bytes(4, topic.as_bytes()));
        let signature = self.key.sign(&[b"libp2p-pubsub:", &message[..]].concat()).expect("signs");
        message.extend(proto::bytes(5, &signature));
        self.send(&proto::bytes(2, &message)).await
    }

    /// All that the other side has said so far.
    pub fn heard(&self) -> Vec<Rpc> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the other side has said what `fits`.
    pub async fn hears(&self, what: &str, fits: impl Fn(&Rpc) -> bool) {
        wait_for_some(SOON, what, async || self.heard().iter().any(&fits).then_some(())).await;
    }
}

/// A message that says which topics we are on.
pub fn subscriptions<'a>(subscribe: bool, topics: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let one = |topic: &str| {
        proto::bytes(1, &[proto::number(1, u64::from(subscribe)), proto::bytes(2, topic.as_bytes())].concat())
    };
    topics.into_iter().flat_map(one).collect()
}

/// A message that takes the other side into our mesh.
pub fn graft(topic: &str) -> Vec<u8> {
    proto::bytes(3, &proto::bytes(3, &proto::bytes(1, topic.as_bytes())))
}

/// A message that sends the other side away from our mesh for so long, in seconds.
pub fn prune(topic: &str, backoff: u64) -> Vec<u8> {
    let body = [proto::bytes(1, topic.as_bytes()), proto::number(3, backoff)].concat();
    proto::bytes(3, &proto::bytes(4, &body))
}

/// A message that says which messages we have.
pub fn ihave<'a>(topic: &str, ids: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let ids = ids.into_iter().flat_map(|id| proto::bytes(2, id));
    let body: Vec<u8> = proto::bytes(1, topic.as_bytes()).into_iter().chain(ids).collect();
    proto::bytes(3, &proto::bytes(1, &body))
}

/// A message that asks for messages.
pub fn iwant<'a>(ids: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let ids: Vec<u8> = ids.into_iter().flat_map(|id| proto::bytes(1, id)).collect();
    proto::bytes(3, &proto::bytes(2, &ids))
}

async fn hear(mut incoming: IncomingStreams, heard: Arc<Mutex<Vec<Rpc>>>) {
    while let Some((_, stream)) = incoming.next().await {
        let mut reader = FrameReader::new(stream, MAX_RPC_BYTES);
        while let Ok(Some(frame)) = reader.next().await {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(Rpc::read(&frame));
        }
    }
}

impl Rpc {
    fn read(bytes: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut rpc = Self::default();
        for (field, value) in proto::fields(bytes) {
            match field {
                2 => rpc.published.extend(proto::all(&value, 2)),
                3 => {
                    for (kind, control) in proto::fields(&value) {
                        match kind {
                            1 => rpc.ihave.extend(proto::all(&control, 2)),
                            2 => rpc.iwant.extend(proto::all(&control, 1)),
                            3 => rpc.graft.extend(proto::all(&control, 1).map(|topic| text(&topic))),
                            4 => rpc.prune.extend(proto::all(&control, 1).map(|topic| text(&topic))),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        rpc
    }
}
