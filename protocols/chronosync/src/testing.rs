//! What the tests of the crate share.

use libp2p_identity::Keypair;

use crate::{
    head::{GroupHead, GroupId, Payload},
    members::MemberList,
};

/// The clock of the tests, in Unix milliseconds.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

pub(crate) fn group() -> GroupId {
    GroupId::open("test").expect("a name")
}

pub(crate) fn key(n: u16) -> Keypair {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    Keypair::ed25519_from_bytes(seed).expect("a key")
}

pub(crate) fn head(producer: u16, session: u64, sequence: u64, text: &str) -> GroupHead {
    head_in(&group(), producer, session, sequence, text)
}

pub(crate) fn head_in(group: &GroupId, producer: u16, session: u64, sequence: u64, text: &str) -> GroupHead {
    let payload = Payload::inline(text.as_bytes()).expect("short");
    GroupHead::sign(&key(producer), group, session, sequence, payload, NOW_MS).expect("signs")
}

/// A group whose owner has key 0.
pub(crate) fn closed_group() -> GroupId {
    GroupId::closed("test", &key(0).public().to_peer_id()).expect("a name")
}

/// Its list of this version.
pub(crate) fn list(version: u64, members: impl IntoIterator<Item = u16>) -> MemberList {
    let members = members.into_iter().map(|n| key(n).public().to_peer_id()).collect();
    MemberList::sign(&key(0), &closed_group(), version, members, NOW_MS).expect("signs")
}
