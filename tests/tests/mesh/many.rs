//! Records between many nodes: real nodes with stores on disk, on loopback.

mod correct;
mod plain;
mod race;
mod read;
mod republish;
mod restart;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dagmesh::{
    Api, ErrorKind, NodeError,
    config::Profile,
    store::Store,
    swarm::{self, AcceptAll, RunningSwarm, SwarmConfig},
    types::{RecordFound, RecordHeld, RecordPut, RecordPutDone},
};
use dagmesh_records::{Answer, Code, Draft, IpnsName, Record, RecordName, Request, net};
use dagmesh_tests::{wait_for, wait_for_some};
use futures::future::join_all;
use libp2p::{
    Multiaddr, PeerId,
    identity::{Keypair, PublicKey},
};
use tempfile::TempDir;

use crate::support::{Peer, PeerOptions, SOON};

/// What the records of these tests are called.
const NAME: &str = "name";

/// Whether there is time for as many nodes as the machine carries.
fn is_long() -> bool {
    std::env::var_os("DAGMESH_LONG").is_some()
}

/// Nodes that have joined one DHT through the first of them.
async fn mesh(count: usize) -> Vec<Peer> {
    let homes = (0..count).map(|_| Arc::new(tempfile::tempdir().expect("a home")));
    mesh_at(homes.collect()).await
}

/// The same, on homes that are there.
async fn mesh_at(homes: Vec<Arc<TempDir>>) -> Vec<Peer> {
    let options =
        |home: &Arc<TempDir>| PeerOptions { home: Some(home.clone()), tcp_only: true, ..PeerOptions::default() };
    let hub = Peer::with(options(&homes[0])).await;
    let bootstrap = vec![hub.tcp_addr().await];
    let others =
        homes[1..].iter().map(|home| Peer::with(PeerOptions { bootstrap: bootstrap.clone(), ..options(home) }));
    let others = join_all(others).await;
    std::iter::once(hub).chain(others).collect()
}

/// Ends all of them at the same time.
async fn stop_all(nodes: &[Peer]) {
    join_all(nodes.iter().map(|node| async { node.shutdown().await.expect("stops") })).await;
}

/// An Ed25519 key stands in its own id.
fn public_key(node: &Peer) -> PublicKey {
    let name: IpnsName = node.peer_id().to_string().parse().expect("a name");
    name.public_key().expect("holds its key")
}

/// Puts until so many hold it: a DHT that has just come up takes a moment to know all nodes. Gives what came of the last.
async fn put_at(node: &Peer, record: RecordPut, holders: usize) -> RecordPutDone {
    wait_for_some(SOON, &format!("a record at {holders} nodes"), async || {
        let done = node.records().put(record.clone()).await.ok()?;
        (done.holders.len() == holders).then_some(done)
    })
    .await
}

/// What each of the nodes reads, all at the same time.
async fn read(nodes: &[Peer], owner: &PublicKey) -> Vec<Result<RecordFound, NodeError>> {
    join_all(nodes.iter().map(|node| async { node.records().get(owner, NAME).await })).await
}

/// Waits until each of the nodes reads this value: for a DHT that has just come up.
async fn all_come_to_read(nodes: &[Peer], owner: &PublicKey, value: &[u8]) {
    wait_for_some(SOON, "a value that all read", async || {
        let read = read(nodes, owner).await;
        read.iter().all(|found| found.as_ref().is_ok_and(|found| found.value == value)).then_some(())
    })
    .await;
}

/// Asserts that each of the nodes reads this value, at the first try.
#[track_caller]
fn assert_all_read(found: &[Result<RecordFound, NodeError>], value: &[u8]) {
    for (at, found) in found.iter().enumerate() {
        match found {
            Ok(found) => assert_eq!(found.value, value, "node {at}: {found:?}"),
            Err(error) => panic!("node {at}: {error}"),
        }
    }
}

/// What a node holds under this key.
fn held(node: &Peer, key: &[u8]) -> Option<RecordHeld> {
    node.records().list(false).into_iter().find(|held| held.key == key)
}

/// Somebody with the protocols of a node and none of its rules, who holds nothing.
struct Stranger {
    running: RunningSwarm,
}

impl Stranger {
    async fn start() -> Self {
        let config = SwarmConfig::for_profile(Profile::Test);
        let key = Keypair::generate_ed25519();
        Self { running: swarm::start(config, key, Box::new(AcceptAll)).await.expect("a swarm") }
    }

    fn peer_id(&self) -> PeerId {
        self.running.handle.local_peer_id()
    }

    /// Connects to a node.
    async fn meet(&self, node: &Peer) {
        self.running.handle.connect(node.tcp_addr().await).await.expect("connects");
    }

    /// Puts a record to the one node at this address by the exchange, whatever it is.
    async fn put(&self, to: &Multiaddr, key: &[u8], record: &[u8]) -> Result<Answer, String> {
        self.ask(to, &Request::put(key, record).expect("fits")).await
    }

    /// What the one node at this address says that it holds.
    async fn get(&self, from: &Multiaddr, key: &[u8]) -> Result<Answer, String> {
        self.ask(from, &Request::get(key).expect("fits")).await
    }

    async fn ask(&self, node: &Multiaddr, request: &Request) -> Result<Answer, String> {
        let handle = &self.running.handle;
        let peer = handle.connect(node.clone()).await.map_err(|error| error.to_string())?;
        net::ask(&mut handle.streams(), peer, request).await.map_err(|error| error.to_string())
    }
}

/// A record of this key's owner, signed now.
fn signed(key: &Keypair, name: &str, sequence: u64) -> Record {
    let timestamp_ms = unix_ms();
    let draft = Draft {
        name: RecordName::new(name).expect("a name"),
        value: format!("value {sequence}").into_bytes(),
        sequence,
        timestamp_ms,
        expires_ms: timestamp_ms + 60 * 60 * 1000,
        meta: BTreeMap::new(),
    };
    Record::sign(key, draft).expect("signs")
}

/// Now, in Unix milliseconds.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
    u64::try_from(since.as_millis()).expect("fits")
}

/// Whether an answer says that a newer record is known.
fn is_superseded(answer: &Answer) -> bool {
    match answer {
        Answer::Superseded { .. } => true,
        // The newer one is gone, and cannot be shown.
        Answer::Error(refusal) => refusal.code == Code::Superseded,
        _ => false,
    }
}
