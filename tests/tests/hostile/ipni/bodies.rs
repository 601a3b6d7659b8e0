//! Answers over HTTP that are too long, false, too slow, or lead elsewhere.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use dagmesh_core::limits;
use dagmesh_tests::{
    Daemon, DaemonOptions,
    hostile::{
        http::{HttpPublisher, begin, ok, raw, redirect, reply},
        script::{Step, endless, slowly},
    },
    ipni::{self, signed_head},
    peer::SOON,
    wait_for,
};
use libp2p::identity::Keypair;
use serde_json::Value;

use super::{MIB, Prey, publisher};

/// How much a publisher tries to send in one answer: more than any bound below.
const FLOOD: u64 = 256 * MIB;

fn flood() -> impl Iterator<Item = Step> + Send {
    let part = Bytes::from(vec![b' '; 64 * 1024]);
    let parts = FLOOD as usize / part.len();
    endless(part).take(parts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_03_a_body_without_end_is_read_no_further_than_its_cap() {
    let mut prey = Prey::start().await;
    // A head, with and without a length.
    for length in [Some(FLOOD), None] {
        prey.hostile.answer(move |_| Some(raw([begin(length)].into_iter().chain(flood()))));
        prey.daemon.run(&["unfollow", &prey.peer()]).await;
        prey.follow(&[]).await;
        prey.says("more than the 8192 bytes").await;
    }
    // A block.
    for length in [Some(FLOOD), None] {
        let answer = move |asked: &str| (asked != "head").then(|| raw([begin(length)].into_iter().chain(flood())));
        prey.hostile.answer(answer);
        prey.daemon.json(&["unfollow", &prey.peer()]).await;
        prey.follow(&[]).await;
        prey.says("more than the 2097152 bytes").await;
    }
    prey.hostile.is_left_alone().await;
    assert!(prey.hostile.sent_bytes() < FLOOD / 2, "{} bytes were taken", prey.hostile.sent_bytes());
    prey.is_unharmed(48 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_01_a_block_that_does_not_match_its_cid_is_not_stored_and_asked_for_again() {
    let mut prey = Prey::start().await;
    // Another advertisement of the same publisher, in the place of the second one.
    let (second, lie) = (prey.chain.ads()[1], prey.chain.ad(prey.chain.chunk(), None));
    let lie = lie.encode(dagmesh::dag::Codec::DagJson).expect("an advertisement");
    let in_place_of = second.to_string();
    prey.hostile.answer(move |asked| (asked == in_place_of).then(|| ok(&lie)));
    prey.follow(&[]).await;
    let follow = prey.says("do not match").await;
    assert!(follow["retry_at"].is_u64(), "{follow}");
    let before = prey.hostile.count(&second.to_string());
    let again = async || prey.hostile.count(&second.to_string()) > before;
    wait_for(SOON, "another try", again).await;
    let held = prey.daemon.run(&["ipni", "ad", "get", &second.to_string()]).await;
    held.assert_code(4);
    prey.is_unharmed(32 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_18_a_head_that_is_not_the_publishers_is_refused() {
    let mut prey = Prey::start().await;
    let head = prey.chain.head();
    let other = signed_head(&Keypair::generate_ed25519(), head);
    let mut forged: Value = serde_json::from_slice(&signed_head(prey.hostile.key(), head)).expect("JSON");
    let of_another: Value = serde_json::from_slice(&other).expect("JSON");
    forged["sig"] = of_another["sig"].clone();
    for (head, why) in
        [(other, "is signed by"), (forged.to_string().into_bytes(), "signature"), (b"{}".to_vec(), "signed head")]
    {
        prey.hostile.answer(move |asked| (asked == "head").then(|| ok(&head)));
        prey.daemon.run(&["unfollow", &prey.peer()]).await;
        prey.follow(&[]).await;
        prey.says(why).await;
    }
    assert!(prey.hostile.asked().iter().all(|asked| asked.contains("head") || asked.starts_with('/')), "no block");
    prey.is_unharmed(32 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_04_one_byte_a_second_runs_into_the_minimum_rate_and_others_go_on() {
    let mut prey = Prey::start().await;
    // The window of the minimum rate is 20 seconds; in one test all that runs into it: a head, and a block.
    let slow = || {
        let bytes = slowly(Box::new(endless(Bytes::from_static(b" "))), Duration::from_secs(1));
        raw([begin(Some(1000))].into_iter().chain(bytes))
    };
    let (of_blocks, _chain) = publisher(3).await;
    prey.hostile.answer(move |_| Some(slow()));
    of_blocks.answer(move |asked| (asked != "head").then(slow));
    super::follow(&prey.daemon, &of_blocks, &[]).await;
    prey.follow(&[]).await;
    // Meanwhile an honest publisher's chain is synced.
    let (honest, chain) = publisher(10).await;
    super::follow(&prey.daemon, &honest, &["--wait"]).await;
    ipni::in_sync_at(&prey.daemon, &honest.peer_id().to_string(), &chain.head().to_string()).await;
    assert!(prey.hostile.sent_bytes() < limits::MIN_RATE_BYTES_PER_SEC, "while the slow one is still read");

    prey.says("fewer than").await;
    let too_slow = |follow: &Value| follow["reason"].as_str().is_some_and(|reason| reason.contains("fewer than"));
    ipni::stands(&prey.daemon, &of_blocks.peer_id().to_string(), "a block that is too slow", too_slow).await;
    prey.is_unharmed(32 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_followed_a_few_times_and_never_in_a_circle() {
    let mut prey = Prey::start().await;
    prey.hostile.answer(|_| Some(redirect("/ipni/v1/ad/head")));
    prey.follow(&[]).await;
    prey.says("more than 3 times").await;
    let per_try = 1 + limits::MAX_IPNI_REDIRECTS;
    assert!(prey.hostile.asked().len() <= 4 * per_try, "{:?}", prey.hostile.asked());
    prey.hostile.answer(|_| Some(redirect("file:///etc/passwd")));
    prey.daemon.json(&["unfollow", &prey.peer()]).await;
    prey.follow(&[]).await;
    prey.says("not spoken here").await;

    // One that leads to the publisher, at last, is as good as its own address.
    let (there, chain) = (HttpPublisher::with_key(prey.hostile.key().clone()).await, prey.chain.clone());
    there.serve(&chain);
    let url = there.url();
    prey.hostile.answer(move |asked| Some(redirect(&format!("{url}/ipni/v1/ad/{asked}"))));
    prey.daemon.json(&["unfollow", &prey.peer()]).await;
    prey.follow(&["--wait"]).await;
    ipni::in_sync_at(&prey.daemon, &prey.peer(), &chain.head().to_string()).await;
    prey.is_unharmed(32 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_21_on_the_public_profile_private_addresses_are_not_asked() {
    let (publisher, _chain) = publisher(1).await;
    let mut options = DaemonOptions::default();
    options.profile = Some("public");
    options.args = ["--listen", "/ip4/127.0.0.1/tcp/0"].map(str::to_owned).to_vec();
    let none = ["DAGMESH_SWARM__BOOTSTRAP", "DAGMESH_SWARM__EXTERNAL"].map(|name| (name.to_owned(), "[]".to_owned()));
    options.env = none.to_vec();
    let daemon = Daemon::start_with(options).await;
    daemon.json(&["ipni", "follow", &publisher.addr().to_string()]).await;
    let says = |follow: &Value| {
        follow["reason"].as_str().is_some_and(|reason| reason.contains("127.0.0.1, which is not globally reachable"))
    };
    ipni::stands(&daemon, &publisher.peer_id().to_string(), "an address that is not asked", says).await;
    assert!(publisher.asked().is_empty(), "{:?}", publisher.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_is_busy_now_and_then_is_waited_for_and_followed() {
    let mut prey = Prey::start().await;
    // Busy at first, and now and then.
    let answers = AtomicUsize::new(0);
    prey.hostile.answer(move |asked| {
        let nth = answers.fetch_add(1, Ordering::Relaxed);
        let busy = "503 Service Unavailable";
        (nth < 2 || (asked != "head" && nth.is_multiple_of(7))).then(|| reply(busy, "retry-after: 1\r\n", ""))
    });
    prey.follow(&["--wait"]).await;
    let follow = ipni::in_sync_at(&prey.daemon, &prey.peer(), &prey.chain.head().to_string()).await;
    assert_eq!(follow["latest_seq"], 3, "{follow}");
    prey.assert_flat(32 * MIB).await;
}
