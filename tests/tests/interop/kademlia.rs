//! One DHT with go-libp2p-kad-dht as a server: providers and peers, each found by the other side.
//!
//! Outside the profile `public` our protocol is `/dagmesh/NETWORK/kad/1.0.0`, so the Go side has the prefix
//! `/dagmesh/NETWORK`; there it is `/ipfs/kad/1.0.0`, which is what Go has without being told.

use cid::Cid;
use dagmesh::swarm::{AcceptAll, Profile, SwarmConfig};
use dagmesh_tests::{wait_for, wait_for_some};
use libp2p::{PeerId, identity::Keypair};
use serde_json::Value;

use crate::{
    go::{self, GoPeer, GoProgram},
    support::{DHT, SOON, daemon, daemon_addr, daemon_sees, has, publish},
};

/// A Go server of our DHT that has joined it at this address, and has us in its routing table.
async fn server(go: GoProgram, at: &str) -> GoPeer {
    let mut peer = go.start(&["dht", "-prefix", DHT]).await;
    peer.ask(&format!("dial {at}")).await;
    let (_, known) = at.rsplit_once("/p2p/").expect("a peer id");
    peer.sees("routed", known).await;
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_finds_who_provides_our_head_and_at_which_address() {
    let Some(go) = go::program().await else { return };
    let ours = daemon(&[], &[]).await;
    let first = server(go, &daemon_addr(&ours, "tcp")).await;
    let head = publish(&ours, "provided").await;

    // It knows the first Go alone, so what it finds is a record that we put there, with our addresses in it.
    let mut second = server(go, &first.addr("tcp")).await;
    let found = wait_for_some(SOON, "our daemon among the providers of its head", async || {
        let providers = second.ask(&format!("providers {head}")).await;
        providers.as_array().expect("a list").iter().find(|found| found["peer"] == ours.peer_id()).cloned()
    })
    .await;
    let listen = ours.listen();
    assert!(listen.iter().all(|addr| has(&found["addrs"], &plain(addr))), "{found}, and we listen on {listen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_find_what_go_provides_and_reach_it_by_its_record() {
    let Some(go) = go::program().await else { return };
    let ours = daemon(&[], &[]).await;
    let mut theirs = server(go, &daemon_addr(&ours, "tcp")).await;
    let cid = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    theirs.ask(&format!("provide {cid}")).await;

    // A newcomer that knows the daemon alone: the daemon took the record, and hands it out.
    let mut config = SwarmConfig::for_profile(Profile::Test);
    config.bootstrap = vec![daemon_addr(&ours, "tcp").parse().expect("an address")];
    let newcomer = dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await;
    let newcomer = newcomer.expect("a swarm").handle;
    let key = cid.parse::<Cid>().expect("a CID").hash().to_bytes();
    let provider: PeerId = theirs.peer_id().parse().expect("a peer id");
    wait_for(SOON, "the Go peer among the providers", async || {
        newcomer.find_providers(key.clone(), 8).await.is_ok_and(|found| found.contains(&provider))
    })
    .await;
    newcomer.dial_peer(provider).await.expect("it is reached at an address of its record");
    newcomer.shutdown().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_finds_a_daemon_that_only_another_daemon_knows() {
    let Some(go) = go::program().await else { return };
    let known = daemon(&[], &[]).await;
    let sought = daemon(&["--bootstrap", &daemon_addr(&known, "tcp")], &[]).await;
    daemon_sees(&known, sought.peer_id(), "that it is here", |seen| seen["agent"].is_string()).await;

    let mut theirs = server(go, &daemon_addr(&known, "tcp")).await;
    let found = theirs.ask(&format!("find {}", sought.peer_id())).await;
    let listen = sought.listen();
    assert!(listen.iter().all(|addr| has(&found["addrs"], &plain(addr))), "{found}, and it listens on {listen:?}");
    theirs.ask(&format!("ping {}", sought.peer_id())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_finds_its_publisher_through_go_alone() {
    let Some(go) = go::program().await else { return };
    let publisher = daemon(&[], &[]).await;
    let theirs = server(go, &daemon_addr(&publisher, "tcp")).await;
    let head = publish(&publisher, "found by its publisher's id").await;

    // It is told a peer id and no address, and nobody but the Go peer knows that one.
    let follower = daemon(&["--bootstrap", &theirs.addr("tcp")], &[]).await;
    let told = |seen: &Value| has(&seen["protocols"], &format!("{DHT}/kad/1.0.0"));
    daemon_sees(&follower, theirs.peer_id(), "that it serves our DHT", told).await;
    let follow = follower.json(&["follow", publisher.peer_id(), "--wait"]).await;
    assert_eq!((&follow["state"], &follow["latest"]), (&"in_sync".into(), &head.into()), "{follow}");
}

/// The address without a peer at its end, as the DHT hands it out.
fn plain(addr: &str) -> String {
    addr.split("/p2p/").next().unwrap_or(addr).to_owned()
}
