//! Memberships and what belongs to them.

use dagmesh_chronosync::{Body, Entry, LeafKey};
use dagmesh_core::limits;
use libp2p::PeerId;
use serde_bytes::ByteBuf;

use super::*;

const GROUP: GroupKey = [7; 32];
const LEAF: GroupLeaf = ([3; 32], 9);

fn block(text: &str) -> Block {
    Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block")
}

/// A membership with a head, a row of the log and a content that is waited for.
fn fill(store: &Store, group: &GroupKey) -> [Block; 2] {
    let blocks = [block("told"), block("newest")];
    store.set_group(group, &GroupRecord { name: "chess".into(), ..GroupRecord::default() }).expect("writes");
    store.put_many(&blocks).expect("puts");
    let written = store.transaction(|batch| {
        let (told, newest) = (*blocks[0].cid(), *blocks[1].cid());
        batch.set_group_head(group, &LEAF, b"signed", Some(newest))?;
        batch.set_group_progress(group, &LEAF, &GroupProgress { told: 4, entry: Some(told), base: None })?;
        let producer = ByteBuf::from(b"peer");
        let row = GroupLogRow {
            producer: producer.clone(),
            session: 9,
            sequence: 4,
            entry: told,
            recovery: true,
            received_ms: 5,
        };
        batch.put_group_log(group, 0, &row)?;
        batch.put_group_content(group, &LEAF, 0, &GroupContent { producer, content: newest })
    });
    written.expect("writes");
    blocks
}

#[test]
fn a_membership_outlives_the_process_and_keeps_what_it_refers_to() {
    let dir = tempfile::tempdir().expect("a dir");
    {
        let store = Store::open(dir.path()).expect("opens");
        fill(&store, &GROUP);
        store.put_many(&[block("garbage")]).expect("puts");
    }
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.group(&GROUP).expect("reads").expect("a member").name, "chess");
    assert_eq!(store.group_heads(&GROUP).expect("reads"), [(LEAF, Bytes::from_static(b"signed"))]);
    let [(leaf, progress)] = store.group_progress(&GROUP).expect("reads")[..] else { panic!("one session") };
    assert_eq!((leaf, progress.told), (LEAF, 4));
    assert_eq!(store.group_log_end(&GROUP).expect("reads"), 1);
    assert_eq!(store.group_log(&GROUP, 0, 9).expect("reads")[0].1.sequence, 4);
    assert!(store.group_log(&GROUP, 1, 9).expect("reads").is_empty());
    let report = store.gc(&[], false).expect("collects");
    assert_eq!((report.removed, report.kept), (1, 2));
    let state = |leaf, index| store.group_content(&GROUP, leaf, index).expect("reads");
    let content = GroupContent { producer: ByteBuf::from(b"peer"), content: *block("newest").cid() };
    let later = (LEAF.0, LEAF.1 + 1);
    let written = store.transaction(|batch| {
        batch.put_group_content(&GROUP, &LEAF, 5, &content)?;
        batch.put_group_content(&GROUP, &later, 6, &content)
    });
    written.expect("writes");
    assert_eq!(store.group_waiting(&GROUP).expect("reads"), [LEAF, later]);
    let indexes =
        |leaf| store.group_contents(&GROUP, leaf, 9).expect("reads").iter().map(|row| row.0).collect::<Vec<_>>();
    assert_eq!((indexes(&LEAF), indexes(&later)), (vec![0, 5], vec![6]));
    let written = store.transaction(|batch| {
        batch.end_group_content(&GROUP, &LEAF, 0, None)?;
        batch.end_group_content(&GROUP, &LEAF, 5, Some("it cannot be walked"))
    });
    written.expect("writes");
    let broken = GroupContentState::Broken("it cannot be walked".to_owned());
    assert_eq!((state(&LEAF, 0), state(&LEAF, 5)), (GroupContentState::Whole, broken));
    assert_eq!((state(&later, 6), state(&later, 7)), (GroupContentState::Waits, GroupContentState::Gone));
    assert_eq!(store.group_waiting(&GROUP).expect("reads"), [later]);
}

#[test]
fn a_group_that_was_left_half_way_is_left_whole_and_no_other_with_it() {
    let dir = tempfile::tempdir().expect("a dir");
    let store = Store::open(dir.path()).expect("opens");
    let other = [8; 32];
    fill(&store, &GROUP);
    fill(&store, &other);
    // A kill after the first step.
    let record = store.group(&GROUP).expect("reads").expect("a member");
    store.set_group(&GROUP, &GroupRecord { left: true, ..record }).expect("writes");
    assert!(store.remove_group(&GROUP).expect("removes"));
    assert!(!store.remove_group(&GROUP).expect("removes"), "it is gone");
    assert!(store.group_log(&GROUP, 0, 9).expect("reads").is_empty());
    assert!(store.group_heads(&GROUP).expect("reads").is_empty());
    assert_eq!(store.group_log(&other, 0, 9).expect("reads").len(), 1);
    assert_eq!(store.gc(&[], true).expect("looks").removed, 0, "the other one refers to the same blocks");
    assert!(store.remove_group(&other).expect("removes"));
    assert_eq!(store.gc(&[], true).expect("looks").removed, 2);
}

#[test]
fn a_node_takes_part_in_so_many_groups_and_no_more() {
    let dir = tempfile::tempdir().expect("a dir");
    let store = Store::open(dir.path()).expect("opens");
    let group = |n: usize| [n as u8; 32];
    store
        .transaction(|batch| {
            (0..limits::MAX_GROUPS - 1).try_for_each(|n| batch.set_group(&group(n), &GroupRecord::default()))
        })
        .expect("writes");
    store.set_group(&group(limits::MAX_GROUPS - 1), &GroupRecord::default()).expect("the last one");
    let full = store.set_group(&group(limits::MAX_GROUPS), &GroupRecord::default());
    assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
    store.set_group(&group(0), &GroupRecord::default()).expect("one that is there can be changed");
}

#[test]
fn the_log_holds_so_many_rows_and_what_gives_way_is_garbage() {
    let dir = tempfile::tempdir().expect("a dir");
    let store = Store::open(dir.path()).expect("opens");
    store.set_group(&GROUP, &GroupRecord::default()).expect("writes");
    let producer = PeerId::random();
    let LeafKey { name, session } = LeafKey::new(&producer, 9);
    let (leaf, content) = ((name, session), block("content"));
    let body = Body::Content(*content.cid());
    let first = Entry { previous: None, time: 1, body }.to_block().expect("a block");
    let chained = |previous: &Block, text: &str| {
        let entry = Entry { previous: Some(*previous.cid()), time: 1, body: Body::Text(text.to_owned()) };
        entry.to_block().expect("a block")
    };
    let second = chained(&first, "second");
    let third = chained(&second, "third");
    let put = |index, entry: &Block| {
        store.put(entry).expect("puts");
        let producer = ByteBuf::from(producer.to_bytes());
        let (sequence, recovery, received_ms) = (index + 1, false, 1);
        let row = GroupLogRow { producer, session, sequence, entry: *entry.cid(), recovery, received_ms };
        let progress = GroupProgress { told: sequence, entry: Some(*entry.cid()), base: None };
        let written = store.transaction(|batch| {
            batch.put_group_log(&GROUP, index, &row)?;
            batch.set_group_head(&GROUP, &leaf, b"signed", Some(*entry.cid()))?;
            batch.set_group_progress(&GROUP, &leaf, &progress)
        });
        written.expect("writes");
    };
    let indexes = || store.group_log(&GROUP, 0, 9).expect("reads").iter().map(|row| row.0).collect::<Vec<_>>();
    let max = limits::MAX_GROUP_LOG;
    store.put(&content).expect("puts");
    put(0, &first);
    let row = GroupContent { producer: ByteBuf::from(producer.to_bytes()), content: *content.cid() };
    store.transaction(|batch| batch.put_group_content(&GROUP, &leaf, 0, &row)).expect("writes");
    put(max - 1, &second);
    assert_eq!((indexes(), store.group_log_end(&GROUP).expect("reads")), (vec![0, max - 1], max));
    assert_eq!(store.gc(&[], false).expect("collects").removed, 0);
    put(max, &third);
    assert_eq!((indexes(), store.group_log_end(&GROUP).expect("reads")), (vec![max - 1, max], max + 1));
    assert_eq!(store.group_content(&GROUP, &leaf, 0).expect("reads"), GroupContentState::Gone);
    assert!(store.group_waiting(&GROUP).expect("reads").is_empty());
    // The chain leads back to it all the same.
    let report = store.gc(&[], false).expect("collects");
    assert_eq!((report.removed, report.kept), (2, 2));
    assert!(!store.has(first.cid()).expect("has") && !store.has(content.cid()).expect("has"));
    // What is fetched of it by then is nothing that could break.
    let ended = store.transaction(|batch| batch.end_group_content(&GROUP, &leaf, 0, Some("late")));
    ended.expect("writes");
    assert_eq!(store.group_content(&GROUP, &leaf, 0).expect("reads"), GroupContentState::Gone);
}

#[test]
fn entries_that_are_fetched_and_not_told_yet_stay() {
    let dir = tempfile::tempdir().expect("a dir");
    let store = Store::open(dir.path()).expect("opens");
    store.set_group(&GROUP, &GroupRecord::default()).expect("writes");
    let mut chain: Vec<Block> = Vec::new();
    for n in 0..5 {
        let previous = chain.last().map(|block| *block.cid());
        let entry = Entry { previous, time: 1, body: Body::Text(n.to_string()) };
        chain.push(entry.to_block().expect("a block"));
    }
    store.put_many(&chain).expect("puts");
    let written = store.transaction(|batch| {
        batch.set_group_head(&GROUP, &LEAF, b"signed", Some(*chain[4].cid()))?;
        let progress = GroupProgress { told: 2, entry: Some(*chain[1].cid()), base: None };
        batch.set_group_progress(&GROUP, &LEAF, &progress)
    });
    written.expect("writes");
    assert_eq!(store.gc(&[], false).expect("collects").removed, 1, "that before the last one told has no row");
    assert!(!store.has(chain[0].cid()).expect("has"));
}

#[test]
fn so_many_gaps_are_remembered() {
    let dir = tempfile::tempdir().expect("a dir");
    let store = Store::open(dir.path()).expect("opens");
    let gap = |at| GroupGap { producer: ByteBuf::new(), session: 1, first: 1, last: 1, reason: String::new(), at };
    let put = |number| store.transaction(|batch| batch.put_group_gap(&GROUP, number, &gap(number))).expect("writes");
    let numbers = || store.group_gaps(&GROUP, 0, 9).expect("reads").iter().map(|row| row.0).collect::<Vec<_>>();
    let max = limits::MAX_GROUP_GAPS;
    put(0);
    put(max - 1);
    assert_eq!(numbers(), [0, max - 1]);
    put(max);
    assert_eq!((numbers(), store.group_gaps_end(&GROUP).expect("reads")), (vec![max - 1, max], max + 1));
}

#[test]
fn a_check_misses_entries_of_the_log_and_no_contents_that_wait() {
    let dir = tempfile::tempdir().expect("a dir");
    let store = Store::open(dir.path()).expect("opens");
    fill(&store, &GROUP);
    let entry = Entry { previous: Some(*block("a gap").cid()), time: 1, body: Body::Content(*block("waits").cid()) };
    let entry = entry.to_block().expect("a block");
    let row = GroupLogRow { entry: *entry.cid(), ..store.group_log(&GROUP, 0, 1).expect("reads")[0].1.clone() };
    store.put(&entry).expect("puts");
    store.transaction(|batch| batch.put_group_log(&GROUP, 1, &row)).expect("writes");
    assert!(store.verify(|_| ()).expect("checks").is_sound());
    let lost = GroupLogRow { entry: *block("lost").cid(), ..row };
    store.transaction(|batch| batch.put_group_log(&GROUP, 2, &lost)).expect("writes");
    assert_eq!(store.verify(|_| ()).expect("checks").missing_cids, [lost.entry]);
}
