//! New heads that are told: on gossip, over HTTP, and of publishers that nobody follows.

use dagmesh_tests::ipni;
use serde_json::json;

use super::{assert_same_chain, http_addr, ours};
use crate::support::{Watch, daemon, str_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_announced_on_gossip_and_followed_at_once() {
    let publisher = ours().await;
    ipni::publish(&publisher, 2, true).await;
    let follower = daemon(&[]).await;
    follower.json(&["ipni", "follow", &publisher.addr("tcp"), "--wait"]).await;
    let watch = Watch::direct(&follower).await;
    // What is announced before the two know of each other's topic reaches nobody.
    let mut told = 0;
    let mut head = String::new();
    while told == 0 {
        let removed = publisher.json(&["ipni", "remove", "nothing"]).await;
        (told, head) = (removed["announced_to"].as_u64().expect("a count"), str_of(&removed, "ad").to_owned());
    }
    watch.finished(&head).await;
    ipni::in_sync_at(&follower, publisher.peer_id(), &head).await;
    assert_same_chain(&follower, &publisher).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_told_over_http_follows_its_own_and_refuses_others() {
    let (publisher, follower) = tokio::join!(ours(), ours());
    let first = ipni::publish(&publisher, 2, true).await.remove(0);
    let url = ipni::url(&follower).await;
    let refused = publisher.run(&["ipni", "announce", "--to", &url]).await;
    assert!(refused.code == Some(6) && refused.stderr.contains("403"), "{refused}");
    assert!(refused.stderr.contains(publisher.peer_id()) && refused.stderr.contains("not followed"), "{refused}");

    follower.json(&["ipni", "follow", &http_addr(&publisher).await, "--wait"]).await;
    let head = ipni::publish(&publisher, 1, true).await.remove(0);
    let watch = Watch::direct(&follower).await;
    let told = publisher.json(&["ipni", "announce", "--to", &url]).await;
    assert_eq!((&told["head"], &told["to"]), (&json!(head), &json!(url)), "{told}");
    assert_eq!(watch.finished(&head).await["count"], 1);
    assert_same_chain(&follower, &publisher).await;

    // An older one is taken, and is no news.
    publisher.json(&["ipni", "announce", "--to", &format!("{url}/announce"), &first]).await;
    let follow = ipni::in_sync_at(&follower, publisher.peer_id(), &head).await;
    assert_eq!(follow["latest_seq"], 3, "{follow}");
    assert!(watch.all("sync_started").len() <= 1 && watch.all("sync_failed").is_empty(), "one sync in all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_of_another_name_is_another_chain() {
    let publisher = ours().await;
    ipni::publish(&publisher, 1, true).await;
    let follower = daemon(&[]).await;
    // Its publisher serves one chain; whoever follows it under another name gets that one under that name.
    let follow = follower.json(&["ipni", "follow", &http_addr(&publisher).await, "--network", "other", "--wait"]).await;
    assert_eq!((&follow["feed"], &follow["state"]), (&"ipni:other".into(), &"in_sync".into()), "{follow}");
    let listed = follower.run(&["ipni", "ad", "list", publisher.peer_id()]).await;
    assert!(listed.code == Some(4) && listed.stderr.contains("not followed"), "{listed}");
    let listed = follower.run(&["ipni", "ad", "list", publisher.peer_id(), "--network", "other"]).await;
    assert_eq!((listed.code, listed.values.len()), (Some(0), 1), "{listed}");
}
