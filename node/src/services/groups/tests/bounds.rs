//! What a hostile member cannot make us keep, and how much of anything runs or waits.

use dagmesh_chronosync::{LeafKey, MemberBytes};
use libp2p::Multiaddr;

use super::*;
use crate::{
    config::{Config, GroupsConfig},
    services::groups::fetch,
};

fn member(node: &Node) -> Arc<Member> {
    node.groups().member(GROUP).expect("takes part")
}

fn store(home: &tempfile::TempDir) -> Arc<Store> {
    Store::open(home.path().join("store")).expect("opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_is_fetched_up_to_its_bytes_and_a_larger_one_is_left_to_the_user() {
    const FITS: usize = 1000;
    let homes = [home(), home()];
    let a = start(homes[0].path()).await;
    join(&a, None).await;
    // Two files, of which the second one is fetched as long as the first does not go beyond.
    let folder = |len: usize| {
        let path = homes[0].path().join(format!("folder {len}"));
        std::fs::create_dir(&path).expect("makes");
        std::fs::write(path.join("a"), vec![len as u8; len]).expect("writes");
        std::fs::write(path.join("b"), format!("the last of {len}")).expect("writes");
        GroupBody::Content(Content::Path(path))
    };
    let mut heads = vec![publish(&a, folder(FITS)).await.head.expect("a content")];
    let root = a.blockstore().get(&heads[0]).expect("reads").expect("is held").len();
    let max_content_bytes = (root + FITS) as u64 + 2 * limits::GROUP_CONTENT_BLOCK_BYTES;
    let config = Config { groups: GroupsConfig { max_content_bytes }, ..Config::of_profile(Profile::Test) };
    let b = Node::builder().home(homes[1].path()).config(config).start().await.expect("starts");
    join(&b, Some(&a)).await;
    let mut events = watch(&b, Some(0)).await;
    let ended = |event: &GroupEvent| match event {
        GroupEvent::Fetched { index, head } => Some((*index, *head, None)),
        GroupEvent::NotFetched { index, head, reason } => Some((*index, *head, Some(reason.clone()))),
        _ => None,
    };
    for (index, len) in [FITS, FITS + 1, FITS - 1].into_iter().enumerate() {
        if index > 0 {
            heads.push(publish(&a, folder(len)).await.head.expect("a content"));
        }
        let (at, which, reason) = event(&mut events, "content", ended).await;
        assert_eq!((at, which), (index as u64, heads[index]));
        assert_eq!(reason.is_some(), len > FITS, "{reason:?}");
        assert!(reason.is_none_or(|reason| reason.contains("max_content_bytes")));
    }
    let told: Vec<_> = log(&b).await.iter().map(|entry| entry.head).collect();
    assert_eq!(told, heads.iter().copied().map(Some).collect::<Vec<_>>(), "each stands in the log");
    // Whoever looks later is told the same.
    let mut again = watch(&b, Some(1)).await;
    let (at, _, reason) = event(&mut again, "content", ended).await;
    assert_eq!((at, reason.is_some()), (1, true));
    for node in [a, b] {
        node.shutdown().await.expect("stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_without_end_leave_no_more_rows_than_count() {
    let home = home();
    let b = start(home.path()).await;
    join(&b, None).await;
    let liar = Liar::start(&b).await;
    let max = dagmesh_core::limits::MAX_GROUP_SESSIONS as u64;
    // Of each second one nobody has the entry.
    let claim = async |session: u64| {
        let entry = entry(None, &session.to_string());
        let payload = match session % 2 {
            0 => Payload::content(*entry.cid()),
            _ => Entry::payload(&entry).expect("an entry"),
        };
        liar.claim_in(session, 1, payload).await;
        until("session", async || {
            let key = LeafKey::new(&liar.key.public().to_peer_id(), session);
            member(&b).tracker.lock().leaves.contains_key(&key).then_some(())
        })
        .await;
    };
    let tracked = || member(&b).tracker.lock().leaves.len() as u64;
    for session in 1..=max {
        claim(session).await;
    }
    assert_eq!(tracked(), max);
    for session in max + 1..=max + 5 {
        claim(session).await;
    }
    assert_eq!((tracked(), state(&b).await.leaves), (max, max));
    assert_eq!(log(&b).await.len() as u64, max / 2 + 3, "what it said stays said");
    b.shutdown().await.expect("stops");
    drop(b);
    let (store, id) = (store(&home), *liar.group.as_bytes());
    let sessions: Vec<_> =
        store.group_leaves(&id, None).expect("reads").into_iter().map(|(_, session)| session).collect();
    assert_eq!(sessions, (6..=max + 5).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heads_of_those_taken_off_the_list_leave_the_disk_and_two_lists_of_one_version_are_told() {
    let homes = [home(), home()];
    let key = Keypair::generate_ed25519();
    let a =
        Node::builder().home(homes[0].path()).profile(Profile::Test).key(key.clone()).start().await.expect("starts");
    let b = start(homes[1].path()).await;
    a.group(GROUP).create(true, vec![b.peer_id()]).await.expect("makes");
    join(&b, Some(&a)).await;
    meet(&a, &b).await;
    until("list", async || info(&b).await.writable.then_some(())).await;
    say(&a, "mine").await;
    say(&b, "yours").await;
    agree(&[&a, &b], 2).await;
    let mut events = watch(&b, Some(0)).await;
    let remove = GroupMembersRequest { name: GROUP.to_owned(), add: vec![], remove: vec![b.peer_id()] };
    a.group_members(remove).await.expect("changes");
    let changed = |event: &GroupEvent| match event {
        GroupEvent::MembersChanged { version } => Some(*version),
        _ => None,
    };
    while event(&mut events, "list", changed).await < 2 {}
    // Another second list.
    let group = GroupId::closed(GROUP, &a.peer_id()).expect("a name");
    let liar = Liar::start_in(&b, group).await;
    let list = MemberList::sign(&key, &group, 2, [PeerId::random()].into(), 1).expect("signs");
    let message = Gossip::Members(MemberBytes::new(list.encode()).expect("fits")).encode().expect("encodes");
    liar.swarm.publish(member::topic(&group), message).await.expect("somebody is there");
    let twice = |event: &GroupEvent| match event {
        GroupEvent::MembersEquivocation { version } => Some(*version),
        _ => None,
    };
    assert_eq!(event(&mut events, "two lists", twice).await, 2);
    let said: Vec<_> = texts(&log(&b).await).into_iter().map(str::to_owned).collect();
    assert_eq!(said.len(), 2, "what was said stays said");
    let owner = a.peer_id();
    a.shutdown().await.expect("stops");
    b.shutdown().await.expect("stops");
    drop((a, b, events));
    for home in &homes {
        let store = store(home);
        let heads = store.group_heads(group.as_bytes()).expect("reads");
        let heads: Vec<_> = heads.into_iter().map(|((name, _), _)| name).collect();
        assert_eq!(heads, [LeafKey::new(&owner, 0).name]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_and_requests_wait_for_their_places() {
    let homes = [home(), home()];
    let (a, b) = (start(homes[0].path()).await, start(homes[1].path()).await);
    join(&a, None).await;
    say(&a, "first").await;
    let places = b.groups().places.clone();
    let calls = u32::try_from(limits::MAX_GROUP_CALLS).expect("small");
    let mut taken = Arc::clone(&places.calls).try_acquire_many_owned(calls).expect("so many");
    assert_eq!(places.calls.available_permits(), 0);
    join(&b, Some(&a)).await;
    meet(&a, &b).await;
    until("claim", async || (!state(&b).await.ahead.is_empty()).then_some(())).await;
    assert!(log(&b).await.is_empty(), "nothing may be asked");
    // One place is enough.
    drop(taken.split(1));
    agree(&[&a, &b], 1).await;

    let fetches = u32::try_from(limits::MAX_GROUP_FETCHES).expect("small");
    let mut taken = Arc::clone(&places.fetches).try_acquire_many_owned(fetches).expect("so many");
    assert_eq!(places.fetches.available_permits(), 0);
    let long = "long ".repeat(1000);
    say(&a, &long).await;
    until("claim", async || (state(&b).await.missing == 1).then_some(())).await;
    say(&b, "not held up").await;
    assert_eq!(texts(&log(&b).await), ["first", "not held up"]);
    drop(taken.split(1));
    agree(&[&a, &b], 3).await;
    for node in [a, b] {
        node.shutdown().await.expect("stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_publications_wait_and_a_log_is_read_in_parts() {
    let home = home();
    let a = start(home.path()).await;
    join(&a, None).await;
    let this = member(&a);
    assert_eq!(this.waiting.available_permits(), limits::MAX_GROUP_PUBLISH_QUEUE);
    let waiting = u32::try_from(limits::MAX_GROUP_PUBLISH_QUEUE - 1).expect("small");
    let others = this.waiting.try_acquire_many(waiting).expect("so many");
    say(&a, "the last place").await;
    let last = this.waiting.try_acquire().expect("it is free again");
    let refused = a.group(GROUP).send("one more").await.expect_err("no place");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    drop((others, last));
    let says = (0..limits::GROUP_LOG_ROWS).map(|n| say_owned(a.clone(), n.to_string()));
    futures::future::join_all(says).await;
    // One more than is read at once.
    let mut events = watch(&a, Some(0)).await;
    for index in 0..=limits::GROUP_LOG_ROWS as u64 {
        assert_eq!(next_entry(&mut events).await.index, index);
    }
    a.shutdown().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_members_are_remembered_and_the_oldest_makes_room() {
    let home = home();
    let a = start(home.path()).await;
    join(&a, None).await;
    let addr: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().expect("an address");
    let peers: Vec<_> =
        (0..=limits::MAX_GROUP_KNOWN_PEERS).map(|_| GroupPeer::new(&PeerId::random(), vec![addr.clone()])).collect();
    let this = member(&a);
    for (n, peer) in peers.iter().enumerate() {
        this.remember(vec![peer.clone()]).await.expect("keeps");
        let from = (n + 1).saturating_sub(limits::MAX_GROUP_KNOWN_PEERS);
        assert_eq!(*this.known.lock(), peers[from..=n]);
    }
    a.shutdown().await.expect("stops");
}

#[test]
fn a_jump_brings_so_many_entries_and_of_further_ones_it_is_said_that_they_are_left_out() {
    let home = home();
    let store = store(&home);
    let max = limits::MAX_GROUP_HISTORY;
    let mut chain = Vec::new();
    let mut previous = None;
    for n in 0..=max {
        let block = super::entry(previous, &n.to_string());
        previous = Some(*block.cid());
        chain.push(block);
    }
    for blocks in chain.chunks(8192) {
        store.put_many(blocks).expect("puts");
    }
    let producer = PeerId::random();
    let key = LeafKey::new(&producer, 1);
    let read = |number: u64| {
        let entry = *chain[number as usize - 1].cid();
        let wanted = fetch::Wanted { key, producer, head: (number, entry), after: 0, stop: None };
        fetch::read_chain(&store, &wanted).expect("reads").expect("all of it is held")
    };
    let whole = read(max);
    assert_eq!((whole.entries.len() as u64, whole.reason), (max, None));
    let cut = read(max + 1);
    assert_eq!(cut.entries.len() as u64, max);
    assert_eq!(cut.entries.first().map(|link| link.entry), Some(*chain[1].cid()), "the oldest is left out");
    assert!(cut.reason.is_some_and(|reason| reason.contains("at most")));
}
