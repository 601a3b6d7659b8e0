//! The IPNI network with go-libipni's own Publisher and Subscriber: chains followed both ways, over HTTP and streams,
//! and announcements that start a sync.

use dagmesh_tests::{
    Daemon,
    api::{Watch, api_call},
    daemon::free_port,
    wait_for_some,
};
use serde_json::{Value, json};

use crate::{
    go::{self, GoPeer, GoProgram},
    support::{SOON, daemon, daemon_addr, has},
};

/// The topic of the network `test`, which both sides take part in.
const TOPIC: &str = "/indexer/ingest/test";
const NETWORK: (&str, &str) = ("DAGMESH_IPNI__NETWORK", "test");
/// The chain of the issue: so many advertisements, each with entries in two chunks.
const ADS: usize = 1000;

/// A daemon of ours that serves its chain over HTTP too.
async fn ours() -> Daemon {
    daemon(&["--ipni-http", "127.0.0.1:0"], &[NETWORK]).await
}

/// Publishes `count` advertisements of three multihashes each, and says which is the newest.
async fn publish(daemon: &Daemon, count: usize) -> String {
    publish_with(daemon, count, false).await
}

/// The same, which nobody hears of where it is `silent`.
async fn publish_with(daemon: &Daemon, count: usize, silent: bool) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut newest = Value::Null;
    for n in 0..count {
        let path = folder.path().join("list");
        let list: String = (0..3).map(|m| format!("1220{:064x}\n", n * 10 + m)).collect();
        std::fs::write(&path, list).expect("a list");
        newest = api_call(daemon, "ipni/publish", &json!({"path": path, "no_announce": silent})).await;
    }
    newest["ad"].as_str().expect("an advertisement").to_owned()
}

/// Where the daemon serves its chain over HTTP, with its peer id.
async fn http_addr(daemon: &Daemon) -> String {
    let url = daemon.json(&["status"]).await["ipni_http"].as_str().expect("a URL").to_owned();
    let (host, port) = url.trim_start_matches("http://").split_once(':').expect("a port");
    format!("/ip4/{host}/tcp/{port}/http/p2p/{}", daemon.peer_id())
}

/// The addresses at which a publisher of go-libipni serves its chain, of HTTP or of streams.
fn publisher_addr(publisher: &GoPeer, http: bool) -> String {
    let addrs = publisher.ready()["publisher"].as_array().expect("addresses").clone();
    let fits =
        |addr: &&Value| addr.as_str().is_some_and(|addr| addr.contains("/http/") == http && !addr.contains("/ws"));
    addrs.iter().find(fits).unwrap_or_else(|| panic!("none of {addrs:?} fits")).as_str().expect("text").to_owned()
}

/// How many blocks a publisher of go-libipni was asked for.
async fn served(publisher: &mut GoPeer) -> u64 {
    let served = publisher.ask("served").await;
    served["blocks"].as_object().expect("counts").values().filter_map(Value::as_u64).sum()
}

/// Waits until the chain of `publisher` is in sync at `head`.
async fn in_sync_at(daemon: &Daemon, publisher: &str, head: &str) -> Value {
    wait_for_some(SOON, &format!("a chain in sync at {head}"), async || {
        let follows = api_call(daemon, "follows", &json!({})).await;
        let follows = follows.as_array().expect("a list").clone();
        let is = |follow: &Value| {
            follow["publisher"] == publisher && follow["state"] == "in_sync" && follow["latest"] == head
        };
        follows.into_iter().find(is)
    })
    .await
}

/// Asserts that the whole chain of a followed publisher is held, that all of it is what it claims, and that every
/// signature holds.
async fn assert_chain(daemon: &Daemon, publisher: &str, length: usize) {
    let ask = json!({"target": publisher, "limit": length + 1});
    let ads = api_call(daemon, "ipni/ads", &ask).await;
    let ads = ads.as_array().expect("a list");
    assert_eq!(ads.len(), length);
    assert!(ads.iter().all(|ad| ad["verified"] == true && ad["signer"] == publisher), "{}", ads[0]);
    let report = daemon.json(&["repo", "verify"]).await;
    assert_eq!((&report["damaged"], &report["missing"]), (&0.into(), &0.into()), "{report}");
}

async fn subscriber(go: GoProgram, flags: &[&str]) -> GoPeer {
    go.start(&[&["ipni-subscriber", "-topic", TOPIC, "-entries"], flags].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn their_subscriber_syncs_a_thousand_of_our_advertisements_over_http_and_streams() {
    let Some(go) = go::program().await else { return };
    let ours = ours().await;
    let head = publish(&ours, ADS).await;
    // Whole over HTTP, in segments over a stream; both follow PreviousID alone, as the strict selector has it.
    let (http, stream) = (http_addr(&ours).await, daemon_addr(&ours, "tcp"));
    let mut over_http = subscriber(go, &["-quiet", "-strict=true"]).await;
    let mut over_stream = subscriber(go, &["-quiet", "-strict=true", "-segment", "100"]).await;
    let whole = |synced: &Value, ads: usize, head: &str| {
        assert_eq!((&synced["head"], &synced["latest"]), (&json!(head), &json!(head)), "{synced}");
        let counts =
            ["ads", "verified", "bad", "entries"].map(|count| synced[count].as_u64().expect("a count") as usize);
        assert_eq!(counts, [ads, ads, 0, 3 * ads], "{synced}");
    };
    whole(&over_http.ask(&format!("sync {http}")).await, ADS, &head);
    whole(&over_stream.ask(&format!("sync {stream}")).await, ADS, &head);

    // Only what is new, down to where each of them is; then no more than a depth; and down to a stop link.
    let newer = publish_with(&ours, 3, true).await;
    whole(&over_http.ask(&format!("sync {http}")).await, 3, &newer);
    whole(&over_stream.ask(&format!("sync {stream}")).await, 3, &newer);
    let depth = over_http.ask(&format!("sync {http} resync=true depth=5")).await;
    assert_eq!(depth["ads"], 5, "{depth}");
    let stopped = subscriber(go, &["-quiet"]).await.ask(&format!("sync {stream} stop={head}")).await;
    whole(&stopped, 3, &newer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_announce_on_gossip_and_over_http_starts_their_sync() {
    let Some(go) = go::program().await else { return };
    let ours = ours().await;
    publish(&ours, 2).await;
    let mut theirs = subscriber(go, &["-http", "-resend=false"]).await;
    theirs.ask(&format!("dial {}", daemon_addr(&ours, "tcp"))).await;
    theirs.sees("joined", ours.peer_id()).await;
    let head = publish(&ours, 1).await;
    let is = |head: &str| {
        let head = json!(head);
        move |event: &Value| event["head"] == head
    };
    let synced = theirs.wait("synced", "a sync that our gossip began", is(&head)).await;
    assert_eq!((&synced["ads"], &synced["bad"]), (&3.into(), &0.into()), "{synced}");

    // Nobody hears of the next one on gossip; an indexer is told over HTTP.
    let mut indexer = subscriber(go, &["-http"]).await;
    let url = indexer.ready()["announce"].as_str().expect("a URL").to_owned();
    let told = ours.json(&["ipni", "announce", "--to", &url]).await;
    assert_eq!((&told["head"], &told["to"]), (&json!(head), &json!(url)), "{told}");
    let synced = indexer.wait("synced", "a sync that our PUT began", is(&head)).await;
    assert_eq!((&synced["ads"], &synced["bad"]), (&3.into(), &0.into()), "{synced}");
    assert_eq!(indexer.ask(&format!("latest {}", ours.peer_id())).await, json!(head));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_sync_a_thousand_of_their_advertisements_over_http_and_streams_and_verify_each() {
    let Some(go) = go::program().await else { return };
    let ads = ADS.to_string();
    // Digests as go-libipni writes them today, and cut to 16 bytes as before.
    let mut publisher = go.start(&["ipni-publisher", "-topic", TOPIC, "-ads", &ads, "-http", "-stream"]).await;
    let cut =
        go.start(&["ipni-publisher", "-topic", TOPIC, "-seed", "02", "-ads", &ads, "-digest", "16", "-plain"]).await;
    let (over_http, over_stream) = (ours().await, ours().await);
    let (http, stream) = (publisher_addr(&publisher, true), publisher_addr(&publisher, false));
    let head = publisher.ready()["head"].as_str().expect("a head").to_owned();
    for (ours, addr) in [(&over_http, &http), (&over_stream, &stream)] {
        let follow = ours.json(&["ipni", "follow", addr, "--wait"]).await;
        assert_eq!((&follow["state"], &follow["latest"]), (&"in_sync".into(), &json!(head)), "{follow}");
        assert_eq!(follow["latest_seq"], ADS, "{follow}");
        assert_chain(ours, publisher.peer_id(), ADS).await;
    }
    let (cut_addr, cut_head) = (publisher_addr(&cut, true), cut.ready()["head"].clone());
    assert!(cut_head.as_str().is_some_and(|head| head.starts_with("baguqeeqq")), "{cut_head}");
    let follow = over_http.json(&["ipni", "follow", &cut_addr, "--wait"]).await;
    assert_eq!(follow["latest"], cut_head, "{follow}");
    assert_chain(&over_http, cut.peer_id(), ADS).await;

    // An advertisement without entries, and one that removes.
    publisher.ask("append 1 0").await;
    let removed = publisher.ask("remove 1").await;
    let newer = publisher.ask("head").await["head"].as_str().expect("a head").to_owned();
    assert_ne!(newer, head, "{removed}");
    let watch = Watch::direct(&over_http).await;
    over_http.json(&["ipni", "follow", &http]).await;
    in_sync_at(&over_http, publisher.peer_id(), &newer).await;
    assert_eq!(watch.finished(&newer).await["count"], 2, "only what is new");
    assert_chain(&over_http, publisher.peer_id(), ADS + 2).await;
    let newest = over_http.json(&["ipni", "ad", "get", &newer]).await;
    assert_eq!((&newest["is_rm"], &newest["verified"]), (&true.into(), &true.into()), "{newest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_they_announce_on_gossip_and_over_http_starts_our_sync() {
    let Some(go) = go::program().await else { return };
    let mut publisher = go.start(&["ipni-publisher", "-topic", TOPIC, "-ads", "3", "-http", "-stream"]).await;
    let ours = ours().await;
    let addr = publisher_addr(&publisher, true);
    ours.json(&["ipni", "follow", &addr, "--wait"]).await;
    publisher.ask(&format!("dial {}", daemon_addr(&ours, "tcp"))).await;
    publisher.sees("joined", ours.peer_id()).await;
    let url = ours.json(&["status"]).await["ipni_http"].as_str().expect("a URL").to_owned();
    for announce in ["announce-gossip".to_owned(), format!("announce-http {url}"), format!("announce-json {url}")] {
        publisher.ask("append 1").await;
        let head = publisher.ask("head").await["head"].as_str().expect("a head").to_owned();
        let watch = Watch::direct(&ours).await;
        publisher.ask(&announce).await;
        let finished = watch.finished(&head).await;
        assert_eq!(finished["count"], 1, "{announce}: {finished}");
    }
    // Of somebody who is not followed: told so.
    let mut other = go.start(&["ipni-publisher", "-topic", TOPIC, "-seed", "02", "-ads", "1", "-http"]).await;
    let refused = other.try_ask(&format!("announce-http {url}")).await;
    assert!(refused.as_ref().is_err_and(|why| why.contains("403")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_came_from_a_go_publisher_comes_natively_from_us() {
    let Some(go) = go::program().await else { return };
    let publisher = go.start(&["ipni-publisher", "-topic", TOPIC, "-ads", "50", "-http"]).await;
    let (first, second) = (ours().await, ours().await);
    let addr = publisher_addr(&publisher, true);
    first.json(&["ipni", "follow", &addr, "--wait"]).await;
    let head = publisher.ready()["head"].as_str().expect("a head").to_owned();
    let mut publisher = publisher;
    let before = served(&mut publisher).await;
    // One of ours that publishes is asked natively; what it publishes is a chain like any other.
    let own = publish(&first, 20).await;
    let watch = Watch::direct(&second).await;
    second.json(&["ipni", "follow", &daemon_addr(&first, "tcp"), "--wait"]).await;
    let finished = watch.finished(&own).await;
    assert_eq!((&finished["count"], &finished["blocks"]), (&20.into(), &40.into()), "{finished}");
    assert_chain(&second, first.peer_id(), 20).await;
    assert!(has(&second.json(&["peers"]).await[0]["protocols"], "/dagmesh/dagsync/1.0.0"));
    assert_eq!(served(&mut publisher).await, before);
    assert_eq!(in_sync_at(&first, publisher.peer_id(), &head).await["latest_seq"], 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_half_way_through_ten_thousand_advertisements_a_follower_goes_on_where_it_stood() {
    let Some(go) = go::program().await else { return };
    let publisher =
        go.start(&["ipni-publisher", "-topic", TOPIC, "-ads", "10000", "-entries", "4", "-chunk", "4", "-http"]).await;
    let mut publisher = publisher;
    let head = publisher.ready()["head"].as_str().expect("a head").to_owned();
    let port = free_port();
    let mut ours = daemon(&["--listen", &format!("/ip4/127.0.0.1/tcp/{port}")], &[NETWORK]).await;
    ours.json(&["ipni", "follow", &publisher_addr(&publisher, true)]).await;
    let mut kills = 0;
    for at in [4_000, 9_000, 14_000] {
        // Its checkpoints are seconds apart: what it had asked for by then is what may come again.
        let before = served(&mut publisher).await;
        wait_for_some(SOON, &format!("a publisher that was asked for {at} blocks"), async || {
            (served(&mut publisher).await >= at).then_some(())
        })
        .await;
        if served(&mut publisher).await > before {
            ours.kill9().await;
            ours.restart().await;
            kills += 1;
        }
    }
    in_sync_at(&ours, publisher.peer_id(), &head).await;
    let requests = served(&mut publisher).await;
    println!("{requests} requests for 20,000 blocks over {kills} kills");
    assert!(kills > 0, "it was never in the middle");
    // What comes again after each kill: what was fetched ahead of the chain (2,048), and what came since the last
    // checkpoint (1,024). From the head again it would be 27,000 more.
    assert!(requests < 20_000 + kills * 4_500, "{requests} requests");
    assert_chain(&ours, publisher.peer_id(), 10_000).await;
}
