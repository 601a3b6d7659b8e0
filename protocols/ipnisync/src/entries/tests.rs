use dagmesh_core::limits::{DEFAULT_IPNI_CHUNK_ENTRIES, MAX_IPNI_HAMT_FANOUT};
use proptest::prelude::*;

use super::*;

const CODECS: [Codec; 2] = [Codec::DagJson, Codec::DagCbor];

fn multihash(n: usize) -> Multihash<64> {
    HashCode::Sha2_256.digest(&n.to_le_bytes()).expect("hashes")
}

/// Reads a chain from its newest block on; the blocks come in the order in which they were made.
fn read(blocks: &[Block]) -> Vec<Multihash<64>> {
    let mut next = blocks.last().map(|block| *block.cid());
    let mut read = Vec::new();
    for block in blocks.iter().rev() {
        assert_eq!(next, Some(*block.cid()));
        let chunk = EntryChunk::from_block(block).expect("a chunk");
        read.splice(0..0, chunk.multihashes());
        next = chunk.next;
    }
    assert_eq!(next, None, "the first one made is the last of the chain");
    read
}

fn chain(count: usize, codec: Codec, max_entries: usize) -> Vec<Block> {
    Chunks::new((0..count).map(multihash), codec, max_entries).collect::<Result<_, _>>().expect("blocks")
}

#[test]
fn a_chain_holds_all_multihashes_in_chunks_of_the_number_that_was_asked_for() {
    for codec in CODECS {
        for (count, per_chunk, chunks) in [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (8, 4, 2), (3, 0, 3)] {
            let blocks = chain(count, codec, per_chunk);
            assert_eq!(blocks.len(), chunks, "{count} by {per_chunk}");
            assert_eq!(read(&blocks), (0..count).map(multihash).collect::<Vec<_>>());
            assert!(blocks.iter().all(|block| block.cid().codec() == codec as u64));
        }
    }
}

#[test]
fn a_chunk_of_the_usual_number_fits_one_block() {
    for codec in CODECS {
        let blocks = chain(DEFAULT_IPNI_CHUNK_ENTRIES, codec, DEFAULT_IPNI_CHUNK_ENTRIES);
        assert_eq!(blocks.len(), 1);
    }
}

#[test]
fn a_chunk_is_closed_before_its_block_is_too_large() {
    let long = || (0..40_000).map(|n: usize| HashCode::Sha2_512.digest(&n.to_le_bytes()).expect("hashes"));
    for codec in CODECS {
        let blocks: Vec<_> =
            Chunks::new(long(), codec, usize::MAX).collect::<Result<_, _>>().expect("blocks within the cap");
        assert!(blocks.len() > 1);
        let full = &blocks[0];
        assert!(full.data().len() > MAX_BLOCK_BYTES - 1024, "{} bytes", full.data().len());
        assert!(read(&blocks).into_iter().eq(long()));
    }
}

#[test]
fn a_codec_that_the_network_does_not_use_ends_the_chain_at_once() {
    let mut chunks = Chunks::new((0..9).map(multihash), Codec::DagPb, 2);
    assert_eq!(chunks.next(), Some(Err(IpniError::Codec(0x70))));
    assert_eq!(chunks.next(), None);
}

#[test]
fn entries_that_are_no_multihashes_are_passed_over_and_kept() {
    let good = multihash(1).to_bytes();
    let entries = vec![vec![], good[..20].to_vec(), good.clone(), [&good[..], &[0]].concat(), vec![0x12]];
    let chunk = EntryChunk { entries, next: None };
    for codec in CODECS {
        let read = EntryChunk::from_block(&chunk.to_block(codec).expect("a block")).expect("a chunk");
        assert_eq!(read, chunk);
        assert_eq!(read.multihashes().collect::<Vec<_>>(), [multihash(1)]);
    }
}

#[test]
fn entries_are_taken_at_the_cap_and_refused_one_over_it() {
    let max = MAX_IPNI_CHUNK_ENTRIES;
    let chunk = |len: usize| EntryChunk { entries: vec![vec![]; len], next: None };
    let bytes = |len: usize| wire::encode(WHAT, Codec::DagCbor, &chunk(len), usize::MAX).expect("encodes");
    assert_eq!(EntryChunk::decode(Codec::DagCbor, &bytes(max)).expect("fits").entries.len(), max);
    let error = EntryChunk::decode(Codec::DagCbor, &bytes(max + 1)).expect_err("too many");
    assert!(error.to_string().contains("at most 65536"), "{error}");
    assert!(chunk(max).encode(Codec::DagCbor).is_ok());
    assert!(matches!(chunk(max + 1).encode(Codec::DagCbor), Err(IpniError::OverCap { .. })));
}

#[test]
fn a_chunk_is_taken_at_the_cap_of_a_block_and_refused_one_byte_over_it() {
    let padded = |len: usize| [&br#"{"Entries":[]}"#[..], &b" ".repeat(len - 14)].concat();
    assert!(EntryChunk::decode(Codec::DagJson, &padded(MAX_BLOCK_BYTES)).is_ok());
    let over = EntryChunk::decode(Codec::DagJson, &padded(MAX_BLOCK_BYTES + 1));
    assert!(matches!(over, Err(IpniError::OverCap { .. })));
}

fn hamt(elements: &str) -> Result<HamtNode, IpniError> {
    let text = format!(r#"{{"bucketSize":2,"hamt":[{{"/":{{"bytes":"/w"}}}},[{elements}]],"hashAlg":34}}"#);
    HamtNode::root_from_block(&Block::new(Codec::DagJson, HashCode::Sha2_256, text.into_bytes()).expect("a block"))
}

#[test]
fn a_hamt_node_tells_its_keys_and_links_and_other_kinds_are_refused() {
    let link = Cid::new_v1(0x0129, multihash(0));
    let key = r#"{"/":{"bytes":"EgEA"}}"#;
    let good = format!(r#"[[{key},true]],{{"/":"{link}"}},[[{key},{{"a":[1]}}],[{key},null]]"#);
    let node = hamt(&good).expect("a node");
    assert_eq!((node.entries.len(), &node.links[..]), (3, &[link][..]));
    assert_eq!(node.multihashes().count(), 3);
    for bad in
        ["1", "null", "[1]", "[[]]", "{}", r#""x""#, &format!("[[{key}]]"), &format!("[[{key},1,2]]"), "[[1,true]]"]
    {
        assert!(matches!(hamt(bad), Err(IpniError::Form { .. })), "{bad} was taken");
    }
}

#[test]
fn elements_of_a_hamt_node_and_keys_of_a_bucket_are_taken_at_the_cap_and_refused_one_over_it() {
    let elements = |len: usize| vec!["[]"; len].join(",");
    let keys = |len: usize| format!("[{}]", vec![r#"[{"/":{"bytes":"EgEA"}},true]"#; len].join(","));
    let (fits, over) = (MAX_IPNI_HAMT_FANOUT, MAX_IPNI_HAMT_FANOUT + 1);
    assert!(hamt(&elements(fits)).is_ok());
    assert_eq!(hamt(&keys(fits)).expect("fits").entries.len(), fits);
    for error in [hamt(&elements(over)), hamt(&keys(over))] {
        assert!(matches!(&error, Err(IpniError::Form { reason, .. }) if reason.contains("at most 1024")), "{error:?}");
    }
}

#[test]
fn entries_are_a_chunk_or_a_hamt_and_nothing_else() {
    let block = |text: &str| Block::new(Codec::DagJson, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block");
    let read = |text: &str| Entries::from_block(&block(text));
    assert!(matches!(read(r#"{"Entries":[]}"#), Ok(Entries::Chunk(_))));
    let root = r#"{"bucketSize":2,"hamt":[{"/":{"bytes":"/w"}},[]],"hashAlg":34}"#;
    assert!(matches!(read(root), Ok(Entries::Hamt(_))));
    for other in ["{}", "[]", "null", r#"{"Entries":[],"Next":null}"#, r#"{"hamt":[]}"#] {
        assert!(matches!(read(other), Err(IpniError::Form { .. })), "{other} was taken");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(entries in prop::collection::vec(any::<Vec<u8>>(), 0..20), next in any::<bool>()) {
        let next = next.then(|| Cid::new_v1(0x0129, multihash(3)));
        let chunk = EntryChunk { entries, next };
        for codec in CODECS {
            prop_assert_eq!(&EntryChunk::from_block(&chunk.to_block(codec).expect("a block")), &Ok(chunk.clone()));
        }
    }

    #[test]
    fn any_bytes_are_entries_or_an_error(bytes in any::<Vec<u8>>()) {
        for codec in CODECS {
            let block = Block::new(codec, HashCode::Sha2_256, bytes.clone()).expect("a block");
            let _ = Entries::from_block(&block);
            let _ = HamtNode::from_block(&block);
        }
    }
}
