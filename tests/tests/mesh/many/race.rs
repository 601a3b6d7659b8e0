//! Two writers with one key, who do not know of each other: whatever the order, all end with the same record.

use dagmesh::types::NamePublish;

use super::*;

/// Updates, half of them of each writer.
const UPDATES: usize = 100;

/// What a writer was told of its updates: the numbers of those that were taken. One that the other outran, again and
/// again, is told so.
fn taken(results: Vec<Result<RecordPutDone, NodeError>>) -> Vec<u64> {
    let number = |result: Result<RecordPutDone, NodeError>| match result {
        Ok(done) => Some(done.sequence),
        Err(error) => {
            assert!(error.to_string().contains("another writer with this key"), "{error}");
            None
        }
    };
    results.into_iter().filter_map(number).collect()
}

/// Half of the updates, one after another.
async fn write(update: impl AsyncFn(usize) -> Result<RecordPutDone, NodeError>) -> Vec<u64> {
    let mut results = Vec::new();
    for n in 0..UPDATES / 2 {
        results.push(update(n).await);
    }
    taken(results)
}

/// Asserts that numbers of one writer only grow, and that the newest of all is the one that was found everywhere.
fn assert_newest(taken: [Vec<u64>; 2], found: &[(u64, String)]) {
    let newest = taken.iter().flatten().max().expect("some were taken");
    assert!(taken.iter().all(|numbers| numbers.is_sorted_by(|a, b| a < b)), "{taken:?}");
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
    assert!(found[0].0 >= *newest, "{found:?} {newest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_with_one_key_race_and_every_reader_ends_with_the_same_record() {
    let nodes = mesh(4).await;
    let key = Keypair::generate_ed25519();
    let first = RecordPut { replicas: 3, ..RecordPut::new(NAME, "first") };
    let first = wait_for_some(SOON, "a record at all", async || {
        let done = nodes[0].records().put_as(key.clone(), first.clone()).await.ok()?;
        done.complete.then_some(done)
    })
    .await;
    let writer = |at: usize| {
        let (node, key) = (&nodes[at], &key);
        async move |n: usize| {
            let record = RecordPut { replicas: 3, ..RecordPut::new(NAME, format!("{n} of writer {at}")) };
            node.records().put_as(key.clone(), record).await
        }
    };
    let (a, b) = tokio::join!(write(writer(0)), write(writer(1)));
    let found = read(&nodes, &key.public()).await;
    let found: Vec<_> = found.into_iter().map(|found| found.expect("is found")).collect();
    let found: Vec<_> = found.into_iter().map(|it| (it.sequence, String::from_utf8_lossy(&it.value).into())).collect();
    assert_newest([a, b], &found);
    // What the readers saw lacking is mended: all hold the same bytes.
    wait_for_some(SOON, "one record at all", async || {
        let held: Option<Vec<_>> = nodes.iter().map(|node| held(node, &first.key)).collect();
        held?.windows(2).all(|pair| pair[0].bytes == pair[1].bytes).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_with_one_key_race_for_an_ipns_name_and_every_reader_ends_at_the_same_place() {
    let nodes = mesh(4).await;
    let key = Keypair::generate_ed25519();
    let name = IpnsName::of(&key.public()).to_string();
    wait_for_some(SOON, "a name at all", async || {
        let publish = NamePublish { replicas: 3, ..NamePublish::new("/ipfs/first") };
        let done = nodes[0].records().publish_name_as(key.clone(), publish).await.ok()?;
        done.complete.then_some(())
    })
    .await;
    let writer = |at: usize| {
        let (node, key) = (&nodes[at], &key);
        async move |n: usize| {
            let publish = NamePublish { replicas: 3, ..NamePublish::new(format!("/ipfs/{n}-of-writer-{at}")) };
            node.records().publish_name_as(key.clone(), publish).await
        }
    };
    let (a, b) = tokio::join!(write(writer(0)), write(writer(1)));
    let found = join_all(nodes.iter().map(|node| async { node.records().resolve_name(&name).await })).await;
    let found: Vec<_> =
        found.into_iter().map(|found| found.expect("is found")).map(|it| (it.sequence, it.value)).collect();
    assert_newest([a, b], &found);
}
