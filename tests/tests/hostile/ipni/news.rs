//! Announcements that lie, or come in floods.

use dagmesh_announce::Announcement;
use dagmesh_tests::{
    Daemon,
    hostile::{
        Hostile,
        http::{HttpPublisher, raw},
    },
    ipni::{self, AdChain, TOPIC},
    peer::SOON,
    wait_for,
};
use libp2p::{Multiaddr, PeerId};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{MIB, Prey, publisher};

/// Puts an announcement to a daemon; the status of the answer and what it says, `0` where there was none.
async fn put(daemon: &Daemon, body: &[u8]) -> (u16, String) {
    let addr = ipni::url(daemon).await.trim_start_matches("http://").to_owned();
    put_at(&addr, body).await
}

async fn put_at(addr: &str, body: &[u8]) -> (u16, String) {
    let exchange = async {
        let mut tcp = TcpStream::connect(addr).await.expect("the daemon's HTTP");
        let head = format!(
            "PUT /announce HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/octet-stream\r\nconnection: \
             close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut answer = Vec::new();
        // A server that has enough may hang up before it has read all.
        let _ = tcp.write_all(&[head.as_bytes(), body].concat()).await;
        let _ = tcp.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(SOON, exchange).await.expect("an answer in time");
    (answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), answer)
}

/// A publisher that is followed and has grown since, so that there is news of it; the daemon that follows it.
async fn with_news() -> (Prey, String) {
    let mut prey = Prey::start().await;
    prey.follow(&["--wait"]).await;
    ipni::in_sync_at(&prey.daemon, &prey.peer(), &prey.chain.head().to_string()).await;
    prey.chain.grow(1);
    prey.hostile.serve(&prey.chain);
    let head = prey.chain.head().to_string();
    (prey, head)
}

/// Where nobody is, and a publisher that is somebody else: what a liar names.
async fn lies(publisher: PeerId) -> (HttpPublisher, Vec<Multiaddr>) {
    let other = HttpPublisher::start().await;
    let at = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}/http/p2p/{publisher}").parse().expect("an address");
    let port = other.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let mut lies: Vec<Multiaddr> = vec![at(port)];
    lies.extend((0..6).map(|_| at(dagmesh_tests::daemon::free_port())));
    (other, lies)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_what_somebody_else_says_of_a_publisher_leads_to_one_question_and_no_address_is_kept() {
    let (mut prey, head) = with_news().await;
    let (publisher, liar) = (prey.hostile.peer_id(), Hostile::start().await);
    liar.connect(prey.daemon.addr("tcp").parse().expect("an address")).await;
    let (elsewhere, lies) = lies(publisher).await;
    // An invented head, and addresses at which the publisher is not.
    let invented = Announcement::bare(AdChain::new(prey.hostile.key()).chunk(), lies.clone()).relayed(publisher);
    let before = prey.hostile.count("head");
    liar.gossip(TOPIC, invented.encode().expect("an announcement")).await;
    // It is asked itself, and says what is true.
    ipni::in_sync_at(&prey.daemon, &prey.peer(), &head).await;
    assert_eq!(prey.hostile.count("head"), before + 1, "one question");
    assert!(elsewhere.asked().is_empty(), "who has answered is not looked for elsewhere");

    // When the publisher does not answer, those are asked too, and are not kept: nobody there proves to be it.
    prey.hostile.answer(|_| Some(raw([])));
    let again = Announcement::bare(prey.chain.ads()[0], lies).relayed(publisher).encode().expect("an announcement");
    liar.gossip(TOPIC, again).await;
    wait_for(SOON, "a question elsewhere", async || !elsewhere.asked().is_empty()).await;
    // One visit asks for several things, the head first.
    let visits = || elsewhere.asked().iter().filter(|asked| *asked == "head").count();
    let visited = visits();
    prey.hostile.be_honest();
    prey.chain.grow(1);
    prey.hostile.serve(&prey.chain);
    // After a start the addresses that were kept last are asked first.
    prey.daemon.restart().await;
    ipni::in_sync_at(&prey.daemon, &prey.peer(), &prey.chain.head().to_string()).await;
    assert_eq!(visits(), visited, "{:?}", elsewhere.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_a_publisher_that_moved_is_found_where_somebody_names_it_and_proves_itself() {
    let (prey, _) = with_news().await;
    let (peer, key) = (prey.peer(), prey.hostile.key().clone());
    let Prey { daemon, hostile, mut chain, .. } = prey;
    drop(hostile);
    let moved = HttpPublisher::with_key(key).await;
    chain.grow(1);
    moved.serve(&chain);
    let (elsewhere, mut addrs) = lies(moved.peer_id()).await;
    addrs.push(moved.addr());
    let message = Announcement::bare(chain.head(), addrs).encode().expect("an announcement");
    let (status, answer) = put(&daemon, &message).await;
    assert_eq!(status, 204, "{answer}");
    let follow = ipni::in_sync_at(&daemon, &peer, &chain.head().to_string()).await;
    assert_eq!(follow["latest_seq"], 5, "{follow}");
    assert!(elsewhere.asked().iter().all(|asked| asked.contains("head") || asked.starts_with('/')), "no block");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_a_put_that_names_another_publisher_or_none_is_refused() {
    let (prey, head) = with_news().await;
    let (own, other) = (prey.hostile.addr(), HttpPublisher::start().await);
    let cid = head.parse().expect("a CID");
    let bare = |addrs: Vec<Multiaddr>| Announcement::bare(cid, addrs).encode().expect("an announcement");
    let nameless: Multiaddr = "/ip4/127.0.0.1/tcp/80/http".parse().expect("an address");
    let before = prey.hostile.asked().len();
    for (message, status) in [
        (bare(vec![own.clone(), other.addr()]), 400),
        (bare(vec![nameless]), 400),
        (bare(Vec::new()), 400),
        (bare(vec![other.addr()]), 403),
        (b"garbage".to_vec(), 400),
        (vec![0x83; 64 * 1024], 413),
    ] {
        let (answered, answer) = put(&prey.daemon, &message).await;
        assert_eq!(answered, status, "{answer}");
    }
    assert!(other.asked().is_empty(), "nobody is asked for that");
    assert_eq!(prey.hostile.asked().len(), before);
    // The addresses decide over HTTP, whoever it says it is relayed of.
    let relayed = Announcement::bare(cid, vec![own]).relayed(other.peer_id()).encode().expect("an announcement");
    assert_eq!(put(&prey.daemon, &relayed).await.0, 204);
    ipni::in_sync_at(&prey.daemon, &prey.peer(), &head).await;
    assert!(other.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_a_flood_of_announcements_over_http_is_slowed_and_the_daemon_goes_on() {
    let (mut prey, head) = with_news().await;
    let addr = ipni::url(&prey.daemon).await.trim_start_matches("http://").to_owned();
    let followed = prey.hostile.addr();
    let asked = prey.hostile.count("head");
    let mut statuses = std::collections::BTreeMap::new();
    // Of the one that is followed, each with another head; and of many that are not.
    for round in 0..20u64 {
        let puts = (0..25).map(|n| {
            let (addr, followed) = (addr.clone(), followed.clone());
            async move {
                let cid = cid::Cid::new_v1(0x0129, *dagmesh_tests::hostile::dag::cid_of(round * 100 + n).hash());
                let stranger = format!("/ip4/127.0.0.1/tcp/9/http/p2p/{}", PeerId::random());
                let named = if n % 2 == 0 { followed } else { stranger.parse().expect("an address") };
                let message = Announcement::bare(cid, vec![named]).encode().expect("an announcement");
                put_at(&addr, &message).await.0
            }
        });
        for status in futures::future::join_all(puts).await {
            *statuses.entry(status).or_insert(0) += 1;
        }
    }
    println!("{statuses:?}");
    let questions = prey.hostile.count("head") - asked;
    assert!(questions <= 60, "{questions} questions for {statuses:?}");
    ipni::in_sync_at(&prey.daemon, &prey.peer(), &head).await;
    let peers = prey.daemon.json(&["peers"]).await;
    assert_eq!(peers, json!([]), "no stranger is dialled");
    prey.assert_flat(32 * MIB).await;
    let (honest, chain) = publisher(2).await;
    super::follow(&prey.daemon, &honest, &["--wait"]).await;
    ipni::in_sync_at(&prey.daemon, &honest.peer_id().to_string(), &chain.head().to_string()).await;
}
