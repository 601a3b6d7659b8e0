//! The fetching side against a server that sends what it likes.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::{bounded::BoundedVec, cbor};
use dagmesh_dag::{Block, Blockstore, Codec, HashCode, MemoryBlockstore, Root, Selector};
use dagmesh_dagsync::{End, Fetch, FetchConfig, Status, client::Step, message::Frame};
use ipld_core::ipld::Ipld;

use crate::input::Input;

/// Answers to the requests of a sync, frame by frame: right ones, blocks out of turn, of another DAG, damaged, missing
/// ones, any end. Whatever comes, the store holds blocks of the DAG alone, a sync that says it is done has all of it,
/// and each request brings something new or ends in an error.
pub fn fetch(data: &[u8]) {
    let mut input = Input::new(data);
    let (root, blocks) = dag();
    let known: BTreeSet<Cid> = blocks.iter().map(|block| *block.cid()).collect();
    let stranger = Block::new(Codec::Raw, HashCode::Sha2_256, &b"stranger"[..]).expect("a block");
    let store = Arc::new(MemoryBlockstore::new());
    let held = input.byte();
    for (at, block) in blocks.iter().enumerate().filter(|(at, _)| *at > 0 && held >> (at % 8) & 1 == 1) {
        assert!(at > 0);
        store.put(block).expect("puts");
    }
    let before = store.len();
    let config = FetchConfig { segment: Some(1 + u64::from(input.byte() % 20)), ..FetchConfig::default() };
    let whole = Root { cid: root, selector: Selector::all(), held: None };
    let mut fetch = Fetch::new(store.clone(), config.clone(), vec![(0, whole)], ());
    let mut provider = 0;
    'requests: while !input.is_empty() {
        let request = match fetch.next_request() {
            Ok(Some(request)) => request,
            Ok(None) if fetch.first_missing().is_some() => {
                // Another provider is asked for what this one did not hold.
                provider += 1;
                if provider > 8 || fetch.retry_missing() == 0 {
                    break;
                }
                continue;
            }
            Ok(None) => {
                assert!(blocks.iter().all(|block| store.has(block.cid()).expect("reads")), "done, and yet not whole");
                assert_eq!(store.len(), blocks.len());
                return;
            }
            Err(error) => panic!("our own walk failed: {error}"),
        };
        assert!(!request.roots.is_empty() && request.blocks <= config.segment.expect("set"));
        assert!(request.roots.iter().all(|root| known.contains(&root.cid)));
        let mut next = blocks.iter().position(|block| block.cid() == &request.roots[0].cid).expect("known");
        let mut brought = 0;
        loop {
            let kind = input.byte();
            let pick = &blocks[input.below(blocks.len())];
            let frame = match kind % 16 {
                // Used up: the server says it is done.
                0 => end(Status::Done, &[]),
                1..=7 => {
                    let block = &blocks[next.min(blocks.len() - 1)];
                    next += 1;
                    Frame::Block { cid: *block.cid(), data: block.data().clone() }
                }
                8 => Frame::Block { cid: *pick.cid(), data: pick.data().clone() },
                9 => Frame::Block { cid: *pick.cid(), data: Bytes::copy_from_slice(input.take(8)) },
                10 => Frame::Block { cid: *stranger.cid(), data: stranger.data().clone() },
                11 => Frame::Missing(*pick.cid()),
                12 => Frame::Missing(*blocks[next.min(blocks.len() - 1)].cid()),
                13 => end(Status::Segment, &[*pick.cid()]),
                14 => end(Status::Missing, &[]),
                _ => end([Status::Refused, Status::Busy, Status::Failed][input.below(3)], &[]),
            };
            let stats = fetch.stats();
            match fetch.on_frame(frame) {
                Ok(Step::More) => brought += fetch.stats().blocks - stats.blocks,
                Ok(Step::End(_)) => {
                    assert!(brought > 0 || fetch.first_missing().is_some() || fetch.stats().from_cache > 0);
                    continue 'requests;
                }
                Ok(Step::Enough) => panic!("nobody sent the walk elsewhere, nor cut it"),
                Err(error) => {
                    assert!(!error.is_fatal(), "a peer cannot break the sync for good: {error}");
                    // Asked again from where it stands, of another provider.
                    provider += 1;
                    if provider > 8 {
                        break 'requests;
                    }
                    let frontier = fetch.frontier();
                    fetch.checkpoint().expect("the store is well");
                    fetch = Fetch::new(store.clone(), config.clone(), frontier, ());
                    continue 'requests;
                }
            }
        }
    }
    fetch.checkpoint().expect("the store is well");
    assert!(!store.has(stranger.cid()).expect("reads"), "a block that nobody asked for is not stored");
    assert!(store.len() >= before && store.len() <= blocks.len());
    let stored = blocks.iter().filter_map(|block| store.verified_block(block.cid()).expect("reads"));
    assert_eq!(stored.count(), store.len(), "what is stored is of the DAG, and whole");
}

fn end(status: Status, frontier: &[Cid]) -> Frame {
    let frontier = BoundedVec::new(frontier).expect("a link or none");
    Frame::End(End { status, reason: None, blocks: 0, bytes: 0, frontier })
}

/// Twelve blocks in the order in which they are walked; some are linked from several places.
fn dag() -> (Cid, Vec<Block>) {
    let leaf = |text: &str| Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block");
    let node = |links: &[&Block]| {
        let links = Ipld::List(links.iter().map(|block| Ipld::Link(*block.cid())).collect());
        Block::new(Codec::DagCbor, HashCode::Sha2_256, cbor::to_vec(&links).expect("encodes")).expect("a block")
    };
    let [a, b, c, d, e, f] = ["a", "b", "c", "d", "e", "f"].map(leaf);
    let shared = node(&[&a, &b]);
    let left = node(&[&c, &shared]);
    let deep = node(&[&d]);
    let right = node(&[&shared, &deep, &e]);
    let chain = node(&[&f]);
    let root = node(&[&left, &right, &chain]);
    (*root.cid(), vec![root, left, c, shared, a, b, right, deep, d, e, chain, f])
}
