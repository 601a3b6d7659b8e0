//! What is no request at all, and too many of them.

use dagmesh_core::limits;
use dagmesh_records::{Answer, Code};
use dagmesh_tests::{
    hostile::record::{Writer, framed},
    peer::SOON,
    wait_for,
};
use futures::{AsyncReadExt, FutureExt, future::join_all};
use libp2p::Stream;

use super::{Scene, code};

/// Streams that one peer opens and says nothing on.
const STREAMS: usize = 5 * limits::MAX_RECORD_SERVED_PER_PEER;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_its_stream_and_nothing_else() {
    let mut scene = Scene::start().await;
    let (hostile, _) = scene.kad_intruder().await;
    let daemon = scene.peer_id();
    let long = vec![0; limits::MAX_RECORD_MESSAGE_BYTES + 1];
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("half a prefix", vec![0x80]),
        ("a prefix of eleven bytes", vec![0xff; 11]),
        ("a claim of 2^62 bytes", vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f]),
        ("a frame over its cap", framed(&long)),
        ("half a frame", framed(&[7; 100])[..50].to_vec()),
    ] {
        assert_eq!(hostile.ask_record_raw(daemon, &bytes).await, None, "{what}");
    }
    for (what, wanted, message) in [
        ("an empty frame", Code::BadRequest, &b""[..]),
        ("junk", Code::BadRequest, b"junk"),
        ("a request of a later version", Code::UnknownRequest, b"\xa1\x61\x7a\x80"),
        ("a list that claims 2^32 items", Code::BadRequest, b"\xa1\x61\x70\x9b\0\0\0\x01\0\0\0\0"),
    ] {
        assert_eq!(code(hostile.ask_record_raw(daemon, &framed(message)).await), Some(wanted), "{what}");
    }
    for junk in [&b""[..], b"junk", &[0x08, 0x63], &[0xff; 4096]] {
        let mut line = hostile.kad(daemon).await.expect("a stream of the DHT");
        let _refused = line.send(junk).await;
        assert!(!line.put(b"/pk/name", b"value").await.unwrap_or(false), "{junk:?}");
    }
    scene.honest_is_got().await;
    assert!(
        matches!(
            hostile.put_record(daemon, &Writer::default().ipns_key(), b"junk").await,
            Some(Answer::Error(refusal)) if refusal.code == Code::BadRequest
        ),
        "it is still heard"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_over_the_share_of_a_peer_are_dropped_and_others_are_served_meanwhile() {
    let mut scene = Scene::start().await;
    let hostile = scene.intruder().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.extend(hostile.record_stream(scene.peer_id(), &[0x20]).await);
    }
    scene.honest_is_got().await;
    // Those that were dropped have come to an end; what is being answered has not, before its deadline.
    let mut ended = vec![false; streams.len()];
    let enough = STREAMS - limits::MAX_RECORD_SERVED_PER_PEER;
    wait_for(SOON, "streams over the share that end", async || {
        for (stream, ended) in streams.iter_mut().zip(&mut ended) {
            *ended = *ended || is_over(stream);
        }
        ended.iter().filter(|ended| **ended).count() + (STREAMS - ended.len()) >= enough
    })
    .await;
    let ends = join_all(streams.iter_mut().map(|stream| async { stream.read(&mut [0; 8]).await.unwrap_or(0) }));
    let ends = tokio::time::timeout(SOON, ends).await.expect("the others end at their deadline");
    assert!(ends.iter().all(|read| *read == 0), "nobody was answered");
    assert_eq!(hostile.get_record(scene.peer_id(), &Writer::default().ipns_key()).await, None, "there is room again");
    scene.honest_is_got().await;
}

fn is_over(stream: &mut Stream) -> bool {
    matches!(stream.read(&mut [0; 8]).now_or_never(), Some(Ok(0) | Err(_)))
}
