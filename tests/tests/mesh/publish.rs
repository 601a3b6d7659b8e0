//! The main job: publish a folder, follow it, change it.

use std::time::Duration;

use dagmesh_tests::{assert_same_folder, edit_files, make_folder, wait_for};
use serde_json::json;

use crate::support::{Watch, api_call, assert_sound, daemon, free_port, in_sync_at, number, str_of, text, ticket};

#[tokio::test]
async fn a_followed_folder_arrives_byte_identical_and_a_change_moves_only_what_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, first, second) = (folder.path().join("source"), folder.path().join("1"), folder.path().join("2"));
    make_folder(&source, 1000, 20 << 20, 1);
    let (publisher, follower) = tokio::join!(daemon(&[]), daemon(&[]));
    let watch = Watch::start(&follower).await;

    let published = publisher.json(&["publish", text(&source), "--hidden"]).await;
    let follow = follower.json(&["follow", &ticket(&publisher).await, "--wait"]).await;
    assert_eq!((str_of(&follow, "state"), &follow["latest"]), ("in_sync", &published["head"]), "{follow}");
    let finished = watch.finished(str_of(&published, "head")).await;
    assert_eq!(number(&finished, "blocks"), number(&published, "blocks_added"), "all of it, and nothing twice");
    let gotten = follower.json(&["get", str_of(&published, "content"), "-o", text(&first)]).await;
    assert_eq!(number(&gotten, "files"), 1000);
    assert_same_folder(&source, &first);

    edit_files(&source, 10, 2);
    let changed = publisher.json(&["publish", text(&source), "--hidden"]).await;
    assert!(number(&changed, "peers") >= 1, "the follower listens: {changed}");
    let finished = watch.finished(str_of(&changed, "head")).await;
    assert_eq!(number(&finished, "count"), 1);
    assert_eq!(number(&finished, "blocks"), number(&changed, "blocks_added"), "what changed, and nothing else");
    assert!(number(&finished, "bytes") < 20 << 19, "ten files of a thousand: {finished}");
    follower.json(&["get", str_of(&changed, "content"), "-o", text(&second)]).await;
    assert_same_folder(&source, &second);
    assert!(watch.all("sync_failed").is_empty(), "{:?}", watch.all("sync_failed"));
    assert_sound(&follower).await;
}

#[tokio::test]
async fn a_follower_that_was_away_for_100_entries_fetches_exactly_those_in_order() {
    // Where the publisher comes back: the follower that comes back first can only know this.
    let listen = format!("/ip4/127.0.0.1/tcp/{}", free_port());
    let args = ["--listen", listen.as_str()];
    let (mut publisher, mut follower) = tokio::join!(daemon(&args), daemon(&[]));
    let folder = tempfile::tempdir().expect("a folder");
    let publish = async |publisher: &_, n: u64| {
        let path = folder.path().join("file");
        std::fs::write(&path, format!("version {n}")).expect("a file");
        api_call(publisher, "publish", &json!({"content": {"path": path}})).await
    };
    publish(&publisher, 0).await;
    follower.json(&["follow", &ticket(&publisher).await, "--wait"]).await;
    assert!(follower.stop().await.success());

    let mut added = 0;
    for n in 1..=100 {
        added += number(&publish(&publisher, n).await, "blocks_added");
    }
    // The watcher has to be there before the sync begins.
    assert!(publisher.stop().await.success());
    follower.restart().await;
    let watch = Watch::direct(&follower).await;
    publisher.restart().await;

    in_sync_at(&follower, 101).await;
    wait_for(Duration::from_secs(10), "the last entry's event", async || watch.all("latest_moved").len() >= 100).await;
    let moved: Vec<u64> = watch.all("latest_moved").iter().map(|event| number(event, "seq")).collect();
    assert_eq!(moved, (2..=101).collect::<Vec<_>>());
    let finished = watch.all("sync_finished");
    let sum = |field| finished.iter().map(|event| number(event, field)).sum::<u64>();
    assert_eq!((sum("count"), sum("blocks")), (100, added), "{finished:?}");
    assert_sound(&follower).await;
}

#[tokio::test]
async fn a_peer_id_and_a_bootstrap_node_are_enough_to_find_a_publisher() {
    let bootstrap = daemon(&[]).await;
    let through = bootstrap.addr("tcp");
    let args = ["--bootstrap", through.as_str()];
    let (publisher, follower) = tokio::join!(daemon(&args), daemon(&args));
    let folder = tempfile::tempdir().expect("a folder");
    let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
    make_folder(&source, 20, 1 << 20, 3);

    let published = publisher.json(&["publish", text(&source), "--hidden"]).await;
    let follow = follower.json(&["follow", publisher.peer_id(), "--wait"]).await;
    assert_eq!(follow["latest"], published["head"]);
    follower.json(&["get", str_of(&published, "content"), "-o", text(&copy)]).await;
    assert_same_folder(&source, &copy);
    // The bootstrap node only showed the way: it holds nothing of it.
    assert_eq!(number(&bootstrap.json(&["repo", "stat"]).await, "blocks"), 0);
}
