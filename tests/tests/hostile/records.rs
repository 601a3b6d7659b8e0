//! Rows 27 and 28, and what else a peer can do with records: over plain Kademlia and over `/dagmesh/records/1.0.0`, each
//! while an honest peer's record is still got.

mod bans;
mod eclipse;
mod flood;
mod lines;
mod refused;
mod stale;

use dagmesh::types::RecordPut;
use dagmesh_records::{Answer, Code, IpnsName};
use dagmesh_tests::{
    Daemon,
    hostile::{Hostile, kad::KadLine},
    peer::{Peer, SOON},
    wait_for_some,
};
use libp2p::{Multiaddr, PeerId, identity::PublicKey};

/// A daemon that is attacked, and two honest nodes beside it, of which the first puts records and the other reads them.
struct Scene {
    daemon: Daemon,
    owner: Peer,
    reader: Peer,
    put: usize,
}

impl Scene {
    async fn start() -> Self {
        let (daemon, owner, reader) = tokio::join!(Daemon::start(), Peer::start(), Peer::start());
        let mut scene = Self { daemon, owner, reader, put: 0 };
        for peer in [&scene.owner, &scene.reader] {
            connect(peer, scene.addr()).await;
        }
        scene.honest_is_got().await;
        scene
    }

    fn peer_id(&self) -> PeerId {
        self.daemon.peer_id().parse().expect("a peer id")
    }

    fn addr(&self) -> Multiaddr {
        self.daemon.addr("tcp").parse().expect("an address")
    }

    /// A hostile node that is connected with the daemon.
    async fn intruder(&self) -> Hostile {
        let hostile = Hostile::start().await;
        hostile.connect(self.addr()).await;
        hostile
    }

    /// The same, and a stream of the DHT to the daemon.
    async fn kad_intruder(&self) -> (Hostile, KadLine) {
        let hostile = self.intruder().await;
        let line = hostile.kad(self.peer_id()).await.expect("a stream of the DHT");
        (hostile, line)
    }

    /// An honest node puts a record to the daemon, and another one reads it.
    async fn honest_is_got(&mut self) {
        self.put += 1;
        let (daemon, value) = (self.peer_id(), format!("number {}", self.put));
        wait_for_some(SOON, "a record that the daemon holds", async || {
            let done = self.owner.records().put(RecordPut::new("honest", value.clone())).await.ok()?;
            done.holders.contains(&daemon).then_some(())
        })
        .await;
        let found = self.reader.records().get(&public_key(&self.owner), "honest").await.expect("an honest record");
        assert_eq!(String::from_utf8_lossy(&found.value), value);
        assert!(self.daemon.is_running(), "{}", self.daemon.stderr());
    }
}

/// Connects two honest nodes.
async fn connect(peer: &Peer, addr: Multiaddr) {
    use dagmesh::{Api, types::ConnectRequest};
    peer.connect(ConnectRequest { addr }).await.expect("connected");
}

/// An Ed25519 key stands in its own id.
fn public_key(peer: &Peer) -> PublicKey {
    let name: IpnsName = peer.peer_id().to_string().parse().expect("a name");
    name.public_key().expect("holds its key")
}

/// The code with which something was refused.
#[track_caller]
fn code(answer: Option<Answer>) -> Option<Code> {
    match answer.expect("an answer") {
        Answer::Stored { .. } => None,
        Answer::Superseded { .. } => Some(Code::Superseded),
        Answer::Error(refusal) => Some(refusal.code),
        other => panic!("a put is answered with {other:?}"),
    }
}
