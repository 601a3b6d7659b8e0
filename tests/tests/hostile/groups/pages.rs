//! Answers to a recovery that lead nowhere, and frames over their cap.

use dagmesh_chronosync::{Answer, LeafKey, Request};
use dagmesh_core::limits;
use dagmesh_tests::{
    group,
    hostile::{
        group::{AHEAD, bringing, digest, page, topic},
        script::{self, Step},
    },
};
use futures::future::join_all;

use super::{GROUP, Scene};

const MIB: u64 = 1 << 20;

/// Publications of the honest member meanwhile: enough heartbeats and updates that whoever lies is asked again.
const MEANWHILE: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_pages_that_lead_back_or_never_end_are_left_after_a_bound() {
    let mut scene = Scene::start().await;
    for leads_back in [true, false] {
        let (hostile, mut writer) = scene.intruder().await;
        hostile.serve(&writer.store);
        let head = writer.say("to be told all the same");
        let answering = hostile.answer_pages(move |nth, request| match request {
            Request::Hello(_) => Answer::Digest(AHEAD),
            Request::Recover { .. } => {
                let place = if leads_back { 7 } else { nth as u64 };
                // Behind all heads that there are.
                let mut name = [0xff; 32];
                name[24..].copy_from_slice(&place.to_be_bytes());
                let mut page = page(&[head.encode()]);
                page.next = Some(LeafKey { name, session: 1 });
                Answer::Page(page)
            }
        });
        hostile.gossip(&topic(&scene.group), digest(u64::from(leads_back))).await;
        scene.told(&writer.producer(), writer.session, 1).await;
        for _ in 0..MEANWHILE {
            scene.honest_is_heard().await;
        }
        let asked = answering.asked();
        println!("leads back: {leads_back}, {asked} requests");
        let most = if leads_back { 32 } else { 2 * limits::MAX_GROUP_RECOVERY_PAGES as usize };
        assert!(asked > 0 && asked <= most, "{asked} requests to one that says nothing new");
        let state = group::state(&scene.daemon, GROUP).await;
        assert_eq!(state.heads.iter().filter(|head| head.producer == writer.producer()).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_frames_over_their_cap_are_refused_from_their_length_and_take_no_memory() {
    let mut scene = Scene::start().await;
    let before = scene.daemon.memory();
    let (hostile, writer) = scene.intruder().await;
    let peer = scene.peer_id();
    let group = *scene.group.as_bytes();
    let over = limits::MAX_GROUP_MESSAGE_BYTES + group.len() + 1;
    let requests = [
        script::prefix(u64::MAX),
        script::prefix(over as u64),
        script::framed(&[&vec![0; over]]),
        script::framed(&[b"short"]),
        script::framed(&[&group, b"no request"]),
        script::framed(&[&[9; 32], &bringing(&[])]),
    ];
    let answers = join_all(requests.map(|request| hostile.ask_group_raw(peer, request))).await;
    assert!(answers.iter().all(Option::is_none), "{answers:?}");
    // Answers too: one that has no end, and one whose length is a lie.
    let answering = hostile.answer_group(move |nth, _| match nth % 2 {
        0 => script::steps([script::prefix(1 << 40), Step::Silence]),
        _ => Box::new(script::endless(vec![0xff; 64 * 1024].into()).take(4096)),
    });
    for n in 0..8 {
        hostile.gossip(&topic(&scene.group), digest(n)).await;
        scene.honest_is_heard().await;
    }
    println!("{} requests were answered without an end", answering.asked());
    if let (Some(before), Some(after)) = (before, scene.daemon.memory()) {
        assert!(after.peak - before.peak < 48 * MIB, "{before:?}, then {after:?}");
    }
    scene.assert_told_only(&[writer.producer()]).await;
}
