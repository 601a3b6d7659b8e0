//! What takes as long as the window of the minimum rate, 20 seconds: rows 4 and 17, and the serving side of row 4. What
//! can run into it at the same time is in one test.

use std::{iter, time::Duration};

use bytes::Bytes;
use dagmesh::{
    Api,
    api::ProgressSink,
    dag::Codec,
    dagsync::{Status, message::Frame},
    types::{Event, FollowRequest},
};
use dagmesh_core::limits;
use dagmesh_tests::{
    hostile::{
        Hostile, SYNC, ask,
        dag::{Feed, block, node},
        script::{Step, endless, honest, prefix, slowly},
    },
    peer::{Peer, SOON},
    wait_for,
};
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::scene::{Scene, failure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_04_one_byte_a_second_runs_into_the_minimum_rate_and_others_go_on() {
    let (dribble, scene) = tokio::join!(Hostile::start(), Scene::start());
    // One peer sends a byte a second; row 17: another one sends all but a child, and then nothing.
    let mut feed = Feed::new(dribble.key());
    dribble.tell(&[&feed.publish_text("never seen")]);
    dribble.answer(|_| {
        let bytes = slowly(Box::new(endless(Bytes::from_static(&[1]))), Duration::from_secs(1));
        Box::new(iter::once(prefix(1 << 20)).chain(bytes))
    });
    let (blocks, target) = (scene.feed.blocks(), *scene.content[3].cid());
    scene.answer(move |asked| {
        let all_but_one = honest(&blocks, &asked.request)
            .take_while(move |frame| !matches!(frame, Frame::Block { cid, .. } if *cid == target));
        Box::new(all_but_one.map(Step::from).chain([Step::Silence]))
    });
    let (victim, mut events) = scene.victim().await;
    for hostile in [&dribble, &scene.hostile] {
        victim.follow(FollowRequest::new(hostile.target()), ProgressSink::none()).await.expect("followed");
    }
    dribble.asked(1).await;

    // Meanwhile an honest publisher's feed is synced.
    let honest = Peer::start().await;
    honest.publish_text("honest").await;
    victim.follow_wait(FollowRequest::new(honest.target().await)).await;
    assert!(dribble.exchanges().iter().all(|exchange| !exchange.is_over()), "while the slow one still holds its slot");

    for hostile in [&dribble, &scene.hostile] {
        let reason = failure(&mut events, hostile.peer_id()).await;
        assert!(reason.contains("too slow") && reason.contains("bytes in 20 s"), "{reason}");
        let fails =
            |event: &&Event| matches!(event, Event::SyncFailed { publisher, .. } if *publisher == hostile.peer_id());
        let moves =
            |event: &Event| matches!(event, Event::LatestMoved { publisher, .. } if *publisher == hostile.peer_id());
        assert!(!events.seen.iter().take_while(|event| !fails(event)).any(moves), "nothing counts as synced before");
    }
    let over = async || dribble.exchanges()[0].was_dropped();
    wait_for(SOON, "a stream that is closed", over).await;
    victim.in_sync_at(scene.hostile.peer_id(), 1).await;
    assert!(victim.holds(&target), "the child comes from another peer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_04_a_client_that_does_not_read_or_write_gives_its_slots_back() {
    let (server, deaf, mute, honest) =
        tokio::join!(Peer::start(), Hostile::start(), Hostile::start(), Hostile::start());
    // More than all windows and buffers between the two hold.
    let large: Vec<_> = (0..16).map(|n| block(Codec::Raw, vec![n; limits::MAX_BLOCK_BYTES])).collect();
    let root = node(&large.iter().map(|block| *block.cid()).collect::<Vec<_>>());
    server.blockstore().put_many(&large).expect("stored");
    server.blockstore().put(&root).expect("stored");
    for peer in [&deaf, &mute, &honest] {
        peer.connect_to(&server).await;
    }
    let request = ask::Loose::all(root.cid()).encode();
    let small = ask::Loose { budgets: (None, 1, 1), ..ask::Loose::all(root.cid()) }.encode();
    // A server drops some of the streams that come at once.
    let status = async |peer: &Hostile| loop {
        let answer = ask::ask(peer, server.peer_id(), &small).await;
        if !answer.is_empty() {
            return ask::end_of(&answer).status;
        }
    };

    // One reads nothing but the beginning of each answer, so that it is known to be served; another one sends one byte of
    // the hundred that it says come.
    let (mut unread, mut unsent) = (Vec::new(), Vec::new());
    while unread.len() < limits::MAX_SERVES_PER_PEER {
        let mut stream = ask::send(&deaf, server.peer_id(), &request).await;
        if stream.read_exact(&mut [0; 64]).await.is_ok() {
            unread.push(stream);
        }
    }
    while status(&mute).await != Status::Busy {
        let mut stream = mute.open(server.peer_id(), SYNC).await;
        if stream.write_all(&[100, 0]).await.is_ok() && stream.flush().await.is_ok() {
            unsent.push(stream);
        }
    }
    assert!(unsent.len() >= limits::MAX_SERVES_PER_PEER);
    assert_eq!(status(&deaf).await, Status::Busy, "its slots are taken");
    assert_eq!(status(&honest).await, Status::Segment, "those of others are not");

    for peer in [&mute, &deaf] {
        wait_for(SOON, "slots that are free again", async || status(peer).await == Status::Segment).await;
    }
    let mut rest = Vec::new();
    let _ = unread[0].read_to_end(&mut rest).await;
    assert!(rest.len() < large.len() * limits::MAX_BLOCK_BYTES, "the one that waited longest is not served to its end");
}
