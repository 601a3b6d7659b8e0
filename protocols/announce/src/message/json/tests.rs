use dagmesh_core::limits::{MAX_ADDR_BYTES, MAX_ANNOUNCEMENT_ADDRS, MAX_ANNOUNCEMENT_BYTES};
use libp2p_identity::PeerId;
use proptest::prelude::*;

use super::*;

/// One message in both forms, as go-libipni 0.7.8 writes it: `message.Message` by `encoding/json` and by `MarshalCBOR`,
/// without addresses; with two; and with two, extra data and an original publisher.
const VECTORS: [(&[u8], &[u8]); 3] = [
    (include_bytes!("../../../tests/vectors/bare.json"), include_bytes!("../../../tests/vectors/bare.cbor")),
    (include_bytes!("../../../tests/vectors/usual.json"), include_bytes!("../../../tests/vectors/usual.cbor")),
    (include_bytes!("../../../tests/vectors/full.json"), include_bytes!("../../../tests/vectors/full.cbor")),
];

fn text(cid: &str, addrs: &str, rest: &str) -> Vec<u8> {
    format!(r#"{{"Cid":{cid},"Addrs":{addrs}{rest}}}"#).into_bytes()
}

const CID: &str = r#"{"/":"bafkreehdwdcefgh4dqkjv67uzcmw7oje"}"#;
/// /ip4/127.0.0.1/tcp/3003
const ADDR: &str = r#""BH8AAAEGC7s=""#;

#[test]
fn both_forms_of_the_original_are_one_message_and_are_written_byte_for_byte() {
    for (index, (json, cbor)) in VECTORS.into_iter().enumerate() {
        let read = Announcement::decode_json(json).expect("decodes");
        assert_eq!(Announcement::decode(cbor), Ok(read.clone()));
        assert_eq!(read.encode_json().as_deref(), Ok(json));
        assert_eq!(read.encode().as_deref(), Ok(cbor));
        assert_eq!(read.addrs.len(), if index == 0 { 0 } else { 2 });
        assert_eq!(read.extra.is_empty() && read.orig_peer.is_none(), index != 2);
    }
}

#[test]
fn what_is_missing_null_or_unknown_is_read_as_empty_and_white_space_does_not_matter() {
    let bare = Announcement::decode_json(&text(CID, "null", r#","ExtraData":null,"OrigPeer":"""#)).expect("decodes");
    let cases = [
        text(CID, "[]", ""),
        text(CID, "null", r#","ExtraData":"","OrigPeer":null"#),
        text(CID, "null", r#","Later":{"a":[1,{"b":null}]}"#),
        format!("\n {{ \"Cid\" : {CID} }}\r\n").into_bytes(),
    ];
    for case in cases {
        assert_eq!(Announcement::decode_json(&case), Ok(bare.clone()), "{}", String::from_utf8_lossy(&case));
    }
    assert_eq!(bare.cid.to_string(), "bafkreehdwdcefgh4dqkjv67uzcmw7oje");
}

#[test]
fn an_address_of_an_unknown_protocol_is_skipped_and_a_broken_one_is_refused() {
    let unknown = text(CID, &format!(r#"["/n8B",{ADDR}]"#), "");
    let addr = "/ip4/127.0.0.1/tcp/3003".parse().expect("an address");
    assert_eq!(Announcement::decode_json(&unknown).expect("decodes").addrs, [addr]);
    let broken = Announcement::decode_json(&text(CID, r#"["BH8A"]"#, ""));
    assert!(matches!(broken, Err(AnnounceError::Addr { index: 0, .. })), "{broken:?}");
}

#[test]
fn other_forms_are_refused() {
    let deep = format!("[{}", "[".repeat(20_000));
    let cases = [
        ("no CID", text("null", "null", "")),
        ("an empty CID", text("{}", "null", "")),
        ("a CID as text", text(r#""bafkreehdwdcefgh4dqkjv67uzcmw7oje""#, "null", "")),
        ("a CID in a list", text(r#"["bafkreehdwdcefgh4dqkjv67uzcmw7oje"]"#, "null", "")),
        ("a path", text(r#"{"/":"/ipfs/bafkreehdwdcefgh4dqkjv67uzcmw7oje"}"#, "null", "")),
        ("an address that is no base64", text(CID, r#"["%"]"#, "")),
        ("base64 without padding", text(CID, r#"["BH8AAAEGC7s"]"#, "")),
        ("an address as a number", text(CID, "[1]", "")),
        ("addresses as text", text(CID, ADDR, "")),
        ("extra data as bytes", text(CID, "null", r#","ExtraData":[1,2]"#)),
        ("more behind it", text(CID, "null", "},{")),
        ("a list", format!("[{CID},null,null,\"\"]").into_bytes()),
        ("nesting", text(CID, "null", &format!(",\"Later\":{deep}"))),
        ("nothing", Vec::new()),
    ];
    for (name, bytes) in cases {
        assert!(matches!(Announcement::decode_json(&bytes), Err(AnnounceError::Json(_))), "{name} was taken");
    }
    let peer = Announcement::decode_json(&text(CID, "null", r#","OrigPeer":"Qmx""#));
    assert_eq!(peer, Err(AnnounceError::OrigPeer { text: "Qmx".into() }));
}

#[test]
fn addresses_are_taken_at_their_caps_and_refused_beyond_them() {
    let many = |n: usize| Announcement::decode_json(&text(CID, &format!("[{}]", vec![ADDR; n].join(",")), ""));
    let max = MAX_ANNOUNCEMENT_ADDRS;
    assert_eq!(many(max).expect("fits").addrs.len(), max);
    assert_eq!(many(max + 1), Err(AnnounceError::TooManyAddrs { len: max + 1, max }));

    let long = |len: usize| {
        // /unix/<path>: one address of exactly `len` bytes, its length prefix has two.
        let path = [&[0x90, 0x03][..], &[(len - 4) as u8 | 0x80, ((len - 4) >> 7) as u8], &vec![b'a'; len - 4]];
        Announcement::decode_json(&text(CID, &format!("[\"{}\"]", BASE64.encode(&path.concat())), ""))
    };
    let max = MAX_ADDR_BYTES;
    assert_eq!(long(max).expect("fits").addrs.len(), 1);
    assert_eq!(long(max + 1), Err(AnnounceError::LongAddr { index: 0, len: max + 1, max }));
}

#[test]
fn json_is_taken_at_its_cap_and_refused_one_byte_over_it() {
    let bare = text(CID, "null", "");
    let max = MAX_IPNI_ANNOUNCEMENT_JSON_BYTES;
    let padded = |len: usize| [&bare[..], &b" ".repeat(len - bare.len())].concat();
    assert!(Announcement::decode_json(&padded(max)).is_ok());
    assert_eq!(Announcement::decode_json(&padded(max + 1)), Err(AnnounceError::TooLong { len: max + 1, max }));
}

#[test]
fn whatever_fits_in_cbor_fits_in_json_and_nothing_else_is_read() {
    let long: Multiaddr = format!("/unix/{}", "a".repeat(MAX_ADDR_BYTES - 4)).parse().expect("an address");
    let peer = PeerId::random();
    let mut full = Announcement::decode_json(&text(CID, "null", "")).expect("decodes").relayed(peer);
    full.addrs = vec![long; 24];
    full.extra = vec![7; MAX_ANNOUNCEMENT_BYTES];
    while full.encode().is_err() {
        full.extra.pop();
    }
    assert_eq!(full.encode().expect("encodes").len(), MAX_ANNOUNCEMENT_BYTES);
    let json = full.encode_json().expect("fits");
    assert_eq!(Announcement::decode_json(&json), Ok(full.clone()));

    full.extra.push(7);
    assert!(matches!(full.encode_json(), Err(AnnounceError::TooLong { .. })));
    let over = text(CID, "null", &format!(r#","ExtraData":"{}""#, BASE64.encode(&vec![7; MAX_ANNOUNCEMENT_BYTES])));
    assert!(over.len() < MAX_IPNI_ANNOUNCEMENT_JSON_BYTES);
    assert!(matches!(Announcement::decode_json(&over), Err(AnnounceError::TooLong { .. })));
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(ports in prop::collection::vec(1u16.., 0..5), extra in any::<Vec<u8>>(), relayed in any::<bool>()) {
        let addrs = ports.iter().map(|port| format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address")).collect();
        let cid = Announcement::decode_json(&text(CID, "null", "")).expect("decodes").cid;
        let whole = Announcement { cid, addrs, extra, orig_peer: relayed.then(PeerId::random) };
        prop_assert_eq!(Announcement::decode_json(&whole.encode_json().expect("encodes")), Ok(whole));
    }

    #[test]
    fn any_bytes_are_an_announcement_or_an_error(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let _ = Announcement::decode_json(&bytes);
        let mut damaged = text(CID, &format!("[{ADDR}]"), r#","ExtraData":"AQI=","OrigPeer":"""#);
        let at = at.index(damaged.len());
        damaged[at] = byte;
        if let Ok(read) = Announcement::decode_json(&damaged) {
            prop_assert_eq!(Announcement::decode(&read.encode().expect("encodes")), Ok(read));
        }
    }
}
