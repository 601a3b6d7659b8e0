//! Interests and data, with the sizes that they have on the wire.

use dagmesh_simnet::Packet;

use super::super::{Numbers, tlv};

/// SHA-256 over the leaves; of no leaves for a member that knows nothing.
pub(super) type Digest = [u8; 32];

/// What an interest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// What is newer than the state of this digest.
    Sync(Digest),
    /// All of the state of this digest.
    Recovery(Digest),
    /// That everybody begins anew.
    Reset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Interest { name: Name, nonce: u32 },
    Data { name: Name, leaves: Numbers },
}

const INTEREST: u8 = 5;
const DATA: u8 = 6;
const NONCE: u8 = 10;
const LIFETIME: u8 = 12;
const CAN_BE_PREFIX: u8 = 33;
const MUST_BE_FRESH: u8 = 18;
const META: u8 = 20;
const CONTENT: u8 = 21;
const SIGNATURE_INFO: u8 = 22;
const SIGNATURE_VALUE: u8 = 23;
/// Elements of a reply, as the library numbers them.
const LEAF: u8 = 129;
const SEQUENCE: u8 = 130;
/// How long the prefix of the group is, as a member's name.
const GROUP: u32 = u32::MAX;
/// An ECDSA signature, and the name of its key.
const SIGNATURE_BYTES: usize = 71;
const KEY_NAME_BYTES: usize = 40;

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (mut inner, mut bytes) = (Vec::new(), Vec::new());
        let kind = match self {
            Self::Interest { name, nonce } => {
                tlv::put(&mut inner, tlv::NAME, &components(name));
                tlv::put(&mut inner, CAN_BE_PREFIX, &[]);
                tlv::put(&mut inner, MUST_BE_FRESH, &[]);
                tlv::put(&mut inner, NONCE, &nonce.to_be_bytes());
                tlv::put(&mut inner, LIFETIME, &tlv::natural(1000));
                INTEREST
            }
            Self::Data { name, leaves } => {
                tlv::put(&mut inner, tlv::NAME, &components(name));
                tlv::put(&mut inner, META, &[25, 2, 3, 232]);
                tlv::put(&mut inner, CONTENT, &content(leaves));
                tlv::put(&mut inner, SIGNATURE_INFO, &[0; KEY_NAME_BYTES]);
                tlv::put(&mut inner, SIGNATURE_VALUE, &[0; SIGNATURE_BYTES]);
                DATA
            }
        };
        tlv::put(&mut bytes, kind, &inner);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, inner) = tlv::read(bytes).next()?;
        let part = |kind: u8| tlv::read(inner).find(|(other, _)| *other == kind).map(|(_, value)| value);
        let name = read_components(part(tlv::NAME)?)?;
        match kind {
            INTEREST => Some(Self::Interest { name, nonce: u32::from_be_bytes(part(NONCE)?.try_into().ok()?) }),
            DATA => {
                let leaf = |(_, leaf)| {
                    let mut parts = tlv::read(leaf);
                    let name = parts.next()?.1;
                    let session = tlv::read_natural(tlv::read(name).nth(1)?.1)?;
                    Some(((tlv::read_name(name)?, session), tlv::read_natural(parts.next()?.1)?))
                };
                Some(Self::Data { name, leaves: tlv::read(part(CONTENT)?).map(leaf).collect::<Option<_>>()? })
            }
            _ => None,
        }
    }
}

/// As it is counted.
pub(super) fn counted(bytes: Vec<u8>) -> Packet {
    let kind = match Message::decode(&bytes) {
        Some(Message::Interest { name: Name::Sync(_), .. }) => "interest",
        Some(Message::Interest { name: Name::Recovery(_), .. }) => "recovery interest",
        Some(Message::Interest { name: Name::Reset, .. }) => "reset interest",
        Some(Message::Data { .. }) => "data",
        None => "unreadable",
    };
    Packet::new(kind, bytes)
}

/// Leaves as a reply has them: a name with the session as its last component, then the sequence number.
pub(super) fn content(leaves: &Numbers) -> Vec<u8> {
    let mut bytes = Vec::new();
    for ((producer, session), sequence) in leaves {
        let mut name = inside(*producer);
        tlv::put(&mut name, tlv::COMPONENT, &tlv::natural(*session));
        let mut leaf = Vec::new();
        tlv::put(&mut leaf, tlv::NAME, &name);
        tlv::put(&mut leaf, SEQUENCE, &tlv::natural(*sequence));
        tlv::put(&mut bytes, LEAF, &leaf);
    }
    bytes
}

/// The inside of a member's name.
fn inside(producer: u32) -> Vec<u8> {
    tlv::read(&tlv::name(producer)).next().map(|(_, name)| name.to_vec()).unwrap_or_default()
}

fn components(name: &Name) -> Vec<u8> {
    let mut bytes = inside(GROUP);
    match name {
        Name::Sync(digest) => tlv::put(&mut bytes, tlv::COMPONENT, digest),
        Name::Recovery(digest) => {
            tlv::put(&mut bytes, tlv::COMPONENT, b"recovery");
            tlv::put(&mut bytes, tlv::COMPONENT, digest);
        }
        Name::Reset => tlv::put(&mut bytes, tlv::COMPONENT, b"reset"),
    }
    bytes
}

fn read_components(bytes: &[u8]) -> Option<Name> {
    let mut parts = tlv::read(bytes).skip(1).map(|(_, part)| part);
    match parts.next()? {
        b"reset" => Some(Name::Reset),
        b"recovery" => Some(Name::Recovery(parts.next()?.try_into().ok()?)),
        digest => Some(Name::Sync(digest.try_into().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back() {
        let leaves = Numbers::from([((1, 1_700_000_000_000), 7), ((1, 5), 1), ((900, 1), 300)]);
        for name in [Name::Sync([7; 32]), Name::Recovery([8; 32]), Name::Reset] {
            for message in [Message::Interest { name, nonce: 77 }, Message::Data { name, leaves: leaves.clone() }] {
                assert_eq!(Message::decode(&message.encode()), Some(message));
            }
        }
        assert_eq!(Message::decode(&[5, 1]), None);
    }
}
