//! Rows 20 to 26: what a peer can do below the sync protocol, by gossip, streams and connections.

mod gossip;
mod lines;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cid::Cid;
use dagmesh::{
    Api,
    dag::{Block, Codec, FeedName, HashCode, SignedHead},
    types::{ConnectRequest, HeadRequest},
};
use dagmesh_announce::Announcement;
use dagmesh_tests::{Daemon, hostile::gossip::Gossiper, peer::Peer, wait_for_some};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use tokio::net::TcpListener;

/// The topic of heads in the network of the profile `test`.
const TOPIC: &str = "/dagmesh/heads/test";
/// How long anything may take that is certain to come.
const SOON: Duration = Duration::from_secs(60);
/// How long an honest peer may wait for an answer on a machine that is busy with an attack and with other tests; on a
/// quiet one it takes milliseconds.
const AT_ONCE: Duration = Duration::from_secs(5);
const MIB: u64 = 1024 * 1024;

/// A head that `key` signs, of an entry that nobody has.
fn invented(key: &Keypair, seq: u64) -> SignedHead {
    let entry = Block::new(Codec::Raw, HashCode::Sha2_256, format!("nobody has {seq}").into_bytes()).expect("a block");
    SignedHead::sign(key, &FeedName::default(), *entry.cid(), seq, 1).expect("a head")
}

/// The announcement of a head, by its publisher or relayed for it.
fn announcement(head: &SignedHead, addrs: impl IntoIterator<Item = Multiaddr>, relayed: bool) -> Vec<u8> {
    let announcement = Announcement::new(head, addrs);
    let announcement = if relayed { announcement.relayed(head.publisher()) } else { announcement };
    announcement.encode().expect("an announcement")
}

/// An address that counts who dials it, and answers nobody.
struct Trap {
    addr: Multiaddr,
    dials: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trap {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let dials = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&dials);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { addr: format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address"), dials, task }
    }

    fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

/// The daemon's address over TCP.
fn addr_of(daemon: &Daemon) -> Multiaddr {
    daemon.addr("tcp").parse().expect("an address")
}

/// The most memory that the daemon has taken so far, in bytes; `None` where the system does not say.
fn peak(daemon: &Daemon) -> Option<u64> {
    Some(daemon.memory()?.peak)
}

/// Checks that an attack has cost the daemon at most so much memory.
#[track_caller]
fn assert_memory(daemon: &Daemon, before: Option<u64>, most: u64) {
    if let (Some(before), Some(after)) = (before, peak(daemon)) {
        let grown = after.saturating_sub(before);
        println!("memory: {} MiB before, {} MiB more", before / MIB, grown / MIB);
        assert!(grown <= most, "{} MiB more at its peak", grown / MIB);
    }
}

/// A publisher in a process of its own, with one entry.
async fn publisher() -> (Daemon, Cid) {
    let daemon = Daemon::start().await;
    let head = publish(&daemon, "one").await;
    (daemon, head)
}

/// Publishes a file with this content; the head.
async fn publish(daemon: &Daemon, content: &str) -> Cid {
    let file = daemon.home().join("published.txt");
    std::fs::write(&file, content).expect("a file");
    let published = daemon.json(&["publish", file.to_str().expect("UTF-8")]).await;
    published["head"].as_str().expect("a head").parse().expect("a CID")
}

/// Connects a new peer with the daemon and asks for its head: how long both took.
async fn is_served(daemon: &Daemon, head: Cid) -> Duration {
    let honest = Peer::start().await;
    let begun = Instant::now();
    connect(&honest, daemon).await;
    ask(&honest, daemon, head).await;
    begun.elapsed()
}

/// Connects an honest peer, which is let in at its first try. A port of our own that is taken says nothing about that.
async fn connect(honest: &Peer, daemon: &Daemon) {
    wait_for_some(SOON, "a free port", async || match honest.connect(ConnectRequest { addr: addr_of(daemon) }).await {
        Ok(_) => Some(()),
        Err(error) if error.message.contains("Address already in use") => None,
        Err(error) => panic!("an honest peer is kept out: {error}"),
    })
    .await;
}

/// Asks a connected daemon for its head: how long that took.
async fn ask(honest: &Peer, daemon: &Daemon, head: Cid) -> Duration {
    let begun = Instant::now();
    let target = daemon.peer_id().parse().expect("a target");
    let found = honest.head(HeadRequest { target: Some(target), feed: None }).await.expect("an answer");
    assert_eq!(found.head, head);
    begun.elapsed()
}

/// A gossiper on the topic of heads.
async fn on_topic(addr: &Multiaddr) -> Gossiper {
    let mut gossiper = Gossiper::connect(addr).await;
    gossiper.send(&dagmesh_tests::hostile::gossip::subscriptions(true, [TOPIC])).await.expect("a stream");
    gossiper
}

/// A peer id as whom to follow.
fn target(peer: PeerId) -> dagmesh::ticket::Target {
    peer.to_string().parse().expect("a target")
}
