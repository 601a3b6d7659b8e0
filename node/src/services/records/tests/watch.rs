//! Watching names.

use futures::{Stream, StreamExt};

use super::*;
use crate::testing::within;

/// Points the name of a node until so many hold it.
async fn point(node: &Node, value: &str, holders: usize) -> RecordPutDone {
    until("name at all nodes", async || {
        let done = node.records().publish_name(NamePublish::new(value)).await.ok()?;
        (done.replicas == holders).then_some(done)
    })
    .await
}

/// Waits for the record of this number; before it may come those that nobody else took.
async fn reaches(watch: &mut (impl Stream<Item = NameResolved> + Unpin), sequence: u64) -> NameResolved {
    let mut last = 0;
    let reaching = async {
        loop {
            let told = watch.next().await.expect("goes on");
            assert!(told.sequence > last, "nothing is told that is not newer: {told:?}");
            last = told.sequence;
            if last >= sequence {
                return told;
            }
        }
    };
    within("record that is watched for", reaching).await
}

#[tokio::test]
async fn a_watch_tells_what_is_known_then_what_is_brought_and_nothing_that_is_not_newer() {
    let homes = [home(), home(), home()];
    let owner = start(homes[0].path(), None).await;
    let holder = start(homes[1].path(), Some(&owner)).await;
    let name = IpnsName::of(&public_key(&owner)).to_string();
    // Nothing is known yet: the record is brought by its owner's put.
    let records = holder.records();
    let mut watch = Box::pin(records.watch_name(&name).expect("a name"));
    let first = point(&owner, "/ipfs/one", 1).await;
    let told = reaches(&mut watch, first.sequence).await;
    assert_eq!((told.value.as_str(), told.sequence, told.name.as_str()), ("/ipfs/one", first.sequence, name.as_str()));
    assert_eq!(told.answers.asked, 0, "it was brought, not asked for");

    // One that comes later is told what the others have, over gossip or by the DHT.
    let late = start(homes[2].path(), Some(&owner)).await;
    let elsewhere = late.records();
    let mut asked = Box::pin(elsewhere.watch_name(&format!("/ipns/{name}")).expect("a name"));
    let told = reaches(&mut asked, first.sequence).await;
    assert_eq!((told.value.as_str(), told.sequence), ("/ipfs/one", first.sequence));
    let second = point(&owner, "/ipfs/two", 2).await;
    for watch in [&mut watch, &mut asked] {
        let told = reaches(watch, second.sequence).await;
        assert_eq!((told.value.as_str(), told.sequence), ("/ipfs/two", second.sequence));
    }

    // Other records wake it, and are not told; so does the node's end, with which it ends.
    put_at(&owner, "value", 2).await;
    holder.shutdown().await.expect("stops");
    assert_eq!(within("end of the watch", watch.next()).await, None);
    let wrong = late.records().watch_name("no-name").err().expect("is none");
    assert_eq!(wrong.kind, ErrorKind::Usage, "{wrong}");
}
