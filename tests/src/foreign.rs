//! A peer that others wrote: a process that is told by lines what to do, and tells by lines of JSON what happens.

use std::{
    fmt::Write as _,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{peer::SOON, wait_for_some};

/// A running peer. It ends when this is dropped; a test that fails shows what it told.
pub struct Foreign {
    what: String,
    input: ChildStdin,
    seen: Arc<Mutex<Vec<Value>>>,
    ready: Value,
    /// Commands that have been answered.
    answers: usize,
    _child: Child,
}

impl Foreign {
    /// Starts a program, `what` to those who read of it. Returns once it tells that it is ready.
    ///
    /// # Panics
    /// When it does not start, or is not ready in time.
    pub async fn start(what: String, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {what}: {error}"));
        let input = child.stdin.take().expect("its input");
        let seen = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(read(BufReader::new(child.stdout.take().expect("its output")), Arc::clone(&seen)));
        let mut peer = Self { what, input, seen, ready: Value::Null, answers: 0, _child: child };
        peer.ready = peer.wait("ready", "a peer that listens", |_| true).await;
        peer
    }

    /// Its peer id.
    pub fn peer_id(&self) -> &str {
        self.ready.get("peer").and_then(Value::as_str).expect("a peer id")
    }

    /// What it told when it was ready.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Where it can be dialled over a transport (`tcp`, `quic-v1`, `ws`), with its peer id.
    pub fn addr(&self, transport: &str) -> String {
        let addrs =
            self.ready.get("addrs").and_then(Value::as_array).expect("addresses").iter().filter_map(Value::as_str);
        addr_of(addrs, transport)
    }

    /// Has a command carried out, and gives its result.
    ///
    /// # Panics
    /// When it fails, or is not answered in time.
    pub async fn ask(&mut self, command: &str) -> Value {
        self.try_ask(command).await.unwrap_or_else(|error| panic!("`{command}` failed: {error}"))
    }

    /// Has a command carried out, and gives its result or how it failed.
    ///
    /// # Panics
    /// When it is not answered in time.
    pub async fn try_ask(&mut self, command: &str) -> Result<Value, String> {
        self.ask_within(command, SOON).await
    }

    /// The same, of what takes its time.
    ///
    /// # Panics
    /// When it is not answered in time.
    pub async fn ask_within(&mut self, command: &str, deadline: Duration) -> Result<Value, String> {
        self.input.write_all(format!("{command}\n").as_bytes()).await.expect("a peer that reads");
        let answered = self.answers;
        let is_answer = |event: &&Value| {
            event.get("event").is_some_and(|it| it == "done") || event.get("event").is_some_and(|it| it == "failed")
        };
        let answer = wait_for_some(deadline, &format!("an answer to `{command}`"), async || {
            let seen = self.seen.lock().expect("the events");
            seen.iter().filter(is_answer).nth(answered).cloned()
        })
        .await;
        self.answers += 1;
        assert_eq!(answer.get("command"), Some(&Value::from(command)), "answers come in order");
        if answer.get("event").is_some_and(|it| it == "done") {
            Ok(answer.get("result").cloned().unwrap_or_default())
        } else {
            Err(answer.get("error").map(Value::to_string).unwrap_or_default())
        }
    }

    /// All events of this name so far.
    pub fn all(&self, event: &str) -> Vec<Value> {
        self.seen
            .lock()
            .expect("the events")
            .iter()
            .filter(|seen| seen.get("event").is_some_and(|it| it == event))
            .cloned()
            .collect()
    }

    /// Waits for an event of this name that `fits`, from the start on.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn wait(&self, event: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_for_some(SOON, what, async || self.all(event).into_iter().find(|event| fits(event))).await
    }

    /// Waits for an event of this name about a peer.
    pub async fn sees(&self, event: &str, peer: &str) -> Value {
        let what = format!("{} that tells `{event}` of {peer}", self.what);
        self.wait(event, &what, |event| event.get("peer").is_some_and(|it| it == peer)).await
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seen = self.seen.lock().expect("the events");
            let lines = seen.iter().fold(String::new(), |mut text, event| {
                let _ = write!(text, "\n    {event}");
                text
            });
            eprintln!("{} told:{lines}", self.what);
        }
    }
}

async fn read(lines: BufReader<ChildStdout>, into: Arc<Mutex<Vec<Value>>>) {
    let mut lines = lines.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
        into.lock().expect("the events").push(event);
    }
}

/// The first address over a transport: `tcp` with nothing on top, `quic-v1` or `ws`.
pub fn addr_of<'a>(addrs: impl Iterator<Item = &'a str>, transport: &str) -> String {
    let is = |addr: &str, part: &str| addr.split('/').any(|it| it == part);
    let addrs: Vec<&str> = addrs.collect();
    let fits = |addr: &&&str| is(addr, transport) && (transport == "ws" || !is(addr, "ws"));
    let addr = addrs.iter().find(fits).unwrap_or_else(|| panic!("no {transport} address in {addrs:?}"));
    (*addr).to_owned()
}
