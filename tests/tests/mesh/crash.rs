//! Daemons that are killed, or stopped, in the middle of their work.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use dagmesh_core::limits;
use dagmesh_tests::{Daemon, DelayProxy, Line, assert_same_folder, make_folder, wait_for};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::support::{
    SOON, Watch, api_connect, api_request, assert_sound, daemon, free_port, in_sync_at, number, seed, str_of, text,
};

/// What is synced while somebody is killed, and how fast: a few seconds' worth.
const BYTES: u64 = 32 << 20;
const RATE: u64 = 8 << 20;
/// When it is in the middle.
const MIDDLE: u64 = 12 << 20;

/// A publisher with a folder, and a line to it that is slow enough to be caught in the middle of a sync.
struct Slow {
    publisher: Daemon,
    published: Value,
    proxy: DelayProxy,
    source: PathBuf,
    folder: TempDir,
}

impl Slow {
    async fn start() -> Self {
        let port = free_port();
        let publisher = daemon(&["--listen", &format!("/ip4/127.0.0.1/tcp/{port}")]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("source");
        make_folder(&source, 400, BYTES, 11);
        let published = publisher.json(&["publish", text(&source), "--hidden"]).await;
        let line = Line { rate: Some(RATE), ..Line::default() };
        let proxy = DelayProxy::with_line(SocketAddr::from(([127, 0, 0, 1], port)), line).await.expect("a proxy");
        Self { publisher, published, proxy, source, folder }
    }

    /// Where the publisher is reached over the line.
    fn target(&self) -> String {
        format!("{}/p2p/{}", self.proxy.multiaddr(), self.publisher.peer_id())
    }

    async fn middle(&self) {
        let what = "the middle of a sync";
        wait_for(SOON, what, async || self.proxy.bytes_from_target() >= MIDDLE).await;
    }

    /// The bytes of all that is to travel.
    async fn bytes(&self) -> u64 {
        number(&self.publisher.json(&["repo", "stat"]).await, "bytes")
    }

    fn blocks(&self) -> u64 {
        number(&self.published, "blocks_added")
    }

    /// The follower has all of it.
    async fn assert_arrived(&self, follower: &Daemon) {
        let copy = self.folder.path().join("copy");
        follower.json(&["get", str_of(&self.published, "content"), "-o", text(&copy), "--overwrite"]).await;
        assert_same_folder(&self.source, &copy);
        assert_sound(follower).await;
    }
}

#[tokio::test]
async fn a_sync_goes_on_when_a_publisher_that_was_killed_comes_back() {
    let (mut slow, follower) = tokio::join!(Slow::start(), daemon(&[]));
    let bytes = slow.bytes().await;
    let watch = Watch::direct(&follower).await;
    follower.json(&["follow", &slow.target()]).await;
    slow.middle().await;
    slow.publisher.kill9().await;
    let failed = watch.wait("a sync that failed", |event| event["event"] == "sync_failed").await;
    assert!(failed["retry_in_ms"].is_u64() && !str_of(&failed, "reason").is_empty(), "{failed}");
    // The publisher is away, so nothing more comes.
    let held = number(&follower.json(&["repo", "stat"]).await, "bytes");
    assert!(held > 0, "what came was kept");

    slow.publisher.restart().await;
    in_sync_at(&follower, 1).await;
    let finished = watch.finished(str_of(&slow.published, "head")).await;
    assert_eq!(number(&finished, "bytes"), bytes - held, "exactly what was not stored: {finished}");
    slow.assert_arrived(&follower).await;
    assert_sound(&slow.publisher).await;
}

#[tokio::test]
async fn a_follower_that_was_killed_goes_on_and_fetches_no_stored_block_again() {
    let (mut slow, mut follower) = tokio::join!(Slow::start(), daemon(&[]));
    follower.json(&["follow", &slow.target()]).await;
    slow.middle().await;
    follower.kill9().await;
    let travelled = slow.proxy.bytes_from_target();
    let stat = follower.json(&["repo", "stat"]).await;
    // Bytes tell what travelled twice: a block that is empty may come more than once, as it is linked to more than once.
    let (held, bytes) = (number(&stat, "blocks"), number(&stat, "bytes"));
    let all = slow.bytes().await;
    // Lost may be what was not stored yet: a batch, and what was on its way through sockets and streams.
    let lost = travelled.saturating_sub(bytes);
    let bound = 2 * limits::STORE_BATCH_BYTES as u64 + 2 * limits::MAX_BLOCK_BYTES as u64;
    println!("killed after {travelled} bytes: {held} blocks with {bytes} bytes are stored, {lost} bytes lost");
    assert!(lost <= bound, "{lost} of {travelled} bytes are lost, {bound} may be");

    // The watcher has to be there before the sync goes on.
    assert!(slow.publisher.stop().await.success());
    follower.restart().await;
    let watch = Watch::direct(&follower).await;
    slow.publisher.restart().await;
    let finished = watch.finished(str_of(&slow.published, "head")).await;
    assert_eq!(number(&finished, "bytes"), all - bytes, "exactly what was not stored: {finished}");
    in_sync_at(&follower, 1).await;
    slow.assert_arrived(&follower).await;
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_sync_is_in_order_and_within_10_seconds() {
    let (mut slow, mut follower) = tokio::join!(Slow::start(), daemon(&[]));
    follower.json(&["follow", &slow.target()]).await;
    slow.middle().await;
    let begun = Instant::now();
    let status = follower.stop().await;
    println!("the follower stopped after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(limits::SHUTDOWN_SECS), "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0));
    let held = number(&follower.json(&["repo", "stat"]).await, "blocks");
    assert!(held > 0 && held < slow.blocks(), "it was in the middle: {held} of {}", slow.blocks());

    // One that has just come knows no other way to the publisher than the slow one.
    let other = daemon(&[]).await;
    let before = slow.proxy.bytes_from_target();
    other.json(&["follow", &slow.target()]).await;
    wait_for(SOON, "another sync's middle", async || slow.proxy.bytes_from_target() >= before + MIDDLE).await;
    let begun = Instant::now();
    let status = slow.publisher.stop().await;
    println!("the publisher stopped after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(limits::SHUTDOWN_SECS), "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0));

    slow.publisher.restart().await;
    follower.restart().await;
    for follower in [&follower, &other] {
        in_sync_at(follower, 1).await;
        slow.assert_arrived(follower).await;
    }
}

/// What a killed publisher has acknowledged, or shown as its head: by sequence number.
#[derive(Default)]
struct Told(BTreeMap<u64, String>);

impl Told {
    fn add(&mut self, value: &Value) {
        let (seq, head) = (number(value, "seq"), str_of(value, "head").to_owned());
        let before = self.0.insert(seq, head.clone());
        assert!(before.as_ref().is_none_or(|before| *before == head), "{seq} was {before:?}, and is {head} now");
    }

    fn newest(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(seq, _)| *seq)
    }
}

#[tokio::test]
async fn a_publisher_killed_at_any_moment_loses_no_entry_it_acknowledged_and_reuses_no_number() {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let folder = tempfile::tempdir().expect("a folder");
    let mut publisher = daemon(&[]).await;
    let mut told = Told::default();
    let mut n = 0;
    for cycle in 0..10 {
        // A random moment: from before the first entry is written to after many are.
        let moment = Duration::from_micros(u64::from(random.next_u32()) % 300_000);
        let publishing = async {
            loop {
                n += 1;
                let path = folder.path().join("file");
                std::fs::write(&path, format!("version {n}").repeat(n % 7 * 1000 + 1)).expect("a file");
                if let Some(published) = try_publish(&publisher, &json!({"content": {"path": path}})).await {
                    told.add(&published);
                }
            }
        };
        let _ = tokio::time::timeout(moment, publishing).await;
        publisher.kill9().await;
        let acknowledged = told.newest();
        assert_sound(&publisher).await;
        publisher.restart().await;
        if acknowledged == 0 && publisher.run(&["head"]).await.code == Some(4) {
            continue;
        }
        let head = publisher.json(&["head"]).await;
        println!("cycle {cycle}: killed after {moment:?}, {acknowledged} acknowledged, {} there", head["seq"]);
        assert!(number(&head, "seq") >= acknowledged, "entry {acknowledged} was acknowledged, and is lost: {head}");
        told.add(&head);
    }
    assert!(told.newest() >= 10, "there was something to lose: {}", told.newest());

    // From the head down to the first entry there is no gap, and each acknowledged entry stands at its number.
    let mut next = told.0.get(&told.newest()).cloned();
    let mut expected = told.newest();
    while let Some(cid) = next {
        let entry = publisher.json(&["dag", "get", &cid, "--format", "dag-json"]).await;
        assert_eq!(number(&entry, "seq"), expected, "{entry}");
        assert!(told.0.get(&expected).is_none_or(|told| *told == cid), "entry {expected} is {cid} now");
        next = entry["previous"]["/"].as_str().map(str::to_owned);
        expected -= 1;
    }
    assert_eq!(expected, 0, "the chain leads back to its first entry");
}

/// Publishes over the API; `None` where no acknowledgement came.
async fn try_publish(publisher: &Daemon, ask: &Value) -> Option<Value> {
    let mut stream = BufReader::new(api_connect(publisher).await);
    stream.write_all(api_request(publisher, "publish", &ask.to_string()).as_bytes()).await.ok()?;
    let mut lines = stream.lines();
    while let Some(line) = lines.next_line().await.ok()? {
        let value = serde_json::from_str::<Value>(&line).unwrap_or_default();
        if let Some(result) = value.get("result") {
            return Some(result.clone());
        }
        assert!(value.get("error").is_none(), "publishing failed: {line}");
    }
    None
}
