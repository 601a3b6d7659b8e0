//! `interop-chain`: a chain of advertisements with entries, as a follower of the IPNI network fetches it: natively from
//! one of us, over the network's HTTP from go-libipni, and by go-libipni itself from go-libipni. The same number of
//! advertisements, entries and blocks each time, over the same line.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use dagmesh::{
    dag::{Blockstore, Codec, HashCode},
    store::Store,
};
use dagmesh_ipnisync::{Advertisement, Chunks};
use dagmesh_tests::{Daemon, DaemonOptions, DelayProxy, api::api_try_within, foreign::Foreign};
use libp2p::identity::Keypair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    Args, Bar, Row,
    nodes::{self, PATIENCE, Running},
    runtime,
};

/// Advertisements, and round trips in milliseconds.
const CASES: [(u64, u64); 2] = [(10_000, 0), (1_000, 50)];
/// Multihashes of each advertisement, in one chunk.
const ENTRIES: u64 = 4;
/// Names the program of the Go peers (`tests/interop/go`), where it is not to be built.
const PROGRAM: &str = "DAGMESH_BENCH_GO";
/// The default of a node; no line of these leads anywhere but to the other.
const NETWORK: &str = "mainnet";
const TOPIC: &str = "/indexer/ingest/mainnet";

/// The rows of `interop-chain`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    runtime()?.block_on(async {
        let program = go_program().await?;
        let mut rows = Vec::new();
        for (length, round_trip_ms) in CASES {
            rows.extend(measure(args, &program, args.scaled(length), round_trip_ms).await?);
        }
        Ok(rows)
    })
}

/// What one follower took.
struct Took {
    elapsed: Duration,
    requests: Option<u64>,
    bytes: u64,
    peak_bytes: Option<u64>,
}

async fn measure(args: &Args, program: &Path, length: u64, round_trip_ms: u64) -> Result<Vec<Row>> {
    let one_way = Duration::from_micros(round_trip_ms * 500);
    let (home, key) = ad_chain_home(length)?;
    let ours = Running::at(home, key).await?;
    let count = length.to_string();
    let flags = ["ipni-publisher", "-topic", TOPIC, "-http", "-ads", &count, "-entries", "4", "-chunk", "4"];
    let mut theirs = Go::start(program, &flags).await?;
    let (mut native, mut http, mut go): (Option<Took>, Option<Took>, Option<Took>) = (None, None, None);
    // By turns, so that a busy spell of the machine falls on all.
    for _ in 0..args.runs {
        keep_best(&mut go, theirs_from(&mut theirs, program, one_way, length).await?);
        keep_best(&mut http, ours_from(&mut theirs, one_way, length).await?);
        keep_best(&mut native, native_from(&ours, one_way, length).await?);
    }
    ours.stop().await?;
    let [Some(native), Some(http), Some(go)] = [native, http, go] else { bail!("no run") };
    let name = |what: &str| format!("interop-chain {what} {length}, {round_trip_ms} ms");
    let workload = format!("{length} advertisements, {ENTRIES} multihashes each");
    let row = |what: &str, took: &Took| {
        let ms = |took: &Took| took.elapsed.as_secs_f64() * 1e3;
        Row::new(name(what), &workload, ms(took), "ms").ceiling(ms(&go)).note(took.note())
    };
    let (over_http, natively) = match round_trip_ms {
        0 => (Bar::RatioAtMost(1.0), None),
        _ => (Bar::RatioAtMost(0.5), Some(Bar::RatioAtMost(0.02))),
    };
    let of_native = row("native", &native);
    Ok(vec![
        natively.into_iter().fold(of_native, Row::bar),
        row("ipnisync", &http).bar(over_http),
        row("go-libipni", &go).note(
            "its Subscriber, which keeps blocks in memory, from its Publisher over HTTP; ours keeps them on the disk, \
             durable, and has checked every signature",
        ),
    ])
}

fn keep_best(best: &mut Option<Took>, took: Took) {
    if best.as_ref().is_none_or(|best| took.elapsed < best.elapsed) {
        *best = Some(took);
    }
}

impl Took {
    fn note(&self) -> String {
        let requests = self.requests.map(|requests| format!("{requests} blocks were asked for one by one, "));
        let memory = self.peak_bytes.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let (requests, bytes) = (requests.unwrap_or_default(), self.bytes as f64 / 1e6);
        format!("{requests}{bytes:.1} MB came over the line, at most {memory} resident in the process that follows")
    }
}

/// Our follower, from one of us that publishes such a chain.
async fn native_from(publisher: &Running, one_way: Duration, length: u64) -> Result<Took> {
    let line = DelayProxy::start(publisher.socket().await?, one_way).await?;
    let addr = format!("{}/p2p/{}", line.multiaddr(), publisher.node.peer_id());
    follow(&addr, &line, length).await
}

/// Our follower, from go-libipni's Publisher.
async fn ours_from(publisher: &mut Go, one_way: Duration, length: u64) -> Result<Took> {
    let (line, addr) = publisher.line(one_way).await?;
    let before = publisher.served().await?;
    let mut took = follow(&addr, &line, length).await?;
    took.requests = Some(publisher.served().await? - before);
    Ok(took)
}

/// go-libipni's Subscriber, from its Publisher.
async fn theirs_from(publisher: &mut Go, program: &Path, one_way: Duration, length: u64) -> Result<Took> {
    let (line, addr) = publisher.line(one_way).await?;
    let flags = ["ipni-subscriber", "-topic", TOPIC, "-entries", "-quiet", "-deadline", "30m"];
    let mut subscriber = Go::start(program, &flags).await?;
    let before = publisher.served().await?;
    let begun = Instant::now();
    let synced = subscriber.ask(&format!("sync {addr}")).await?;
    let elapsed = begun.elapsed();
    let ads = synced.get("ads").and_then(Value::as_u64);
    ensure!(ads == Some(length), "{ads:?} advertisements were synced where there are {length}: {synced}");
    let usage = subscriber.ask("usage").await?;
    let peak_bytes = usage.get("peak_rss_bytes").and_then(Value::as_u64);
    let requests = Some(publisher.served().await? - before);
    Ok(Took { elapsed, requests, bytes: line.bytes_from_target(), peak_bytes })
}

/// A fresh daemon that follows the chain at `addr` until it is in sync.
async fn follow(addr: &str, line: &DelayProxy, length: u64) -> Result<Took> {
    let mut options = DaemonOptions::default();
    options.command_deadline = Some(PATIENCE);
    let mut follower = Daemon::start_with(options).await;
    let begun = Instant::now();
    let ask = json!({"target": addr, "wait": true});
    let follow = api_try_within(&follower, "ipni/follow", &ask, PATIENCE).await.map_err(anyhow::Error::msg)?;
    let elapsed = begun.elapsed();
    let seq = follow.get("latest_seq").and_then(Value::as_u64);
    ensure!(seq == Some(length), "in sync at {seq:?} where the chain has {length}: {follow}");
    let peak_bytes = follower.memory().map(|memory| memory.peak);
    follower.stop().await;
    Ok(Took { elapsed, requests: None, bytes: line.bytes_from_target(), peak_bytes })
}

/// A home in which `length` advertisements with entries have been published, all at once.
fn ad_chain_home(length: u64) -> Result<(TempDir, Keypair)> {
    /// Advertisements written together.
    const BATCH: u64 = 1024;
    let (home, key) = (nodes::home()?, Keypair::generate_ed25519());
    let store = Store::open(home.path().join("store"))?;
    let mut previous = None;
    for first in (0..length).step_by(BATCH as usize) {
        let ads = first..length.min(first + BATCH);
        previous = store.transaction(|batch| {
            for number in ads {
                let hash = |n: u64| HashCode::Sha2_256.digest(&(number * ENTRIES + n).to_le_bytes());
                let chunks = Chunks::new((0..ENTRIES).filter_map(hash), Codec::DagJson, ENTRIES as usize);
                let chunks = chunks.collect::<Result<Vec<_>, _>>()?;
                let entries = *chunks.last().context("a chunk")?.cid();
                let mut ad = Advertisement {
                    previous_id: previous,
                    provider: key.public().to_peer_id().to_string(),
                    addresses: vec!["/ip4/127.0.0.1/tcp/4101".to_owned()],
                    signature: Vec::new(),
                    entries,
                    context_id: number.to_le_bytes().to_vec(),
                    metadata: vec![0x80, 0x12],
                    is_rm: false,
                    extended_provider: None,
                };
                ad.sign(&key)?;
                batch.put_blocks(&chunks)?;
                previous = Some(batch.publish_ad(NETWORK, &ad.to_block(Codec::DagJson)?)?.head);
            }
            Ok::<_, anyhow::Error>(previous)
        })?;
    }
    store.sync()?;
    Ok((home, key))
}

/// A peer of go-libipni.
struct Go(Foreign);

impl Go {
    async fn start(program: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(args);
        Ok(Self(Foreign::start(format!("the Go peer `{}`", args.join(" ")), command).await))
    }

    async fn ask(&mut self, command: &str) -> Result<Value> {
        self.0.ask_within(command, PATIENCE).await.map_err(|error| anyhow::anyhow!("`{command}` failed: {error}"))
    }

    /// A line to its HTTP, and the address of that line with its peer id.
    async fn line(&self, one_way: Duration) -> Result<(DelayProxy, String)> {
        let addrs = self.0.ready().get("publisher").and_then(Value::as_array).context("no addresses")?;
        let http = addrs.iter().filter_map(Value::as_str).find(|addr| addr.contains("/http"));
        let port = http.and_then(|addr| addr.split('/').nth(4)).context("no address of HTTP")?;
        let line = DelayProxy::start(SocketAddr::from(([127, 0, 0, 1], port.parse()?)), one_way).await?;
        let addr = format!("{}/http/p2p/{}", line.multiaddr(), self.0.peer_id());
        Ok((line, addr))
    }

    /// How many blocks it was asked for.
    async fn served(&mut self) -> Result<u64> {
        let served = self.ask("served").await?;
        let blocks = served.get("blocks").and_then(Value::as_object).context("no counts")?;
        Ok(blocks.values().filter_map(Value::as_u64).sum())
    }
}

/// The program of the Go peers: named, or built.
async fn go_program() -> Result<PathBuf> {
    if let Some(program) = env::var_os(PROGRAM) {
        return Ok(program.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a workspace")?;
    let program = root.join("target/tmp/interop-go-bench");
    std::fs::create_dir_all(root.join("target/tmp"))?;
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(".").current_dir(root.join("tests/interop/go"));
    let status = match build.stdin(Stdio::null()).kill_on_drop(true).status().await {
        Ok(status) => status,
        Err(error) => {
            bail!("the ceiling is go-libipni's own pair, and `go` cannot be run: {error}; {PROGRAM} names it built")
        }
    };
    ensure!(status.success(), "`go build` in tests/interop/go ended with {status}");
    Ok(program)
}
