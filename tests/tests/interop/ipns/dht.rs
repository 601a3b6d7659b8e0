//! Over the DHT.

use dagmesh::swarm::{AcceptAll, Profile, SwarmConfig};
use dagmesh_tests::{Daemon, api::api_try, wait_for, wait_for_some};
use data_encoding::BASE64;
use libp2p::{PeerId, identity::Keypair};

use super::*;
use crate::{
    kubo::{LAN_DHT, kubo, member},
    support::{SOON, daemon_addr, daemon_sees, has},
};

/// Points the name of a key until `holder` is among those that hold the record: the DHT takes a moment to know it.
async fn publish_at(ours: &Daemon, key: &str, value: &str, holder: &str) {
    let ask = json!({"key": key, "name": {"value": value}});
    wait_for(SOON, "a peer of plain Kademlia that holds our record", async || {
        api_try(ours, "name/publish", &ask).await.is_ok_and(|done| has(&done["holders"], holder))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubo_resolves_our_name_sees_it_change_and_keeps_it_when_we_are_gone() {
    let (Some(first), Some(second)) = tokio::join!(kubo(), kubo()) else { return };
    let mut ours = member(&[]).await;
    let mut other = member(&["--bootstrap", &daemon_addr(&ours, "tcp")]).await;
    let name = ours.peer_id().to_owned();
    first.joins(&daemon_addr(&other, "tcp"), other.peer_id()).await;
    second.joins(&first.addr, &first.peer_id).await;

    publish_at(&ours, "self", ONE, &first.peer_id).await;
    assert_eq!(kubo_resolves(&first, &name).await, ONE);
    assert_eq!(kubo_resolves(&second, &name).await, ONE);
    let done = publish(&ours, "self", TWO).await;
    assert!(has(&done["holders"], &first.peer_id), "{done}");
    assert_eq!(kubo_resolves(&first, &name).await, TWO);
    assert_eq!(kubo_resolves(&second, &name).await, TWO);

    ours.stop().await;
    other.stop().await;
    assert_eq!(kubo_resolves(&second, &name).await, TWO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_resolve_a_name_of_kubo_and_see_it_change() {
    let Some(theirs) = kubo().await else { return };
    let ours = member(&[]).await;
    let other = member(&["--bootstrap", &daemon_addr(&ours, "tcp")]).await;
    theirs.joins(&daemon_addr(&ours, "tcp"), ours.peer_id()).await;

    for value in [ONE, TWO] {
        let name = kubo_publishes(&theirs, "self", value).await;
        for daemon in [&ours, &other] {
            assert_eq!(resolve(daemon, &name).await.0, value);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_from_kubo_to_us_and_back_and_its_name_goes_on() {
    let (Some(theirs), Some(other)) = tokio::join!(kubo(), kubo()) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path of UTF-8").to_owned();

    // Kubo's key, with us: the number goes on from what was published before we came.
    other.joins(&theirs.addr, &theirs.peer_id).await;
    theirs.ipfs(&["key", "gen", "--type=ed25519", "theirs"]).await;
    for value in [TWO, ONE, TWO, ONE] {
        kubo_publishes(&theirs, "theirs", value).await;
    }
    theirs.ipfs(&["key", "export", "--output", &path("theirs"), "theirs"]).await;
    let ours = member(&[]).await;
    theirs.joins(&daemon_addr(&ours, "tcp"), ours.peer_id()).await;
    let told = |seen: &Value| has(&seen["protocols"], LAN_DHT);
    daemon_sees(&ours, &theirs.peer_id, "that it serves our DHT", told).await;
    let key = BASE64.encode(&std::fs::read(path("theirs")).expect("a key"));
    let imported = api_call(&ours, "key/import", &json!({"name": "theirs", "key": key})).await;
    let name = imported["ipns"].as_str().expect("a name");
    let done = publish(&ours, "theirs", TWO).await;
    assert_eq!(done["seq"], 4, "{done}");
    for kubo in [&theirs, &other] {
        assert!(has(&done["holders"], &kubo.peer_id), "{done}");
        assert_eq!(kubo_resolves(kubo, name).await, TWO);
    }

    // Ours, with Kubo.
    let made = api_call(&ours, "key/gen", &json!({"name": "ours"})).await;
    let name = made["ipns"].as_str().expect("a name");
    publish(&ours, "ours", ONE).await;
    let exported = api_call(&ours, "key/export", &json!({"name": "ours"})).await;
    let key = BASE64.decode(exported["key"].as_str().expect("a key").as_bytes()).expect("base64");
    std::fs::write(path("ours"), key).expect("written");
    assert_eq!(theirs.ipfs(&["key", "import", "ours", &path("ours")]).await.trim(), name);
    assert_eq!(kubo_publishes(&theirs, "ours", TWO).await, name);
    assert_eq!(resolve(&ours, name).await.0, TWO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_record_replaces_no_newer_one_at_kubo_nor_here() {
    let (Some(first), Some(second)) = tokio::join!(kubo(), kubo()) else { return };
    let ours = member(&[]).await;
    first.joins(&daemon_addr(&ours, "tcp"), ours.peer_id()).await;
    let name = ours.peer_id().to_owned();
    publish_at(&ours, "self", ONE, &first.peer_id).await;

    // Somebody who keeps the old record.
    let mut config = SwarmConfig::for_profile(Profile::Test);
    config.kad_protocol = Some(LAN_DHT.to_owned());
    let keeper = dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await;
    let keeper = keeper.expect("a swarm").handle;
    for addr in [&daemon_addr(&ours, "tcp"), &first.addr] {
        keeper.connect(addr.parse().expect("an address")).await.expect("connects");
    }
    let key = [b"/ipns/", name.parse::<PeerId>().expect("a peer id").to_bytes().as_slice()].concat();
    let old = wait_for_some(SOON, "the record in the DHT", async || {
        let found = keeper.find_records(key.clone()).await.ok()?;
        (found.found.len() == 2).then(|| found.found[0].1.clone())
    })
    .await;
    let newer = publish(&ours, "self", TWO).await;
    assert!(has(&newer["holders"], &first.peer_id), "{newer}");

    let holder = first.peer_id.parse().expect("a peer id");
    assert!(!keeper.put_record_to(holder, key.clone(), old.clone()).await.expect("asked"), "Kubo refuses it");
    assert_eq!(kubo_resolves(&first, &name).await, TWO);

    // A Kubo that has never heard of the newer one puts it.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &old).expect("written");
    second.joins(&daemon_addr(&ours, "tcp"), ours.peer_id()).await;
    let path = file.path().to_str().expect("a path of UTF-8");
    second.ipfs(&["name", "put", "--force", &name, path]).await;
    assert_eq!(resolve(&ours, &name).await, (TWO.to_owned(), newer["seq"].as_u64().expect("a number")));
    for kubo in [&first, &second] {
        assert_eq!(kubo_resolves(kubo, &name).await, TWO);
    }
    keeper.shutdown().await.expect("stopped");
}
