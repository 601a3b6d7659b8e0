//! Signatures that do not hold, from the peer itself: the one thing for which a peer is banned.

use std::sync::Arc;

use dagmesh::store::Store;
use dagmesh_records::{Ban, Code};
use dagmesh_tests::{
    hostile::{
        Hostile,
        group::unix_ms,
        record::{Writer, forged},
    },
    peer::SOON,
    wait_for, wait_for_some,
};

use super::{Scene, code, connect};

impl Scene {
    /// Whether a node that dials the daemon gets an answer from it.
    async fn hears(&self, hostile: &Hostile) -> bool {
        let connected = hostile.try_connect(self.addr()).await.is_ok();
        connected && hostile.is_answered(self.peer_id(), &Writer::default().ipns_key()).await
    }

    async fn is_cut_off(&self, hostile: &Hostile) {
        wait_for(SOON, "a forger that is cut off", async || !self.hears(hostile).await).await;
    }

    /// What the daemon keeps on the disk, while it does not run.
    async fn stopped(&mut self) -> Arc<Store> {
        self.daemon.stop().await;
        let home = self.daemon.home().join("store");
        wait_for_some(SOON, "a store that nobody uses", async || Store::open(&home).ok()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_forges_a_signature_is_cut_off_also_after_a_restart_until_its_time_is_over() {
    let mut scene = Scene::start().await;
    let writer = Writer::default();
    let (good, ipns) = (writer.record("name", 1, b"good"), writer.ipns(1, b"/ipfs/x", unix_ms()));
    // Its V2 signature stands in the middle of it, behind the value.
    let mut forged_ipns = ipns.encode().to_vec();
    let at = forged_ipns.windows(2).rposition(|tag| tag == [0x42, 0x40]).expect("a signature of 64 bytes") + 2;
    forged_ipns[at] ^= 1;

    let (by_put, mut line) = scene.kad_intruder().await;
    assert_ne!(line.put(&good.key(), &forged(good.encode())).await, Some(true));
    let (by_ipns, mut line) = scene.kad_intruder().await;
    assert_ne!(line.put(&writer.ipns_key(), &forged_ipns).await, Some(true));
    let by_request = scene.intruder().await;
    if let Some(answer) = by_request.put_record(scene.peer_id(), &good.key(), &forged(good.encode())).await {
        assert_eq!(code(Some(answer)), Some(Code::Unverifiable), "it may be cut off before it is told");
    }
    let forgers = [by_put, by_ipns, by_request];
    for forger in &forgers {
        scene.is_cut_off(forger).await;
    }
    let bystander = scene.intruder().await;
    assert_eq!(bystander.get_record(scene.peer_id(), &good.key()).await, None, "nothing of it is kept");
    scene.honest_is_got().await;

    scene.daemon.restart().await;
    for forger in &forgers {
        assert!(!scene.hears(forger).await, "a ban survives");
    }
    // The time of one of them is nearly over.
    let until_ms = {
        let store = scene.stopped().await;
        let bans = store.kept_records().expect("rows").bans;
        assert_eq!(bans.len(), forgers.len());
        let (peer, until_ms) = (forgers[0].peer_id(), unix_ms() + 2500);
        store
            .transaction(|batch| batch.set_ban(&peer, &Ban { count: 1, until_ms }))
            .expect("a row that can be written");
        until_ms
    };
    scene.daemon.restart().await;
    wait_for(SOON, "a forger that is let in again", async || scene.hears(&forgers[0]).await).await;
    assert!(unix_ms() >= until_ms, "not before its time");
    assert_eq!(code(forgers[0].put_record(scene.peer_id(), &good.key(), good.encode()).await), None);
    for forger in &forgers[1..] {
        assert!(!scene.hears(forger).await, "the others are not");
    }
    for peer in [&scene.owner, &scene.reader] {
        connect(peer, scene.addr()).await;
    }
    scene.honest_is_got().await;
}
