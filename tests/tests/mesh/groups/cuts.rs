//! Members that are cut off for a while, that are killed, that all start again: what was acknowledged is told to all, once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use dagmesh_tests::{
    Daemon,
    group::{self, GroupWatch},
    wait_for,
};
use futures::future::{join, join_all};

use super::{GROUP, Said, assert_all_told, is_long, island, line_to, meet, members, total};
use crate::support::{SOON, daemon, free_port};

/// Publishes `count` texts, one after another.
async fn talk(daemon: &Daemon, said: &mut Vec<String>, count: usize) {
    for _ in 0..count {
        let text = format!("{} of {}", said.len(), daemon.peer_id());
        group::say(daemon, GROUP, &text).await;
        said.push(text);
    }
}

async fn all_talk(daemons: &[Daemon], said: &mut Said, count: usize) {
    let mut texts: Vec<Vec<String>> =
        daemons.iter().map(|daemon| said.remove(&group::peer(daemon)).unwrap_or_default()).collect();
    join_all(daemons.iter().zip(&mut texts).map(|(daemon, texts)| talk(daemon, texts, count))).await;
    said.extend(daemons.iter().map(group::peer).zip(texts));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_are_cut_off_in_the_middle_are_told_all_of_it_once_when_the_line_is_back() {
    let daemons = join_all((0..5).map(|_| island())).await;
    let ticket = group::create(&daemons[0], GROUP).await.ticket;
    let mut lines = Vec::new();
    for (number, daemon) in daemons.iter().enumerate().skip(1) {
        if number < 3 {
            group::join(daemon, &ticket).await;
        } else {
            let (line, over) = line_to(&daemons[0], GROUP).await;
            group::join(daemon, &over).await;
            lines.push(line);
        }
        group::has_peers(daemon, GROUP, 1).await;
    }
    let watches = join_all(daemons.iter().map(|daemon| GroupWatch::from(daemon, GROUP, 0))).await;
    let all: Vec<&Daemon> = daemons.iter().collect();
    let mut said = Said::new();
    all_talk(&daemons, &mut said, 50).await;

    lines.iter().for_each(|line| line.cut());
    let begun = Instant::now();
    for daemon in &daemons[3..] {
        wait_for(SOON, "a member that is alone", async || group::state(daemon, GROUP).await.peers == 0).await;
    }
    all_talk(&daemons, &mut said, 100).await;
    // Those that are not cut off go on among themselves, and know nothing of the others.
    let three = &all[..3];
    let reached: u64 = daemons[3..].iter().map(|daemon| said[&group::peer(daemon)].len() as u64).sum();
    wait_for(SOON, "three members that agree", async || {
        let logs = join_all(three.iter().map(|daemon| group::info(daemon, GROUP))).await;
        logs.iter().all(|info| info.entries >= 450 && info.entries <= 450 + reached - 200)
    })
    .await;
    assert_eq!(group::info(&daemons[3], GROUP).await.peers, 0);
    for ((producer, _), texts) in group::assert_sound(&group::log(&daemons[3], GROUP).await) {
        let own = producer == group::peer(&daemons[3]);
        let right = if own { texts.len() == 150 } else { texts.len() <= 50 };
        assert!(right, "alone it has what it says itself: {} of {producer}, own: {own}", texts.len());
    }
    if is_long() {
        // The length of the cut is what is tested.
        tokio::time::sleep(Duration::from_secs(30).saturating_sub(begun.elapsed())).await;
    }

    lines.iter().for_each(|line| line.heal());
    all_talk(&daemons, &mut said, 50).await;
    group::agree(&all, GROUP, total(&said)).await;
    assert_eq!(total(&said), 1000);
    assert_all_told(&all, &watches, &said).await;
    for watch in &watches[3..] {
        let told = watch.entries();
        assert!(told.iter().any(|entry| entry.recovery), "what was missed is history");
        assert!(watch.all("gap").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_killed_in_the_middle_goes_on_with_its_session_and_nothing_is_lost_or_told_twice() {
    let mut daemons = members(5).await;
    let mut killed = daemons.pop().expect("five");
    let watches = join_all(daemons.iter().map(|daemon| GroupWatch::from(daemon, GROUP, 0))).await;
    let mut said = Said::new();
    let mut last = Vec::new();
    let over = AtomicBool::new(false);

    // It publishes until it is killed; what was not acknowledged may be published all the same.
    let open = {
        let talking = async {
            loop {
                let text = format!("{} of the killed one", last.len());
                match group::try_say(&killed, GROUP, &text).await {
                    Ok(_) => last.push(text),
                    Err(_) => break text,
                }
                if last.len() == 100 {
                    over.store(true, Ordering::Relaxed);
                }
            }
        };
        let id = killed.id().expect("it runs").to_string();
        let killing = async {
            wait_for(SOON, "some publications", async || over.load(Ordering::Relaxed)).await;
            let sent = tokio::process::Command::new("sh").args(["-c", "kill -KILL \"$0\"", &id]).status().await;
            assert!(sent.is_ok_and(|status| status.success()));
        };
        let (_, (open, ())) = join(all_talk(&daemons, &mut said, 120), join(talking, killing)).await;
        open
    };
    all_talk(&daemons, &mut said, 40).await;
    killed.restart().await;
    let log = group::log(&killed, GROUP).await;
    let own = log.iter().filter(|entry| entry.producer == group::peer(&killed)).collect::<Vec<_>>();
    assert!(own.len() == last.len() || own.len() == last.len() + 1, "{} of {} are there", own.len(), last.len());
    if own.len() > last.len() {
        last.push(open);
    }
    let watch = GroupWatch::from(&killed, GROUP, 0).await;
    for n in last.len()..200 {
        let text = format!("{n} after the kill");
        let published = group::say(&killed, GROUP, &text).await;
        assert_eq!((published.session, published.seq), (own[0].session, n as u64 + 1), "session and numbers go on");
        last.push(text);
    }
    all_talk(&daemons, &mut said, 40).await;
    said.insert(group::peer(&killed), last);
    assert_eq!(total(&said), 1000);

    let all: Vec<&Daemon> = daemons.iter().chain([&killed]).collect();
    let watches: Vec<GroupWatch> = watches.into_iter().chain([watch]).collect();
    group::agree(&all, GROUP, total(&said)).await;
    assert_all_told(&all, &watches, &said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_all_start_again_at_once_find_each_other_and_go_on() {
    // They come back where they were.
    let here = |_| {
        let listen = format!("/ip4/127.0.0.1/tcp/{}", free_port());
        async move { daemon(&["--listen", &listen]).await }
    };
    let mut daemons = join_all((0..5).map(here)).await;
    meet(&daemons, GROUP).await;
    let mut said = Said::new();
    all_talk(&daemons, &mut said, 10).await;
    let root = group::agree(&daemons.iter().collect::<Vec<_>>(), GROUP, 50).await;
    let logs = join_all(daemons.iter().map(|daemon| group::log(daemon, GROUP))).await;

    join_all(daemons.iter_mut().map(Daemon::kill9)).await;
    join_all(daemons.iter_mut().map(Daemon::restart)).await;
    let all: Vec<&Daemon> = daemons.iter().collect();
    assert_eq!(group::agree(&all, GROUP, 50).await, root, "the state is as it was");
    for (daemon, log) in daemons.iter().zip(&logs) {
        assert!(group::log(daemon, GROUP).await == *log, "the log is as it was");
    }
    join_all(daemons.iter().map(|daemon| group::has_peers(daemon, GROUP, 1))).await;
    let watches = join_all(daemons.iter().map(|daemon| GroupWatch::from(daemon, GROUP, 0))).await;
    all_talk(&daemons, &mut said, 10).await;
    group::agree(&all, GROUP, 100).await;
    assert_all_told(&all, &watches, &said).await;
}
