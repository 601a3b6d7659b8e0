use cid::Cid;
use dagmesh_core::limits::MAX_IPNS_RECORD_BYTES;
use libp2p_identity::PeerId;
use proptest::prelude::*;

use super::*;
use crate::{
    error::Code,
    testing::{NOW_MS, key},
};

fn draft(sequence: u64, value: &str) -> IpnsDraft {
    IpnsDraft::new(value, sequence, NOW_MS)
}

fn signed() -> IpnsRecord {
    IpnsRecord::sign(&key(1), draft(3, "/ipfs/bafkqaaa")).expect("signs")
}

/// The record, its envelope changed.
fn changed(change: impl FnOnce(&mut Entry)) -> Vec<u8> {
    let mut entry = Entry::decode(signed().encode()).expect("decodes");
    change(&mut entry);
    entry.encode_to_vec()
}

fn verify(bytes: &[u8]) -> Result<IpnsRecord, RecordError> {
    IpnsRecord::verify(&IpnsName::of(&key(1).public()).key(), bytes, NOW_MS)
}

#[test]
fn the_signed_data_has_the_five_fields_in_the_order_of_dag_cbor() {
    let entry = Entry::decode(signed().encode()).expect("decodes");
    let data = entry.data.clone().expect("has data");
    assert_eq!(data[0], 0xa5, "a map of five");
    let at = |field: &str| data.windows(field.len()).position(|bytes| bytes == field.as_bytes()).expect("is there");
    assert!(["TTL", "Value", "Sequence", "Validity", "ValidityType"].map(at).is_sorted());
    assert_eq!(entry.validity.as_deref(), Some(&b"2023-11-16T22:13:20Z"[..]));
    assert!(entry.pub_key.is_none(), "the name holds the key");
}

#[test]
fn both_signatures_hold_and_only_the_second_counts() {
    let entry = Entry::decode(signed().encode()).expect("decodes");
    let (value, validity) = (entry.value.expect("a value"), entry.validity.expect("a validity"));
    let first = [value.as_slice(), &validity, b"EOL"].concat();
    assert!(key(1).public().verify(&first, &entry.signature_v1.expect("is there")));
    assert!(verify(&changed(|entry| entry.signature_v1 = Some(b"anything".to_vec()))).is_ok());
    let forged = verify(&changed(|entry| entry.signature_v2 = entry.signature_v1.clone())).expect_err("is forged");
    assert!(forged.is_proof());
    assert_eq!(forged.code(), Code::Unverifiable);
    assert!(verify(&changed(|entry| entry.signature_v2 = None)).is_err(), "no second signature");
    assert!(verify(&changed(|entry| entry.signature_v2 = Some(Vec::new()))).is_err(), "an empty second signature");
    assert!(verify(&changed(|entry| entry.data = None)).is_err(), "no data");
}

#[test]
fn the_plain_fields_say_what_the_data_says_or_are_not_there() {
    let changes: [fn(&mut Entry); 6] = [
        |entry| entry.value = Some(b"/ipfs/other".to_vec()),
        |entry| entry.value = None,
        |entry| entry.validity = Some(b"2123-11-16T22:13:20Z".to_vec()),
        |entry| entry.validity_type = Some(1),
        |entry| entry.sequence = Some(4),
        |entry| entry.ttl = None,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let refused = verify(&changed(change)).expect_err("says something else");
        assert_eq!(refused.code(), Code::BadRequest, "change {n}");
        assert!(!refused.is_proof(), "anybody on the way can change them");
    }
    let second_alone = changed(|entry| {
        *entry = Entry { signature_v2: entry.signature_v2.take(), data: entry.data.take(), ..Entry::default() };
    });
    assert_eq!(verify(&second_alone).map(|record| record.order()), Ok(signed().order()));
}

#[test]
fn a_record_is_its_owners_alone() {
    let other = IpnsRecord::sign(&key(2), draft(9, "/ipfs/other")).expect("signs");
    assert_eq!(verify(other.encode()).map_err(|error| error.code()), Err(Code::Unverifiable));
    let embedded = changed(|entry| entry.pub_key = Some(key(2).public().encode_protobuf()));
    assert_eq!(verify(&embedded).map_err(|error| error.code()), Err(Code::KeyMismatch));
    let own = changed(|entry| entry.pub_key = Some(key(1).public().encode_protobuf()));
    assert!(verify(&own).is_ok(), "it need not stand there, but may");
}

/// The data of a record, changed, and signed anew.
fn with_data(change: impl FnOnce(&mut BTreeMap<String, Ipld>)) -> Vec<u8> {
    let entry = Entry::decode(signed().encode()).expect("decodes");
    let mut fields = cbor::from_slice(&entry.data.expect("has data")).expect("a map");
    change(&mut fields);
    let data = cbor::to_vec(&fields).expect("encodes");
    let signature = key(1).sign(&[SIGNATURE_PREFIX, &data].concat()).expect("signs");
    Entry { signature_v2: Some(signature), data: Some(data), ..Entry::default() }.encode_to_vec()
}

#[test]
fn unknown_fields_of_the_data_are_its_owners_and_missing_ones_are_refused() {
    let more = with_data(|fields| drop(fields.insert("_mine".into(), Ipld::List(vec![Ipld::Bool(true)]))));
    let record = verify(&more).expect("holds");
    assert_ne!(record.order(), signed().order(), "they are signed too");
    for field in ["TTL", "Value", "Sequence", "Validity", "ValidityType"] {
        assert!(verify(&with_data(|fields| drop(fields.remove(field)))).is_err(), "without {field}");
        let text = |fields: &mut BTreeMap<_, _>| drop(fields.insert(field.into(), Ipld::String("text".into())));
        assert!(verify(&with_data(text)).is_err(), "{field} is text");
    }
    for (field, number) in [("ValidityType", 1), ("Sequence", -1), ("Sequence", 1 << 63), ("TTL", -1)] {
        let other = with_data(|fields| drop(fields.insert(field.into(), Ipld::Integer(number))));
        assert!(verify(&other).is_err(), "{field} is {number}");
    }
    let last = with_data(|fields| drop(fields.insert("Sequence".into(), Ipld::Integer((1 << 63) - 1))));
    assert!(verify(&last).is_ok());
}

#[test]
fn a_record_is_valid_until_its_time_by_rfc_3339_with_any_offset() {
    let at = |text: &str, now_ms| {
        let bytes = with_data(|fields| drop(fields.insert("Validity".into(), Ipld::Bytes(text.into()))));
        IpnsRecord::verify(&IpnsName::of(&key(1).public()).key(), &bytes, now_ms).map(|record| record.draft.validity)
    };
    let ends_ms = 1_700_000_000_500;
    for text in ["2023-11-14T22:13:20.5Z", "2023-11-14T22:13:20.500000000Z", "2023-11-15T00:13:20.500+02:00"] {
        assert_eq!(at(text, ends_ms - 1), Ok(Validity::from_unix_ms(ends_ms)), "{text}");
        assert!(matches!(at(text, ends_ms), Err(RecordError::Expired { .. })), "{text}");
    }
    assert!(matches!(at("1960-01-01T00:00:00Z", 0), Err(RecordError::Expired { .. })));
    let nano = at("2023-11-14T22:13:20.000000001Z", 0).expect("a time");
    assert!(nano > Validity::from_unix_ms(1_700_000_000_000) && nano < Validity::from_unix_ms(1_700_000_000_001));
    assert_eq!(nano.to_string(), "2023-11-14T22:13:20.000000001Z");
    for text in ["", "tomorrow", "2023-11-14", "2023-11-14T22:13:20", "2023-13-14T22:13:20Z", "20231114T221320Z"] {
        assert_eq!(at(text, 0).map_err(|error| error.code()), Err(Code::BadRequest), "{text:?}");
    }
    assert!(at(&format!("2023-11-14T22:13:20.{}Z", "1".repeat(80)), 0).is_err(), "too long");
}

#[test]
fn a_record_is_taken_at_10_kib_and_refused_beyond_it() {
    let small = signed().encode().len() - "/ipfs/bafkqaaa".len() * 2;
    let with = |n: usize| IpnsRecord::sign(&key(1), draft(3, &"v".repeat(n)));
    let fits = (MAX_IPNS_RECORD_BYTES - small) / 2 - 8;
    let largest = (fits..fits + 16).take_while(|n| with(*n).is_ok()).last().expect("some fit");
    let record = with(largest).expect("fits");
    assert!(MAX_IPNS_RECORD_BYTES - record.encode().len() < 2, "{} bytes", record.encode().len());
    assert_eq!(verify(record.encode()), Ok(record.clone()));
    assert!(matches!(with(largest + 1), Err(RecordError::TooLarge { .. })));
    // A field that no reader knows brings another to the very byte.
    let record = with(largest - 8).expect("fits");
    let padded = |len: usize| {
        let padding = len - record.encode().len() - 2;
        [record.encode(), &[0x7a, padding as u8], &vec![0; padding]].concat()
    };
    assert!(verify(&padded(MAX_IPNS_RECORD_BYTES)).is_ok());
    assert_eq!(verify(&padded(MAX_IPNS_RECORD_BYTES + 1)).map_err(|error| error.code()), Err(Code::TooBig));
}

#[test]
fn sequence_decides_then_validity_and_the_envelope_decides_nothing() {
    let sign = |draft| IpnsRecord::sign(&key(1), draft).expect("signs").order();
    let later = |ms| Validity::from_unix_ms(NOW_MS + ms);
    let of = |sequence, ms, value: &str| sign(IpnsDraft { validity: later(ms), ..draft(sequence, value) });
    assert!(of(2, 1, "a") > of(1, 9, "a"));
    assert!(of(1, 9, "a") > of(1, 1, "a"));
    assert_ne!(of(1, 1, "a"), of(1, 1, "b"));
    let junk = [signed().encode(), &[0x7a, 1, 0]].concat();
    let again = verify(&junk).expect("fields that no reader knows are passed over");
    assert_eq!(again.order(), signed().order(), "nobody but the owner makes a newer record");
}

#[test]
fn a_name_is_written_in_base36_and_read_in_every_form() {
    let name = IpnsName::of(&key(1).public());
    let text = name.to_string();
    assert!(text.starts_with("k51"), "{text}");
    let base58 = name.peer_id().to_base58();
    let cid = Cid::try_from(text.as_str()).expect("a CID");
    let base32 = cid.to_string_of_base(cid::multibase::Base::Base32Lower).expect("a base");
    for form in [text.clone(), base58, base32, format!("/ipns/{text}")] {
        assert_eq!(form.parse(), Ok(name), "{form}");
    }
    assert_eq!(IpnsName::from_key(&name.key()), Ok(name));
    assert_eq!(IpnsName::from_topic(&name.topic()), Some(name));
    let digest = [&[0x12, 32][..], &[9; 32]].concat();
    let hashed = PeerId::from_bytes(&digest).expect("a peer").to_base58();
    assert!(hashed.starts_with("Qm") && hashed.parse::<IpnsName>().is_ok());
}

#[test]
fn what_names_no_key_is_refused() {
    let long = "k".repeat(1000);
    for text in ["", "/ipns/", "example.com", "bafkqaaa", "12D3KooW", "Qm", &long] {
        assert!(text.parse::<IpnsName>().is_err(), "{text:?}");
    }
    let keys: [&[u8]; 6] =
        [b"", b"/ipns/", b"/ipns/\x12\x20short", b"/pk/\0\x24", b"/ipns/\x80\0\0", b"/ipns/\x12\x01a"];
    for key in keys {
        assert!(IpnsName::from_key(key).is_err(), "{key:?}");
    }
    for topic in ["", "/record/", "/record/!!", "/record/L2lwbnMv", "/other/L2lwbnMv"] {
        assert_eq!(IpnsName::from_topic(topic), None, "{topic}");
    }
}

proptest! {
    #[test]
    fn whatever_is_signed_is_read_back(
        value in prop::collection::vec(any::<u8>(), 0..100),
        sequence in 0..=MAX_RECORD_SEQUENCE,
        until_ms in 1u64..=253_402_300_799_999,
        ttl_ns in 0..=MAX_RECORD_SEQUENCE,
    ) {
        let draft = IpnsDraft { value, sequence, validity: Validity::from_unix_ms(until_ms), ttl_ns };
        let signed = IpnsRecord::sign(&key(1), draft.clone()).expect("signs");
        let read = IpnsRecord::verify(&signed.name().key(), signed.encode(), until_ms - 1).expect("holds");
        prop_assert_eq!(read.draft(), &draft);
        prop_assert_eq!(read, signed);
    }

    #[test]
    fn nothing_that_is_decoded_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let _ = verify(&bytes);
        let mut record = signed().encode().to_vec();
        let at = at.index(record.len());
        record[at] = with;
        if let Ok(taken) = verify(&record) {
            prop_assert_eq!(taken.order(), signed().order(), "what is signed cannot be changed");
        }
        let _ = IpnsName::from_key(&[b"/ipns/", bytes.as_slice()].concat());
    }
}
