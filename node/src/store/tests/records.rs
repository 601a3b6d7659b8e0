//! Records, marks and bans.

use dagmesh_records::{Ban, Mark, Order, Row, Source};
use libp2p::{PeerId, identity::Keypair};

use super::*;

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

fn row(key: &[u8], source: Source) -> Row {
    Row { key: key.to_vec(), bytes: b"signed".to_vec(), source, received_ms: 5, mark_until_ms: 6 }
}

#[test]
fn records_marks_and_bans_survive_the_process_each_under_its_own_key() {
    let store = TempStore::new();
    assert_eq!(store.kept_records().expect("reads"), KeptRecords::default());
    let (own, theirs) = (row(b"/dagmesh/record/a", Source::Own), row(b"/ipns/b", Source::Peer(peer())));
    let order = Order { sequence: u64::MAX, secs: 7, nanos: 8, digest: [9; 32] };
    let (marked, mark) = (b"/ipns/b".to_vec(), Mark { order, until_ms: 10, source: peer() });
    let (banned, ban) = (peer(), Ban { count: 2, until_ms: u64::MAX });
    let written = store.transaction(|batch| {
        batch.set_record(&Row { received_ms: 1, ..own.clone() })?;
        batch.set_record(&own)?;
        batch.set_record(&theirs)?;
        batch.set_record_mark(&marked, &mark)?;
        batch.set_ban(&banned, &ban)
    });
    written.expect("writes");
    let store = store.reopen();
    let kept =
        KeptRecords { rows: vec![own, theirs.clone()], marks: vec![(marked.clone(), mark)], bans: vec![(banned, ban)] };
    assert_eq!(store.kept_records().expect("reads"), kept);

    store.transaction(|batch| batch.remove_record(&theirs.key)).expect("writes");
    let kept = store.kept_records().expect("reads");
    assert_eq!((kept.rows.len(), kept.marks.len()), (1, 1), "the mark of the same key stays");
    let removed = store.transaction(|batch| {
        batch.remove_record(b"/dagmesh/record/a")?;
        batch.remove_record_mark(&marked)?;
        batch.remove_ban(&banned)?;
        batch.remove_ban(&banned)
    });
    removed.expect("writes");
    assert_eq!(store.reopen().kept_records().expect("reads"), KeptRecords::default());
}
