use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::wait_for;

/// Stands in for the binary: a daemon that keeps its name in its home, and a command that prints its arguments.
const SCRIPT: &str = r#"#!/bin/sh
if [ "$1" != daemon ]; then
    case "$4" in
        fail) echo '{"error":"as asked"}'; echo "why" >&2; exit 4;;
        lines) printf '{"n":1}\n{"n":2}\n';;
        hang) exec sleep 600;;
        *) printf '{"args":"%s","env":"%s"}\n' "$*" "$DAGMESH_SEEN";;
    esac
    exit
fi
home=$6
echo "starting in $home with $*" >&2
case "$*" in
    *--broken*) echo "the reason it is broken" >&2; exit 2;;
esac
[ -f "$home/name" ] || echo "peer-$$" > "$home/name"
trap 'echo "stopping" >&2; exit 7' TERM
echo 'not json'
echo '{"event":"starting"}'
printf '{"event":"ready","peer_id":"%s","listen":["/ip4/127.0.0.1/tcp/%d","/ip4/127.0.0.1/udp/9/quic-v1"],"api":"127.0.0.1:1","more":1}\n' "$(cat "$home/name")" $$
# Short naps: SIGKILL leaves the nap behind.
while :; do sleep 0.1 > /dev/null 2>&1; done
"#;

struct Stub(TempDir);

impl Stub {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stub");
        fs::write(&path, SCRIPT).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        Self(folder)
    }

    fn options(&self) -> DaemonOptions {
        DaemonOptions { binary: Some(self.0.path().join("stub")), ..DaemonOptions::default() }
    }
}

fn runs(id: u32) -> bool {
    // A zombie still has an entry, so ask for its state.
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn the_ready_line_is_waited_for_and_taken_apart() {
    let stub = Stub::new();
    let daemon = Daemon::start_with(stub.options()).await;
    let id = daemon.id().expect("a process");
    assert_eq!(daemon.peer_id(), format!("peer-{id}"));
    assert_eq!(daemon.listen().len(), 2);
    assert_eq!(daemon.api(), "127.0.0.1:1");
    assert_eq!(daemon.ready_line()["more"], 1);
    assert_eq!(daemon.addr("tcp"), format!("/ip4/127.0.0.1/tcp/{id}/p2p/peer-{id}"));
    assert_eq!(daemon.addr("quic-v1"), format!("/ip4/127.0.0.1/udp/9/quic-v1/p2p/peer-{id}"));
    let home = daemon.home().display();
    let expected = format!("starting in {home} with daemon --json --profile test --home {home} --api 127.0.0.1:0\n");
    assert_eq!(daemon.stderr(), expected);
}

#[tokio::test]
async fn a_restart_keeps_the_home_and_a_drop_ends_the_process() {
    let stub = Stub::new();
    let mut daemon = Daemon::start_with(stub.options()).await;
    let (name, first) = (daemon.peer_id().to_owned(), daemon.id().expect("a process"));
    daemon.restart().await;
    let second = daemon.id().expect("a process");
    assert!(!runs(first) && first != second);
    assert!(!name.is_empty());
    assert_eq!(daemon.peer_id(), name);

    daemon.kill9().await;
    assert!(!runs(second) && !daemon.is_running());
    daemon.kill9().await;

    // Killed long after it was ready, and most likely before.
    assert!(daemon.restart_killed_after(Duration::from_secs(60)).await && !daemon.is_running());
    daemon.restart_killed_after(Duration::ZERO).await;
    assert!(!daemon.is_running());

    daemon.restart().await;
    assert!(daemon.is_running());
    let (third, home) = (daemon.id().expect("a process"), daemon.home().to_owned());
    drop(daemon);
    wait_for(Duration::from_secs(30), "the end of the process", async || !runs(third)).await;
    assert!(!home.exists());
}

#[tokio::test]
async fn a_stop_lets_the_daemon_end_by_itself() {
    let stub = Stub::new();
    let home = stub.0.path().join("home");
    let options = DaemonOptions { home: Some(home.clone()), ..stub.options() };
    let mut daemon = Daemon::start_with(options).await;
    assert_eq!(daemon.stop().await.code(), Some(7));
    assert!(daemon.stderr().ends_with("stopping\n"));
    drop(daemon);
    assert!(home.join("name").exists(), "a home that was named stays");
}

#[tokio::test]
#[should_panic(expected = "the reason it is broken")]
async fn a_daemon_that_does_not_come_up_fails_with_its_stderr() {
    let stub = Stub::new();
    Daemon::start_with(DaemonOptions { args: vec!["--broken".into()], ..stub.options() }).await;
}

#[tokio::test]
async fn a_command_gets_the_home_and_its_output_is_parsed() {
    let stub = Stub::new();
    let env = vec![("DAGMESH_SEEN".to_owned(), "yes".to_owned())];
    let daemon = Daemon::start_with(DaemonOptions { env, ..stub.options() }).await;
    let value = daemon.json(&["publish", "./folder"]).await;
    assert_eq!(value["args"], format!("--home {} --json publish ./folder", daemon.home().display()));
    assert_eq!(value["env"], "yes");

    let lines = daemon.run(&["lines"]).await;
    assert_eq!(lines.values.iter().map(|line| line["n"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);

    let failed = daemon.run(&["fail"]).await;
    assert_eq!(failed.assert_code(4).stderr, "why\n");
    assert_eq!(failed.values[0]["error"], "as asked");
}

#[tokio::test]
#[should_panic(expected = "`dagmesh hang` has not ended")]
async fn a_command_that_hangs_is_ended_by_its_deadline() {
    let stub = Stub::new();
    let options = DaemonOptions { command_deadline: Some(Duration::from_millis(300)), ..stub.options() };
    Daemon::start_with(options).await.run(&["hang"]).await;
}
