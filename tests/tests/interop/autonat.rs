//! AutoNAT with go-libp2p: each side has addresses of its own tested by the other.

use dagmesh_core::limits;
use dagmesh_tests::{
    Daemon, DaemonOptions, dagmesh_binary,
    nat::{Nat, Place},
    wait_for, wait_for_some,
};

use crate::{
    go::{self, GoPeer, GoProgram},
    support::{SOON, daemon, daemon_addr, has},
};

/// A daemon and a Go peer that test addresses for others.
async fn testers(go: GoProgram) -> (Daemon, GoPeer) {
    let env = [("DAGMESH_SWARM__AUTONAT", "true")];
    tokio::join!(daemon(&[], &env), go.start(&["autonat", "-transports", "tcp"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_proves_that_an_address_of_ours_is_reachable() {
    let Some(go) = go::program().await else { return };
    let (ours, theirs) = testers(go).await;
    ours.json(&["connect", &theirs.addr("tcp")]).await;
    let own = daemon_addr(&ours, "tcp");
    wait_for(SOON, "an address that was tested and is reachable", async || {
        let status = ours.json(&["status"]).await;
        let addresses = status["addresses"].as_array().expect("addresses").clone();
        addresses.iter().any(|it| {
            let addr = it["addr"].as_str().expect("an address");
            own.starts_with(addr) && it["reach"] == "reachable" && it["tested"].is_u64()
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_prove_that_an_address_of_go_is_reachable() {
    let Some(go) = go::program().await else { return };
    let (ours, mut theirs) = testers(go).await;
    // libp2p-autonat tests addresses only for those that have dialled it.
    theirs.ask(&format!("dial {}", daemon_addr(&ours, "tcp"))).await;
    let addr = theirs.addr("tcp");
    let (own, _) = addr.split_once("/p2p/").expect("a peer id at its end");
    // Go notes down who tests addresses a moment after it has identified them.
    let answer = wait_for_some(SOON, "a peer that Go asks", async || {
        let asked = theirs.try_ask(&format!("reachable {own}")).await;
        asked.inspect_err(|error| assert!(error.contains("no peers"), "{error}")).ok()
    })
    .await;
    assert_eq!(answer, "Public");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_dial_back_for_a_client_of_go_that_knows_version_1_alone_and_not_too_often() {
    let Some(go) = go::program().await else { return };
    let (ours, mut theirs) = testers(go).await;
    theirs.ask(&format!("dial {}", daemon_addr(&ours, "tcp"))).await;
    let served = theirs.sees("identified", ours.peer_id()).await;
    assert!(has(&served["protocols"], "/libp2p/autonat/1.0.0"), "{served}");

    let dial_back = format!("dial-back {}", ours.peer_id());
    for _ in 0..limits::AUTONAT_V1_DIALS_PER_PEER {
        theirs.ask(&dial_back).await;
    }
    // Each was a connection of its own, which we opened.
    let opened = theirs.all("connected").iter().filter(|seen| seen["direction"] == "inbound").count();
    assert_eq!(opened, limits::AUTONAT_V1_DIALS_PER_PEER);
    let refused = theirs.try_ask(&dial_back).await.expect_err("one more in the same minute");
    assert!(refused.contains("E_DIAL_REFUSED"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_go_that_know_version_1_alone_vouch_for_an_address_of_ours() {
    let Some(go) = go::program().await else { return };
    // Go serves nobody on loopback or at private addresses.
    let Some(network) = Nat::build() else { return };
    let mut options = DaemonOptions::default();
    options.binary = Some(network.on(Place::Open, &dagmesh_binary().await));
    let own = format!("/ip4/{}/tcp/4101", Nat::OPEN);
    options.args = vec!["--listen".to_owned(), own.clone()];
    options.env = vec![("DAGMESH_SWARM__AUTONAT".to_owned(), "true".to_owned())];
    let server = async |place, ip| {
        let args = ["autonat-v1", "-transports", "tcp", "-ip", ip];
        GoProgram::start_as(&network.on(place, go.path()), &args).await
    };
    let [first, second] = Nat::SERVERS;
    let (ours, first, second) = tokio::join!(
        Daemon::start_with(options),
        server(Place::FirstServer, first),
        server(Place::SecondServer, second)
    );
    // The word of one would not be enough.
    for server in [&first, &second] {
        ours.json(&["connect", &server.addr("tcp")]).await;
    }
    let tested = wait_for_some(SOON, "an address that two have reached", async || {
        let status = ours.json(&["status"]).await;
        let addresses = status["addresses"].as_array().expect("addresses").clone();
        addresses.into_iter().find(|it| it["addr"] == own && it["reach"] == "reachable")
    })
    .await;
    assert!(tested["tested"].is_u64(), "{tested}");
}
