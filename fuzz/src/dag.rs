//! Codecs of blocks, feeds, selectors and CARs.

use std::collections::BTreeMap;

use cid::Cid;
use dagmesh_core::{
    cbor::{self as codec, CborError},
    limits,
};
use dagmesh_dag::{
    Block, Blockstore, Codec, Entry, FeedName, HashCode, MemoryBlockstore, Root, Selector, SignedHead, Walk,
    WalkConfig,
    car::{CarReader, CarWriter},
    check_cid, hash,
    links::{links as all_links, places},
    walk::Closure,
};
use ipld_core::ipld::Ipld;
use libp2p_identity::Keypair;

use crate::input::Input;

/// DAG-CBOR: what the scanner takes the decoder takes, but for what is nested too deep for a message; the same links
/// are found; what is decoded is written back to the same bytes.
pub fn cbor(data: &[u8]) {
    let mut found = Vec::new();
    let scanned = codec::scan(data, |_, cid| found.push(cid));
    assert!(found.len() <= limits::MAX_LINKS_PER_BLOCK);
    match (scanned, codec::from_slice::<Ipld>(data)) {
        (Ok(()), Ok(value)) => {
            assert_eq!(codec::to_vec(&value).expect("encodes"), data);
            let mut in_tree = Vec::new();
            value.references(&mut in_tree);
            in_tree.sort();
            found.sort();
            assert_eq!(found, in_tree);
        }
        (Ok(()), Err(error)) => assert!(matches!(error, CborError::TooDeep { .. }), "{error}"),
        (Err(error), decoded) => assert!(decoded.is_err(), "{error}, and yet decoded"),
    }
}

/// A block of any codec, the first byte says which: its links, and the same with their places.
pub fn links(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = [Codec::DagPb, Codec::DagCbor, Codec::DagJson, Codec::Raw][input.below(4)];
    let bytes = input.rest();
    if let Ok(cid) = Cid::try_from(bytes)
        && let Ok((_, code)) = check_cid(&cid)
    {
        assert!(cid.encoded_len() <= limits::MAX_CID_BYTES);
        assert_eq!(hash::parse_cid(&cid.to_string()), Ok(cid));
        assert!(code != HashCode::Identity || Block::inline(&cid).is_some());
    }
    let block = Block::new(kind, HashCode::Sha2_256, bytes.to_vec()).expect("a block");
    match (all_links(&block), places(&block)) {
        (Ok(found), Ok(placed)) => {
            assert!(found.len() <= limits::MAX_LINKS_PER_BLOCK);
            assert!(placed.iter().map(|(_, cid)| cid).eq(&found));
            let _ = MemoryBlockstore::new().put(&block);
        }
        (found, placed) => assert!(found.is_err() && placed.is_err()),
    }
}

/// A CAR: its blocks are verified, its reader ends after its first error, and what it read can be written and read.
pub fn car(data: &[u8]) {
    let Ok(mut reader) = CarReader::new(data) else { return };
    assert!(reader.roots().len() <= limits::MAX_CAR_ROOTS);
    let mut blocks = Vec::new();
    let mut failed = false;
    while let Some(block) = reader.next() {
        assert!(!failed, "nothing comes after an error");
        match block {
            Ok(block) => blocks.push(block),
            Err(_) => failed = true,
        }
    }
    assert!(reader.bytes_read() <= data.len() as u64);
    let mut writer = CarWriter::new(Vec::new(), reader.roots()).expect("roots that were read can be written");
    for block in &blocks {
        assert!(Block::verify(*block.cid(), block.data().clone()).is_ok());
        writer.write(block).expect("writes");
    }
    let written = writer.finish().expect("writes");
    if !failed && reader.version() == 1 && reader.bytes_read() == written.len() as u64 {
        assert_eq!(written, data, "a CAR has one form but for its padding");
    }
    let again = CarReader::new(&written[..]).expect("a header");
    assert_eq!(again.roots(), reader.roots());
    assert_eq!(again.collect::<Result<Vec<_>, _>>().expect("blocks"), blocks);
}

/// Selectors in both codecs, and a walk with whatever came of them: it ends, visits nothing but the DAG, and at each
/// step what is left of the selector can be sent.
pub fn selector(data: &[u8]) {
    let read = [
        Selector::from_cbor(data).ok(),
        std::str::from_utf8(data).ok().and_then(|text| Selector::from_json(text).ok()),
    ];
    for selector in read.into_iter().flatten() {
        let bytes = selector.to_cbor().expect("what was read can be written");
        assert!(bytes.len() <= limits::MAX_SELECTOR_BYTES);
        assert_eq!(Selector::from_cbor(&bytes).as_ref(), Ok(&selector));
        let text = selector.to_json().expect("what was read can be written");
        assert_eq!(Selector::from_json(&text).as_ref(), Ok(&selector), "{text}");
        walk(&selector);
    }
}

fn walk(selector: &Selector) {
    let store = MemoryBlockstore::new();
    let root = small_dag(&store);
    let config = WalkConfig { max_visited: 10_000, ..WalkConfig::default() };
    let mut walk = Walk::new(config, vec![Root { cid: root, selector: selector.clone(), held: None }]);
    let mut visits = 0;
    while let Some(visit) = walk.next_visit() {
        visits += 1;
        assert!(visits <= 100_000, "a walk over five blocks comes to its end");
        let left = visit.selector().to_cbor().expect("what is left can be written");
        assert_eq!(Selector::from_cbor(&left).as_ref(), Ok(visit.selector()));
        let block = store.block(&visit.cid).expect("reads").expect("only the DAG is walked");
        if walk.enter(&visit, &block, None).is_err() {
            break;
        }
    }
    let again = Walk::new(WalkConfig::default(), vec![Root { cid: root, selector: Selector::all(), held: None }]);
    assert_eq!(Closure::over(&store, again).count(), 5);
}

/// Five blocks: a chain of two with a list, a map and a leaf beside it.
fn small_dag(store: &MemoryBlockstore) -> Cid {
    let put = |codec, bytes: Vec<u8>| {
        let block = Block::new(codec, HashCode::Sha2_256, bytes).expect("a block");
        store.put(&block).expect("puts");
        *block.cid()
    };
    let cbor = |value: Ipld| put(Codec::DagCbor, codec::to_vec(&value).expect("encodes"));
    let map = |fields: [(&str, Ipld); 3]| Ipld::Map(BTreeMap::from(fields.map(|(key, value)| (key.to_owned(), value))));
    let leaf = Ipld::Link(put(Codec::Raw, b"leaf".to_vec()));
    let list = Ipld::Link(cbor(Ipld::List(vec![leaf.clone(), Ipld::Integer(7), leaf.clone()])));
    let tree = map([("a", leaf.clone()), ("b", list.clone()), ("c", Ipld::String("text".into()))]);
    let tree = Ipld::Link(cbor(tree));
    let first = Ipld::Link(cbor(map([("content", tree.clone()), ("next", Ipld::Null), ("entries", list.clone())])));
    cbor(map([("content", tree), ("next", first), ("entries", list)]))
}

/// Entries and signed heads: an entry comes back as it was; a head that was signed is read, and with any byte changed
/// it is refused.
pub fn feed(data: &[u8]) {
    let block = Block::new(Codec::DagCbor, HashCode::Sha2_256, data.to_vec()).expect("a block");
    if let Ok(entry) = Entry::from_block(&block) {
        assert!(data.len() <= limits::MAX_ENTRY_BYTES && entry.seq > 0 && entry.previous.is_some() == (entry.seq > 1));
        let again = entry.to_block().expect("what was read can be written");
        assert_eq!(Entry::from_block(&again).expect("an entry"), entry);
    }
    if let Ok(head) = SignedHead::decode(data) {
        assert!(data.len() <= limits::MAX_SIGNED_HEAD_BYTES);
        assert_eq!(head.encode(), data);
    }
    let mut input = Input::new(data);
    let (seq, time, at, flip) = (input.number(), input.number(), input.number(), input.byte());
    let Ok(name) = FeedName::new(input.text(130)) else { return };
    assert!(name.as_str().len() <= limits::MAX_FEED_NAME_BYTES);
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("a key");
    let Ok(head) = SignedHead::sign(&key, &name, *block.cid(), seq, time) else { return };
    assert_eq!(SignedHead::decode(head.encode()).as_ref(), Ok(&head));
    let mut bytes = head.encode().to_vec();
    let at = (at % bytes.len() as u64) as usize;
    bytes[at] ^= flip;
    assert_eq!(SignedHead::decode(&bytes).is_ok(), flip == 0, "byte {at} changed by {flip}");
}
