//! Members that publish as fast as they can, and at the same instants; and one who comes later.

use std::sync::Arc;

use dagmesh_tests::{Daemon, group, group::GroupWatch};
use futures::future::join_all;
use tokio::sync::Barrier;

use super::{GROUP, Said, assert_all_told, members, total};
use crate::support::daemon;

/// Publications of each member.
const EACH: usize = 200;

/// Each member publishes [`EACH`] texts: the first half one by one, each at the instant of the others', the second as fast as
/// it can.
async fn all_publish(daemons: &[Daemon]) -> Said {
    let barrier = Arc::new(Barrier::new(daemons.len()));
    let each = daemons.iter().enumerate().map(|(number, daemon)| {
        let barrier = Arc::clone(&barrier);
        async move {
            let mut said = Vec::new();
            for n in 0..EACH {
                if n < EACH / 2 {
                    barrier.wait().await;
                }
                let text = format!("{n} of {number}");
                let published = group::say(daemon, GROUP, &text).await;
                assert_eq!((published.producer, published.seq), (group::peer(daemon), n as u64 + 1));
                said.push(text);
            }
            (group::peer(daemon), said)
        }
    });
    join_all(each).await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_that_publish_at_once_all_come_to_one_state_and_a_newcomer_is_told_all_of_it_as_history() {
    let daemons = members(5).await;
    let watches = join_all(daemons.iter().map(|daemon| GroupWatch::from(daemon, GROUP, 0))).await;
    let mut said = all_publish(&daemons).await;
    let all: Vec<&Daemon> = daemons.iter().collect();
    group::agree(&all, GROUP, total(&said)).await;
    assert_all_told(&all, &watches, &said).await;
    for daemon in &all {
        let log = group::log(daemon, GROUP).await;
        let own = log.iter().filter(|entry| entry.producer == group::peer(daemon));
        assert!(own.clone().all(|entry| !entry.recovery), "what one says oneself is no history");
        assert_eq!(own.count(), EACH);
        // A page of the log is a part of it.
        let page = daemon.json(&["group", "log", GROUP, "--from", "490", "--limit", "20"]).await;
        let page: Vec<dagmesh::types::GroupEntry> = serde_json::from_value(page).expect("entries");
        assert!(page == log[490..510]);
    }

    // It comes when all is said; what it says then is news to all.
    let newcomer = daemon(&[]).await;
    let ticket = group::info(&daemons[3], GROUP).await.ticket;
    let joined = newcomer.json(&["group", "join", &ticket, "--wait"]).await;
    assert_eq!(joined["initialized"], true);
    let watch = GroupWatch::from(&newcomer, GROUP, 0).await;
    let told = watch.told(1000).await;
    assert!(told.iter().all(|entry| entry.recovery), "it was not there");
    group::assert_holds(&told, &said);
    let own = group::say(&newcomer, GROUP, "hello").await;
    assert_eq!((own.seq, own.producer), (1, group::peer(&newcomer)));
    said.insert(own.producer, vec!["hello".to_owned()]);
    let all: Vec<&Daemon> = all.into_iter().chain([&newcomer]).collect();
    let watches: Vec<GroupWatch> = watches.into_iter().chain([watch]).collect();
    group::agree(&all, GROUP, total(&said)).await;
    assert_all_told(&all, &watches, &said).await;
    // With the others it may not be connected yet: they may learn it by comparing states.
    for watch in [&watches[3], &watches[5]] {
        assert!(!watch.entries().last().expect("one").recovery, "a newcomer's words are news");
    }
    for watch in &watches {
        assert_eq!(watch.all("initialized").len(), 1);
        assert!(watch.all("gap").is_empty() && watch.all("equivocation").is_empty());
    }
}
