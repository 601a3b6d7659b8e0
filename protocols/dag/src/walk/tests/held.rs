//! Pruning beside what the receiver holds.

use super::*;

fn pb(links: &[(&str, Cid)]) -> Block {
    let links =
        links.iter().map(|(name, cid)| ipld_dagpb::PbLink { cid: *cid, name: Some((*name).to_owned()), size: Some(1) });
    let node = ipld_dagpb::PbNode { links: links.collect(), data: None };
    Block::new(Codec::DagPb, HashCode::Sha2_256, node.into_bytes()).expect("a block")
}

fn beside(store: &MemoryBlockstore, new: Cid, held: Cid) -> Vec<Cid> {
    cids(store, [Root { cid: new, selector: Selector::all(), held: Some(held) }])
}

#[test]
fn a_root_that_is_held_is_passed_over() {
    let store = MemoryBlockstore::new();
    let top = put(&store, dag_cbor(&list([])));
    assert_eq!(beside(&store, top, top), []);
}

#[test]
fn one_changed_file_is_sent_with_the_folders_above_it_and_nothing_else() {
    let store = MemoryBlockstore::new();
    let folder = |changed: Option<usize>| {
        let folders: Vec<_> = (0..20)
            .map(|f| {
                let files: Vec<_> = (0..20)
                    .map(|n| {
                        let text = if changed == Some(f * 20 + n) { "changed".into() } else { format!("{f} {n}") };
                        (format!("{n:02}"), put(&store, raw(&text)))
                    })
                    .collect();
                let files: Vec<_> = files.iter().map(|(name, cid)| (name.as_str(), *cid)).collect();
                (format!("{f:02}"), put(&store, pb(&files)))
            })
            .collect();
        let folders: Vec<_> = folders.iter().map(|(name, cid)| (name.as_str(), *cid)).collect();
        put(&store, pb(&folders))
    };
    let (old, new) = (folder(None), folder(Some(77)));
    let sent = beside(&store, new, old);
    assert_eq!(sent.len(), 3, "the root, one folder, one file");
    assert_eq!(sent.last(), Some(raw("changed").cid()));
}

#[test]
fn what_was_inserted_before_the_rest_does_not_send_the_rest() {
    let store = MemoryBlockstore::new();
    let items: Vec<_> = (0..50).map(|n| put(&store, dag_cbor(&list([put(&store, raw(&n.to_string()))])))).collect();
    let old = put(&store, dag_cbor(&list(items.clone())));
    let added = put(&store, dag_cbor(&map([("new", Ipld::Null)])));
    let new = put(&store, dag_cbor(&list([vec![added], items].concat())));
    assert_eq!(beside(&store, new, old), [new, added]);
}

#[test]
fn both_codecs_of_a_changed_node_are_compared_place_by_place() {
    let store = MemoryBlockstore::new();
    let [a, b, c] = ["a", "b", "c"].map(|text| put(&store, raw(text)));
    let inner = |x, y| put(&store, dag_cbor(&map([("x", Ipld::Link(x)), ("y", Ipld::Link(y))])));
    let (old_inner, new_inner) = (inner(a, b), inner(a, c));
    let deep = |cid| dag_cbor(&map([("list", Ipld::List(vec![Ipld::Null, Ipld::Link(cid)]))]));
    let (old, new) = (put(&store, deep(old_inner)), put(&store, deep(new_inner)));
    assert_eq!(beside(&store, new, old), [new, new_inner, c]);
    let selector = Selector::from_json(r#"{"R":{"l":{"depth":9},":>":{"|":[{"a":{">":{"@":{}}}},{".":{}}]}}}"#);
    let general = Root { cid: new, selector: selector.expect("a selector"), held: Some(old) };
    assert_eq!(cids(&store, [general]), [new, new_inner, c], "the interpreter prunes as the fast path does");
}

#[test]
fn without_the_held_block_at_hand_nothing_is_pruned() {
    let store = MemoryBlockstore::new();
    let leaf = put(&store, raw("leaf"));
    let (old, new) = (put(&store, dag_cbor(&list([leaf]))), dag_cbor(&map([("a", Ipld::Link(leaf))])));
    let held = Root { cid: *new.cid(), selector: Selector::all(), held: Some(old) };
    let mut walk = Walk::new(WalkConfig::default(), vec![held]);
    let visit = walk.next_visit().expect("the root");
    assert_eq!(visit.held, Some(old));
    walk.enter(&visit, &new, None).expect("enters");
    assert_eq!(walk.next_visit().map(|visit| (visit.cid, visit.held)), Some((leaf, None)));
}

#[test]
fn a_frontier_keeps_what_is_held_beside_each_link() {
    let store = MemoryBlockstore::new();
    let node = |text: &str| put(&store, dag_cbor(&list([put(&store, raw("same")), put(&store, raw(text))])));
    let old = put(&store, dag_cbor(&list([node("1"), node("2")])));
    let new = put(&store, dag_cbor(&list([node("3"), node("4")])));
    let whole = beside(&store, new, old);
    assert_eq!(whole.len(), 5, "what is the same is passed over");
    for cut in 0..=whole.len() {
        let mut walk =
            Walk::new(WalkConfig::default(), vec![Root { cid: new, selector: Selector::all(), held: Some(old) }]);
        let mut found: Vec<_> = (0..cut).map(|_| step(&store, &mut walk).expect("a visit").cid).collect();
        found.extend(cids(&store, walk.frontier()));
        assert_eq!(found, whole);
    }
}
