//! The chat checks itself: members that write at once, a newcomer, one that restarts; nobody's line is lost or shown
//! twice, and what a newcomer is told of the past is marked as history.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::{Context, ensure};
use dagmesh::{
    Api, Node,
    config::Profile,
    ticket::GroupTarget,
    types::{GroupCreateRequest, GroupEntry, GroupEvent, GroupJoinRequest, GroupWatchRequest},
};
use futures::StreamExt;

use super::{line_of, read, say};

const GROUP: &str = "tea room";
/// Lines of each member in each round.
const LINES: usize = 20;
/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(50);

pub(crate) async fn run() -> anyhow::Result<()> {
    tokio::time::timeout(DEADLINE, check()).await.with_context(|| format!("not done within {DEADLINE:?}"))?
}

async fn check() -> anyhow::Result<()> {
    let home = tempfile::tempdir;
    let homes = [home()?, home()?, home()?, home()?];
    let [ada, bob, cy] = [start(homes[0].path()).await?, start(homes[1].path()).await?, start(homes[2].path()).await?];
    let create = GroupCreateRequest { name: GROUP.to_owned(), closed: false, members: Vec::new() };
    let ticket: GroupTarget = ada.group_create(create).await?.ticket.parse()?;
    join(&bob, &ticket).await?;
    join(&cy, &ticket).await?;

    // Three members write at the same time.
    let mut said = BTreeSet::new();
    said.extend(all_say(&[("ada", &ada), ("bob", &bob), ("cy", &cy)], "at once").await?);
    for (name, node) in [("ada", &ada), ("bob", &bob), ("cy", &cy)] {
        shown_once(name, node, &said).await?;
    }

    // A newcomer is told all of it, as history.
    let dan = start(homes[3].path()).await?;
    join(&dan, &ticket).await?;
    let told = shown_once("dan", &dan, &said).await?;
    ensure!(told.iter().all(|entry| entry.recovery), "dan was not there, and is told so only of some lines");
    println!("dan came later and reads for example\n    {}", line_of(told.first().context("a line")?, true));

    // One restarts while the others go on; its numbers go on too.
    cy.shutdown().await?;
    drop(cy);
    said.extend(all_say(&[("ada", &ada), ("bob", &bob), ("dan", &dan)], "while cy was away").await?);
    let cy = start(homes[2].path()).await?;
    join(&cy, &ticket).await?;
    said.extend(all_say(&[("ada", &ada), ("bob", &bob), ("cy", &cy), ("dan", &dan)], "all of us").await?);
    for (name, node) in [("ada", &ada), ("bob", &bob), ("cy", &cy), ("dan", &dan)] {
        let told = shown_once(name, node, &said).await?;
        let sessions = told.iter().map(|entry| (entry.producer, entry.session)).collect::<BTreeSet<_>>();
        ensure!(sessions.len() == 4, "four writers have {} sessions: a restart has begun another", sessions.len());
    }
    println!("ok: {} lines of four members, each shown once to each of them", said.len());
    for node in [ada, bob, cy, dan] {
        node.shutdown().await?;
    }
    Ok(())
}

async fn start(home: &Path) -> anyhow::Result<Node> {
    Ok(Node::builder().home(home).profile(Profile::Test).start().await?)
}

async fn join(node: &Node, ticket: &GroupTarget) -> anyhow::Result<()> {
    node.group_join(GroupJoinRequest { target: ticket.clone(), wait: true }).await?;
    Ok(())
}

/// Each member says its lines, all of them at the same time; what was said.
async fn all_say(members: &[(&str, &Node)], when: &str) -> anyhow::Result<Vec<String>> {
    let each = members.iter().map(async |(name, node)| {
        let mut said = Vec::new();
        for n in 0..LINES {
            let line = format!("{when}, line {n}");
            say(node, GROUP, name, &line).await?;
            said.push(format!("{name}: {line}"));
        }
        anyhow::Ok(said)
    });
    Ok(futures::future::try_join_all(each).await?.concat())
}

/// Watches from the beginning until all that was said is there; nothing else may be, and nothing twice.
async fn shown_once(name: &str, node: &Node, said: &BTreeSet<String>) -> anyhow::Result<Vec<GroupEntry>> {
    let mut events = node.group_watch(GroupWatchRequest { name: GROUP.to_owned(), from: Some(0) }).await?;
    let (mut told, mut last) = (Vec::new(), BTreeMap::new());
    let mut missing = said.clone();
    while !missing.is_empty() {
        let event = events.next().await.with_context(|| format!("{name}'s watch ended"))?;
        let GroupEvent::Entry(entry) = event else {
            ensure!(!matches!(event, GroupEvent::Gap { .. } | GroupEvent::Equivocation { .. }), "{name}: {event:?}");
            continue;
        };
        let text = entry.text.as_deref().context("a text")?;
        ensure!(missing.remove(text), "{name} is shown {text:?} twice, or nobody has said it");
        ensure!(read(text).0 != "?", "{text:?} has no nick");
        let before = last.insert((entry.producer, entry.session), entry.seq).unwrap_or(0);
        ensure!(entry.seq == before + 1, "{name} is shown number {} of a writer after {before}", entry.seq);
        told.push(*entry);
    }
    Ok(told)
}
