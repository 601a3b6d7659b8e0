//! Circuit relay v2 with go-libp2p: our daemon relays for Go, and is itself reached through a relay of Go.

use dagmesh_tests::wait_for;
use serde_json::Value;

use crate::{
    go::{self, AGENT},
    support::{SOON, daemon, daemon_addr, daemon_sees},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_daemon_relays_between_two_peers_of_go() {
    let Some(go) = go::program().await else { return };
    let env = [("DAGMESH_SWARM__RELAY_SERVER", "true")];
    let (ours, mut hidden, mut seeker) = tokio::join!(daemon(&[], &env), go.start(&["host"]), go.start(&["host"]));
    let addr = daemon_addr(&ours, "tcp");

    let place = hidden.ask(&format!("reserve {addr}")).await;
    assert!(place["addrs"].as_array().is_some_and(|addrs| !addrs.is_empty()), "no address to be found at: {place}");
    let connection = seeker.ask(&format!("dial {addr}/p2p-circuit/p2p/{}", hidden.peer_id())).await;
    assert_eq!((&connection["peer"], &connection["relayed"]), (&hidden.peer_id().into(), &true.into()), "{connection}");
    seeker.ask(&format!("ping {}", hidden.peer_id())).await;
    assert_eq!(hidden.sees("connected", seeker.peer_id()).await["relayed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_daemon_is_reached_through_a_relay_of_go() {
    let Some(go) = go::program().await else { return };
    let (relay, mut seeker) = tokio::join!(go.start(&["relay"]), go.start(&["host"]));
    let at_relay = format!("{}/p2p-circuit", relay.addr("tcp"));
    let ours = daemon(&["--listen", &at_relay], &[]).await;
    wait_for(SOON, "a place at the relay", async || {
        let status = ours.json(&["status"]).await;
        status["listen"].as_array().is_some_and(|addrs| !addrs.is_empty())
    })
    .await;

    let connection = seeker.ask(&format!("dial {at_relay}/p2p/{}", ours.peer_id())).await;
    assert_eq!((&connection["peer"], &connection["relayed"]), (&ours.peer_id().into(), &true.into()), "{connection}");
    seeker.ask(&format!("ping {}", ours.peer_id())).await;
    let told = |seen: &Value| seen["agent"] == AGENT && seen["relayed"] == true;
    daemon_sees(&ours, seeker.peer_id(), "its agent, through the relay", told).await;
}
