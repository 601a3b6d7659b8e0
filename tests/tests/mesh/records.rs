//! Records and names of real daemons: put by one, read by the others, whatever happens to the one.

use std::process::Stdio;

use dagmesh_core::limits;
use dagmesh_tests::{
    Daemon,
    record::{self, NameWatch},
};
use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::support::{SOON, api_try, assert_fails, daemon, number, str_of, text};

/// What names point at.
const PATHS: [&str; 3] = [
    "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
    "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy/a/b",
    "/ipfs/QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n",
];

/// Daemons of one DHT, each of which knows all others.
async fn mesh(count: usize, args: &[&str]) -> Vec<Daemon> {
    let daemons = join_all((0..count).map(|_| daemon(args))).await;
    record::meet(&daemons).await;
    daemons
}

#[tokio::test]
async fn a_record_is_put_by_one_daemon_and_read_and_kept_by_the_others() {
    let daemons = mesh(3, &[]).await;
    let [owner, other, third] = daemons.as_slice() else { panic!("three daemons") };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("value");
    std::fs::write(&file, [0, 0xff, b'\n']).expect("writes");
    let file = format!("@{}", text(&file));
    let put = ["record", "put", "address", &file, "--meta", "type=bytes", "--expires", "1h", "--replicas", "2"];
    let done = owner.json(&put).await;
    assert_eq!((number(&done, "replicas"), number(&done, "wanted"), &done["complete"]), (2, 2, &json!(true)));
    let (key, by_name) = (str_of(&done, "key"), format!("{}/address", owner.peer_id()));
    for target in [key, &by_name] {
        let found = other.json(&["record", "get", target, "--quorum", "2"]).await;
        assert_eq!((&found["key"], &found["name"], &found["value"]), (&json!(key), &json!("address"), &json!("AP8K")));
        assert_eq!((&found["seq"], &found["expires"]), (&done["seq"], &done["expires"]));
        assert_eq!((&found["owner"], &found["meta"]), (&json!(owner.peer_id()), &json!({"type": "bytes"})));
    }
    // Byte for byte, where it is wanted so.
    let mut quiet = other.command();
    quiet.arg("--home").arg(other.home()).args(["--quiet", "record", "get", key]).stdin(Stdio::null());
    let quiet = tokio::time::timeout(SOON, quiet.output()).await.expect("an end in time").expect("a command");
    assert_eq!((quiet.status.code(), quiet.stdout), (Some(0), vec![0, 0xff, b'\n']));

    let next = owner.json(&["record", "put", "address", "next", "--quiet"]).await;
    assert!(number(&next, "seq") > number(&done, "seq"), "{next}");
    assert_eq!((number(&next, "replicas"), &next["complete"]), (2, &json!(false)), "20 were wanted, and two are there");
    let found = record::get(third, key).await;
    assert_eq!((found.value.as_slice(), found.sequence), (b"next".as_slice(), number(&next, "seq")));
    assert!(found.answers.holders >= 1 && found.answers.wanted == 16, "{:?}", found.answers);

    for holder in &daemons {
        let all = holder.json(&["record", "ls"]).await;
        let listed = all.as_array().expect("a list").iter().find(|held| held["key"] == key).expect("is held");
        let (name, seq, from) = (&listed["name"], &listed["seq"], listed["from"].as_str());
        assert_eq!((name, seq), (&json!("address"), &next["seq"]), "{listed}");
        assert_eq!(from.is_none(), holder.peer_id() == owner.peer_id(), "{listed}");
    }
    let own = other.json(&["record", "ls", "--own"]).await;
    assert!(own.as_array().expect("a list").iter().all(|held| held["from"].is_null()), "{own}");
}

#[tokio::test]
async fn a_name_moves_by_the_hand_of_all_that_have_its_key_and_a_stream_sees_it() {
    let mut daemons = mesh(3, &[]).await;
    let [ada, bob, cy] = daemons.as_slice() else { panic!("three daemons") };
    let made = ada.json(&["key", "gen", "site"]).await;
    let name = str_of(&made, "ipns");
    // From before there is anything to see; over the API, and as a command.
    let watch = NameWatch::of(cy, name).await;
    let mut command = cy.command();
    command.arg("--home").arg(cy.home()).args(["--quiet", "name", "resolve", &format!("/ipns/{name}"), "--stream"]);
    let mut streaming = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a command");
    let mut lines = BufReader::new(streaming.stdout.take().expect("its output")).lines();
    let mut next_line =
        async || tokio::time::timeout(SOON, lines.next_line()).await.expect("a line in time").expect("reads");

    let first =
        ada.json(&["name", "publish", PATHS[0].trim_start_matches("/ipfs/"), "--key", "site", "--ttl", "1m"]).await;
    assert_eq!((str_of(&first, "key"), number(&first, "replicas")), (format!("/ipns/{name}").as_str(), 2));
    assert_eq!(next_line().await.as_deref(), Some(PATHS[0]));
    let told = watch.points_at(PATHS[0]).await;
    assert_eq!((told.name.as_str(), told.sequence, told.ttl.as_secs()), (name, number(&first, "seq"), 60));
    for spelling in [name.to_owned(), format!("/ipns/{name}"), str_of(&made, "peer_id").to_owned()] {
        let resolved = bob.json(&["name", "resolve", &spelling]).await;
        assert_eq!((str_of(&resolved, "name"), str_of(&resolved, "value")), (name, PATHS[0]));
        assert_eq!(resolved["seq"], first["seq"]);
    }

    // Another daemon is given the key, and writes under the next number.
    let file = ada.home().join("site.exported");
    ada.json(&["key", "export", "site", "-o", text(&file)]).await;
    let taken = bob.json(&["key", "import", "ours", text(&file)]).await;
    assert_eq!(taken["ipns"], made["ipns"]);
    let second = bob.json(&["name", "publish", PATHS[1], "--key", "ours"]).await;
    assert!(number(&second, "seq") > number(&first, "seq"), "{second}");
    assert_eq!(next_line().await.as_deref(), Some(PATHS[1]));
    assert_eq!(record::resolve(ada, name).await.value, PATHS[1]);
    let third = record::publish_name(ada, "site", PATHS[2]).await;
    assert!(third.sequence > number(&second, "seq"), "{third:?}");
    assert_eq!(next_line().await.as_deref(), Some(PATHS[2]));
    watch.points_at(PATHS[2]).await;
    for daemon in [ada, bob, cy] {
        assert_eq!(record::resolve(daemon, name).await.value, PATHS[2]);
    }
    // The daemon's own name is another.
    let own = record::publish_name(ada, "self", PATHS[0]).await;
    assert_eq!(record::resolve(cy, ada.peer_id()).await.value, PATHS[0]);
    assert!(own.key != third.key);

    // Told in order, each once; and with the daemon it ends.
    daemons[2].stop().await;
    let told: Vec<_> = watch.end().await.into_iter().map(|resolved| (resolved.value, resolved.sequence)).collect();
    let all = [(0, number(&first, "seq")), (1, number(&second, "seq")), (2, third.sequence)];
    assert_eq!(told, all.map(|(at, seq)| (PATHS[at].to_owned(), seq)));
    let mut rest = String::new();
    lines.into_inner().read_to_string(&mut rest).await.expect("reads");
    let ended = tokio::time::timeout(SOON, streaming.wait()).await.expect("an end in time").expect("waits");
    assert_eq!((ended.code(), rest.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn what_was_put_outlives_the_kill_of_its_publisher_and_its_numbers_go_on() {
    // Over TCP, where nobody waits long for one that is gone.
    let mut daemons = mesh(3, &["--listen", "/ip4/127.0.0.1/tcp/0"]).await;
    let name = record::key(&daemons[0], "site").await;
    let peer = daemons[0].peer_id().to_owned();
    let pointed = record::publish_name(&daemons[0], "site", PATHS[0]).await;
    let put = record::put(&daemons[0], "state", b"kept").await;
    daemons[0].kill9().await;
    for reader in &daemons[1..] {
        let found = record::get(reader, &format!("{peer}/state")).await;
        assert_eq!((found.value.as_slice(), found.sequence), (b"kept".as_slice(), put.sequence));
        assert_eq!(record::resolve(reader, &name).await.sequence, pointed.sequence);
    }
    daemons[0].restart().await;
    let own = record::held(&daemons[0], true).await;
    for (key, sequence, expires) in
        [(&put.key, put.sequence, put.expires_ms), (&pointed.key, pointed.sequence, pointed.expires_ms)]
    {
        let kept = own.iter().find(|held| held.key == *key).unwrap_or_else(|| panic!("it is gone: {own:?}"));
        assert_eq!((kept.sequence, kept.expires_ms, kept.from), (sequence, expires, None));
    }
    // It comes back under other ports, and its numbers go on.
    record::meet(&daemons).await;
    let next = record::put(&daemons[0], "state", b"next").await;
    assert_eq!((next.sequence, next.replicas), (put.sequence + 1, 2));
    let moved = record::publish_name(&daemons[0], "site", PATHS[1]).await;
    assert_eq!((moved.sequence, moved.replicas), (pointed.sequence + 1, 2));
    for reader in &daemons[1..] {
        assert_eq!(record::get(reader, &format!("{peer}/state")).await.value, b"next");
        assert_eq!(record::resolve(reader, &name).await.value, PATHS[1]);
    }
}

#[tokio::test]
async fn a_daemon_alone_keeps_what_it_puts_and_says_that_nobody_holds_it() {
    let daemon = daemon(&[]).await;
    assert_fails(&daemon.run(&["record", "put", "n", "v"]).await, 5, &["kept here", "0 of 20", "no_peers"]);
    let target = format!("{}/n", daemon.peer_id());
    let found = daemon.json(&["record", "get", &target]).await;
    assert_eq!((&found["value"], number(&found["answers"], "asked")), (&json!("dg=="), 0));
    assert_fails(&daemon.run(&["name", "publish", PATHS[0]]).await, 5, &["kept here"]);
    assert_eq!(daemon.json(&["name", "resolve", daemon.peer_id()]).await["value"], PATHS[0]);
    assert_eq!(record::held(&daemon, true).await.len(), 2);
    let missing = format!("{}/other", daemon.peer_id());
    assert_fails(&daemon.run(&["record", "get", &missing]).await, 4, &["not_found", "nodes were asked"]);
}

#[tokio::test]
async fn wrong_records_names_and_keys_are_refused_with_the_reason_and_nothing_is_signed() {
    let daemon = daemon(&[]).await;
    let long_name = "n".repeat(limits::MAX_RECORD_NAME_BYTES + 1);
    let long_meta = format!("k={}", "v".repeat(257));
    let much: Vec<String> = (0..17).map(|at| format!("--meta={at}=v")).collect();
    let much: Vec<&str> = ["record", "put", "n", "v"].into_iter().chain(much.iter().map(String::as_str)).collect();
    for (args, code, words) in [
        (&["record", "put", "", "v"][..], 2, &["usage", "name"][..]),
        (&["record", "put", &long_name, "v"], 2, &["137 bytes", "136"]),
        (&["record", "put", "a\nb", "v"], 2, &["control characters"]),
        (&["record", "put", "n", "v", "--meta", &long_meta], 2, &["257 bytes", "256"]),
        (&much, 2, &["metadata"]),
        (&["record", "put", "n", "v", "--replicas", "0"], 2, &["from 1 to 64"]),
        (&["record", "put", "n", "v", "--key", "none"], 4, &["there is no key none", "key ls"]),
        (&["name", "publish", PATHS[0], "--key", "none"], 4, &["there is no key none"]),
        (&["name", "resolve", "no-name"], 2, &["IPNS name"]),
        (&["key", "export", "none"], 4, &["there is no key none"]),
    ] {
        assert_fails(&daemon.run(args).await, code, words);
    }
    for (command, ask, part) in [
        ("record/put", json!({"record": {"name": "n", "value": "", "replicas": 0}}), "1 to 64"),
        ("record/put", json!({"record": {"name": "n", "value": "", "lifetime_ms": 0}}), "at most 30 days"),
        (
            "record/put",
            json!({"record": {"name": "n", "value": "", "lifetime_ms": 2_592_000_001_u64}}),
            "at most 30 days",
        ),
        ("record/get", json!({"target": format!("{}/n", daemon.peer_id()), "quorum": 65}), "1 to 64"),
        ("name/publish", json!({"name": {"value": "x"}}), "neither a CID"),
        ("name/publish", json!({"name": {"value": PATHS[0], "lifetime_ms": u64::MAX}}), "at most 365 days"),
        ("name/publish", json!({"name": {"value": PATHS[0], "ttl_ms": u64::MAX}}), "365 days"),
        ("key/gen", json!({"name": "self"}), "the node's own"),
    ] {
        let error = api_try(&daemon, command, &ask).await.expect_err("is refused");
        assert!(error.starts_with("400") && error.contains(part), "{command}: {error}");
    }
    assert_eq!(record::held(&daemon, false).await, [], "no number was spent");
}

#[tokio::test]
async fn of_commands_and_a_daemon_that_make_one_key_at_once_one_does() {
    let daemon = daemon(&[]).await;
    let commands = join_all((0..4).map(|_| daemon.run(&["key", "gen", "work"])));
    let asked = join_all((0..4).map(|_| {
        let daemon = &daemon;
        async move { api_try(daemon, "key/gen", &json!({"name": "work"})).await }
    }));
    let (commands, asked) = tokio::join!(commands, asked);
    let mut made: Vec<_> = asked.into_iter().filter_map(Result::ok).collect();
    for output in commands {
        match output.code {
            Some(0) => made.push(output.json().clone()),
            _ => assert_fails(&output, 2, &["already"]),
        }
    }
    let keys = daemon.json(&["key", "ls"]).await;
    assert_eq!(keys.as_array().expect("a list")[1..], made, "one was made, and it is the one that stands");
    assert_eq!(keys[0]["peer_id"], daemon.peer_id());
}
