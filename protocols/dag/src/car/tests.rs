use std::io::Read;

use cid::Cid;
use dagmesh_core::limits;
use proptest::prelude::*;

use super::*;
use crate::{Block, Codec, HashCode, MemoryBlockstore};

fn raw(data: impl Into<Vec<u8>>) -> Block {
    Block::new(Codec::Raw, HashCode::Sha2_256, data.into()).expect("a block")
}

fn car(roots: &[Cid], blocks: &[Block]) -> Vec<u8> {
    let mut writer = CarWriter::new(Vec::new(), roots).expect("a header");
    blocks.iter().for_each(|block| writer.write(block).expect("writes"));
    let bytes = writer.bytes();
    let car = writer.finish().expect("finishes");
    assert_eq!(car.len() as u64, bytes);
    car
}

fn read(car: &[u8]) -> Result<Vec<Block>, CarError> {
    CarReader::new(car)?.collect()
}

/// A CARv2 around `v1`, with `gap` zeros before it and an index of nonsense after it.
fn v2(v1: &[u8], gap: usize) -> Vec<u8> {
    let offset = (51 + gap) as u64;
    let mut car = vec![0x0a, 0xa1, 0x67, b'v', b'e', b'r', b's', b'i', b'o', b'n', 0x02];
    car.extend([0; 16]);
    car.extend(offset.to_le_bytes());
    car.extend((v1.len() as u64).to_le_bytes());
    car.extend((offset + v1.len() as u64).to_le_bytes());
    car.extend(vec![0; gap]);
    car.extend(v1);
    car.extend([0xff; 33]);
    car
}

fn header(len: usize) -> Vec<u8> {
    let mut prefix = Default::default();
    unsigned_varint::encode::usize(len, &mut prefix).to_vec()
}

#[test]
fn what_was_written_is_read_back_in_order() {
    let v0 = Cid::new_v0(*raw("v0").cid().hash()).expect("a CID");
    let v0 = Block::verify(v0, &b"v0"[..]).expect("a block");
    let blocks = [raw("b"), raw(""), raw("a"), raw("b"), v0];
    let roots = [*raw("a").cid(), *raw("elsewhere").cid()];
    let car = car(&roots, &blocks);
    let reader = CarReader::new(car.as_slice()).expect("a header");
    assert_eq!((reader.version(), reader.roots()), (1, &roots[..]));
    assert_eq!(reader.collect::<Result<Vec<_>, _>>().expect("reads"), blocks);
}

#[test]
fn the_bytes_are_those_that_other_implementations_write() {
    // {"roots": [bafkqaaa (an empty identity CID)], "version": 1}, then one section of that CID.
    let empty = Cid::try_from("bafkqaaa").expect("a CID");
    let block = Block::inline(&empty).expect("inline");
    let expected = [
        &[0x19, 0xa2, 0x65][..],
        b"roots",
        &[0x81, 0xd8, 0x2a, 0x45, 0x00, 0x01, 0x55, 0x00, 0x00, 0x67],
        b"version",
        &[0x01, 0x04, 0x01, 0x55, 0x00, 0x00],
    ]
    .concat();
    let expected = [header(expected.len() - 6), expected[1..].to_vec()].concat();
    assert_eq!(car(&[empty], std::slice::from_ref(&block)), expected);
    assert_eq!(read(&expected).expect("reads"), [block]);
}

#[test]
fn a_car_of_version_2_gives_its_inner_blocks_and_its_index_is_passed_over() {
    let blocks = [raw("one"), raw("two")];
    let v1 = car(&[*blocks[0].cid()], &blocks);
    for gap in [0, 7] {
        let car = v2(&v1, gap);
        let reader = CarReader::new(car.as_slice()).expect("a header");
        assert_eq!((reader.version(), reader.roots()), (2, &[*blocks[0].cid()][..]));
        assert_eq!(reader.collect::<Result<Vec<_>, _>>().expect("reads"), blocks);
    }
    let mut inside = v2(&v1, 0);
    inside[27] = 50;
    assert!(matches!(CarReader::new(inside.as_slice()), Err(CarError::Header { .. })), "data inside the header");
    let nested = v2(&v2(&v1, 0), 0);
    assert!(matches!(CarReader::new(nested.as_slice()), Err(CarError::Version(2))), "a v2 inside a v2");
}

#[test]
fn a_car_cut_at_any_byte_is_an_error_that_counts_what_came_before() {
    let blocks = [raw("one"), raw("two"), raw(vec![7; 300])];
    let v1 = car(&[*blocks[0].cid()], &blocks);
    let mut ends = vec![car(&[*blocks[0].cid()], &[]).len()];
    ends.extend((1..=3).map(|n| car(&[*blocks[0].cid()], &blocks[..n]).len()));
    for len in 0..v1.len() {
        let cut = &v1[..len];
        match read(cut) {
            Ok(read) => {
                let whole = ends.iter().position(|end| *end == len).expect("it ends between two sections");
                assert_eq!(read, blocks[..whole]);
            }
            Err(CarError::CutShort { at, blocks }) => {
                assert_eq!(at, len as u64);
                assert_eq!(
                    blocks as usize,
                    ends.iter().filter(|end| **end < len).count().saturating_sub(1),
                    "at {len}"
                );
            }
            Err(other) => panic!("cut at {len}: {other}"),
        }
    }
    let v2 = v2(&v1, 3);
    for len in 0..v2.len() - 33 {
        assert!(matches!(read(&v2[..len]), Err(CarError::CutShort { .. })), "a v2 tells its size; cut at {len}");
    }
}

#[test]
fn a_header_is_taken_at_its_caps_and_refused_beyond_them() {
    let root = *raw("root").cid();
    let fits = car(&vec![root; limits::MAX_CAR_ROOTS], &[]);
    assert_eq!(CarReader::new(fits.as_slice()).expect("a header").roots().len(), limits::MAX_CAR_ROOTS);
    let over = vec![root; limits::MAX_CAR_ROOTS + 1];
    assert!(matches!(CarWriter::new(Vec::new(), &over), Err(CarError::TooManyRoots { .. })));
    let over = std::collections::BTreeMap::from([
        ("roots", ipld_core::ipld::Ipld::List(over.into_iter().map(ipld_core::ipld::Ipld::Link).collect())),
        ("version", ipld_core::ipld::Ipld::Integer(1)),
    ]);
    let over = dagmesh_core::cbor::to_vec(&over).expect("encodes");
    let error = CarReader::new([header(over.len()), over].concat().as_slice()).expect_err("one root too many");
    assert!(error.to_string().contains("at most 1024"), "{error}");

    let max = limits::MAX_CAR_HEADER_BYTES;
    let at_cap = [header(max), vec![0; max]].concat();
    assert!(matches!(CarReader::new(at_cap.as_slice()), Err(CarError::Header { .. })), "read, and no CBOR");
    let endless = std::io::Cursor::new(header(max + 1)).chain(std::io::repeat(0));
    assert!(matches!(CarReader::new(endless), Err(CarError::HeaderTooLong { .. })), "refused from its prefix");
}

#[test]
fn a_section_is_taken_at_the_block_cap_and_refused_from_its_prefix_beyond_it() {
    let large = raw(vec![1; limits::MAX_BLOCK_BYTES]);
    assert_eq!(read(&car(&[], std::slice::from_ref(&large))).expect("reads"), std::slice::from_ref(&large));

    let cid = large.cid().to_bytes();
    let over = [car(&[], &[]), header(cid.len() + limits::MAX_BLOCK_BYTES + 1), cid].concat();
    let over = [over, vec![1; limits::MAX_BLOCK_BYTES + 1]].concat();
    assert!(matches!(read(&over), Err(CarError::Block { source: crate::BlockError::TooLarge { .. }, .. })));

    let huge = [car(&[], &[]), header(usize::MAX >> 1)].concat();
    let error = CarReader::new(std::io::Cursor::new(huge).chain(std::io::repeat(0))).expect("a header").next();
    assert!(matches!(error, Some(Err(CarError::SectionTooLong { .. }))), "{error:?}");
}

#[test]
fn bytes_that_are_not_those_of_their_cid_are_refused_and_end_the_reading() {
    let mut bytes = car(&[], &[raw("good"), raw("bad"), raw("good")]);
    let at = bytes.windows(3).position(|window| window == b"bad").expect("found");
    bytes[at] = b'c';
    let mut reader = CarReader::new(bytes.as_slice()).expect("a header");
    assert!(matches!(reader.next(), Some(Ok(_))));
    assert!(matches!(reader.next(), Some(Err(CarError::Block { blocks: 1, .. }))));
    assert!(reader.next().is_none());
}

#[test]
fn trailing_zeros_end_a_car_and_anything_after_a_zero_is_refused() {
    let blocks = [raw("one")];
    let mut padded = car(&[], &blocks);
    padded.extend(vec![0; 100_000]);
    assert_eq!(read(&padded).expect("padding"), blocks);
    let len = padded.len();
    padded.push(1);
    assert!(matches!(read(&padded), Err(CarError::Section { at, blocks: 1, .. }) if at == len as u64));
    assert_eq!(read(&v2(&padded[..len], 0)).expect("padding inside a v2"), blocks);
}

#[test]
fn headers_that_are_not_canonical_or_not_whole_are_refused() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("another order", [&[0xa2, 0x67][..], b"version", &[0x01, 0x65], b"roots", &[0x80]].concat()),
        ("a long integer", [&[0xa2, 0x65][..], b"roots", &[0x80, 0x67], b"version", &[0x18, 0x01]].concat()),
        ("no roots", [&[0xa1, 0x67][..], b"version", &[0x01]].concat()),
        ("version 3", [&[0xa2, 0x65][..], b"roots", &[0x80, 0x67], b"version", &[0x03]].concat()),
        ("no version", [&[0xa1, 0x65][..], b"roots", &[0x80]].concat()),
        ("version twice", [&[0xa2, 0x67][..], b"version", &[0x01, 0x67], b"version", &[0x01]].concat()),
        ("2^30 roots", [&[0xa2, 0x65][..], b"roots", &[0x9a, 0x40, 0, 0, 0, 0x67], b"version", &[0x01]].concat()),
        ("nested", vec![0x81; 60_000]),
    ];
    for (name, bytes) in cases {
        assert!(CarReader::new([header(bytes.len()), bytes].concat().as_slice()).is_err(), "{name} was taken");
    }
    assert!(CarReader::new(&[0x80, 0x00][..]).is_err(), "a prefix with two spellings");
    assert!(CarReader::new(&[0xff; 20][..]).is_err(), "a prefix without end");
}

#[test]
fn an_import_reports_what_it_stored_and_claims_nothing_when_it_fails() {
    let store = MemoryBlockstore::new();
    let blocks = [raw("one"), raw("two"), raw("one")];
    let bytes = car(&[*blocks[0].cid()], &blocks);
    let report = import(&store, bytes.as_slice()).expect("imports");
    assert_eq!(report, ImportReport { roots: vec![*blocks[0].cid()], blocks: 3, new_blocks: 2, bytes: 9 });
    assert_eq!(import(&store, bytes.as_slice()).expect("again").new_blocks, 0);
    assert!(matches!(import(&store, &bytes[..bytes.len() - 1]), Err(CarError::CutShort { blocks: 2, .. })));
}

#[test]
fn a_store_that_fails_fails_the_import_with_its_own_reason() {
    let blocks: Vec<_> = (0u32..20).map(|n| raw([&n.to_le_bytes()[..], &vec![0; 1_000_000]].concat())).collect();
    for on_sync in [false, true] {
        let error = import(&Full { on_sync }, car(&[], &blocks).as_slice()).expect_err("the store is full");
        assert!(matches!(error, CarError::Store(StoreError::NoSpace)), "{error}");
    }
}

/// A store on a full disk.
struct Full {
    on_sync: bool,
}

impl Blockstore for Full {
    fn get(&self, _: &Cid) -> Result<Option<bytes::Bytes>, StoreError> {
        Ok(None)
    }
    fn has(&self, _: &Cid) -> Result<bool, StoreError> {
        Ok(false)
    }
    fn put_many(&self, blocks: &[Block]) -> Result<usize, StoreError> {
        if self.on_sync { Ok(blocks.len()) } else { Err(StoreError::NoSpace) }
    }
    fn sync(&self) -> Result<(), StoreError> {
        Err(StoreError::NoSpace)
    }
    fn remove(&self, _: &[Cid]) -> Result<(), StoreError> {
        Ok(())
    }
    fn quarantine(&self, _: &Cid) -> Result<(), StoreError> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_blocks_come_back(contents in prop::collection::vec(any::<Vec<u8>>(), 0..8), gap in 0usize..20) {
        let blocks: Vec<_> = contents.into_iter().map(raw).collect();
        let roots: Vec<_> = blocks.iter().map(|block| *block.cid()).collect();
        let v1 = car(&roots, &blocks);
        prop_assert_eq!(read(&v1).expect("reads"), blocks.clone());
        prop_assert_eq!(read(&v2(&v1, gap)).expect("reads"), blocks);
    }

    #[test]
    fn no_bytes_panic_the_reader(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let _ = read(&bytes);
        let mut damaged = car(&[*raw("a").cid()], &[raw("a"), raw("b")]);
        let at = at.index(damaged.len());
        damaged[at] = value;
        let _ = read(&damaged);
        let mut damaged = v2(&damaged, 1);
        damaged[at] = value;
        let _ = read(&damaged);
    }
}
