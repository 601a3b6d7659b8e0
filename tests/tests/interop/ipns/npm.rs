//! npm's `ipns` in js-libp2p's DHT.

use dagmesh::swarm::{AcceptAll, Profile, SwarmConfig, SwarmHandle};
use dagmesh_tests::{
    api::{api_call, api_try},
    foreign::Foreign,
    wait_for, wait_for_some,
};
use data_encoding::{BASE64, HEXLOWER};
use libp2p::{PeerId, identity::Keypair};

use super::*;
use crate::{
    js::js,
    support::{DHT, SOON, daemon, daemon_addr, daemon_sees, has, hex},
};

const KINDS: [&str; 3] = ["Ed25519", "secp256k1", "RSA"];

/// A peer of js-libp2p and one of our daemons, in one DHT.
async fn pair() -> Option<(Foreign, Daemon)> {
    let (theirs, ours) = tokio::join!(js(), daemon(&[], &[]));
    let mut theirs = theirs?;
    theirs.ask(&format!("dial {}", daemon_addr(&ours, "tcp"))).await;
    theirs.sees("routed", ours.peer_id()).await;
    let served = |seen: &Value| has(&seen["protocols"], &format!("{DHT}/kad/1.0.0"));
    daemon_sees(&ours, theirs.peer_id(), "that it serves our DHT", served).await;
    Some((theirs, ours))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// The record, pointing elsewhere in every place where it says the value.
fn tampered(record: &str) -> String {
    let forged = record.replace(&hex(TWO.as_bytes()), &hex(ONE.as_bytes()));
    assert_ne!(forged, record);
    forged
}

fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("hexadecimal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn npm_takes_our_records_and_the_newest_of_them() {
    let Some((mut theirs, ours)) = pair().await else { return };
    for kind in KINDS {
        let made = theirs.ask(&format!("ipns-key {kind}")).await;
        let (name, key) = (text(&made, "peer"), text(&made, "key"));
        let key = BASE64.encode(&unhex(key));
        let imported = api_call(&ours, "key/import", &json!({"name": kind, "key": key})).await;
        assert_eq!((&imported["peer_id"], text(&imported, "type")), (&name.into(), kind.to_lowercase().as_str()));

        let mut records = Vec::new();
        for value in [ONE, TWO] {
            let done = publish(&ours, kind, value).await;
            assert!(has(&done["holders"], theirs.peer_id()), "{done}");
            let got = theirs.ask(&format!("ipns-get {name}")).await;
            assert_eq!((text(&got, "value"), &got["seq"]), (value, &done["seq"]), "{kind}");
            let record = text(&got, "record").to_owned();
            assert_eq!(theirs.ask(&format!("ipns-check {name} {record}")).await["value"], value);
            records.push(record);
        }
        let (old, new) = (&records[0], &records[1]);
        assert_eq!(theirs.ask(&format!("ipns-select {name} {old} {new}")).await, 1);
        assert_eq!(theirs.ask(&format!("ipns-select {name} {new} {old}")).await, 0);
        theirs.try_ask(&format!("ipns-check {name} {}", tampered(new))).await.expect_err("it is not ours any more");
        let other = ours.peer_id();
        theirs.try_ask(&format!("ipns-check {other} {new}")).await.expect_err("it is of another name");
    }

    let name = ours.peer_id();
    let brief = wait_for_some(SOON, "a record that is read before it expires", async || {
        api_try(&ours, "name/publish", &json!({"name": {"value": ONE, "lifetime_ms": 2000}})).await.ok()?;
        let got = theirs.try_ask(&format!("ipns-get {name}")).await.ok()?;
        Some(text(&got, "record").to_owned())
    })
    .await;
    wait_for(SOON, "its end", async || {
        let checked = theirs.try_ask(&format!("ipns-check {name} {brief}")).await;
        checked.is_err_and(|why| why.contains("RecordExpiredError"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_take_npms_records_and_the_newest_of_them() {
    let Some((mut theirs, ours)) = pair().await else { return };
    let mut last = None;
    for kind in KINDS {
        let made = theirs.ask(&format!("ipns-key {kind}")).await;
        let (name, key) = (text(&made, "peer").to_owned(), text(&made, "key").to_owned());
        let mut records = Vec::new();
        for (seq, value) in [(1, ONE), (2, TWO)] {
            let record = theirs.ask(&format!("ipns-make {key} {value} {seq} 3600000")).await;
            let record = record.as_str().expect("a record").to_owned();
            let holders = theirs.ask(&format!("ipns-put {name} {record}")).await;
            assert!(has(&holders, ours.peer_id()), "{kind}: {holders}");
            assert_eq!(resolve(&ours, &name).await, (value.to_owned(), seq), "{kind}");
            records.push(record);
        }
        last = Some((name, key, records));
    }

    // What is older, void or forged is refused, whoever brings it; only the forger is not talked to any more.
    let (name, key, records) = last.expect("records");
    let void = theirs.ask(&format!("ipns-make {key} {ONE} 3 -1000")).await;
    let at = [b"/ipns/", name.parse::<PeerId>().expect("a peer id").to_bytes().as_slice()].concat();
    let holder = ours.peer_id().parse().expect("a peer id");
    let put = async |record: &str| {
        let config = SwarmConfig::for_profile(Profile::Test);
        let started = dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await;
        let sender = started.expect("a swarm").handle;
        sender.connect(daemon_addr(&ours, "tcp").parse().expect("an address")).await.expect("connects");
        let taken = sender.put_record_to(holder, at.clone(), unhex(record)).await.expect("asked");
        (taken, sender)
    };
    let forged = tampered(&records[1]);
    let (newest, older, void, forged) =
        tokio::join!(put(&records[1]), put(&records[0]), put(void.as_str().expect("a record")), put(&forged));
    assert_eq!((newest.0, older.0, void.0, forged.0), (true, false, false, false));
    let talks = async |sender: &SwarmHandle| {
        sender.peers().await.expect("peers").iter().any(|connected| connected.peer == holder)
    };
    wait_for(SOON, "the end of the forger's connection", async || !talks(&forged.1).await).await;
    for (_, sender) in [newest, older, void] {
        assert!(talks(&sender).await);
    }
    assert_eq!(resolve(&ours, &name).await, (TWO.to_owned(), 2));
}
