//! The tables: what is written comes back, together or not at all.

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{Codec, Entry, FeedName, SignedHead};
use dagmesh_ipnisync::{Advertisement, NO_ENTRIES};
use libp2p::{Multiaddr, PeerId, identity::Keypair};

use super::*;

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

fn addr(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address")
}

#[test]
fn a_feed_takes_the_next_number_only_and_keeps_it() {
    let store = TempStore::new();
    let key = Keypair::generate_ed25519();
    let (first, head) = entry(&key, None, raw("one").cid());
    store.publish_entry(&first, &head).expect("publishes");
    assert!(matches!(store.publish_entry(&first, &head), Err(Error::Sequence { seq: 1, next: 2, .. })));

    let (second, second_head) = entry(&key, Some(&head), raw("two").cid());
    let (other, other_head) = entry(&key, Some(&head), raw("another two").cid());
    store.publish_entry(&second, &second_head).expect("publishes");
    assert!(matches!(store.publish_entry(&other, &other_head), Err(Error::Sequence { seq: 2, next: 3, .. })));

    let store = store.reopen();
    assert_eq!(store.own_head(&FeedName::default()).expect("reads"), Some(second_head.clone()));
    assert_eq!(store.own_heads().expect("reads"), [second_head]);
    assert!(store.has(second.cid()).expect("has"));
    assert!(!store.has(other.cid()).expect("has"), "what is refused leaves nothing behind");
    assert!(matches!(store.publish_entry(&other, &other_head), Err(Error::Sequence { .. })));
    assert_eq!(store.stat().feeds, 1);
}

#[test]
fn an_entry_that_does_not_fit_its_head_or_its_feed_is_refused() {
    let store = TempStore::new();
    let key = Keypair::generate_ed25519();
    let (first, head) = entry(&key, None, raw("one").cid());
    let (_, foreign) = entry(&key, None, raw("other").cid());
    assert!(matches!(store.publish_entry(&first, &foreign), Err(Error::Publish { .. })), "the head names another");
    store.publish_entry(&first, &head).expect("publishes");
    let (second, second_head) = entry(&key, Some(&foreign), raw("two").cid());
    assert!(matches!(store.publish_entry(&second, &second_head), Err(Error::Publish { .. })), "it follows another");
}

#[test]
fn of_publications_at_once_each_number_is_given_to_one() {
    let store = TempStore::new();
    let key = Keypair::generate_ed25519();
    let taken: Vec<_> = (0..8)
        .map(|n| {
            let (store, key) = (Arc::clone(&store.store), key.clone());
            std::thread::spawn(move || {
                let (block, head) = entry(&key, None, raw(format!("{n}")).cid());
                store.publish_entry(&block, &head).is_ok()
            })
        })
        .map(|thread| thread.join().expect("ends"))
        .collect();
    assert_eq!(taken.iter().filter(|ok| **ok).count(), 1);
}

#[test]
fn a_follow_comes_back_as_it_was_written() {
    let store = TempStore::new();
    let (publisher, feed) = (peer(), FeedName::new("news").expect("a name"));
    let record = FollowRecord {
        policy: FollowPolicy { depth: Some(10), keep: Some(3), first_sync_depth: None },
        latest: Some(*raw("latest").cid()),
        latest_seq: 7,
        newest_head: Some(vec![1, 2, 3].into()),
        newest_entry: None,
        cut: true,
        name: Some(b"/ipns/key".to_vec().into()),
        addrs: vec![addr(4101), addr(4102)],
        created_ms: 1_700_000_000_000,
    };
    store.set_follow(&publisher, &feed, &record).expect("writes");
    store.set_follow(&publisher, &FeedName::default(), &FollowRecord::default()).expect("writes");
    let store = store.reopen();
    assert_eq!(store.follow(&publisher, &feed).expect("reads"), Some(record.clone()));
    assert_eq!(store.follows().expect("reads").len(), 2);
    assert_eq!(store.follow(&peer(), &feed).expect("reads"), None);

    let changed = store.update_follow(&publisher, &feed, |record| record.latest_seq = 8).expect("writes");
    assert_eq!(changed, Some(FollowRecord { latest_seq: 8, ..record }));
    assert!(store.remove_follow(&publisher, &feed).expect("writes"));
    assert!(!store.remove_follow(&publisher, &feed).expect("writes"));
    assert_eq!(store.update_follow(&publisher, &feed, |_| ()).expect("writes"), None);
    assert_eq!(store.stat().follows, 1);
}

#[test]
fn a_follow_written_by_another_version_is_read() {
    let row = std::collections::BTreeMap::from([("latest_seq", 5u64), ("a_field_to_come", 1)]);
    let row = dagmesh_core::cbor::to_vec(&row).expect("encodes");
    let record: FollowRecord = dagmesh_core::cbor::from_slice(&row).expect("decodes");
    assert_eq!(record, FollowRecord { latest_seq: 5, ..FollowRecord::default() });
}

#[test]
fn follows_are_taken_at_the_cap_and_refused_beyond_it() {
    let store = TempStore::new();
    let publisher = peer();
    let name = |n: usize| FeedName::new(&n.to_string()).expect("a name");
    let follow = |batch: &mut Batch<'_>, n| batch.set_follow(&publisher, &name(n), &FollowRecord::default());
    store.transaction(|batch| (0..limits::MAX_FOLLOWS).try_for_each(|n| follow(batch, n))).expect("as many as the cap");
    let over = store.transaction(|batch| follow(batch, limits::MAX_FOLLOWS));
    assert!(matches!(over, Err(Error::Full { .. })));
    assert_eq!(store.stat().follows, limits::MAX_FOLLOWS as u64);
    store.transaction(|batch| follow(batch, 0)).expect("one that is there can be changed");
}

fn links(count: u32) -> Vec<FrontierLink> {
    let link = |n: u32| FrontierLink {
        root: n % 3,
        cid: *raw(n.to_be_bytes()).cid(),
        selector: Bytes::from(vec![(n % 7) as u8; 20]),
        held: n.is_multiple_of(2).then(|| *raw(format!("held {n}")).cid()),
    };
    (0..count).map(link).collect()
}

#[test]
fn a_frontier_of_100_000_links_comes_back_in_order() {
    let store = TempStore::new();
    let key = FrontierKey::Follow(peer(), FeedName::default());
    let saved =
        SavedFrontier { roots: vec![*raw("root").cid()], links: links(100_000), state: Bytes::from_static(b"state") };
    store.save_frontier(&key, &saved).expect("saves");
    let store = store.reopen();
    assert!(store.load_frontier(&key).expect("loads") == Some(saved));
    assert_eq!(store.load_frontier(&FrontierKey::Sync("other".into())).expect("loads"), None);
}

#[test]
fn a_frontier_replaces_the_one_before_in_whole() {
    let store = TempStore::new();
    let key = FrontierKey::Sync("a sync".into());
    let saved = |count| SavedFrontier { roots: vec![], links: links(count), state: Bytes::new() };
    for count in [5_000, 10, 0] {
        store.save_frontier(&key, &saved(count)).expect("saves");
        assert_eq!(store.load_frontier(&key).expect("loads"), Some(saved(count)));
    }
    assert!(store.remove_frontier(&key).expect("removes"));
    assert!(!store.remove_frontier(&key).expect("removes"));
    assert_eq!(store.engine.keyspaces.frontier_links.len().expect("counts"), 0, "no link is left behind");
}

#[test]
fn links_that_were_never_saved_are_gone_after_the_next_start() {
    let store = TempStore::new();
    let key = FrontierKey::Sync("a sync".into());
    let saved = SavedFrontier { roots: vec![], links: links(2_000), state: Bytes::new() };
    store.save_frontier(&key, &saved).expect("saves");
    let _ = store.stage_frontier(&links(3_000)).expect("stages");
    assert_eq!(store.load_frontier(&key).expect("loads"), Some(saved.clone()), "staged is not saved");
    let store = store.reopen();
    assert_eq!(store.engine.keyspaces.frontier_links.len().expect("counts"), 2);
    assert_eq!(store.load_frontier(&key).expect("loads"), Some(saved));
}

#[test]
fn a_frontier_over_the_cap_is_refused() {
    let store = TempStore::new();
    let link = links(1).remove(0);
    let over = vec![link; limits::MAX_FRONTIER_LINKS + 1];
    assert!(matches!(store.stage_frontier(&over), Err(Error::Full { .. })));
}

#[test]
fn the_outbox_keeps_its_order_and_never_uses_a_number_twice() {
    let store = TempStore::new();
    let push =
        |store: &Store, text: &str| store.transaction(|batch| batch.push_outbox(text.as_bytes())).expect("pushes");
    let first = push(&store, "first");
    let second = push(&store, "second");
    assert!(first < second);
    assert!(store.remove_outbox(second).expect("removes"));
    assert!(!store.remove_outbox(second).expect("removes"));
    let store = store.reopen();
    let third = push(&store, "third");
    assert!(third > second);
    let rows = store.outbox(0, 10).expect("lists");
    assert_eq!(rows, [(first, Bytes::from("first")), (third, Bytes::from("third"))]);
    assert_eq!(store.outbox(0, 1).expect("lists").len(), 1);
    assert_eq!(store.outbox(first + 1, 10).expect("lists"), [(third, Bytes::from("third"))]);
}

#[test]
fn pins_come_and_go() {
    let store = TempStore::new();
    let cid = *raw("pinned").cid();
    let pin = |kind| Pin { kind, name: "a name".into() };
    store.pin(&cid, &pin(PinKind::Direct)).expect("pins");
    store.pin(&cid, &pin(PinKind::Recursive)).expect("changes the pin");
    assert_eq!(store.pins().expect("lists"), [(cid, pin(PinKind::Recursive))]);
    assert_eq!(store.stat().pins, 1);
    assert!(store.unpin(&cid).expect("unpins"));
    assert!(!store.unpin(&cid).expect("unpins"));
    assert_eq!(store.stat().pins, 0);
}

#[test]
fn of_too_many_peers_the_one_not_heard_of_for_longest_is_forgotten() {
    let store = TempStore::new();
    let peers: Vec<_> = (0..=limits::MAX_PERSISTED_PEERS).map(|_| PeerId::random()).collect();
    for (last_seen_ms, peer) in (1..).zip(&peers) {
        store.record_peer(peer, &PeerRecord { addrs: vec![addr(4101)], last_seen_ms }).expect("records");
    }
    let known = store.peers().expect("lists");
    assert_eq!(known.len(), limits::MAX_PERSISTED_PEERS);
    assert_eq!(known[0].0, peers[limits::MAX_PERSISTED_PEERS], "the newest comes first");
    assert!(!known.iter().any(|(peer, _)| *peer == peers[0]), "the oldest is forgotten");
    assert_eq!(known[0].1.addrs, [addr(4101)]);
    assert!(store.forget_peer(&peers[1]).expect("forgets"));
}

#[test]
fn values_of_services_are_listed_by_prefix() {
    let store = TempStore::new();
    for key in ["a/1", "a/2", "b/1"] {
        store.kv_put(key, key.as_bytes()).expect("puts");
    }
    let store = store.reopen();
    assert_eq!(store.kv_get("a/2").expect("gets"), Some(Bytes::from("a/2")));
    assert_eq!(store.kv_list("a/").expect("lists").len(), 2);
    assert!(store.kv_remove("a/1").expect("removes"));
    assert_eq!(store.kv_list("a/").expect("lists"), [("a/2".to_owned(), Bytes::from("a/2"))]);
    assert!(store.kv_put("", b"").is_err());
}

#[test]
fn a_transaction_that_fails_writes_nothing_and_counts_nothing() {
    let store = TempStore::new();
    let before = store.stat();
    let failed: Result<(), Error> = store.transaction(|batch| {
        batch.put_blocks(&[raw("block")])?;
        batch.pin(raw("block").cid(), &Pin { kind: PinKind::Direct, name: String::new() })?;
        batch.push_outbox(b"row")?;
        assert_eq!(batch.kv_get("key")?, None);
        batch.kv_put("key", b"value")?;
        assert_eq!(batch.kv_get("key")?, Some(Bytes::from("value")), "a batch reads its own writes");
        Err(Error::Busy("on purpose"))
    });
    assert!(failed.is_err());
    assert!(!store.has(raw("block").cid()).expect("has"));
    assert_eq!(store.kv_get("key").expect("gets"), None);
    assert_eq!(store.outbox(0, 1).expect("lists"), []);
    let after = store.stat();
    assert_eq!((after.blocks, after.pins), (before.blocks, before.pins));
}

/// An entry after the one that `last` names, and its head.
pub(super) fn entry(key: &Keypair, last: Option<&SignedHead>, content: &Cid) -> (Block, SignedHead) {
    let seq = last.map_or(1, |last| last.seq() + 1);
    let previous = last.map(|last| *last.head());
    let block = Entry { previous, seq, time: seq, content: *content, meta: None }.to_block().expect("a block");
    let head = SignedHead::sign(key, &FeedName::default(), *block.cid(), seq, seq).expect("signs");
    (block, head)
}

#[test]
fn advertisements_are_appended_to_the_chain_of_their_network_and_to_no_other_end() {
    let store = TempStore::new();
    let key = Keypair::generate_ed25519();
    let ad = |previous: Option<Cid>, context: u8| {
        let mut ad = Advertisement {
            previous_id: previous,
            provider: key.public().to_peer_id().to_string(),
            addresses: Vec::new(),
            signature: Vec::new(),
            entries: NO_ENTRIES,
            context_id: vec![context],
            metadata: Vec::new(),
            is_rm: false,
            extended_provider: None,
        };
        ad.sign(&key).expect("signs");
        ad.to_block(Codec::DagJson).expect("a block")
    };
    assert_eq!(store.own_chain("mainnet").expect("reads"), None);
    let first = ad(None, 1);
    let chain = store.publish_ad("mainnet", &first).expect("publishes");
    assert_eq!(chain, OwnChain { head: *first.cid(), ads: 1 });
    // Of two at once, and of one that was made beside another end, only one counts.
    for wrong in [ad(None, 2), ad(Some(*ad(None, 3).cid()), 4), raw("no advertisement")] {
        assert!(matches!(store.publish_ad("mainnet", &wrong), Err(Error::Publish { .. })));
    }
    let second = ad(Some(*first.cid()), 5);
    store.publish_ad("mainnet", &second).expect("publishes");
    store.publish_ad("other", &ad(None, 6)).expect("publishes");
    let store = store.reopen();
    let chain = OwnChain { head: *second.cid(), ads: 2 };
    assert_eq!(store.own_chain("mainnet").expect("reads"), Some(chain));
    let chains = store.own_chains().expect("reads");
    assert_eq!(
        chains.iter().map(|(network, chain)| (&network[..], chain.ads)).collect::<Vec<_>>(),
        [("mainnet", 2), ("other", 1)]
    );
    // All of it stays, and nothing is missing but what stands for no entries.
    store.gc(&[], false).expect("collects");
    assert!(store.has(first.cid()).expect("reads") && store.has(second.cid()).expect("reads"));
    assert_eq!(store.verify(|_| {}).expect("checks").missing_cids, [NO_ENTRIES]);
}
