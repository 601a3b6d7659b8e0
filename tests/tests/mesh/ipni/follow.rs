//! How much of a chain is followed, for how long, and of how many publishers.

use dagmesh_tests::{
    Daemon,
    hostile::http::HttpPublisher,
    ipni::{self, AdChain},
};
use serde_json::{Value, json};

use super::{assert_same_chain, entries_held, http_addr, ours};
use crate::support::{Watch, api_call, assert_sound, daemon, number, str_of};

/// Which advertisements of a chain, the newest first, a daemon holds the entries of.
async fn held(daemon: &Daemon, ads: &[Value]) -> Vec<bool> {
    let mut held = Vec::new();
    for ad in ads {
        held.push(entries_held(daemon, ad).await.is_some());
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn depth_and_keep_bound_what_is_fetched_and_what_a_collection_of_garbage_leaves() {
    let publisher = ours().await;
    ipni::publish(&publisher, 5, true).await;
    let (addr, peer) = (http_addr(&publisher).await, publisher.peer_id());
    let (two, none, some) = tokio::join!(daemon(&[]), daemon(&[]), daemon(&[]));
    for (follower, args) in [(&two, ["--depth", "2"]), (&none, ["--keep", "0"]), (&some, ["--keep", "2"])] {
        follower.json(&[&["ipni", "follow", &addr, "--wait"], &args[..]].concat()).await;
    }
    let theirs = ipni::ads(&publisher, peer).await;
    assert_eq!(ipni::ads(&two, peer).await, theirs[..2], "the chain ends where the depth does");
    assert_eq!(held(&two, &theirs).await, [true, true, false, false, false]);
    assert_eq!(ipni::ads(&none, peer).await, theirs);
    assert_eq!(held(&none, &theirs).await, [false; 5]);
    assert_eq!(ipni::ads(&some, peer).await, theirs);
    assert_eq!(held(&some, &theirs).await, [true, true, false, false, false]);

    // A depth is of the first sync alone; of what is kept the newest stays.
    let head = ipni::publish(&publisher, 3, true).await.pop().expect("an advertisement");
    let theirs = ipni::ads(&publisher, peer).await;
    for follower in [&two, &none, &some] {
        // To follow once more is to ask once more.
        let follow = follower.json(&["ipni", "follow", &addr, "--keep", "2"]).await;
        assert_eq!(follow["keep"], 2, "{follow}");
        ipni::in_sync_at(follower, peer, &head).await;
        follower.json(&["gc"]).await;
        assert_eq!(held(follower, &theirs[..3]).await, [true, true, false], "{follow}");
        assert_sound(follower).await;
    }
    assert_eq!(ipni::ads(&two, peer).await.len(), 5);
    assert_eq!(ipni::ads(&none, peer).await, theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_is_a_link_of_the_chain_without_entries() {
    let publisher = ours().await;
    ipni::publish(&publisher, 1, true).await;
    let removed = publisher.json(&["ipni", "remove", "gone", "--no-announce"]).await;
    let follower = daemon(&[]).await;
    let watch = Watch::direct(&follower).await;
    follower.json(&["ipni", "follow", &http_addr(&publisher).await, "--wait"]).await;
    let finished = watch.finished(str_of(&removed, "ad")).await;
    assert_eq!((&finished["count"], &finished["blocks"]), (&2.into(), &3.into()), "{finished}");
    let ad = follower.json(&["ipni", "ad", "get", str_of(&removed, "ad")]).await;
    assert_eq!((&ad["is_rm"], &ad["verified"]), (&true.into(), &true.into()), "{ad}");
    assert_eq!((&ad["context_id"], &ad["entries"]), (&"676f6e65".into(), &"bafkreehdwdcefgh4dqkjv67uzcmw7oje".into()));
    assert_same_chain(&follower, &publisher).await;
    assert_sound(&follower).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unfollowed_is_not_asked_for_any_more_and_goes_with_the_next_collection() {
    let (publisher, follower) = tokio::join!(ours(), daemon(&[]));
    ipni::publish(&publisher, 3, true).await;
    let (addr, peer) = (http_addr(&publisher).await, publisher.peer_id().to_owned());
    follower.json(&["ipni", "follow", &addr, "--wait"]).await;
    let unfollowed = follower.json(&["unfollow", &peer]).await;
    assert_eq!(unfollowed["feeds"], json!(["ipni:mainnet"]), "{unfollowed}");
    assert_eq!(follower.json(&["follows"]).await, json!([]));
    let listed = follower.run(&["ipni", "ad", "list", &peer]).await;
    assert!(listed.code == Some(4) && listed.stderr.contains("ipni follow"), "{listed}");
    follower.json(&["gc"]).await;
    assert_eq!(number(&follower.json(&["repo", "stat"]).await, "blocks"), 0);

    // It is a chain like one that was never followed.
    let watch = Watch::direct(&follower).await;
    let follow = follower.json(&["ipni", "follow", &addr, "--wait"]).await;
    assert_eq!(follow["latest_seq"], 3, "{follow}");
    assert_eq!(watch.finished(str_of(&follow, "latest")).await["blocks"], 6);
    assert_same_chain(&follower, &publisher).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_publishers_are_followed_at_once() {
    let follower = daemon(&[]).await;
    let mut publishers = Vec::new();
    for _ in 0..10 {
        let publisher = HttpPublisher::start().await;
        let mut chain = AdChain::new(publisher.key());
        chain.grow(20);
        publisher.serve(&chain);
        publishers.push((publisher, chain));
    }
    for (publisher, _) in &publishers {
        api_call(&follower, "ipni/follow", &json!({"target": publisher.addr()})).await;
    }
    for (publisher, chain) in &publishers {
        let (peer, head) = (publisher.peer_id().to_string(), chain.head().to_string());
        let follow = ipni::in_sync_at(&follower, &peer, &head).await;
        assert_eq!(follow["latest_seq"], 20, "{follow}");
        let newest_first: Vec<_> = chain.ads().iter().rev().map(|ad| json!(ad.to_string())).collect();
        let held: Vec<_> = ipni::ads(&follower, &peer).await.into_iter().map(|ad| ad["cid"].clone()).collect();
        assert_eq!(held, newest_first);
    }
    assert_eq!(
        number(&follower.json(&["repo", "stat"]).await, "blocks"),
        10 * 40 + 1,
        "and what stands for no entries"
    );
    assert_sound(&follower).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_advertisement_whose_signature_does_not_hold_is_passed_over_with_its_entries() {
    let publisher = HttpPublisher::start().await;
    let mut chain = AdChain::new(publisher.key());
    chain.grow(2);
    // Its entries are there, and are not to be kept.
    let entries = chain.chunk();
    let mut forged = chain.ad(entries, Some(chain.head()));
    forged.metadata = vec![7; 8];
    let forged = chain.append_ad(&forged).to_string();
    chain.grow(2);
    publisher.serve(&chain);

    let follower = daemon(&[]).await;
    let watch = Watch::direct(&follower).await;
    let follow = follower.json(&["ipni", "follow", &publisher.addr().to_string(), "--wait"]).await;
    assert_eq!((&follow["latest"], &follow["latest_seq"]), (&json!(chain.head().to_string()), &5.into()), "{follow}");
    let refused = watch.wait("an entry that is refused", |event| event["event"] == "entry_refused").await;
    assert_eq!((&refused["entry"], &refused["feed"]), (&json!(forged), &"ipni:mainnet".into()), "{refused}");
    assert!(str_of(&refused, "reason").contains("advertisement"), "{refused}");
    let peer = publisher.peer_id().to_string();
    let verified: Vec<_> = ipni::ads(&follower, &peer).await.iter().map(|ad| ad["verified"] == true).collect();
    assert_eq!(verified, [true, true, false, true, true]);
    let shown = follower.json(&["ipni", "ad", "get", &forged]).await;
    assert!(shown["signer"].is_null() && !str_of(&shown, "problem").is_empty(), "{shown}");
    let output = follower.run(&["ipni", "ad", "verify", &forged]).await;
    assert!(output.code == Some(7) && output.stderr.contains(&forged), "{output}");
    assert_eq!(entries_held(&follower, &shown).await, None);
    assert_sound(&follower).await;
    follower.json(&["gc"]).await;
    assert_sound(&follower).await;
    assert_eq!(ipni::ads(&follower, &peer).await.len(), 5);
}
