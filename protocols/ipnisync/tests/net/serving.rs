//! What the server answers, byte by byte where it counts.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dagmesh_core::limits::{
    MAX_ANNOUNCEMENT_BYTES, MAX_HTTP_CONNECTIONS_PER_SOURCE, MAX_HTTP_REQUESTS, MAX_HTTP_STREAMS_PER_PEER,
    MAX_IPNI_ANNOUNCEMENT_JSON_BYTES,
};
use dagmesh_ipnisync::net::{HTTP, Refusal, Server, tls_config};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::identity::Keypair;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::*;

/// Sends bytes and reads what comes back until the server ends the connection.
pub(crate) async fn tell(addr: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut tcp = TcpStream::connect(addr).await.expect("connects");
    let _ = tcp.write_all(request.as_ref()).await;
    let mut answer = Vec::new();
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(addr: SocketAddr, line: &str) -> String {
    tell(addr, format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn heads_and_blocks_are_served_as_they_are_with_and_without_the_path() {
    let key = Keypair::generate_ed25519();
    let (chain, blocks) = Chain::of(&key, 1);
    // Neither canonical nor JSON: what is stored is what is served.
    let odd = raw(&b"{ \"a\" :1 }\n\xff"[..]);
    chain.hold([&odd]);
    let signed = chain.head.lock().expect("not poisoned").clone().expect("a head");
    let (addr, _) = serve_tcp(&Server::new(chain), None).await;
    for base in ["/ipni/v1/ad", ""] {
        let answer = ask(addr, &format!("GET {base}/head")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(std::str::from_utf8(&signed).expect("text")), "{answer}");
        for block in [&blocks[0], &odd] {
            let answer = ask(addr, &format!("GET {base}/{}", block.cid())).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains(&format!("content-length: {}\r\n", block.data().len())), "{answer}");
            assert!(answer.ends_with(&*String::from_utf8_lossy(block.data())), "{answer}");
            let head_only = ask(addr, &format!("HEAD {base}/{}", block.cid())).await;
            assert_eq!(head_only.lines().next(), answer.lines().next());
            assert!(head_only.contains(&format!("content-length: {}\r\n", block.data().len())), "{head_only}");
            assert!(head_only.ends_with("\r\n\r\n"), "{head_only}");
        }
    }
}

#[tokio::test]
async fn each_wrong_request_has_its_status() {
    let chain = Arc::new(Chain::default());
    let unreadable = raw("unreadable");
    chain.hold([&unreadable]);
    let (addr, _) = serve_tcp(&Server::new(chain.clone()), None).await;
    let missing = *raw("none").cid();
    for (line, status, holds) in [
        ("GET /ipni/v1/ad/head".to_owned(), "204 No Content", ""),
        (format!("GET /ipni/v1/ad/{missing}"), "404 Not Found", ""),
        ("GET /ipni/v1/ad/bafy".to_owned(), "400 Bad Request", "no CID"),
        ("GET /favicon.ico".to_owned(), "400 Bad Request", ""),
        (format!("GET /{}", "b".repeat(5000)), "400 Bad Request", ""),
        ("GET /ipni/v1/ad/".to_owned(), "404 Not Found", ""),
        ("GET /".to_owned(), "404 Not Found", ""),
        (format!("GET /ipni/v1/ad/x/{missing}"), "404 Not Found", ""),
        (format!("GET /ipni/v1/ad//{missing}"), "404 Not Found", ""),
        ("GET /ipni/v1/ad/../../../etc/passwd".to_owned(), "404 Not Found", ""),
        (format!("GET /ipni/v1/ad/{}", unreadable.cid()), "500 Internal Server Error", ""),
        (format!("POST /ipni/v1/ad/{missing}"), "405 Method Not Allowed", "allow: GET, HEAD\r\n"),
        ("DELETE /ipni/v1/ad/head".to_owned(), "405 Method Not Allowed", "allow: GET, HEAD\r\n"),
        ("GET /announce".to_owned(), "405 Method Not Allowed", "allow: PUT\r\n"),
    ] {
        let answer = ask(addr, &line).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {answer}");
        assert!(answer.contains(holds), "{line}: {answer}");
        assert!(!answer.contains("secret"), "inner details stay inside: {answer}");
    }
    chain.closed.store(true, Ordering::SeqCst);
    let answer = ask(addr, "GET /ipni/v1/ad/head").await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
}

#[tokio::test]
async fn both_documents_say_where_the_protocol_is_served() {
    let (addr, _) = serve_tcp(&Server::new(Arc::new(Chain::default())), None).await;
    for path in ["/.well-known/libp2p/protocols", "/.well-known/libp2p"] {
        let answer = ask(addr, &format!("GET {path}")).await;
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
        assert!(answer.ends_with(r#"{"/ipni/v1/ad":{"path":"/ipni/v1/ad/"}}"#), "{answer}");
    }
}

#[tokio::test]
async fn an_announcement_of_the_cap_is_taken_and_one_byte_more_is_not() {
    let chain = Arc::new(Chain::default());
    let (addr, _) = serve_tcp(&Server::new(chain.clone()), None).await;
    for (media_type, max) in [
        ("application/octet-stream", MAX_ANNOUNCEMENT_BYTES),
        ("application/json", MAX_IPNI_ANNOUNCEMENT_JSON_BYTES),
        ("Application/JSON; charset=utf-8", MAX_IPNI_ANNOUNCEMENT_JSON_BYTES),
    ] {
        let head = format!("PUT /announce HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {media_type}\r\n");
        for (len, status) in [(max, "204 No Content"), (max + 1, "413 Payload Too Large")] {
            let body = "x".repeat(len);
            for request in [
                format!("{head}content-length: {len}\r\n\r\n{body}"),
                format!("{head}transfer-encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n"),
            ] {
                let answer = tell(addr, request).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{media_type} {len}: {answer}");
            }
        }
    }
    assert_eq!(chain.announced.lock().expect("not poisoned").len(), 6, "what is too long does not reach the node");
    let other = "PUT /announce HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/html\r\n\r\n";
    assert!(tell(addr, other).await.starts_with("HTTP/1.1 415 "));
    *chain.refusal.lock().expect("not poisoned") = Some(Refusal::Busy);
    let answer = ask(addr, "PUT /announce").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
}

#[tokio::test]
async fn a_stream_is_answered_once_without_a_name_of_a_host_and_with_our_side_closed() {
    let (mut server, client) =
        (Node::new(&Keypair::generate_ed25519()).await, Node::new(&Keypair::generate_ed25519()).await);
    let chain = Arc::new(Chain::default());
    server.serve(&Server::new(chain.clone()));
    client.dial(&server).await;
    for host in ["host: \r\n", "", "host: anything\r\n"] {
        let mut stream = soon(client.control.clone().open_stream(server.peer, HTTP)).await.expect("opens");
        let request = format!("GET /.well-known/libp2p HTTP/1.1\r\n{host}\r\n");
        // A second request on the stream is not answered.
        stream.write_all(request.repeat(2).as_bytes()).await.expect("sent");
        stream.close().await.expect("closes");
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.expect("answered");
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    let mut stream = soon(client.control.clone().open_stream(server.peer, HTTP)).await.expect("opens");
    stream.write_all(b"PUT /announce HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi").await.expect("sent");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert_eq!(chain.announced.lock().expect("not poisoned")[0].1, Some(client.peer), "who announces is known");
}

#[tokio::test]
async fn whoever_is_too_many_is_told_to_come_again() {
    let chain = Arc::new(Chain::default());
    let block = raw("a block");
    chain.hold([&block]);
    let mut pace = patient();
    pace.queue = Duration::from_millis(100);
    let server = Server::with_pace(chain.clone(), pace);
    let mut node = Node::new(&Keypair::generate_ed25519()).await;
    node.serve(&server);
    let (addr, _) = serve_tcp(&server, None).await;
    let request = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", block.cid());

    // The store does not answer, and all places to ask it are taken, by several: one alone cannot.
    let shut = Arc::clone(&chain.gate).write_owned().await;
    let mut open = Vec::new();
    for _ in 0..MAX_HTTP_CONNECTIONS_PER_SOURCE - 1 {
        let mut tcp = TcpStream::connect(addr).await.expect("connects");
        tcp.write_all(request.as_bytes()).await.expect("sent");
        open.push(tcp);
    }
    chain.is_asked(open.len()).await;
    let mut streams = Vec::new();
    while open.len() + streams.len() < MAX_HTTP_REQUESTS {
        let client = Node::new(&Keypair::generate_ed25519()).await;
        client.dial(&node).await;
        for _ in 0..MAX_HTTP_STREAMS_PER_PEER.min(MAX_HTTP_REQUESTS - open.len() - streams.len()) {
            // One after the other: those that come at once are dropped by the library.
            let mut stream = soon(client.control.clone().open_stream(node.peer, HTTP)).await.expect("opens");
            stream.write_all(request.as_bytes()).await.expect("sent");
            stream.flush().await.expect("sent");
            streams.push(stream);
            chain.is_asked(open.len() + streams.len()).await;
        }
    }
    let answer = tell(addr, &request).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    drop(shut);
    for mut tcp in open {
        let mut answer = String::new();
        soon(tcp.read_to_string(&mut answer)).await.expect("answered");
        assert!(answer.ends_with("a block"), "{answer}");
    }
    assert!(tell(addr, &request).await.ends_with("a block"), "places are free again");
}

#[tokio::test]
async fn a_server_that_stops_ends_what_it_answers_and_closes_what_is_idle() {
    let chain = Arc::new(Chain::default());
    let block = raw("a block");
    chain.hold([&block]);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("is bound");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = Server::new(chain.clone());
    let serving = tokio::spawn(async move { server.serve(listener, None, stopped).await });
    let mut idle = TcpStream::connect(addr).await.expect("connects");
    idle.write_all(b"GET /head HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut first = [0; 12];
    soon(idle.read_exact(&mut first)).await.expect("answered");
    let shut = Arc::clone(&chain.gate).write_owned().await;
    let mut busy = TcpStream::connect(addr).await.expect("connects");
    busy.write_all(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", block.cid()).as_bytes()).await.expect("sent");
    chain.is_asked(1).await;
    stop.send(()).expect("is served");
    let mut rest = Vec::new();
    soon(idle.read_to_end(&mut rest)).await.expect("closed");
    assert!(!serving.is_finished(), "an answer is under way");
    drop(shut);
    let mut answer = String::new();
    soon(busy.read_to_string(&mut answer)).await.expect("answered");
    assert!(answer.ends_with("a block"), "{answer}");
    soon(serving).await.expect("ends");
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens");
}

#[test]
fn certificates_and_keys_that_are_none_or_of_others_are_refused() {
    let make = || rcgen::generate_simple_self_signed(["x".to_owned()]).expect("a certificate");
    let (one, other) = (make(), make());
    let (cert, key) = (one.cert.pem(), one.key_pair.serialize_pem());
    assert!(tls_config(cert.as_bytes(), key.as_bytes()).is_ok());
    let foreign = other.key_pair.serialize_pem();
    for (cert, key) in
        [(&cert, &foreign), (&cert, &cert), (&key, &key), (&String::new(), &key), (&cert, &String::new())]
    {
        assert!(tls_config(cert.as_bytes(), key.as_bytes()).is_err());
    }
}
