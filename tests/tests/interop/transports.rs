//! Connections with go-libp2p over each transport: who dials, what secures them, what both ends learn of one another.

use dagmesh_tests::Daemon;
use serde_json::Value;

use crate::{
    go::{self, AGENT, GoPeer},
    support::{DHT, daemon, daemon_addr, daemon_sees, has},
};

/// A transport: how the Go peer is told it, how an address names it, and how a connection of Go does.
struct Over {
    flag: &'static str,
    addr: &'static str,
    name: &'static str,
    muxer: &'static str,
}

const TCP: Over = Over { flag: "tcp", addr: "tcp", name: "tcp", muxer: "/yamux/1.0.0" };
const QUIC: Over = Over { flag: "quic", addr: "quic-v1", name: "quic-v1", muxer: "" };
const WEBSOCKET: Over = Over { flag: "ws", addr: "ws", name: "websocket", muxer: "/yamux/1.0.0" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_with_tls_both_ways() {
    connects_both_ways(&TCP, "tls", "/tls/1.0.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_with_noise_both_ways() {
    connects_both_ways(&TCP, "noise", "/noise").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_with_what_both_prefer_is_tls() {
    connects_both_ways(&TCP, "tls,noise", "/tls/1.0.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_both_ways() {
    connects_both_ways(&QUIC, "tls,noise", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_with_tls_both_ways() {
    connects_both_ways(&WEBSOCKET, "tls", "/tls/1.0.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_with_noise_both_ways() {
    connects_both_ways(&WEBSOCKET, "noise", "/noise").await;
}

/// Go, which knows these securities, dials us, and we dial another Go; each time both learn who the other is, and the
/// pings of both come back.
async fn connects_both_ways(over: &Over, securities: &str, secured_by: &str) {
    let Some(go) = go::program().await else { return };
    let args = ["host", "-transports", over.flag, "-security", securities];
    let (ours, mut dialler, mut dialled) = tokio::join!(daemon(&[], &[]), go.start(&args), go.start(&args));
    let check = |connection: &Value, direction: &str| {
        let seen = ["transport", "security", "muxer", "direction"].map(|field| connection[field].as_str());
        assert_eq!(seen, [over.name, secured_by, over.muxer, direction].map(Some), "{connection}");
    };

    check(&dialler.ask(&format!("dial {}", daemon_addr(&ours, over.addr))).await, "outbound");
    know_each_other(&ours, &mut dialler).await;

    let connected = ours.json(&["connect", &dialled.addr(over.addr)]).await;
    assert_eq!(connected["peer_id"], dialled.peer_id());
    check(&dialled.sees("connected", ours.peer_id()).await, "inbound");
    know_each_other(&ours, &mut dialled).await;
}

/// Both have identified each other, and reach each other with a ping.
async fn know_each_other(ours: &Daemon, theirs: &mut GoPeer) {
    let us = theirs.sees("identified", ours.peer_id()).await;
    let agent = us["agent"].as_str().expect("an agent");
    assert!(agent.starts_with("dagmesh/"), "{us}");
    assert_eq!(us["protocol_version"], format!("{DHT}/1.0.0"));
    let kad = format!("{DHT}/kad/1.0.0");
    for protocol in ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/meshsub/1.1.0", "/dagmesh/dagsync/1.0.0", &kad] {
        assert!(has(&us["protocols"], protocol), "{protocol} is missing in {us}");
    }
    let told = |seen: &Value| seen["agent"] == AGENT && has(&seen["protocols"], "/ipfs/ping/1.0.0");
    daemon_sees(ours, theirs.peer_id(), "its agent and protocols", told).await;
    daemon_sees(ours, theirs.peer_id(), "a ping that came back", |seen| seen["rtt_ms"].is_u64()).await;
    let ping = theirs.ask(&format!("ping {}", ours.peer_id())).await;
    assert!(ping["rtt_us"].as_u64().is_some_and(|rtt| rtt > 0), "{ping}");
}
