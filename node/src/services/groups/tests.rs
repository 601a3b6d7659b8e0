//! Groups between real nodes on loopback. Everything waits for an event or a state, with a deadline.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use dagmesh_chronosync::{Entry, Gossip, GroupHead, HeadBytes, HeadList, Payload, Summary, Update};
use dagmesh_dag::Block;
use dagmesh_dagsync::Flow;
use futures::StreamExt;
use libp2p::identity::Keypair;

mod bounds;

use super::*;
use crate::{
    Api, Node,
    config::Profile,
    testing::{until, within},
    types::{GcRequest, GroupEvent, GroupRequest},
};

const GROUP: &str = "chess";

async fn start(home: &Path) -> Node {
    Node::builder().home(home).profile(Profile::Test).start().await.expect("starts")
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a dir")
}

/// Makes the group, or joins it by the ticket of a member.
async fn join(node: &Node, of: Option<&Node>) -> GroupInfo {
    let target = match of {
        Some(member) => info(member).await.ticket,
        None => GROUP.to_owned(),
    };
    let request = GroupJoinRequest { target: target.parse().expect("a target"), wait: false };
    node.group_join(request).await.expect("joins")
}

async fn info(node: &Node) -> GroupInfo {
    let groups = node.group_list().await.expect("lists");
    groups.into_iter().find(|info| info.group == GROUP).expect("takes part")
}

async fn say(node: &Node, text: &str) -> GroupPublished {
    publish(node, GroupBody::Text(text.to_owned())).await
}

async fn publish(node: &Node, body: GroupBody) -> GroupPublished {
    let request = GroupPublishRequest { name: GROUP.to_owned(), body };
    node.group_publish(request, ProgressSink::none()).await.expect("publishes")
}

async fn log(node: &Node) -> Vec<GroupEntry> {
    let request = GroupLogRequest { name: GROUP.to_owned(), from: Some(0), limit: 10_000 };
    node.group_log(request).await.expect("a log")
}

async fn state(node: &Node) -> GroupState {
    node.group_state(GroupRequest { name: GROUP.to_owned() }).await.expect("a state")
}

async fn watch(node: &Node, from: Option<u64>) -> GroupEventStream {
    node.group_watch(GroupWatchRequest { name: GROUP.to_owned(), from }).await.expect("a watch")
}

/// The next event of a watch that `wanted` picks.
async fn event<T>(events: &mut GroupEventStream, what: &str, mut wanted: impl FnMut(&GroupEvent) -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = wanted(&events.next().await.expect("the watch goes on")) {
                return found;
            }
        }
    })
    .await
}

async fn next_entry(events: &mut GroupEventStream) -> GroupEntry {
    event(events, "publication", |event| match event {
        GroupEvent::Entry(entry) => Some((**entry).clone()),
        _ => None,
    })
    .await
}

/// Waits until each of two members sees the other.
async fn meet(one: &Node, other: &Node) {
    until("neighbour", async || (info(one).await.peers > 0 && info(other).await.peers > 0).then_some(())).await;
}

/// Waits until all have the same root, and so many publications in their logs, each once.
async fn agree(nodes: &[&Node], entries: usize) {
    until("agreement", async || {
        let mut roots = BTreeSet::new();
        for node in nodes {
            let log = log(node).await;
            if log.len() < entries || state(node).await.missing > 0 {
                return None;
            }
            let each: BTreeSet<_> = log.iter().map(|entry| (entry.producer, entry.session, entry.seq)).collect();
            assert_eq!((each.len(), log.len()), (entries, entries), "each publication once");
            roots.insert(state(node).await.root);
        }
        (roots.len() == 1).then_some(())
    })
    .await;
}

fn texts(log: &[GroupEntry]) -> Vec<&str> {
    log.iter().filter_map(|entry| entry.text.as_deref()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_members_publish_reaches_the_others_once_and_in_order() {
    let homes = [home(), home()];
    let (a, b) = (start(homes[0].path()).await, start(homes[1].path()).await);
    join(&a, None).await;
    join(&b, Some(&a)).await;
    meet(&a, &b).await;
    let mut events = watch(&b, None).await;
    let long = "long ".repeat(1000);
    let published = [say(&a, "one").await, say(&a, &long).await, say(&a, "three").await];
    assert_eq!(published.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2, 3]);
    for (index, text) in ["one", long.as_str(), "three"].into_iter().enumerate() {
        let entry = next_entry(&mut events).await;
        assert_eq!((entry.index, entry.seq, entry.text.as_deref()), (index as u64, index as u64 + 1, Some(text)));
        assert_eq!(
            (entry.producer, entry.session, entry.entry),
            (a.peer_id(), published[0].session, published[index].entry)
        );
        assert!(!entry.recovery, "it was learnt as it was published");
    }
    say(&b, "four").await;
    agree(&[&a, &b], 4).await;
    assert_eq!(texts(&log(&a).await), ["one", long.as_str(), "three", "four"]);
    let members = a.group_members(GroupMembersRequest { name: GROUP.to_owned(), add: vec![], remove: vec![] }).await;
    let members = members.expect("members").members;
    assert_eq!(members.iter().filter(|member| member.writer && member.seq > 0).count(), 2);
    a.shutdown().await.expect("stops");
    b.shutdown().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_at_the_same_time_converge_and_each_is_told_once() {
    const EACH: usize = 50;
    let homes = [home(), home(), home()];
    let (a, b, c) = (start(homes[0].path()).await, start(homes[1].path()).await, start(homes[2].path()).await);
    join(&a, None).await;
    for node in [&b, &c] {
        join(node, Some(&a)).await;
        meet(node, &a).await;
    }
    let burst = |node: &Node| {
        let node = node.clone();
        async move {
            let says = (0..EACH).map(|n| say_owned(node.clone(), format!("{n}")));
            futures::future::join_all(says).await;
        }
    };
    tokio::join!(burst(&a), burst(&b), burst(&c));
    agree(&[&a, &b, &c], 3 * EACH).await;
    for node in [&a, &b, &c] {
        let log = log(node).await;
        for producer in [a.peer_id(), b.peer_id(), c.peer_id()] {
            let seqs: Vec<u64> = log.iter().filter(|entry| entry.producer == producer).map(|entry| entry.seq).collect();
            assert_eq!(seqs, (1..=EACH as u64).collect::<Vec<_>>(), "in order, without gaps");
        }
    }
    for node in [a, b, c] {
        node.shutdown().await.expect("stops");
    }
}

async fn say_owned(node: Node, text: String) {
    say(&node, &text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_session_and_tells_nothing_twice() {
    let homes = [home(), home()];
    let (a, b) = (start(homes[0].path()).await, start(homes[1].path()).await);
    join(&a, None).await;
    join(&b, Some(&a)).await;
    meet(&a, &b).await;
    let first = say(&b, "before").await;
    agree(&[&a, &b], 1).await;
    b.shutdown().await.expect("stops");
    drop(b);
    // Longer than what a head carries in place, so that its entries are fetched.
    let long = "away ".repeat(500);
    for _ in 0..3 {
        say(&a, &long).await;
    }
    let b = start(homes[1].path()).await;
    let mut events = watch(&b, Some(0)).await;
    assert_eq!(next_entry(&mut events).await.text.as_deref(), Some("before"));
    for seq in 1..=3 {
        let entry = next_entry(&mut events).await;
        assert_eq!((entry.seq, entry.text.as_deref(), entry.recovery), (seq, Some(long.as_str()), true));
    }
    let second = say(&b, "after").await;
    assert_eq!((second.session, second.seq), (first.session, 2), "the session goes on");
    agree(&[&a, &b], 5).await;
    a.shutdown().await.expect("stops");
    b.shutdown().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_are_fetched_as_far_as_they_have_changed() {
    let homes = [home(), home()];
    let (received, passed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, walked) = (Arc::clone(&received), Arc::clone(&passed));
    let hook = move |_: &Block, travelled: bool| {
        if travelled { &counted } else { &walked }.fetch_add(1, Ordering::Relaxed);
        Flow::Continue
    };
    let a = start(homes[0].path()).await;
    let b = Node::builder().home(homes[1].path()).profile(Profile::Test).block_hook(hook).start().await;
    let b = b.expect("starts");
    join(&a, None).await;
    join(&b, Some(&a)).await;
    meet(&a, &b).await;
    let folder = homes[0].path().join("folder");
    std::fs::create_dir(&folder).expect("makes");
    for file in 0..20 {
        std::fs::write(folder.join(format!("{file}")), format!("file {file}")).expect("writes");
    }
    let mut events = watch(&b, None).await;
    let content = || GroupBody::Content(Content::Path(folder.clone()));
    let fetched = |event: &GroupEvent| match event {
        GroupEvent::Fetched { index, head } => Some((*index, *head)),
        _ => None,
    };
    let first = publish(&a, content()).await;
    assert_eq!(event(&mut events, "content", fetched).await, (0, first.head.expect("a content")));
    let blocks = || async { b.repo_stat().await.expect("a stat").blocks };
    // The entry, which the head carried; the folder and 20 files, which were fetched.
    assert_eq!((blocks().await, received.swap(0, Ordering::Relaxed)), (22, 21));
    passed.store(0, Ordering::Relaxed);
    say(&a, "a text between").await;
    std::fs::write(folder.join("7"), "changed").expect("writes");
    let second = publish(&a, content()).await;
    assert_eq!(event(&mut events, "content", fetched).await, (2, second.head.expect("a content")));
    // Two entries that heads carried; the folder and one file, and not one that is held.
    assert_eq!((blocks().await, received.load(Ordering::Relaxed)), (26, 2));
    assert_eq!(passed.load(Ordering::Relaxed), 0, "what is equal on both sides is not walked");
    // What the group refers to stays, and goes once it is left.
    let gc = |node: Node| async move {
        node.gc(GcRequest { dry_run: false }, ProgressSink::none()).await.expect("collects")
    };
    assert_eq!(gc(b.clone()).await.removed, 0);
    b.group_leave(GroupRequest { name: GROUP.to_owned() }).await.expect("leaves");
    assert!(b.group_list().await.expect("lists").is_empty());
    assert_eq!(gc(b.clone()).await.removed, 26);
    until("farewell", async || (info(&a).await.peers == 0).then_some(())).await;
    // Whoever comes again is a newcomer.
    let mut events = {
        join(&b, Some(&a)).await;
        watch(&b, Some(0)).await
    };
    for seq in 1..=3 {
        let entry = next_entry(&mut events).await;
        assert_eq!((entry.seq, entry.recovery), (seq, true));
    }
    a.shutdown().await.expect("stops");
    b.shutdown().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_closed_group_those_on_the_owners_list_write() {
    let homes = [home(), home()];
    let (a, b) = (start(homes[0].path()).await, start(homes[1].path()).await);
    let members = |add: Vec<PeerId>, remove| GroupMembersRequest { name: GROUP.to_owned(), add, remove };
    let made = a.group(GROUP).create(true, Vec::new()).await.expect("makes");
    assert_eq!((made.closed, made.owner, made.writable), (true, Some(a.peer_id()), true));
    let joined = join(&b, Some(&a)).await;
    assert_eq!((joined.id, joined.writable), (made.id.clone(), false));
    meet(&a, &b).await;
    let refused = b.group(GROUP).send("let me in").await.expect_err("not on the list");
    assert_eq!(refused.kind, ErrorKind::Unauthorised);
    let refused = b.group_members(members(vec![b.peer_id()], vec![])).await.expect_err("not the owner");
    assert_eq!(refused.kind, ErrorKind::Unauthorised);

    let mut events = watch(&b, Some(0)).await;
    let changed = |event: &GroupEvent| match event {
        GroupEvent::MembersChanged { version } => Some(*version),
        _ => None,
    };
    let listed = a.group_members(members(vec![b.peer_id()], vec![])).await.expect("changes");
    assert_eq!(listed.version, 2);
    while event(&mut events, "list", changed).await < 2 {}
    say(&b, "thank you").await;
    agree(&[&a, &b], 1).await;
    a.shutdown().await.expect("stops");
    drop(a);
    let a = start(homes[0].path()).await;
    meet(&a, &b).await;
    let listed = a.group_members(members(vec![], vec![b.peer_id()])).await.expect("changes");
    assert_eq!(listed.version, 3, "the list outlives a restart");
    while event(&mut events, "list", changed).await < 3 {}
    let refused = b.group(GROUP).send("once more").await.expect_err("off the list");
    assert_eq!(refused.kind, ErrorKind::Unauthorised);
    assert_eq!((state(&b).await.leaves, texts(&log(&b).await)), (0, vec!["thank you"]), "what it said stays said");
    // The group's name is taken.
    let open = b.group_join(GroupJoinRequest { target: GROUP.parse().expect("a name"), wait: false }).await;
    assert_eq!(open.expect_err("another group of this name").kind, ErrorKind::Usage);
    a.shutdown().await.expect("stops");
    b.shutdown().await.expect("stops");
}

/// A producer that signs what it likes, and serves nothing.
struct Liar {
    key: Keypair,
    swarm: crate::swarm::SwarmHandle,
    group: GroupId,
}

impl Liar {
    async fn start(victim: &Node) -> Self {
        Self::start_in(victim, GroupId::open(GROUP).expect("a name")).await
    }

    async fn start_in(victim: &Node, group: GroupId) -> Self {
        let key = Keypair::generate_ed25519();
        let config = crate::swarm::SwarmConfig::for_profile(Profile::Test);
        let running = crate::swarm::start(config, key.clone(), Box::new(crate::swarm::AcceptAll)).await;
        let swarm = running.expect("starts").handle;
        swarm.connect(victim.addrs().await.expect("addresses").swap_remove(0)).await.expect("connects");
        let liar = Self { key, swarm, group };
        let topic = member::topic(&liar.group);
        until("subscriber", async || {
            let peers = liar.swarm.peers().await.expect("peers");
            peers.iter().any(|peer| peer.topics.contains(&topic)).then_some(())
        })
        .await;
        liar
    }

    /// Says that its session 1 is at this number, with this payload.
    async fn claim(&self, sequence: u64, payload: Payload) {
        self.claim_in(1, sequence, payload).await;
    }

    /// The same of this session.
    async fn claim_in(&self, session: u64, sequence: u64, payload: Payload) {
        let head = GroupHead::sign(&self.key, &self.group, session, sequence, payload, 1).expect("signs");
        let changed = HeadList::new(vec![HeadBytes::new(head.encode()).expect("fits")]).expect("fits");
        let state = Summary { members: 0, root: [7; 32], leaves: 1, sum: sequence };
        let update = Update { previous: [8; 32], state, changed, vector: HeadList::default() };
        let message = Gossip::Update(update).encode().expect("encodes");
        self.swarm.publish(member::topic(&self.group), message).await.expect("somebody is there");
    }
}

fn entry(previous: Option<Cid>, text: &str) -> Block {
    Entry { previous, time: 1, body: Body::Text(text.to_owned()) }.to_block().expect("a block")
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_a_chain_does_not_hold_are_one_gap_and_hold_up_nobody() {
    let homes = [home(), home()];
    let (a, b) = (start(homes[0].path()).await, start(homes[1].path()).await);
    join(&a, None).await;
    join(&b, Some(&a)).await;
    meet(&a, &b).await;
    let liar = Liar::start(&b).await;
    let mut events = watch(&b, Some(0)).await;
    let gap = |event: &GroupEvent| match event {
        GroupEvent::Gap { first, last, .. } => Some((*first, *last)),
        _ => None,
    };
    // A thousand publications are claimed, and two of them exist: one beside the head, one at another member.
    let one = entry(None, "one");
    let two = entry(Some(*one.cid()), "two");
    a.blockstore().put_many(std::slice::from_ref(&one)).expect("puts");
    liar.claim(1000, Entry::payload(&two).expect("an entry")).await;
    assert_eq!(event(&mut events, "gap", gap).await, (1, 998));
    for (seq, text) in [(999, "one"), (1000, "two")] {
        let told = next_entry(&mut events).await;
        assert_eq!((told.seq, told.text.as_deref()), (seq, Some(text)));
    }
    // Another history than the one that was told.
    liar.claim(1001, Entry::payload(&entry(Some(*one.cid()), "forked")).expect("an entry")).await;
    assert_eq!(event(&mut events, "gap", gap).await, (1001, 1001));
    // Bytes that are not the entry that is named.
    let (named, other) = (entry(None, "named"), entry(None, "other"));
    let inline = Payload::inline(other.data()).expect("short").inline;
    liar.claim(1002, Payload { content: Some(*named.cid()), inline }).await;
    assert_eq!(event(&mut events, "gap", gap).await, (1002, 1002));
    // An entry that nobody has: it is waited for, and nobody waits with it.
    liar.claim(1004, Payload::content(*entry(None, "withheld").cid())).await;
    until("claim", async || (state(&b).await.missing == 2).then_some(())).await;
    say(&a, "hello").await;
    assert_eq!(next_entry(&mut events).await.text.as_deref(), Some("hello"));
    // Whoever looks later is told the same, in the same order.
    let mut again = watch(&b, Some(0)).await;
    assert_eq!(event(&mut again, "gap", gap).await, (1, 998));
    assert_eq!(next_entry(&mut again).await.seq, 999);
    let log = log(&b).await;
    assert_eq!(texts(&log), ["one", "two", "hello"]);
    assert_eq!(log.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 1, 2]);
    for node in [a, b] {
        node.shutdown().await.expect("stops");
    }
}
