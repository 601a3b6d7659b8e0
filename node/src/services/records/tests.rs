//! Records between real nodes on loopback. Everything waits for a state, with a deadline.

mod watch;

use std::{path::Path, time::Duration};

use dagmesh_records::{Answer, Code, Request};
use libp2p::identity::PublicKey;

use super::*;
use crate::{
    Api, Node,
    config::Profile,
    swarm::{self, AcceptAll, RunningSwarm, SwarmConfig},
    testing::until,
};

async fn start(home: &Path, hub: Option<&Node>) -> Node {
    let mut builder = Node::builder().home(home).profile(Profile::Test);
    if let Some(hub) = hub {
        builder = builder.bootstrap(tcp(hub).await);
    }
    builder.start().await.expect("starts")
}

async fn tcp(node: &Node) -> libp2p::Multiaddr {
    let addrs = node.addrs().await.expect("addresses");
    addrs.into_iter().find(|addr| addr.to_string().contains("/tcp/")).expect("one of TCP")
}

/// An Ed25519 key stands in its own id.
fn public_key(node: &Node) -> PublicKey {
    let name: IpnsName = node.peer_id().to_string().parse().expect("a name");
    name.public_key().expect("holds its key")
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a dir")
}

/// Puts until so many hold it: the DHT takes a moment to know all nodes. Gives what came of the last one.
async fn put_at(node: &Node, value: &str, holders: usize) -> RecordPutDone {
    until("put at all nodes", async || {
        let done = node.records().put(RecordPut::new("name", value)).await.ok()?;
        (done.holders.len() == holders).then_some(done)
    })
    .await
}

/// Someone who speaks the protocols and keeps to no rule.
struct Hostile {
    running: RunningSwarm,
}

impl Hostile {
    async fn start(victim: &Node) -> Self {
        let config = SwarmConfig::for_profile(Profile::Test);
        let running = swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await.expect("starts");
        let this = Self { running };
        this.running.handle.connect(tcp(victim).await).await.expect("connects");
        this
    }

    async fn put(&self, victim: &Node, key: &[u8], bytes: &[u8]) -> Result<Answer, net::CallError> {
        let request = Request::put(key, bytes).expect("fits");
        net::ask(&mut self.running.handle.streams(), victim.peer_id(), &request).await
    }
}

#[tokio::test]
async fn a_record_is_read_by_all_outlives_its_owners_absence_and_does_not_go_backwards() {
    let homes = [home(), home(), home(), home()];
    let owner = start(homes[0].path(), None).await;
    let mut others = Vec::new();
    for home in &homes[1..] {
        others.push(start(home.path(), Some(&owner)).await);
    }
    put_at(&owner, "one", 3).await;
    let old = owner.records().list(true).pop().expect("is kept");
    let done = put_at(&owner, "two", 3).await;
    assert!(done.sequence > old.sequence && !done.complete && done.wanted == limits::DEFAULT_RECORD_REPLICAS);
    owner.records().publish_name(NamePublish::new("/ipfs/x")).await.expect("publishes");

    let public = public_key(&owner);
    let name = IpnsName::of(&public).to_string();
    for node in &others {
        let found = node.records().get(&public, "name").await.expect("is found");
        assert_eq!((found.value.as_slice(), found.sequence), (b"two".as_slice(), done.sequence));
        assert!(found.answers.holders >= 2, "{:?}", found.answers);
        assert_eq!(node.records().resolve_name(&name).await.expect("is found").value, "/ipfs/x");
    }
    owner.shutdown().await.expect("stops");
    for node in &others {
        assert_eq!(node.records().get(&public, "name").await.expect("is found").value, b"two");
    }

    // An old copy is put back.
    let victim = others.remove(0);
    let hostile = Hostile::start(&victim).await;
    let refused = hostile.put(&victim, &old.key, &old.bytes).await.expect("answers");
    assert!(matches!(refused, Answer::Superseded { .. }), "{refused:?}");

    // A holder comes back with what it held, and refuses the old copy still.
    victim.shutdown().await.expect("stops");
    drop(victim);
    let victim = start(homes[1].path(), None).await;
    let held = victim.records().list(false);
    assert!(held.iter().any(|held| held.key == old.key && held.sequence == done.sequence), "{held:?}");
    let hostile = Hostile::start(&victim).await;
    let refused = hostile.put(&victim, &old.key, &old.bytes).await.expect("answers");
    assert!(matches!(refused, Answer::Superseded { .. }), "{refused:?}");
}

#[tokio::test]
async fn who_puts_a_forged_record_is_banned_and_the_ban_outlives_a_restart() {
    let (home, other) = (home(), home());
    let node = start(home.path(), None).await;
    let owner = start(other.path(), Some(&node)).await;
    put_at(&owner, "value", 1).await;
    let record = owner.records().list(true).pop().expect("is kept");
    let mut forged = record.bytes.clone();
    *forged.last_mut().expect("bytes") ^= 1;

    let hostile = Hostile::start(&node).await;
    match hostile.put(&node, &record.key, &forged).await {
        Ok(Answer::Error(refusal)) => assert_eq!(refusal.code, Code::Unverifiable),
        Ok(other) => panic!("{other:?}"),
        // The connection may be closed before the answer is read.
        Err(_) => {}
    }
    let peer = hostile.running.handle.local_peer_id();
    until("end of its connection", async || {
        let peers = node.peers().await.expect("lists");
        (!peers.iter().any(|info| info.peer_id == peer)).then_some(())
    })
    .await;
    assert!(hostile.put(&node, &record.key, &record.bytes).await.is_err(), "it is not talked to");
    node.shutdown().await.expect("stops");
    drop(node);

    let node = start(home.path(), None).await;
    hostile.running.handle.add_address(node.peer_id(), tcp(&node).await).await.expect("takes it");
    assert!(hostile.put(&node, &record.key, &record.bytes).await.is_err(), "still not");
    let honest = Hostile::start(&node).await;
    let answer = honest.put(&node, &record.key, &record.bytes).await.expect("answers");
    assert_eq!(answer, Answer::Stored { news: false });
}

#[tokio::test]
async fn a_record_that_nobody_takes_is_kept_and_said_to_be_nowhere_and_numbers_go_on_after_a_restart() {
    let home = home();
    let node = start(home.path(), None).await;
    let alone = node.records().put(RecordPut::new("name", "value")).await.expect_err("nobody is there");
    assert_eq!(alone.kind, ErrorKind::NoPeers, "{alone}");
    let public = public_key(&node);
    assert_eq!(node.records().get(&public, "name").await.expect("read here").value, b"value");
    let none = node.records().get(&public, "other").await.expect_err("is not there");
    assert_eq!(none.kind, ErrorKind::NotFound, "{none}");
    let wrong = node.records().put(RecordPut::new("", "value")).await.expect_err("has no name");
    assert_eq!(wrong.kind, ErrorKind::Usage, "{wrong}");
    node.shutdown().await.expect("stops");
    drop(node);
    let node = start(home.path(), None).await;
    assert_eq!(node.records().list(true)[0].sequence, 1);
    let _nobody = node.records().put(RecordPut::new("name", "next")).await;
    let held = node.records().list(true);
    assert_eq!((held.len(), held[0].sequence), (1, 2));
}

#[tokio::test]
async fn a_peer_of_plain_kademlia_holds_a_record_and_hands_it_out() {
    let homes = [home(), home()];
    let owner = start(homes[0].path(), None).await;
    // It serves the DHT, and no exchange of records.
    let plain = Hostile::start(&owner).await.running.handle;
    until("record at a peer of plain Kademlia", async || {
        let done = owner.records().put(RecordPut::new("name", "value")).await.ok()?;
        done.holders.contains(&plain.local_peer_id()).then_some(())
    })
    .await;
    let public = public_key(&owner);
    owner.shutdown().await.expect("stops");

    let addrs = plain.addrs().await.expect("addresses");
    let addr = addrs.into_iter().find(|addr| addr.to_string().contains("/tcp/")).expect("one of TCP");
    let reader = Node::builder().home(homes[1].path()).profile(Profile::Test).bootstrap(addr).start().await;
    let reader = reader.expect("starts");
    let found = until("record of its", async || reader.records().get(&public, "name").await.ok()).await;
    assert_eq!((found.value.as_slice(), found.answers.holders), (b"value".as_slice(), 1));
}

#[tokio::test]
async fn what_nobody_took_is_put_as_soon_as_somebody_is_there_also_after_a_restart_and_names_are_signed_anew() {
    let (home, other) = (home(), home());
    let node = start(home.path(), None).await;
    let _nobody = node.records().put(RecordPut::new("name", "value")).await.expect_err("nobody is there");
    let lifetime = Duration::from_secs(600);
    let name = NamePublish { lifetime, ..NamePublish::new("/ipfs/x") };
    let _nobody = node.records().publish_name(name).await.expect_err("nobody is there");
    let of_name = |held: &[RecordHeld]| held.iter().find(|held| held.ipns).cloned();
    let first = of_name(&node.records().list(true)).expect("is kept");
    node.shutdown().await.expect("stops");
    drop(node);
    // As if it had been signed a while ago.
    let store = Store::open(home.path().join("store")).expect("nobody uses it");
    let mut row = store.kept_records().expect("rows").rows.into_iter().find(|row| row.key == first.key).expect("a row");
    row.received_ms -= 10 * 60 * 1000;
    store.transaction(|batch| batch.set_record(&row)).expect("is written");
    drop(store);

    let hub = start(other.path(), None).await;
    let node = start(home.path(), Some(&hub)).await;
    let held = until("put that nobody asked for", async || {
        let held = hub.records().list(false);
        (held.len() == 2).then_some(held)
    })
    .await;
    assert!(held.iter().all(|held| held.from == Some(node.peer_id()) && held.sequence == 1));
    let renewed = of_name(&held).expect("a name");
    assert!(renewed.expires_ms > first.expires_ms && renewed.sequence == first.sequence, "{renewed:?}, {first:?}");
    let own = of_name(&node.records().list(true)).expect("is kept");
    assert_eq!(own.bytes, renewed.bytes);
}
