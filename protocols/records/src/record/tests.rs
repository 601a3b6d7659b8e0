use dagmesh_core::limits::MAX_CLOCK_SKEW_MS;
use proptest::prelude::*;

use super::*;
use crate::{
    error::Code,
    testing::{HOUR_MS, NOW_MS, draft, key, record},
};

#[test]
fn a_record_comes_back_as_it_was_signed_and_no_byte_of_it_can_be_changed() {
    let mut draft = draft("name", 3, "value");
    draft.meta.insert("a".into(), "b".into());
    let signed = Record::sign(&key(1), draft.clone()).expect("signs");
    let read = Record::decode(signed.encode()).expect("decodes");
    assert_eq!(read, signed);
    assert_eq!(*read.draft(), draft);
    for at in 0..signed.encode().len() {
        for bit in [1, 0x80] {
            let mut bytes = signed.encode().to_vec();
            bytes[at] ^= bit;
            assert!(Record::decode(&bytes).is_err(), "byte {at} changed and the record was taken");
        }
    }
    assert!(Record::decode(&[signed.encode(), &[0]].concat()).is_err(), "bytes behind it");
}

#[test]
fn a_key_is_made_of_the_owner_and_the_name_and_no_other_stands_under_it() {
    let mine = record(1, "name", 1, "mine");
    let key_bytes = mine.key();
    assert!(key_bytes.starts_with(RECORD_PREFIX));
    assert_eq!(key_bytes.len(), RECORD_PREFIX.len() + 32);
    assert!(Record::verify(&key_bytes, mine.encode(), NOW_MS).is_ok());
    for other in [record(2, "name", 9, "another's"), record(1, "other name", 9, "another")] {
        assert_ne!(other.key(), key_bytes);
        let refused = Record::verify(&key_bytes, other.encode(), NOW_MS).expect_err("is none of this key");
        assert_eq!(refused.code(), Code::KeyMismatch);
        assert!(!refused.is_proof());
    }
}

/// The list of a record, to change a field of it and leave the signature.
fn forged(change: impl FnOnce(&mut Wire)) -> Vec<u8> {
    let signed = record(1, "name", 1, "value");
    let Fields(v, pubkey, name, value, sequence, timestamp, expires, meta) =
        fields(signed.public_key(), signed.draft()).expect("fields");
    let sig = key(1).sign(b"something else").expect("signs");
    let mut wire =
        Wire(v, pubkey, name.into_inner(), value.into_inner().into(), sequence, timestamp, expires, meta, sig.into());
    change(&mut wire);
    cbor::to_vec(&wire).expect("encodes")
}

#[test]
fn a_signature_of_something_else_is_a_proof_against_who_delivers_it() {
    let refused = Record::decode(&forged(|_| {})).expect_err("is not signed");
    assert_eq!(refused, RecordError::Signature { owner: key(1).public().to_peer_id() });
    assert!(refused.is_proof());
    assert_eq!(refused.code(), Code::Unverifiable);
}

#[test]
fn a_later_version_is_unsupported_and_no_proof() {
    let refused = Record::decode(&forged(|wire| wire.0 = 2)).expect_err("is of a later version");
    assert_eq!(refused, RecordError::Version(2));
    assert_eq!(refused.code(), Code::Unsupported);
    assert!(!refused.is_proof());
}

#[test]
fn metadata_and_keys_have_one_spelling() {
    let piece = |key: &str| (MetaKey::new(key).expect("short"), MetaValue::default());
    for keys in [["b", "a"], ["a", "a"]] {
        let bytes = forged(|wire| wire.7 = Meta::new(keys.map(piece)).expect("two"));
        assert!(matches!(Record::decode(&bytes), Err(RecordError::Form { .. })), "{keys:?}");
    }
    // A field of the protobuf that no reader knows: the same key in other bytes.
    let bytes = forged(|wire| wire.1.extend_from_slice(&[0x18, 1]));
    assert!(matches!(Record::decode(&bytes), Err(RecordError::Form { .. })), "another spelling of the key");
}

#[test]
fn a_record_expires_to_the_millisecond_and_may_come_from_a_clock_that_is_ahead() {
    let record = record(1, "name", 1, "value");
    let expires_ms = NOW_MS + 24 * HOUR_MS;
    assert_eq!(record.check_time(expires_ms - 1), Ok(()));
    assert_eq!(record.check_time(expires_ms), Err(RecordError::Expired { expires_ms, ago_ms: 0 }));
    assert_eq!(record.check_time(NOW_MS - MAX_CLOCK_SKEW_MS), Ok(()));
    let ahead_ms = MAX_CLOCK_SKEW_MS + 1;
    assert_eq!(record.check_time(NOW_MS - ahead_ms), Err(RecordError::Future { ahead_ms }));
    assert_eq!(record.check_time(0).map_err(|error| error.code()), Err(Code::BadRequest));
}

#[test]
fn a_record_lives_no_longer_than_the_cap_and_not_backwards() {
    let with = |expires_ms| Record::sign(&key(1), Draft { expires_ms, ..draft("name", 1, "") });
    assert!(with(NOW_MS + 1).is_ok());
    assert!(with(NOW_MS + MAX_RECORD_LIFETIME_MS).is_ok());
    for expires_ms in [NOW_MS + MAX_RECORD_LIFETIME_MS + 1, NOW_MS, NOW_MS - 1, 0, u64::MAX] {
        assert!(matches!(with(expires_ms), Err(RecordError::Lifetime { .. })), "{expires_ms}");
        let bytes = forged(|wire| wire.6 = expires_ms);
        assert!(matches!(Record::decode(&bytes), Err(RecordError::Lifetime { .. })), "{expires_ms} of another");
    }
}

#[test]
fn every_field_is_taken_at_its_cap_and_refused_beyond_it() {
    let takes = |draft: Draft| match Record::sign(&key(1), draft) {
        Ok(record) => Record::decode(record.encode()).expect("decodes") == record,
        Err(_) => false,
    };
    let base = || draft("name", 1, "");
    let value = |n: usize| Draft { value: vec![7; n], ..base() };
    assert!(takes(value(0)) && takes(value(MAX_RECORD_VALUE_BYTES)) && !takes(value(MAX_RECORD_VALUE_BYTES + 1)));
    let name = |n: usize| RecordName::new("n".repeat(n));
    assert!(name(1).is_ok() && name(MAX_RECORD_NAME_BYTES).is_ok());
    assert!(name(0).is_err() && name(MAX_RECORD_NAME_BYTES + 1).is_err() && RecordName::new("a\nb").is_err());
    assert!(takes(Draft { name: name(MAX_RECORD_NAME_BYTES).expect("fits"), ..base() }));
    let sequence = |sequence| Draft { sequence, ..base() };
    assert!(takes(sequence(MAX_RECORD_SEQUENCE)) && !takes(sequence(MAX_RECORD_SEQUENCE + 1)));
    let meta = |pieces: usize, key: usize, text: usize| Draft {
        meta: (0..pieces).map(|n| (format!("{n:0>key$}"), "t".repeat(text))).collect(),
        ..base()
    };
    let (pieces, key_bytes, text) = (MAX_RECORD_META, MAX_RECORD_META_KEY_BYTES, MAX_RECORD_META_VALUE_BYTES);
    assert!(takes(meta(pieces, key_bytes, text)) && takes(meta(1, 1, 0)));
    assert!(!takes(meta(pieces + 1, 2, 1)) && !takes(meta(1, key_bytes + 1, 1)) && !takes(meta(1, 1, text + 1)));
    assert!(!takes(Draft { meta: BTreeMap::from([(String::new(), "text".into())]), ..base() }));
}

#[test]
fn a_record_with_everything_at_its_cap_fits_and_a_larger_one_is_refused_unread() {
    let draft = Draft {
        name: RecordName::new("n".repeat(MAX_RECORD_NAME_BYTES)).expect("fits"),
        value: vec![7; MAX_RECORD_VALUE_BYTES],
        meta: (0..MAX_RECORD_META).map(|n| (format!("{n:0>64}"), "t".repeat(MAX_RECORD_META_VALUE_BYTES))).collect(),
        ..draft("name", MAX_RECORD_SEQUENCE, "")
    };
    let len = Record::sign(&key(1), draft).expect("fits").encode().len();
    // Key and signature of RSA 8192 where those of Ed25519 stand.
    assert!(len + 2 * 1100 <= MAX_RECORD_BYTES, "{len} bytes");
    let refused = Record::decode(&vec![0; MAX_RECORD_BYTES + 1]).expect_err("is over the cap");
    assert_eq!(refused.code(), Code::TooBig);
}

proptest! {
    #[test]
    fn whatever_is_signed_is_read_back(
        owner in 0u16..4,
        name in "[^\\p{C}]{1,30}",
        value in prop::collection::vec(any::<u8>(), 0..200),
        sequence in 0..=MAX_RECORD_SEQUENCE,
        timestamp_ms in 0..u64::MAX / 2,
        life_ms in 1..=MAX_RECORD_LIFETIME_MS,
        meta in prop::collection::btree_map(".{1,10}", ".{0,20}", 0..5),
    ) {
        prop_assume!(!name.contains(char::is_control));
        let name = RecordName::new(name).expect("a name");
        let draft = Draft { name, value, sequence, timestamp_ms, expires_ms: timestamp_ms + life_ms, meta };
        let signed = Record::sign(&key(owner), draft.clone()).expect("signs");
        let read = Record::verify(&signed.key(), signed.encode(), timestamp_ms).expect("holds");
        prop_assert_eq!(read.draft(), &draft);
        prop_assert_eq!(read, signed);
    }

    #[test]
    fn nothing_that_is_decoded_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Record::decode(&bytes).is_err());
    }

    #[test]
    fn the_order_is_total_by_sequence_then_time_then_content(
        drafts in prop::collection::vec((0u64..3, 0u64..3, 0u8..3), 3),
    ) {
        let order = |(sequence, later, value): (u64, u64, u8)| {
            let timestamp_ms = NOW_MS + later;
            let draft = Draft { timestamp_ms, value: vec![value], ..draft("name", sequence, "") };
            Record::sign(&key(1), draft).expect("signs").order()
        };
        let orders: Vec<_> = drafts.iter().map(|draft| order(*draft)).collect();
        for (a, order_a) in drafts.iter().zip(&orders) {
            for (b, order_b) in drafts.iter().zip(&orders) {
                prop_assert_eq!(a == b, order_a == order_b, "equal only where all is");
                if (a.0, a.1) < (b.0, b.1) {
                    prop_assert!(order_a < order_b);
                }
            }
        }
        // The newest is the same in whatever order they come.
        let newest = orders.iter().max();
        let folded = orders.iter().rev().fold(None, |held, order| held.max(Some(order)));
        prop_assert_eq!(newest, folded);
    }
}
