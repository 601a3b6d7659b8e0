use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use dagmesh_core::limits::{MAX_GROUP_PENDING_DIGESTS, MAX_GROUP_PENDING_PER_AUTHOR};
use libp2p_identity::PeerId;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{state::Summary, tree::Digest};

/// Members that are remembered to have claimed one digest: enough to ask another where one fails.
const MAX_CLAIMERS: usize = 3;

/// Digests that others claim and we do not know, each with its own timer; at most [`MAX_GROUP_PENDING_DIGESTS`], and
/// [`MAX_GROUP_PENDING_PER_AUTHOR`] that one member claimed first.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claims: BTreeMap<Digest, Claim>,
}

#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) state: Summary,
    pub(super) claimers: Vec<PeerId>,
    pub(super) tried: BTreeSet<PeerId>,
    pub(super) since: Instant,
    /// `None` while a request for it runs.
    pub(super) due: Option<Instant>,
}

impl Claims {
    /// `claimers`: who signed it, then who passed it on.
    pub(super) fn add(
        &mut self,
        rng: &mut ChaCha8Rng,
        state: Summary,
        claimers: &[PeerId],
        now: Instant,
        due: Instant,
    ) {
        if let Some(claim) = self.claims.get_mut(&state.root) {
            // A lower count of the same digest would keep us from asking.
            if state.is_ahead_of(&claim.state) {
                claim.state = state;
            }
            claim.due = claim.due.map(|at| at.min(due));
            for claimer in claimers {
                if claim.claimers.len() < MAX_CLAIMERS && !claim.claimers.contains(claimer) {
                    claim.claimers.push(*claimer);
                }
            }
            return;
        }
        let first = claimers.first();
        let theirs = self.claims.iter().filter(|(_, claim)| claim.claimers.first() == first);
        let oldest = theirs.clone().min_by_key(|(_, claim)| claim.since).map(|(root, _)| *root);
        if theirs.count() >= MAX_GROUP_PENDING_PER_AUTHOR {
            oldest.map(|root| self.claims.remove(&root));
        }
        if self.claims.len() >= MAX_GROUP_PENDING_DIGESTS {
            let victim = self.claims.keys().nth(rng.random_range(0..self.claims.len())).copied();
            victim.map(|root| self.claims.remove(&root));
        }
        let mut unique = Vec::with_capacity(MAX_CLAIMERS);
        claimers.iter().for_each(|claimer| {
            if !unique.contains(claimer) {
                unique.push(*claimer)
            }
        });
        let claim = Claim { state, claimers: unique, tried: BTreeSet::new(), since: now, due: Some(due) };
        self.claims.insert(state.root, claim);
    }

    pub(super) fn get_mut(&mut self, root: &Digest) -> Option<&mut Claim> {
        self.claims.get_mut(root)
    }

    pub(super) fn remove(&mut self, root: &Digest) {
        self.claims.remove(root);
    }

    /// The digests whose timer is over.
    pub(super) fn due(&self, now: Instant) -> Vec<(Digest, Claim)> {
        let due = self.claims.iter().filter(|(_, claim)| claim.due.is_some_and(|at| at <= now));
        due.map(|(root, claim)| (*root, claim.clone())).collect()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.claims.values().filter_map(|claim| claim.due).min()
    }

    /// Who claims a state that is ahead of this one, each once.
    pub(super) fn ahead_of(&self, ours: &Summary) -> Vec<PeerId> {
        let ahead = self.claims.values().filter(|claim| claim.state.is_ahead_of(ours));
        let peers: BTreeSet<PeerId> = ahead.filter_map(|claim| claim.claimers.first()).copied().collect();
        peers.into_iter().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }
}
