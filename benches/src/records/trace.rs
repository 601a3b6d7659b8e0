//! Who told whom of whom, while one get runs.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use libp2p::PeerId;

/// What all peers of a mesh note down.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Whether the routing tables take nobody in any more.
    frozen: AtomicBool,
    lookup: Mutex<Option<Lookup>>,
}

/// The walk of one get.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    /// What is searched for.
    pub(super) key: Vec<u8>,
    /// Who searches.
    pub(super) asking: PeerId,
    /// FIND_NODE requests that were answered.
    pub(super) answered: usize,
    /// How many hops away each peer is that the asking one knows of by now.
    hops: BTreeMap<PeerId, usize>,
}

impl Trace {
    /// From now on no routing table grows.
    pub(super) fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// A get begins; there is no other.
    pub(super) fn begin(&self, asking: PeerId, key: Vec<u8>) {
        *self.lock() = Some(Lookup { key, asking, answered: 0, hops: BTreeMap::new() });
    }

    /// The get is over.
    pub(super) fn end(&self) -> Option<Lookup> {
        self.lock().take()
    }

    /// The walk begins with these, or begins anew.
    pub(super) fn known(&self, peers: impl Iterator<Item = PeerId>) {
        if let Some(lookup) = &mut *self.lock() {
            lookup.hops.extend(peers.map(|peer| (peer, 1)));
        }
    }

    /// The get that runs: what is searched for, and by whom.
    pub(super) fn running(&self) -> Option<(Vec<u8>, PeerId)> {
        self.lock().as_ref().map(|lookup| (lookup.key.clone(), lookup.asking))
    }

    /// A peer has told the asking one of these.
    pub(super) fn told(&self, by: PeerId, of: Vec<PeerId>) {
        if let Some(lookup) = &mut *self.lock() {
            lookup.answered += 1;
            // Nobody is asked whom the asking peer does not know.
            let Some(hops) = lookup.hops.get(&by).copied() else { return };
            for peer in of {
                lookup.hops.entry(peer).or_insert(hops + 1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lookup>> {
        self.lookup.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup {
    /// How many hops away a peer is.
    pub(super) fn hops(&self, peer: &PeerId) -> Option<usize> {
        self.hops.get(peer).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_one_hop_further_than_whoever_first_told_of_it() {
        let [asking, a, b, c, d] = std::array::from_fn(|_| PeerId::random());
        let trace = Trace::default();
        trace.begin(asking, b"key".to_vec());
        trace.known([a].into_iter());
        trace.told(a, vec![b]);
        trace.told(b, vec![a, c]);
        trace.told(a, vec![c]);
        let lookup = trace.end().expect("it ran");
        assert_eq!([a, b, c, d].map(|peer| lookup.hops(&peer)), [Some(1), Some(2), Some(3), None]);
        assert_eq!((lookup.answered, trace.running()), (3, None));
    }
}
