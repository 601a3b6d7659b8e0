//! IPNS records of other implementations hold here, and are what we would have written (`vectors/README.md`).

use std::collections::BTreeMap;

use dagmesh_records::{Code, Draft, IpnsDraft, IpnsName, IpnsRecord, Record, RecordName, Validity, Verified, verify};
use data_encoding::HEXLOWER;
use libp2p_identity::Keypair;
use serde::Deserialize;

/// The first of January 2025.
const NOW_MS: u64 = 1_735_689_600_000;

#[derive(Deserialize)]
struct Vector {
    by: String,
    name: String,
    peer: String,
    cid: String,
    routing: String,
    value: String,
    sequence: u64,
    ttl: u64,
    validity: String,
    record: String,
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("vectors/ipns.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("a vector")).collect()
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("hexadecimal")
}

#[test]
fn records_of_others_hold_and_say_what_they_were_told_to() {
    let vectors = vectors();
    for key_type in ["ed25519", "rsa", "secp256k1", "ecdsa"] {
        assert!(vectors.iter().any(|vector| vector.name == key_type), "{key_type}");
    }
    for Vector { by, name, peer, cid, routing, value, sequence, ttl, validity, record } in vectors {
        let what = format!("{name} by {by}");
        let (key, bytes) = (hex(&routing), hex(&record));
        let ipns = IpnsRecord::verify(&key, &bytes, NOW_MS).unwrap_or_else(|error| panic!("{what}: {error}"));
        let draft = ipns.draft();
        assert_eq!((draft.value.as_slice(), draft.sequence, draft.ttl_ns), (value.as_bytes(), sequence, ttl), "{what}");
        let text = draft.validity.to_string();
        assert_eq!(text.trim_end_matches(['0', 'Z']), validity.trim_end_matches(['0', 'Z']), "{what}");
        let name = ipns.name();
        assert_eq!(
            (name.to_string(), name.peer_id().to_string(), name.key()),
            (cid.clone(), peer.clone(), key),
            "{what}"
        );
        assert_eq!((cid.parse(), peer.parse()), (Ok(name), Ok(name)), "{what}");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            if let Ok(still) = IpnsRecord::verify(&name.key(), &changed, NOW_MS) {
                assert_eq!(still.draft(), draft, "{what}: byte {at} changed what it says");
            }
        }
    }
}

/// Of Ed25519 signatures there is one, so all bytes can be compared.
#[test]
fn with_the_same_key_we_write_what_boxo_writes_byte_for_byte() {
    let key = Keypair::ed25519_from_bytes([9; 32]).expect("a key");
    let of_boxo = |vector: &Vector| vector.by.starts_with("boxo") && vector.name == "ed25519";
    let vector = vectors().into_iter().find(of_boxo).expect("is there");
    let validity = Validity::from_unix_ms(4_870_652_889_120);
    assert_eq!(validity.to_string(), vector.validity);
    let draft = IpnsDraft { value: vector.value.into(), sequence: vector.sequence, validity, ttl_ns: vector.ttl };
    let record = IpnsRecord::sign(&key, draft).expect("signs");
    assert_eq!(HEXLOWER.encode(record.encode()), vector.record);
}

#[test]
fn a_record_of_another_name_is_refused() {
    let vectors = vectors();
    let own = IpnsName::from_key(&hex(&vectors[0].routing)).expect("a name");
    for vector in vectors.iter().filter(|vector| vector.routing != vectors[0].routing) {
        let refused = verify(&own.key(), &hex(&vector.record), NOW_MS).expect_err("is another's");
        assert!(matches!(refused.code(), Code::Unverifiable | Code::KeyMismatch), "{}: {refused}", vector.name);
    }
}

#[test]
fn keys_of_every_type_sign_records_of_both_kinds() {
    let rsa = Keypair::rsa_from_pkcs8(&mut include_bytes!("vectors/rsa-2048.pk8").to_vec()).expect("a key");
    let keys = [Keypair::generate_ed25519(), rsa, Keypair::generate_secp256k1(), Keypair::generate_ecdsa()];
    for key in keys {
        let what = key.key_type();
        let validity = Validity::from_unix_ms(NOW_MS + 1);
        let draft = IpnsDraft { value: b"/ipfs/bafkqaaa".to_vec(), sequence: 1, validity, ttl_ns: 0 };
        let ipns = IpnsRecord::sign(&key, draft).expect("signs");
        let draft = Draft {
            name: RecordName::new("name").expect("a name"),
            value: b"value".to_vec(),
            sequence: 1,
            timestamp_ms: NOW_MS,
            expires_ms: NOW_MS + 1,
            meta: BTreeMap::new(),
        };
        let record = Record::sign(&key, draft).expect("signs");
        for signed in [Verified::from(&ipns), Verified::from(&record)] {
            assert_eq!(verify(signed.key(), signed.bytes(), NOW_MS).as_ref(), Ok(&signed), "{what}");
            assert_eq!(signed.owner(), key.public().to_peer_id());
            let mut changed = signed.bytes().to_vec();
            let last = changed.last_mut().expect("bytes");
            *last ^= 1;
            assert!(verify(signed.key(), &changed, NOW_MS).is_err(), "{what}");
        }
    }
}
