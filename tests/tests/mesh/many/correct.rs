//! A read mends what it finds: who has an older record is given the newer, who should have it and has none is given it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_read_gives_the_newest_record_to_holders_of_an_older_one_and_to_close_nodes_that_have_none() {
    let (mut nodes, key) = (mesh(4).await, Keypair::generate_ed25519());
    let first = RecordPut { replicas: 3, ..RecordPut::new(NAME, "first") };
    let first = wait_for_some(SOON, "a record at all", async || {
        let done = nodes[0].records().put_as(key.clone(), first.clone()).await.ok()?;
        done.complete.then_some(done)
    })
    .await;
    let stale = |node: &Peer| held(node, &first.key).is_some_and(|held| held.sequence == first.sequence);
    assert!(nodes.iter().all(stale));

    // One alone hears of a newer one, and somebody comes who has none.
    let newest = signed(&key, NAME, first.sequence + 1);
    let answer = Stranger::start().await.put(&nodes[3].tcp_addr().await, &first.key, newest.encode()).await;
    assert_eq!(answer.expect("answers"), Answer::Stored { news: true });
    assert!(nodes[..3].iter().all(stale));
    let bootstrap = vec![nodes[0].tcp_addr().await];
    nodes.push(Peer::with(PeerOptions { bootstrap, tcp_only: true, ..PeerOptions::default() }).await);
    assert!(held(&nodes[4], &first.key).is_none());

    let found = nodes[1].records().get(&key.public(), NAME).await.expect("is found");
    assert_eq!((found.value, found.sequence), (newest.draft().value.clone(), first.sequence + 1));
    assert!(found.answers.stale >= 1 && found.answers.corrected >= found.answers.stale, "{:?}", found.answers);
    wait_for_some(SOON, "the newest record at all", async || {
        let all = nodes.iter().all(|node| held(node, &first.key).is_some_and(|held| held.bytes == newest.encode()));
        // The newcomer may not have been known to the one that read first.
        if !all {
            nodes[1].records().get(&key.public(), NAME).await.expect("is found");
        }
        all.then_some(())
    })
    .await;
}
