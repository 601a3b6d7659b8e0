//! The ways by which a chain comes: HTTP, HTTPS, streams, natively, and from others than its publisher.

use dagmesh_tests::{
    Daemon, DaemonOptions,
    hostile::http::{HttpPublisher, raw},
    ipni::{self, AdChain, StreamPublisher},
    make_folder, wait_for,
};
use libp2p::identity::Keypair;
use serde_json::json;

use super::{assert_same_chain, http_addr};
use crate::support::{SOON, Watch, assert_sound, daemon, number, options, str_of, text};

/// Publishes a list, a CAR, a removal and another list.
async fn publish_some(publisher: &Daemon) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    make_folder(&source, 20, 1 << 18, 5);
    let added = publisher.json(&["add", text(&source)]).await;
    let car = folder.path().join("content.car");
    publisher.json(&["dag", "export", str_of(&added, "cid"), "-o", text(&car)]).await;
    ipni::publish(publisher, 2, false).await;
    let of_car = publisher.json(&["ipni", "publish", text(&car), "--context-id", "a car", "--metadata", "9012"]).await;
    assert_eq!(number(&of_car, "multihashes"), number(&added, "blocks"), "{of_car}");
    let removed = publisher.json(&["ipni", "remove", "a car"]).await;
    assert_eq!((&removed["previous"], &removed["multihashes"]), (&of_car["ad"], &0.into()), "{removed}");
    ipni::publish(publisher, 1, false).await.pop().expect("an advertisement")
}

/// Follows, until the chain is in sync at `head`, and looks at all that there is to see of it.
async fn is_followed(follower: &Daemon, publisher: &Daemon, addr: &str, head: &str) {
    let follow = follower.json(&["ipni", "follow", addr, "--wait"]).await;
    assert_eq!((&follow["state"], &follow["latest"]), (&"in_sync".into(), &json!(head)), "{follow}");
    assert_eq!((&follow["latest_seq"], &follow["feed"]), (&5.into(), &"ipni:mainnet".into()), "{follow}");
    assert_same_chain(follower, publisher).await;
    assert_sound(follower).await;
    let listed = follower.run(&["ipni", "ad", "list", publisher.peer_id(), "--limit", "2"]).await;
    let own = publisher.run(&["ipni", "ad", "list", "--limit", "2"]).await;
    assert_eq!((listed.code, listed.values.len()), (Some(0), 2), "{listed}");
    assert_eq!(listed.values, own.values);
    assert_eq!(&listed.values[1], &follower.json(&["ipni", "ad", "get", str_of(&listed.values[1], "cid")]).await);
    assert_eq!((&listed.values[1]["is_rm"], &listed.values[0]["is_rm"]), (&true.into(), &false.into()));
    for (daemon, args) in [(follower, &["ipni", "ad", "verify", head][..]), (publisher, &["ipni", "ad", "verify"])] {
        assert_eq!(daemon.json(args).await["signer"], publisher.peer_id());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_chain_comes_over_http_and_https_and_natively() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.key_pair.serialize_pem()).expect("a file");

    let mut plain = options(&["--ipni-http", "127.0.0.1:0"]);
    plain.home = Some(folder.path().join("home"));
    let mut secured = plain.clone();
    for (name, path) in [("CERT", &cert), ("KEY", &key)] {
        secured.env.push((format!("DAGMESH_IPNI__TLS_{name}"), text(path).to_owned()));
    }
    let mut trusting: DaemonOptions = options(&[]);
    trusting.env.push(("SSL_CERT_FILE".to_owned(), text(&cert).to_owned()));

    let mut publisher = Daemon::start_with(plain).await;
    let head = publish_some(&publisher).await;
    let (over_http, natively) = tokio::join!(daemon(&[]), daemon(&[]));
    is_followed(&over_http, &publisher, &http_addr(&publisher).await, &head).await;
    assert_eq!(over_http.json(&["peers"]).await, json!([]), "nothing but HTTP");
    is_followed(&natively, &publisher, &publisher.addr("tcp"), &head).await;
    let peers = natively.json(&["peers"]).await;
    assert!(peers.to_string().contains("/dagmesh/dagsync/1.0.0"), "{peers}");

    // The same publisher, with TLS.
    publisher.stop().await;
    let publisher = Daemon::start_with(secured).await;
    let addr = ipni::http_addr(&publisher, "/dns4/localhost").await;
    assert!(addr.contains("/https/"), "{addr}");
    let over_https = Daemon::start_with(trusting).await;
    is_followed(&over_https, &publisher, &addr, &head).await;
    assert_eq!(over_https.json(&["peers"]).await, json!([]), "nothing but HTTPS");
    // Who does not trust the certificate says so, and has nothing.
    let stranger = daemon(&[]).await;
    stranger.json(&["ipni", "follow", &addr]).await;
    let untrusted = |follow: &serde_json::Value| str_of(follow, "reason").contains("certificate");
    ipni::stands(&stranger, publisher.peer_id(), "a certificate that is not trusted", untrusted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_speaks_nothing_of_ours_is_asked_over_streams_for_the_same_blocks() {
    let mut chain = AdChain::new(&Keypair::generate_ed25519());
    chain.grow(30);
    let streams = StreamPublisher::start(&chain).await;
    let http = HttpPublisher::with_key(chain.key().clone()).await;
    http.serve(&chain);
    let head = chain.head().to_string();
    let (over_streams, over_http) = tokio::join!(daemon(&[]), daemon(&[]));
    let publisher = http.peer_id().to_string();
    for (follower, addr) in [(&over_streams, streams.addr()), (&over_http, http.addr().to_string())] {
        let watch = Watch::direct(follower).await;
        let follow = follower.json(&["ipni", "follow", &addr, "--wait"]).await;
        assert_eq!((&follow["latest"], &follow["latest_seq"]), (&json!(head), &30.into()), "{follow}");
        let finished = watch.finished(&head).await;
        assert_eq!((&finished["count"], &finished["blocks"]), (&30.into(), &60.into()), "{finished}");
        assert_sound(follower).await;
    }
    assert_eq!(ipni::ads(&over_streams, &publisher).await, ipni::ads(&over_http, &publisher).await);
    // Each block once, in whatever order.
    for mut asked in [streams.asked(), http.asked()] {
        asked.retain(|asked| asked != "head");
        let count = asked.len();
        asked.sort();
        asked.dedup();
        assert_eq!((asked.len(), count), (60, 60));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_whose_publisher_is_gone_comes_from_another_follower_that_the_dht_names() {
    let (publisher, first) = tokio::join!(HttpPublisher::start(), daemon(&[]));
    let mut chain = AdChain::new(publisher.key());
    chain.grow(8);
    publisher.serve(&chain);
    let (addr, head) = (publisher.addr().to_string(), chain.head().to_string());
    first.json(&["ipni", "follow", &addr, "--wait"]).await;
    let second = daemon(&["--bootstrap", &first.addr("tcp")]).await;
    wait_for(SOON, "a mesh of two", async || second.json(&["peers"]).await[0]["peer_id"] == first.peer_id()).await;

    // It tells its head once more, and nothing else.
    publisher.answer(|asked| (asked != "head").then(|| raw([])));
    let watch = Watch::direct(&second).await;
    second.json(&["ipni", "follow", &addr]).await;
    watch.wait("a head that is known", |event| event["event"] == "head_announced").await;
    drop(publisher);
    let finished = watch.finished(&head).await;
    assert_eq!(
        (&finished["count"], &finished["from"][0]["peer_id"]),
        (&8.into(), &json!(first.peer_id())),
        "{finished}"
    );
    let publisher = chain.key().public().to_peer_id().to_string();
    assert_eq!(ipni::ads(&second, &publisher).await, ipni::ads(&first, &publisher).await);
    assert_sound(&second).await;
}
