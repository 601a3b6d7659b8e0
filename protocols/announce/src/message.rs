//! The announcement on the wire.

mod json;

use std::fmt;

use cid::Cid;
use dagmesh_core::{
    cbor,
    limits::{MAX_ADDR_BYTES, MAX_ANNOUNCEMENT_ADDRS, MAX_ANNOUNCEMENT_BYTES},
};
use dagmesh_dag::SignedHead;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
    ser::SerializeTuple,
};
use serde_bytes::ByteBuf;

use crate::AnnounceError;

/// What an announcement takes beside its addresses and its head: item heads, the CID, the original publisher.
const ENVELOPE_BYTES: usize = 320;
/// What an address takes beside its own bytes.
const ADDR_HEAD_BYTES: usize = 3;

/// The word that a DAG has a new head, and where to fetch it.
///
/// On the wire: a CBOR array of three, or of four where `orig_peer` is set: the CID (tag 42), the addresses (byte
/// strings of binary multiaddrs), the extra data (a byte string, empty where there is none), the original publisher
/// (text). At most [`MAX_ANNOUNCEMENT_BYTES`], [`MAX_ANNOUNCEMENT_ADDRS`] addresses of at most [`MAX_ADDR_BYTES`].
///
/// A native announcement carries a [`SignedHead`] as its extra data, so whoever relays it need not be trusted; a
/// receiver of the IPNI network reads it all the same.
///
/// Source: go-libipni 0.7, `announce/message`, as its generated encoder writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The head.
    pub cid: Cid,
    /// Where the publisher can be reached. Addresses with protocols that we do not know are left out on decoding.
    pub addrs: Vec<Multiaddr>,
    /// Data for certain receivers; ours is the signed head.
    pub extra: Vec<u8>,
    /// The publisher, where somebody else relays its announcement. By itself it is only the relay's word.
    pub orig_peer: Option<PeerId>,
}

impl Announcement {
    /// The announcement of `head`, to be sent by its publisher, who can be reached at `addrs`.
    ///
    /// Addresses over the caps are left out, the last ones first, so that the message can always be encoded.
    pub fn new(head: &SignedHead, addrs: impl IntoIterator<Item = Multiaddr>) -> Self {
        Self::with(*head.head(), head.encode().to_vec(), addrs)
    }

    /// The announcement of a head without numbers and without a proof, as the IPNI network has it; else as
    /// [`new`](Self::new).
    pub fn bare(head: Cid, addrs: impl IntoIterator<Item = Multiaddr>) -> Self {
        Self::with(head, Vec::new(), addrs)
    }

    fn with(cid: Cid, extra: Vec<u8>, addrs: impl IntoIterator<Item = Multiaddr>) -> Self {
        let mut room = MAX_ANNOUNCEMENT_BYTES.saturating_sub(ENVELOPE_BYTES + extra.len());
        let addrs = addrs
            .into_iter()
            .filter(|addr| !addr.is_empty() && addr.len() <= MAX_ADDR_BYTES)
            .take(MAX_ANNOUNCEMENT_ADDRS)
            .take_while(|addr| match room.checked_sub(addr.len() + ADDR_HEAD_BYTES) {
                Some(left) => {
                    room = left;
                    true
                }
                None => false,
            })
            .collect();
        Self { cid, addrs, extra, orig_peer: None }
    }

    /// The same announcement, to be sent by somebody else than its publisher.
    pub fn relayed(mut self, publisher: PeerId) -> Self {
        self.orig_peer = Some(publisher);
        self
    }

    /// Its bytes. Fails where one of the caps is passed.
    pub fn encode(&self) -> Result<Vec<u8>, AnnounceError> {
        check_addrs(self.addrs.iter().map(Multiaddr::len))?;
        let bytes = cbor::to_vec(&Wire {
            cid: self.cid,
            addrs: self.addrs.iter().map(|addr| ByteBuf::from(addr.to_vec())).collect(),
            extra: ByteBuf::from(self.extra.clone()),
            orig_peer: self.orig_peer.map(|peer| peer.to_string()),
        })?;
        check_len(bytes.len())?;
        Ok(bytes)
    }

    /// Reads an announcement. Total and bounded; nothing is checked yet but the form.
    pub fn decode(bytes: &[u8]) -> Result<Self, AnnounceError> {
        check_len(bytes.len())?;
        let wire: Wire = cbor::from_slice(bytes)?;
        check_addrs(wire.addrs.iter().map(|addr| addr.len()))?;
        let addrs = read_addrs(wire.addrs.into_iter().map(ByteBuf::into_vec))?;
        let orig_peer = read_orig_peer(wire.orig_peer)?;
        Ok(Self { cid: wire.cid, addrs, extra: wire.extra.into_vec(), orig_peer })
    }

    /// The signed head that it carries; `None` where there is no extra data.
    ///
    /// Checks the signature, and that the head names the same entry as the announcement.
    pub fn signed_head(&self) -> Option<Result<SignedHead, AnnounceError>> {
        (!self.extra.is_empty()).then(|| {
            let head = SignedHead::decode(&self.extra)?;
            if *head.head() != self.cid {
                return Err(AnnounceError::OtherHead { announced: Box::new(self.cid), signed: Box::new(*head.head()) });
            }
            Ok(head)
        })
    }
}

fn check_len(len: usize) -> Result<(), AnnounceError> {
    let max = MAX_ANNOUNCEMENT_BYTES;
    if len > max { Err(AnnounceError::TooLong { len, max }) } else { Ok(()) }
}

fn check_addrs(lens: impl ExactSizeIterator<Item = usize>) -> Result<(), AnnounceError> {
    if lens.len() > MAX_ANNOUNCEMENT_ADDRS {
        return Err(AnnounceError::TooManyAddrs { len: lens.len(), max: MAX_ANNOUNCEMENT_ADDRS });
    }
    match lens.enumerate().find(|(_, len)| *len > MAX_ADDR_BYTES) {
        Some((index, len)) => Err(AnnounceError::LongAddr { index, len, max: MAX_ADDR_BYTES }),
        None => Ok(()),
    }
}

/// Addresses with protocols that we do not know are left out.
fn read_addrs(addrs: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Multiaddr>, AnnounceError> {
    let mut read = Vec::with_capacity(addrs.size_hint().0);
    for (index, addr) in addrs.enumerate() {
        match Multiaddr::try_from(addr.clone()).or_else(|error| read_old_addr(&addr, error)) {
            Ok(addr) if addr.is_empty() => {}
            Ok(addr) => read.push(addr),
            Err(multiaddr::Error::UnknownProtocolId(_)) => {}
            Err(error) => return Err(AnnounceError::Addr { index, reason: error.to_string() }),
        }
    }
    Ok(read)
}

/// `/http-path` was `/httpath` before it had a code of its own, with its text percent-encoded. Old publishers still say
/// so (go-libipni 0.7, `maurl`).
fn read_old_addr(mut bytes: &[u8], error: multiaddr::Error) -> Result<Multiaddr, multiaddr::Error> {
    const OLD: [u8; 4] = [0x80, 0x84, 0xc0, 0x01];
    const NEW: [u8; 2] = [0xe1, 0x03];
    if !matches!(error, multiaddr::Error::UnknownProtocolId(0x30_0200)) {
        return Err(error);
    }
    let mut addr = Multiaddr::empty();
    while !bytes.is_empty() {
        let Some(old) = bytes.strip_prefix(&OLD) else {
            let (part, rest) = Protocol::from_bytes(bytes)?;
            addr.push(part);
            bytes = rest;
            continue;
        };
        let renamed = [&NEW[..], old].concat();
        let (part, rest) = Protocol::from_bytes(&renamed)?;
        let Protocol::HttpPath(text) = part else { return Err(error) };
        // As text it is decoded; a slash would begin another part.
        let path: Multiaddr = format!("/http-path/{}", text.replace('/', "%2F")).parse()?;
        path.iter().for_each(|part| addr.push(part));
        bytes = old.get(old.len().saturating_sub(rest.len())..).unwrap_or_default();
    }
    Ok(addr)
}

/// The original takes an empty text for none.
fn read_orig_peer(text: Option<String>) -> Result<Option<PeerId>, AnnounceError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let peer = text.parse().map_err(|_| AnnounceError::OrigPeer { text: text.chars().take(80).collect() })?;
    Ok(Some(peer))
}

/// The array as it stands on the wire. Its length varies, so derived code does not fit.
struct Wire {
    cid: Cid,
    addrs: Vec<ByteBuf>,
    extra: ByteBuf,
    orig_peer: Option<String>,
}

impl Serialize for Wire {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_tuple(if self.orig_peer.is_some() { 4 } else { 3 })?;
        array.serialize_element(&self.cid)?;
        array.serialize_element(&self.addrs)?;
        array.serialize_element(&self.extra)?;
        if let Some(peer) = &self.orig_peer {
            array.serialize_element(peer)?;
        }
        array.end()
    }
}

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Wire;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an announcement: an array of three or four")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let missing = |what| A::Error::custom(format_args!("{what} is missing"));
                let cid = array.next_element()?.ok_or_else(|| missing("the CID"))?;
                // The scanner has checked that no list claims more than the bytes hold, and they are few.
                let addrs = array.next_element()?.ok_or_else(|| missing("the list of addresses"))?;
                let extra = array.next_element()?.ok_or_else(|| missing("the extra data"))?;
                let orig_peer = array.next_element()?;
                if array.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("more than four items"));
                }
                Ok(Wire { cid, addrs, extra, orig_peer })
            }
        }

        deserializer.deserialize_seq(Array)
    }
}

#[cfg(test)]
mod tests {
    use dagmesh_dag::FeedName;
    use libp2p_identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    /// bafkreehdwdcefgh4dqkjv67uzcmw7oje: CIDv1, raw, sha2-256 cut to 16 bytes; IPNI's "no entries".
    const CID: [u8; 20] = [
        0x01, 0x55, 0x12, 0x10, 0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f,
        0xb9, 0x24,
    ];
    /// /ip4/127.0.0.1/tcp/3003
    const ADDR: [u8; 8] = [0x04, 127, 0, 0, 1, 0x06, 0x0b, 0xbb];

    fn cid_item() -> Vec<u8> {
        [&[0xd8, 0x2a, 0x55, 0x00][..], &CID].concat()
    }

    fn addr() -> Multiaddr {
        "/ip4/127.0.0.1/tcp/3003".parse().expect("an address")
    }

    fn head() -> SignedHead {
        let cid = "bafyreidykglsfhoixmivffc5uwhcgshx4j465xwqntbmu43nb2dzqwfvae".parse().expect("a CID");
        SignedHead::sign(&Keypair::generate_ed25519(), &FeedName::default(), cid, 7, 1_700_000_000_000).expect("signs")
    }

    #[test]
    fn three_items_are_written_and_read_as_the_original_does() {
        let bytes = [&[0x83][..], &cid_item(), &[0x81, 0x48], &ADDR, &[0x43, 1, 2, 3]].concat();
        let announcement = Announcement {
            cid: Cid::try_from(&CID[..]).expect("a CID"),
            addrs: vec![addr()],
            extra: vec![1, 2, 3],
            orig_peer: None,
        };
        assert_eq!(announcement.cid.to_string(), "bafkreehdwdcefgh4dqkjv67uzcmw7oje");
        assert_eq!(Announcement::decode(&bytes), Ok(announcement.clone()));
        assert_eq!(announcement.encode(), Ok(bytes));
    }

    #[test]
    fn empty_extra_data_is_an_empty_byte_string_and_the_list_of_addresses_may_be_empty() {
        let bytes = [&[0x83][..], &cid_item(), &[0x80, 0x40]].concat();
        let announcement = Announcement::decode(&bytes).expect("an announcement");
        assert!(announcement.addrs.is_empty() && announcement.extra.is_empty() && announcement.orig_peer.is_none());
        assert!(announcement.signed_head().is_none());
        assert_eq!(announcement.encode(), Ok(bytes));
    }

    #[test]
    fn the_original_publisher_is_the_fourth_item_as_text() {
        let peer = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";
        let bytes = [&[0x84][..], &cid_item(), &[0x80, 0x40, 0x78, 52], peer.as_bytes()].concat();
        let announcement = Announcement::decode(&bytes).expect("an announcement");
        assert_eq!(announcement.orig_peer, peer.parse().ok());
        assert_eq!(announcement.encode(), Ok(bytes));

        let empty = [&[0x84][..], &cid_item(), &[0x80, 0x40, 0x60]].concat();
        assert_eq!(Announcement::decode(&empty).expect("an announcement").orig_peer, None);
        let broken = [&[0x84][..], &cid_item(), &[0x80, 0x40, 0x63], b"Qmx"].concat();
        assert_eq!(Announcement::decode(&broken), Err(AnnounceError::OrigPeer { text: "Qmx".into() }));
    }

    #[test]
    fn an_address_of_an_unknown_protocol_is_skipped_and_a_broken_one_is_refused() {
        // 0xfe7f is a varint that names no protocol.
        let unknown = [&[0x83][..], &cid_item(), &[0x82, 0x43, 0xfe, 0x7f, 0x01, 0x48], &ADDR, &[0x40]].concat();
        assert_eq!(Announcement::decode(&unknown).expect("an announcement").addrs, [addr()]);
        let short = [&[0x83][..], &cid_item(), &[0x81, 0x43, 0x04, 127, 0, 0x40]].concat();
        assert!(matches!(Announcement::decode(&short), Err(AnnounceError::Addr { index: 0, .. })));
    }

    #[test]
    fn the_old_form_of_a_path_is_read_as_the_new_one() {
        let tail = [&[0xe0, 0x03, 0x80, 0x84, 0xc0, 0x01, 0x0a][..], b"a%2Fb%20cd"].concat();
        for (end, expected) in [(&[][..], "/http/http-path/a%2Fb%20cd"), (&[0x01], "broken"), (&ADDR, "more")] {
            let addr = [&ADDR[..], &tail, end].concat();
            let list = [&[0x81, 0x58, addr.len() as u8][..], &addr].concat();
            let read = Announcement::decode(&[&[0x83][..], &cid_item(), &list, &[0x40]].concat());
            match expected {
                // Code 1 is none, so the address is one that we do not know.
                "broken" => assert!(read.expect("an announcement").addrs.is_empty()),
                "more" => assert_eq!(read.expect("an announcement").addrs[0].iter().count(), 6),
                path => assert_eq!(
                    read.expect("an announcement").addrs[0].to_string(),
                    format!("/ip4/127.0.0.1/tcp/3003{path}")
                ),
            }
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let cid = cid_item();
        let cases: [(&str, Vec<u8>); 7] = [
            ("two items", [&[0x82][..], &cid, &[0x80]].concat()),
            ("five items", [&[0x85][..], &cid, &[0x80, 0x40, 0x60, 0x00]].concat()),
            ("extra data as text", [&[0x83][..], &cid, &[0x80, 0x60]].concat()),
            ("extra data null", [&[0x83][..], &cid, &[0x80, 0xf6]].concat()),
            ("an address as text", [&[0x83][..], &cid, &[0x81, 0x60, 0x40]].concat()),
            ("bytes behind it", [&[0x83][..], &cid, &[0x80, 0x40, 0x00]].concat()),
            ("no CID", vec![0x83, 0x40, 0x80, 0x40]),
        ];
        for (name, bytes) in cases {
            assert!(matches!(Announcement::decode(&bytes), Err(AnnounceError::Message(_))), "{name} was taken");
        }
    }

    #[test]
    fn addresses_are_taken_at_the_cap_and_refused_beyond_it() {
        let many = |n: usize| {
            let list = [&[0x98, n as u8][..], &[&[0x48][..], &ADDR].concat().repeat(n)].concat();
            Announcement::decode(&[&[0x83][..], &cid_item(), &list, &[0x40]].concat())
        };
        assert_eq!(many(MAX_ANNOUNCEMENT_ADDRS).expect("fits").addrs.len(), MAX_ANNOUNCEMENT_ADDRS);
        let max = MAX_ANNOUNCEMENT_ADDRS;
        assert_eq!(many(max + 1), Err(AnnounceError::TooManyAddrs { len: max + 1, max }));
    }

    #[test]
    fn an_address_is_taken_at_the_cap_and_refused_one_byte_over_it() {
        let long = |len: usize| {
            // /unix/<path>: one address of exactly `len` bytes, its length prefix has two.
            let path = [&[0x90, 0x03][..], &[(len - 4) as u8 | 0x80, ((len - 4) >> 7) as u8], &vec![b'a'; len - 4]];
            let addr = [&[0x59, (len >> 8) as u8, len as u8][..], &path.concat()].concat();
            Announcement::decode(&[&[0x83][..], &cid_item(), &[0x81], &addr, &[0x40]].concat())
        };
        assert_eq!(long(MAX_ADDR_BYTES).expect("fits").addrs.len(), 1);
        let max = MAX_ADDR_BYTES;
        assert_eq!(long(max + 1), Err(AnnounceError::LongAddr { index: 0, len: max + 1, max }));
    }

    #[test]
    fn a_message_is_taken_at_the_cap_and_refused_one_byte_over_it() {
        let max = MAX_ANNOUNCEMENT_BYTES;
        let padded = |len: usize| {
            let extra = len - (1 + cid_item().len() + 1 + 3);
            let head = [0x59, (extra >> 8) as u8, extra as u8];
            [&[0x83][..], &cid_item(), &[0x80], &head, &vec![0; extra]].concat()
        };
        assert_eq!(padded(max).len(), max);
        assert!(Announcement::decode(&padded(max)).is_ok());
        assert_eq!(Announcement::decode(&padded(max + 1)), Err(AnnounceError::TooLong { len: max + 1, max }));
        let mut announcement = Announcement::decode(&padded(max)).expect("an announcement");
        announcement.extra.push(0);
        assert_eq!(announcement.encode(), Err(AnnounceError::TooLong { len: max + 1, max }));
    }

    #[test]
    fn a_native_announcement_carries_its_signed_head() {
        let head = head();
        let announcement = Announcement::new(&head, [addr()]).relayed(head.publisher());
        let read = Announcement::decode(&announcement.encode().expect("encodes")).expect("decodes");
        assert_eq!(read, announcement);
        assert_eq!(read.signed_head(), Some(Ok(head)));
    }

    #[test]
    fn a_head_that_names_another_entry_than_the_announcement_is_refused() {
        let mut announcement = Announcement::new(&head(), []);
        announcement.cid = Cid::try_from(&CID[..]).expect("a CID");
        assert!(matches!(announcement.signed_head(), Some(Err(AnnounceError::OtherHead { .. }))));
        announcement.extra = b"a storage provider".to_vec();
        assert!(matches!(announcement.signed_head(), Some(Err(AnnounceError::Head(_)))));
    }

    #[test]
    fn our_own_announcement_always_fits_however_many_addresses_we_have() {
        let long: Multiaddr = format!("/unix/{}", "a".repeat(500)).parse().expect("an address");
        let announcement = Announcement::new(&head(), vec![long; 100]).relayed(head().publisher());
        assert!(announcement.addrs.len() > 20, "{}", announcement.addrs.len());
        assert!(announcement.encode().is_ok());
        let too_long: Multiaddr = format!("/unix/{}", "a".repeat(600)).parse().expect("an address");
        assert_eq!(Announcement::new(&head(), [too_long, addr()]).addrs, [addr()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_announcement_or_an_error(bytes in any::<Vec<u8>>()) {
            let _ = Announcement::decode(&bytes);
        }

        #[test]
        fn a_damaged_announcement_is_read_as_what_it_says_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let whole = Announcement::new(&head(), [addr()]);
            let mut bytes = whole.encode().expect("encodes");
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Announcement::decode(&bytes) && read.addrs.len() == 1 {
                prop_assert_eq!(read.encode().expect("encodes"), bytes);
            }
        }
    }
}
