//! Clients that want to keep the server from others.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dagmesh_core::limits::{
    MAX_BLOCK_BYTES, MAX_HTTP_CONNECTIONS_PER_SOURCE, MAX_HTTP_HEAD_BYTES, MAX_HTTP_HEADERS, MAX_HTTP_STREAMS_PER_PEER,
};
use dagmesh_ipnisync::net::{HTTP, Pace, Server};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt, stream::FuturesUnordered};
use libp2p::identity::Keypair;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{serving::tell, support::*};

const HONEST: &str = "GET /.well-known/libp2p HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A server, straight on its socket.
async fn server(chain: Arc<Chain>, pace: Pace) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("is bound");
    let server = Server::with_pace(chain, pace);
    tokio::spawn(async move { server.serve(listener, None, std::future::pending::<()>()).await });
    addr
}

/// One that waits a second for its clients.
async fn brisk_server(chain: Arc<Chain>) -> SocketAddr {
    let mut pace = brisk();
    pace.idle = Duration::from_secs(1);
    server(chain, pace).await
}

async fn is_well(addr: SocketAddr) {
    let answer = tell(addr, HONEST).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_loses_its_place() {
    let addr = brisk_server(Arc::default()).await;
    let mut slow = Vec::new();
    for _ in 0..MAX_HTTP_CONNECTIONS_PER_SOURCE {
        let mut tcp = TcpStream::connect(addr).await.expect("connects");
        tcp.write_all(b"GET /head HTTP/1.1\r\nx: ").await.expect("sent");
        slow.push(tcp);
    }
    let drip = |mut tcp: TcpStream| async move {
        while tcp.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let dripping: Vec<_> = slow.into_iter().map(|tcp| tokio::spawn(drip(tcp))).collect();
    for task in dripping {
        soon(task).await.expect("is cut off");
    }
    is_well(addr).await;
}

#[tokio::test]
async fn one_source_has_its_share_of_connections_and_gets_it_back() {
    let addr = server(Arc::default(), Pace::default()).await;
    let mut open = Vec::new();
    for _ in 0..MAX_HTTP_CONNECTIONS_PER_SOURCE {
        let mut tcp = TcpStream::connect(addr).await.expect("connects");
        tcp.write_all(b"GET /head HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut first = [0; 12];
        soon(tcp.read_exact(&mut first)).await.expect("answered");
        open.push(tcp);
    }
    let mut beyond = TcpStream::connect(addr).await.expect("connects");
    let mut answer = String::new();
    soon(beyond.read_to_string(&mut answer)).await.expect("told");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    drop(open);
    let freed = async {
        while !tell(addr, HONEST).await.starts_with("HTTP/1.1 200 OK") {
            tokio::task::yield_now().await;
        }
    };
    soon(freed).await;
}

#[tokio::test]
async fn heads_over_the_cap_are_refused() {
    let addr = server(Arc::default(), Pace::default()).await;
    let with = |field: String| format!("GET /.well-known/libp2p HTTP/1.1\r\nconnection: close\r\n{field}\r\n");
    for (field, status) in [
        (format!("x: {}\r\n", "y".repeat(MAX_HTTP_HEAD_BYTES / 2)), "200 OK"),
        (format!("x: {}\r\n", "y".repeat(MAX_HTTP_HEAD_BYTES)), "431 "),
        ("x: y\r\n".repeat(MAX_HTTP_HEADERS - 1), "200 OK"),
        ("x: y\r\n".repeat(MAX_HTTP_HEADERS), "431 "),
    ] {
        let answer = tell(addr, with(field)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    // Without an end.
    let mut tcp = TcpStream::connect(addr).await.expect("connects");
    tcp.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
    let mut sent = 0;
    soon(async {
        while tcp.write_all(&b"x: y\r\n".repeat(1000)).await.is_ok() {
            sent += 6000;
        }
    })
    .await;
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes were taken");
    is_well(addr).await;
}

#[tokio::test]
async fn what_is_no_http_is_answered_with_400_or_not_at_all() {
    let addr = server(Arc::default(), Pace::default()).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/3.7\r\n\r\n",
        b"GET /a b c HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PUT /announce HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"PUT /announce HTTP/1.1\r\ncontent-length: nine\r\n\r\n",
        b"PUT /announce HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /announce HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        let mut tcp = TcpStream::connect(addr).await.expect("connects");
        tcp.write_all(garbage).await.expect("sent");
        tcp.shutdown().await.expect("closes");
        let mut answer = Vec::new();
        let _ = soon(tcp.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{garbage:?}: {answer}");
    }
    is_well(addr).await;
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused_before_it_is_read() {
    let chain = Arc::<Chain>::default();
    let addr = brisk_server(chain.clone()).await;
    let claimed = "PUT /announce HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n";
    assert!(tell(addr, claimed).await.starts_with("HTTP/1.1 413 "));
    // Without a length: chunks for ever.
    let mut tcp = TcpStream::connect(addr).await.expect("connects");
    tcp.write_all(b"PUT /announce HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n").await.expect("sent");
    let (mut reader, mut writer) = tcp.into_split();
    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
    let mut sent = 0;
    soon(async {
        while writer.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
    })
    .await;
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes were taken");
    let _ = reader.read_to_end(&mut Vec::new()).await;
    // And one that takes for ever.
    let slow = tell(addr, "PUT /announce HTTP/1.1\r\ncontent-length: 100\r\n\r\nx").await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    assert!(chain.announced.lock().expect("not poisoned").is_empty());
    is_well(addr).await;
}

#[tokio::test]
async fn ten_thousand_wrong_paths_on_one_connection_harm_nobody() {
    let addr = server(Arc::default(), Pace::default()).await;
    let (mut reader, mut writer) = TcpStream::connect(addr).await.expect("connects").into_split();
    // All at once, without waiting for an answer: they are read as they are answered.
    let writing = tokio::spawn(async move {
        for index in 0..10_000 {
            let request = format!("GET /ipni/v1/ad/{index:x}%00 HTTP/1.1\r\nhost: x\r\n\r\n");
            writer.write_all(request.as_bytes()).await.expect("sent");
        }
        writer.write_all(HONEST.as_bytes()).await.expect("sent");
        writer
    });
    let mut answers = Vec::new();
    soon(reader.read_to_end(&mut answers)).await.expect("answered");
    soon(writing).await.expect("all is sent");
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 400 Bad Request").count(), 10_000);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1);
}

#[tokio::test]
async fn answers_that_nobody_reads_are_given_up() {
    let chain = Arc::<Chain>::default();
    let block = raw(vec![7; MAX_BLOCK_BYTES]);
    chain.hold([&block]);
    let addr = brisk_server(chain.clone()).await;
    // More than the sockets between us swallow.
    let request = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", block.cid()).repeat(16);
    let mut deaf = Vec::new();
    for _ in 0..MAX_HTTP_CONNECTIONS_PER_SOURCE {
        let mut tcp = TcpStream::connect(addr).await.expect("connects");
        tcp.write_all(request.as_bytes()).await.expect("sent");
        deaf.push(tcp);
    }
    chain.is_asked(deaf.len()).await;
    // Others are served meanwhile: the largest of blocks, and from another address.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("binds");
    let mut other = soon(socket.connect(addr)).await.expect("connects");
    let request = format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", block.cid());
    other.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    soon(other.read_to_end(&mut answer)).await.expect("answered");
    assert!(answer.ends_with(block.data()));
    // Its places come back although the sockets stay open.
    let freed = async {
        while !tell(addr, HONEST).await.starts_with("HTTP/1.1 200 OK") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(freed).await;
    drop(deaf);
}

#[tokio::test]
async fn one_peer_has_its_share_of_streams_and_others_theirs() {
    let node = || async { Node::new(&Keypair::generate_ed25519()).await };
    let (mut server, greedy, honest) = (node().await, node().await, node().await);
    let mut pace = Pace::default();
    pace.connect = Duration::from_secs(600);
    server.serve(&Server::with_pace(Arc::<Chain>::default(), pace));
    greedy.dial(&server).await;
    honest.dial(&server).await;
    let ends = FuturesUnordered::new();
    for _ in 0..2 * MAX_HTTP_STREAMS_PER_PEER {
        let mut stream = soon(greedy.control.clone().open_stream(server.peer, HTTP)).await.expect("opens");
        ends.push(async move {
            // Enough to be a stream, and never a request: it is silent until it is reset.
            let _ = stream.write_all(b"GET /").await;
            let _ = stream.flush().await;
            let _ = stream.read(&mut [0]).await;
        });
    }
    let mut ends = ends.take(MAX_HTTP_STREAMS_PER_PEER);
    soon(async { while ends.next().await.is_some() {} }).await;
    let mut stream = soon(honest.control.clone().open_stream(server.peer, HTTP)).await.expect("opens");
    stream.write_all(HONEST.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
