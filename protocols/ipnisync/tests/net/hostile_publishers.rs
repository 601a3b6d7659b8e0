//! Publishers that answer with whatever harms.

use std::time::Duration;

use dagmesh_core::limits::{MAX_BLOCK_BYTES, MAX_HTTP_HEAD_BYTES};
use dagmesh_dag::Block;
use dagmesh_ipnisync::net::{Client, ClientConfig, Kind, NetError};
use libp2p::{PeerId, identity::Keypair};
use tokio::{io::AsyncWriteExt, time::Instant};

use crate::support::*;

async fn refused(answer: impl Into<Vec<u8>>) -> NetError {
    let (addr, _) = saying(answer).await;
    fetch(patient(), addr, &raw("a block")).await.expect_err("refused")
}

#[tokio::test]
async fn a_body_without_an_end_is_read_up_to_its_cap() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        let (sent, mut told) = tokio::sync::mpsc::channel(64);
        let (addr, _) = publisher(move |_, _, mut tcp| {
            let sent = sent.clone();
            async move {
                let piece = match head.contains("chunked") {
                    true => [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat(),
                    false => vec![b'x'; 0x10000],
                };
                let mut count = 0;
                if tcp.write_all(head.as_bytes()).await.is_ok() {
                    while tcp.write_all(&piece).await.is_ok() {
                        count += piece.len();
                    }
                }
                let _ = sent.send(count).await;
            }
        })
        .await;
        let error = fetch(patient(), addr, &raw("a block")).await.expect_err("refused");
        assert!(matches!(error, NetError::TooLarge { max: MAX_BLOCK_BYTES, .. }) && error.is_bad_peer(), "{error}");
        // What the sockets on both sides swallow comes on top.
        let sent = soon(told.recv()).await.expect("the publisher ends");
        assert!(sent < MAX_BLOCK_BYTES + 16 * 1024 * 1024, "{sent} bytes went out");
    }
}

#[tokio::test]
async fn a_block_of_the_cap_is_taken_and_one_byte_more_is_not() {
    for (len, taken) in [(MAX_BLOCK_BYTES, true), (MAX_BLOCK_BYTES + 1, false)] {
        let (addr, _) = saying(ok(&vec![7; len])).await;
        let fetched = fetch(patient(), addr, &raw(vec![7; MAX_BLOCK_BYTES])).await;
        assert_eq!(fetched.is_ok(), taken, "{len}");
    }
}

#[tokio::test]
async fn a_block_that_is_another_or_none_is_refused() {
    for body in [&b"another block"[..], b"", b"a bloc", b"a block "] {
        let error = refused(ok(body)).await;
        assert!(matches!(error, NetError::Block { .. }) && error.is_bad_peer(), "{error}");
    }
}

#[tokio::test]
async fn a_head_of_another_or_with_a_forged_signature_is_refused() {
    let (publisher, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let cid = *Chain::of(&publisher, 1).1[0].cid();
    let signed = head(&publisher, cid);
    let forged = String::from_utf8(signed.to_vec()).expect("text").replace("ingest/test", "ingest/best");
    let peer = publisher.public().to_peer_id();
    for (body, ours) in [
        (signed.to_vec(), true),
        (head(&other, cid).to_vec(), false),
        (forged.into_bytes(), false),
        (b"{}".to_vec(), false),
        (b"".to_vec(), false),
    ] {
        let (addr, _) = saying(ok(&body)).await;
        let answer = soon(client(patient()).remote(peer, &[http(addr)]).head()).await;
        assert_eq!(answer.is_ok(), ours, "{answer:?}");
        if let Err(error) = answer {
            assert!(error.is_bad_peer(), "{error}");
            let of_other = matches!(&error, NetError::Signer { signer, .. } if **signer == other.public().to_peer_id());
            assert_eq!(of_other, body == head(&other, cid), "{error}");
        }
    }
}

#[tokio::test]
async fn one_byte_at_a_time_is_too_slow() {
    let slowly = |head: &'static str| {
        publisher(move |_, _, mut tcp| async move {
            let _ = tcp.write_all(head.as_bytes()).await;
            while tcp.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };
    for head in ["HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", "HTTP/1.1 200 OK\r\nx: "] {
        let (addr, asked) = slowly(head).await;
        let begun = Instant::now();
        let error = fetch(brisk(), addr, &raw("a block")).await.expect_err("refused");
        assert!(matches!(error, NetError::TooSlow { .. } | NetError::Deadline { .. }), "{error}");
        assert!(!error.is_bad_peer() && !error.is_temporary(), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "the place is free again");
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (addr, _) = publisher(|_, _, tcp| async move {
        let _open = tcp;
        std::future::pending::<()>().await;
    })
    .await;
    let error = fetch(brisk(), addr, &raw("a block")).await.expect_err("refused");
    assert!(matches!(error, NetError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() {
    let field = format!("x: {}\r\n", "y".repeat(1000));
    let long = format!("HTTP/1.1 200 OK\r\n{}", field.repeat(MAX_HTTP_HEAD_BYTES / field.len() + 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    for answer in [long, many] {
        let error = refused(answer).await;
        assert!(matches!(error, NetError::NoHttp { .. }) && error.is_bad_peer(), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 8\r\n\r\na block",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\na block\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\na block",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na block\r\n0\r\n\r\n",
        "\0\0\0\0\x16\x03\x01",
    ] {
        let error = refused(answer).await;
        assert!(matches!(error, NetError::NoHttp { .. }) && error.is_bad_peer(), "{answer:?}: {error}");
    }
    // A chunk's extension that never ends, and trailers that do not.
    for tail in [format!("7;{}", "x".repeat(1 << 20)), format!("7\r\na block\r\n0\r\n{}", "x: y\r\n".repeat(100_000))] {
        let error = refused(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{tail}")).await;
        assert!(matches!(error, NetError::NoHttp { .. } | NetError::Lost { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_none() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\na block",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\na block\r\n",
        "HTTP/1.1 200",
    ] {
        let error = refused(answer).await;
        assert!(matches!(error, NetError::Lost { .. }), "{answer:?}: {error}");
        assert!(!error.is_bad_peer());
    }
}

#[tokio::test]
async fn an_encoding_that_was_not_asked_for_is_refused() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 7\r\n\r\na block";
    let error = refused(answer).await;
    assert!(matches!(error, NetError::Encoding { .. }) && error.is_bad_peer(), "{error}");
}

#[tokio::test]
async fn redirects_without_an_end_or_to_elsewhere_are_not_followed() {
    for to in ["/", "", "ftp://127.0.0.1/", "file:///etc/passwd", "http://", "gopher:x"] {
        let error = refused(format!("HTTP/1.1 301 Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")).await;
        assert!(matches!(error, NetError::Redirect { .. }), "{to:?}: {error}");
    }
}

#[tokio::test]
async fn what_began_with_tls_does_not_go_on_without() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (made.cert.pem(), made.key_pair.serialize_pem());
    let block: Block = raw("a block");
    let (plain, asked) = saying(ok(block.data())).await;
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: http://{plain}/\r\ncontent-length: 0\r\n\r\n");
    let tls = dagmesh_ipnisync::net::tls_config(cert.as_bytes(), key.as_bytes()).expect("a configuration");
    let tls = futures_rustls::TlsAcceptor::from(tls);
    let (addr, _) = tls_publisher(tls, answer).await;
    let config = ClientConfig { pace: patient(), extra_roots: cert.into(), ..ClientConfig::default() };
    let addr = format!("/dns4/localhost/tcp/{}/https", addr.port()).parse().expect("an address");
    let remote = Client::new(config, None).expect("a client").remote(PeerId::random(), &[addr]);
    let error = soon(remote.block(*block.cid(), Kind::EntryChunk)).await.expect_err("refused");
    assert!(matches!(error, NetError::Redirect { .. }), "{error}");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
}

/// Answers the first request of each TLS connection with `answer`.
async fn tls_publisher(
    tls: futures_rustls::TlsAcceptor,
    answer: String,
) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    use tokio_util::compat::TokioAsyncReadCompatExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("is bound");
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, answer) = (tls.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(mut secured) = tls.accept(tcp.compat()).await else { return };
                let mut request = [0; 4096];
                let _ = futures::AsyncReadExt::read(&mut secured, &mut request).await;
                let _ = futures::AsyncWriteExt::write_all(&mut secured, answer.as_bytes()).await;
                let _ = futures::AsyncWriteExt::close(&mut secured).await;
            });
        }
    });
    (addr, task)
}
