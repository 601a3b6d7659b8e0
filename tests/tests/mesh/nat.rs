//! Daemons behind routers that translate addresses, of network namespaces.

use dagmesh_tests::{
    Daemon, DaemonOptions, dagmesh_binary,
    nat::{Nat, Place},
    peer::SOON,
    wait_for, wait_for_some,
};
use serde_json::Value;

/// A daemon on a machine of the network that upgrades relayed connections.
async fn daemon(network: &Nat, place: Place, args: &[&str], env: &[(&str, &str)]) -> Daemon {
    let mut options = DaemonOptions::default();
    options.binary = Some(network.on(place, &dagmesh_binary().await));
    options.args = args.iter().map(|&arg| arg.to_owned()).collect();
    let env = [&[("DAGMESH_SWARM__HOLE_PUNCHING", "true"), ("DAGMESH_SWARM__AUTONAT", "true")], env].concat();
    options.env = env.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    Daemon::start_with(options).await
}

/// Waits until the daemon is connected directly with a peer, and gives what it knows of it.
async fn directly(daemon: &Daemon, peer: &Daemon) -> Value {
    wait_for_some(SOON, "a direct connection", async || {
        let peers = daemon.json(&["peers"]).await;
        let peers = peers.as_array().expect("a list of peers").clone();
        peers.into_iter().find(|seen| seen["peer_id"] == peer.peer_id() && seen["relayed"] == false)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_behind_routers_meet_at_a_relay_and_go_on_without_it() {
    let Some(network) = Nat::build() else { return };
    let open = format!("/ip4/{}/tcp/4001", Nat::OPEN);
    let relays = [("DAGMESH_SWARM__RELAY_SERVER", "true"), ("DAGMESH_SWARM__EXTERNAL", open.as_str())];
    let mut relay = daemon(&network, Place::Open, &["--listen", &open], &relays).await;
    let relay_addr = format!("{open}/p2p/{}", relay.peer_id());
    let at_relay = format!("{relay_addr}/p2p-circuit");
    // The relay is whom they join the mesh through too, as it is for most.
    let args = ["--listen", "/ip4/0.0.0.0/tcp/4101", "--listen", &at_relay, "--bootstrap", &relay_addr];
    let (first, second) =
        tokio::join!(daemon(&network, Place::First, &args, &[]), daemon(&network, Place::Second, &args, &[]));
    assert!(network.connects(Place::First, Nat::OPEN, 4001), "what is in the open can be dialled");
    assert!(!network.connects(Place::Open, Nat::FIRST, 4101), "what is behind a router cannot");
    assert!(!network.connects(Place::First, Nat::SECOND, 4101), "nor from behind another one");

    for daemon in [&first, &second] {
        wait_for(SOON, "a place at the relay", async || {
            let status = daemon.json(&["status"]).await;
            let listen = status["listen"].as_array().expect("addresses");
            listen.iter().any(|addr| addr.as_str().is_some_and(|addr| addr.contains("/p2p-circuit/")))
        })
        .await;
    }
    first.json(&["connect", &format!("{at_relay}/p2p/{}", second.peer_id())]).await;
    for (daemon, peer, router) in [(&first, &second, Nat::SECOND), (&second, &first, Nat::FIRST)] {
        let seen = directly(daemon, peer).await;
        let through = format!("/ip4/{router}/tcp/");
        assert!(seen["addr"].as_str().is_some_and(|addr| addr.starts_with(&through)), "{seen}, and not {through}");
    }

    relay.kill9().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("published");
    std::fs::write(&file, "through the hole").expect("a file");
    let published = first.json(&["publish", file.to_str().expect("a path of UTF-8")]).await;
    let follow = second.json(&["follow", first.peer_id(), "--wait"]).await;
    assert_eq!((&follow["state"], &follow["latest"]), (&"in_sync".into(), &published["head"]), "{follow}");
}
