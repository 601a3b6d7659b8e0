use std::{
    io::{self, Write},
    sync::Mutex,
};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::fake::{FakeNode, cid, within};

mod group;
mod records;

struct FakeBackend(Arc<FakeNode>);

impl Backend for FakeBackend {
    type Api = FakeNode;

    async fn start(&self, _: Start) -> Result<Arc<FakeNode>> {
        Ok(Arc::clone(&self.0))
    }
}

/// What was printed, for whoever waits for it.
#[derive(Clone)]
struct Printed(Arc<watch::Sender<String>>);

impl Printed {
    fn new() -> Self {
        Self(Arc::new(watch::channel(String::new()).0))
    }

    fn text(&self) -> String {
        self.0.borrow().clone()
    }

    async fn line(&self) -> String {
        let mut text = self.0.subscribe();
        within("a line", text.wait_for(|text| text.contains('\n'))).await.expect("open").clone()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|text| text.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A home, and a daemon in it where one was started.
struct Bench {
    home: tempfile::TempDir,
    node: Arc<FakeNode>,
    daemon: Mutex<Option<tokio::task::JoinHandle<u8>>>,
}

struct Ran {
    code: u8,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {:?} {:?}", self.out, self.err))
    }
}

async fn run_with(node: Arc<FakeNode>, args: Vec<OsString>, out: Printed, err: Printed) -> u8 {
    let streams = Streams { out: Box::new(out), err: Box::new(err), out_is_terminal: false, err_is_terminal: false };
    run(&FakeBackend(node), args, streams).await
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        Self { home, node: FakeNode::new(), daemon: Mutex::new(None) }
    }

    fn args(&self, args: &[&str]) -> Vec<OsString> {
        let home = self.home.path().join("home").display().to_string();
        ["dagmesh", "--home", &home].into_iter().chain(args.iter().copied()).map(OsString::from).collect()
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let (out, err) = (Printed::new(), Printed::new());
        let running = run_with(Arc::clone(&self.node), self.args(args), out.clone(), err.clone());
        let code = within("the command", running).await;
        Ran { code, out: out.text(), err: err.text() }
    }

    /// Starts a daemon and gives its ready line.
    async fn daemon(&self, args: &[&str]) -> Value {
        let all = [&["daemon", "--profile", "test", "--json"], args].concat();
        let (out, err) = (Printed::new(), Printed::new());
        let running = run_with(Arc::clone(&self.node), self.args(&all), out.clone(), err.clone());
        let mut running = tokio::spawn(running);
        let ready = tokio::select! {
            ready = out.line() => serde_json::from_str(&ready).expect("JSON"),
            code = &mut running => panic!("the daemon ended with {code:?}: {}", err.text()),
        };
        *self.daemon.lock().expect("not poisoned") = Some(running);
        ready
    }

    /// What the last command asked the node about groups, records or names.
    fn asked(&self) -> Value {
        self.node.asked.lock().last().cloned().unwrap_or_default()
    }

    async fn daemon_ended(&self) -> u8 {
        let daemon = self.daemon.lock().expect("not poisoned").take().expect("a daemon");
        within("the daemon's end", daemon).await.expect("no panic")
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join("home").join(name)
    }
}

#[tokio::test]
async fn the_ready_line_leads_to_the_api_and_a_stop_leaves_nothing_behind() {
    let bench = Bench::new();
    let ready = bench.daemon(&[]).await;
    assert_eq!(ready["event"], "ready");
    assert_eq!(ready["peer_id"], bench.node.peer.to_string());
    assert!(ready["listen"].is_array() && ready["api"].as_str().is_some_and(|api| api.starts_with("127.0.0.1:")));
    let status = bench.run(&["status", "--json"]).await;
    assert_eq!((status.code, &status.json()["peer_id"]), (0, &ready["peer_id"]));
    let second = bench.run(&["daemon", "--profile", "test"]).await;
    assert_eq!(second.code, 1);
    assert!(second.err.contains("is running in") && second.err.contains("dagmesh status"), "{}", second.err);
    assert_eq!(bench.run(&["shutdown"]).await.code, 0);
    assert_eq!(bench.daemon_ended().await, 0);
    assert_eq!(bench.node.shut.available_permits(), 1, "the node was stopped once");
    assert!(!bench.file("api.json").exists());
    assert_eq!(bench.run(&["status"]).await.code, 3);
}

#[tokio::test]
async fn without_a_daemon_a_command_says_how_to_start_one() {
    let bench = Bench::new();
    let none = bench.run(&["peers"]).await;
    assert_eq!((none.code, none.out.as_str()), (3, ""));
    let home = bench.file("").display().to_string();
    let expected =
        format!("error: no daemon is running in {}; start one with `dagmesh daemon`\n", home.trim_end_matches('/'));
    assert_eq!(none.err, expected);
    // As a daemon leaves it that was killed: nobody listens there any more.
    assert_eq!(bench.run(&["init"]).await.code, 0);
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let api = gone.local_addr().expect("an address");
    drop(gone);
    std::fs::write(bench.file("api.json"), json!({ "api": api.to_string(), "pid": 1, "version": "0" }).to_string())
        .expect("writes");
    let stale = bench.run(&["peers"]).await;
    assert_eq!((stale.code, stale.err), (3, expected));
}

#[tokio::test]
async fn each_kind_of_error_has_its_exit_code_and_json_on_stderr() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    for (kind, code) in [
        ("error", 1),
        ("usage", 2),
        ("not_found", 4),
        ("timeout", 5),
        ("no_peers", 5),
        ("unauthorised", 6),
        ("verification", 7),
        ("partial", 8),
    ] {
        let failed = bench.run(&["head", "--feed", kind, "--json"]).await;
        assert_eq!((failed.code, failed.out.as_str()), (code, ""), "{kind}");
        let error: Value = serde_json::from_str(&failed.err).expect("JSON");
        assert_eq!(error, json!({ "error": { "kind": kind, "message": "as asked" } }));
    }
    let damaged = bench.run(&["repo", "verify", "--json"]).await;
    assert_eq!((damaged.code, &damaged.json()["damaged"]), (7, &json!(1)), "the report comes all the same");
}

#[tokio::test]
async fn bad_input_is_named_before_the_daemon_is_asked() {
    let bench = Bench::new();
    let cid = cid().to_string();
    for (args, code, part) in [
        (&["add", "/no/such/file"][..], 4, "cannot read /no/such/file"),
        (&["publish", "/no/such/file"], 4, "there is no such file or folder, and it is no CID"),
        (&["dag", "import", "/no/such.car"], 4, "cannot read /no/such.car"),
        (&["get", &cid, "-o", "/no/such/folder/x"], 4, "there is no folder /no/such/folder"),
        (&["get", &cid, "-o", "/"], 2, "exists already"),
        (&["cat", "bafynonsense"], 2, "is no CID"),
        (&["follow", "nobody"], 2, "names no publisher"),
        (&["follow", "/ip4/127.0.0.1/tcp/1"], 2, "append /p2p/"),
        (&["connect", "127.0.0.1:1"], 2, "127.0.0.1:1"),
        (&["ticket", "--feed", "a/b"], 2, "is no name for a feed"),
        (&["daemon", "--api", "5101"], 2, "is neither ADDRESS:PORT"),
        (&["nonsense"], 2, "unrecognized subcommand"),
        (&["id"], 4, "dagmesh init"),
        (&["repo", "stat"], 4, "there is no store in"),
    ] {
        let failed = bench.run(args).await;
        assert_eq!((failed.code, failed.out.as_str()), (code, ""), "{args:?}: {}", failed.err);
        assert!(failed.err.contains(part), "{args:?}: {}", failed.err);
    }
}

#[tokio::test]
async fn a_wrong_config_stops_the_start() {
    let bench = Bench::new();
    assert_eq!(bench.run(&["init"]).await.code, 0);
    assert_eq!(bench.run(&["config", "validate"]).await.code, 0, "the example is right");
    std::fs::write(bench.file("config.toml"), "[swarm]\nlisen = []\n").expect("writes");
    for args in [&["config", "validate"][..], &["daemon"]] {
        let failed = bench.run(args).await;
        assert_eq!(failed.code, 2);
        assert!(failed.err.contains("unknown key `swarm.lisen` in ") && failed.err.contains("`swarm.listen`?"));
    }
    assert!(!bench.file("api.json").exists());
}

#[tokio::test]
async fn every_line_of_the_example_config_is_a_key_that_exists() {
    let bench = Bench::new();
    let example = include_str!("config.example.toml");
    // Prose starts with a capital letter, or ends a list of names.
    let keys = example.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| {
        line.starts_with('[')
            || line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_lowercase() || c == '_'))
    });
    let real = keys.filter(|line| !line.starts_with("psk")).collect::<Vec<_>>().join("\n");
    assert!(real.lines().count() > 15, "{real}");
    let path = bench.home.path().join("example.toml");
    std::fs::write(&path, real).expect("writes");
    let valid = bench.run(&["config", "validate", "--config", path.to_str().expect("UTF-8")]).await;
    assert_eq!(valid.code, 0, "{}", valid.err);
}

#[tokio::test]
async fn a_taken_port_is_told_with_the_way_out() {
    let bench = Bench::new();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = taken.local_addr().expect("an address").to_string();
    let failed = bench.run(&["daemon", "--profile", "test", "--api", &addr]).await;
    assert_eq!(failed.code, 1);
    assert!(failed.err.contains(&addr) && failed.err.contains("--api 127.0.0.1:0"), "{}", failed.err);
}

#[tokio::test]
async fn commands_print_their_json_names() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let file = bench.home.path().join("file");
    std::fs::write(&file, "fake").expect("writes");
    let (file, cid) = (file.to_str().expect("UTF-8"), cid().to_string());
    let peer = bench.node.peer.to_string();
    let output = bench.home.path().join("out").display().to_string();
    for (args, fields) in [
        (&["id"][..], &["peer_id", "addrs"][..]),
        (&["add", file], &["cid", "blocks", "bytes"]),
        (&["get", &cid, "-o", &output], &["cid", "files", "bytes"]),
        (&["dag", "put", file], &["cid", "bytes"]),
        (&["dag", "stat", &cid], &["cid", "blocks", "bytes", "depth"]),
        (&["dag", "import", file], &["roots", "blocks"]),
        (&["publish", file, "--feed", "news"], &["feed", "head", "seq", "content", "blocks_added"]),
        (&["head"], &["publisher", "feed", "head", "seq", "time"]),
        (&["announce", &cid], &["head", "peers"]),
        (&["follow", &peer], &["publisher", "feed", "state", "reason", "latest", "announced", "known_blocks"]),
        (&["unfollow", &peer], &["publisher", "feeds"]),
        (&["ticket"], &["ticket"]),
        (&["gc", "--dry-run"], &["removed", "bytes"]),
        (&["version"], &["version", "api"]),
    ] {
        let done = bench.run(&[args, &["--json"]].concat()).await;
        assert_eq!(done.code, 0, "{args:?}: {}", done.err);
        let value = done.json();
        for field in fields {
            assert!(value.get(field).is_some(), "{args:?} has no {field}: {value}");
        }
    }
    let ticket = bench.run(&["ticket", "--quiet"]).await.out;
    let followed = bench.run(&["follow", ticket.trim(), "--json"]).await;
    assert_eq!(followed.json()["publisher"], peer, "a ticket leads to its publisher");
}

#[tokio::test]
async fn bytes_come_as_they_are_and_a_late_error_is_not_lost() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let cid = cid().to_string();
    let whole = bench.run(&["cat", &cid]).await;
    assert_eq!((whole.code, whole.out.as_str()), (0, "onetwo"));
    let late = bench.run(&["cat", &cid, "--offset", "1"]).await;
    assert_eq!((late.code, late.out.as_str()), (7, "one"));
    let car = bench.home.path().join("x.car");
    let exported = bench.run(&["dag", "export", &cid, "-o", car.to_str().expect("UTF-8")]).await;
    assert_eq!((exported.code, std::fs::read(&car).expect("reads")), (0, b"car".to_vec()));
    let listed = bench.run(&["ls", &cid]).await;
    assert!(listed.out.contains("b/") && !listed.out.contains('\u{1b}'), "{:?}", listed.out);
}

#[tokio::test]
async fn the_api_is_served_on_a_unix_socket_too() {
    let bench = Bench::new();
    let socket = bench.home.path().join("api.sock");
    let ready = bench.daemon(&["--api", &format!("unix:{}", socket.display())]).await;
    assert_eq!(ready["api"], format!("unix:{}", socket.display()));
    assert_eq!(bench.run(&["peers", "--json"]).await.json(), json!([]));
    assert_eq!(bench.run(&["shutdown"]).await.code, 0);
    assert_eq!(bench.daemon_ended().await, 0);
    assert!(!socket.exists());
}

#[tokio::test]
async fn watch_prints_one_event_a_line_and_ends_with_the_node() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let out = Printed::new();
    let args = bench.args(&["watch", "--json"]);
    let watching = tokio::spawn(run_with(Arc::clone(&bench.node), args, out.clone(), Printed::new()));
    let hello: Value = serde_json::from_str(&out.line().await).expect("JSON");
    assert_eq!(hello["event"], "lagged");
    assert_eq!(bench.run(&["shutdown"]).await.code, 0);
    assert_eq!(within("the end of watch", watching).await.expect("no panic"), 0);
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_a_command_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bench = Bench::new();
    let err = Printed::new();
    let streams =
        Streams { out: Box::new(Closed), err: Box::new(err.clone()), out_is_terminal: false, err_is_terminal: false };
    let backend = FakeBackend(Arc::clone(&bench.node));
    let code = run(&backend, bench.args(&["config", "schema"]), streams).await;
    assert_eq!((code, err.text()), (0, String::new()));
}

#[tokio::test]
async fn a_store_is_looked_after_while_no_daemon_runs() {
    let bench = Bench::new();
    assert_eq!(bench.run(&["init"]).await.code, 0);
    let id = bench.run(&["id", "--json"]).await;
    assert_eq!((id.code, &id.json()["addrs"]), (0, &json!([])));
    {
        use dagmesh_dag::{Block, Blockstore, Codec, HashCode};
        let store = crate::store::Store::open(bench.file("store")).expect("opens");
        store.put(&Block::new(Codec::Raw, HashCode::Sha2_256, &b"garbage"[..]).expect("a block")).expect("puts");
    }
    assert_eq!(bench.run(&["repo", "stat", "--json"]).await.json()["blocks"], 1);
    let verified = bench.run(&["repo", "verify", "--json"]).await;
    assert_eq!((verified.code, &verified.json()["checked"]), (0, &json!(1)));
    assert_eq!(bench.run(&["gc", "--dry-run", "--json"]).await.json()["removed"], 1);
    assert_eq!(bench.run(&["gc", "--json"]).await.json()["bytes"], 7);
    assert_eq!(bench.run(&["repo", "stat", "--json"]).await.json()["blocks"], 0);
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[tokio::test]
async fn help_and_completions_go_to_stdout() {
    let bench = Bench::new();
    for args in [&["--help"][..], &["follow", "--help"], &["completions", "bash"], &["--version"]] {
        let done = bench.run(args).await;
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{args:?}");
        assert!(done.out.contains("dagmesh"), "{args:?}");
    }
}
