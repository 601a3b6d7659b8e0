//! gossipsub with go-libp2p-pubsub, which signs and checks strictly, as it does by default.

use dagmesh::swarm::{AcceptAll, Profile, SwarmConfig};
use dagmesh_tests::wait_for;
use libp2p::{Multiaddr, identity::Keypair};
use serde_json::Value;

use crate::{
    go::{self, GoPeer, GoProgram},
    support::{HEADS, SOON, addr_of, daemon, daemon_addr, hex, in_mesh, is_heard, publish},
};

/// A Go peer that takes part in a topic and is connected with whoever listens there.
async fn member(go: GoProgram, topic: &str, of: &str) -> GoPeer {
    let mut peer = go.start(&["gossip"]).await;
    peer.ask(&format!("subscribe {topic}")).await;
    peer.ask(&format!("dial {of}")).await;
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_messages_of_a_topic_travel_both_ways() {
    const TOPIC: &str = "/dagmesh/interop";
    let Some(go) = go::program().await else { return };
    let config = SwarmConfig::for_profile(Profile::Test);
    let mut ours =
        dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await.expect("a swarm");
    let us = ours.handle.local_peer_id();
    ours.handle.subscribe(TOPIC).await.expect("subscribed");
    let addrs = ours.handle.addrs().await.expect("addresses").iter().map(Multiaddr::to_string).collect::<Vec<_>>();

    let mut theirs = member(go, TOPIC, &addr_of(addrs.iter().map(String::as_str), "tcp")).await;
    theirs.sees("joined", &us.to_string()).await;
    in_mesh(&ours.handle, TOPIC, &theirs).await;

    theirs.ask(&format!("publish {TOPIC} {}", hex(b"from Go"))).await;
    let heard = tokio::time::timeout(SOON, ours.gossip.recv()).await.expect("a message in time").expect("a message");
    assert_eq!((heard.topic.as_str(), heard.data.as_slice()), (TOPIC, b"from Go".as_slice()));
    assert_eq!(heard.author.map(|author| author.to_string()).as_deref(), Some(theirs.peer_id()));

    is_heard(&ours.handle, TOPIC, &theirs).await;
    assert_eq!(theirs.all("rejected"), [] as [Value; 0]);
    ours.handle.shutdown().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_head_reaches_a_go_subscriber_in_the_form_of_ipni() {
    let Some(go) = go::program().await else { return };
    let ours = daemon(&[], &[]).await;
    let theirs = member(go, HEADS, &daemon_addr(&ours, "tcp")).await;
    theirs.sees("joined", ours.peer_id()).await;

    let mut heads = Vec::new();
    for text in ["one", "two"] {
        heads.push(publish(&ours, text).await);
        announced(&theirs, &ours, heads.last().expect("a head")).await;
    }
    let messages = theirs.all("message");
    assert_eq!(messages.iter().map(|message| &message["cid"]).collect::<Vec<_>>(), heads.iter().collect::<Vec<_>>());
    assert_eq!(theirs.all("rejected"), [] as [Value; 0]);
    let status = ours.json(&["status"]).await;
    assert_eq!((&status["topic_peers"], &status["feeds"][0]["announced_to"]), (&1.into(), &1.into()), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_published_alone_is_announced_to_a_go_subscriber_that_comes_later() {
    let Some(go) = go::program().await else { return };
    let ours = daemon(&[], &[]).await;
    let head = publish(&ours, "nobody hears of it yet").await;
    let theirs = member(go, HEADS, &daemon_addr(&ours, "quic-v1")).await;
    announced(&theirs, &ours, &head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_from_go_on_the_head_topic_is_passed_to_nobody_and_harms_nothing() {
    let Some(go) = go::program().await else { return };
    let mut ours = daemon(&[], &[]).await;
    let addr = daemon_addr(&ours, "tcp");
    let (mut culprit, bystander) = tokio::join!(member(go, HEADS, &addr), member(go, HEADS, &addr));
    for peer in [&culprit, &bystander] {
        peer.sees("joined", ours.peer_id()).await;
    }
    // No CBOR at all, and the beginning of an announcement: an array of three with nothing in it.
    for garbage in [b"\xff\xff no CBOR".as_slice(), b"\x83"] {
        culprit.ask(&format!("publish {HEADS} {}", hex(garbage))).await;
    }
    wait_for(SOON, "two rejected announcements in the log", async || {
        ours.stderr().matches("an announcement is rejected").count() == 2
    })
    .await;

    let head = publish(&ours, "after the garbage").await;
    for peer in [&culprit, &bystander] {
        announced(peer, &ours, &head).await;
        assert_eq!(peer.all("message").len(), 1, "the garbage is not handed on");
    }
    assert!(ours.is_running());
    assert_eq!(ours.json(&["status"]).await["peers"], 2);
}

/// Waits until the Go peer has heard of a head, and checks the message.
async fn announced(theirs: &GoPeer, ours: &dagmesh_tests::Daemon, head: &str) {
    let message = theirs.wait("message", &format!("an announcement of {head}"), |message| message["cid"] == head).await;
    assert_eq!((&message["topic"], &message["from"]), (&HEADS.into(), &ours.peer_id().into()), "{message}");
    // CID, addresses, extra data; a fourth item would name another publisher than the sender.
    assert_eq!((&message["signed"], &message["items"]), (&true.into(), &3.into()), "{message}");
}
