//! One large sync, over many kills: how much travels twice, and how much is walked again.

use std::time::Duration;

use dagmesh_core::limits;
use dagmesh_tests::wait_for;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::Value;

use super::Slow;
use crate::support::{Watch, daemon, in_sync_at, number, seed, str_of};

/// What is synced in the ordinary run, in MiB, and how often it is killed. `DAGMESH_CRASH_MIB` asks for more, and a kill
/// for each 128 MiB: `just crash`.
const MIB: u64 = 128;
/// Bytes a second: less than a follower takes, so that what is under way is not lost in full buffers.
const RATE: u64 = 32 << 20;
/// How long one run may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);
/// The leaves of a large file.
const LEAF_BYTES: u64 = limits::DEFAULT_CHUNK_BYTES as u64;
/// Of what is synced, how much may travel twice.
const TWICE: f64 = 0.10;
/// What one kill may cost: a batch that fills, one that is being stored, and what is on its way through sockets.
const LOST_BYTES: u64 = 2 * limits::STORE_BATCH_BYTES as u64 + 2 * limits::MAX_BLOCK_BYTES as u64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_sync_killed_again_and_again_a_tenth_travels_twice_at_most_and_nothing_whole_is_walked_again() {
    let mib = std::env::var("DAGMESH_CRASH_MIB").map_or(MIB, |mib| mib.parse().expect("a number"));
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    // Few files, so that nearly every block has 256 KiB.
    let (mut slow, mut follower) = tokio::join!(Slow::with(8, mib << 20, RATE), daemon(&[]));
    let all = slow.bytes().await;
    // A kill somewhere in each eighth, or in the second half of the only one.
    let kills = mib / MIB;
    let moments = (0..kills).map(|kill| {
        let part = all * 9 / 10 / kills;
        part * kill + part / 2 + random.next_u64() % (part / 2)
    });
    let mut watch = Watch::direct(&follower).await;
    follower.json(&["follow", &slow.target()]).await;

    let (mut twice, mut stored, mut resumed) = (0, 0, None);
    for moment in moments.collect::<Vec<_>>() {
        // It has come so far, and has told two checkpoints of this run.
        wait_for(DEADLINE, &format!("{moment} bytes"), async || {
            slow.proxy.bytes_from_target() >= moment + twice && progress(&watch.all("sync_progress")).count() >= 2
        })
        .await;
        follower.kill9().await;
        let travelled = slow.proxy.bytes_from_target();
        let told = watch.end().await;
        assert_resumed(&told, resumed);

        let before = stored;
        stored = number(&follower.json(&["repo", "stat"]).await, "bytes");
        let lost = travelled.saturating_sub(twice + stored);
        println!("killed after {travelled} bytes: {stored} are stored, {lost} lost");
        assert!(lost <= LOST_BYTES, "{lost} bytes are lost by one kill, {LOST_BYTES} may be");
        twice += lost;
        // The checkpoint that was saved is the last one told, or the one before it.
        let saved = before + number(progress(&told).nth_back(1).expect("two checkpoints"), "bytes");
        resumed = Some(stored.saturating_sub(saved));

        // The watcher has to be there before the sync goes on.
        slow.proxy.stall();
        slow.restart_publisher().await;
        follower.restart().await;
        watch = Watch::direct(&follower).await;
        slow.proxy.heal();
    }
    let finished = watch.finished(str_of(&slow.published, "head")).await;
    assert_eq!(number(&finished, "bytes"), all - stored, "exactly what was not stored: {finished}");
    in_sync_at(&follower, 1).await;
    follower.kill9().await;
    assert_resumed(&watch.end().await, resumed);
    follower.restart().await;
    slow.assert_arrived(&follower).await;

    let travelled = slow.proxy.bytes_from_target();
    println!("{travelled} bytes travelled for {all}, over {kills} kills; {twice} of them twice");
    assert!(travelled >= all, "all of it came over the line");
    assert!(travelled as f64 <= all as f64 * (1.0 + TWICE), "{travelled} bytes travelled for {all}");
}

/// The checkpoints of the content, beyond the entry.
fn progress(told: &[Value]) -> impl DoubleEndedIterator<Item = &Value> {
    told.iter().filter(|event| event["event"] == "sync_progress" && event["have_blocks"].as_u64() > Some(1))
}

/// A run that went on from an earlier one came past no more that was held than what had been stored beyond the
/// checkpoint that it went on from, in bytes; from the head it would have come past all that was held.
fn assert_resumed(told: &[Value], beyond_checkpoint: Option<u64>) {
    let Some(beyond) = beyond_checkpoint else { return };
    let last = progress(told).next_back().expect("a checkpoint");
    // Leaves have 256 KiB, and the nodes above them less: at least so many blocks travelled.
    let travelled = number(last, "bytes") / LEAF_BYTES;
    let found = number(last, "have_blocks").saturating_sub(travelled);
    println!("went on, and came past {found} blocks that were held; {beyond} bytes were stored beyond the checkpoint");
    assert!(found <= beyond / LEAF_BYTES + travelled / 50 + 32, "{found} blocks are walked again: {last}");
}
