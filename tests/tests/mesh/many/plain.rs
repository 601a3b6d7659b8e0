//! Peers that know Kademlia's own PUT and GET alone.

use super::*;

#[tokio::test]
async fn a_peer_of_plain_kademlia_is_given_records_and_asked_for_them_by_its_own_means() {
    let (owner, plain) = (Peer::start().await, Stranger::start().await);
    plain.meet(&owner).await;
    let done = wait_for_some(SOON, "a record at a plain peer", async || {
        owner.records().put(RecordPut::new(NAME, "value")).await.ok()
    })
    .await;
    assert_eq!(done.holders, [plain.peer_id()]);
    owner.shutdown().await.expect("stops");

    // Nobody but the plain one has it now.
    let reader = Peer::start().await;
    plain.meet(&reader).await;
    let found = wait_for_some(SOON, "a record of a plain peer", async || {
        reader.records().get(&public_key(&owner), NAME).await.ok()
    })
    .await;
    assert_eq!((found.value.as_slice(), found.answers.holders), (b"value".as_slice(), 1));
}
