//! A private network with go-libp2p: the swarm key of either side in the file that both read.

use dagmesh_tests::Daemon;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    go::{self, AGENT},
    support::{daemon, daemon_addr, daemon_sees},
};

/// A swarm key in the form that Kubo and others write, in a file.
fn swarm_key(folder: &TempDir, name: &str, digit: char) -> String {
    let path = folder.path().join(name);
    let key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", String::from(digit).repeat(64));
    std::fs::write(&path, key).expect("a file");
    path.to_str().expect("a path of UTF-8").to_owned()
}

async fn private(key: &str) -> Daemon {
    daemon(&["--listen", "/ip4/127.0.0.1/tcp/0"], &[("DAGMESH_SWARM__PSK", key)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_key_lets_go_in_both_ways_and_nobody_without_it() {
    let Some(go) = go::program().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (key, other_key) = (swarm_key(&folder, "key", 'a'), swarm_key(&folder, "other", 'b'));
    let with = |key| ["host", "-transports", "tcp", "-psk", key];
    let (with_key, with_other) = (with(&key), with(&other_key));
    let (ours, mut dialler, mut dialled) = tokio::join!(private(&key), go.start(&with_key), go.start(&with_key));
    let (mut other, mut without) = tokio::join!(go.start(&with_other), go.start(&["host", "-transports", "tcp"]));
    let addr = daemon_addr(&ours, "tcp");

    let connection = dialler.ask(&format!("dial {addr}")).await;
    assert_eq!((&connection["security"], &connection["muxer"]), (&"/noise".into(), &"/yamux/1.0.0".into()));
    dialler.ask(&format!("ping {}", ours.peer_id())).await;

    ours.json(&["connect", &dialled.addr("tcp")]).await;
    dialled.sees("connected", ours.peer_id()).await;
    dialled.ask(&format!("ping {}", ours.peer_id())).await;
    for peer in [&dialler, &dialled] {
        let told = |seen: &Value| seen["agent"] == AGENT && seen["rtt_ms"].is_u64();
        daemon_sees(&ours, peer.peer_id(), "its agent, and a ping", told).await;
    }

    for stranger in [&mut other, &mut without] {
        let refused = stranger.try_ask(&format!("dial {addr}")).await;
        assert!(refused.is_err(), "connected without the key: {refused:?}");
        assert_ne!(ours.run(&["connect", &stranger.addr("tcp")]).await.code, Some(0), "nor are they dialled");
    }
    assert_eq!(ours.json(&["status"]).await["peers"], 2);
}
