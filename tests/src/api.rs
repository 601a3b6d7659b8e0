//! A daemon's API over a plain socket, and what the daemon tells to whoever watches.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Child,
    task::JoinHandle,
};

use crate::{Daemon, peer::SOON, wait_for_some};

/// A connection with the daemon's API that speaks HTTP/1.0, so that the body ends with the connection.
pub async fn api_connect(daemon: &Daemon) -> TcpStream {
    TcpStream::connect(daemon.api()).await.expect("the daemon's API")
}

/// Sends `request` as it stands; the status and the body of what comes back.
pub async fn api_raw(daemon: &Daemon, request: &[u8]) -> (u16, String) {
    raw_within(daemon, request, SOON).await
}

async fn raw_within(daemon: &Daemon, request: &[u8], deadline: Duration) -> (u16, String) {
    let talking = async {
        let mut stream = api_connect(daemon).await;
        stream.write_all(request).await.expect("sent");
        let mut answer = Vec::new();
        // A connection that is reset after the answer has come is fine.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(deadline, talking).await.expect("an answer of the API in time");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// A request to the daemon's API with its token.
pub fn api_request(daemon: &Daemon, command: &str, body: &str) -> String {
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
pub async fn api_call(daemon: &Daemon, command: &str, ask: &Value) -> Value {
    api_try(daemon, command, ask).await.unwrap_or_else(|error| panic!("{command} {ask} failed: {error}"))
}

/// What a command came to, asked of the API itself: its result, or what was answered instead.
pub async fn api_try(daemon: &Daemon, command: &str, ask: &Value) -> Result<Value, String> {
    api_try_within(daemon, command, ask, SOON).await
}

/// The same, of what takes its time.
pub async fn api_try_within(daemon: &Daemon, command: &str, ask: &Value, deadline: Duration) -> Result<Value, String> {
    let (status, body) = raw_within(daemon, api_request(daemon, command, &ask.to_string()).as_bytes(), deadline).await;
    let last = body.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok()).unwrap_or_default();
    match last.get("result") {
        Some(result) if status == 200 => Ok(result.clone()),
        _ => Err(format!("{status}: {body}")),
    }
}

/// What a daemon tells to whoever watches, from the moment this exists.
pub struct Watch {
    seen: Arc<Mutex<Vec<Value>>>,
    reading: JoinHandle<()>,
    _child: Option<Child>,
}

impl Watch {
    /// Runs `dagmesh watch --json`. Returns once it is shown to hear what happens.
    pub async fn start(daemon: &Daemon) -> Self {
        let mut command = daemon.command();
        command.arg("--home").arg(daemon.home()).args(["--json", "watch"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a watcher");
        let watch = Self::read(BufReader::new(child.stdout.take().expect("its output")), Some(child));
        // It does not say when it begins to hear. So something is made to happen until it is heard.
        let block = api_call(daemon, "dag/put", &json!({"input": "raw", "codec": "raw", "data": "cHJvYmU="})).await;
        let probe = json!({"content": {"cid": block.get("cid")}, "feed": "probe", "no_announce": true});
        wait_for_some(SOON, "a watcher that hears", async || {
            api_call(daemon, "publish", &probe).await;
            watch.all("published").first().map(|_| ())
        })
        .await;
        watch
    }

    /// Watches over the API itself; it hears from the moment this returns.
    pub async fn direct(daemon: &Daemon) -> Self {
        Self::of(daemon, "watch", &json!({})).await
    }

    /// The same with what another command answers line by line.
    pub async fn of(daemon: &Daemon, command: &str, ask: &Value) -> Self {
        let mut stream = BufReader::new(api_connect(daemon).await);
        stream.write_all(api_request(daemon, command, &ask.to_string()).as_bytes()).await.expect("sent");
        let mut line = String::new();
        while line != "\r\n" {
            let first = line.is_empty();
            line.clear();
            assert!(
                stream.read_line(&mut line).await.expect("the head of the answer") > 0,
                "{command} was not answered"
            );
            assert!(!first || line.contains(" 200 "), "{command} {ask} was answered with {line}");
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
    pub async fn end(self) -> Vec<Value> {
        tokio::time::timeout(SOON, self.reading).await.expect("the end of what it told").expect("a reader");
        std::mem::take(&mut *self.seen.lock().expect("the events"))
    }

    /// All events of this name so far.
    pub fn all(&self, event: &str) -> Vec<Value> {
        self.seen.lock().expect("the events").iter().filter(|seen| is(seen, "event", event)).cloned().collect()
    }

    /// Waits for an event that `fits`.
    pub async fn wait(&self, what: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
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
    pub async fn finished(&self, head: &str) -> Value {
        let ends = |event: &Value| is(event, "event", "sync_finished") && is(event, "head", head);
        self.wait(&format!("the end of the sync with {head}"), ends).await
    }
}

fn is(event: &Value, field: &str, text: &str) -> bool {
    event.get(field).is_some_and(|value| value == text)
}
