//! What the tests of this crate share: daemons and their events, the local API over a plain socket.

use std::{
    collections::HashMap,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use dagmesh_tests::{Daemon, DaemonOptions, wait_for_some};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Child,
    task::JoinHandle,
};

pub(crate) use dagmesh_tests::peer::{Peer, PeerOptions, SOON, long_chain};

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

/// A port of loopback for what has to come back where it was: free, given out once, and below those that the system
/// gives away by itself (Linux: 32,768 and up, other systems higher), so that nobody else's connection takes it between.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).expect("below 10,000");
    (0..10_000)
        .map(|_| 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000) % 10_000)
        .find(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
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
