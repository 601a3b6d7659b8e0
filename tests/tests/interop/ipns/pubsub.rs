//! Over PubSub alone: Kubo without any routing, so that nothing is asked of a DHT.

use dagmesh_tests::{
    api::{Watch, api_try},
    wait_for,
};

use super::*;
use crate::{
    kubo::kubo_with,
    support::{SOON, daemon, daemon_addr},
};

async fn kubo() -> Option<Kubo> {
    kubo_with(&[("Routing.Type", "\"none\""), ("Ipns.UsePubsub", "true")]).await
}

/// Points our daemon's own name. No node of a DHT is there to hold the record, which is said; gossip carries it all the
/// same.
async fn publish_alone(ours: &Daemon, value: &str) {
    let done = api_try(ours, "name/publish", &json!({"name": {"value": value}})).await;
    let error = done.expect_err("there is no DHT");
    assert!(error.contains("the record is kept here"), "{error}");
}

/// Waits until Kubo finds this value.
async fn kubo_hears(kubo: &Kubo, name: &str, value: &str) {
    wait_for(SOON, &format!("{name} at Kubo, pointing to {value}"), async || {
        let found = kubo.try_ipfs(&["name", "resolve", "--nocache", name]).await;
        found.is_ok_and(|found| found.trim() == value)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubo_fetches_our_record_as_it_joins_and_hears_its_changes() {
    let Some(theirs) = kubo().await else { return };
    let ours = daemon(&[], &[]).await;
    let name = ours.peer_id();
    // Nobody hears it yet: who joins the topic has to ask for it.
    publish_alone(&ours, ONE).await;
    theirs.ipfs(&["swarm", "connect", &daemon_addr(&ours, "tcp")]).await;
    kubo_hears(&theirs, name, ONE).await;
    for value in [TWO, ONE] {
        publish_alone(&ours, value).await;
        kubo_hears(&theirs, name, value).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_fetch_kubos_record_as_we_join_and_hear_its_changes() {
    let Some(theirs) = kubo().await else { return };
    let ours = daemon(&[], &[]).await;
    let name = kubo_publishes(&theirs, "self", ONE).await;
    theirs.ipfs(&["swarm", "connect", &daemon_addr(&ours, "tcp")]).await;
    wait_for(SOON, "Kubo's name", async || {
        let found = api_try(&ours, "name/resolve", &json!({"name": name})).await;
        found.is_ok_and(|found| found["value"] == ONE)
    })
    .await;
    let watch = Watch::of(&ours, "name/watch", &json!({"name": name})).await;
    watch.wait("where the name points", |told| told["value"] == ONE).await;
    kubo_publishes(&theirs, "self", TWO).await;
    watch.wait("its change", |told| told["value"] == TWO).await;
    assert_eq!(resolve(&ours, &name).await.0, TWO);
}
