//! One puts, all read; holders leave, the owner leaves, the record expires, and nobody takes an older one again.

use std::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_read_by_all_outlives_its_holders_and_its_owner_and_is_gone_for_good_when_it_expires() {
    // So many nodes; so many of them are given a record, and stop at once.
    let (count, holders) = if is_long() { (50, 20) } else { (16, 6) };
    let record = |value: &str| RecordPut { replicas: holders, ..RecordPut::new(NAME, value) };
    let begun = Instant::now();
    let mut nodes = mesh(count).await;
    println!("{count} nodes started after {:?}", begun.elapsed());
    let owner = nodes.remove(0);
    let public = public_key(&owner);

    // One puts, all read.
    let first = put_at(&owner, record("one"), holders).await;
    println!("first put after {:?}", begun.elapsed());
    all_come_to_read(&nodes, &public, b"one").await;
    println!("all read after {:?}", begun.elapsed());
    let old = held(&owner, &first.key).expect("is kept");
    let second = put_at(&owner, record("two"), holders).await;
    assert_all_read(&read(&nodes, &public).await, b"two");
    println!("all read again after {:?}", begun.elapsed());

    // All those stop to which it was put.
    let stopped = nodes.extract_if(.., |node| second.holders.contains(&node.peer_id())).collect::<Vec<_>>();
    assert_eq!(stopped.len(), holders);
    stop_all(&stopped).await;
    let reading = Instant::now();
    assert_all_read(&read(&nodes, &public).await, b"two");
    println!("all left read after {:?}", begun.elapsed());

    // The owner stops. The last record lives as long as a few reads take here, and no longer.
    let lifetime = reading.elapsed() * 4 + Duration::from_secs(2);
    let third = owner.records().put(RecordPut { lifetime, ..record("three") }).await.expect("is put");
    let newer = held(&owner, &first.key).expect("is kept");
    stop_all(&[owner]).await;
    assert_all_read(&read(&nodes, &public).await, b"three");
    println!("all left read without the owner after {:?}; {lifetime:?}", begun.elapsed());

    // It expires: none has it, and none has an older one.
    wait_for_some(SOON, "the end of a record", async || {
        let found = nodes[0].records().get(&public, NAME).await;
        found.is_err_and(|error| error.kind == ErrorKind::NotFound).then_some(())
    })
    .await;
    for found in read(&nodes, &public).await {
        let error = found.expect_err("is gone");
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
    assert!(nodes.iter().all(|node| held(node, &first.key).is_none()));
    println!("gone after {:?}", begun.elapsed());

    // All have seen the last one, and what is older is valid still: somebody puts that back.
    assert!(first.sequence < third.sequence && old.expires_ms > newer.expires_ms);
    let hostile = Stranger::start().await;
    for node in &nodes {
        let answer = hostile.put(&node.tcp_addr().await, &old.key, &old.bytes).await.expect("answers");
        assert!(is_superseded(&answer), "{answer:?}");
    }
    for found in read(&nodes, &public).await {
        assert_eq!(found.expect_err("is gone").kind, ErrorKind::NotFound);
    }
    println!("done after {:?}", begun.elapsed());
}
