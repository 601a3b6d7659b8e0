//! What comes from the IPNI network.

use std::sync::LazyLock;

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{Block, Codec, Digests, HashCode};
use dagmesh_ipnisync::{Advertisement, Entries, HamtNode, SignedHead};
use libp2p_identity::Keypair;

use crate::input::Input;

static KEY: LazyLock<Keypair> = LazyLock::new(|| Keypair::ed25519_from_bytes([1; 32]).expect("a key"));

/// Advertisements, heads and entries; the first byte says which, and in which codec: what is read is within its bounds and
/// is written and read again as it was, in both codecs; what we sign holds; a block is proven or refused.
pub fn ipni(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let codec = codec(kind);
    let bytes = input.rest();
    match kind / 2 % 4 {
        0 => advertisement(codec, bytes),
        1 => head(codec, bytes),
        2 => entries(codec, bytes),
        _ => block(bytes),
    }
}

fn codec(kind: u8) -> Codec {
    if kind % 2 == 0 { Codec::DagJson } else { Codec::DagCbor }
}

fn advertisement(codec: Codec, bytes: &[u8]) {
    let Ok(mut ad) = Advertisement::decode(codec, bytes) else { return };
    assert!(ad.context_id.len() <= limits::MAX_IPNI_CONTEXT_ID_BYTES);
    assert!(ad.metadata.len() <= limits::MAX_IPNI_METADATA_BYTES);
    for again in [Codec::DagJson, Codec::DagCbor] {
        let written = ad.encode(again).expect("what was decoded can be written");
        assert!(again == Codec::DagJson || codec == Codec::DagJson || written == bytes, "DAG-CBOR has one form");
        assert_eq!(Advertisement::decode(again, &written).as_ref(), Ok(&ad));
    }
    let _ = ad.provider_id();
    if let Ok(signers) = ad.verify() {
        assert!(signers.unproven(&ad).count() <= signers.extended.len());
    }
    if ad.sign(&KEY).is_ok() {
        assert_eq!(ad.verify().expect("our own holds").advertisement, KEY.public().to_peer_id());
    }
}

fn head(codec: Codec, bytes: &[u8]) {
    let Ok(head) = SignedHead::decode(codec, bytes) else { return };
    for again in [Codec::DagJson, Codec::DagCbor] {
        let written = head.encode(again).expect("what was decoded can be written");
        assert_eq!(SignedHead::decode(again, &written).as_ref(), Ok(&head));
    }
}

fn entries(codec: Codec, bytes: &[u8]) {
    let block = Block::new(codec, HashCode::Sha2_256, bytes.to_vec()).expect("a block");
    if let Ok(node) = HamtNode::from_block(&block) {
        assert!(node.links.len() <= limits::MAX_IPNI_HAMT_FANOUT);
    }
    match Entries::from_block(&block) {
        Ok(Entries::Chunk(chunk)) => {
            assert!(chunk.entries.len() <= limits::MAX_IPNI_CHUNK_ENTRIES);
            assert!(chunk.multihashes().count() <= chunk.entries.len());
            let again = chunk.to_block(codec).expect("what was decoded can be written");
            assert!(codec == Codec::DagJson || again == block, "DAG-CBOR has one form");
            assert_eq!(Entries::from_block(&again), Ok(Entries::Chunk(chunk)));
        }
        Ok(Entries::Hamt(node)) => assert!(node.multihashes().count() <= node.entries.len()),
        Err(_) => {}
    }
}

/// A CID, and the block that follows it.
fn block(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(cid) = Cid::read_bytes(&mut rest) else { return };
    if let Ok(block) = Block::verify_with(cid, rest.to_vec(), Digests::OrCut) {
        let digest = cid.hash().digest();
        assert!(digest.len() >= 16 || cid.hash().code() == HashCode::Identity as u64);
        if cid.hash().code() == HashCode::Sha2_256 as u64 {
            let whole = HashCode::Sha2_256.digest(block.data()).expect("hashes");
            assert!(whole.digest().starts_with(digest));
        }
    }
}
