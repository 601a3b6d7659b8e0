//! What is no record, or not here, or not now, or too large.

use dagmesh_core::limits;
use dagmesh_records::{Answer, Code, Request};
use dagmesh_tests::hostile::{
    group::unix_ms,
    proto,
    record::{HOUR_MS, Writer, loose_put},
};

use super::{Scene, code};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_hold_is_refused_with_its_code_and_nobody_is_banned_for_it() {
    let mut scene = Scene::start().await;
    let (hostile, mut line) = scene.kad_intruder().await;
    let (writer, other, now_ms) = (Writer::default(), Writer::default(), unix_ms());
    let (good, foreign) = (writer.record("name", 1, b"good"), other.record("name", 1, b"another's"));
    let expired = writer.at("expired", 1, now_ms - 2 * HOUR_MS, now_ms - HOUR_MS);
    let ahead_ms = now_ms + limits::MAX_RECORD_AHEAD_MS;
    // A test that is slow must not come to be right: an hour more.
    let future = writer.at("future", 1, ahead_ms + HOUR_MS, ahead_ms + 2 * HOUR_MS);
    let (ipns, ended) = (writer.ipns(1, b"/ipfs/x", now_ms), writer.ipns(1, b"/ipfs/x", now_ms - 2 * HOUR_MS));
    for (what, wanted, key, bytes) in [
        ("the key of another owner", Code::KeyMismatch, good.key(), foreign.encode()),
        ("the key of another name", Code::KeyMismatch, good.key(), writer.record("other", 1, b"").encode()),
        ("expired", Code::BadRequest, expired.key(), expired.encode()),
        ("from the future", Code::BadRequest, future.key(), future.encode()),
        ("an unknown namespace", Code::Unsupported, b"/pk/name".to_vec(), good.encode()),
        ("no record", Code::BadRequest, good.key(), b"junk"),
        ("no record of IPNS", Code::BadRequest, writer.ipns_key(), b"\xff\xff\xff"),
        ("an expired one of IPNS", Code::BadRequest, writer.ipns_key(), ended.encode()),
        ("a record in the place of one of IPNS", Code::BadRequest, writer.ipns_key(), good.encode()),
    ] {
        let answer = code(hostile.put_record(scene.peer_id(), &key, bytes).await);
        assert_eq!(answer, Some(wanted), "{what}");
        assert_eq!(line.put(&key, bytes).await, Some(false), "{what} over Kademlia");
        assert_eq!(line.get(&key).await, Some(None), "{what}");
        scene.honest_is_got().await;
    }
    // The same intruder is heard when it puts what holds: it was not banned.
    assert_eq!(line.put(&good.key(), good.encode()).await, Some(true));
    assert_eq!(
        hostile.put_record(scene.peer_id(), &good.key(), good.encode()).await,
        Some(Answer::Stored { news: false })
    );
    assert_eq!(line.put(&writer.ipns_key(), ipns.encode()).await, Some(true));
    let slightly = writer.at("name", 2, now_ms + limits::MAX_RECORD_AHEAD_MS / 2, now_ms + HOUR_MS);
    assert_eq!(code(hostile.put_record(scene.peer_id(), &good.key(), slightly.encode()).await), None, "a fast clock");
    scene.honest_is_got().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_records_are_taken_and_one_byte_more_is_refused() {
    let mut scene = Scene::start().await;
    let (hostile, mut line) = scene.kad_intruder().await;
    let (daemon, max) = (scene.peer_id(), limits::MAX_RECORD_VALUE_BYTES);
    let writers = [Writer::default(), Writer::default()];
    let at = |by: usize, len| writers[by].with_value("name", len);
    let (key, bytes) = at(0, max + 1);
    assert_eq!(code(hostile.put_record(daemon, &key, &bytes).await), Some(Code::TooBig));
    assert_eq!(line.put(&key, &bytes).await, Some(false));
    let (key, bytes) = at(0, max);
    assert_eq!(code(hostile.put_record(daemon, &key, &bytes).await), None);
    let (key, bytes) = at(1, max);
    assert_eq!(line.put(&key, &bytes).await, Some(true));
    assert_eq!(line.get(&key).await.flatten().as_deref(), Some(bytes.as_slice()));

    // Of IPNS the whole record has a bound; each byte of its value stands in it twice.
    // At one time for all: how long a validity is, its last digits say.
    let now_ms = unix_ms();
    let ipns = |writer: &Writer, len| writer.ipns(1, &vec![b'x'; len], now_ms);
    let overhead = ipns(&writers[0], 4000).encode().len() - 2 * 4000;
    let (most, odd) = ((limits::MAX_IPNS_RECORD_BYTES - overhead) / 2, (limits::MAX_IPNS_RECORD_BYTES - overhead) % 2);
    let record = ipns(&writers[0], most);
    assert_eq!(record.encode().len() + odd, limits::MAX_IPNS_RECORD_BYTES);
    assert_eq!(line.put(&writers[0].ipns_key(), record.encode()).await, Some(true));
    // Padded with a field that nobody knows: one byte over the bound, and a signature that holds.
    let mut padded = ipns(&writers[1], most).encode().to_vec();
    padded.extend(proto::bytes(1000, &[0]));
    assert!(padded.len() > limits::MAX_IPNS_RECORD_BYTES);
    assert_eq!(line.put(&writers[1].ipns_key(), &padded).await, Some(false));
    assert_eq!(code(hostile.put_record(daemon, &writers[1].ipns_key(), &padded).await), Some(Code::TooBig));

    // Over the bound of all records, in a request that is within its own.
    let huge = vec![0; limits::MAX_RECORD_BYTES + 1];
    assert_eq!(code(hostile.ask_record_raw(daemon, &loose_put(&key, &huge)).await), Some(Code::TooBig));
    let long_key = [b"/ipns/".as_slice(), &[1; limits::MAX_KAD_KEY_BYTES]].concat();
    assert!(Request::put(&long_key, b"").is_err(), "no honest node sends it");
    assert_eq!(line.put(&long_key, b"").await, Some(false));
    scene.honest_is_got().await;
}
