//! What go-libipni writes, we read and write again, byte for byte; what it signs holds (`vectors/README.md`).

use std::collections::{BTreeMap, BTreeSet};

use cid::{Cid, multihash::Multihash};
use dagmesh_dag::{Block, Codec, Digests, HashCode};
use dagmesh_ipnisync::{
    Advertisement, Chunks, Entries, EntryChunk, ExtendedProvider, HamtNode, IpniError, NO_ENTRIES, Provider, SignedHead,
};
use data_encoding::HEXLOWER;
use libp2p_identity::{Keypair, PeerId};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    kind: String,
    name: String,
    codec: String,
    cid: String,
    #[serde(default)]
    signer: String,
    hex: String,
}

impl Vector {
    fn codec(&self) -> Codec {
        if self.codec == "json" { Codec::DagJson } else { Codec::DagCbor }
    }

    fn bytes(&self) -> Vec<u8> {
        HEXLOWER.decode(self.hex.as_bytes()).expect("hexadecimal")
    }

    /// The block under the CID that the original gave it.
    fn block(&self) -> Block {
        Block::verify_with(Cid::try_from(&self.cid[..]).expect("a CID"), self.bytes(), Digests::OrCut).expect("proven")
    }

    fn signer(&self) -> PeerId {
        self.signer.parse().expect("a peer id")
    }
}

fn vectors(kind: &str) -> Vec<Vector> {
    let all: Vec<Vector> = include_str!("vectors/go-libipni.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a vector"))
        .filter(|vector: &Vector| vector.kind == kind)
        .collect();
    assert!(!all.is_empty(), "{kind}");
    all
}

fn vector(kind: &str, name: &str, codec: &str) -> Vector {
    let found = vectors(kind).into_iter().find(|vector| vector.name == name && vector.codec == codec);
    found.unwrap_or_else(|| panic!("no {kind} {name} {codec}"))
}

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("a key")
}

fn entry(n: usize) -> Multihash<64> {
    HashCode::Sha2_256.digest(format!("entry {n}").as_bytes()).expect("hashes")
}

#[test]
fn advertisements_are_read_and_written_again_byte_for_byte() {
    let mut of_name: BTreeMap<String, Vec<Advertisement>> = BTreeMap::new();
    for vector in vectors("ad") {
        let block = vector.block();
        let ad = Advertisement::from_block(&block).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        assert_eq!(ad.encode(vector.codec()).expect("encodes"), block.data()[..], "{} {}", vector.name, vector.codec);
        let again = ad.to_block(vector.codec()).expect("a block");
        let cut = vector.name.starts_with("truncated");
        assert_eq!(again.cid() == block.cid(), !cut, "{}", vector.name);
        assert!(again.cid().hash().digest().starts_with(block.cid().hash().digest()), "{}", vector.name);
        of_name.entry(vector.name).or_default().push(ad);
    }
    for (name, ads) in of_name {
        assert_eq!(ads.len(), 2, "{name} in both codecs");
        assert_eq!(ads[0], ads[1], "{name} is one advertisement");
    }
}

#[test]
fn signatures_of_every_kind_of_key_hold_and_tell_the_signer() {
    for vector in vectors("ad") {
        let ad = Advertisement::from_block(&vector.block()).expect("decodes");
        let signers = ad.verify().unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        assert_eq!(signers.advertisement, vector.signer(), "{}", vector.name);
        let on_behalf = vector.name.ends_with("on_behalf");
        assert_eq!(ad.provider_id() != Some(signers.advertisement), on_behalf, "{}", vector.name);
        assert_eq!(signers.unproven(&ad).count(), usize::from(vector.name == "extended_stranger"), "{}", vector.name);
    }
}

/// Everything that a signature covers, changed one at a time.
#[allow(clippy::indexing_slicing, reason = "a test that finds another shape than it expects has failed")]
fn changed(ad: &Advertisement) -> Vec<(String, Advertisement)> {
    let mut all = Vec::new();
    let mut change = |name: String, with: &dyn Fn(&mut Advertisement)| {
        let mut other = ad.clone();
        with(&mut other);
        assert_ne!(&other, ad, "{name}");
        all.push((name, other));
    };
    let other_cid = |cid: &Cid| {
        let mut bytes = cid.to_bytes();
        *bytes.last_mut().expect("bytes") ^= 1;
        Cid::try_from(bytes).expect("a CID")
    };
    let flip = |text: &str| format!("{}0", text.get(..text.len() - 1).unwrap_or_default());
    change("previous".into(), &|ad| {
        ad.previous_id = if ad.previous_id.is_some() { None } else { Some(NO_ENTRIES) };
    });
    change("entries".into(), &|ad| ad.entries = other_cid(&ad.entries));
    change("provider".into(), &|ad| ad.provider = flip(&ad.provider));
    for at in 0..ad.addresses.len() {
        change(format!("address {at}"), &|ad| ad.addresses[at].push('0'));
    }
    change("one address more".into(), &|ad| ad.addresses.push("/".into()));
    for at in 0..ad.metadata.len() {
        change(format!("metadata {at}"), &|ad| ad.metadata[at] ^= 1);
    }
    change("removal".into(), &|ad| ad.is_rm = !ad.is_rm);
    for at in 0..ad.signature.len() {
        change(format!("signature {at}"), &|ad| ad.signature[at] ^= 1);
    }
    let entries = ad.extended_provider.as_ref().map_or(0, |extended| extended.providers.len());
    if entries > 0 {
        change("context id".into(), &|ad| ad.context_id.push(0));
        change("override".into(), &|ad| ad.extended_provider.iter_mut().for_each(|e| e.overrides = !e.overrides));
    }
    for n in 0..entries {
        let mut change = |name: &str, with: &dyn Fn(&mut Provider)| {
            let with =
                |ad: &mut Advertisement| with(&mut ad.extended_provider.as_mut().expect("extended").providers[n]);
            change(format!("{name} of entry {n}"), &with);
        };
        change("id", &|entry| entry.id = flip(&entry.id));
        change("address", &|entry| entry.addresses[0].push('0'));
        change("metadata", &|entry| entry.metadata[0] ^= 1);
        for at in 0..ad.signature.len() {
            change(&format!("signature {at}"), &|entry| entry.signature[at] ^= 1);
        }
    }
    all
}

#[test]
fn nothing_that_is_signed_can_be_changed() {
    // RSA and the curves of others take long in a test build, and are told apart by the envelope alone.
    for name in ["first", "second", "on_behalf", "removal", "extended", "extended_override_on_behalf", "old_signature"]
    {
        let ad = Advertisement::from_block(&vector("ad", name, "cbor").block()).expect("decodes");
        for (what, other) in changed(&ad) {
            assert!(other.verify().is_err(), "{name}: {what} was changed and the signature held");
        }
    }
}

#[test]
fn what_is_not_signed_is_what_the_original_leaves_out() {
    let mut ad = Advertisement::from_block(&vector("ad", "second", "json").block()).expect("decodes");
    ad.context_id.push(0);
    ad.extended_provider = Some(ExtendedProvider::default());
    assert!(ad.verify().is_ok());
}

#[test]
fn ours_are_byte_for_byte_theirs() {
    let id = |seed| key(seed).public().to_peer_id().to_string();
    let newest_chunk = vector("chunk", "next", "json").block();
    let mut ad = Advertisement {
        previous_id: None,
        provider: id(1),
        addresses: vec!["/ip4/127.0.0.1/tcp/3103".into(), "/dns4/example.org/tcp/443/https".into()],
        signature: Vec::new(),
        entries: *newest_chunk.cid(),
        context_id: b"context".to_vec(),
        metadata: vec![0x80, 0x12, 1, 2, 3],
        is_rm: false,
        extended_provider: None,
    };
    let same = |name: &str, ad: &Advertisement| {
        for (codec, text) in [(Codec::DagCbor, "cbor"), (Codec::DagJson, "json")] {
            assert_eq!(ad.to_block(codec).expect("a block"), vector("ad", name, text).block(), "{name} {text}");
        }
    };
    ad.sign(&key(1)).expect("signs");
    same("first", &ad);
    ad.previous_id = Some(*vector("ad", "first", "json").block().cid());
    ad.sign(&key(1)).expect("signs");
    same("second", &ad);
    let mut on_behalf = ad.clone();
    on_behalf.sign(&key(2)).expect("signs");
    same("on_behalf", &on_behalf);

    let other = Provider {
        id: id(3),
        addresses: vec!["/ip4/10.0.0.3/tcp/3".into(), "/ip4/10.0.0.3/udp/3/quic-v1".into()],
        metadata: b"three".to_vec(),
        signature: Vec::new(),
    };
    let own =
        Provider { id: id(1), addresses: ad.addresses.clone(), metadata: ad.metadata.clone(), signature: Vec::new() };
    ad.extended_provider = Some(ExtendedProvider { providers: vec![other, own], overrides: false });
    ad.sign_with_extended(&key(1), &[key(3)]).expect("signs");
    same("extended", &ad);
    ad.extended_provider.as_mut().expect("extended").overrides = true;
    ad.sign_with_extended(&key(2), &[key(3)]).expect("signs");
    same("extended_override_on_behalf", &ad);

    let mut removal = Advertisement {
        addresses: Vec::new(),
        entries: NO_ENTRIES,
        metadata: Vec::new(),
        is_rm: true,
        extended_provider: None,
        ..on_behalf
    };
    removal.sign(&key(1)).expect("signs");
    same("removal", &removal);
}

#[test]
fn chunks_are_read_and_written_again_and_ours_are_the_same_blocks() {
    for vector in vectors("chunk") {
        let block = vector.block();
        let chunk = EntryChunk::from_block(&block).expect("decodes");
        assert_eq!(chunk.to_block(vector.codec()).expect("a block"), block, "{}", vector.name);
        assert_eq!(chunk.multihashes().count(), if vector.name == "empty" { 0 } else { 3 });
        assert_eq!(Entries::from_block(&block), Ok(Entries::Chunk(chunk)));
    }
    let long = HashCode::Sha2_512.digest(b"long").expect("hashes");
    let inline = Multihash::wrap(0, b"inline").expect("fits");
    let multihashes = [entry(0), entry(1), entry(2), entry(3), long, inline];
    let blocks: Vec<_> = Chunks::new(multihashes, Codec::DagJson, 3).collect::<Result<_, _>>().expect("blocks");
    assert_eq!(blocks, ["first", "next"].map(|name| vector("chunk", name, "json").block()));
}

#[test]
fn a_hamt_is_read_as_the_set_of_its_keys() {
    let expected: BTreeSet<_> = (0..24).map(|n| entry(n).to_bytes()).collect();
    for codec in ["cbor", "json"] {
        let of_codec = vectors("hamt").into_iter().filter(|vector| vector.codec == codec);
        let nodes: BTreeMap<Cid, Block> =
            of_codec.map(|vector| vector.block()).map(|block| (*block.cid(), block)).collect();
        assert!(nodes.len() > 1);
        let Ok(Entries::Hamt(root)) = Entries::from_block(&vector("hamt", "root", codec).block()) else {
            panic!("no root");
        };
        let mut keys: Vec<_> = root.multihashes().map(|key| key.to_bytes()).collect();
        let (mut links, mut read) = (root.links, 1);
        while let Some(link) = links.pop() {
            let node = HamtNode::from_block(&nodes[&link]).expect("a node");
            assert!(HamtNode::root_from_block(&nodes[&link]).is_err(), "a node is no root");
            keys.extend(node.multihashes().map(|key| key.to_bytes()));
            links.extend(node.links);
            read += 1;
        }
        assert_eq!((read, keys.len()), (nodes.len(), expected.len()));
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn heads_hold_and_are_byte_for_byte_theirs() {
    let first = *vector("ad", "first", "json").block().cid();
    for vector in vectors("head") {
        let head = SignedHead::decode(vector.codec(), &vector.bytes()).expect("holds");
        let topic = if vector.name == "topic" { "/indexer/ingest/mainnet" } else { "" };
        assert_eq!((head.publisher(), *head.head()), (vector.signer(), first));
        assert_eq!(head.topic().unwrap_or_default(), topic);
        assert_eq!(head.encode(vector.codec()).expect("encodes"), vector.bytes());
        assert_eq!(SignedHead::sign(&key(1), first, topic), Ok(head));
    }
}

#[test]
fn no_part_of_a_head_can_be_changed() {
    for vector in vectors("head").into_iter().filter(|vector| vector.codec == "cbor") {
        let bytes = vector.bytes();
        for at in 0..bytes.len() {
            for bit in [1, 0x80] {
                let mut other = bytes.clone();
                other[at] ^= bit;
                assert!(SignedHead::decode(Codec::DagCbor, &other).is_err(), "{}: byte {at} was changed", vector.name);
            }
        }
    }
    let text = |name| String::from_utf8(vector("head", name, "json").bytes()).expect("text");
    let cases = [
        ("a topic put in", "no_topic", "}}}", "}},\"topic\":\"x\"}"),
        ("the topic taken out", "topic", ",\"topic\":\"/indexer/ingest/mainnet\"", ""),
        ("another topic", "topic", "mainnet", "testnet"),
    ];
    for (what, name, from, to) in cases {
        let other = text(name).replacen(from, to, 1);
        assert_ne!(other, text(name), "{what}");
        let error = SignedHead::decode(Codec::DagJson, other.as_bytes()).expect_err(what);
        assert!(matches!(error, IpniError::Signature { .. }), "{what}: {error}");
    }
}
