use super::*;
use crate::types::GroupEvent;

#[tokio::test]
async fn commands_about_groups_ask_for_what_was_said_and_print_their_json_names() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let (peer, cid) = (bench.node.peer.to_string(), cid().to_string());
    let file = bench.home.path().join("file");
    std::fs::write(&file, "fake").expect("writes");
    let file = file.to_str().expect("UTF-8");
    let name = json!({"name": "chess"});
    let asks = |body: Value| json!({"name": "chess", "body": body});
    let info = &["group", "id", "closed", "owner", "writable", "initialized", "peers", "entries", "ticket"][..];
    let published = &["group", "producer", "session", "seq", "entry", "peers"][..];
    for (args, asked, fields) in [
        (&["create", "chess"][..], json!({"name": "chess", "closed": false, "members": []}), info),
        (
            &["create", "chess", "--closed", "--member", &peer],
            json!({"name": "chess", "closed": true, "members": [peer]}),
            info,
        ),
        (&["join", "chess", "--wait"], json!({"target": "chess", "wait": true}), info),
        (&["leave", "chess"], name.clone(), info),
        (&["publish", "chess", file], asks(json!({"content": {"path": file}})), published),
        (&["publish", "chess", &cid], asks(json!({"content": {"cid": cid}})), published),
        (&["send", "chess", "e4 e5"], asks(json!({"text": "e4 e5"})), published),
        (
            &["members", "chess", "--add", &peer, "--remove", &peer],
            json!({"name": "chess", "add": [peer], "remove": [peer]}),
            &["group", "version", "members"],
        ),
        (&["state", "chess"], name, &["root", "leaves", "members", "sum", "peers", "initialized", "heads"]),
        (&["ticket", "chess"], Value::Null, &["ticket", "group"]),
    ] {
        let done = bench.run(&[&["group"], args, &["--json"]].concat()).await;
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{args:?}");
        let value = done.json();
        assert!(fields.iter().all(|field| value.get(field).is_some()), "{args:?}: {value}");
        assert_eq!(bench.asked(), asked, "{args:?}");
    }
    let groups = bench.run(&["group", "ls", "--json"]).await.json();
    assert!(info.iter().all(|field| groups[0].get(field).is_some()), "{groups}");
}

#[tokio::test]
async fn the_log_of_a_group_is_an_array_and_for_people_shows_what_is_history() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let log = bench.run(&["group", "log", "chess", "--json"]).await.json();
    assert_eq!(bench.asked(), json!({"name": "chess", "from": null, "limit": 100}));
    for (entry, what) in log.as_array().expect("an array").iter().zip(["text", "head"]) {
        for field in ["index", "producer", "session", "seq", "recovery", "time", "received", "entry", what] {
            assert!(entry.get(field).is_some(), "{entry} has no {field}");
        }
    }
    assert_eq!((&log[0]["recovery"], log[0].get("head")), (&json!(true), None));
    let part = bench.run(&["group", "log", "chess", "--from", "1", "--limit", "7", "--json"]).await.json();
    assert_eq!(bench.asked(), json!({"name": "chess", "from": 1, "limit": 7}));
    assert_eq!((part.as_array().map(Vec::len), &part[0]["index"]), (Some(1), &json!(1)));

    let [told, own] = bench.node.group_entries();
    let people = bench.run(&["group", "log", "chess"]).await.out;
    let expected = format!(
        "0      2023-11-14 22:13:21  {}  (history) hello?[2J\n    again\n\
         1      2023-11-14 22:13:21  {}  published {}\n",
        told.producer,
        own.producer,
        cid()
    );
    assert_eq!(people, expected);
}

#[tokio::test]
async fn people_are_told_what_a_script_reads() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let peer = bench.node.peer.to_string();
    for (args, parts) in [
        (&["create", "chess"][..], &["chess", "open to all", "dagmeshgroup1"][..]),
        (&["create", "chess", "--closed"], &["closed", "and we may", &peer]),
        (&["ls"], &["GROUP", "chess", "open"]),
        (&["send", "chess", "hi"], &["number 3 in chess, told as soon as a member is connected"]),
        (&["members", "chess"], &["WRITES", &peer, "yes"]),
        (&["state", "chess"], &["abab", "3 publications of 1 session from 1 producer", "IN OUR LOG", &peer]),
        (&["leave", "chess"], &["left chess"]),
        (&["ticket", "chess", "--quiet"], &["dagmeshgroup1"]),
    ] {
        let done = bench.run(&[&["group"], args].concat()).await;
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{args:?}");
        assert!(parts.iter().all(|part| done.out.contains(part)), "{args:?}: {}", done.out);
    }
    let joined = bench.run(&["group", "join", "chess"]).await;
    assert!(joined.code == 0 && joined.err.contains("no member is connected yet"), "{}", joined.err);
    // What `create` prints for a script leads to the group.
    let ticket = bench.run(&["group", "create", "chess", "--quiet"]).await.out;
    let joined = bench.run(&["group", "join", ticket.trim(), "--json"]).await;
    assert_eq!((joined.code, &joined.json()["group"]), (0, &json!("chess")));
}

#[tokio::test]
async fn a_watch_of_a_group_prints_the_log_and_what_comes_until_the_node_ends() {
    let bench = Bench::new();
    bench.daemon(&[]).await;
    let start = |args: &[&str]| {
        let out = Printed::new();
        let args = bench.args(&[&["group", "watch", "chess"], args].concat());
        let running = tokio::spawn(run_with(Arc::clone(&bench.node), args, out.clone(), Printed::new()));
        (running, out)
    };
    let ((script, json_out), (person, out)) = (start(&["--from", "0", "--json"]), start(&["--from", "0"]));
    for (out, hello) in [(&json_out, "initialized"), (&out, "we know what the others know")] {
        let mut text = out.0.subscribe();
        within("the log", text.wait_for(|text| text.contains(hello))).await.expect("open");
    }
    let gap =
        GroupEvent::Gap { producer: bench.node.peer, session: 1, first: 2, last: 5, reason: "its chain\nends".into() };
    bench.node.group_events.send(gap).expect("somebody listens");
    for out in [&json_out, &out] {
        let mut text = out.0.subscribe();
        within("the gap", text.wait_for(|text| text.contains("its chain"))).await.expect("open");
    }
    assert_eq!(bench.run(&["shutdown"]).await.code, 0);
    for watching in [script, person] {
        assert_eq!(within("the end of watch", watching).await.expect("no panic"), 0);
    }
    let events = json_out.text();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>();
    let names = events.iter().map(|event| event["event"].as_str().expect("a name")).collect::<Vec<_>>();
    assert_eq!(names, ["entry", "entry", "initialized", "gap"]);
    assert_eq!((&events[0]["text"], &events[1]["head"]), (&json!("hello\u{1b}[2J\nagain"), &json!(cid().to_string())));
    assert!(out.text().contains("(history) hello?[2J\n    again\n"), "{}", out.text());
    assert!(out.text().ends_with(&format!("* 2 to 5 of {} cannot be had: its chain?ends\n", bench.node.peer)));
}

#[tokio::test]
async fn what_no_group_can_be_asked_is_named() {
    let bench = Bench::new();
    let long = "x".repeat(dagmesh_core::limits::MAX_GROUP_TEXT_BYTES + 1);
    for (args, code, part) in [
        (&["send", "chess", &long][..], 2, "the text has more than 16384 bytes"),
        (&["send", "chess", ""], 2, "there is no text"),
        (&["create", "chess", "--member", "12D3"], 2, "12D3"),
        (&["create", "chess", "--member", &bench.node.peer.to_string()], 2, "--closed"),
        (&["join", ""], 2, "1 to 128 bytes"),
        (&["join", "dagmeshgroup1aaaa"], 2, "the ticket has a typo"),
        (&["publish", "chess", "/no/such"], 4, "no such file"),
        (&["ls"], 3, "dagmesh daemon"),
        (&["send", "chess", &long[1..]], 3, "dagmesh daemon"),
    ] {
        let failed = bench.run(&[&["group"], args].concat()).await;
        assert_eq!((failed.code, failed.out.as_str()), (code, ""), "{args:?}: {}", failed.err);
        assert!(failed.err.contains(part), "{args:?}: {}", failed.err);
    }
    bench.daemon(&[]).await;
    for args in [&["log", "nowhere"][..], &["watch", "nowhere"], &["ticket", "nowhere"], &["state", "nowhere"]] {
        let failed = bench.run(&[&["group"], args, &["--json"]].concat()).await;
        assert_eq!((failed.code, failed.out.as_str()), (4, ""), "{args:?}");
        assert!(failed.err.contains(r#""kind":"not_found""#), "{args:?}: {}", failed.err);
    }
}
