//! Our client with our server, and with publishers that are only slow, busy or old.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dagmesh_core::limits::{MAX_IPNI_HEAD_BYTES, MAX_IPNI_PARALLEL};
use dagmesh_dag::Block;
use dagmesh_ipnisync::net::{
    AnnounceBody, Client, ClientConfig, HTTP, Kind, NetError, Refusal, Remote, Server, tls_config,
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, TryStreamExt, stream};
use libp2p::{PeerId, identity::Keypair};
use tokio::{io::AsyncWriteExt as _, sync::watch, time::Instant};

use crate::support::*;

/// Fetches head and blocks, all blocks at once.
async fn fetch_all(remote: &Remote, blocks: &[Block]) {
    let head = soon(remote.head()).await.expect("a head");
    assert_eq!(head.head(), blocks.last().expect("a block").cid());
    let fetched = blocks.iter().map(|block| remote.block(*block.cid(), Kind::Advertisement));
    let fetched: Vec<Block> = soon(stream::iter(fetched).buffered(blocks.len()).try_collect()).await.expect("blocks");
    assert_eq!(fetched, blocks);
}

#[tokio::test]
async fn a_chain_comes_over_http_by_few_connections_that_are_used_again() {
    let key = Keypair::generate_ed25519();
    let (chain, blocks) = Chain::of(&key, 64);
    let (addr, connections) = serve_tcp(&Server::new(chain), None).await;
    let remote = client(patient()).remote(key.public().to_peer_id(), &[http(addr)]);
    for block in &blocks {
        soon(remote.block(*block.cid(), Kind::Advertisement)).await.expect("a block");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1, "one after the other need one connection");
    for _ in 0..4 {
        fetch_all(&remote, &blocks).await;
    }
    assert!(connections.load(Ordering::SeqCst) <= MAX_IPNI_PARALLEL, "{connections:?}");
}

#[tokio::test]
async fn a_chain_comes_over_https_where_the_certificate_is_trusted_and_not_where_it_is_not() {
    let key = Keypair::generate_ed25519();
    let (chain, blocks) = Chain::of(&key, 64);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, secret) = (made.cert.pem(), made.key_pair.serialize_pem());
    let tls = tls_config(cert.as_bytes(), secret.as_bytes()).expect("a configuration");
    let (addr, connections) = serve_tcp(&Server::new(chain), Some(tls)).await;
    let addrs = |text: String| [text.parse().expect("an address")];
    let config = ClientConfig { pace: patient(), extra_roots: cert.into(), ..ClientConfig::default() };
    let client = Client::new(config, None).expect("a client");
    let peer = key.public().to_peer_id();
    for text in ["/dns4/localhost/tcp/PORT/https", "/ip4/127.0.0.1/tcp/PORT/tls/sni/localhost/http"] {
        let remote = client.remote(peer, &addrs(text.replace("PORT", &addr.port().to_string())));
        fetch_all(&remote, &blocks).await;
    }
    assert!(connections.load(Ordering::SeqCst) <= 2 * MAX_IPNI_PARALLEL, "{connections:?}");

    // Another name than the certificate's, and a client that knows nothing of it.
    let remote = client.remote(peer, &addrs(format!("/ip4/127.0.0.1/tcp/{}/https", addr.port())));
    assert!(matches!(soon(remote.head()).await, Err(NetError::Unreachable { temporary: false, .. })));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let config = ClientConfig { pace: patient(), extra_roots: made.cert.pem().into(), ..ClientConfig::default() };
    let stranger = Client::new(config, None).expect("a client");
    let remote = stranger.remote(peer, &addrs(format!("/dns4/localhost/tcp/{}/https", addr.port())));
    assert!(matches!(soon(remote.head()).await, Err(NetError::Unreachable { temporary: false, .. })));
}

#[tokio::test]
async fn a_chain_comes_over_streams_of_libp2p_that_are_opened_at_once() {
    let key = Keypair::generate_ed25519();
    let (chain, blocks) = Chain::of(&key, 64);
    let (mut publisher, reader) = (Node::new(&key).await, Node::new(&Keypair::generate_ed25519()).await);
    publisher.serve(&Server::new(chain.clone()));
    reader.dial(&publisher).await;
    let config = ClientConfig { pace: patient(), ..ClientConfig::default() };
    let client = Client::new(config, Some(reader.control.clone())).expect("a client");
    for addrs in [&[publisher.addr.clone()][..], &[]] {
        fetch_all(&client.remote(publisher.peer, addrs), &blocks).await;
    }
    let missing = soon(client.remote(publisher.peer, &[]).block(*raw("none").cid(), Kind::EntryChunk)).await;
    assert!(missing.expect_err("is not there").is_not_found());
    chain.closed.store(true, Ordering::SeqCst);
    let refused = soon(client.remote(publisher.peer, &[]).head()).await;
    assert!(matches!(refused, Err(NetError::Status { status: 403, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_stream_carries_one_request_whose_end_its_server_sees() {
    let block = raw("a block");
    let (mut other, reader) =
        (Node::new(&Keypair::generate_ed25519()).await, Node::new(&Keypair::generate_ed25519()).await);
    reader.dial(&other).await;
    let mut incoming = other.control.accept(HTTP).expect("nobody else serves it");
    let body = block.data().clone();
    let (seen, mut requests) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            let mut request = String::new();
            stream.read_to_string(&mut request).await.expect("our side is closed");
            let answer = match request.starts_with("GET /.well-known/") {
                true => b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
                false => ok(&body),
            };
            stream.write_all(&answer).await.expect("sent");
            stream.close().await.expect("closes");
            seen.send(request).await.expect("is read");
        }
    });
    let config = ClientConfig { pace: patient(), ..ClientConfig::default() };
    let client = Client::new(config, Some(reader.control.clone())).expect("a client");
    for asked in [3, 1] {
        let remote = client.remote(other.peer, &[]);
        soon(remote.block(*block.cid(), Kind::EntryChunk)).await.expect("a block");
        for index in 1..=asked {
            let request = soon(requests.recv()).await.expect("a request").to_ascii_lowercase();
            assert!(request.contains("connection: close\r\n") && request.contains("host: "), "{request}");
            let for_block = index == asked;
            assert_eq!(request.contains("ipni-cid-schema-type: entrychunk\r\n"), for_block, "{request}");
        }
    }
}

#[tokio::test]
async fn streams_that_are_dropped_without_an_answer_are_opened_again() {
    let block = raw("a block");
    let (mut other, reader) =
        (Node::new(&Keypair::generate_ed25519()).await, Node::new(&Keypair::generate_ed25519()).await);
    reader.dial(&other).await;
    let mut incoming = other.control.accept(HTTP).expect("nobody else serves it");
    let body = ok(block.data());
    tokio::spawn(async move {
        let mut number = 0;
        while let Some((_, mut stream)) = incoming.next().await {
            number += 1;
            if number % 3 != 0 {
                continue;
            }
            stream.read_to_end(&mut Vec::new()).await.expect("our side is closed");
            stream.write_all(&body).await.expect("sent");
            stream.close().await.expect("closes");
        }
    });
    let mut pace = patient();
    pace.retries.clear();
    let client = Client::new(ClientConfig { pace, ..ClientConfig::default() }, Some(reader.control.clone()));
    let remote = client.expect("a client").remote(other.peer, &[]);
    for _ in 0..3 {
        assert_eq!(soon(remote.block(*block.cid(), Kind::EntryChunk)).await.expect("a block"), block);
    }
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http_says_so_and_the_http_address_is_asked() {
    let key = Keypair::generate_ed25519();
    let (chain, blocks) = Chain::of(&key, 2);
    let (silent, reader) = (Node::new(&key).await, Node::new(&Keypair::generate_ed25519()).await);
    reader.dial(&silent).await;
    let config = ClientConfig { pace: patient(), ..ClientConfig::default() };
    let client = Client::new(config, Some(reader.control.clone())).expect("a client");
    let refused = soon(client.remote(silent.peer, &[]).head()).await;
    assert!(matches!(refused, Err(NetError::Unreachable { temporary: false, .. })), "{refused:?}");
    let (addr, _) = serve_tcp(&Server::new(chain), None).await;
    fetch_all(&client.remote(silent.peer, &[silent.addr.clone(), http(addr)]), &blocks).await;
}

#[tokio::test]
async fn the_address_that_worked_last_is_tried_first_and_another_where_it_fails() {
    let block = raw("a block");
    let data = block.data().clone();
    let first_is_well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let well = Arc::clone(&first_is_well);
    let body = data.clone();
    let (first, first_asked) = publisher(move |_, _, tcp| {
        let answer = match well.load(Ordering::SeqCst) {
            true => ok(&body),
            false => b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_vec(),
        };
        say(tcp, answer)
    })
    .await;
    let second_is_well = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let well = Arc::clone(&second_is_well);
    let (second, second_asked) =
        publisher(move |_, _, tcp| say(tcp, if well.load(Ordering::SeqCst) { ok(&data) } else { b"no".to_vec() }))
            .await;
    let asked = || (first_asked.load(Ordering::SeqCst), second_asked.load(Ordering::SeqCst));
    let (client, peer) = (client(patient()), PeerId::random());
    let addrs = ["/ip4/127.0.0.1/udp/9/http".parse().expect("an address"), http(first), http(second)];
    let fetch = async || soon(client.remote(peer, &addrs).block(*block.cid(), Kind::EntryChunk)).await;

    fetch().await.expect("from the second");
    assert_eq!(asked(), (1, 1));
    fetch().await.expect("from the second, at once");
    assert_eq!(asked(), (1, 2));
    second_is_well.store(false, Ordering::SeqCst);
    first_is_well.store(true, Ordering::SeqCst);
    fetch().await.expect("from the first");
    assert_eq!(asked(), (2, 3));
    fetch().await.expect("from the first, at once");
    assert_eq!(asked(), (3, 3));
}

#[tokio::test]
async fn where_no_address_can_be_used_the_error_says_why() {
    let remote =
        client(patient()).remote(PeerId::random(), &["/ip4/127.0.0.1/udp/9/http".parse().expect("an address")]);
    let refused = soon(remote.head()).await.expect_err("nowhere to ask");
    assert!(
        matches!(refused, NetError::NoAddress { given: 1, .. }) && refused.to_string().contains("udp"),
        "{refused}"
    );
    let streams = client(patient()).remote(PeerId::random(), &["/ip4/127.0.0.1/tcp/9".parse().expect("an address")]);
    assert!(matches!(soon(streams.head()).await, Err(NetError::NoAddress { .. })));
}

#[tokio::test]
async fn what_fails_for_the_moment_is_tried_again_a_few_times() {
    let block = raw("a block");
    for trouble in [
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nslow",
        "HTTP/1.1 502 Bad Gateway\r\n\r\n",
        "HTTP/1.1 504 Gateway Timeout\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\na bl",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "",
    ] {
        for (failures, heals) in [(3, true), (4, false)] {
            let body = ok(block.data());
            let (addr, asked) = publisher(move |_, number, tcp| {
                say(tcp, if number < failures { trouble.as_bytes().to_vec() } else { body.clone() })
            })
            .await;
            let fetched = fetch(patient(), addr, &block).await;
            assert_eq!(fetched.is_ok(), heals, "{trouble:?}: {fetched:?}");
            assert_eq!(asked.load(Ordering::SeqCst), 4, "{trouble:?}");
        }
    }
}

#[tokio::test]
async fn what_fails_for_good_is_not_tried_again() {
    for answer in
        [&b"HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\nwell"[..], b"HTTP/1.1 410 Gone\r\n\r\n", &ok(b"another")]
    {
        let (addr, asked) = saying(answer).await;
        let refused = fetch(patient(), addr, &raw("a block")).await.expect_err("refused");
        assert!(!refused.is_temporary(), "{refused}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{refused}");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_and_not_beyond_its_cap() {
    let block = raw("a block");
    let (after_1s, after_an_hour) = (1, 3600);
    for (asks, heals) in [(after_1s, true), (after_an_hour, false)] {
        let body = ok(block.data());
        let (addr, asked) = publisher(move |_, number, tcp| {
            let busy = format!("HTTP/1.1 503 Busy\r\nretry-after: {asks}\r\ncontent-length: 0\r\n\r\n");
            say(tcp, if number == 0 { busy.into_bytes() } else { body.clone() })
        })
        .await;
        let begun = Instant::now();
        let fetched = fetch(patient(), addr, &block).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1 + usize::from(heals));
        match fetched {
            Ok(_) => assert!(heals && begun.elapsed() >= Duration::from_secs(after_1s)),
            Err(error) => assert!(!heals && error.retry_after() == Some(Duration::from_secs(after_an_hour))),
        }
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closes_under_a_request_costs_nothing() {
    let block = raw("a block");
    for waits_for_the_next in [false, true] {
        let body = ok(block.data());
        // Each connection carries one answer, and says nothing of it.
        let (addr, asked) = publisher(move |_, _, mut tcp| {
            let body = body.clone();
            async move {
                tcp.write_all(&body).await.expect("sent");
                if waits_for_the_next {
                    read_head(&mut tcp).await;
                }
            }
        })
        .await;
        let mut pace = patient();
        pace.retries.clear();
        let remote = client(pace).remote(PeerId::random(), &[http(addr)]);
        for _ in 0..20 {
            soon(remote.block(*block.cid(), Kind::EntryChunk)).await.expect("a block");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 20);
    }
}

#[tokio::test]
async fn redirects_are_followed_three_times() {
    let block = raw("a block");
    for (redirects, followed) in [(3, true), (4, false)] {
        let body = ok(block.data());
        let (addr, asked) = publisher(move |_, number, tcp| {
            let hop = format!("HTTP/1.1 302 Found\r\nlocation: ../hop{number}\r\ncontent-length: 0\r\n\r\n");
            say(tcp, if number < redirects { hop.into_bytes() } else { body.clone() })
        })
        .await;
        let fetched = fetch(patient(), addr, &block).await;
        assert_eq!(fetched.is_ok(), followed, "{fetched:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 4);
        assert!(followed || matches!(fetched, Err(NetError::Redirect { .. })));
    }
}

#[tokio::test]
async fn an_old_publisher_without_the_path_is_found_once_and_remembered() {
    let block = raw("a block");
    let path = format!("GET /base/{} HTTP/1.1", block.cid());
    for status in ["404 Not Found", "403 Forbidden"] {
        let (body, path) = (ok(block.data()), path.clone());
        let (addr, asked) = publisher(move |line, _, tcp| {
            let nothing = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes();
            say(tcp, if line == path { body.clone() } else { nothing })
        })
        .await;
        let addr = format!("{}/http-path/base%2F", http(addr)).parse().expect("an address");
        let remote = client(patient()).remote(PeerId::random(), &[addr]);
        soon(remote.block(*block.cid(), Kind::EntryChunk)).await.expect("a block");
        let searched = asked.load(Ordering::SeqCst);
        assert!((2..=4).contains(&searched), "{searched}");
        soon(remote.block(*block.cid(), Kind::EntryChunk)).await.expect("a block");
        assert_eq!(asked.load(Ordering::SeqCst), searched + 1, "it is not searched for again");
        assert!(soon(remote.block(*raw("none").cid(), Kind::EntryChunk)).await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), searched + 2, "what is not there is asked for once");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_answer_keeps_all_that_ask_waiting_together() {
    let (silent, reader) =
        (Node::new(&Keypair::generate_ed25519()).await, Node::new(&Keypair::generate_ed25519()).await);
    let _unanswered = silent.control.clone().accept(HTTP).expect("nobody else serves it");
    reader.dial(&silent).await;
    let mut pace = brisk();
    pace.retries.clear();
    let config = ClientConfig { pace, ..ClientConfig::default() };
    let client = Client::new(config, Some(reader.control.clone())).expect("a client");
    let begun = Instant::now();
    let heads = (0..MAX_IPNI_PARALLEL)
        .map(|_| client.remote(silent.peer, &[]))
        .map(|remote| async move { remote.head().await });
    for head in soon(futures::future::join_all(heads)).await {
        assert!(matches!(head, Err(NetError::Deadline { .. })), "{head:?}");
    }
    // One after the other they would take as many seconds as there are.
    assert!(begun.elapsed() < Duration::from_secs(MAX_IPNI_PARALLEL as u64 / 2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_path_that_a_publisher_names_itself_is_found() {
    let block = raw("a block");
    let path = format!("GET /foo/bar/ipni/v1/ad/{} HTTP/1.1", block.cid());
    let body = ok(block.data());
    let (addr, _) = publisher(move |line, _, tcp| {
        let named = ok(br#"{"/ipni/v1/ad":{"path":"/foo/bar/ipni/v1/ad/"},"/other":{"path":"/x"},"odd":[1]}"#);
        let answer = match line {
            line if line == path => body.clone(),
            line if line.starts_with("GET /.well-known/libp2p/protocols ") => named,
            _ => b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
        };
        say(tcp, answer)
    })
    .await;
    assert_eq!(fetch(patient(), addr, &block).await.expect("a block"), block);
}

#[tokio::test]
async fn a_publisher_is_asked_no_more_at_once_than_it_may() {
    let blocks: Vec<_> = (0..64).map(|index| raw(format!("block {index}"))).collect();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(watch::Sender::new(0)));
    let (running_here, most_here, known) = (Arc::clone(&running), Arc::clone(&most), blocks.clone());
    let (addr, _) = publisher(move |line, _, tcp| {
        let block = known.iter().find(|block| line.contains(&block.cid().to_string())).cloned();
        let (running, most) = (Arc::clone(&running_here), Arc::clone(&most_here));
        async move {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.send_modify(|most| *most = now.max(*most));
            // Nobody is answered before as many ask as may.
            most.subscribe().wait_for(|most| *most >= MAX_IPNI_PARALLEL).await.expect("is counted");
            running.fetch_sub(1, Ordering::SeqCst);
            say(tcp, ok(block.expect("is known").data())).await;
        }
    })
    .await;
    let (client, peer) = (client(patient()), PeerId::random());
    let fetched = blocks.iter().map(|block| {
        // As several parts of a node would ask, each with a `Remote` of its own.
        let (remote, cid) = (client.remote(peer, &[http(addr)]), *block.cid());
        tokio::spawn(async move { remote.block(cid, Kind::EntryChunk).await.expect("a block") })
    });
    let fetched: Vec<_> = soon(stream::iter(fetched).buffer_unordered(64).try_collect()).await.expect("blocks");
    assert_eq!(fetched.iter().map(|block| *block.cid()).collect::<HashSet<_>>().len(), 64);
    assert_eq!(*most.borrow(), MAX_IPNI_PARALLEL);
}

#[tokio::test]
async fn a_head_of_the_cap_is_read_and_one_byte_more_is_not() {
    let key = Keypair::generate_ed25519();
    let signed = head(&key, *Chain::of(&key, 1).1[0].cid());
    for (len, read) in [(MAX_IPNI_HEAD_BYTES, true), (MAX_IPNI_HEAD_BYTES + 1, false)] {
        let mut padded = signed.to_vec();
        padded.resize(len, b' ');
        let (addr, _) = saying(ok(&padded)).await;
        let answer = soon(client(patient()).remote(key.public().to_peer_id(), &[http(addr)]).head()).await;
        assert_eq!(answer.is_ok(), read, "{len}: {answer:?}");
        assert!(read || matches!(answer, Err(NetError::TooLarge { .. })));
    }
}

#[tokio::test]
async fn a_publisher_without_a_chain_says_that_there_is_none_yet() {
    let (addr, _) = serve_tcp(&Server::new(Arc::new(Chain::default())), None).await;
    let error = soon(client(patient()).remote(PeerId::random(), &[http(addr)]).head()).await.expect_err("no head");
    assert!(matches!(error, NetError::NoHead { .. }) && error.is_not_found());
}

#[tokio::test]
async fn announcements_arrive_in_both_forms_and_refusals_come_back() {
    let chain = Arc::new(Chain::default());
    let (addr, _) = serve_tcp(&Server::new(chain.clone()), None).await;
    let client = client(patient());
    let bodies = [AnnounceBody::Cbor("cbor".into()), AnnounceBody::Json("{}".into())];
    for (body, url) in bodies.iter().zip([format!("http://{addr}"), format!("http://{addr}/announce")]) {
        soon(client.announce(&url, body.clone())).await.expect("taken");
    }
    let announced = chain.announced.lock().expect("not poisoned").clone();
    assert_eq!(announced, bodies.clone().map(|body| (body, None)));
    for (refusal, expected) in
        [(Refusal::Malformed("no CID in it".to_owned()), 400), (Refusal::Forbidden("not of you".to_owned()), 403)]
    {
        *chain.refusal.lock().expect("not poisoned") = Some(refusal.clone());
        let error = soon(client.announce(&format!("http://{addr}"), bodies[0].clone())).await.expect_err("refused");
        assert!(matches!(error, NetError::Status { status, .. } if status == expected), "{error}");
        assert!(error.to_string().contains(&refusal.to_string()), "{error}");
    }
    for url in ["ftp://127.0.0.1", "no url", "/announce", "http://me:secret@127.0.0.1"] {
        let error = soon(client.announce(url, bodies[0].clone())).await.expect_err("no URL");
        assert!(matches!(error, NetError::Url { .. }), "{error}");
    }
}
