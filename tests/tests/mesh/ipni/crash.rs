//! Daemons that are killed while they publish or follow a chain.

use dagmesh_tests::{DelayProxy, Line, api::api_try, ipni, wait_for_some};
use serde_json::{Value, json};

use super::{assert_same_chain, ours};
use crate::support::{SOON, api_call, assert_sound, daemon, number, str_of};

/// How often the publisher is killed.
const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_advertisement_that_was_acknowledged_is_lost_and_the_chain_never_forks() {
    let mut publisher = ours().await;
    let follower = daemon(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged: Vec<String> = Vec::new();
    for kill in 0..KILLS {
        let path = folder.path().join(format!("list {kill}"));
        // Chunks enough that most of the time goes into them.
        let list: String = (0..20_000).map(|n| format!("1220{kill:032x}{n:032x}\n")).collect();
        std::fs::write(&path, list).expect("a list");
        let ask = json!({"path": path, "no_announce": true});
        let small = json!({"context_id": "small", "remove": true, "no_announce": true});
        for ask in [&ask, &small] {
            let made = api_call(&publisher, "ipni/publish", ask).await;
            assert_eq!(made["previous"].as_str(), acknowledged.last().map(String::as_str), "{made}");
            acknowledged.push(str_of(&made, "ad").to_owned());
        }
        // In the middle of the next ones: two are asked for at once, and neither is waited for.
        let cut = {
            let (one, two) = (api_try(&publisher, "ipni/publish", &small), api_try(&publisher, "ipni/publish", &ask));
            let moment = tokio::time::sleep(std::time::Duration::from_millis(30 * kill as u64));
            let both = async { tokio::join!(one, two) };
            tokio::select! { both = both => Some(both), () = moment => None }
        };
        publisher.kill9().await;
        publisher.restart().await;
        let chain: Vec<Value> = ipni::ads(&publisher, publisher.peer_id()).await;
        let cids: Vec<&str> = chain.iter().rev().map(|ad| str_of(ad, "cid")).collect();
        assert!(cids.starts_with(&acknowledged.iter().map(String::as_str).collect::<Vec<_>>()), "{cids:?}");
        assert!(cids.len() <= acknowledged.len() + 2, "{cids:?}");
        assert!(cut.is_none() || cids.len() == acknowledged.len() + 2, "what was answered is there");
        acknowledged = cids.into_iter().map(str::to_owned).collect();
        // The head that is served is the newest of them.
        let addr = ipni::http_addr(&publisher, "/ip4/127.0.0.1").await;
        let head = acknowledged.last().expect("an advertisement");
        follower.json(&["ipni", "follow", &addr]).await;
        ipni::in_sync_at(&follower, publisher.peer_id(), head).await;
    }
    assert_same_chain(&follower, &publisher).await;
    assert_sound(&publisher).await;
    assert_sound(&follower).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_killed_goes_on_where_it_stood() {
    const ADS: usize = 60;
    let publisher = ours().await;
    let head = ipni::publish(&publisher, ADS, true).await.pop().expect("an advertisement");
    let to = ipni::url(&publisher).await.trim_start_matches("http://").parse().expect("a socket");
    // Slow enough to be caught in the middle.
    let line = Line { rate: Some(30_000), ..Line::default() };
    let proxy = DelayProxy::with_line(to, line).await.expect("a proxy");
    let addr = format!("{}/http/p2p/{}", proxy.multiaddr(), publisher.peer_id());
    let mut follower = daemon(&[]).await;
    follower.json(&["ipni", "follow", &addr]).await;
    let mut kills = 0;
    for held in [ADS / 2, ADS] {
        wait_for_some(SOON, "blocks on the disk", async || {
            let blocks = number(&api_call(&follower, "repo/stat", &json!({})).await, "blocks");
            (blocks as usize >= held).then_some(())
        })
        .await;
        follower.kill9().await;
        follower.restart().await;
        let follow = ipni::standing(&follower, publisher.peer_id()).await.expect("a follow");
        kills += usize::from(follow["latest"] != head);
    }
    assert!(kills > 0, "it was never in the middle");
    proxy.set_rate(None);
    let follow = ipni::in_sync_at(&follower, publisher.peer_id(), &head).await;
    // What the last run came past, held or not: had it walked from the head again, that would be all of it.
    let passed = number(&follow, "have_blocks") as usize;
    println!("{passed} of {} blocks were walked after the last kill", 2 * ADS);
    assert!(passed < 2 * ADS, "{passed} blocks were walked after the last kill");
    assert_same_chain(&follower, &publisher).await;
    assert_sound(&follower).await;
}
