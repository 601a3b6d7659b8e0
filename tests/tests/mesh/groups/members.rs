//! Who comes, leaves and comes again; several groups at once; names.

use dagmesh_tests::{
    Daemon,
    group::{self, GroupWatch},
    wait_for,
};
use serde_json::json;

use super::{GROUP, assert_all_told, meet, members};
use crate::support::{SOON, api_call, assert_fails, assert_sound, daemon, number};

/// What is said to those who stay.
const AWAY: &str = "while it is away";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_forgets_it_all_and_who_joins_again_is_told_all_of_it_and_goes_on_with_new_numbers() {
    let mut daemons = members(3).await;
    let last = daemons.pop().expect("three");
    for n in 0..5 {
        for daemon in daemons.iter().chain([&last]) {
            group::say(daemon, GROUP, &format!("{n} {}", "long ".repeat(200))).await;
        }
    }
    let all: Vec<&Daemon> = daemons.iter().chain([&last]).collect();
    group::agree(&all, GROUP, 15).await;
    let watch = GroupWatch::from(&last, GROUP, 0).await;
    let left = last.json(&["group", "leave", GROUP]).await;
    assert_eq!(left["group"], GROUP);
    let told = watch.end().await;
    assert_eq!(told.iter().filter(|event| event["event"] == "entry").count(), 15, "its watch ends with it");
    for args in [&["log", GROUP][..], &["state", GROUP], &["send", GROUP, "x"], &["watch", GROUP], &["leave", GROUP]] {
        assert_fails(&last.run(&[&["group"], args].concat()).await, 4, &["not_found", GROUP]);
    }
    assert_eq!(last.json(&["group", "ls"]).await, json!([]));
    // Its blocks are nobody's any more.
    let freed = api_call(&last, "gc", &json!({})).await;
    assert!(number(&freed, "removed") >= 15, "{freed}");
    assert_eq!(number(&api_call(&last, "repo/stat", &json!({})).await, "blocks"), 0);
    for daemon in &daemons {
        wait_for(SOON, "one member less", async || group::state(daemon, GROUP).await.peers == 1).await;
    }
    group::say(&daemons[0], GROUP, AWAY).await;

    let ticket = group::info(&daemons[1], GROUP).await.ticket;
    assert!(group::join_wait(&last, &ticket).await.initialized);
    let watch = GroupWatch::from(&last, GROUP, 0).await;
    let told = watch.told_by(&last, GROUP, 16).await;
    // Its own words too: it has forgotten them. What was said a moment ago may still be under way on the topic.
    let live: Vec<_> = told.iter().filter(|entry| !entry.recovery).map(|entry| entry.text.as_deref()).collect();
    assert!(live.iter().all(|text| *text == Some(AWAY)), "{live:?}");
    let again = group::say(&last, GROUP, "here again").await;
    group::agree(&all, GROUP, 17).await;
    for daemon in &all {
        let log = group::log(daemon, GROUP).await;
        let sessions = group::assert_sound(&log);
        let own = sessions.keys().filter(|(producer, _)| *producer == again.producer).collect::<Vec<_>>();
        // A session whose last number it cannot know is not gone on with.
        assert_eq!(own.len(), 2, "{own:?}");
        assert_eq!((again.seq, again.session), (1, own.iter().map(|key| key.1).max().expect("two")));
    }
    assert_sound(&last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_odd_names_live_side_by_side_and_a_restart_keeps_each() {
    let mut daemons = vec![daemon(&[]).await, daemon(&[]).await];
    let names = [" white & black ", "♔ vs ♚", "../..%2f?x=\"y\"", "-", &"n".repeat(128)];
    for name in names {
        meet(&daemons, name).await;
    }
    for (n, name) in names.iter().enumerate() {
        for daemon in &daemons {
            for k in 0..=n {
                group::say(daemon, name, &format!("{k} in {name}")).await;
            }
        }
    }
    let both: Vec<&Daemon> = daemons.iter().collect();
    let mut roots = Vec::new();
    for (n, name) in names.iter().enumerate() {
        roots.push(group::agree(&both, name, 2 * (n as u64 + 1)).await);
        let log = group::log(both[1], name).await;
        assert!(log.iter().all(|entry| entry.text.as_deref().is_some_and(|text| text.ends_with(name))));
    }
    roots.sort_unstable();
    roots.dedup();
    assert_eq!(roots.len(), names.len(), "what was said in one says nothing of another");

    daemons[1].stop().await;
    daemons[1].restart().await;
    let listed = daemons[1].json(&["group", "ls"]).await;
    let mut listed: Vec<_> = listed.as_array().expect("an array").iter().map(|info| &info["group"]).collect();
    let mut known = names.map(serde_json::Value::from).to_vec();
    listed.sort_unstable_by_key(|name| name.to_string());
    known.sort_unstable_by_key(|name| name.to_string());
    assert!(listed.into_iter().eq(&known));
    // By the command line too, where a name is an argument like any other.
    let said = daemons[1].json(&["group", "send", names[1], "again"]).await;
    assert_eq!((number(&said, "seq"), &said["group"]), (3, &json!(names[1])));
    let state = daemons[1].json(&["group", "state", names[0]]).await;
    assert_eq!((number(&state, "sum"), number(&state, "members"), number(&state, "leaves")), (2, 2, 2));
    // No name is taken for what it is not.
    for (name, code) in [("", 2), ("a\nb", 2), (&*"n".repeat(129), 2), ("nowhere", 4)] {
        let create = code == 2;
        let args = if create { ["group", "create", name] } else { ["group", "state", name] };
        daemons[0].run(&args).await.assert_code(code);
    }
    // To join where one is already is no error, and changes nothing.
    let before = group::info(&daemons[0], names[3]).await.entries;
    assert_eq!(group::join(&daemons[0], names[3]).await.entries, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_keeps_what_it_says_and_tells_it_when_somebody_comes() {
    let [alone, other] = [daemon(&[]).await, daemon(&[]).await];
    let info = group::create(&alone, GROUP).await;
    assert_eq!((info.peers, info.closed, info.writable), (0, false, true));
    let watch = GroupWatch::from(&alone, GROUP, 0).await;
    for n in 0..3 {
        assert_eq!(group::say(&alone, GROUP, &n.to_string()).await.peers, 0);
    }
    watch
        .wait("a member that takes itself for the first", |event| {
            matches!(event, dagmesh::types::GroupEvent::Initialized)
        })
        .await;
    group::join_wait(&other, &info.ticket).await;
    let both = [&alone, &other];
    group::agree(&both, GROUP, 3).await;
    let said = [(group::peer(&alone), (0..3).map(|n| n.to_string()).collect())].into();
    assert_all_told(&both, &[watch, GroupWatch::from(&other, GROUP, 0).await], &said).await;
    let members = other.json(&["group", "members", GROUP]).await;
    let of = |daemon: &Daemon| {
        let members = members["members"].as_array().expect("an array");
        members.iter().find(|member| member["producer"] == daemon.peer_id()).cloned()
    };
    let first = of(&alone).expect("it has written");
    assert_eq!((&first["connected"], &first["writer"], &first["seq"]), (&json!(true), &json!(true), &json!(3)));
    assert!(members["version"] == 0 && of(&other).is_none_or(|own| own["seq"] == 0), "{members}");
}
