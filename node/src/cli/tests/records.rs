use dagmesh_core::limits::{MAX_KEY_FILE_BYTES, MAX_RECORD_VALUE_BYTES};
use data_encoding::BASE64;
use libp2p::identity::Keypair;

use super::*;
use crate::{fake::resolved, types::RecordTarget};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn peer_id() -> String {
    Keypair::generate_ed25519().public().to_peer_id().to_string()
}

#[tokio::test]
async fn commands_about_records_ask_for_what_was_said_and_print_their_json_names() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let (peer, cid) = (peer_id(), cid().to_string());
    let file = bench.home.path().join("value");
    std::fs::write(&file, [0, 0xff]).expect("writes");
    let file = format!("@{}", file.to_str().expect("UTF-8"));
    let put = |name: &str, value: &[u8], ms: u64, replicas: u64, meta: Value, key: Value| {
        let value = BASE64.encode(value);
        let record = json!({"name": name, "value": value, "lifetime_ms": ms, "replicas": replicas, "meta": meta});
        json!({"key": key, "record": record})
    };
    let name = |value: &str, lifetime: u64, ttl: u64, replicas: u64, key: Value| {
        let name = json!({"value": value, "lifetime_ms": lifetime, "ttl_ms": ttl, "replicas": replicas});
        json!({"key": key, "name": name})
    };
    let done = &["key", "seq", "replicas", "expires", "holders", "wanted", "asked", "refused", "complete"][..];
    let found = &["key", "name", "value", "seq", "expires", "owner", "time", "meta", "answers"][..];
    let resolved = &["name", "value", "seq", "expires", "ttl_ms", "answers"][..];
    let target = format!("{peer}/a/b");
    let key = RecordTarget::key_text(&target.parse::<RecordTarget>().expect("a target").key());
    let ipns = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
    for (args, asked, fields) in [
        (&["record", "put", "n", "text"][..], put("n", b"text", 7 * DAY_MS, 20, json!({}), Value::Null), done),
        (
            &["record", "put", "n", "-x", "--expires", "90s", "--replicas", "64", "--meta", "a=b=c", "--key", "work"],
            put("n", b"-x", 90_000, 64, json!({"a": "b=c"}), json!("work")),
            done,
        ),
        (&["record", "put", "n", &file], put("n", &[0, 0xff], 7 * DAY_MS, 20, json!({}), Value::Null), done),
        (&["record", "put", "n", "@@x"], put("n", b"@x", 7 * DAY_MS, 20, json!({}), Value::Null), done),
        (&["record", "get", &target], json!({"target": target, "quorum": 16}), found),
        (&["record", "get", &key, "--quorum", "1"], json!({"target": key, "quorum": 1}), found),
        (&["name", "publish", &cid], name(&format!("/ipfs/{cid}"), 2 * DAY_MS, 300_000, 20, Value::Null), done),
        (
            &["name", "publish", "/ipns/a.b/c", "--key", "work", "--lifetime", "1w", "--ttl", "0s", "--replicas", "1"],
            name("/ipns/a.b/c", 7 * DAY_MS, 0, 1, json!("work")),
            done,
        ),
        (&["name", "resolve", &format!("/ipns/{ipns}")], json!({"name": ipns, "quorum": 16}), resolved),
    ] {
        let done = bench.run(&[args, &["--json"]].concat()).await;
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{args:?}");
        let value = done.json();
        assert!(fields.iter().all(|field| value.get(field).is_some()), "{args:?}: {value}");
        assert_eq!(bench.asked(), asked, "{args:?}");
    }
    // Every form in which a name is written.
    let named: dagmesh_records::IpnsName = ipns.parse().expect("a name");
    for text in [named.peer_id().to_string(), format!("/ipns/{}", named.peer_id())] {
        assert_eq!(bench.run(&["name", "resolve", &text]).await.code, 0);
        assert_eq!(bench.asked(), json!({"name": ipns, "quorum": 16}));
    }
    let held = bench.run(&["record", "ls", "--own", "--json"]).await.json();
    assert_eq!(bench.asked(), json!({"own": true}));
    for field in ["key", "ipns", "owner", "name", "seq", "expires", "from"] {
        assert!(held[0].get(field).is_some(), "{held}");
    }
}

#[tokio::test]
async fn people_read_how_many_of_how_many_hold_a_record() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let (peer, cid) = (peer_id(), cid().to_string());
    let target = format!("{peer}/n");
    for (args, parts) in [
        (
            &["record", "put", "n", "v"][..],
            &["/dagmesh/record/", "1 of 3 wanted nodes; 2 asked", "2023-11-14", "no?room"][..],
        ),
        (
            &["record", "get", &target],
            &[
                "value ?[2J",
                "2 of 4 nodes that were asked, 1 had an older one, 1 had none; 16 were wanted",
                "type = text",
                "2023-11-14 22:13:20",
            ],
        ),
        (&["record", "get", &format!("{peer}/bytes")], &["2 B that are no text"]),
        (&["record", "ls"], &["NUMBER", "us", "/ipns/k", "2023-11-16"]),
        (&["name", "publish", &cid], &["/ipns/k", "1 of 3 wanted nodes", &cid]),
        (&["name", "resolve", &peer], &["/ipfs/x", "2 of 4 nodes", "5 min"]),
    ] {
        let done = bench.run(args).await;
        assert_eq!(done.code, 0, "{args:?}: {}", done.err);
        assert!(parts.iter().all(|part| done.out.contains(part)), "{args:?}: {}", done.out);
        let incomplete = done.err.contains("1 of 3 wanted nodes hold it; it is put again about every 4h");
        assert_eq!(incomplete, args[1].starts_with("pu"), "{args:?}: {}", done.err);
    }
    // What a script wants, and no more.
    let key = bench.run(&["record", "put", "n", "v", "--quiet"]).await;
    assert!(key.out.starts_with("/dagmesh/record/") && key.err.is_empty(), "{} {}", key.out, key.err);
    assert_eq!(bench.run(&["record", "get", key.out.trim(), "--quiet"]).await.out, "value \u{1b}[2J");
    assert_eq!(bench.run(&["name", "resolve", &peer, "--quiet"]).await.out, "/ipfs/x\n");
    let name = bench.run(&["name", "publish", &cid, "--quiet"]).await.out;
    assert_eq!(bench.run(&["name", "resolve", name.trim()]).await.code, 0, "what one prints the other reads");
}

#[tokio::test]
async fn a_stream_of_a_name_prints_each_newer_record_until_the_node_ends() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let peer = peer_id();
    let start = |args: &[&str]| {
        let out = Printed::new();
        let args = bench.args(&[&["name", "resolve", &peer, "--stream"], args].concat());
        let running = tokio::spawn(run_with(Arc::clone(&bench.node), args, out.clone(), Printed::new()));
        (running, out)
    };
    let all = [start(&["--json"]), start(&[]), start(&["--quiet"])];
    let wait = async |part: &str| {
        for (_, out) in &all {
            let mut text = out.0.subscribe();
            within("a line", text.wait_for(|text| text.contains(part))).await.expect("open");
        }
    };
    wait("/ipfs/x").await;
    bench.node.name_events.send(resolved("/ipfs/y\u{1b}", 8)).expect("somebody listens");
    wait("/ipfs/y").await;
    assert_eq!(bench.run(&["shutdown"]).await.code, 0);
    let [json_out, out, quiet] = all.each_ref().map(|(_, out)| out.clone());
    for (running, _) in all {
        assert_eq!(within("the end of the stream", running).await.expect("no panic"), 0);
    }
    let lines = json_out.text();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>();
    assert_eq!(lines.iter().map(|line| line["seq"].as_u64()).collect::<Vec<_>>(), [Some(7), Some(8)]);
    assert_eq!(lines[1]["value"], "/ipfs/y\u{1b}");
    assert_eq!(out.text(), "7      /ipfs/x\n8      /ipfs/y?\n");
    assert_eq!(quiet.text(), "/ipfs/x\n/ipfs/y?\n");
}

#[tokio::test]
async fn keys_need_no_daemon_and_go_from_home_to_home() {
    let (bench, other) = (Bench::new(), Bench::new());
    let none = bench.run(&["key", "ls"]).await;
    assert!(none.code == 0 && none.out.contains("dagmesh key gen"), "{}", none.out);
    let made = bench.run(&["key", "gen", "work", "--json"]).await.json();
    for field in ["name", "peer_id", "ipns", "type", "public_key", "own"] {
        assert!(made.get(field).is_some(), "{made}");
    }
    assert_eq!(bench.run(&["init"]).await.code, 0);
    let keys = bench.run(&["key", "ls", "--json"]).await.json();
    assert_eq!((&keys[0]["name"], &keys[0]["own"], &keys[1]), (&json!("self"), &json!(true), &made));
    let people = bench.run(&["key", "ls"]).await.out;
    assert!(["self (the node)", "work", made["ipns"].as_str().expect("text")].iter().all(|part| people.contains(part)));

    let file = bench.home.path().join("work.key");
    let file = file.to_str().expect("UTF-8");
    let written = bench.run(&["key", "export", "work", "-o", file, "--json"]).await.json();
    assert_eq!(written, json!({"name": "work", "file": file}));
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).expect("is there").permissions()) & 0o777,
        0o600
    );
    let exists = bench.run(&["key", "export", "work", "-o", file]).await;
    assert!(exists.code == 1 && exists.err.contains("exists"), "{}", exists.err);
    let exported = bench.run(&["key", "export", "work", "--json"]).await.json();
    let bytes = BASE64.decode(exported["key"].as_str().expect("text").as_bytes()).expect("base64");
    assert_eq!(bytes, std::fs::read(file).expect("reads"));

    let taken = other.run(&["key", "import", "theirs", file, "--json"]).await.json();
    assert_eq!((&taken["name"], &taken["peer_id"]), (&json!("theirs"), &made["peer_id"]));
    assert_eq!(other.run(&["key", "import", "more", file, "--quiet"]).await.out.trim(), made["ipns"]);

    let out = Printed::new();
    let err = Printed::new();
    let streams = Streams {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        out_is_terminal: true,
        err_is_terminal: false,
    };
    let shown = run(&FakeBackend(Arc::clone(&bench.node)), bench.args(&["key", "export", "work"]), streams).await;
    assert!(shown == 2 && out.text().is_empty() && err.text().contains("-o FILE"), "{}", err.text());
}

#[tokio::test]
async fn what_no_record_name_or_key_can_be_asked_is_named() {
    let bench = Bench::new();
    let long = "x".repeat(MAX_RECORD_VALUE_BYTES + 1);
    let path = |name: &str, len: usize| {
        let path = bench.home.path().join(name);
        std::fs::write(&path, "x".repeat(len)).expect("writes");
        path.to_str().expect("UTF-8").to_owned()
    };
    let large = format!("@{}", path("large", MAX_RECORD_VALUE_BYTES + 1));
    let (key, large_key) = (path("no-key", 10), path("large-key", MAX_KEY_FILE_BYTES + 1));
    let cid = cid().to_string();
    assert_eq!(bench.run(&["key", "gen", "work"]).await.code, 0);
    for (args, code, part) in [
        (&["record", "put", "n", &long][..], 2, "more than 8192 bytes"),
        (&["record", "put", "n", &large], 2, "more than 8192 bytes"),
        (&["record", "put", "n", "@/no/such"], 4, "/no/such"),
        (&["record", "put", "n", "v", "--expires", "31d"], 2, "from 1s to 30d"),
        (&["record", "put", "n", "v", "--replicas", "0"], 2, "from 1 to 64"),
        (&["record", "put", "n", "v", "--replicas", "65"], 2, "from 1 to 64"),
        (&["record", "put", "n", "v", "--meta", "x"], 2, "KEY=TEXT"),
        (&["record", "put", "n", "v", "--meta", "a=b", "--meta", "a=c"], 2, "given twice"),
        (&["record", "put", "n", "v", "--key", "a/b"], 2, "A-Z a-z 0-9"),
        (&["record", "get", "name"], 2, "PUBLICKEY/NAME"),
        (&["record", "get", &format!("/ipns/{}", peer_id())], 2, "dagmesh name resolve"),
        (&["record", "get", &format!("{}/n", peer_id()), "--quorum", "0"], 2, "from 1 to 64"),
        (&["name", "publish", "no-cid"], 2, "neither a CID"),
        (&["name", "publish", &cid, "--lifetime", "366d"], 2, "from 1s to 365d"),
        (&["name", "publish", &cid, "--ttl", "x"], 2, "from 0s to 365d"),
        (&["name", "resolve", &cid], 2, "not of a key"),
        (&["name", "resolve", &peer_id(), "--stream", "--quorum", "3"], 2, "--quorum"),
        (&["key", "gen", "work"], 2, "already"),
        (&["key", "gen", "self"], 2, "the node's own"),
        (&["key", "gen", "../x"], 2, "A-Z a-z 0-9"),
        (&["key", "export", "none"], 4, "there is no key none"),
        (&["key", "export", "self"], 4, "dagmesh init"),
        (&["key", "import", "x", "/no/such"], 4, "/no/such"),
        (&["key", "import", "x", &key], 2, "libp2p's protobuf"),
        (&["key", "import", "x", &large_key], 2, "more than 8192 bytes"),
        (&["record", "ls"], 3, "dagmesh daemon"),
        (&["name", "resolve", &peer_id(), "--stream"], 3, "dagmesh daemon"),
    ] {
        let failed = bench.run(args).await;
        assert_eq!((failed.code, failed.out.as_str()), (code, ""), "{args:?}: {}", failed.err);
        assert!(failed.err.contains(part), "{args:?}: {}", failed.err);
    }
    bench.daemon(&[]).await;
    let failed = bench.run(&["record", "get", &format!("{}/nowhere", peer_id()), "--json"]).await;
    assert_eq!((failed.code, failed.out.as_str()), (4, ""));
    assert!(
        failed.err.contains(r#""kind":"not_found""#) && failed.err.contains("3 nodes were asked"),
        "{}",
        failed.err
    );
}
