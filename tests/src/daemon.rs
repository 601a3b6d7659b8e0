//! A real `dagmesh daemon` process, and the command line that talks to it.

use std::{
    env, fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

mod binary;
mod memory;

pub use binary::dagmesh_binary;
pub use memory::Memory;

/// How long a daemon may take until it is ready: a debug build on a loaded machine, with room.
const READY: Duration = Duration::from_secs(60);
/// How long a daemon may take to stop: its own bound (10 s) and some.
const STOP: Duration = Duration::from_secs(30);
/// How long one command may take, unless [`DaemonOptions::command_deadline`] says otherwise.
const COMMAND: Duration = Duration::from_secs(120);
/// How much of the daemon's stderr a panic shows, in lines.
const TAIL_LINES: usize = 40;

/// How a daemon is started. The default has a new home, and no argument beyond those that every daemon gets.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DaemonOptions {
    /// Arguments for `dagmesh daemon`, after `--json --profile test --home HOME --api 127.0.0.1:0`.
    pub args: Vec<String>,
    /// Another profile than `test`.
    pub profile: Option<&'static str>,
    /// Environment of the daemon and of its commands. What starts with `DAGMESH_` is not inherited.
    pub env: Vec<(String, String)>,
    /// A home that exists, or is to be made there, and outlives the daemon. `None` for a temporary one.
    pub home: Option<PathBuf>,
    /// How long one command may take. `None` for 120 s.
    pub command_deadline: Option<Duration>,
    /// Another binary than [`dagmesh_binary`].
    pub binary: Option<PathBuf>,
}

/// A `dagmesh daemon` process of its own, on loopback, with a home of its own.
///
/// Dropping it kills the process; a temporary home goes with the last handle to it. Needs a tokio runtime.
#[derive(Debug)]
pub struct Daemon {
    options: DaemonOptions,
    binary: PathBuf,
    home: PathBuf,
    /// Holds the log, and the home unless the caller named one.
    folder: Arc<TempDir>,
    ready: Ready,
    child: Option<Child>,
}

/// What the ready line said.
#[derive(Debug, Clone, Default)]
struct Ready {
    line: Value,
    peer_id: String,
    listen: Vec<String>,
    api: String,
}

/// What a command of the command line came to.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output, as it stands.
    pub stdout: String,
    /// Its standard error, as it stands.
    pub stderr: String,
    /// The JSON values of its standard output, in order; empty where that is no JSON throughout.
    pub values: Vec<Value>,
    /// The command, for messages.
    pub command: String,
}

impl Output {
    /// The one JSON value that the command printed.
    ///
    /// # Panics
    /// When the command failed, or printed anything else than one value.
    #[track_caller]
    pub fn json(&self) -> &Value {
        self.assert_code(0);
        match self.values.as_slice() {
            [value] => value,
            _ => panic!("one JSON value expected of {self}"),
        }
    }

    /// Asserts how the command ended.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert!(self.code == Some(code), "exit code {code} expected of {self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  code: {:?}\n  stdout: {}\n  stderr: {}", self.command, self.code, self.stdout, self.stderr)
    }
}

impl Daemon {
    /// Starts a daemon with a new home and the profile `test`, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends, or is not ready within 60 s; with the end of its stderr.
    pub async fn start() -> Self {
        Self::start_with(DaemonOptions::default()).await
    }

    /// Starts a daemon with further arguments (`&["--bootstrap", addr]`); else as [`start`](Self::start).
    pub async fn start_args(args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self::start_with(DaemonOptions { args, ..DaemonOptions::default() }).await
    }

    /// Starts a daemon as `options` say; else as [`start`](Self::start).
    pub async fn start_with(options: DaemonOptions) -> Self {
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None => dagmesh_binary().await,
        };
        let folder = tempfile::Builder::new().prefix("dagmesh-test-").tempdir().expect("a temporary folder");
        let home = options.home.clone().unwrap_or_else(|| folder.path().join("home"));
        fs::create_dir_all(&home).unwrap_or_else(|error| panic!("making the home {}: {error}", home.display()));
        let ready = Ready::default();
        let mut daemon = Self { options, binary, home, folder: Arc::new(folder), ready, child: None };
        daemon.launch().await;
        daemon
    }

    /// Starts the process again on the same home, after [`stop`](Self::stop) or [`kill9`](Self::kill9), or kills it
    /// first. The peer id stays, ports change.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) {
        self.kill9().await;
        self.launch().await;
    }

    /// Starts the process again as [`restart`](Self::restart) does, and kills it with SIGKILL once `moment` has passed,
    /// wherever its start is by then. Whether it had become ready.
    ///
    /// # Panics
    /// When it ends by itself.
    pub async fn restart_killed_after(&mut self, moment: Duration) -> bool {
        self.kill9().await;
        let stdout = self.spawn();
        let was_ready = match timeout(moment, ready_line(stdout)).await {
            Ok(Ok(_)) => true,
            Ok(Err(why)) => panic!("no ready line: {why}{}", self.stderr_tail()),
            Err(_) => false,
        };
        self.kill9().await;
        was_ready
    }

    /// Kills the process with SIGKILL and waits for its end. Does nothing where it runs no more.
    pub async fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap_or_else(|error| panic!("killing {}: {error}", self.binary.display()));
        }
    }

    /// Asks the process to stop (SIGTERM) and waits for its end.
    ///
    /// # Panics
    /// When it runs no more, or has not ended within 30 s.
    pub async fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running daemon to stop");
        // The child is not waited for yet, so its id is its own.
        let id = child.id().expect("the id of a running process").to_string();
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id]).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "sending SIGTERM to process {id}");
        match timeout(STOP, child.wait()).await {
            Ok(status) => status.expect("the status of a child"),
            Err(_) => panic!("still running {} s after SIGTERM{}", STOP.as_secs(), self.stderr_tail()),
        }
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The daemon's peer id.
    pub fn peer_id(&self) -> &str {
        &self.ready.peer_id
    }

    /// The multiaddrs it listens on, as it printed them.
    pub fn listen(&self) -> &[String] {
        &self.ready.listen
    }

    /// One multiaddr of the given transport (`"tcp"`, `"quic-v1"`) to dial it at, with its peer id.
    ///
    /// # Panics
    /// When it listens on none.
    pub fn addr(&self, transport: &str) -> String {
        let fits = |addr: &&String| addr.split('/').any(|part| part == transport) && !addr.contains("/ws");
        let addr = self.ready.listen.iter().find(fits);
        let addr = addr.unwrap_or_else(|| panic!("no {transport} address in {:?}", self.ready.listen));
        if addr.contains("/p2p/") { addr.clone() } else { format!("{addr}/p2p/{}", self.ready.peer_id) }
    }

    /// Where its local API listens.
    pub fn api(&self) -> &str {
        &self.ready.api
    }

    /// The whole ready line.
    pub fn ready_line(&self) -> &Value {
        &self.ready.line
    }

    /// Its home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs `dagmesh --home HOME --json ARGS...` to its end, whatever that is. With `--` and the like, `args` are the
    /// command's own.
    ///
    /// # Panics
    /// When it cannot be started, or has not ended by its deadline; with the end of the daemon's stderr.
    pub async fn run(&self, args: &[&str]) -> Output {
        let deadline = self.options.command_deadline.unwrap_or(COMMAND);
        let mut command = self.command();
        command.arg("--home").arg(&self.home).arg("--json").args(args).stdin(Stdio::null());
        let words = format!("dagmesh {}", args.join(" "));
        let output = match timeout(deadline, command.output()).await {
            Ok(output) => output.unwrap_or_else(|error| panic!("starting `{words}`: {error}")),
            Err(_) => panic!("`{words}` has not ended after {} s{}", deadline.as_secs(), self.stderr_tail()),
        };
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let values = serde_json::Deserializer::from_str(&stdout).into_iter().collect::<Result<_, _>>();
        Output {
            code: output.status.code(),
            values: values.unwrap_or_default(),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            command: words,
        }
    }

    /// Runs a command that must succeed, and gives the one JSON value it prints.
    ///
    /// # Panics
    /// As [`run`](Self::run) and [`Output::json`]; with the end of the daemon's stderr.
    pub async fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args).await;
        if output.code != Some(0) {
            panic!("exit code 0 expected of {output}{}", self.stderr_tail());
        }
        output.json().clone()
    }

    /// A command of the same binary and environment, killed on drop, for what [`run`](Self::run) does not cover: a
    /// command that streams (`watch`), is to be killed, or has another home. Give it its own `--home` and `--json`.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        for (key, _) in env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("DAGMESH_")) {
            command.env_remove(key);
        }
        command.envs(self.options.env.iter().map(|(key, value)| (key, value))).kill_on_drop(true);
        command
    }

    /// All that the daemon has written to stderr, over all its starts.
    pub fn stderr(&self) -> String {
        match fs::read(self.log()) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => panic!("reading {}: {error}", self.log().display()),
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    /// The end of the log, for the end of a message.
    fn stderr_tail(&self) -> String {
        let all = self.stderr();
        let lines: Vec<&str> = all.lines().collect();
        let tail = lines.iter().skip(lines.len().saturating_sub(TAIL_LINES));
        let tail: Vec<String> = tail.map(|line| format!("\n    {line}")).collect();
        format!("\n  the daemon's stderr, its last {TAIL_LINES} lines:{}", tail.concat())
    }

    async fn launch(&mut self) {
        let stdout = self.spawn();
        match timeout(READY, ready_line(stdout)).await {
            Ok(Ok(ready)) => self.ready = ready,
            Ok(Err(why)) => panic!("no ready line: {why}{}", self.stderr_tail()),
            Err(_) => panic!("no ready line after {} s{}", READY.as_secs(), self.stderr_tail()),
        }
    }

    /// Starts the process; what it prints.
    fn spawn(&mut self) -> BufReader<ChildStdout> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log");
        let mut command = self.command();
        let profile = self.options.profile.unwrap_or("test");
        command.args(["daemon", "--json", "--profile", profile, "--home"]).arg(&self.home);
        command.args(["--api", "127.0.0.1:0"]).args(&self.options.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", self.binary.display()));
        let stdout = BufReader::new(child.stdout.take().expect("the child's stdout"));
        self.child = Some(child);
        stdout
    }
}

/// A test that fails shows what its daemons had to say.
impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("daemon {} in {}{}", self.ready.peer_id, self.home.display(), self.stderr_tail());
        }
    }
}

/// Reads up to the ready line, then goes on reading in the background, so that the daemon never waits for us.
async fn ready_line(mut stdout: BufReader<ChildStdout>) -> Result<Ready, String> {
    let mut line = String::new();
    loop {
        line.clear();
        match stdout.read_line(&mut line).await {
            Ok(0) => return Err("the daemon closed its stdout".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("reading the daemon's stdout: {error}")),
        }
        let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
        if value.get("event").and_then(Value::as_str) == Some("ready") {
            let ready = parse_ready(value).ok_or_else(|| format!("a field is missing in {line}"))?;
            tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
            return Ok(ready);
        }
    }
}

fn parse_ready(line: Value) -> Option<Ready> {
    let text = |name| line.get(name).and_then(Value::as_str).map(str::to_owned);
    let listen = line.get("listen")?.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Some(Ready { peer_id: text("peer_id")?, api: text("api")?, listen, line })
}

/// The error of a command that could not be run, in words.
fn describe(command: &str, result: io::Result<ExitStatus>) -> Result<(), String> {
    match result {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{command}` ended with {status}")),
        Err(error) => Err(format!("starting `{command}`: {error}")),
    }
}

#[cfg(test)]
mod tests;

/// A port of loopback for what has to come back where it was: free, given out once, and below those that the system
/// gives away by itself (Linux: 32,768 and up, other systems higher), so that nobody else's connection takes it between.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).expect("below 10,000");
    (0..10_000)
        .map(|_| 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000) % 10_000)
        .find(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
}
