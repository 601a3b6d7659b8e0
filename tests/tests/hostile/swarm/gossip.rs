use std::{collections::HashSet, sync::PoisonError, time::Instant};

use dagmesh::{
    Node,
    api::ProgressSink,
    config::{Config, Profile},
    types::{Event, FollowRequest},
};
use dagmesh_core::limits;
use dagmesh_tests::{
    hostile::gossip::{self, Gossiper},
    peer::{Events, Peer},
    wait_for,
};
use futures::StreamExt;
use libp2p::StreamProtocol;

use super::*;

/// The stream protocol of a sync.
const SYNC: StreamProtocol = StreamProtocol::new("/dagmesh/dagsync/1.0.0");

/// The sequence numbers of the heads of `publisher` that a node was told of.
fn announced(events: &Events, publisher: PeerId) -> Vec<u64> {
    let seq = |event: &Event| match event {
        Event::HeadAnnounced { publisher: of, seq, .. } if *of == publisher => Some(*seq),
        _ => None,
    };
    events.seen.iter().filter_map(seq).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_announcements_are_taken_at_their_rate_and_make_no_more_fetches() {
    const FLOOD: u64 = 600;
    let victim = Peer::start().await;
    let mut events = victim.events().await;
    let mut flooder = on_topic(&victim.tcp_addr().await).await;
    let publisher = flooder.peer_id();
    let syncs = flooder.count_streams(SYNC);
    let begun = Instant::now();
    victim.follow(FollowRequest::new(target(publisher)), ProgressSink::none()).await.expect("followed");

    // One head, in 200 messages.
    let key = flooder.key().clone();
    for _ in 0..200 {
        flooder.publish(TOPIC, &announcement(&invented(&key, 1), [], false)).await;
    }
    // Then a new head each time.
    for seq in 2..=FLOOD {
        flooder.publish(TOPIC, &announcement(&invented(&key, seq), [], false)).await;
    }
    let burst = u64::from(limits::ANNOUNCEMENT_BURST);
    let fits = |event: &Event| matches!(event, Event::HeadAnnounced { seq, .. } if *seq + 1 >= burst);
    events.until("the burst that is taken", fits).await;

    // An honest publisher gets through meanwhile.
    let honest = Peer::start().await;
    honest.publish_text("honest").await;
    victim.follow_wait(FollowRequest::new(honest.target().await)).await;
    honest.publish_text("again").await;
    victim.in_sync_at(honest.peer_id(), 2).await;
    // Reads on until what follows on the honest publisher's sync, so that all before it has been read.
    events.until("the second sync", |event| matches!(event, Event::LatestMoved { seq: 2, .. })).await;

    let told = announced(&events, publisher);
    let allowed = burst + u64::from(limits::ANNOUNCEMENTS_PER_SECOND) * (begun.elapsed().as_secs() + 1);
    assert!(told.len() as u64 <= allowed, "{} heads of {FLOOD} were told where {allowed} may be taken", told.len());
    assert_eq!(told.iter().collect::<HashSet<_>>().len(), told.len(), "each head once: {told:?}");
    // Each failed sync is one fetch, opened again a few times; the heads that came meanwhile make no further ones.
    let started = events
        .seen
        .iter()
        .filter(|event| matches!(event, Event::SyncStarted { publisher: of, .. } if *of == publisher));
    let started = started.count() as u64;
    let tries = 2 + begun.elapsed().as_secs();
    assert!(started <= tries, "{started} syncs began for {} heads", told.len());
    let streams = *syncs.lock().unwrap_or_else(PoisonError::into_inner) as u64;
    println!("{} heads told, {started} syncs, {streams} streams", told.len());
    assert!(streams <= 8 * started, "{streams} streams for {started} syncs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_invented_heads_of_others_cause_no_dial_and_no_harm() {
    let (daemon, _) = publisher().await;
    let trap = Trap::start().await;
    let before = peak(&daemon);
    let mut flooder = on_topic(&addr_of(&daemon)).await;
    for _ in 0..300 {
        let head = invented(&Keypair::generate_ed25519(), 1);
        flooder.publish(TOPIC, &announcement(&head, [trap.addr.clone()], true)).await;
    }
    // Not signed, and no announcements at all.
    for n in 0..50u64 {
        flooder.publish(TOPIC, &n.to_be_bytes()).await;
    }
    let honest = Peer::start().await;
    honest
        .follow_wait(FollowRequest::new(
            daemon.json(&["ticket"]).await["ticket"].as_str().expect("a ticket").parse().expect("a target"),
        ))
        .await;
    publish(&daemon, "two").await;
    honest.in_sync_at(daemon.peer_id().parse().expect("a peer id"), 2).await;
    assert_eq!(trap.dials(), 0, "nobody that is not followed is dialled");
    assert_memory(&daemon, before, 32 * MIB);
}

/// A node with this profile on loopback alone, which nothing leads out of.
async fn confined(profile: Profile, home: &std::path::Path) -> Node {
    let mut config = Config::of_profile(profile);
    config.swarm.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
    config.swarm.bootstrap = Vec::new();
    config.swarm.network = "test".to_owned();
    (config.swarm.mdns, config.swarm.upnp, config.swarm.autonat) = (false, false, false);
    config.swarm.hole_punching = false;
    Node::builder().home(home).config(config).start().await.expect("a node")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_21_announced_loopback_addresses_are_dialled_on_a_test_profile_and_not_on_a_public_one() {
    for profile in [Profile::Test, Profile::Public] {
        let home = tempfile::tempdir().expect("a home");
        let node = confined(profile, home.path()).await;
        let addr = node.addrs().await.expect("addresses")[0].clone();
        let mut events = node.watch().await.expect("events");
        let trap = Trap::start().await;
        let absent = Keypair::generate_ed25519();
        let peer = absent.public().to_peer_id();
        node.follow(FollowRequest::new(target(peer)), ProgressSink::none()).await.expect("followed");
        // Somebody relays the head of a publisher who is said to be on loopback.
        let mut relay = on_topic(&addr).await;
        relay.publish(TOPIC, &announcement(&invented(&absent, 1), [trap.addr.clone()], true)).await;
        let sync_failed = async {
            let (mut heard, mut failed) = (false, false);
            while !(heard && failed) {
                match events.next().await.expect("a node that runs") {
                    Event::HeadAnnounced { publisher, .. } => heard |= publisher == peer,
                    Event::SyncFailed { publisher, reason, .. } => {
                        failed |= heard && publisher == peer && reason.contains("no addresses");
                    }
                    _ => {}
                }
            }
        };
        if profile == Profile::Test {
            wait_for(SOON, "a dial of the announced address", async || trap.dials() > 0).await;
        } else {
            tokio::time::timeout(SOON, sync_failed).await.expect("a sync that finds no provider");
            assert_eq!(trap.dials(), 0, "an announcement makes no node dial into its own network");
        }
    }
}

/// How many heartbeats of the daemon a gossiper that is not in its mesh has seen: each names the newest messages.
fn heartbeats(gossiper: &Gossiper) -> usize {
    gossiper.heard().iter().filter(|rpc| !rpc.ihave.is_empty()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_22_a_prune_for_ever_is_clamped_and_the_mesh_goes_on() {
    // The storage of backoffs goes round in as many heartbeats as an honest backoff has seconds. One that is clamped to
    // an hour comes up again after five of them, and one that is not clamped after at most 62, so the long form waits
    // for two rounds: `just hostile-long`.
    let rounds = if std::env::var_os("DAGMESH_LONG").is_some() { 125 } else { 7 };
    let (mut daemon, _) = publisher().await;
    let follower = Peer::start().await;
    let ticket = daemon.json(&["ticket"]).await["ticket"].as_str().expect("a ticket").parse().expect("a target");
    follower.follow_wait(FollowRequest::new(ticket)).await;

    let mut hostile = on_topic(&addr_of(&daemon)).await;
    hostile.send(&gossip::graft(TOPIC)).await.expect("a stream");
    for backoff in [u64::MAX, u64::MAX - 1, i64::MAX as u64, 1 << 62, 1 << 40, u64::from(u32::MAX), 0] {
        hostile.send(&gossip::prune(TOPIC, backoff)).await.expect("a stream");
    }
    // Of a topic that nobody is on.
    hostile.send(&gossip::prune("/dagmesh/heads/none", u64::MAX)).await.expect("a stream");

    let mut published = 1;
    while heartbeats(&hostile) < rounds {
        published += 1;
        publish(&daemon, &format!("entry {published}")).await;
        let before = heartbeats(&hostile);
        wait_for(SOON, "two heartbeats", async || heartbeats(&hostile) >= (before + 2).min(rounds)).await;
    }
    assert!(daemon.is_running());
    follower.in_sync_at(daemon.peer_id().parse().expect("a peer id"), published).await;
    let grafted = hostile.heard().iter().any(|rpc| rpc.graft.iter().any(|topic| topic == TOPIC));
    println!("{} heartbeats, taken back into the mesh: {grafted}", heartbeats(&hostile));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_23_a_hundred_thousand_subscriptions_are_capped_and_take_no_memory() {
    let (mut daemon, _) = publisher().await;
    let addr = addr_of(&daemon);
    let junk = |n: usize| format!("/dagmesh/junk/{n:06}");
    let subscribe = |from: usize, to: usize| {
        let topics: Vec<_> = (from..to).map(junk).collect();
        gossip::subscriptions(true, topics.iter().map(String::as_str))
    };
    // One peer's hundredth topic is the real one, another's is its hundred-and-first.
    let (mut at_cap, mut over_cap) = (Gossiper::connect(&addr).await, Gossiper::connect(&addr).await);
    at_cap.send(&subscribe(0, limits::MAX_TOPICS - 1)).await.expect("a stream");
    at_cap.send(&gossip::subscriptions(true, [TOPIC])).await.expect("a stream");
    over_cap.send(&subscribe(0, limits::MAX_TOPICS)).await.expect("a stream");
    over_cap.send(&gossip::subscriptions(true, [TOPIC])).await.expect("a stream");

    let before = peak(&daemon);
    let mut flooder = Gossiper::connect(&addr).await;
    // In messages that each hold what a control message may, and in one that is refused from its length.
    for from in (0..100_000).step_by(250) {
        if flooder.send(&subscribe(from, from + 250)).await.is_err() {
            flooder.reopen().await;
        }
    }
    let huge = subscribe(0, 100_000);
    assert!(flooder.send(&huge).await.is_err(), "a message over its cap is taken");

    at_cap
        .hears("a place in the mesh of its hundredth topic", |rpc| rpc.graft.iter().any(|topic| topic == TOPIC))
        .await;
    publish(&daemon, "two").await;
    at_cap.hears("an announcement", |rpc| !rpc.published.is_empty()).await;
    let spoken_to = over_cap.heard().iter().any(|rpc| !rpc.published.is_empty() || !rpc.graft.is_empty());
    assert!(!spoken_to, "the topic over the cap counts");
    // It is the count that refuses it: once there is room it is taken.
    over_cap.send(&gossip::subscriptions(false, [junk(0).as_str()])).await.expect("a stream");
    over_cap.send(&gossip::subscriptions(true, [TOPIC])).await.expect("a stream");
    over_cap.hears("a place in the mesh", |rpc| rpc.graft.iter().any(|topic| topic == TOPIC)).await;
    assert!(daemon.is_running());
    assert_memory(&daemon, before, 24 * MIB);
}

/// As many as go-libp2p-pubsub names at once, each with its author and number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_names_5000_messages_at_once_is_asked_for_some_and_heard_on() {
    let (daemon, _) = publisher().await;
    let mut peer = on_topic(&addr_of(&daemon)).await;
    let ids: Vec<[u8; 46]> = (0..5000u32)
        .map(|n| {
            let mut id = [7; 46];
            id[..4].copy_from_slice(&n.to_be_bytes());
            id
        })
        .collect();
    let named = gossip::ihave(TOPIC, ids.iter().map(|id| &id[..]));
    assert!((limits::MAX_GOSSIP_BYTES..limits::MAX_GOSSIP_FRAME_BYTES).contains(&named.len()));
    peer.send(&named).await.expect("a stream");
    peer.hears("questions", |rpc| !rpc.iwant.is_empty()).await;
    let asked = peer.heard().iter().map(|rpc| rpc.iwant.len()).max();
    assert_eq!(asked, Some(limits::MAX_GOSSIP_IDS), "as many as other peers read at once");
    let asked_before = peer.heard().iter().map(|rpc| rpc.iwant.len()).sum::<usize>();
    wait_for(SOON, "further questions", async || {
        peer.send(&named).await.expect("the same stream");
        peer.heard().iter().map(|rpc| rpc.iwant.len()).sum::<usize>() > asked_before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_24_floods_of_control_messages_are_capped() {
    let (mut daemon, _) = publisher().await;
    let addr = addr_of(&daemon);
    let before = peak(&daemon);
    let mut hostile = on_topic(&addr).await;
    hostile.hears("a place in the mesh", |rpc| rpc.graft.iter().any(|topic| topic == TOPIC)).await;

    // 200,000 messages are said to be there; each is 20 bytes.
    let begun = Instant::now();
    let mut named = 0u64;
    for _ in 0..400 {
        let ids: Vec<[u8; 20]> = (0..500)
            .map(|_| {
                named += 1;
                let mut id = [0; 20];
                id[..8].copy_from_slice(&named.to_be_bytes());
                id
            })
            .collect();
        hostile.send(&gossip::ihave(TOPIC, ids.iter().map(|id| &id[..]))).await.expect("a stream");
    }
    publish(&daemon, "two").await;
    hostile.hears("an announcement", |rpc| !rpc.published.is_empty()).await;
    let wanted: usize = hostile.heard().iter().map(|rpc| rpc.iwant.len()).sum();
    let heartbeats = usize::try_from(begun.elapsed().as_secs()).expect("few") + 2;
    println!("{wanted} of {named} asked for in {heartbeats} heartbeats");
    assert!(wanted <= limits::MAX_GOSSIP_IDS * heartbeats, "{wanted} asked for");

    // One message, asked for again and again.
    let mut asking = on_topic(&addr).await;
    asking.hears("an id", |rpc| !rpc.ihave.is_empty() || !rpc.graft.is_empty()).await;
    asking.send(&gossip::prune(TOPIC, 3600)).await.expect("a stream");
    publish(&daemon, "three").await;
    let id = wait_for_some(SOON, "an id", async || {
        asking.heard().iter().rev().flat_map(|rpc| rpc.ihave.iter().rev()).next().cloned()
    });
    let id = id.await;
    let copies = |asking: &Gossiper| asking.heard().iter().map(|rpc| rpc.published.len()).sum::<usize>();
    let had = copies(&asking);
    for _ in 0..200 {
        asking.send(&gossip::iwant(std::iter::repeat_n(&id[..], 250))).await.expect("a stream");
    }
    publish(&daemon, "four").await;
    publish(&daemon, "five").await;
    wait_for(SOON, "the announcement after the flood", async || copies(&asking) >= had + 2).await;
    assert!(copies(&asking) <= had + 16, "{} copies for 50,000 requests", copies(&asking) - had);

    // Over its cap a frame is read no further: the stream is closed, the node lives.
    let claim = [0xff, 0xff, 0xff, 0x7f];
    hostile.send_bytes(&claim).await.expect("a stream");
    let mut sent = 0;
    while hostile.send_bytes(&[0; 16 * 1024]).await.is_ok() {
        sent += 16 * 1024;
        assert!(sent < 64 * limits::MAX_GOSSIP_FRAME_BYTES, "a frame that claims 256 MiB is read");
    }
    let head = publish(&daemon, "six").await;
    assert!(daemon.is_running());
    is_served(&daemon, head).await;
    assert_memory(&daemon, before, 48 * MIB);
}
