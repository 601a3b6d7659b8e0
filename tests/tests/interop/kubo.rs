//! One DHT with a Kubo daemon: providers and addresses, each found by the other side.
//!
//! On loopback Kubo takes part in the DHT of local networks alone, which has a protocol of its own; our daemons are told
//! to join that one.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use cid::Cid;
use dagmesh::swarm::{AcceptAll, Profile, SwarmConfig};
use dagmesh_tests::{Daemon, wait_for};
use libp2p::{PeerId, identity::Keypair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::OnceCell,
};

use crate::{
    go,
    support::{SOON, daemon, daemon_addr, daemon_sees, has, or_skip, publish},
};

/// The DHT of local networks.
pub(crate) const LAN_DHT: &str = "/ipfs/lan/kad/1.0.0";

static PROGRAM: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();

/// A Kubo daemon with a repository of its own, connected with nobody.
pub(crate) async fn kubo() -> Option<Kubo> {
    kubo_with(&[("Routing.Type", "\"dhtserver\"")]).await
}

/// The same with these settings instead, each a key and its value in JSON.
pub(crate) async fn kubo_with(settings: &[(&str, &str)]) -> Option<Kubo> {
    let program = PROGRAM.get_or_init(async || go::build("kubo", "github.com/ipfs/kubo/cmd/ipfs", "ipfs").await).await;
    Some(Kubo::start(or_skip(program)?, settings).await)
}

/// One of our daemons, in Kubo's DHT.
pub(crate) async fn member(args: &[&str]) -> Daemon {
    daemon(args, &[("DAGMESH_SWARM__KAD_PROTOCOL", LAN_DHT)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubo_finds_who_provides_our_head_and_at_which_address() {
    let (Some(first), Some(second)) = tokio::join!(kubo(), kubo()) else { return };
    let ours = member(&[]).await;
    first.joins(&daemon_addr(&ours, "tcp"), ours.peer_id()).await;
    let head = publish(&ours, "provided").await;

    // It knows the first Kubo alone, so what it finds is a record that we put there, with our addresses in it.
    second.joins(&first.addr, &first.peer_id).await;
    wait_for(SOON, "our daemon among the providers of its head", async || {
        let found = second.lines(&["routing", "findprovs", "--num-providers=1", &head]).await;
        responses(&found).any(|found| found["ID"] == ours.peer_id())
    })
    .await;
    let found = second.lines(&["routing", "findpeer", ours.peer_id()]).await;
    let found = responses(&found).find(|found| found["ID"] == ours.peer_id()).expect("our daemon");
    let listen = ours.listen();
    let dialled = ["tcp", "quic-v1", "ws"].map(|transport| daemon_addr(&ours, transport));
    let told = |addr: &String| has(&found["Addrs"], addr.split("/p2p/").next().unwrap_or(addr));
    assert!(dialled.iter().all(told), "{found}, and we listen on {listen:?}");
    // It is connected with nobody but the first: it dials what it has found.
    second.ipfs(&["ping", "--count=1", ours.peer_id()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_find_what_kubo_provides_and_reach_it_by_its_record() {
    let Some(theirs) = kubo().await else { return };
    let ours = member(&[]).await;
    theirs.joins(&daemon_addr(&ours, "tcp"), ours.peer_id()).await;
    let cid = theirs.put("from Kubo").await;
    theirs.ipfs(&["routing", "provide", &cid]).await;

    // A newcomer that knows the daemon alone: the daemon took the record, and hands it out.
    let mut config = SwarmConfig::for_profile(Profile::Test);
    config.bootstrap = vec![daemon_addr(&ours, "tcp").parse().expect("an address")];
    config.kad_protocol = Some(LAN_DHT.to_owned());
    let newcomer = dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await;
    let newcomer = newcomer.expect("a swarm").handle;
    let key = cid.parse::<Cid>().expect("a CID").hash().to_bytes();
    let provider: PeerId = theirs.peer_id.parse().expect("a peer id");
    wait_for(SOON, "Kubo among the providers", async || {
        newcomer.find_providers(key.clone(), 8).await.is_ok_and(|found| found.contains(&provider))
    })
    .await;
    newcomer.dial_peer(provider).await.expect("it is reached at an address of its record");
    newcomer.shutdown().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_finds_its_publisher_through_kubo_alone() {
    let Some(theirs) = kubo().await else { return };
    let publisher = member(&[]).await;
    theirs.joins(&daemon_addr(&publisher, "tcp"), publisher.peer_id()).await;
    let head = publish(&publisher, "found by its publisher's id").await;

    // It is told a peer id and no address, and nobody but Kubo knows that one.
    let follower = member(&["--bootstrap", &theirs.addr]).await;
    let told = |seen: &Value| has(&seen["protocols"], LAN_DHT);
    let seen = daemon_sees(&follower, &theirs.peer_id, "that it serves our DHT", told).await;
    assert!(seen["agent"].as_str().is_some_and(|agent| agent.starts_with("kubo/")), "{seen}");
    let follow = follower.json(&["follow", publisher.peer_id(), "--wait"]).await;
    assert_eq!((&follow["state"], &follow["latest"]), (&"in_sync".into(), &head.into()), "{follow}");
}

/// A running Kubo daemon. It ends when this is dropped; a test that fails shows what it printed.
pub(crate) struct Kubo {
    program: &'static Path,
    repository: TempDir,
    pub(crate) peer_id: String,
    /// Where it listens, with its peer id.
    pub(crate) addr: String,
    printed: Arc<Mutex<String>>,
    _child: Child,
}

impl Kubo {
    async fn start(program: &'static Path, settings: &[(&str, &str)]) -> Self {
        let repository = tempfile::tempdir().expect("a folder");
        let command = |args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).env("IPFS_PATH", repository.path()).env("IPFS_TELEMETRY", "off").kill_on_drop(true);
            command
        };
        // Loopback and free ports, nobody to begin with, nothing that asks elsewhere.
        let init = ["init", "--empty-repo", "--profile=test,autoconf-off"];
        succeeded(&init, &command(&init).output().await.expect("a program that starts"));
        for (key, value) in settings.iter().chain(&[("Version.SwarmCheckEnabled", "false")]) {
            let args = ["config", "--json", key, value];
            succeeded(&args, &command(&args).output().await.expect("a program that starts"));
        }
        let mut child = command(&["daemon"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a daemon");
        let printed = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let into = Arc::clone(&printed);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                *into.lock().expect("what it printed") += &format!("{line}\n");
            }
        });
        let mut kubo =
            Self { program, repository, peer_id: String::new(), addr: String::new(), printed, _child: child };
        wait_for(SOON, "a Kubo daemon", async || {
            kubo.printed.lock().expect("what it printed").contains("Daemon is ready")
        })
        .await;
        let id = kubo.lines(&["id"]).await.remove(0);
        kubo.peer_id = id["ID"].as_str().expect("a peer id").to_owned();
        kubo.addr = id["Addresses"][0].as_str().expect("an address").to_owned();
        kubo
    }

    /// Connects with a peer, and waits until that stands in the routing table.
    pub(crate) async fn joins(&self, addr: &str, peer: &str) {
        self.ipfs(&["swarm", "connect", addr]).await;
        wait_for(SOON, "a routing table of Kubo's with the peer in it", async || {
            let table = self.lines(&["stats", "dht", "lan"]).await;
            let buckets = table[0]["Buckets"].as_array().cloned().unwrap_or_default();
            buckets.iter().filter_map(|bucket| bucket["Peers"].as_array()).flatten().any(|it| it["ID"] == peer)
        })
        .await;
    }

    /// Stores a block; its CID.
    async fn put(&self, text: &str) -> String {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let stored = self.ipfs(&["block", "put", file.path().to_str().expect("a path of UTF-8")]).await;
        stored.trim().to_owned()
    }

    /// Has a command carried out, and gives each line of JSON that answers it.
    pub(crate) async fn lines(&self, args: &[&str]) -> Vec<Value> {
        let printed = self.ipfs(&[args, &["--enc=json"]].concat()).await;
        printed.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// Has a command carried out, and gives what it printed.
    ///
    /// # Panics
    /// When it fails, or takes too long.
    pub(crate) async fn ipfs(&self, args: &[&str]) -> String {
        succeeded(args, &self.run(args).await)
    }

    /// Has a command carried out, which may fail: what it printed, or what it complained of.
    ///
    /// # Panics
    /// When it takes too long.
    pub(crate) async fn try_ipfs(&self, args: &[&str]) -> Result<String, String> {
        let output = self.run(args).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.program);
        command.args(args).env("IPFS_PATH", self.repository.path()).stdin(Stdio::null()).kill_on_drop(true);
        let done = tokio::time::timeout(SOON, command.output()).await;
        done.unwrap_or_else(|_| panic!("`ipfs {}` takes too long", args.join(" "))).expect("run")
    }
}

impl Drop for Kubo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the Kubo daemon {} printed:\n{}", self.peer_id, self.printed.lock().expect("what it printed"));
        }
    }
}

fn succeeded(args: &[&str], output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`ipfs {}` failed: {error}", args.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The peers that the lines of a routing command name.
fn responses(lines: &[Value]) -> impl Iterator<Item = &Value> {
    lines.iter().filter_map(|line| line["Responses"].as_array()).flatten()
}
