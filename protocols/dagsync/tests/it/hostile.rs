//! Providers that lie. Each test names its row of the table of hostile inputs.

use std::sync::Arc;

use crate::support::{duplex, endless, leaf, node};
use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{Block, Blockstore, MemoryBlockstore, selector::Selector, walk::Root};
use dagmesh_dagsync::{
    End, Fetch, FetchConfig, FetchError, Status,
    client::Step,
    message::{Frame, Request},
    server::{Producer, ServeBudget, serve},
};
use futures::{AsyncReadExt, AsyncWriteExt, future};
use futures_lite::future::block_on;

/// A root with two leaves, and a fetch of it that has made its first request.
fn fetch() -> (Block, [Block; 2], Arc<MemoryBlockstore>, Fetch<()>) {
    let leaves = [leaf("one"), leaf("two")];
    let root = node("root", &[*leaves[0].cid(), *leaves[1].cid()]);
    let (store, fetch) = fetch_of(*root.cid(), None);
    (root, leaves, store, fetch)
}

fn fetch_of(cid: Cid, segment: Option<u64>) -> (Arc<MemoryBlockstore>, Fetch<()>) {
    let store = Arc::new(MemoryBlockstore::new());
    let roots = vec![(0, Root { cid, selector: Selector::all(), held: None })];
    let config = FetchConfig { segment, ..FetchConfig::default() };
    let mut fetch = Fetch::new(store.clone(), config, roots, ());
    fetch.next_request().expect("a store").expect("a request");
    (store, fetch)
}

fn sent(block: &Block) -> Frame {
    Frame::Block { cid: *block.cid(), data: block.data().clone() }
}

fn done() -> Frame {
    Frame::End(End::without(Status::Done, ""))
}

#[test]
fn row_1_a_block_that_does_not_match_its_cid_is_refused_and_nothing_of_it_stored() {
    let (root, leaves, store, mut fetch) = fetch();
    fetch.on_frame(sent(&root)).expect("is taken");
    let false_block = Frame::Block { cid: *leaves[0].cid(), data: Bytes::from_static(b"false") };
    let error = fetch.on_frame(false_block).expect_err("is refused");
    assert!(matches!(error, FetchError::FalseBlock(_)), "{error}");
    assert!(error.is_bad_peer());
    fetch.checkpoint().expect("keeps what was good");
    assert_eq!(store.len(), 1);
    // Another provider goes on with the same fetch.
    let request = fetch.next_request().expect("a store").expect("a request");
    assert_eq!(request.roots.first().map(|root| root.cid), Some(*leaves[0].cid()));
    fetch.on_frame(sent(&leaves[0])).expect("is taken");
    fetch.on_frame(sent(&leaves[1])).expect("is taken");
    assert!(matches!(fetch.on_frame(done()).expect("ends"), Step::End(_)));
    assert_eq!(fetch.next_request().expect("a store"), None);
    assert_eq!(store.len(), 3);
}

#[test]
fn row_2_and_3_a_frame_over_the_limit_is_refused_from_its_prefix() {
    block_on(async {
        for claimed in [limits::MAX_RESPONSE_FRAME_BYTES as u64 + 1, u64::MAX >> 1] {
            let (_, _, store, fetch) = fetch();
            let (ours, mut theirs) = duplex(&endless());
            let hostile = async move {
                let mut request = [0; 16];
                theirs.read_exact(&mut request).await.expect("reads");
                let mut prefix = unsigned_varint::encode::u64_buffer();
                theirs.write_all(unsigned_varint::encode::u64(claimed, &mut prefix)).await.expect("writes");
                // Never a body: whoever waits for it waits in vain.
                theirs.flush().await.expect("flushes");
                theirs
            };
            let (_held_open, (fetch, result)) =
                future::join(hostile, dagmesh_dagsync::transfer::segment(future::ready(Ok(ours)), fetch)).await;
            let error = result.expect_err("is refused");
            assert!(error.to_string().contains("at most"), "{error}");
            assert!(fetch.is_some());
            assert_eq!(store.len(), 0);
        }
    });
}

#[test]
fn row_13_to_15_cids_that_prove_nothing_are_refused() {
    let sha1 = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x11, &[1; 20]).expect("fits"));
    let short = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x12, &[1; 16]).expect("fits"));
    for weak in [sha1, short] {
        let root = node("root", &[weak]);
        let (_, mut fetch) = fetch_of(*root.cid(), None);
        fetch.on_frame(sent(&root)).expect("is taken");
        let error = fetch.on_frame(Frame::Block { cid: weak, data: Bytes::new() }).expect_err("is refused");
        assert!(error.is_fatal() && !error.is_bad_peer(), "the DAG is wrong, whoever sends it: {error}");
        let error = fetch.next_request().expect_err("is not even asked for");
        assert!(error.is_fatal() && !error.is_bad_peer(), "{error}");
    }
    let over = [&[1u8, 1, 0x55, 0x12, 0xa9, 0x01][..], &[0; 169]].concat();
    assert!(Frame::decode(Bytes::from(over)).is_err(), "a digest of 169 bytes");
    let endless = [&[1u8][..], &[0xff; 12]].concat();
    assert!(Frame::decode(Bytes::from(endless)).is_err(), "a varint without end");
}

#[test]
fn row_16_a_block_nobody_asked_for_ends_it() {
    let (root, _, store, mut fetch) = fetch();
    fetch.on_frame(sent(&root)).expect("is taken");
    let error = fetch.on_frame(sent(&leaf("unasked"))).expect_err("is refused");
    assert!(matches!(error, FetchError::Unasked { .. }), "{error}");
    assert!(error.is_bad_peer());
    fetch.checkpoint().expect("keeps what was good");
    assert!(!store.has(leaf("unasked").cid()).expect("has"));
}

#[test]
fn row_16_blocks_sent_again_are_passed_over_up_to_a_budget() {
    let (root, leaves, store, mut fetch) = fetch();
    fetch.on_frame(sent(&root)).expect("is taken");
    fetch.on_frame(sent(&leaves[0])).expect("is taken");
    for _ in 0..limits::MAX_REPEATED_BLOCKS {
        fetch.on_frame(sent(&root)).expect("is passed over");
    }
    let error = fetch.on_frame(sent(&root)).expect_err("one too many");
    assert!(matches!(error, FetchError::Repeated(_)), "{error}");
    assert_eq!(fetch.stats().blocks, 2);
    fetch.checkpoint().expect("keeps what was good");
    assert_eq!(store.len(), 2);
}

#[test]
fn row_16_more_blocks_than_asked_for_end_it() {
    let leaves: Vec<_> = (0..5).map(|i| leaf(&i.to_string())).collect();
    let root = node("root", &leaves.iter().map(|leaf| *leaf.cid()).collect::<Vec<_>>());
    let (_, mut fetch) = fetch_of(*root.cid(), Some(3));
    for block in [&root, &leaves[0], &leaves[1]] {
        fetch.on_frame(sent(block)).expect("is taken");
    }
    let error = fetch.on_frame(sent(&leaves[2])).expect_err("a fourth");
    assert!(matches!(error, FetchError::OverBudget(3)), "{error}");
}

#[test]
fn row_17_a_child_withheld_is_found_and_nothing_is_called_whole() {
    let (root, leaves, _, mut fetch) = fetch();
    fetch.on_frame(sent(&root)).expect("is taken");
    // The root was sent, so this answer counts; the child is asked for by itself.
    fetch.on_frame(done()).expect("ends");
    let request = fetch.next_request().expect("a store").expect("not whole");
    assert_eq!(request.roots.first().map(|root| root.cid), Some(*leaves[0].cid()));
    let error = fetch.on_frame(done()).expect_err("withheld");
    assert!(matches!(&error, FetchError::Withheld(cid) if **cid == *leaves[0].cid()), "{error}");
    assert!(error.is_bad_peer());
}

#[test]
fn row_17_missing_frames_without_end_are_bounded() {
    let (root, leaves, _, mut fetch) = fetch();
    fetch.on_frame(sent(&root)).expect("is taken");
    let strange = *leaf("strange").cid();
    let error = (0..=limits::MAX_REPEATED_BLOCKS + 1)
        .find_map(|_| fetch.on_frame(Frame::Missing(strange)).err())
        .expect("an end to it");
    assert!(matches!(error, FetchError::Repeated(_)), "{error}");
    assert!(fetch.first_missing().is_none());
    drop(leaves);
}

#[test]
fn row_8_a_block_with_too_many_links_is_an_error_and_stays_out() {
    let links = vec![*leaf("x").cid(); limits::MAX_LINKS_PER_BLOCK + 1];
    // 2.7 MB of links do not even fit a block; as many identity links of few bytes do.
    let tiny =
        Block::inline(&Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0, b"").expect("fits"))).expect("inline");
    let root = node("root", &vec![*tiny.cid(); links.len()]);
    let (store, mut fetch) = fetch_of(*root.cid(), None);
    let error = fetch.on_frame(sent(&root)).expect_err("too many links");
    assert!(error.to_string().contains("links"), "{error}");
    assert_eq!(store.len(), 0);
}

#[test]
fn a_server_keeps_its_own_budget_and_names_the_frontier() {
    let store = Arc::new(MemoryBlockstore::new());
    let leaves: Vec<_> = (0..5).map(|i| leaf(&i.to_string())).collect();
    let root = node("root", &leaves.iter().map(|leaf| *leaf.cid()).collect::<Vec<_>>());
    store.put_many(&leaves).expect("puts");
    store.put(&root).expect("puts");
    let request = Request {
        chain: None,
        roots: vec![Root { cid: *root.cid(), selector: Selector::all(), held: None }],
        stop: vec![*leaves[3].cid()],
        depth: None,
        blocks: u64::MAX,
        bytes: u64::MAX,
    };
    let mut producer = Producer::new(store, request, ServeBudget { blocks: 3, bytes: u64::MAX });
    let end = producer.fill(&mut Vec::new(), 1 << 20).expect("an end");
    assert_eq!((end.status, end.blocks), (Status::Segment, 3));
    assert_eq!(end.frontier.to_vec(), [*leaves[2].cid(), *leaves[4].cid()], "the stop link is not in it");
}

#[test]
fn garbage_for_a_request_is_refused_with_the_reason() {
    block_on(async {
        let (mut ours, theirs) = duplex(&endless());
        let store = Arc::new(MemoryBlockstore::new());
        let client = async move {
            let mut request = Vec::new();
            dagmesh_core::frame::append(&mut request, &[b"garbage"]);
            ours.write_all(&request).await.expect("writes");
            let mut answer = Vec::new();
            ours.read_to_end(&mut answer).await.expect("reads");
            Frame::decode(Bytes::from(answer).slice(1..)).expect("a frame")
        };
        let (served, answer) = future::join(serve(theirs, store, ServeBudget::default()), client).await;
        assert!(served.is_err());
        match answer {
            Frame::End(end) => {
                assert_eq!(end.status, Status::Refused);
                assert!(end.reason().contains("DAG-CBOR"), "{}", end.reason());
            }
            other => panic!("{other:?}"),
        }
    });
}
