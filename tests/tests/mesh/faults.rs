//! Disks that fail: rows 33 and 34 of the table of faults, end to end. Row 32 is in `crash/cycles.rs` and in the store's
//! own tests, as are the parts of these rows that need no second node; a full disk is in `bad_input.rs` too.

use std::path::Path;

use dagmesh_tests::{Daemon, FailingDisk, Failure, wait_for};
use serde_json::{Value, json};

use crate::support::{
    SOON, Watch, api_call, api_try, assert_sound, daemon, in_sync_at, number, options, str_of, text, ticket,
};

/// Publications after a disk has begun to fail: what it has room for already may still be synced.
const MANY: u64 = 64;

/// A daemon whose home is on this disk.
async fn on(disk: &FailingDisk) -> Daemon {
    let mut options = options(&[]);
    options.home = Some(disk.path().join("home"));
    Daemon::start_with(options).await
}

/// Publishes 1 MiB that no other number has.
async fn publish(publisher: &Daemon, folder: &Path, n: u64) -> Result<Value, String> {
    let path = folder.join("file");
    std::fs::write(&path, n.to_be_bytes().repeat(128 << 10)).expect("a file");
    api_try(publisher, "publish", &json!({"content": {"path": path}})).await
}

#[tokio::test]
async fn row_33_a_publisher_whose_disk_fails_at_a_sync_acknowledges_nothing_more_and_tells_nobody_of_it() {
    for failure in [Failure::Stops, Failure::Forgets] {
        let Some(mut disk) = FailingDisk::mount(failure) else { return };
        let (mut publisher, other) = tokio::join!(on(&disk), daemon(&[]));
        let folder = tempfile::tempdir().expect("a folder");
        let mut acknowledged = vec![publish(&publisher, folder.path(), 0).await.expect("published")];
        disk.fail();
        // Content that is there already: it is the entry and its head whose sync fails.
        let again = json!({"content": {"cid": acknowledged[0]["content"]}});
        let refused = loop {
            match api_try(&publisher, "publish", &again).await {
                Ok(published) => acknowledged.push(published),
                Err(error) => break error,
            }
            assert!((acknowledged.len() as u64) < MANY, "the disk did not fail");
        };
        println!("{failure:?}: after {} publications: {refused}", acknowledged.len());

        // The disk may say at the next sync that all is well: it is not.
        for n in 0..3 {
            publish(&publisher, folder.path(), MANY + n).await.expect_err("what is not there cannot be acknowledged");
            let block = json!({"input": "raw", "codec": "raw", "data": "YWdhaW4="});
            let error = api_try(&publisher, "dag/put", &block).await.expect_err("nothing is written any more");
            assert!(error.contains("closed"), "{error}");
        }
        // Reading goes on. The number that could not be made durable is still free, so nobody is told of it.
        let last = acknowledged.last().expect("one");
        let own = api_call(&publisher, "head", &json!({})).await;
        let told = other.json(&["head", &publisher.addr("tcp")]).await;
        assert_eq!((&own["head"], &told["head"]), (&last["head"], &last["head"]), "{failure:?}");
        assert_eq!((&own["seq"], &told["seq"]), (&last["seq"], &last["seq"]), "{failure:?}");

        publisher.kill9().await;
        disk.repair();
        publisher.restart().await;
        assert_sound(&publisher).await;
        let head = publisher.json(&["head"]).await;
        assert!(number(&head, "seq") >= number(last, "seq"), "{head} is left of {last}");
        let mut next = Some(str_of(&head, "head").to_owned());
        for seq in (1..=number(&head, "seq")).rev() {
            let cid = next.expect("an entry");
            let entry = publisher.json(&["dag", "get", &cid, "--format", "dag-json"]).await;
            assert_eq!(number(&entry, "seq"), seq);
            let told = acknowledged.iter().find(|published| published["seq"] == seq);
            assert!(told.is_none_or(|told| told["head"] == cid), "entry {seq} was {told:?}, and is {cid}");
            next = entry["previous"]["/"].as_str().map(str::to_owned);
        }
        let copy = folder.path().join("copy");
        api_call(&publisher, "get", &json!({"cid": last["content"], "output": copy})).await;
        assert!(std::fs::read(&copy).expect("a file") == 0u64.to_be_bytes().repeat(128 << 10));
        let again = publish(&publisher, folder.path(), 2 * MANY).await.expect("published");
        assert_eq!(number(&again, "seq"), number(&head, "seq") + 1);
        drop((publisher, disk));
    }
}

#[tokio::test]
async fn row_33_a_follower_whose_disk_fails_at_a_sync_claims_nothing_and_goes_on_once_it_is_repaired() {
    for failure in [Failure::Stops, Failure::Forgets] {
        let Some(mut disk) = FailingDisk::mount(failure) else { return };
        let (publisher, mut follower) = tokio::join!(daemon(&[]), on(&disk));
        let folder = tempfile::tempdir().expect("a folder");
        publish(&publisher, folder.path(), 1).await.expect("published");
        follower.json(&["follow", &ticket(&publisher).await, "--wait"]).await;
        let watch = Watch::direct(&follower).await;
        disk.fail();
        let mut seq = 1;
        while watch.all("sync_failed").is_empty() {
            seq += 1;
            assert!(seq < MANY, "the disk did not fail");
            let published = publish(&publisher, folder.path(), seq).await.expect("published");
            let head = str_of(&published, "head");
            let ends = |event: &Value| event["event"] == "sync_finished" || event["event"] == "sync_failed";
            watch.wait("a sync that ended", |event| event["head"] == head && ends(event)).await;
        }
        // It tries again, and again does not claim to have it.
        wait_for(SOON, "another try", async || watch.all("sync_failed").len() >= 2).await;
        let standing = api_call(&follower, "follows", &json!({})).await[0].clone();
        assert!(standing["state"] != "in_sync" && number(&standing, "latest_seq") < seq, "{standing}");
        assert!(str_of(&watch.all("sync_failed")[1], "reason").contains("store"), "{:?}", watch.all("sync_failed"));

        follower.kill9().await;
        let moved = watch.end().await;
        let moved = moved.iter().filter(|event| event["event"] == "latest_moved").map(|event| number(event, "seq"));
        let moved = moved.max().unwrap_or(1);
        disk.repair();
        assert_sound(&follower).await;
        follower.restart().await;
        let standing = api_call(&follower, "follows", &json!({})).await[0].clone();
        assert!(
            number(&standing, "latest_seq") >= moved,
            "entry {moved} was told to be there, and is lost: {standing}"
        );
        in_sync_at(&follower, seq).await;
        assert_sound(&follower).await;
        drop((follower, disk));
    }
}

/// How a damaged block is come upon.
#[derive(Debug, Clone, Copy)]
enum Found {
    Verify,
    Read,
    Serve,
}

#[tokio::test]
async fn row_34_a_bit_flipped_on_disk_is_found_put_aside_and_fetched_again_from_the_publisher() {
    let (publisher, mut follower, other) = tokio::join!(daemon(&[]), daemon(&[]), daemon(&[]));
    let folder = tempfile::tempdir().expect("a folder");
    let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
    // More than is gathered in memory, so that blocks stand in files; each byte of a block is its number.
    let content: Vec<u8> = (1..=160).flat_map(|n| vec![n; 256 << 10]).collect();
    std::fs::write(&source, &content).expect("a file");
    let published = publisher.json(&["publish", text(&source)]).await;
    let cid = str_of(&published, "content");
    follower.json(&["follow", &ticket(&publisher).await, "--wait"]).await;

    let mut hit = Vec::new();
    for found in [Found::Verify, Found::Read, Found::Serve] {
        // Stopped, not killed: a file that a kill left half written is nobody's.
        assert!(follower.stop().await.success());
        hit.push(flip_a_bit(&follower.home().join("store"), &hit).expect("a block that stands in a file"));
        follower.restart().await;
        println!("{found:?}: bits of blocks {hit:?} are flipped");
        match found {
            Found::Verify => {
                let output = follower.run(&["repo", "verify"]).await;
                output.assert_code(7);
                assert_eq!(number(&output.values[0], "damaged"), 1, "{output}");
            }
            Found::Read => {
                let output = follower.run(&["get", cid, "-o", text(&copy)]).await;
                assert!(output.code == Some(4) && !copy.exists(), "bytes that are not those published: {output}");
            }
            Found::Serve => {
                let output = other.run(&["sync", &follower.addr("tcp"), "--head", cid]).await;
                assert!(output.code.is_some_and(|code| code != 0), "what is damaged is not served: {output}");
            }
        }
        let stat = follower.json(&["repo", "stat"]).await;
        assert_eq!(number(&stat, "quarantined"), hit.len() as u64, "{stat}");

        wait_for(SOON, "a block that is fetched again", async || {
            number(&follower.json(&["repo", "stat"]).await, "blocks") == number(&published, "blocks_added")
        })
        .await;
        assert_sound(&follower).await;
        follower.json(&["get", cid, "-o", text(&copy)]).await;
        assert!(std::fs::read(&copy).expect("a file") == content, "{found:?}");
        std::fs::remove_file(&copy).expect("removed");
    }
    other.json(&["sync", &follower.addr("tcp"), "--head", cid]).await;
    assert_sound(&other).await;
}

/// Flips a bit in a block in one of the store's files, of one that is all of one byte, but none of `but`; that byte.
fn flip_a_bit(dir: &Path, but: &[u8]) -> Option<u8> {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if let Some(hit) = flip_a_bit(&path, but) {
                return Some(hit);
            }
        } else if path.extension().is_none_or(|extension| extension != "jnl") {
            let mut bytes = std::fs::read(&path).expect("a file");
            let fits = |byte: u8| byte != 0 && !but.contains(&byte);
            let inside = |at: &usize| fits(bytes[*at]) && bytes[*at..at + 4096].iter().all(|byte| *byte == bytes[*at]);
            let last = bytes.len().saturating_sub(4096);
            if let Some(at) = (0..last).step_by(64 << 10).find(inside) {
                let hit = bytes[at];
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).expect("written");
                return Some(hit);
            }
        }
    }
    None
}
