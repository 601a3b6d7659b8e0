//! Records are put again, by their owner and by who holds them: also to those who come later.

use super::*;

/// A node that puts what it holds again every second, joined through another one.
async fn joins(through: &Peer, home: Arc<TempDir>) -> Peer {
    let bootstrap = vec![through.tcp_addr().await];
    Peer::with(PeerOptions { home: Some(home), bootstrap, ..every_second() }).await
}

fn every_second() -> PeerOptions {
    PeerOptions { tcp_only: true, republish_records: Some(1), ..PeerOptions::default() }
}

fn home() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a home"))
}

/// Waits until a node that has asked for nothing holds this value.
async fn comes_to_hold(node: &Peer, key: &[u8], sequence: u64) {
    let what = format!("number {sequence} at a node that came later");
    wait_for_some(SOON, &what, async || held(node, key).filter(|held| held.sequence == sequence)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_put_again_by_owner_and_holders_to_those_who_come_later_and_after_a_restart() {
    let owner = Peer::with(every_second()).await;
    let holder = joins(&owner, home()).await;
    let done = put_at(&owner, RecordPut { replicas: 1, ..RecordPut::new(NAME, "value") }, 1).await;

    let second = joins(&owner, home()).await;
    comes_to_hold(&second, &done.key, done.sequence).await;
    // Its owner has gone: those who hold it put it.
    owner.shutdown().await.expect("stops");
    let third = joins(&holder, home()).await;
    comes_to_hold(&third, &done.key, done.sequence).await;

    // All others go, and one comes back with what is on its disk.
    stop_all(&[holder, second]).await;
    third.shutdown().await.expect("stops");
    let kept = third.into_home();
    wait_for(SOON, "a home that nobody uses", async || Store::open(kept.path().join("store")).is_ok()).await;
    let newcomer = Peer::with(every_second()).await;
    let _back = joins(&newcomer, kept).await;
    comes_to_hold(&newcomer, &done.key, done.sequence).await;
}
