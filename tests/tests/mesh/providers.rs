//! Several providers: a publisher that is gone, followers that hold what it published, and one more that wants it.

use std::{net::SocketAddr, path::PathBuf};

use dagmesh_tests::{Daemon, DelayProxy, Line, assert_same_folder, edit_files, make_folder};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{SOON, Watch, assert_sound, daemon, free_port, in_sync_at, number, str_of, text, ticket};

/// What is fetched, and how fast each provider's line is: a sync takes two seconds over both.
const BYTES: u64 = 24 << 20;
const RATE: u64 = 6 << 20;

/// One that follows the publisher, and a line to it.
struct Holder {
    daemon: Daemon,
    proxy: DelayProxy,
}

impl Holder {
    /// Follows with these options, and is in sync at `seq`.
    async fn of(ticket: &str, options: &[&str], seq: u64) -> Self {
        let port = free_port();
        let daemon = daemon(&["--listen", &format!("/ip4/127.0.0.1/tcp/{port}")]).await;
        daemon.json(&[&["follow", ticket], options].concat()).await;
        in_sync_at(&daemon, seq).await;
        let line = Line { rate: Some(RATE), ..Line::default() };
        let proxy = DelayProxy::with_line(SocketAddr::from(([127, 0, 0, 1], port)), line).await.expect("a proxy");
        Self { daemon, proxy }
    }

    async fn connect(&self, from: &Daemon) {
        from.json(&["connect", &format!("{}/p2p/{}", self.proxy.multiaddr(), self.daemon.peer_id())]).await;
    }

    fn brought(&self, finished: &Value) -> u64 {
        let shares = finished["from"].as_array().expect("shares");
        let share = shares.iter().find(|share| str_of(share, "peer_id") == self.daemon.peer_id());
        share.map_or(0, |share| number(share, "bytes"))
    }
}

/// A publisher with a folder in its feed.
struct Source {
    publisher: Daemon,
    path: PathBuf,
    head: String,
    content: String,
    folder: TempDir,
}

impl Source {
    async fn start(bytes: u64) -> Self {
        let publisher = daemon(&[]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("source");
        make_folder(&path, 200, bytes, 23);
        let mut source = Self { publisher, path, head: String::new(), content: String::new(), folder };
        source.publish().await;
        source
    }

    async fn publish(&mut self) {
        let published = self.publisher.json(&["publish", text(&self.path), "--hidden"]).await;
        (self.head, self.content) = (str_of(&published, "head").to_owned(), str_of(&published, "content").to_owned());
    }

    /// The publisher goes for good. Its peer id is all that one more follower has.
    async fn gone(&mut self) -> String {
        self.publisher.kill9().await;
        self.publisher.peer_id().to_owned()
    }

    async fn assert_arrived_at(&self, daemon: &Daemon) {
        let copy = self.folder.path().join(format!("copy of {}", daemon.peer_id()));
        daemon.json(&["get", &self.content, "-o", text(&copy)]).await;
        assert_same_folder(&self.path, &copy);
        assert_sound(daemon).await;
    }
}

#[tokio::test]
async fn the_publisher_is_gone_and_its_head_comes_from_two_followers_at_once() {
    let mut source = Source::start(BYTES).await;
    let ticket = ticket(&source.publisher).await;
    let (one, other) = tokio::join!(Holder::of(&ticket, &[], 1), Holder::of(&ticket, &[], 1));
    let publisher = source.gone().await;
    let fourth = daemon(&[]).await;
    let watch = Watch::direct(&fourth).await;
    one.connect(&fourth).await;
    other.connect(&fourth).await;
    fourth.json(&["follow", &publisher]).await;
    let finished = watch.finished(&source.head).await;
    let bytes = number(&finished, "bytes");
    for holder in [&one, &other] {
        let brought = holder.brought(&finished);
        assert!(brought * 5 >= bytes, "both bring a good part: {finished}");
        assert!(holder.proxy.bytes_from_target() >= brought, "over its own line");
    }
    assert!(bytes <= BYTES + BYTES / 10, "hardly anything travels twice: {finished}");
    source.assert_arrived_at(&fourth).await;
}

#[tokio::test]
async fn what_one_follower_does_not_keep_comes_from_the_other() {
    let mut source = Source::start(BYTES / 2).await;
    let ticket = ticket(&source.publisher).await;
    edit_files(&source.path, 100, 5);
    source.publish().await;
    // It holds the chain and the newest content alone.
    let (poor, rich) = tokio::join!(Holder::of(&ticket, &["--keep", "1"], 2), Holder::of(&ticket, &[], 2));
    let publisher = source.gone().await;
    let fourth = daemon(&[]).await;
    let watch = Watch::direct(&fourth).await;
    poor.connect(&fourth).await;
    rich.connect(&fourth).await;
    fourth.json(&["follow", &publisher]).await;
    in_sync_at(&fourth, 2).await;
    let finished = watch.finished(&source.head).await;
    assert!(rich.brought(&finished) > 0, "{finished}");
    let moved: Vec<u64> = watch.all("latest_moved").iter().map(|event| number(event, "seq")).collect();
    assert_eq!(moved, [1, 2], "in the order of the feed");
    source.assert_arrived_at(&fourth).await;
}

#[tokio::test]
async fn one_follower_turns_slow_and_the_other_does_its_part() {
    let mut source = Source::start(BYTES).await;
    let ticket = ticket(&source.publisher).await;
    let (slow, steady) = tokio::join!(Holder::of(&ticket, &[], 1), Holder::of(&ticket, &[], 1));
    let publisher = source.gone().await;
    let fourth = daemon(&[]).await;
    let watch = Watch::direct(&fourth).await;
    slow.connect(&fourth).await;
    steady.connect(&fourth).await;
    fourth.json(&["follow", &publisher]).await;
    let begun = async || slow.proxy.bytes_from_target() > 1 << 20 && steady.proxy.bytes_from_target() > 1 << 20;
    dagmesh_tests::wait_for(SOON, "two that bring their parts", begun).await;
    // Above the minimum rate, so that no time-out ends it: half a megabyte would take it two minutes.
    slow.proxy.set_rate(Some(4 << 10));
    let finished = watch.finished(&source.head).await;
    assert!(steady.brought(&finished) > slow.brought(&finished), "{finished}");
    assert!(number(&finished, "duration_ms") < 60_000, "{finished}");
    source.assert_arrived_at(&fourth).await;
}

#[tokio::test]
async fn a_provider_that_is_behind_moves_nobody_backwards() {
    let mut source = Source::start(1 << 20).await;
    let ticket = ticket(&source.publisher).await;
    let (mut behind, mut ahead) = tokio::join!(Holder::of(&ticket, &[], 1), Holder::of(&ticket, &[], 1));
    behind.daemon.stop().await;
    let first = source.head.clone();
    edit_files(&source.path, 20, 6);
    source.publish().await;
    in_sync_at(&ahead.daemon, 2).await;
    ahead.daemon.stop().await;
    let publisher = source.gone().await;

    // One that knows nothing gets from it what it has.
    behind.daemon.restart().await;
    let mut fourth = daemon(&[]).await;
    behind.connect(&fourth).await;
    fourth.json(&["follow", &publisher]).await;
    assert_eq!(str_of(&in_sync_at(&fourth, 1).await, "latest"), first);
    behind.daemon.stop().await;
    // From one that is ahead of it, it gets the rest.
    ahead.daemon.restart().await;
    ahead.connect(&fourth).await;
    fourth.json(&["follow", &publisher]).await;
    assert_eq!(str_of(&in_sync_at(&fourth, 2).await, "latest"), source.head);
    ahead.daemon.stop().await;
    // With nobody but the first to ask it stays where it is; and the first is brought forward.
    fourth.restart().await;
    let watch = Watch::direct(&fourth).await;
    behind.daemon.restart().await;
    behind.connect(&fourth).await;
    fourth.json(&["follow", &publisher]).await;
    behind.daemon.json(&["follow", &publisher]).await;
    assert_eq!(str_of(&in_sync_at(&behind.daemon, 2).await, "latest"), source.head);
    assert_eq!(str_of(&in_sync_at(&fourth, 2).await, "latest"), source.head);
    assert_eq!(watch.all("latest_moved"), Vec::<Value>::new());
    assert_eq!(watch.all("sync_started"), Vec::<Value>::new());
    source.assert_arrived_at(&fourth).await;
}
