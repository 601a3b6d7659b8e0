//! Memberships and what belongs to them.

use dagmesh_core::limits;
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
    let waits = |leaf, index| store.group_content_waits(&GROUP, leaf, index).expect("reads");
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
    assert_eq!((waits(&LEAF, 0), waits(&LEAF, 5), waits(&later, 6)), (false, true, true));
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
