//! Daemons that are killed, or stopped, in the middle of their work.

mod cycles;
mod left;
mod resume;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use dagmesh_core::limits;
use dagmesh_tests::{Daemon, DelayProxy, Line, assert_same_folder, make_folder, wait_for};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{SOON, Watch, assert_sound, daemon, in_sync_at, number, str_of, text};

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
        Self::with(400, BYTES, RATE).await
    }

    async fn with(files: usize, bytes: u64, rate: u64) -> Self {
        let publisher = daemon(&["--listen", "/ip4/127.0.0.1/tcp/0"]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("source");
        make_folder(&source, files, bytes, 11);
        let published = publisher.json(&["publish", text(&source), "--hidden"]).await;
        let line = Line { rate: Some(rate), ..Line::default() };
        let proxy = DelayProxy::with_line(socket(&publisher), line).await.expect("a proxy");
        Self { publisher, published, proxy, source, folder }
    }

    /// Starts the publisher again. It listens elsewhere then, so that the line is the one way to it that is known.
    async fn restart_publisher(&mut self) {
        self.publisher.restart().await;
        self.proxy.set_target(socket(&self.publisher));
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

/// Where a daemon listens.
fn socket(daemon: &Daemon) -> SocketAddr {
    let addr = daemon.addr("tcp");
    let port = addr.split('/').nth(4).and_then(|port| port.parse().ok());
    SocketAddr::from(([127, 0, 0, 1], port.unwrap_or_else(|| panic!("no port in {addr}"))))
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

    slow.restart_publisher().await;
    in_sync_at(&follower, 1).await;
    let finished = watch.finished(str_of(&slow.published, "head")).await;
    assert_eq!(number(&finished, "bytes"), bytes - held, "exactly what was not stored: {finished}");
    slow.assert_arrived(&follower).await;
    assert_sound(&slow.publisher).await;
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

    slow.restart_publisher().await;
    follower.restart().await;
    for follower in [&follower, &other] {
        in_sync_at(follower, 1).await;
        slow.assert_arrived(follower).await;
    }
}
