//! Floods: of digests that nobody knows, over the topic and by requests.

use dagmesh_chronosync::{Answer, Request};
use dagmesh_core::limits;
use dagmesh_tests::{
    group,
    hostile::{
        gossip::{Gossiper, prune, subscriptions},
        group::{digest, topic, unknown},
    },
    peer::SOON,
    wait_for,
};
use futures::future::join_all;

use super::{GROUP, Scene};

const MIB: u64 = 1 << 20;
/// Digests that are told over the topic, in the short form and in the long one.
const FLOOD: [u64; 2] = [10_000, 100_000];
/// Requests that are made.
const REQUESTS: u64 = 2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_a_flood_of_unknown_digests_takes_no_memory_and_drowns_nobody() {
    let flood_len = FLOOD[usize::from(std::env::var_os("DAGMESH_LONG").is_some())];
    let mut scene = Scene::start().await;
    let (hostile, _) = scene.intruder().await;
    let before = scene.daemon.memory();
    let (topic, addr) = (topic(&scene.group), scene.daemon.addr("tcp").parse().expect("an address"));
    let flood = tokio::spawn(async move {
        let (mut sent, mut cut) = (0, 0);
        while sent < flood_len {
            let mut flooder = Gossiper::connect(&addr).await;
            let _cut = flooder.send(&subscriptions(true, [topic.as_str()])).await;
            while sent < flood_len && flooder.try_publish(&topic, &digest(sent)).await.is_ok() {
                sent += 1;
            }
            cut += 1;
            if cut > 50 {
                break;
            }
        }
        (sent, cut)
    });
    let peer = scene.peer_id();
    let mut busy = 0;
    for n in 0..REQUESTS / 8 {
        let hello = |k| Request::Hello(unknown(flood_len + 8 * n + k)).encode().expect("a request");
        let asks = (0..8).map(|k| {
            let (hostile, group, hello) = (&hostile, &scene.group, hello(k));
            async move { hostile.ask_group(peer, group, &hello).await }
        });
        for answer in join_all(asks).await {
            busy += u64::from(!matches!(answer, Some(Answer::Digest(_))));
        }
        if n % 25 == 0 {
            scene.said += 1;
            group::say(&scene.honest, GROUP, &format!("{} amid the flood", scene.said)).await;
        }
    }
    assert!(busy > REQUESTS / 2, "{busy} of {REQUESTS} were refused");
    let (sent, connections) = flood.await.expect("a flood");
    let meanwhile = scene.watch.entries().len();
    println!("{sent} digests over {connections} connections; {meanwhile} of {} were told meanwhile", scene.said);
    assert!(sent > 1000, "{sent} digests, and nothing shown");
    scene.watch.told(usize::try_from(scene.said).expect("few")).await;
    scene.honest_is_heard().await;
    if let (Some(before), Some(after)) = (before, scene.daemon.memory()) {
        println!("{before:?}, then {after:?}");
        // Gossipsub remembers each message for a minute, so that it is not taken twice.
        assert!(after.peak - before.peak < 160 * MIB, "{before:?}, then {after:?}");
    }
    let state = group::state(&scene.daemon, GROUP).await;
    assert_eq!((state.leaves, state.sum), (1, scene.said));
    let told = group::assert_sound(&group::log(&scene.daemon, GROUP).await);
    assert!(told.keys().all(|(producer, _)| *producer == group::peer(&scene.honest)), "{:?}", told.keys());
}

/// A peer that reads no more would close its stream and hear nothing from then on; so a flood would part honest members.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amid_a_flood_a_neighbour_is_never_named_more_messages_than_it_reads_at_once() {
    let mut scene = Scene::start().await;
    let (topic, addr) = (topic(&scene.group), scene.daemon.addr("tcp").parse().expect("an address"));
    // Outside of the mesh, messages are named to it and not sent.
    let mut neighbour = Gossiper::connect(&addr).await;
    neighbour.send(&subscriptions(true, [topic.as_str()])).await.expect("a stream");
    neighbour.hears("a place in the mesh", |rpc| rpc.graft.contains(&topic)).await;
    neighbour.send(&prune(&topic, 3600)).await.expect("a stream");
    let mut flooder = Gossiper::connect(&addr).await;
    flooder.send(&subscriptions(true, [topic.as_str()])).await.expect("a stream");
    let mut sent = 0;
    wait_for(SOON, "names of messages", async || {
        for _ in 0..limits::MAX_GOSSIP_IDS {
            flooder.try_publish(&topic, &digest(sent)).await.expect("a stream");
            sent += 1;
        }
        neighbour.heard().iter().any(|rpc| rpc.ihave.len() >= limits::MAX_GOSSIP_IDS)
    })
    .await;
    let most = neighbour.heard().iter().map(|rpc| rpc.ihave.len()).max();
    assert_eq!(most, Some(limits::MAX_GOSSIP_IDS));
    scene.honest_is_heard().await;
}
