//! What the tests of the crate share.

use libp2p_identity::Keypair;

use crate::head::{GroupHead, GroupId, Payload};

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
    let payload = Payload::inline(text.as_bytes()).expect("short");
    GroupHead::sign(&key(producer), &group(), session, sequence, payload, NOW_MS).expect("signs")
}
