//! What the members of one run share: keys, the clock, and what outlives them.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::BTreeMap,
    time::Instant,
};

use anyhow::Context;
use dagmesh_chronosync::{GroupHead, GroupId, Payload};
use libp2p_identity::{Keypair, PeerId};
use multihash_codetable::{Code, MultihashDigest};

use super::{Ledger, Number, Numbers};

/// What all clocks show at the beginning of a run, in Unix milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The keys of all nodes there may be, a clock, the ledger, and what every member knows from the beginning.
#[derive(Debug)]
pub struct World {
    /// The group.
    pub group: GroupId,
    keys: Vec<(Keypair, PeerId)>,
    /// For nodes that the world has no key for.
    stranger: (Keypair, PeerId),
    nodes: BTreeMap<PeerId, u32>,
    members: u32,
    base: Cell<Option<Instant>>,
    known: Vec<GroupHead>,
    ledger: RefCell<Ledger>,
    saved: RefCell<BTreeMap<u32, (u32, Numbers)>>,
}

impl World {
    /// A group of `members`, with room for `guests` that come later. Every member knows from the beginning, as on its
    /// disk, one publication of each of `leaves` producers: the members first, then others that are gone.
    ///
    /// # Errors
    /// A key that cannot sign.
    pub fn new(members: usize, guests: usize, leaves: usize) -> anyhow::Result<Self> {
        let group = GroupId::open("simulation").context("name of the group")?;
        let key = |n: usize| {
            let mut seed = [1; 32];
            seed.iter_mut().zip((n as u64).to_le_bytes()).for_each(|(to, from)| *to = from);
            let key = Keypair::ed25519_from_bytes(seed).context("key of a member")?;
            let peer = key.public().to_peer_id();
            anyhow::Ok((key, peer))
        };
        let gone = leaves.saturating_sub(members);
        let keys: Vec<_> = (0..members + guests + gone).map(key).collect::<anyhow::Result<_>>()?;
        let nodes = keys.iter().zip(0..).map(|((_, peer), node)| (*peer, node)).collect();
        let head = |((key, _), node): (&(Keypair, PeerId), u32)| {
            let session = EPOCH_MS - 1000;
            Ok(GroupHead::sign(key, &group, session, 1, payload(node, u64::MAX), session)?)
        };
        let all = || keys.iter().zip(0..);
        let producers = all().take(members).chain(all().skip(members + guests)).take(leaves);
        let known = producers.map(head).collect::<anyhow::Result<_>>()?;
        let (base, ledger, saved) = Default::default();
        let stranger = key(usize::MAX)?;
        Ok(Self { group, keys, stranger, nodes, members: members as u32, base, known, ledger, saved })
    }

    /// The key of a node.
    pub fn key(&self, node: u32) -> &Keypair {
        &self.keys.get(node as usize).unwrap_or(&self.stranger).0
    }

    /// The peer id of a node.
    pub fn peer(&self, node: u32) -> PeerId {
        self.keys.get(node as usize).unwrap_or(&self.stranger).1
    }

    /// The node of a peer.
    pub fn node(&self, peer: &PeerId) -> Option<u32> {
        self.nodes.get(peer).copied()
    }

    /// The node of a peer; for a stranger's a number beyond all.
    pub fn producer(&self, peer: &PeerId) -> u32 {
        self.node(peer).unwrap_or(u32::MAX)
    }

    /// The clock, in Unix milliseconds. It begins with the first look.
    pub fn unix_ms(&self, now: Instant) -> u64 {
        let base = self.base.get().unwrap_or(now);
        self.base.set(Some(base));
        EPOCH_MS + u64::try_from(now.saturating_duration_since(base).as_millis()).unwrap_or_default()
    }

    /// The heads that this node, whose disk was emptied so often, knows from the beginning.
    pub fn known(&self, node: u32, wipes: u32) -> &[GroupHead] {
        if node < self.members && wipes == 0 { &self.known } else { &[] }
    }

    /// What was told and used.
    pub fn ledger(&self) -> RefMut<'_, Ledger> {
        self.ledger.borrow_mut()
    }

    /// What a baseline finds on its disk, which was emptied so often. Sessions are in seconds.
    pub fn saved(&self, node: u32, wipes: u32) -> Numbers {
        let known = self.known(node, wipes).iter();
        let known = known.map(|head| ((self.producer(&head.producer()), head.session() / 1000), head.sequence()));
        let mut found: Numbers = known.collect();
        let saved = self.saved.borrow();
        let saved = saved.get(&node).filter(|(at, _)| *at == wipes).into_iter();
        found.extend(saved.flat_map(|(_, numbers)| numbers.clone()));
        found
    }

    /// A baseline's disk takes a number, at once and for nothing.
    pub fn save(&self, node: u32, wipes: u32, number: Number) {
        let mut saved = self.saved.borrow_mut();
        let (at, numbers) = saved.entry(node).or_insert_with(|| (wipes, Numbers::new()));
        if std::mem::replace(at, wipes) != wipes {
            numbers.clear();
        }
        numbers.insert((number.producer, number.session), number.sequence);
    }
}

/// A publication that names a DAG, another one each time.
pub(super) fn payload(node: u32, count: u64) -> Payload {
    let text = [&node.to_le_bytes()[..], &count.to_le_bytes()].concat();
    // 0x55: raw bytes.
    Payload::content(cid::Cid::new_v1(0x55, Code::Sha2_256.digest(&text)))
}
