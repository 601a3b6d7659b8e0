//! A peer of go-libp2p: its program, built once a run, and a process of it that is told what to do.

use std::{
    env,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use dagmesh_tests::wait_for_some;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::OnceCell,
};

use crate::support::{SOON, addr_of};

/// What has to be set for these tests to run.
const SWITCH: &str = "DAGMESH_INTEROP";

/// How the peers name themselves to others.
pub(crate) const AGENT: &str = "dagmesh-interop-go";

static PROGRAM: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();

/// The program of the Go peers, up to date; `None` where this run is to do without, which is printed with the reason.
///
/// # Panics
/// When its modules are there and it does not build.
pub(crate) async fn program() -> Option<GoProgram> {
    match PROGRAM.get_or_init(build).await {
        Ok(path) => Some(GoProgram(path)),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

async fn build() -> Result<PathBuf, String> {
    if env::var_os(SWITCH).is_none_or(|value| value != "1") {
        return Err(format!("{SWITCH}=1 is not set; `just interop` runs the tests with peers that others wrote"));
    }
    let downloaded = go(&["mod", "download"]).await.map_err(|error| format!("there is no `go` here: {error}"))?;
    if !downloaded.status.success() {
        return Err(format!("the Go modules cannot be had: {}", String::from_utf8_lossy(&downloaded.stderr).trim()));
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("interop-go{}", env::consts::EXE_SUFFIX));
    let to = program.to_str().expect("a path of UTF-8");
    let built = go(&["build", "-o", to, "."]).await.expect("it was there a moment ago");
    assert!(built.status.success(), "`go build` failed:\n{}", String::from_utf8_lossy(&built.stderr));
    Ok(program)
}

async fn go(args: &[&str]) -> std::io::Result<Output> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/go");
    Command::new("go").args(args).current_dir(module).stdin(Stdio::null()).kill_on_drop(true).output().await
}

/// The built program.
#[derive(Clone, Copy)]
pub(crate) struct GoProgram(&'static Path);

impl GoProgram {
    /// Starts a peer: a subcommand (`host`, `gossip`, `dht`, `relay`, `autonat`, `ipni-publisher`, `ipni-subscriber`)
    /// and its flags. Returns once it listens.
    pub(crate) async fn start(self, args: &[&str]) -> GoPeer {
        let mut command = Command::new(self.0);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", self.0.display()));
        let input = child.stdin.take().expect("its input");
        let seen = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(read(BufReader::new(child.stdout.take().expect("its output")), Arc::clone(&seen)));
        let mut peer = GoPeer { args: args.join(" "), input, seen, ready: Value::Null, answers: 0, _child: child };
        peer.ready = peer.wait("ready", "a peer that listens", |_| true).await;
        peer
    }
}

async fn read(lines: BufReader<ChildStdout>, into: Arc<Mutex<Vec<Value>>>) {
    let mut lines = lines.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
        into.lock().expect("the events").push(event);
    }
}

/// A running peer of go-libp2p. It ends when this is dropped; a test that fails shows what it told.
pub(crate) struct GoPeer {
    args: String,
    input: ChildStdin,
    seen: Arc<Mutex<Vec<Value>>>,
    ready: Value,
    /// Commands that have been answered.
    answers: usize,
    _child: Child,
}

impl GoPeer {
    /// Its peer id.
    pub(crate) fn peer_id(&self) -> &str {
        self.ready["peer"].as_str().expect("a peer id")
    }

    /// Where it can be dialled over a transport (`tcp`, `quic-v1`, `ws`), with its peer id.
    pub(crate) fn addr(&self, transport: &str) -> String {
        let addrs = self.ready["addrs"].as_array().expect("addresses").iter().filter_map(Value::as_str);
        addr_of(addrs, transport)
    }

    /// Has a command carried out, and gives its result.
    ///
    /// # Panics
    /// When it fails, or is not answered in time.
    pub(crate) async fn ask(&mut self, command: &str) -> Value {
        self.try_ask(command).await.unwrap_or_else(|error| panic!("`{command}` failed: {error}"))
    }

    /// Has a command carried out, and gives its result or how it failed.
    ///
    /// # Panics
    /// When it is not answered in time.
    pub(crate) async fn try_ask(&mut self, command: &str) -> Result<Value, String> {
        self.input.write_all(format!("{command}\n").as_bytes()).await.expect("a peer that reads");
        let answered = self.answers;
        let is_answer = |event: &&Value| event["event"] == "done" || event["event"] == "failed";
        let answer = wait_for_some(SOON, &format!("an answer to `{command}`"), async || {
            let seen = self.seen.lock().expect("the events");
            seen.iter().filter(is_answer).nth(answered).cloned()
        })
        .await;
        self.answers += 1;
        assert_eq!(answer["command"], command, "answers come in order");
        if answer["event"] == "done" { Ok(answer["result"].clone()) } else { Err(answer["error"].to_string()) }
    }

    /// All events of this name so far.
    pub(crate) fn all(&self, event: &str) -> Vec<Value> {
        self.seen.lock().expect("the events").iter().filter(|seen| seen["event"] == event).cloned().collect()
    }

    /// Waits for an event of this name that `fits`, from the start on.
    ///
    /// # Panics
    /// When none comes in time.
    pub(crate) async fn wait(&self, event: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_for_some(SOON, what, async || self.all(event).into_iter().find(|event| fits(event))).await
    }

    /// Waits for an event of this name about a peer.
    pub(crate) async fn sees(&self, event: &str, peer: &str) -> Value {
        self.wait(event, &format!("a peer of Go that tells `{event}` of {peer}"), |event| event["peer"] == peer).await
    }
}

impl Drop for GoPeer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seen = self.seen.lock().expect("the events");
            let lines = seen.iter().fold(String::new(), |mut text, event| {
                let _ = write!(text, "\n    {event}");
                text
            });
            eprintln!("the Go peer `{}` told:{lines}", self.args);
        }
    }
}
