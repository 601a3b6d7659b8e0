use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::{
    fake::{FakeNode, cid, within},
    types::{Event, GroupEvent},
};

struct Served {
    node: Arc<FakeNode>,
    server: Server,
    token: Token,
    addr: SocketAddr,
    _home: tempfile::TempDir,
}

async fn serve() -> Served {
    let home = tempfile::tempdir().expect("a folder");
    let token = Token::load_or_create(&home.path().join("api.token")).expect("a token");
    let config = ApiConfig { listen: "127.0.0.1:0".parse().expect("an address"), ..ApiConfig::default() };
    let bound = Bound::bind(&config).await.expect("binds");
    let ApiAddr::Tcp(addr) = *bound.addr() else { panic!("no TCP") };
    let node = FakeNode::new();
    Served { server: bound.serve(Arc::clone(&node), token.clone()), node, token, addr, _home: home }
}

impl Served {
    /// Sends a request as it stands and gives all that comes back.
    async fn raw(&self, request: String) -> String {
        let mut io = TcpStream::connect(self.addr).await.expect("connects");
        io.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = Vec::new();
        // A server that cuts the connection may end it with a reset.
        let _ = within("the answer", io.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn request(&self, command: &str, headers: &str, body: &str) -> String {
        format!(
            "POST /api/v1/{command} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.addr,
            body.len()
        )
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token.as_str())
    }

    async fn call(&self, command: &str, body: &str) -> String {
        self.raw(self.request(command, &self.bearer(), body)).await
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The JSON lines of an answer, whatever its chunks are.
fn lines(answer: &str) -> Vec<Value> {
    answer.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
}

#[tokio::test]
async fn without_the_token_nothing_is_answered() {
    let served = serve().await;
    assert_eq!(status(&served.raw(served.request("id", "", "")).await), 401);
    let wrong = format!("Authorization: Bearer {}\r\n", "0".repeat(64));
    assert_eq!(status(&served.raw(served.request("id", &wrong, "")).await), 401);
    let answer = served.call("id", "").await;
    assert_eq!(status(&answer), 200);
    assert_eq!(lines(&answer)[0]["result"]["peer_id"], served.node.peer.to_string());
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_even_with_the_token() {
    let served = serve().await;
    let own = served.request("id", &served.bearer(), "");
    let foreign = own.replace(&format!("Host: {}", served.addr), "Host: evil.example");
    assert_eq!(status(&served.raw(foreign).await), 403);
    let page = served.request("id", &format!("{}Origin: http://evil.example\r\n", served.bearer()), "");
    assert_eq!(status(&served.raw(page).await), 403);
    let same = served.request("id", &format!("{}Origin: http://{}\r\n", served.bearer(), served.addr), "");
    assert_eq!(status(&served.raw(same).await), 200);
}

#[tokio::test]
async fn health_needs_no_token_and_turns_red_as_soon_as_the_stop_begins() {
    let served = serve().await;
    let health = format!("GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", served.addr);
    assert_eq!(status(&served.raw(health.clone()).await), 200);
    assert_eq!(status(&served.call("shutdown", "").await), 200);
    assert!(served.server.stopping().is_cancelled());
    assert_eq!(status(&served.raw(health).await), 503);
    let refused = served.call("id", "").await;
    assert_eq!((status(&refused), &lines(&refused)[0]["error"]["kind"]), (503, &json!("unavailable")));
    within("the server's end", served.server.stop()).await;
    assert!(TcpStream::connect(served.addr).await.is_err(), "the socket is closed");
}

#[tokio::test]
async fn a_long_command_tells_its_progress_and_then_its_result() {
    let served = serve().await;
    let lines = lines(&served.call("add", r#"{"path": "/x"}"#).await);
    let done = lines.iter().filter_map(|line| line["progress"]["done_blocks"].as_u64()).collect::<Vec<_>>();
    assert_eq!(done, [1, 2, 3]);
    assert_eq!(lines.last().expect("a line")["result"]["cid"], cid().to_string());
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn an_error_has_the_status_of_its_kind() {
    let served = serve().await;
    for (command, body, expected, kind) in [
        ("head", r#"{"feed": "timeout"}"#, 504, "timeout"),
        ("head", r#"{"feed": "not_found"}"#, 404, "not_found"),
        ("head", r#"{"feed": "unauthorised"}"#, 403, "unauthorised"),
        ("sync", r#"{"target": "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8"}"#, 500, "error"),
        ("sync", r#"{"target": "nobody"}"#, 400, "usage"),
        ("ls", r#"{"cid": "bafynonsense"}"#, 400, "usage"),
        ("ls", "{", 400, "usage"),
        ("add", r#"{"path": "x"}"#, 400, "usage"),
        ("publish", r#"{"content": {"path": "x"}}"#, 400, "usage"),
        ("gc", r#"{"dry_rum": true}"#, 400, "usage"),
        ("cat", &format!(r#"{{"cid": "{}", "offset": 2}}"#, cid()), 422, "verification"),
        ("group/create", r#"{"name": "x", "colsed": true}"#, 400, "usage"),
        ("group/join", r#"{"target": ""}"#, 400, "usage"),
        ("group/publish", r#"{"name": "x", "body": {"content": {"path": "x"}}}"#, 400, "usage"),
        ("group/watch", r#"{"name": "nowhere"}"#, 404, "not_found"),
        ("group/watch", "", 400, "usage"),
        ("no/such", "", 404, "not_found"),
    ] {
        let answer = served.call(command, body).await;
        assert_eq!(
            (status(&answer), &lines(&answer)[0]["error"]["kind"]),
            (expected, &json!(kind)),
            "{command} {body}"
        );
    }
}

#[tokio::test]
async fn a_body_is_taken_at_the_cap_and_refused_beyond_it() {
    let served = serve().await;
    let body = |len: usize| format!("{{}}{}", " ".repeat(len - 2));
    assert_eq!(status(&served.call("id", &body(limits::MAX_API_BODY_BYTES)).await), 200);
    // Without the body: the server may answer and close before it has read it all.
    let head = format!(
        "POST /api/v1/id HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n",
        served.addr,
        limits::MAX_API_BODY_BYTES + 1,
        served.bearer()
    );
    assert_eq!(status(&served.raw(head).await), 413);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_work() {
    let served = serve().await;
    let request = served.request("add", &served.bearer(), r#"{"path": "/x", "hidden": true}"#);
    let mut io = TcpStream::connect(served.addr).await.expect("connects");
    io.write_all(request.as_bytes()).await.expect("writes");
    let mut first = [0; 15];
    within("the first line", io.read_exact(&mut first)).await.expect("reads");
    assert_eq!(served.node.dropped.available_permits(), 0, "it runs");
    drop(io);
    drop(within("the end of the work", served.node.dropped.acquire()).await);
}

#[tokio::test]
async fn watch_gives_each_event_until_the_node_stops() {
    let served = serve().await;
    let mut io = TcpStream::connect(served.addr).await.expect("connects");
    io.write_all(served.request("watch", &served.bearer(), "").as_bytes()).await.expect("writes");
    let mut answer = String::new();
    read_until(&mut io, &mut answer, "lagged").await;
    let event = Event::Published { feed: Default::default(), head: cid(), seq: 3 };
    served.node.events.send(event).expect("somebody listens");
    read_until(&mut io, &mut answer, "published").await;
    ends_with_the_node(&served, io).await;
    let lines = lines(&answer);
    assert_eq!((&lines[1]["event"], &lines[1]["seq"]), (&json!("published"), &json!(3)));
    assert!(lines[1]["time"].as_u64() > Some(1_600_000_000_000));
}

/// Reads on until `text` has come.
async fn read_until(io: &mut TcpStream, answer: &mut String, text: &str) {
    while !answer.contains(text) {
        let mut piece = [0; 4096];
        let len = within(text, io.read(&mut piece)).await.expect("reads");
        assert!(len > 0, "ended early: {answer}");
        answer.push_str(&String::from_utf8_lossy(&piece[..len]));
    }
}

/// Stops the node, which ends an answer in good order.
async fn ends_with_the_node(served: &Served, mut io: TcpStream) {
    served.server.begin_stop();
    let mut rest = String::new();
    within("the end", io.read_to_string(&mut rest)).await.expect("a clean end");
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
}

#[tokio::test]
async fn each_command_about_groups_has_its_route_and_its_names() {
    let served = serve().await;
    for (command, body, fields) in [
        ("group/create", json!({"name": "chess", "closed": true}), &["group", "id", "closed", "owner", "ticket"][..]),
        ("group/join", json!({"target": "chess", "wait": true}), &["group", "initialized", "peers", "entries"]),
        ("group/leave", json!({"name": "chess"}), &["group"]),
        ("group/list", json!({}), &[]),
        ("group/publish", json!({"name": "chess", "body": {"text": "x"}}), &["group", "producer", "session", "seq"]),
        ("group/publish", json!({"name": "chess", "body": {"content": {"cid": cid().to_string()}}}), &["head"]),
        ("group/log", json!({"name": "chess", "limit": 1}), &[]),
        ("group/members", json!({"name": "chess", "add": [served.node.peer]}), &["group", "version", "members"]),
        ("group/state", json!({"name": "chess"}), &["root", "leaves", "members", "sum", "heads"]),
    ] {
        let answer = served.call(command, &body.to_string()).await;
        assert_eq!(status(&answer), 200, "{command}: {answer}");
        let result = lines(&answer).last().expect("a line")["result"].clone();
        assert!(fields.iter().all(|field| result.get(field).is_some()), "{command}: {result}");
        assert!(!fields.is_empty() || result[0].is_object(), "{command}: {result}");
    }
}

#[tokio::test]
async fn each_command_about_records_names_and_keys_has_its_route_and_its_names() {
    let served = serve().await;
    let peer = served.node.peer.to_string();
    let target = format!("{peer}/n");
    let done = &["key", "seq", "replicas"][..];
    for (command, body, fields) in [
        ("record/put", json!({"record": {"name": "n", "value": "dg=="}}), done),
        ("record/get", json!({"target": target}), &["key", "name", "value", "seq", "expires"]),
        ("record/list", json!({}), &[]),
        ("name/publish", json!({"key": "work", "name": {"value": "/ipfs/x"}}), done),
        ("name/resolve", json!({"name": peer, "quorum": 3}), &["name", "value", "seq"]),
        ("name/watch", json!({"name": peer}), &[]),
        ("key/list", json!({}), &[]),
        ("key/export", json!({"name": "work"}), &["name", "key"]),
    ] {
        if command == "name/watch" {
            let mut io = TcpStream::connect(served.addr).await.expect("connects");
            let request = served.request(command, &served.bearer(), &body.to_string());
            io.write_all(request.as_bytes()).await.expect("writes");
            let mut answer = String::new();
            read_until(&mut io, &mut answer, "/ipfs/x").await;
            served.node.name_events.send(crate::fake::resolved("/ipfs/y", 8)).expect("somebody listens");
            read_until(&mut io, &mut answer, "/ipfs/y").await;
            let seqs = lines(&answer).iter().map(|line| line["seq"].as_u64()).collect::<Vec<_>>();
            assert_eq!(seqs, [Some(7), Some(8)]);
            continue;
        }
        let answer = served.call(command, &body.to_string()).await;
        assert_eq!(status(&answer), 200, "{command}: {answer}");
        let result = lines(&answer).last().expect("a line")["result"].clone();
        assert!(fields.iter().all(|field| result.get(field).is_some()), "{command}: {result}");
        assert!(!fields.is_empty() || result.is_array(), "{command}: {result}");
    }
    for (command, body, part) in [
        ("record/put", json!({"record": {"name": "n", "value": "?"}}), "wrong request"),
        ("record/put", json!({"record": {"name": "n", "value": ""}, "sequence": 1}), "sequence"),
        ("record/get", json!({"target": "n"}), "PUBLICKEY/NAME"),
        ("name/resolve", json!({"name": "x"}), "wrong request"),
        ("key/gen", json!({"name": "../x"}), "no name of a key"),
        ("key/import", json!({"name": "x", "key": [1]}), "wrong request"),
    ] {
        let answer = served.call(command, &body.to_string()).await;
        assert!(status(&answer) == 400 && answer.contains(part), "{command}: {answer}");
    }
}

#[tokio::test]
async fn a_watch_of_a_group_tells_the_log_and_then_what_comes_each_with_its_time() {
    let served = serve().await;
    let mut io = TcpStream::connect(served.addr).await.expect("connects");
    let request = served.request("group/watch", &served.bearer(), r#"{"name": "chess", "from": 1}"#);
    io.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    read_until(&mut io, &mut answer, "initialized").await;
    served.node.group_events.send(GroupEvent::MembersChanged { version: 2 }).expect("somebody listens");
    read_until(&mut io, &mut answer, "members_changed").await;
    ends_with_the_node(&served, io).await;
    let lines = lines(&answer);
    let names = lines.iter().map(|line| line["event"].as_str().expect("a name")).collect::<Vec<_>>();
    assert_eq!(names, ["entry", "initialized", "members_changed"]);
    let entry = &served.node.group_entries()[1];
    assert_eq!((&lines[0]["index"], &lines[0]["time"]), (&json!(1), &json!(entry.time)), "the producer's time");
    assert!(lines[2]["time"].as_u64() > Some(entry.time), "the time of the line");
    // What is written is what a client reads.
    let read = lines.iter().map(|line| serde_json::from_value::<GroupEvent>(line.clone()).expect("reads"));
    let read = read.collect::<Vec<_>>();
    assert_eq!(read[0], GroupEvent::Entry(Box::new(entry.clone())));
    assert_eq!(read[1..], [GroupEvent::Initialized, GroupEvent::MembersChanged { version: 2 }]);
}

#[tokio::test]
async fn an_error_after_the_first_bytes_is_never_taken_for_the_end() {
    let served = serve().await;
    let body = format!(r#"{{"cid": "{}", "offset": 1}}"#, cid());
    let cut = served.call("cat", &body).await;
    assert!(!cut.contains("0\r\n\r\n") && !cut.contains("three"), "{cut:?}");
    let headers = format!("{}TE: trailers\r\n", served.bearer());
    let told = served.raw(served.request("cat", &headers, &body)).await;
    assert!(told.contains("one") && told.contains("dagmesh-error: {\"kind\":\"verification\""), "{told:?}");
    assert!(!told.contains("three"), "{told:?}");
    let whole = served.call("cat", &format!(r#"{{"cid": "{}"}}"#, cid())).await;
    assert!(whole.contains("one") && whole.contains("two") && whole.ends_with("0\r\n\r\n"), "{whole:?}");
}

#[tokio::test]
async fn a_taken_port_and_an_address_of_the_world_are_refused_before_anything_runs() {
    let served = serve().await;
    let config = |listen: &str| ApiConfig { listen: listen.parse().expect("an address"), ..ApiConfig::default() };
    let taken = Bound::bind(&config(&served.addr.to_string())).await.expect_err("taken");
    assert!(taken.message.contains(&served.addr.to_string()) && taken.message.contains("dagmesh status"), "{taken}");
    let world = Bound::bind(&config("0.0.0.0:0")).await.expect_err("the world");
    assert!(world.message.contains("allow_remote"), "{world}");
}

#[tokio::test]
async fn one_connection_more_than_the_cap_waits_until_another_closes() {
    let served = serve().await;
    let health = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", served.addr);
    let mut open = Vec::new();
    for _ in 0..limits::MAX_API_CONNECTIONS {
        let mut io = TcpStream::connect(served.addr).await.expect("connects");
        io.write_all(health.as_bytes()).await.expect("writes");
        assert!(within("an answer", io.read(&mut [0; 1024])).await.expect("reads") > 0);
        open.push(io);
    }
    let mut one_more = TcpStream::connect(served.addr).await.expect("the kernel takes it");
    one_more.write_all(health.as_bytes()).await.expect("writes");
    let early = tokio::time::timeout(Duration::from_millis(300), one_more.read(&mut [0; 1024])).await;
    assert!(early.is_err(), "answered over the cap");
    open.pop();
    assert!(within("an answer", one_more.read(&mut [0; 1024])).await.expect("reads") > 0);
}
