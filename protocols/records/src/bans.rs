//! Whom a node does not talk to, and for how long.

use std::collections::BTreeMap;

use dagmesh_core::limits::{BAN_DECAY_MS, BAN_MAX_MS, BAN_MIN_MS, MAX_BANS};
use libp2p_identity::PeerId;

use crate::error::RecordError;

/// How what was bad came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Over a connection that proves who the peer is, and from itself.
    Direct,
    /// Passed on: over gossip, a gateway, a file. Whoever did so may have been deceived.
    Relayed,
}

/// A ban, as it is written to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// How often it was banned and that is not forgotten: 1 and more.
    pub count: u32,
    /// Until when it is, in Unix milliseconds.
    pub until_ms: u64,
}

/// A ban that was just made, to be made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Banned {
    /// The ban of the peer.
    pub ban: Ban,
    /// Whose ban made room for it.
    pub evicted: Option<PeerId>,
}

/// The bans of a node. A ban takes [`BAN_MIN_MS`] at first and doubles with each further one up to [`BAN_MAX_MS`]; one is
/// forgotten for each [`BAN_DECAY_MS`] after the last. At most [`MAX_BANS`] peers; the ban that ends first makes room.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    bans: BTreeMap<PeerId, Ban>,
}

impl Bans {
    /// Nobody is banned.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes back what was written to the disk; what is forgotten at `now_ms` is left out.
    pub fn restore(now_ms: u64, bans: impl IntoIterator<Item = (PeerId, Ban)>) -> Self {
        let mut restored = Self::new();
        for (peer, ban) in bans {
            let until_ms = ban.until_ms.min(now_ms.saturating_add(BAN_MAX_MS));
            restored.insert(peer, Ban { until_ms, ..ban });
        }
        restored.forget(now_ms);
        restored
    }

    /// A peer has handed us what was refused for `why`. It is banned only where that proves a fault of its own: a signature
    /// that does not hold, delivered by itself; never for a record that is stale, expired or of another version. Gives
    /// what is to be made durable.
    pub fn report(&mut self, now_ms: u64, peer: PeerId, why: &RecordError, delivery: Delivery) -> Option<Banned> {
        if !why.is_proof() || delivery != Delivery::Direct {
            return None;
        }
        let count = self.bans.get(&peer).map_or(0, |ban| remembered(ban, now_ms)).saturating_add(1);
        let factor = 1u64.checked_shl(count - 1).unwrap_or(u64::MAX);
        let length_ms = BAN_MIN_MS.saturating_mul(factor).min(BAN_MAX_MS);
        let ban = Ban { count, until_ms: now_ms.saturating_add(length_ms) };
        let evicted = self.insert(peer, ban);
        Some(Banned { ban, evicted })
    }

    /// Whether this peer is banned at `now_ms`.
    pub fn is_banned(&self, now_ms: u64, peer: &PeerId) -> bool {
        self.bans.get(peer).is_some_and(|ban| now_ms < ban.until_ms)
    }

    /// Takes a ban back. Gives whether there was one.
    pub fn pardon(&mut self, peer: &PeerId) -> bool {
        self.bans.remove(peer).is_some()
    }

    /// Drops those that are wholly forgotten by `now_ms`, and gives them: their rows are to be deleted.
    pub fn forget(&mut self, now_ms: u64) -> Vec<PeerId> {
        let over = |(peer, ban): (&PeerId, &Ban)| (remembered(ban, now_ms) == 0).then_some(*peer);
        let forgotten: Vec<_> = self.bans.iter().filter_map(over).collect();
        self.bans.retain(|_, ban| remembered(ban, now_ms) > 0);
        forgotten
    }

    /// All that are remembered, for the disk and for people.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Ban)> {
        self.bans.iter()
    }

    fn insert(&mut self, peer: PeerId, ban: Ban) -> Option<PeerId> {
        let full = self.bans.len() >= MAX_BANS && !self.bans.contains_key(&peer);
        let first = self.bans.iter().min_by_key(|(_, ban)| ban.until_ms).map(|(peer, _)| *peer);
        let evicted = first.filter(|_| full);
        evicted.map(|peer| self.bans.remove(&peer));
        self.bans.insert(peer, ban);
        evicted
    }
}

/// How many bans are not forgotten at `now_ms`; at least one while it runs.
fn remembered(ban: &Ban, now_ms: u64) -> u32 {
    let quiet = now_ms.saturating_sub(ban.until_ms) / BAN_DECAY_MS;
    ban.count.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_MS, peer};

    fn forged() -> RecordError {
        RecordError::Signature { owner: peer(0) }
    }

    fn report(bans: &mut Bans, now_ms: u64, peer: PeerId) -> Ban {
        bans.report(now_ms, peer, &forged(), Delivery::Direct).expect("is banned").ban
    }

    #[test]
    fn only_a_bad_signature_that_a_peer_delivers_itself_bans_it() {
        let mut bans = Bans::new();
        let harmless = [
            RecordError::Expired { expires_ms: 1, ago_ms: 1 },
            RecordError::Outlived { sequence: 1 },
            RecordError::Future { ahead_ms: 1 },
            RecordError::Version(2),
            RecordError::KeyMismatch { owner: peer(0) },
            RecordError::NoPublicKey { owner: peer(0) },
            RecordError::form("record", "nothing"),
            RecordError::Full("full"),
        ];
        for why in harmless {
            assert_eq!(bans.report(NOW_MS, peer(1), &why, Delivery::Direct), None, "{why}");
        }
        assert_eq!(bans.report(NOW_MS, peer(1), &forged(), Delivery::Relayed), None);
        assert!(!bans.is_banned(NOW_MS, &peer(1)));
        report(&mut bans, NOW_MS, peer(1));
        assert!(bans.is_banned(NOW_MS, &peer(1)) && !bans.is_banned(NOW_MS, &peer(2)));
    }

    #[test]
    fn a_ban_ends_doubles_with_the_next_one_and_is_forgotten() {
        let (mut bans, peer) = (Bans::new(), peer(1));
        let first = report(&mut bans, NOW_MS, peer);
        assert_eq!(first, Ban { count: 1, until_ms: NOW_MS + BAN_MIN_MS });
        assert!(bans.is_banned(first.until_ms - 1, &peer) && !bans.is_banned(first.until_ms, &peer));
        let second = report(&mut bans, first.until_ms, peer);
        assert_eq!(second, Ban { count: 2, until_ms: first.until_ms + 2 * BAN_MIN_MS });
        let mut now_ms = second.until_ms;
        for _ in 0..100 {
            now_ms = report(&mut bans, now_ms, peer).until_ms;
        }
        let last = report(&mut bans, now_ms, peer);
        assert_eq!(last.until_ms, now_ms + BAN_MAX_MS, "never longer");
        // A day of good conduct for each.
        let quiet_ms = last.until_ms + BAN_DECAY_MS * u64::from(last.count - 1);
        assert_eq!(bans.clone().forget(quiet_ms), []);
        assert_eq!(report(&mut bans.clone(), quiet_ms, peer).count, 2);
        assert_eq!(bans.forget(quiet_ms + BAN_DECAY_MS), [peer]);
        assert_eq!(bans.iter().count(), 0);
    }

    #[test]
    fn bans_survive_a_restart_and_one_from_a_wrong_clock_does_not_last() {
        let mut bans = Bans::new();
        report(&mut bans, NOW_MS, peer(1));
        let forever = Ban { count: 1, until_ms: u64::MAX };
        let rows: Vec<_> = bans.iter().map(|(peer, ban)| (*peer, *ban)).chain([(peer(2), forever)]).collect();
        let bans = Bans::restore(NOW_MS + 1, rows.clone());
        assert!(bans.is_banned(NOW_MS + 1, &peer(1)) && bans.is_banned(NOW_MS + 1, &peer(2)));
        assert!(!bans.is_banned(NOW_MS + 1 + BAN_MAX_MS, &peer(2)));
        let later = Bans::restore(NOW_MS + 2 * BAN_DECAY_MS, rows);
        assert!(!later.iter().any(|(other, _)| *other == peer(1)), "forgotten meanwhile");
    }

    #[test]
    fn bans_are_bounded_and_the_one_that_ends_first_makes_room() {
        let peers: Vec<_> = (0..=MAX_BANS as u64)
            .map(|n| {
                let hash = cid::multihash::Multihash::wrap(0, &n.to_be_bytes()).expect("fits");
                PeerId::from_multihash(hash).expect("a peer")
            })
            .collect();
        let mut bans = Bans::new();
        let repeated = peers[0];
        report(&mut bans, NOW_MS, repeated);
        report(&mut bans, NOW_MS, repeated);
        for (n, peer) in peers[1..MAX_BANS].iter().enumerate() {
            report(&mut bans, NOW_MS + n as u64, *peer);
        }
        let banned = bans.report(NOW_MS + 5000, peers[MAX_BANS], &forged(), Delivery::Direct).expect("is banned");
        assert_eq!(banned.evicted, Some(peers[1]));
        assert_eq!(bans.iter().count(), MAX_BANS);
        assert!(bans.is_banned(NOW_MS + 5000, &repeated), "who did it twice stays");
        assert!(bans.pardon(&repeated) && !bans.is_banned(NOW_MS + 5000, &repeated));
    }
}
