//! Row 28: floods of records and of provider records.

use dagmesh_core::limits;
use dagmesh_tests::hostile::{Hostile, record::Writer};

use super::Scene;

const MIB: u64 = 1 << 20;
/// Records that each flooder puts: some over its share.
const RECORDS: usize = limits::MAX_RECORDS_PER_SOURCE + 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_28_a_flood_of_records_pushes_out_nothing_but_its_own() {
    // In the long form more than all that a node holds.
    let flooders = [1, 6][usize::from(std::env::var_os("DAGMESH_LONG").is_some())];
    let mut scene = Scene::start().await;
    let honest = scene.owner.records().list(true).pop().expect("an honest record");
    let before = scene.daemon.memory();
    let (watcher, mut watching) = scene.kad_intruder().await;
    let mut all = 0;
    for _ in 0..flooders {
        let (_flooder, mut line) = scene.kad_intruder().await;
        let writer = Writer::default();
        let value = vec![7; 512];
        let mut keys = Vec::new();
        for n in 0..RECORDS {
            let record = writer.record(&n.to_string(), 1, &value);
            // Taken, or refused because its share is full, or because the disk does not keep up.
            line.put(&record.key(), record.encode()).await.expect("an answer");
            keys.push(record.key());
            if n % 400 == 0 {
                scene.honest_is_got().await;
            }
        }
        let mut held = 0;
        for key in &keys {
            held += usize::from(watching.get(key).await.expect("an answer").is_some());
        }
        println!("{held} of {RECORDS} are held");
        assert!((limits::MAX_RECORDS_PER_SOURCE / 8..=limits::MAX_RECORDS_PER_SOURCE).contains(&held), "{held}");
        all += held;
    }
    assert!(watcher.get_record(scene.peer_id(), &honest.key).await.is_some(), "an honest record stays");
    scene.honest_is_got().await;
    if let (Some(before), Some(after)) = (before, scene.daemon.memory()) {
        println!("{all} records: {before:?}, then {after:?}");
        assert!(after.peak - before.peak < 64 * MIB, "{before:?}, then {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_28_a_flood_of_providers_stops_at_the_share_of_a_peer_and_of_a_key() {
    let mut scene = Scene::start().await;
    let daemon = scene.peer_id();
    let before = scene.daemon.memory();
    let (_watcher, mut watching) = scene.kad_intruder().await;
    let (flooder, mut line) = scene.kad_intruder().await;
    let key = |n: usize| format!("provided {n:06}").into_bytes();
    let most = limits::MAX_KAD_KEYS_PER_PROVIDER;
    for n in 0..most + 100 {
        line.provide(&key(n), flooder.peer_id()).await.expect("a stream");
    }
    line.closest(b"a question behind them").await.expect("an answer");
    assert_eq!(watching.providers(&key(0)).await.expect("an answer"), [flooder.peer_id()]);
    assert_eq!(watching.providers(&key(most - 1)).await.expect("an answer"), [flooder.peer_id()]);
    assert_eq!(watching.providers(&key(most)).await.expect("an answer"), []);
    // In the name of another: taken from nobody.
    line.provide(b"of another", scene.owner.peer_id()).await.expect("a stream");
    line.closest(b"a question behind it").await.expect("an answer");
    assert_eq!(watching.providers(b"of another").await.expect("an answer"), []);

    // Who came first stays, however many come later.
    let mut first = Vec::new();
    for _ in 0..limits::MAX_PROVIDERS_PER_KEY + 1 {
        let hostile: Hostile = scene.intruder().await;
        let mut line = hostile.kad(daemon).await.expect("a stream of the DHT");
        line.provide(b"wanted", hostile.peer_id()).await.expect("a stream");
        line.closest(b"a question behind it").await.expect("an answer");
        first.push(hostile.peer_id());
    }
    let mut found = watching.providers(b"wanted").await.expect("an answer");
    let late = first.pop().expect("one too many");
    assert!(!found.contains(&late));
    found.sort();
    first.sort();
    assert_eq!(found, first);
    scene.honest_is_got().await;
    if let (Some(before), Some(after)) = (before, scene.daemon.memory()) {
        println!("{before:?}, then {after:?}");
        assert!(after.peak - before.peak < 64 * MIB, "{before:?}, then {after:?}");
    }
}
