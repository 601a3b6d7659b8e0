//! The seeds: small valid inputs, from which the fuzzer starts. `seeds/` holds them as files; [`all`] makes them, always
//! the same, and checks that each is taken.

use std::collections::BTreeMap;

use cid::Cid;
use dagmesh_announce::{Announcement, Answer};
use dagmesh_chronosync::{
    Answer as GroupAnswer, Body, Entry as Publication, Gossip, GroupHead, HeadBytes, HeadList, MemberList, Page,
    Request as GroupRequest, State, Update,
};
use dagmesh_core::{bounded::BoundedVec, cbor, frame};
use dagmesh_dag::{
    Block, Codec, Entry, FeedName, HashCode, Root, Selector, SignedHead,
    car::{CarReader, CarWriter},
};
use dagmesh_dagsync::{Chain, End, Request, Status, message::Frame};
use dagmesh_ipnisync::{
    Advertisement, Chunks, EntryChunk, ExtendedProvider, NO_ENTRIES, Provider, SignedHead as SignedChainHead,
};
use dagmesh_records::{Code, Draft, IpnsDraft, IpnsName, IpnsRecord, Record, RecordName, Validity};
use ipld_core::ipld::Ipld;
use libp2p_identity::Keypair;

use crate::{
    groups::{id, peer},
    records::{KEYS, NOW_MS},
    wire::head,
};

/// Target, name and bytes of every seed.
///
/// # Panics
/// Where one is not taken by the decoder that it is for.
pub fn all() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let leaf = Block::new(Codec::Raw, HashCode::Sha2_256, &b"leaf"[..]).expect("a block");
    let link = Ipld::Link(*leaf.cid());
    let map = |fields: Vec<(&str, Ipld)>| {
        Ipld::Map(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<BTreeMap<_, _>>())
    };
    let value = map(vec![
        ("a", link.clone()),
        ("f", Ipld::Float(1.5)),
        ("list", Ipld::List(vec![Ipld::Null, Ipld::Bool(true), Ipld::Integer(-70_000), link])),
        ("map", map(vec![("b", Ipld::Bytes(vec![1, 2])), ("t", Ipld::String("é".into()))])),
    ]);
    let value = cbor::to_vec(&value).expect("encodes");
    assert!(cbor::from_slice::<Ipld>(&value).is_ok());
    let mut seeds = vec![("cbor", "value", value.clone())];
    seeds.extend(frames(&leaf));
    seeds.extend(heads());
    seeds.extend(selectors(*leaf.cid()));
    seeds.extend(blocks(&leaf, value));
    seeds.extend(ipni());
    seeds.extend(records());
    seeds.extend(groups());
    seeds.extend(runs());
    seeds.extend(of_the_node());
    seeds
}

fn frames(leaf: &Block) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let frontier = BoundedVec::new([*leaf.cid()]).expect("one link");
    let frames = [
        Frame::Block { cid: *leaf.cid(), data: leaf.data().clone() },
        Frame::Missing(*leaf.cid()),
        Frame::End(End { frontier, blocks: 1, bytes: 4, ..End::without(Status::Segment, "why") }),
    ];
    let mut stream = vec![3, 2];
    frames.iter().for_each(|frame| frame.append(&mut stream).expect("encodes"));
    let root = |selector, held| Root { cid: *leaf.cid(), selector, held };
    let request = Request {
        roots: vec![root(Selector::all(), Some(*leaf.cid())), root(Selector::chain("previous", Some(9), None), None)],
        chain: Some(Chain { after: *leaf.cid(), to: *leaf.cid() }),
        stop: vec![*leaf.cid()],
        depth: Some(4),
        blocks: 100,
        bytes: 1 << 20,
    };
    let request = request.encode().expect("encodes");
    assert!(Request::decode(&request).is_ok());
    vec![("frame", "response", stream), ("request", "two_roots", request)]
}

fn heads() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let signed = head(0, "main", 7, 1, "");
    let addr = "/ip4/127.0.0.1/tcp/4101".parse().expect("an address");
    let announcement = Announcement::new(&signed, [addr]).relayed(signed.publisher());
    let announcement_json = announcement.encode_json().expect("encodes");
    let announcement = announcement.encode().expect("encodes");
    assert!(matches!(Announcement::decode(&announcement).expect("decodes").signed_head(), Some(Ok(_))));
    let framed = |side: u8, value: Ipld| {
        let mut bytes = vec![side];
        frame::append(&mut bytes, &[&cbor::to_vec(&value).expect("encodes")]);
        bytes
    };
    let query = Ipld::Map(
        [
            ("publisher".to_owned(), Ipld::Bytes(signed.publisher().to_bytes())),
            ("feed".to_owned(), Ipld::String("main".into())),
        ]
        .into(),
    );
    let list = Ipld::List(vec![Ipld::Bytes(signed.encode().to_vec())]);
    let answer = Ipld::Map([("heads".to_owned(), list)].into());
    let entry = Entry {
        previous: Some(*signed.head()),
        seq: 2,
        time: 3,
        content: *signed.head(),
        meta: Some(Ipld::String("meta".into())),
    };
    let entry = entry.to_block().expect("a block");
    assert!(Entry::from_block(&entry).is_ok() && SignedHead::decode(signed.encode()).is_ok());
    let mut name = [1u64.to_le_bytes(), 2u64.to_le_bytes(), 70u64.to_le_bytes()].concat();
    name.push(1);
    name.extend_from_slice(FeedName::default().as_str().as_bytes());
    vec![
        ("announcement", "relayed", announcement),
        ("announcement", "json", announcement_json),
        ("announcement", "answer", Answer::Ignored("known".into()).encode().expect("encodes")),
        ("heads", "question", framed(0, query)),
        ("heads", "answer", framed(1, answer)),
        ("feed", "signed_head", signed.encode().to_vec()),
        ("feed", "entry", entry.data().to_vec()),
        ("feed", "to_sign", name),
    ]
}

fn selectors(stop: Cid) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let chain = Selector::chain("next", Some(5), Some(stop)).to_cbor().expect("encodes");
    let entries = Selector::chain_with("next", None, None, [("entries", Selector::all())]).expect("within bounds");
    let texts = [
        ("subset", r#"{".":{"label":"entry","subset":{"[":0,"]":9},"onlyIf":{"hasField":"x"}}}"#),
        ("range", r#"{"r":{"^":1,"$":3,">":{"a":{">":{".":{}}}}}}"#),
        ("union", r#"{"|":[{".":{}},{"f":{"f>":{"a":{".":{}},"b":{"f":{"f>":{}}}}}}]}"#),
        ("condition", r#"{"&":{"&":{"and":[{"%":"map"},{"or":[{"greaterThan":1},{"lessThan":-5}]}]},">":{".":{}}}}"#),
    ];
    let mut seeds = vec![("selector", "chain", chain), ("selector", "entries", entries.to_cbor().expect("encodes"))];
    for (name, text) in texts {
        assert!(Selector::from_json(text).is_ok(), "{name}");
        seeds.push(("selector", name, text.as_bytes().to_vec()));
    }
    seeds
}

fn blocks(leaf: &Block, value: Vec<u8>) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let car = |version2: bool| {
        let mut writer = CarWriter::new(Vec::new(), &[*leaf.cid()]).expect("writes");
        writer.write(leaf).expect("writes");
        let inner = writer.finish().expect("writes");
        let mut whole = Vec::new();
        if version2 {
            whole.extend_from_slice(&[0x0a, 0xa1, 0x67]);
            whole.extend_from_slice(b"version");
            whole.push(2);
            whole.extend_from_slice(&[0; 16]);
            for number in [51, inner.len() as u64, 0] {
                whole.extend_from_slice(&number.to_le_bytes());
            }
        }
        whole.extend_from_slice(&inner);
        let read = CarReader::new(&whole[..]).expect("a header").collect::<Result<Vec<_>, _>>();
        assert_eq!(read.expect("blocks").len(), 1);
        whole
    };
    let link = ipld_dagpb::PbLink { cid: *leaf.cid(), name: Some("name".into()), size: Some(4) };
    let node = ipld_dagpb::PbNode { links: vec![link], data: Some(vec![8, 1].into()) }.into_bytes();
    let json = format!(r#"{{"a":{{"/":"{}"}},"b":[1,{{"/":{{"bytes":"AQI"}}}}]}}"#, leaf.cid());
    for (codec, bytes) in [(Codec::DagPb, node.to_vec()), (Codec::DagJson, json.clone().into_bytes())] {
        let block = Block::new(codec, HashCode::Sha2_256, bytes).expect("a block");
        assert_eq!(dagmesh_dag::links::links(&block).expect("links"), [*leaf.cid()]);
    }
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        ("car", "version_1", car(false)),
        ("car", "version_2", car(true)),
        ("links", "dag_pb", of(0, &node)),
        ("links", "dag_cbor", of(1, &value)),
        ("links", "dag_json", of(2, json.as_bytes())),
        ("unixfs", "folder_block", of(0, &node)),
    ]
}

fn ipni() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("a key");
    let multihashes = [b"one", b"two"].map(|bytes| HashCode::Sha2_256.digest(bytes).expect("hashes"));
    let chunks: Result<Vec<_>, _> = Chunks::new(multihashes, Codec::DagJson, 1).collect();
    let chunks = chunks.expect("blocks");
    let mut ad = Advertisement {
        previous_id: None,
        provider: key.public().to_peer_id().to_string(),
        addresses: vec!["/ip4/127.0.0.1/tcp/1".into()],
        signature: Vec::new(),
        entries: *chunks[1].cid(),
        context_id: vec![1],
        metadata: vec![2, 3],
        is_rm: false,
        extended_provider: None,
    };
    ad.sign(&key).expect("signs");
    let ad_json = ad.to_block(Codec::DagJson).expect("a block");
    ad.previous_id = Some(*ad_json.cid());
    let own = Provider { id: ad.provider.clone(), ..Provider::default() };
    ad.extended_provider = Some(ExtendedProvider { providers: vec![own], overrides: true });
    ad.sign_with_extended(&key, &[]).expect("signs");
    let extended = ad.encode(Codec::DagCbor).expect("encodes");
    let head = SignedChainHead::sign(&key, *ad_json.cid(), "/t").expect("signs");
    let chunk = EntryChunk::from_block(&chunks[1]).expect("a chunk").encode(Codec::DagCbor).expect("encodes");
    let hamt = format!(
        r#"{{"bucketSize":1,"hamt":[{{"/":{{"bytes":"Aw"}}}},[[[{{"/":{{"bytes":"AAE"}}}},true]],{{"/":"{}"}}]],"hashAlg":34}}"#,
        chunks[0].cid()
    );
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let no_entries = of(6, &NO_ENTRIES.to_bytes());
    vec![
        ("ipni", "ad_json", of(0, ad_json.data())),
        ("ipni", "ad_extended_cbor", of(1, &extended)),
        ("ipni", "head_json", of(2, &head.encode(Codec::DagJson).expect("encodes"))),
        ("ipni", "head_cbor", of(3, &head.encode(Codec::DagCbor).expect("encodes"))),
        ("ipni", "chunk_json", of(4, chunks[1].data())),
        ("ipni", "chunk_cbor", of(5, &chunk)),
        ("ipni", "hamt_json", of(4, hamt.as_bytes())),
        ("ipni", "no_entries", no_entries),
    ]
}

fn groups() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let text = Publication { previous: None, time: NOW_MS, body: Body::Text("hello".into()) };
    let block = text.to_block().expect("encodes");
    let payload = Publication::payload(&block).expect("fits");
    let head = GroupHead::sign(&KEYS[1], &id(), NOW_MS, 1, payload.clone(), NOW_MS).expect("signs");
    assert!(GroupHead::decode(&id(), head.encode()).is_ok());
    let members = MemberList::sign(&KEYS[0], &id(), 1, [peer(1)].into(), NOW_MS).expect("signs");
    let mut state = State::new();
    state.apply(NOW_MS, [head.clone()]);
    let (before, state) = (State::new().summary(), state.summary());
    let heads = HeadList::new([HeadBytes::new(head.encode().to_vec()).expect("fits")]).expect("one");
    let page = Page { state, difference: false, heads: heads.clone(), next: None, members: None };
    let update = Update { previous: before.root, state, changed: heads, vector: HeadList::default() };
    let update = Gossip::Update(update).encode().expect("encodes");
    let hello = GroupRequest::Hello(state).encode().expect("encodes");
    let page = GroupAnswer::Page(page).encode().expect("encodes");
    // Who comes, says something and is asked; time goes by in between.
    let said =
        [0, 0, 1, 2, 4, 0, 0, 1, 0, 1, 1, 0, 0, 11, 50, 0, 4, 1, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0, 8, 1, 0, 8, 1];
    vec![
        ("group", "head", of(0, head.encode())),
        ("group", "members", of(1, members.encode())),
        ("group", "update", of(2, &update)),
        ("group", "hello", of(2, &hello)),
        ("group", "page", of(2, &page)),
        ("group", "entry", of(3, block.data())),
        ("group", "to_sign", of(4, &[1; 40])),
        ("group_machine", "said", said.to_vec()),
    ]
}

fn records() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let draft = Draft {
        name: RecordName::new("name").expect("a name"),
        value: b"value".to_vec(),
        sequence: 1,
        timestamp_ms: NOW_MS,
        expires_ms: NOW_MS + 1,
        meta: BTreeMap::from([("k".into(), "v".into())]),
    };
    let record = Record::sign(&KEYS[0], draft).expect("signs");
    let validity = Validity::from_unix_ms(NOW_MS);
    let draft = IpnsDraft { value: b"/ipfs/bafkqaaa".to_vec(), sequence: 1, validity, ttl_ns: 1 };
    let ipns = IpnsRecord::sign(&KEYS[0], draft).expect("signs");
    let name = IpnsName::of(&KEYS[0].public());
    assert!(Record::decode(record.encode()).is_ok() && IpnsRecord::decode(&name, ipns.encode()).is_ok());
    let data = [
        ("TTL", Ipld::Integer(1)),
        ("Value", Ipld::Bytes(b"/ipfs/bafkqaaa".to_vec())),
        ("Sequence", Ipld::Integer(1)),
        ("Validity", Ipld::Bytes(b"2100-01-01T00:00:00.5Z".to_vec())),
        ("ValidityType", Ipld::Integer(0)),
    ];
    let data = Ipld::Map(data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    let data = cbor::to_vec(&data).expect("encodes");
    let put = dagmesh_records::Request::put(&record.key(), record.encode()).expect("fits").encode().expect("encodes");
    let error = dagmesh_records::Answer::error(Code::TooBig, "why").encode().expect("encodes");
    let to_sign = [&[1u8, 4][..], b"name", &1u64.to_le_bytes(), &NOW_MS.to_le_bytes(), &7u64.to_le_bytes()].concat();
    let puts = (0..12u8).flat_map(|n| [3 + n % 2, n % 3, n % 8, n % 5, n, n % 8, n * 9, n % 3, n * 20]);
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        ("records", "record", of(0, record.encode())),
        ("records", "to_sign", to_sign),
        ("records", "ipns", of(2, ipns.encode())),
        ("records", "ipns_data", of(3, &data)),
        ("records", "key", of(4, &name.key())),
        ("records", "name", of(4, name.to_string().as_bytes())),
        ("records", "topic", of(4, name.topic().as_bytes())),
        ("records", "put", of(5, &put)),
        ("records", "error", of(5, &error)),
        ("records", "store", [6].into_iter().chain(puts).collect()),
    ]
}

/// Those that are read as a row of steps: every kind of step stands in them.
fn runs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    // Leaves, a file of two, a folder of three, a shard of all, a symlink.
    let unixfs = [1, 0, 3, b'o', b'n', b'e', 0, 3, b't', b'w', b'o', 1, 0, 2, 0, 1, 4, 3, 0, 1, 2, 0, 1, 2, 46, 4]
        .into_iter()
        .chain([0, 1, 2, 3, 0, 1, 2, 3, 7, b'a', b'/', b'b'])
        .collect();
    let follower = (0..22u8).flat_map(|kind| [kind, kind % 4, kind, 7, 3, 2]).collect();
    let follow = [[0, 0, 0, 1, 0, 0], [11, 0, 4, 0, 0, 0], [17, 0, 2, 0, 0, 0], [18, 0, 4, 0, 0, 0]].concat();
    let fetch = |held: u8, segment: u8| {
        let mut bytes = vec![held, segment];
        (0..14).for_each(|_| bytes.extend([1, 0]));
        bytes.extend([0, 0]);
        bytes
    };
    // Kind, author, relayed, time, entry, and what the kind asks for beside.
    let ingest = (0..48u8).flat_map(|n| [n.wrapping_mul(5), n % 4, n % 3, 3 + n % 40, n % 4, n % 3]);
    let validator = (0..24u8).flat_map(|n| [n % 3, n % 5, [192, 64, 196, 200][usize::from(n % 4)], 3, n % 2]);
    vec![
        ("unixfs", "tree", unixfs),
        ("follower", "every_step", follower),
        ("follower", "one_sync", follow),
        ("fetch", "whole", fetch(0, 19)),
        ("fetch", "segments", fetch(0b0101_0010, 2)),
        ("ingest", "some", [1].into_iter().chain(ingest).collect()),
        ("validator", "some", [0, 1].into_iter().chain(validator).collect()),
    ]
}

/// For the targets of `node/`: the payload of a ticket; a config file and, below the line, the environment.
fn of_the_node() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let publisher = head(0, "main", 1, 1, "").publisher();
    // /ip4/127.0.0.1/tcp/4101
    let addr = Ipld::Bytes(vec![4, 127, 0, 0, 1, 6, 0x10, 0x05]);
    let payload = [
        ("peer".to_owned(), Ipld::Bytes(publisher.to_bytes())),
        ("addrs".to_owned(), Ipld::List(vec![addr])),
        ("feed".to_owned(), Ipld::String("main".into())),
    ];
    let payload = cbor::to_vec(&Ipld::Map(payload.into())).expect("encodes");
    let config =
        "[swarm]\nprofile = \"lan\"\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\n[sync]\nmax_syncs = 3\n---\nSWARM__NETWORK=5";
    let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{publisher}");
    vec![
        ("ticket", "payload", payload),
        ("ticket", "address", address.into_bytes()),
        ("config", "two_layers", config.as_bytes().to_vec()),
    ]
}
