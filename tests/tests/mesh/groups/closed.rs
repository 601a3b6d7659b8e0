//! Closed groups: only those on the owner's list are heard, whether the owner is there or not.

use dagmesh::types::{GroupEvent, GroupInfo};
use dagmesh_tests::{
    Daemon,
    group::{self, GroupWatch},
    wait_for,
};
use futures::future::join_all;
use serde_json::json;

use super::GROUP;
use crate::support::{SOON, api_call, assert_fails, daemon, free_port, number};

/// A daemon that comes back where it was.
async fn settled() -> Daemon {
    daemon(&["--listen", &format!("/ip4/127.0.0.1/tcp/{}", free_port())]).await
}

/// The owner makes a closed group for `members`; all daemons join it.
async fn close(owner: &Daemon, members: &[&Daemon], others: &[&Daemon]) -> String {
    let list: Vec<&str> = members.iter().map(|daemon| daemon.peer_id()).collect();
    let ask = json!({"name": GROUP, "closed": true, "members": list});
    let info: GroupInfo = serde_json::from_value(api_call(owner, "group/create", &ask).await).expect("a group");
    assert_eq!((info.closed, info.writable, info.owner), (true, true, Some(group::peer(owner))));
    for daemon in members.iter().chain(others) {
        let info = group::join(daemon, &info.ticket).await;
        assert_eq!((info.closed, info.owner), (true, Some(group::peer(owner))));
        group::has_peers(daemon, GROUP, 1).await;
    }
    info.ticket
}

/// Changes the list, as the owner does by the command line; its new version.
async fn change(owner: &Daemon, flag: &str, daemon: &Daemon) -> u64 {
    number(&owner.json(&["group", "members", GROUP, flag, daemon.peer_id()]).await, "version")
}

/// Waits until a daemon knows that it may write, or may not.
async fn may_write(daemon: &Daemon, may: bool) {
    let what = format!("{} that may write: {may}", daemon.peer_id());
    wait_for(SOON, &what, async || group::info(daemon, GROUP).await.writable == may).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_those_on_the_owners_list_are_heard_and_the_list_may_change() {
    let [owner, member, stranger] = [settled().await, settled().await, settled().await];
    close(&owner, &[&member], &[&stranger]).await;
    may_write(&member, true).await;
    may_write(&stranger, false).await;
    let daemons = [&owner, &member, &stranger];
    let watches = join_all(daemons.iter().map(|daemon| GroupWatch::from(daemon, GROUP, 0))).await;
    group::say(&owner, GROUP, "one").await;
    group::say(&member, GROUP, "two").await;
    // Whoever may not write is told so, and nobody hears it.
    assert_fails(&stranger.run(&["group", "send", GROUP, "let me in"]).await, 6, &["unauthorised"]);
    for watch in &watches {
        let told = watch.told(2).await;
        assert!(told.iter().all(|entry| entry.producer != group::peer(&stranger)));
    }
    group::agree(&daemons, GROUP, 2).await;

    // Only the owner changes the list.
    assert_fails(&member.run(&["group", "members", GROUP, "--add", stranger.peer_id()]).await, 6, &["unauthorised"]);
    let version = change(&owner, "--add", &stranger).await;
    for watch in &watches {
        let fits = |event: &GroupEvent| matches!(event, GroupEvent::MembersChanged { version: of } if *of == version);
        watch.wait("the new list", fits).await;
    }
    may_write(&stranger, true).await;
    group::say(&stranger, GROUP, "three").await;
    group::agree(&daemons, GROUP, 3).await;

    // One that is taken off is heard no more; what it has said stays in the logs.
    assert_eq!(change(&owner, "--remove", &member).await, version + 1);
    may_write(&member, false).await;
    assert_fails(&member.run(&["group", "send", GROUP, "and I?"]).await, 6, &["unauthorised"]);
    group::say(&stranger, GROUP, "four").await;
    for (daemon, watch) in daemons.iter().zip(&watches) {
        let texts: Vec<_> = watch.told(4).await.into_iter().filter_map(|entry| entry.text).collect();
        assert_eq!(texts.last().map(String::as_str), Some("four"));
        assert!(texts.iter().any(|text| text == "two"), "{texts:?}");
        wait_for(SOON, "a state without the one that was taken off", async || {
            let state = group::state(daemon, GROUP).await;
            (state.sum, state.members) == (3, 2)
        })
        .await;
        let members = daemon.json(&["group", "members", GROUP]).await;
        let row = members["members"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["producer"] == member.peer_id()).cloned());
        assert!(
            number(&members, "version") == version + 1 && row.is_none_or(|row| row["writer"] == false),
            "{members}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_group_works_without_its_owner_and_who_was_away_learns_the_list_from_any_member() {
    let [mut owner, member, mut away, newcomer] = [settled().await, settled().await, settled().await, settled().await];
    let ticket = close(&owner, &[&member, &away], &[]).await;
    for daemon in [&member, &away] {
        may_write(daemon, true).await;
        group::say(daemon, GROUP, "here").await;
    }
    group::agree(&[&owner, &member, &away], GROUP, 2).await;

    // The list changes while one is away, and then the owner goes.
    away.stop().await;
    let version = change(&owner, "--add", &newcomer).await;
    wait_for(SOON, "the list at the member", async || {
        number(&member.json(&["group", "members", GROUP]).await, "version") == version
    })
    .await;
    owner.kill9().await;
    // The newcomer has the owner's ticket, and another member's address.
    group::join(&newcomer, &ticket).await;
    newcomer.json(&["connect", &member.addr("tcp")]).await;
    may_write(&newcomer, true).await;
    group::say(&newcomer, GROUP, "hello").await;
    away.restart().await;
    // It had met the owner alone, maybe.
    away.json(&["connect", &member.addr("tcp")]).await;
    let three = [&member, &away, &newcomer];
    group::agree(&three, GROUP, 3).await;
    group::say(&away, GROUP, "back").await;
    group::agree(&three, GROUP, 4).await;
    let log = group::log(&away, GROUP).await;
    assert!(log.iter().any(|entry| entry.producer == group::peer(&newcomer)), "one whom it learnt of from another");
    // The owner finds all of it when it comes back, and is still the owner.
    owner.restart().await;
    let all = [&owner, &member, &away, &newcomer];
    group::agree(&all, GROUP, 4).await;
    assert_eq!(change(&owner, "--remove", &newcomer).await, version + 1);
    may_write(&newcomer, false).await;
}
