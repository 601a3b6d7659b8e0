use dagmesh_dag::HashCode;

use super::*;
use crate::NO_ENTRIES;

const CODECS: [Codec; 2] = [Codec::DagJson, Codec::DagCbor];

fn cid() -> Cid {
    Cid::new_v1(Codec::DagJson as u64, HashCode::Sha2_256.digest(b"head").expect("hashes"))
}

fn head(topic: &str) -> SignedHead {
    SignedHead::sign(&Keypair::ed25519_from_bytes([1; 32]).expect("a key"), cid(), topic).expect("signs")
}

#[test]
fn a_head_comes_back_as_it_was_signed() {
    for codec in CODECS {
        for topic in ["", "/indexer/ingest/test"] {
            let signed = head(topic);
            let read = SignedHead::decode(codec, &signed.encode(codec).expect("encodes")).expect("holds");
            assert_eq!(read, signed);
            assert_eq!((read.head(), read.topic()), (&cid(), Some(topic).filter(|topic| !topic.is_empty())));
        }
    }
}

#[test]
fn a_head_that_is_cut_or_no_head_is_refused() {
    for codec in CODECS {
        let bytes = head("t").encode(codec).expect("encodes");
        for len in 0..bytes.len() {
            assert!(SignedHead::decode(codec, &bytes[..len]).is_err(), "{codec:?} cut to {len} was taken");
        }
    }
    let text = String::from_utf8(head("t").encode(Codec::DagJson).expect("encodes")).expect("text");
    for (from, to) in
        [("\"t\"", "null"), ("\"t\"", "1"), ("\"head\"", "\"Head\""), ("{\"head\"", "{\"seq\":1,\"head\"")]
    {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text);
        assert!(matches!(SignedHead::decode(Codec::DagJson, other.as_bytes()), Err(IpniError::Form { .. })), "{other}");
    }
}

#[test]
fn a_head_with_the_key_of_somebody_else_is_refused() {
    let other = Keypair::ed25519_from_bytes([2; 32]).expect("a key");
    let mut fields = head("t").fields;
    fields.pubkey = other.public().encode_protobuf();
    let bytes = wire::encode(WHAT, Codec::DagJson, &fields, usize::MAX).expect("encodes");
    let error = IpniError::Signature { what: WHAT, signer: other.public().to_peer_id() };
    assert_eq!(SignedHead::decode(Codec::DagJson, &bytes), Err(error));
}

#[test]
fn a_chain_does_not_begin_with_what_is_no_advertisement() {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("a key");
    assert_eq!(SignedHead::sign(&key, NO_ENTRIES, ""), Err(IpniError::Head(Box::new(NO_ENTRIES))));
    let mut fields = head("").fields;
    fields.head = NO_ENTRIES;
    fields.sig = key.sign(&fields.signed_bytes()).expect("signs");
    let bytes = wire::encode(WHAT, Codec::DagCbor, &fields, usize::MAX).expect("encodes");
    assert_eq!(SignedHead::decode(Codec::DagCbor, &bytes), Err(IpniError::Head(Box::new(NO_ENTRIES))));
}

#[test]
fn topic_and_head_are_taken_at_their_caps_and_refused_one_byte_over_them() {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("a key");
    let sign = |len: usize| SignedHead::sign(&key, cid(), &"t".repeat(len));
    let bytes = sign(MAX_TOPIC_BYTES).expect("fits").encode(Codec::DagJson).expect("encodes");
    assert!(SignedHead::decode(Codec::DagJson, &bytes).is_ok());
    assert!(matches!(sign(MAX_TOPIC_BYTES + 1), Err(IpniError::OverCap { max: MAX_TOPIC_BYTES, .. })));

    let padded = |len: usize| [&bytes[..], &b" ".repeat(len - bytes.len())].concat();
    assert!(SignedHead::decode(Codec::DagJson, &padded(MAX_IPNI_HEAD_BYTES)).is_ok());
    let over = SignedHead::decode(Codec::DagJson, &padded(MAX_IPNI_HEAD_BYTES + 1));
    assert!(matches!(over, Err(IpniError::OverCap { max: MAX_IPNI_HEAD_BYTES, .. })));
}
