//! Bad input gets a clear error with the right exit code, and loses nothing.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use dagmesh_tests::{Daemon, SmallDisk, assert_same_folder, make_folder};
use serde_json::Value;

use crate::support::{
    SOON, api_raw, api_request, assert_fails, assert_sound, daemon, number, options, str_of, text, ticket,
};

/// Runs `dagmesh` with these arguments alone; its exit code and stderr. For what ends at once.
async fn run(daemon: &Daemon, args: &[&str]) -> (Option<i32>, String) {
    let mut command = daemon.command();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = tokio::time::timeout(SOON, command.output()).await.expect("an end in time").expect("a command");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A daemon that publishes a folder, to see that nothing of it is lost.
struct Published {
    daemon: Daemon,
    source: PathBuf,
    published: Value,
    folder: tempfile::TempDir,
}

impl Published {
    async fn start() -> Self {
        Self::of(daemon(&[]).await).await
    }

    async fn of(daemon: Daemon) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("source");
        make_folder(&source, 30, 1 << 20, 21);
        let published = daemon.json(&["publish", text(&source), "--hidden"]).await;
        Self { daemon, source, published, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn content(&self) -> &str {
        str_of(&self.published, "content")
    }

    /// The daemon answers, and all that was published before is there.
    async fn assert_intact(&self) {
        let head = self.daemon.json(&["head"]).await;
        assert_eq!((&head["head"], &head["seq"]), (&self.published["head"], &self.published["seq"]));
        let copy = self.path("intact");
        self.daemon.json(&["get", self.content(), "-o", text(&copy)]).await;
        assert_same_folder(&self.source, &copy);
        std::fs::remove_dir_all(&copy).expect("removed");
        assert_sound(&self.daemon).await;
    }
}

#[tokio::test]
async fn what_is_not_there_ends_with_4_and_is_named() {
    let (here, other) = tokio::join!(Published::start(), daemon(&[]));
    let held_nowhere = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let run = async |args: &[&str]| here.daemon.run(args).await;
    assert_fails(&run(&["publish", "/no/such/folder"]).await, 4, &["/no/such/folder"]);
    assert_fails(&run(&["add", "/no/such/folder"]).await, 4, &["/no/such/folder"]);
    assert_fails(&run(&["dag", "import", "/no/such.car"]).await, 4, &["/no/such.car"]);
    assert_fails(&run(&["publish", held_nowhere]).await, 4, &[held_nowhere]);
    assert_fails(&run(&["cat", held_nowhere]).await, 4, &[held_nowhere]);
    assert_fails(&run(&["dag", "stat", held_nowhere]).await, 4, &[held_nowhere]);
    let target = here.path("target");
    assert_fails(&run(&["get", held_nowhere, "-o", text(&target)]).await, 4, &[held_nowhere]);
    assert!(!target.exists(), "nothing is left of what could not be written");
    assert_fails(&run(&["head", "--feed", "nothing"]).await, 4, &["nothing"]);
    assert_fails(&run(&["head", &other.addr("tcp")]).await, 4, &[other.peer_id(), "main"]);
    assert_fails(&run(&["sync", &other.addr("tcp")]).await, 4, &[other.peer_id(), "main"]);
    let head = ["sync", &other.addr("tcp"), "--head", held_nowhere];
    assert_fails(&run(&head).await, 4, &[other.peer_id(), held_nowhere]);
    assert_fails(&run(&["unfollow", other.peer_id()]).await, 4, &[other.peer_id(), "dagmesh follows"]);
    assert_fails(&run(&["announce", here.content()]).await, 4, &["dagmesh head"]);
    here.assert_intact().await;
}

#[tokio::test]
async fn what_makes_no_sense_ends_with_2_and_says_why() {
    let here = Published::start().await;
    let run = async |args: &[&str]| here.daemon.run(args).await;
    assert_fails(&run(&["cat", "bafynonsense"]).await, 2, &["bafynonsense"]);
    assert_fails(&run(&["publish", "--feed", "a/b", text(&here.source)]).await, 2, &["a/b"]);
    assert_fails(&run(&["cat", here.content()]).await, 2, &[here.content()]);
    assert_fails(&run(&["follow", here.daemon.peer_id()]).await, 2, &["own peer id"]);
    assert_fails(&run(&["follow", "nobody"]).await, 2, &["nobody"]);
    assert_fails(&run(&["nonsense"]).await, 2, &["nonsense"]);

    let good = ticket(&here.daemon).await;
    // One letter in the middle, exchanged for another one.
    let middle = good.len() / 2;
    let other = if good.as_bytes()[middle] == b'a' { "b" } else { "a" };
    let typo = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    assert_fails(&run(&["follow", &typo]).await, 2, &["typo", "checksum"]);
    assert_eq!(here.daemon.json(&["follows"]).await, serde_json::json!([]), "nothing is followed by accident");

    let target = here.path("mine");
    std::fs::write(&target, "mine").expect("a file");
    let output = run(&["get", here.content(), "-o", text(&target)]).await;
    assert_fails(&output, 2, &[text(&target), "--overwrite"]);
    assert_eq!(std::fs::read_to_string(&target).expect("a file"), "mine");
    let nowhere = here.path("no/such/folder");
    assert_fails(&run(&["get", here.content(), "-o", text(&nowhere)]).await, 4, &["no/such"]);
    here.assert_intact().await;
}

#[tokio::test]
async fn a_disk_too_small_for_what_is_exported_is_told_and_left_as_it_was() {
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let here = Published::start().await;
    let large = here.path("large");
    std::fs::write(&large, vec![7; 6 << 20]).expect("a file");
    let added = here.daemon.json(&["add", text(&large)]).await;
    let target = disk.path().join("copy");
    let output = here.daemon.run(&["get", str_of(&added, "cid"), "-o", text(&target)]).await;
    assert_fails(&output, 1, &[text(&target), "No space left"]);
    assert_eq!(std::fs::read_dir(disk.path()).expect("lists").count(), 0, "nothing half-written stays");
    here.assert_intact().await;
}

#[tokio::test]
async fn a_car_that_is_cut_short_ends_with_7_and_the_whole_one_is_taken_after_it() {
    let (here, other) = tokio::join!(Published::start(), daemon(&[]));
    let car = here.path("whole.car");
    here.daemon.json(&["dag", "export", here.content(), "-o", text(&car)]).await;
    let bytes = std::fs::read(&car).expect("a CAR");
    let cut = here.path("cut.car");
    // In the header, in a block, in the last byte.
    for keep in [10, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..keep]).expect("a CAR");
        assert_fails(&other.run(&["dag", "import", text(&cut)]).await, 7, &["cut.car"]);
    }
    // A bit of a block turned.
    let mut wrong = bytes.clone();
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    std::fs::write(&cut, &wrong).expect("a CAR");
    assert_fails(&other.run(&["dag", "import", text(&cut)]).await, 7, &["cut.car"]);

    let imported = other.json(&["dag", "import", text(&car)]).await;
    assert_eq!(imported["roots"][0], here.published["content"]);
    assert_eq!(number(&imported, "blocks") + 1, number(&here.published, "blocks_added"), "all but the entry");
    let copy = here.path("copy");
    other.json(&["get", here.content(), "-o", text(&copy)]).await;
    assert_same_folder(&here.source, &copy);
    assert_sound(&other).await;
}

#[tokio::test]
async fn a_taken_port_or_home_stops_the_start_and_says_what_to_do() {
    let here = Published::start().await;
    let home = here.path("home");
    let start = async |home: &Path, more: &[&str]| {
        let args = [&["--home", text(home), "daemon", "--profile", "test", "--json"], more].concat();
        run(&here.daemon, &args).await
    };
    let (code, error) = start(&home, &["--api", here.daemon.api()]).await;
    assert!(code == Some(1) && error.contains(here.daemon.api()) && error.contains("--api"), "{code:?} {error}");
    let taken = here.daemon.addr("tcp");
    let taken = taken.split("/p2p/").next().expect("an address");
    let (code, error) = start(&home, &["--api", "127.0.0.1:0", "--listen", taken]).await;
    assert!(code.is_some_and(|code| code != 0) && error.contains(taken), "{code:?} {error}");

    let (code, error) = start(here.daemon.home(), &["--api", "127.0.0.1:0"]).await;
    assert!(code == Some(1) && error.contains("dagmesh status"), "{code:?} {error}");
    // Also where the file that leads to the daemon is gone, so that only the store's lock tells.
    std::fs::remove_file(here.daemon.home().join("api.json")).map_err(|error| error.kind()).expect("api.json");
    let (code, error) = start(here.daemon.home(), &["--api", "127.0.0.1:0"]).await;
    assert!(code == Some(1) && error.contains(text(here.daemon.home())), "{code:?} {error}");

    let (status, _) = api_raw(&here.daemon, api_request(&here.daemon, "id", "{}").as_bytes()).await;
    assert_eq!(status, 200, "the daemon there goes on");
}

#[tokio::test]
async fn a_wrong_config_stops_the_start_and_names_the_key_that_was_meant() {
    let here = daemon(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("wrong.toml");
    let start = async |toml: &str| {
        std::fs::write(&config, toml).expect("a config");
        let home = folder.path().join("home");
        let args = ["--home", text(&home), "--config", text(&config), "daemon", "--profile", "test", "--api"];
        run(&here, &[&args[..], &["127.0.0.1:0"]].concat()).await
    };
    for (toml, wrong, meant) in [
        ("[swarm]\nlisten_on = []\n", "listen_on", "listen"),
        ("[sync]\nmax_sync = 3\n", "max_sync", "max_syncs"),
        ("[swram]\nlisten = []\n", "swram", "swarm"),
        ("[swarm]\nlisten = 7\n", "listen", "wrong.toml"),
        ("[swarm]\nlisten = [\n", "wrong.toml", "wrong.toml"),
    ] {
        let (code, error) = start(toml).await;
        assert!(code == Some(2) && error.contains(wrong) && error.contains(meant), "{toml:?}: {code:?} {error}");
    }
    let args = ["--home", text(folder.path()), "daemon", "--profile", "test", "--bootstrap", "/ip4/127.0.0.1/tcp/1"];
    let (code, error) = run(&here, &args).await;
    assert!(code == Some(2) && error.contains("/p2p/"), "{code:?} {error}");
}

#[tokio::test]
async fn without_a_daemon_a_command_ends_with_3_and_says_how_to_start_one() {
    let mut here = daemon(&[]).await;
    let commands: [&[&str]; 8] = [
        &["status"],
        &["peers"],
        &["follows"],
        &["publish", "."],
        &["follow", "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8"],
        &["ticket"],
        &["watch"],
        &["shutdown"],
    ];
    // A daemon that was killed leaves the file behind that leads to it.
    here.kill9().await;
    for args in commands {
        assert_fails(&here.run(args).await, 3, &["dagmesh daemon"]);
    }
    here.restart().await;
    assert!(here.stop().await.success());
    for args in commands {
        assert_fails(&here.run(args).await, 3, &["dagmesh daemon"]);
    }
    // These need none.
    for args in [&["id"][..], &["version"], &["repo", "stat"], &["repo", "verify"], &["gc", "--dry-run"]] {
        here.run(args).await.assert_code(0);
    }
}

#[tokio::test]
async fn garbage_to_the_api_is_refused_and_changes_nothing() {
    let here = Published::start().await;
    let api = here.daemon.api().to_owned();
    let ask = async |request: String| api_raw(&here.daemon, request.as_bytes()).await;
    let good = api_request(&here.daemon, "id", "{}");
    assert_eq!(ask(good.clone()).await.0, 200);

    let (status, body) = ask(good
        .lines()
        .filter(|line| !line.starts_with("Authorization"))
        .fold(String::new(), |request, line| request + line + "\r\n"))
    .await;
    assert!(status == 401 && body.contains("token"), "{status} {body}");
    let (status, body) = ask(good.replace("Bearer ", "Bearer 0")).await;
    assert!(status == 401 && body.contains("token"), "{status} {body}");
    let (status, body) = ask(good.replace(&format!("Host: {api}"), "Host: evil.example")).await;
    assert!(status == 403 && body.contains("evil.example"), "{status} {body}");
    let (status, body) = ask(good.replace("Content-Type", "Origin: http://evil.example\r\nContent-Type")).await;
    assert!(status == 403 && body.contains("evil.example"), "{status} {body}");

    for body in ["{", "[]", "nonsense", "{\"cid\":7}", "{\"content\":{\"cid\":\"bafynonsense\"}}", "\u{0}"] {
        let (status, answer) = ask(api_request(&here.daemon, "publish", body)).await;
        assert!(status == 400 && answer.contains("wrong request"), "{body:?}: {status} {answer}");
    }
    let (status, answer) = ask(api_request(&here.daemon, "publish", "{\"content\":{\"path\":\"not/absolute\"}}")).await;
    assert!(status == 400 && answer.contains("not/absolute"), "{status} {answer}");
    let (status, answer) = ask(api_request(&here.daemon, "id", "{\"unknown\":1}")).await;
    println!("a field that is not known: {status} {answer}");
    let (status, _) = ask(api_request(&here.daemon, "no-such-command", "{}")).await;
    assert_eq!(status, 404);
    let (status, _) = ask(good.replace("POST", "GET")).await;
    assert_eq!(status, 405);
    let (status, _) = ask(good.replace("Content-Length: 2", "Content-Length: 99999999999")).await;
    assert!((400..500).contains(&status), "{status}");
    // No HTTP at all: the connection ends, the daemon does not.
    for noise in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"nonsense\r\n\r\n", &[0; 4096]] {
        let (status, _) = api_raw(&here.daemon, noise).await;
        assert!(status == 0 || (400..500).contains(&status), "{status}");
    }
    here.assert_intact().await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_published_before_is_intact() {
    let Some(disk) = SmallDisk::mount(224 << 20) else { return };
    let mut options = options(&[]);
    // The profile keeps no reserve; a disk of a user's has one.
    options.env.push(("DAGMESH_STORE__RESERVE_BYTES".to_owned(), (64 << 20).to_string()));
    options.home = Some(disk.path().join("home"));
    let mut here = Published::of(Daemon::start_with(options).await).await;

    let large = here.path("large");
    make_folder(&large, 8, 256 << 20, 5);
    let output = here.daemon.run(&["publish", text(&large), "--hidden"]).await;
    assert_fails(&output, 1, &["space", "dagmesh gc"]);
    assert!(here.daemon.is_running(), "{}", here.daemon.stderr());
    here.assert_intact().await;

    // Stopped in order and started again on the same full disk, or after a kill: it is all there.
    here.daemon.restart().await;
    here.assert_intact().await;
    let freed = here.daemon.json(&["gc"]).await;
    assert!(number(&freed, "removed") > 0, "what could not be published is refuse: {freed}");
    here.assert_intact().await;
}
