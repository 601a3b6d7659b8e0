use libp2p_identity::Keypair;
use proptest::prelude::*;

use super::*;

const CODECS: [Codec; 2] = [Codec::DagJson, Codec::DagCbor];

fn ad() -> Advertisement {
    Advertisement {
        previous_id: None,
        provider: "12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA".into(),
        addresses: vec!["/ip4/127.0.0.1/tcp/3103".into()],
        signature: vec![1, 2],
        entries: NO_ENTRIES,
        context_id: b"context".to_vec(),
        metadata: vec![0x80, 0x12],
        is_rm: false,
        extended_provider: None,
    }
}

fn extended() -> Advertisement {
    let own = Provider { id: ad().provider, addresses: ad().addresses, metadata: vec![3], signature: vec![4] };
    Advertisement {
        extended_provider: Some(ExtendedProvider { providers: vec![own], overrides: true }),
        previous_id: Some(NO_ENTRIES),
        ..ad()
    }
}

fn json(text: &str) -> Result<Advertisement, IpniError> {
    Advertisement::decode(Codec::DagJson, text.as_bytes())
}

fn text() -> String {
    String::from_utf8(extended().encode(Codec::DagJson).expect("encodes")).expect("text")
}

#[test]
fn no_entries_has_the_name_that_the_network_knows() {
    assert_eq!(NO_ENTRIES.to_string(), "bafkreehdwdcefgh4dqkjv67uzcmw7oje");
}

#[test]
fn what_is_absent_is_left_out_and_keys_are_in_order() {
    let text = String::from_utf8(ad().encode(Codec::DagJson).expect("encodes")).expect("text");
    assert_eq!(
        text,
        r#"{"Addresses":["/ip4/127.0.0.1/tcp/3103"],"ContextID":{"/":{"bytes":"Y29udGV4dA"}},"Entries":{"/":"bafkreehdwdcefgh4dqkjv67uzcmw7oje"},"IsRm":false,"Metadata":{"/":{"bytes":"gBI"}},"Provider":"12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA","Signature":{"/":{"bytes":"AQI"}}}"#
    );
    let keys = |codec| {
        let bytes = extended().encode(codec).expect("encodes");
        let at = |key: &str| bytes.windows(key.len()).position(|part| part == key.as_bytes()).expect("the key");
        ["IsRm", "Entries", "Metadata", "Provider", "Addresses", "ContextID", "PreviousID", "ExtendedProvider"].map(at)
    };
    assert!(keys(Codec::DagCbor).is_sorted(), "the shortest first");
    assert!(!keys(Codec::DagJson).is_sorted());
}

#[test]
fn json_in_another_order_with_space_escapes_and_padding_is_the_same_advertisement() {
    let loose = text()
        .replace("\"Y29udGV4dA\"", "\"Y29udGV4dA==\"")
        .replace("\"gBI\"", " \"gBI=\" ")
        .replace("/ip4/127", "\\u002fip4\\/127")
        .replace("{\"Addresses\"", " {\n\"Addresses\"");
    let provider = format!("\"Provider\":\"{}\",", ad().provider);
    let (front, back) = loose.rsplit_once(&provider).expect("the provider");
    let loose = format!("{front}{back}\r\n").replacen("{\n", &format!("{{\n{provider}"), 1);
    assert_ne!(loose, text());
    assert_eq!(json(&loose), Ok(extended()));
}

#[test]
fn other_kinds_other_keys_and_nulls_are_refused() {
    assert_eq!(json(&text()), Ok(extended()));
    let cases = [
        ("a key that is unknown", "{\"Addresses\"", "{\"Other\":1,\"Addresses\""),
        ("a key twice", "\"IsRm\":false", "\"IsRm\":false,\"IsRm\":false"),
        ("a key in lower case", "\"IsRm\"", "\"isRm\""),
        ("a required key left out", "\"IsRm\":false,", ""),
        ("a number for a flag", "\"IsRm\":false", "\"IsRm\":0"),
        (
            "null for what is absent",
            "\"PreviousID\":{\"/\":\"bafkreehdwdcefgh4dqkjv67uzcmw7oje\"}",
            "\"PreviousID\":null",
        ),
        ("null for addresses", "[\"/ip4/127.0.0.1/tcp/3103\"],\"ContextID\"", "null,\"ContextID\""),
        ("text for bytes", "{\"/\":{\"bytes\":\"gBI\"}}", "\"gBI\""),
        ("a link for bytes", "{\"/\":{\"bytes\":\"gBI\"}}", "{\"/\":\"bafkreehdwdcefgh4dqkjv67uzcmw7oje\"}"),
        ("bytes in a list", "{\"/\":{\"bytes\":\"gBI\"}}", "[[\"gBI\"]]"),
        ("bytes with more beside them", "{\"/\":{\"bytes\":\"gBI\"}}", "{\"/\":{\"bytes\":\"gBI\"},\"x\":1}"),
        ("bytes in another alphabet", "\"gBI\"", "\"-_8\""),
        ("bits beyond the last byte", "\"gBI\"", "\"gBJ\""),
        ("padding where none belongs", "\"gBI\"", "\"gBI==\""),
        ("a link with more beside it", "oje\"},\"Ext", "oje\",\"x\":1},\"Ext"),
        ("a path for a link", "\"/\":\"bafk", "\"/\":\"/ipfs/bafk"),
        ("a link that is cut", "oje\"},\"Ext", "oj\"},\"Ext"),
        ("more behind it", "\"}}}", "\"}}}{}"),
    ];
    for (name, from, to) in cases {
        let changed = text().replacen(from, to, 1);
        assert_ne!(changed, text(), "{name}: nothing to change");
        assert!(matches!(json(&changed), Err(IpniError::Form { .. })), "{name} was taken");
    }
    // The fields in their order: what derived code would take.
    let list =
        text().replacen("{\"Override\":true,\"Providers\":[", "[[", 1).replacen("]},\"IsRm\"", "],true],\"IsRm\"", 1);
    let error = json(&list).expect_err("a list for a map");
    assert!(error.to_string().contains("expected a map"), "{error}");
    for other in ["", "{}", "null", "[]", "[[],null]", "\"x\"", "\u{0}"] {
        assert!(matches!(json(other), Err(IpniError::Form { .. })), "{other:?} was taken");
    }
}

#[test]
fn cbor_that_is_not_canonical_is_refused() {
    let bytes = ad().encode(Codec::DagCbor).expect("encodes");
    let read = |bytes: &[u8]| Advertisement::decode(Codec::DagCbor, bytes);
    assert_eq!(read(&bytes), Ok(ad()));
    // The shortest key first: a map of seven begins with IsRm.
    assert_eq!(bytes[..7], [0xa7, 0x64, b'I', b's', b'R', b'm', 0xf4]);
    let with = |at: usize, len: usize, new: &[u8]| [&bytes[..at], new, &bytes[at + len..]].concat();
    let cases = [
        ("null for a flag", with(6, 1, &[0xf6])),
        ("an indefinite map", [&[0xbf], &bytes[1..], &[0xff]].concat()),
        ("a length that could be shorter", with(0, 1, &[0xb8, 7])),
        ("a list for the map", with(0, 1, &[0x87])),
        ("more behind it", [&bytes[..], &[0]].concat()),
        ("keys out of order", [&[0xa7], &bytes[7..], &bytes[1..7]].concat()),
    ];
    for (name, bytes) in cases {
        assert!(matches!(read(&bytes), Err(IpniError::Form { .. })), "{name} was taken");
    }
}

#[test]
fn what_is_cut_short_is_refused() {
    for codec in CODECS {
        let bytes = extended().encode(codec).expect("encodes");
        for len in 0..bytes.len() {
            assert!(Advertisement::decode(codec, &bytes[..len]).is_err(), "{codec:?} cut to {len} was taken");
        }
    }
}

#[test]
fn what_is_nested_deep_is_refused_and_ends_nothing() {
    let deep = 100_000;
    for open in ["[", "{\"Addresses\":[", "{\"ExtendedProvider\":", "{\"Metadata\":{\"/\":"] {
        let text = format!("{}{}", open, "[".repeat(deep));
        assert!(matches!(json(&text), Err(IpniError::Form { .. })));
        let text = format!("{}{}", open, "{\"/\":".repeat(deep / 5));
        assert!(matches!(json(&text), Err(IpniError::Form { .. })));
    }
    let cbor = [vec![0xa1, 0x69], b"Addresses".to_vec(), vec![0x81; deep], vec![0]].concat();
    assert!(matches!(Advertisement::decode(Codec::DagCbor, &cbor), Err(IpniError::Form { .. })));
}

#[test]
fn other_codecs_are_refused() {
    for codec in [Codec::Raw, Codec::DagPb] {
        assert_eq!(Advertisement::decode(codec, b"{}"), Err(IpniError::Codec(codec as u64)));
        assert_eq!(ad().encode(codec), Err(IpniError::Codec(codec as u64)));
    }
}

/// Is taken with `max`, and neither written nor read with one more.
fn capped(what: &str, max: usize, with: impl Fn(&mut Advertisement, usize)) {
    let mut at_cap = extended();
    with(&mut at_cap, max);
    let mut over = at_cap.clone();
    with(&mut over, max + 1);
    for codec in CODECS {
        let bytes = at_cap.encode(codec).unwrap_or_else(|error| panic!("{what} at the cap: {error}"));
        assert_eq!(Advertisement::decode(codec, &bytes), Ok(at_cap.clone()), "{what}");
        assert!(matches!(over.encode(codec), Err(IpniError::OverCap { max: cap, .. }) if cap == max), "{what}");
        let bytes = wire::encode(WHAT, codec, &over, usize::MAX).expect("encodes");
        let error = Advertisement::decode(codec, &bytes).expect_err("over its cap");
        // A list ends while it is read, the rest is counted afterwards.
        let told = matches!(&error, IpniError::OverCap { max: cap, .. } if *cap == max)
            || matches!(&error, IpniError::Form { reason, .. } if reason.contains(&format!("at most {max}")));
        assert!(told, "{what}: {error}");
    }
}

#[test]
fn every_field_is_taken_at_its_cap_and_refused_one_over_it() {
    let entry = |ad: &mut Advertisement, change: &dyn Fn(&mut Provider)| {
        ad.extended_provider.iter_mut().flat_map(|extended| &mut extended.providers).for_each(change);
    };
    capped("the context id", MAX_IPNI_CONTEXT_ID_BYTES, |ad, n| ad.context_id = vec![7; n]);
    capped("the metadata", MAX_IPNI_METADATA_BYTES, |ad, n| ad.metadata = vec![7; n]);
    capped("the signature", MAX_IPNI_SIGNATURE_BYTES, |ad, n| ad.signature = vec![7; n]);
    capped("the provider", MAX_IPNI_PEER_ID_BYTES, |ad, n| ad.provider = "p".repeat(n));
    capped("the addresses", MAX_IPNI_ADDRS, |ad, n| ad.addresses = vec!["/".into(); n]);
    capped("an address", MAX_IPNI_ADDR_BYTES, |ad, n| ad.addresses = vec!["a".repeat(n)]);
    capped("an entry's metadata", MAX_IPNI_METADATA_BYTES, |ad, n| entry(ad, &|entry| entry.metadata = vec![7; n]));
    capped("an entry's addresses", MAX_IPNI_ADDRS, |ad, n| entry(ad, &|entry| entry.addresses = vec!["/".into(); n]));
    capped("the extended providers", MAX_IPNI_PROVIDERS, |ad, n| {
        let providers = vec![Provider::default(); n];
        ad.extended_provider = Some(ExtendedProvider { providers, overrides: false });
    });
}

#[test]
fn an_advertisement_is_taken_at_the_cap_of_its_block_and_refused_one_byte_over_it() {
    let base = ad().encode(Codec::DagJson).expect("encodes");
    let padded = |len: usize| [&base[..], &b" ".repeat(len - base.len())].concat();
    let max = MAX_IPNI_AD_BYTES;
    assert_eq!(Advertisement::decode(Codec::DagJson, &padded(max)), Ok(ad()));
    let over = Advertisement::decode(Codec::DagJson, &padded(max + 1));
    assert!(matches!(over, Err(IpniError::OverCap { len, max: cap, .. }) if len == max + 1 && cap == max));
}

#[test]
fn a_provider_is_read_in_both_forms_of_a_peer_id() {
    let peer = Keypair::generate_ed25519().public().to_peer_id();
    let base58 = Advertisement { provider: peer.to_string(), ..ad() };
    assert_eq!(base58.provider_id(), Some(peer));
    let cid = Cid::new_v1(0x72, *peer.as_ref());
    assert_eq!(Advertisement { provider: cid.to_string(), ..ad() }.provider_id(), Some(peer));
    let raw = Cid::new_v1(0x55, *peer.as_ref());
    for other in [raw.to_string(), String::new(), "Qm".into(), format!("/p2p/{peer}")] {
        assert_eq!(Advertisement { provider: other, ..ad() }.provider_id(), None);
    }
}

fn cids() -> impl Strategy<Value = Cid> {
    let of_codec = prop::sample::select(vec![0x55u64, 0x71, 0x0129]);
    (of_codec, any::<[u8; 32]>(), prop::sample::select(vec![16usize, 32]))
        .prop_map(|(codec, digest, len)| Cid::new_v1(codec, Multihash::wrap(0x12, &digest[..len]).expect("fits")))
}

fn providers() -> impl Strategy<Value = Provider> {
    (".{0,40}", prop::collection::vec(".{0,30}", 0..4), any::<Vec<u8>>(), any::<Vec<u8>>())
        .prop_map(|(id, addresses, metadata, signature)| Provider { id, addresses, metadata, signature })
        .prop_filter("within the cap", |provider| provider.id.len() <= MAX_IPNI_PEER_ID_BYTES)
}

fn advertisements() -> impl Strategy<Value = Advertisement> {
    let extended = (prop::collection::vec(providers(), 0..4), any::<bool>())
        .prop_map(|(providers, overrides)| ExtendedProvider { providers, overrides });
    let context_id = prop::collection::vec(any::<u8>(), 0..=MAX_IPNI_CONTEXT_ID_BYTES);
    (prop::option::of(cids()), providers(), cids(), context_id, any::<bool>(), prop::option::of(extended)).prop_map(
        |(previous_id, main, entries, context_id, is_rm, extended_provider)| Advertisement {
            previous_id,
            provider: main.id,
            addresses: main.addresses,
            signature: main.signature,
            entries,
            context_id,
            metadata: main.metadata,
            is_rm,
            extended_provider,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(ad in advertisements()) {
        for codec in CODECS {
            let block = ad.to_block(codec).expect("a block");
            prop_assert_eq!(&Advertisement::from_block(&block), &Ok(ad.clone()));
        }
    }

    #[test]
    fn any_bytes_are_an_advertisement_or_an_error(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for codec in CODECS {
            let _ = Advertisement::decode(codec, &bytes);
            let mut damaged = extended().encode(codec).expect("encodes");
            let at = at.index(damaged.len());
            damaged[at] = byte;
            if let Ok(read) = Advertisement::decode(codec, &damaged) {
                prop_assert!(codec == Codec::DagJson || read.encode(codec).expect("encodes") == damaged);
                let _ = read.verify();
            }
        }
    }
}
