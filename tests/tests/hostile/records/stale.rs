//! What was once true: older records, and old copies of what has expired.

use dagmesh_records::{Answer, Code, Record};
use dagmesh_tests::{
    hostile::{
        group::unix_ms,
        record::{HOUR_MS, Writer},
    },
    peer::SOON,
    wait_for,
};

use super::{Scene, code};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_record_is_answered_with_the_newer_one_which_stays() {
    let mut scene = Scene::start().await;
    let (hostile, mut line) = scene.kad_intruder().await;
    let (writer, daemon, now_ms) = (Writer::default(), scene.peer_id(), unix_ms());
    let (old, new) = (writer.record("name", 1, b"old"), writer.record("name", 2, b"new"));
    assert_eq!(code(hostile.put_record(daemon, &new.key(), new.encode()).await), None);
    // A later time does not make up for a lower number.
    let later = writer.at("name", 1, now_ms + 1000, now_ms + HOUR_MS);
    for stale in [&old, &later] {
        match hostile.put_record(daemon, &new.key(), stale.encode()).await {
            Some(Answer::Superseded { record, timestamp_ms }) => {
                let told = Record::verify(&new.key(), &record, unix_ms()).expect("a record");
                assert_eq!((told.encode(), timestamp_ms), (new.encode(), new.draft().timestamp_ms));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(line.put(&new.key(), stale.encode()).await, Some(false));
        assert_eq!(line.get(&new.key()).await.flatten().as_deref(), Some(new.encode()));
        assert_eq!(hostile.get_record(daemon, &new.key()).await.as_deref(), Some(new.encode()));
    }
    let (old, new) = (writer.ipns(6, b"/ipfs/old", now_ms), writer.ipns(7, b"/ipfs/new", now_ms));
    assert_eq!(line.put(&writer.ipns_key(), new.encode()).await, Some(true));
    assert_eq!(line.put(&writer.ipns_key(), old.encode()).await, Some(false));
    assert_eq!(code(hostile.put_record(daemon, &writer.ipns_key(), old.encode()).await), Some(Code::Superseded));
    scene.honest_is_got().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_does_not_come_back_when_the_newer_one_has_expired_nor_after_a_restart() {
    let mut scene = Scene::start().await;
    let (hostile, mut line) = scene.kad_intruder().await;
    let (writer, now_ms) = (Writer::default(), unix_ms());
    // The older one would be valid for another hour.
    let old = writer.record("name", 1, b"old");
    let new = writer.at("name", 2, now_ms - 1000, now_ms + 3000);
    assert_eq!(line.put(&old.key(), old.encode()).await, Some(true));
    assert_eq!(line.put(&new.key(), new.encode()).await, Some(true));
    let gone = async || hostile.get_record(scene.peer_id(), &new.key()).await.is_none();
    wait_for(SOON, "the end of a record's time", gone).await;
    assert_eq!(code(hostile.put_record(scene.peer_id(), &new.key(), new.encode()).await), Some(Code::BadRequest));
    assert_eq!(code(hostile.put_record(scene.peer_id(), &old.key(), old.encode()).await), Some(Code::Superseded));
    assert_eq!(line.put(&old.key(), old.encode()).await, Some(false));

    scene.daemon.restart().await;
    let (hostile, mut line) = scene.kad_intruder().await;
    assert_eq!(code(hostile.put_record(scene.peer_id(), &old.key(), old.encode()).await), Some(Code::Superseded));
    assert_eq!(line.put(&old.key(), old.encode()).await, Some(false));
    assert_eq!(line.get(&old.key()).await, Some(None));
    let next = writer.record("name", 3, b"next");
    assert_eq!(line.put(&next.key(), next.encode()).await, Some(true), "its owner goes on");
    for peer in [&scene.owner, &scene.reader] {
        super::connect(peer, scene.addr()).await;
    }
    scene.honest_is_got().await;
}
