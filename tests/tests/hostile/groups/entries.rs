//! Heads that are signed as they should be, over chains that are not there, not what they are said to be, or endless.

use std::sync::Arc;

use dagmesh::{dag::Blockstore, dagsync::message::Frame};
use dagmesh_chronosync::Payload;
use dagmesh_tests::{
    group,
    hostile::script::{self, Step, claimed, honest},
    peer::SOON,
    wait_for,
};

use super::{GROUP, Scene};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_an_entry_that_is_withheld_or_false_keeps_nobody_elses_from_being_told() {
    let mut scene = Scene::start().await;
    let (hostile, mut writer) = scene.intruder().await;
    // Too long to travel in the head.
    writer.append(&"long ".repeat(1000));
    let block = writer.last.expect("an entry");
    let head = writer.head(1, Payload::content(block));
    scene.gossip(&hostile, &[head.encode()]).await;
    wait_for(SOON, "an entry that is missed", async || group::state(&scene.daemon, GROUP).await.missing == 1).await;
    hostile.asked(1).await;
    scene.honest_is_heard().await;

    // Another block in its place.
    let blocks: Arc<dyn Blockstore> = writer.store.clone();
    let store = Arc::clone(&blocks);
    hostile.answer(move |asked| {
        let garbled = honest(&store, &asked.request).map(move |frame| match frame {
            Frame::Block { cid, .. } if cid == block => claimed(&cid, &b"false"[..]),
            frame => frame,
        });
        script::steps(garbled.map(Step::from).collect::<Vec<_>>())
    });
    let before = hostile.exchanges().len();
    // Whoever comes anew is asked at once.
    hostile.disconnect(scene.peer_id()).await;
    hostile.connect(scene.daemon.addr("tcp").parse().expect("an address")).await;
    hostile.asked(before + 1).await;
    scene.honest_is_heard().await;
    let state = group::state(&scene.daemon, GROUP).await;
    assert_eq!((state.missing, state.leaves), (1, 2));

    // And at last the entry itself.
    hostile.serve(&writer.store);
    assert_eq!(scene.told_head(&head).await.text, Some("long ".repeat(1000)));
    scene.assert_told_only(&[writer.producer()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_of_a_chain_that_goes_on_below_the_first_number_no_more_is_fetched_than_there_are_numbers() {
    let mut scene = Scene::start().await;
    let (hostile, mut writer) = scene.intruder().await;
    hostile.serve(&writer.store);
    for n in 0..5000 {
        writer.append(&format!("{n} {}", "x".repeat(600)));
    }
    let last = writer.last.expect("an entry");
    // Number 10, it says, with 4,999 entries before it.
    let head = writer.head(10, Payload::content(last));
    scene.gossip(&hostile, &[head.encode()]).await;
    scene.told_head(&head).await;
    let sent: u64 = hostile.exchanges().iter().map(|exchange| exchange.sent_bytes()).sum();
    assert!(sent < 64 * 1024, "{sent} bytes were sent for ten entries of 700 bytes");
    let log = group::log(&scene.daemon, GROUP).await;
    let own = log.iter().filter(|entry| entry.producer == writer.producer()).collect::<Vec<_>>();
    assert_eq!((own.len(), own[0].seq, own[9].seq), (10, 1, 10));
    assert!(own[0].text.as_deref().is_some_and(|text| text.starts_with("4990 ")));
    scene.assert_told_only(&[writer.producer()]).await;
}
