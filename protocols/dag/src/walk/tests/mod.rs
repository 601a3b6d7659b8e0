//! What a walk visits, in what order, within which bounds.

mod held;
mod random;
mod selectors;

use std::collections::BTreeMap;

use cid::Cid;
use dagmesh_core::{cbor, limits};
use ipld_core::ipld::Ipld;

use super::*;
use crate::{Blockstore, HashCode, MemoryBlockstore};

pub(super) fn raw(text: &str) -> Block {
    Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block")
}

pub(super) fn dag_cbor(value: &Ipld) -> Block {
    Block::new(Codec::DagCbor, HashCode::Sha2_256, cbor::to_vec(value).expect("encodes")).expect("a block")
}

pub(super) fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Ipld)>) -> Ipld {
    Ipld::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<BTreeMap<_, _>>())
}

pub(super) fn list(cids: impl IntoIterator<Item = Cid>) -> Ipld {
    Ipld::List(cids.into_iter().map(Ipld::Link).collect())
}

pub(super) fn root(cid: Cid, selector: Selector) -> Root {
    Root { cid, selector, held: None }
}

/// Stores a block and gives its CID.
pub(super) fn put(store: &MemoryBlockstore, block: Block) -> Cid {
    store.put(&block).expect("puts");
    *block.cid()
}

/// The visits of a walk over what the store holds.
pub(super) fn visits(store: &MemoryBlockstore, mut walk: Walk) -> Vec<Visit> {
    std::iter::from_fn(|| step(store, &mut walk)).collect()
}

/// One visit, entered.
pub(super) fn step(store: &MemoryBlockstore, walk: &mut Walk) -> Option<Visit> {
    let visit = walk.next_visit()?;
    let block = store.block(&visit.cid).expect("gets").expect("held");
    let held = visit.held.map(|held| store.block(&held).expect("gets").expect("held"));
    walk.enter(&visit, &block, held.as_ref()).expect("enters");
    Some(visit)
}

pub(super) fn cids(store: &MemoryBlockstore, roots: impl IntoIterator<Item = Root>) -> Vec<Cid> {
    let walk = Walk::new(WalkConfig::default(), roots.into_iter().collect());
    visits(store, walk).into_iter().map(|visit| visit.cid).collect()
}

/// A chain of `len` blocks over the field `next`, newest first.
pub(super) fn chain(store: &MemoryBlockstore, len: usize) -> Vec<Cid> {
    let mut chain = Vec::new();
    let mut blocks = Vec::new();
    for index in 0..len {
        let next = chain.last().map_or(Ipld::Null, |cid| Ipld::Link(*cid));
        let block = dag_cbor(&map([("next", next), ("n", Ipld::Integer(index as i128))]));
        chain.push(*block.cid());
        blocks.push(block);
    }
    store.put_many(&blocks).expect("puts");
    chain.reverse();
    chain
}

#[test]
fn parents_come_before_children_and_links_in_the_order_of_the_block() {
    let store = MemoryBlockstore::new();
    let [a, b, c] = ["a", "b", "c"].map(|text| put(&store, raw(text)));
    let left = put(&store, dag_cbor(&list([b, a])));
    let right = put(&store, dag_cbor(&map([("long", Ipld::Link(a)), ("z", Ipld::Link(c))])));
    let top = put(&store, dag_cbor(&list([left, right])));
    let found = visits(&store, Walk::new(WalkConfig::default(), vec![root(top, Selector::all())]));
    assert_eq!(found.iter().map(|visit| visit.cid).collect::<Vec<_>>(), [top, left, b, a, right, c]);
    assert_eq!(found.iter().map(|visit| visit.depth).collect::<Vec<_>>(), [0, 1, 2, 2, 1, 2]);
}

#[test]
fn a_chain_of_100_000_blocks_is_walked() {
    let store = MemoryBlockstore::new();
    let expected = chain(&store, 100_000);
    for selector in [Selector::all(), Selector::chain("next", None, None)] {
        assert_eq!(cids(&store, [root(expected[0], selector)]), expected);
    }
}

#[test]
fn a_dag_with_2_to_the_n_paths_is_visited_once_a_block() {
    let store = MemoryBlockstore::new();
    let mut top = put(&store, raw("bottom"));
    for _ in 0..64 {
        top = put(&store, dag_cbor(&list([top, top])));
    }
    assert_eq!(cids(&store, [root(top, Selector::all())]).len(), 65);
    assert_eq!(cids(&store, [root(top, Selector::all_until(Some(1000), None))]).len(), 65);
    assert_eq!(cids(&store, [root(top, Selector::all_until(None, Some(*raw("other").cid())))]).len(), 65);
}

#[test]
fn a_depth_of_n_is_n_blocks_of_a_chain() {
    let store = MemoryBlockstore::new();
    let expected = chain(&store, 10);
    for depth in [0, 1, 2, 9, 10, 11] {
        let config = WalkConfig { depth: Some(depth), ..WalkConfig::default() };
        let found = visits(&store, Walk::new(config, vec![root(expected[0], Selector::all())]));
        assert_eq!(found.len() as u64, depth.min(10));
        let limited = Selector::chain("next", Some(depth), None);
        assert_eq!(cids(&store, [root(expected[0], limited)]).len() as u64, depth.min(10));
    }
}

#[test]
fn a_block_reached_again_at_less_depth_is_entered_again() {
    let store = MemoryBlockstore::new();
    let leaf = put(&store, raw("leaf"));
    let shared = put(&store, dag_cbor(&list([leaf])));
    let long = put(&store, dag_cbor(&list([shared])));
    let top = put(&store, dag_cbor(&list([long, shared])));
    let config = WalkConfig { depth: Some(3), ..WalkConfig::default() };
    let found = visits(&store, Walk::new(config, vec![root(top, Selector::all())]));
    assert_eq!(found.iter().map(|visit| visit.cid).collect::<Vec<_>>(), [top, long, shared, shared, leaf]);
    let steps = Selector::all_until(Some(3), None);
    assert_eq!(cids(&store, [root(top, steps)]), [top, long, shared, shared, leaf]);
}

#[test]
fn a_stop_link_is_never_returned_be_it_a_root() {
    let store = MemoryBlockstore::new();
    let all = chain(&store, 10);
    let config = WalkConfig { stop: HashSet::from([all[4]]), ..WalkConfig::default() };
    let found = visits(&store, Walk::new(config.clone(), vec![root(all[0], Selector::all())]));
    assert_eq!(found.len(), 4);
    assert_eq!(Walk::new(config, vec![root(all[4], Selector::all())]).next_visit(), None);
    for selector in [Selector::chain("next", None, Some(all[4])), Selector::all_until(None, Some(all[4]))] {
        assert_eq!(cids(&store, [root(all[0], selector.clone())]), all[..4]);
        assert_eq!(cids(&store, [root(all[4], selector)]), []);
    }
}

#[test]
fn a_visit_of_a_root_comes_after_all_of_the_roots_before_it() {
    let store = MemoryBlockstore::new();
    let (first, second) = (chain(&store, 5), put(&store, dag_cbor(&list([*raw("x").cid()]))));
    put(&store, raw("x"));
    let roots = vec![root(first[0], Selector::all()), root(second, Selector::all())];
    let found = visits(&store, Walk::new(WalkConfig::default(), roots));
    assert_eq!(found.iter().map(|visit| visit.root).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 1, 1]);
}

#[test]
fn inline_content_is_entered_and_not_returned() {
    let store = MemoryBlockstore::new();
    let leaf = put(&store, raw("leaf"));
    let inline = Block::new(Codec::DagCbor, HashCode::Identity, cbor::to_vec(&list([leaf])).expect("encodes"));
    let inline = *inline.expect("a block").cid();
    let top = put(&store, dag_cbor(&list([inline, inline])));
    assert_eq!(cids(&store, [root(top, Selector::all())]), [top, leaf]);
    assert_eq!(cids(&store, [root(inline, Selector::all())]), [leaf]);

    let broken = Cid::new_v1(Codec::DagCbor as u64, HashCode::Identity.digest(&[0xff]).expect("short"));
    let mut walk = Walk::new(WalkConfig::default(), vec![root(broken, Selector::all())]);
    let visit = walk.next_visit().expect("what cannot be read is returned");
    let block = Block::inline(&visit.cid).expect("inline");
    assert!(matches!(walk.enter(&visit, &block, None), Err(WalkError::Links(_))));
}

#[test]
fn inline_content_of_one_prefix_is_told_apart() {
    let mut visited = Visited::default();
    for content in ["sixteen bytes are the same", "sixteen bytes are the same, then not"] {
        let block = Block::new(Codec::Raw, HashCode::Identity, content.as_bytes().to_vec()).expect("a block");
        assert!(visited.mark(block.cid(), &Selector::all(), None));
        assert!(!visited.mark(block.cid(), &Selector::all(), None));
    }
}

#[test]
fn one_content_under_two_codecs_is_two_visits() {
    let store = MemoryBlockstore::new();
    let leaf = put(&store, raw("leaf"));
    let node = put(&store, dag_cbor(&list([leaf])));
    let bytes = Cid::new_v1(Codec::Raw as u64, *node.hash());
    let top = put(&store, dag_cbor(&list([bytes, node])));
    assert_eq!(cids(&store, [root(top, Selector::all())]), [top, bytes, node, leaf]);
}

#[test]
fn a_block_is_entered_at_the_link_cap_and_refused_beyond_it() {
    // Only links this short fit a block in such numbers.
    let leaf = *Block::new(Codec::Raw, HashCode::Identity, &b""[..]).expect("a block").cid();
    for selector in [Selector::all(), Selector::each(Selector::matcher()).expect("small")] {
        let block = dag_cbor(&list(vec![leaf; limits::MAX_LINKS_PER_BLOCK]));
        let mut walk = Walk::new(WalkConfig::default(), vec![root(*block.cid(), selector.clone())]);
        let visit = walk.next_visit().expect("the root");
        assert_eq!(walk.enter(&visit, &block, None), Ok(()));
        assert_eq!(walk.waiting(), limits::MAX_LINKS_PER_BLOCK);

        let block = dag_cbor(&list(vec![leaf; limits::MAX_LINKS_PER_BLOCK + 1]));
        let mut walk = Walk::new(WalkConfig::default(), vec![root(*block.cid(), selector)]);
        let visit = walk.next_visit().expect("the root");
        assert!(matches!(walk.enter(&visit, &block, None), Err(WalkError::Links(_))));
        assert_eq!(walk.waiting(), 0);
    }
}

#[test]
fn links_wait_up_to_the_frontier_cap_and_no_further() {
    let links: Vec<_> = (0..8).map(|n| *raw(&n.to_string()).cid()).collect();
    let block = dag_cbor(&list(links));
    for (max_frontier, taken) in [(8, true), (7, false)] {
        let config = WalkConfig { max_frontier, ..WalkConfig::default() };
        let mut walk = Walk::new(config, vec![root(*block.cid(), Selector::all())]);
        let visit = walk.next_visit().expect("the root");
        match walk.enter(&visit, &block, None) {
            Ok(()) => assert!(taken && walk.waiting() == 8),
            Err(error) => {
                assert!(!taken && walk.waiting() == 0);
                assert_eq!(error, WalkError::Frontier { cid: Box::new(visit.cid), max: 7 });
            }
        }
    }
}

#[test]
fn blocks_are_visited_up_to_the_cap_and_no_further() {
    let store = MemoryBlockstore::new();
    let all = chain(&store, 5);
    for (max_visited, taken) in [(5, true), (4, false)] {
        let config = WalkConfig { max_visited, ..WalkConfig::default() };
        let mut walk = Walk::new(config, vec![root(all[0], Selector::all())]);
        for _ in 0..4 {
            step(&store, &mut walk).expect("within the cap");
        }
        let visit = walk.next_visit().expect("the fifth");
        let block = store.block(&visit.cid).expect("gets").expect("held");
        let cap = WalkError::Visited { cid: Box::new(visit.cid), max: max_visited };
        assert_eq!(walk.enter(&visit, &block, None), if taken { Ok(()) } else { Err(cap) });
    }
}

#[test]
fn another_block_than_the_one_asked_for_is_refused() {
    let (wanted, other) = (raw("wanted"), raw("other"));
    let mut walk = Walk::new(WalkConfig::default(), vec![root(*wanted.cid(), Selector::all())]);
    let visit = walk.next_visit().expect("the root");
    assert!(matches!(walk.enter(&visit, &other, None), Err(WalkError::WrongBlock { .. })));
    assert!(matches!(walk.enter(&visit, &wanted, Some(&other)), Err(WalkError::WrongBlock { .. })));
}

#[test]
fn a_closure_names_what_is_missing_and_goes_on() {
    let store = MemoryBlockstore::new();
    let (here, gone) = (put(&store, raw("here")), *raw("gone").cid());
    let broken = put(&store, Block::new(Codec::DagCbor, HashCode::Sha2_256, vec![0xff]).expect("a block"));
    let top = put(&store, dag_cbor(&list([gone, broken, here])));
    let found: Vec<_> = closure(&store, [top]).collect();
    let [Ok(Found::Block(first)), Ok(Found::Missing(missing)), Err(error), Ok(Found::Block(last))] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((*first.cid(), *missing, *last.cid()), (top, gone, here));
    assert!(error.to_string().contains(&broken.to_string()), "{error}");

    let reached: Vec<_> = closure_cids(&store, [top]).filter_map(Result::ok).collect();
    let expected = [(top, true), (gone, false), (here, true)].map(|(cid, held)| Reached { cid, held });
    assert_eq!(reached, expected);
}

#[test]
fn a_million_visited_links_take_less_than_64_mib() {
    let mut visited = Visited::default();
    let chain = Selector::chain("next", None, None);
    for index in 0..1_000_000u64 {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&index.to_be_bytes());
        let hash = cid::multihash::Multihash::wrap(HashCode::Sha2_256 as u64, &digest).expect("fits");
        let cid = Cid::new_v1(Codec::DagCbor as u64, hash);
        assert!(visited.mark(&cid, &Selector::all(), None) && visited.mark(&cid, &chain, None));
    }
    let (plain, states) = visited.bytes();
    assert!(plain < 64 * 1024 * 1024 && states < 64 * 1024 * 1024, "{plain} and {states} bytes");
}
