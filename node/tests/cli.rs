//! The binary as a process: signals, pipes, and what a killed daemon leaves behind.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

fn dagmesh(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dagmesh"));
    command.arg("--home").arg(home).args(args).env_remove("DAGMESH_HOME");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(home: &Path, args: &[&str]) -> Output {
    dagmesh(home, args).output().expect("runs")
}

/// Runs `wait` on a thread of its own, and gives up on it after the deadline.
fn within<T: Send + 'static>(what: &str, wait: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(wait()));
    receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// A process that is killed at the end of the test, whatever happens.
struct Running(Option<Child>);

impl Running {
    /// Starts a process and gives its first line.
    fn start(mut command: Command) -> (Self, Value) {
        let mut child = command.spawn().expect("starts");
        let out = child.stdout.take().expect("piped");
        let running = Self(Some(child));
        let (line, out) = within("the first line", move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            out.read_line(&mut line).expect("reads");
            (line, out)
        });
        // Kept read, so that the process never writes into a closed pipe.
        std::thread::spawn(move || out.bytes().count());
        (running, serde_json::from_str(&line).expect("JSON"))
    }

    fn signal(&self, name: &str) {
        let id = self.0.as_ref().expect("running").id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("runs").success());
    }

    fn ended(mut self) -> ExitStatus {
        let mut child = self.0.take().expect("running");
        within("the end of the process", move || child.wait().expect("waits"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn daemon(home: &Path) -> (Running, Value) {
    Running::start(dagmesh(home, &["daemon", "--profile", "test", "--json"]))
}

#[test]
fn a_signal_stops_the_daemon_in_order_and_a_client_at_once() {
    let home = tempfile::tempdir().expect("a folder");
    for signal in ["-INT", "-TERM"] {
        let (daemon, ready) = daemon(home.path());
        assert_eq!(ready["event"], "ready");
        let file = home.path().join("file");
        std::fs::write(&file, signal).expect("writes");
        // It waits for ever: a client to interrupt.
        let mut waiting = dagmesh(home.path(), &["watch", "--json"]).spawn().expect("starts");
        let mut events = BufReader::new(waiting.stdout.take().expect("piped"));
        let published = run(home.path(), &["publish", file.to_str().expect("UTF-8"), "--json"]);
        assert!(published.status.success(), "{published:?}");
        let waiting = Running(Some(waiting));
        // Published again until the watcher, which may have come later, has seen one.
        let seen = std::thread::spawn(move || {
            let mut line = String::new();
            events.read_line(&mut line).map(|_| (line, events))
        });
        let begun = Instant::now();
        while !seen.is_finished() {
            assert!(begun.elapsed() < DEADLINE, "the watcher sees nothing");
            assert!(run(home.path(), &["publish", file.to_str().expect("UTF-8")]).status.success());
        }
        // Its pipe stays open: a closed one would end it too.
        let (line, _events) = seen.join().expect("no panic").expect("reads");
        assert!(serde_json::from_str::<Value>(&line).expect("JSON")["event"].is_string());
        waiting.signal("-INT");
        assert_eq!(waiting.ended().code(), Some(130));
        daemon.signal(signal);
        assert_eq!(daemon.ended().code(), Some(0), "{signal}");
        assert!(!home.path().join("api.json").exists());
    }
}

#[test]
fn a_killed_daemon_leaves_a_home_that_is_told_as_stopped_and_starts_again() {
    let home = tempfile::tempdir().expect("a folder");
    let (killed, first) = daemon(home.path());
    let second = run(home.path(), &["daemon", "--profile", "test"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    killed.signal("-KILL");
    assert!(!killed.ended().success());
    assert!(home.path().join("api.json").exists(), "nobody was left to remove it");
    let status = run(home.path(), &["status"]);
    assert_eq!(status.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&status.stderr).contains("start one with `dagmesh daemon`"));
    assert_eq!(run(home.path(), &["repo", "verify"]).status.code(), Some(0));
    let (_again, ready) = daemon(home.path());
    assert_eq!(ready["peer_id"], first["peer_id"]);
    assert_eq!(run(home.path(), &["status", "--json"]).status.code(), Some(0));
}

#[test]
fn a_closed_pipe_ends_a_command_without_a_word() {
    let home = tempfile::tempdir().expect("a folder");
    let mut schema = dagmesh(home.path(), &["config", "schema"]);
    let mut child = schema.spawn().expect("starts");
    drop(child.stdout.take());
    let ended = within("the end", move || child.wait_with_output().expect("waits"));
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_text_for_a_group_is_read_from_a_pipe_up_to_its_cap() {
    let home = tempfile::tempdir().expect("a folder");
    let send = |text: &[u8]| {
        let mut command = dagmesh(home.path(), &["group", "send", "chess", "-"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("starts");
        let mut input = child.stdin.take().expect("piped");
        let text = text.to_vec();
        // It reads no more than it may take, and then the pipe breaks.
        std::thread::spawn(move || input.write_all(&text));
        let ended = within("the end", move || child.wait_with_output().expect("waits"));
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let cap = 16 * 1024;
    for (text, code, part) in [
        (vec![b'x'; cap + 1], 2, "more than 16384 bytes"),
        (vec![b'x'; 1 << 20], 2, "more than 16384 bytes"),
        ("ä".repeat(cap).into_bytes(), 2, "more than 16384 bytes"),
        (b"\n".to_vec(), 2, "there is no text"),
        (b"\xff".to_vec(), 1, "cannot read standard input"),
        // Taken: only then is the daemon asked, and there is none.
        ([vec![b'x'; cap], b"\r\n".to_vec()].concat(), 3, "dagmesh daemon"),
        (b"one\ntwo\n".to_vec(), 3, "dagmesh daemon"),
    ] {
        let (ended, error) = send(&text);
        assert!(ended == Some(code) && error.contains(part), "{} bytes: {ended:?} {error}", text.len());
    }
}

#[test]
fn an_interrupt_ends_a_command_that_reads_from_a_person() {
    let home = tempfile::tempdir().expect("a folder");
    let mut child =
        dagmesh(home.path(), &["group", "send", "chess", "-"]).stdin(Stdio::piped()).spawn().expect("starts");
    let mut open = child.stdin.take().expect("piped");
    let waiting = Running(Some(child));
    open.write_all(b"a text without an end").expect("writes");
    let begun = Instant::now();
    while rustix::io::ioctl_fionread(&open).expect("a pipe") > 0 {
        assert!(begun.elapsed() < DEADLINE, "nobody reads");
        std::thread::yield_now();
    }
    waiting.signal("-INT");
    let ended = waiting.ended();
    // Until it minds signals itself, one just ends it.
    assert!(ended.code().is_none_or(|code| code == 130), "{ended:?}");
}
