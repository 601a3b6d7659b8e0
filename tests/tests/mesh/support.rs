//! What the tests of this crate share: nodes in this process, events, the local API over a plain socket.

use std::{
    collections::HashMap,
    ops::Deref,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use cid::Cid;
use dagmesh::{
    Api, Node,
    api::{EventStream, ProgressSink},
    config::{Config, Profile},
    dag::{Block, Codec, Entry, FeedName, HashCode, SignedHead},
    dagsync::feed_sync::BlockHook,
    store::Store,
    ticket::Target,
    types::{Content, Event, Follow, FollowRequest, FollowState, PublishRequest, Published, TicketRequest},
};
use dagmesh_tests::{Daemon, DaemonOptions, wait_for_some};
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Child,
    task::JoinHandle,
};

/// How long anything may take that is certain to come: a debug build on a loaded machine, with room.
pub(crate) const SOON: Duration = Duration::from_secs(60);

// ---- Daemons ---------------------------------------------------------------------------------------------------

/// A daemon that logs enough to understand a failure.
pub(crate) async fn daemon(args: &[&str]) -> Daemon {
    Daemon::start_with(options(args)).await
}

/// The options of [`daemon`].
pub(crate) fn options(args: &[&str]) -> DaemonOptions {
    let mut options = DaemonOptions::default();
    options.args = args.iter().map(|&arg| arg.to_owned()).collect();
    options.env = vec![("DAGMESH_LOG__LEVEL".to_owned(), "debug".to_owned())];
    options
}

/// A port of loopback that was free a moment ago, for what has to come back where it was.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// The path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

/// The field as text.
#[track_caller]
pub(crate) fn str_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

/// The field as a number.
#[track_caller]
pub(crate) fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {value}"))
}

/// The ticket of a daemon's feed `main`.
pub(crate) async fn ticket(daemon: &Daemon) -> String {
    str_of(&daemon.json(&["ticket"]).await, "ticket").to_owned()
}

/// Waits until the one follow of `daemon` is in sync at entry `seq`.
pub(crate) async fn in_sync_at(daemon: &Daemon, seq: u64) -> Value {
    let mut last = Value::Null;
    wait_for_some(SOON, &format!("a follow that is in sync at {seq}"), async || {
        let follow = api_call(daemon, "follows", &json!({})).await[0].clone();
        if last != follow["state"] {
            println!("{follow}");
            last = follow["state"].clone();
        }
        (follow["state"] == "in_sync" && follow["latest_seq"] == seq).then_some(follow)
    })
    .await
}

/// Asserts that each block of a stopped or running daemon's store matches its CID and nothing is missing.
pub(crate) async fn assert_sound(daemon: &Daemon) {
    let report = daemon.json(&["repo", "verify"]).await;
    assert!(number(&report, "checked") > 0, "{report}");
    assert_eq!((number(&report, "damaged"), number(&report, "missing")), (0, 0), "{report}");
}

/// A connection with the daemon's API that speaks HTTP/1.0, so that the body ends with the connection.
pub(crate) async fn api_connect(daemon: &Daemon) -> TcpStream {
    TcpStream::connect(daemon.api()).await.expect("the daemon's API")
}

/// Sends `request` as it stands; the status and the body of what comes back.
pub(crate) async fn api_raw(daemon: &Daemon, request: &[u8]) -> (u16, String) {
    let talking = async {
        let mut stream = api_connect(daemon).await;
        stream.write_all(request).await.expect("sent");
        let mut answer = Vec::new();
        // A connection that is reset after the answer has come is fine.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(SOON, talking).await.expect("an answer of the API in time");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// A request to the daemon's API with its token.
pub(crate) fn api_request(daemon: &Daemon, command: &str, body: &str) -> String {
    let token = std::fs::read_to_string(daemon.home().join("api.token")).expect("the token of the API");
    format!(
        "POST /api/v1/{command} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        daemon.api(),
        token.trim(),
        body.len()
    )
}

/// The result of a command, asked of the API itself: a process less than [`Daemon::json`].
pub(crate) async fn api_call(daemon: &Daemon, command: &str, ask: &Value) -> Value {
    api_try(daemon, command, ask).await.unwrap_or_else(|error| panic!("{command} {ask} failed: {error}"))
}

/// What a command came to, asked of the API itself: its result, or what was answered instead.
pub(crate) async fn api_try(daemon: &Daemon, command: &str, ask: &Value) -> Result<Value, String> {
    let (status, body) = api_raw(daemon, api_request(daemon, command, &ask.to_string()).as_bytes()).await;
    let last = body.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok()).unwrap_or_default();
    match last.get("result") {
        Some(result) if status == 200 => Ok(result.clone()),
        _ => Err(format!("{status}: {body}")),
    }
}

// ---- Watching a daemon -----------------------------------------------------------------------------------------

/// What a daemon tells to whoever watches, from the moment this exists.
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<Value>>>,
    reading: JoinHandle<()>,
    _child: Option<Child>,
}

impl Watch {
    /// Runs `dagmesh watch --json`. Returns once it is shown to hear what happens.
    pub(crate) async fn start(daemon: &Daemon) -> Self {
        let mut command = daemon.command();
        command.arg("--home").arg(daemon.home()).args(["--json", "watch"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a watcher");
        let watch = Self::read(BufReader::new(child.stdout.take().expect("its output")), Some(child));
        // It does not say when it begins to hear. So something is made to happen until it is heard.
        let block = api_call(daemon, "dag/put", &json!({"input": "raw", "codec": "raw", "data": "cHJvYmU="})).await;
        let probe = json!({"content": {"cid": block["cid"]}, "feed": "probe", "no_announce": true});
        wait_for_some(SOON, "a watcher that hears", async || {
            api_call(daemon, "publish", &probe).await;
            watch.all("published").first().map(|_| ())
        })
        .await;
        watch
    }

    /// Watches over the API itself; it hears from the moment this returns.
    pub(crate) async fn direct(daemon: &Daemon) -> Self {
        let mut stream = BufReader::new(api_connect(daemon).await);
        stream.write_all(api_request(daemon, "watch", "{}").as_bytes()).await.expect("sent");
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(stream.read_line(&mut line).await.expect("the head of the answer") > 0, "watch was not answered");
        }
        Self::read(stream, None)
    }

    fn read(lines: impl AsyncBufRead + Unpin + Send + 'static, child: Option<Child>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let reading = tokio::spawn(async move {
            let mut lines = lines.lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(event) = serde_json::from_str::<Value>(&line) {
                    into.lock().expect("the events").push(event);
                }
            }
        });
        Self { seen, reading, _child: child }
    }

    /// All that a daemon, which has ended, has told.
    pub(crate) async fn end(self) -> Vec<Value> {
        tokio::time::timeout(SOON, self.reading).await.expect("the end of what it told").expect("a reader");
        std::mem::take(&mut *self.seen.lock().expect("the events"))
    }

    /// All events of this name so far.
    pub(crate) fn all(&self, event: &str) -> Vec<Value> {
        self.seen.lock().expect("the events").iter().filter(|seen| seen["event"] == event).cloned().collect()
    }

    /// Waits for an event that `fits`.
    pub(crate) async fn wait(&self, what: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let mut from = 0;
        wait_for_some(SOON, what, async || {
            let seen = self.seen.lock().expect("the events");
            let found = seen.iter().skip(from).find(|event| fits(event)).cloned();
            from = seen.len();
            found
        })
        .await
    }

    /// Waits for the end of the sync with `head`.
    pub(crate) async fn finished(&self, head: &str) -> Value {
        let ends = |event: &Value| event["event"] == "sync_finished" && event["head"] == head;
        self.wait(&format!("the end of the sync with {head}"), ends).await
    }
}

// ---- Nodes in this process -------------------------------------------------------------------------------------

/// A node in this process, with a home that goes when it does.
pub(crate) struct Peer {
    node: Node,
    home: Arc<TempDir>,
}

impl Deref for Peer {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

/// How a [`Peer`] is started.
#[derive(Default)]
pub(crate) struct PeerOptions {
    pub(crate) home: Option<Arc<TempDir>>,
    pub(crate) key: Option<Keypair>,
    pub(crate) tcp_only: bool,
    pub(crate) network: Option<&'static str>,
    pub(crate) republish: bool,
    pub(crate) allow: Vec<PeerId>,
    pub(crate) max_syncs: Option<usize>,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        Self::with(PeerOptions::default()).await
    }

    pub(crate) async fn with(options: PeerOptions) -> Self {
        Self::launch(options, None::<fn(&Block, bool) -> dagmesh::dagsync::Flow>).await
    }

    /// A node whose every sync is seen by `hook`.
    pub(crate) async fn hooked(hook: impl BlockHook) -> Self {
        Self::launch(PeerOptions::default(), Some(hook)).await
    }

    pub(crate) async fn launch(options: PeerOptions, hook: Option<impl BlockHook>) -> Self {
        logs();
        let home = options.home.unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a home")));
        let mut config = Config::of_profile(Profile::Test);
        if options.tcp_only {
            config.swarm.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
        }
        config.sync.republish = options.republish;
        config.sync.allow = options.allow;
        config.sync.max_syncs = options.max_syncs.unwrap_or(config.sync.max_syncs);
        if let Some(network) = options.network {
            config.swarm.network = network.to_owned();
        }
        let mut builder = Node::builder().home(home.path()).config(config);
        if let Some(key) = options.key {
            builder = builder.key(key);
        }
        if let Some(hook) = hook {
            builder = builder.block_hook(hook);
        }
        Self { node: builder.start().await.expect("a node"), home }
    }

    /// A new node on the home of this one, which is to be shut down.
    pub(crate) async fn again(self) -> Self {
        Self::with(PeerOptions { home: Some(self.into_home()), ..PeerOptions::default() }).await
    }

    /// The home of this one, which is to be shut down.
    pub(crate) fn into_home(self) -> Arc<TempDir> {
        self.home
    }

    /// A file or folder of the test's own, beside what the node keeps.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("test-files").join(name)
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// Publishes a file of its own with this content.
    pub(crate) async fn publish_text(&self, content: &str) -> Published {
        let path = self.write("published", content);
        self.node.publish(PublishRequest::new(Content::Path(path)), ProgressSink::none()).await.expect("published")
    }

    /// Publishes `count` files, one an entry, each with another content; the newest entry.
    pub(crate) async fn publish_many(&self, count: usize, mark: &str) -> Published {
        let mut last = None;
        for n in 0..count {
            last = Some(self.publish_text(&format!("{mark} {n}")).await);
        }
        last.expect("an entry")
    }

    /// What leads to its feed `main`.
    pub(crate) async fn target(&self) -> Target {
        self.node.ticket(TicketRequest::default()).await.expect("a ticket").ticket.parse().expect("a target")
    }

    /// Its address over TCP, with its peer id.
    pub(crate) async fn tcp_addr(&self) -> Multiaddr {
        let addrs = self.node.addrs().await.expect("addresses");
        let tcp = |addr: &&Multiaddr| addr.to_string().contains("/tcp/") && !addr.to_string().contains("/ws");
        addrs.iter().find(tcp).expect("an address over TCP").clone()
    }

    /// Follows, and waits until that is in sync.
    pub(crate) async fn follow_wait(&self, request: FollowRequest) -> Follow {
        let follow = self.node.follow(FollowRequest { wait: true, ..request }, ProgressSink::none());
        tokio::time::timeout(SOON, follow).await.expect("in sync in time").expect("in sync")
    }

    /// How it stands with a publisher's feed `main`.
    pub(crate) async fn standing(&self, publisher: PeerId) -> Option<Follow> {
        let follows = self.node.follows().await.expect("follows");
        follows.into_iter().find(|follow| follow.publisher == publisher && follow.feed == FeedName::default())
    }

    /// Waits until it is in sync with `publisher` at `seq`.
    pub(crate) async fn in_sync_at(&self, publisher: PeerId, seq: u64) -> Follow {
        let mut last = None;
        wait_for_some(SOON, &format!("{publisher} in sync at {seq}"), async || {
            let follow = self.standing(publisher).await?;
            if last != Some(follow.state) {
                println!("{follow:?}");
                last = Some(follow.state);
            }
            Some(follow).filter(|follow| follow.state == FollowState::InSync && follow.latest_seq == Some(seq))
        })
        .await
    }

    /// Whether it holds this block.
    pub(crate) fn holds(&self, cid: &Cid) -> bool {
        self.node.blockstore().has(cid).expect("a look into the store")
    }

    /// The events from now on.
    pub(crate) async fn events(&self) -> Events {
        Events { stream: self.node.watch().await.expect("events"), seen: Vec::new() }
    }

    /// The entries of `publisher`'s chain that it holds, from `head` down.
    pub(crate) fn chain(&self, head: Cid) -> Vec<(Cid, Entry)> {
        let (store, mut next, mut chain) = (self.node.blockstore(), Some(head), Vec::new());
        while let Some(cid) = next
            && let Some(block) = store.block(&cid).expect("a look into the store")
        {
            let entry = Entry::from_block(&block).expect("an entry");
            next = entry.previous;
            chain.push((cid, entry));
        }
        chain
    }
}

/// The events of a node in this process.
pub(crate) struct Events {
    stream: EventStream,
    /// All that have been read.
    pub(crate) seen: Vec<Event>,
}

impl Events {
    /// Reads on until an event `fits`, and gives it.
    pub(crate) async fn until(&mut self, what: &str, mut fits: impl FnMut(&Event) -> bool) -> Event {
        let reading = async {
            loop {
                let event = self.stream.next().await.expect("a node that runs");
                self.seen.push(event.clone());
                if fits(&event) {
                    return event;
                }
            }
        };
        match tokio::time::timeout(SOON, reading).await {
            Ok(event) => event,
            Err(_) => panic!("waited in vain for {what}; there were {:#?}", self.seen),
        }
    }

    /// Reads on until the sync with `head` is done: entries, blocks, bytes, and how long it took.
    pub(crate) async fn finished(&mut self, of: Cid) -> (u64, u64, u64, Duration) {
        let what = format!("the end of the sync with {of}");
        match self.until(&what, |event| matches!(event, Event::SyncFinished { head, .. } if *head == of)).await {
            Event::SyncFinished { count, blocks, bytes, duration_ms, .. } => {
                (count, blocks, bytes, Duration::from_millis(duration_ms))
            }
            _ => unreachable!("it fits"),
        }
    }

    /// The heads of the syncs that began so far.
    pub(crate) fn started(&self) -> Vec<Cid> {
        let head = |event: &Event| match event {
            Event::SyncStarted { head, .. } => Some(*head),
            _ => None,
        };
        self.seen.iter().filter_map(head).collect()
    }

    /// The sequence numbers that `latest` moved over so far.
    pub(crate) fn latest(&self) -> Vec<u64> {
        let seq = |event: &Event| match event {
            Event::LatestMoved { seq, .. } => Some(*seq),
            _ => None,
        };
        self.seen.iter().filter_map(seq).collect()
    }
}

/// A publisher's home with a chain of `entries` entries, each with a content of its own, written in one transaction:
/// to publish them one by one costs a sync of the disk each. Gives the key, the home, and the CIDs of the entries by
/// their number, from 1 on (0 is unused).
pub(crate) fn long_chain(entries: u64) -> (Keypair, Arc<TempDir>, Vec<Cid>) {
    let (key, home) = (Keypair::generate_ed25519(), Arc::new(tempfile::tempdir().expect("a home")));
    let store = Store::open(home.path().join("store")).expect("a store");
    let (feed, mut cids) = (FeedName::default(), vec![Cid::default()]);
    store
        .transaction(|batch| {
            let mut previous = None;
            for seq in 1..=entries {
                let data = format!("content {seq}").into_bytes();
                let content = Block::new(Codec::Raw, HashCode::Sha2_256, data).expect("a block");
                let entry = Entry { previous, seq, time: seq, content: *content.cid(), meta: None };
                let block = entry.to_block().expect("an entry");
                let head = SignedHead::sign(&key, &feed, *block.cid(), seq, seq).expect("a head");
                batch.put_blocks(&[content])?;
                batch.publish_entry(&block, &head)?;
                previous = Some(*block.cid());
                cids.push(*block.cid());
            }
            Ok::<_, dagmesh::store::Error>(())
        })
        .expect("a chain");
    (key, home, cids)
}

/// Counts how often each thing occurs.
pub(crate) fn counted<T: std::hash::Hash + Eq>(things: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}

/// The seed of this run, printed so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("DAGMESH_TEST_SEED") {
        Ok(seed) => seed.parse().expect("DAGMESH_TEST_SEED is a number"),
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
            now.as_nanos() as u64
        }
    };
    println!("DAGMESH_TEST_SEED={seed}");
    seed
}

/// What nodes in this process log is shown with the test that fails.
fn logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::new("warn,dagmesh=debug");
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
    });
}
