//! What comes in the place of a block: rows 1, 16 and 17.

use std::{iter, sync::Arc};

use dagmesh::{
    Api,
    api::ProgressSink,
    dag::{Blockstore, MemoryBlockstore},
    dagsync::{Status, head::HeadQuery, message::Frame, net::Client},
    types::{ConnectRequest, FollowRequest},
};
use dagmesh_announce::{Announcement, Answer as Verdict};
use dagmesh_core::limits;
use dagmesh_tests::{
    hostile::{
        Hostile,
        dag::leaf,
        script::{self, Step, claimed, end, honest, steps},
    },
    peer::{Peer, SOON},
    wait_for,
};

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_01_a_false_block_is_dropped_and_fetched_from_another_peer() {
    let mut scene = Scene::start().await;
    let (blocks, target) = (scene.feed.blocks(), *scene.content[2].cid());
    scene.answer(move |asked| {
        let garbled = honest(&blocks, &asked.request).map(move |frame| match frame {
            Frame::Block { cid, .. } if cid == target => claimed(&cid, &b"false"[..]),
            frame => frame,
        });
        Box::new(garbled.map(Step::from).chain([Step::Silence]))
    });
    let victim = scene.is_dropped_and_replaced("false block").await;
    assert!(!victim.holds(leaf("false").cid()), "what came is kept under no name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_01_a_false_provider_of_an_honest_publishers_feed_is_left_for_another_one() {
    let (publisher, mirror, follower) = tokio::join!(Peer::start(), Peer::start(), Peer::start());
    let published = publisher.publish_text("signed by an honest publisher").await;
    let target = publisher.target().await;
    mirror.follow_wait(FollowRequest::new(target.clone())).await;
    // Away for now, or others would tell the follower of it.
    mirror.shutdown().await.expect("stopped");
    // The hostile node has the feed from its publisher, which then goes away, and provides it.
    let hostile = Hostile::start().await;
    hostile.connect_to(&publisher).await;
    let query = HeadQuery { publisher: None, feed: None };
    let heads = Client::new(hostile.streams()).heads(publisher.peer_id(), &query).await.expect("heads");
    let store: Arc<dyn Blockstore> = Arc::new(MemoryBlockstore::new());
    let held = |cid| publisher.blockstore().block(cid).expect("a look into the store").expect("held");
    let right = held(&published.content);
    store.put_many(&[held(&published.head), right.clone()]).expect("stored");
    hostile.answer(move |asked| {
        let garbled = honest(&store, &asked.request).map(move |frame| match frame {
            Frame::Block { cid, .. } if cid == published.content => claimed(&cid, &b"false"[..]),
            frame => frame,
        });
        Box::new(garbled.map(Step::from).chain([Step::Silence]))
    });
    publisher.shutdown().await.expect("stopped");

    follower.follow(FollowRequest::new(target), ProgressSink::none()).await.expect("followed");
    hostile.connect_to(&follower).await;
    hostile.provide(&published.head).await;
    let announcement = Announcement::new(&heads[0], []).relayed(publisher.peer_id());
    let answer = hostile.announce(follower.peer_id(), &announcement.encode().expect("an announcement")).await;
    assert_eq!(answer, Some(Verdict::Accepted));
    // It serves the chain, and then a false block.
    let exchanges = hostile.asked(2).await;
    wait_for(SOON, "a stream that is closed", async || exchanges[1].was_dropped()).await;
    assert!(!follower.holds(&published.content) && !follower.holds(leaf("false").cid()));
    let mirror = mirror.again().await;
    let addr = mirror.tcp_addr().await;
    follower.connect(ConnectRequest { addr }).await.expect("connected");
    follower.in_sync_at(publisher.peer_id(), 1).await;
    let held = follower.blockstore().block(&published.content).expect("a look into the store").expect("held");
    assert_eq!(held, right);
    assert_eq!(hostile.exchanges().len(), 2, "it is not asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_a_block_nobody_asked_for_drops_the_peer_and_is_not_kept() {
    let mut scene = Scene::start().await;
    let blocks = scene.feed.blocks();
    scene.answer(move |asked| {
        let sent = script::block(&leaf("nobody asked for this"));
        Box::new(iter::once(sent).chain(honest(&blocks, &asked.request)).map(Step::from).chain([Step::Silence]))
    });
    let victim = scene.is_dropped_and_replaced("was next").await;
    assert!(!victim.holds(leaf("nobody asked for this").cid()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_blocks_sent_again_are_passed_over_and_drop_the_peer_past_a_budget() {
    let mut scene = Scene::start().await;
    let (blocks, root) = (scene.feed.blocks(), scene.feed.entries()[0]);
    scene.answer(move |asked| {
        let first = honest(&blocks, &asked.request).take(1);
        let again = blocks.block(&root).expect("a store in memory").expect("the entry");
        let again = iter::repeat_n(script::block(&again), limits::MAX_REPEATED_BLOCKS as usize + 1);
        Box::new(first.chain(again).map(Step::from).chain([Step::Silence]))
    });
    scene.is_dropped_and_replaced("held already").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_17_a_child_withheld_is_noticed_and_comes_from_another_peer() {
    let mut scene = Scene::start().await;
    let (blocks, target) = (scene.feed.blocks(), *scene.content[3].cid());
    scene.answer(move |asked| {
        let without = honest(&blocks, &asked.request).filter(move |frame| match frame {
            Frame::Block { cid, .. } => *cid != target,
            Frame::Missing(_) => true,
            Frame::End(_) => false,
        });
        steps(without.chain([end(Status::Done)]))
    });
    scene.is_dropped_and_replaced("without sending").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_17_a_child_that_is_said_to_be_missing_comes_from_another_peer() {
    let scene = Scene::start().await;
    let (blocks, target) = (scene.feed.blocks(), *scene.content[2].cid());
    scene.answer(move |asked| {
        steps(honest(&blocks, &asked.request).map(move |frame| match frame {
            Frame::Block { cid, .. } if cid == target => Frame::Missing(cid),
            frame => frame,
        }))
    });
    scene.is_replaced("are missing at the peer").await;
}
