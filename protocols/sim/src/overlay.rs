//! The overlay that publications travel on: a random graph, and what each node has seen.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use dagmesh_core::limits::MAX_SIM_SEEN;
use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{MessageId, queue::At};

/// Pairs of neighbours, and between which of their lives there is a connection.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    neighbours: Vec<BTreeSet<u32>>,
    connections: BTreeMap<(u32, u32), (u32, u32)>,
}

/// A connection is named by the lesser of its ends first.
pub(crate) fn pair(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

impl Overlay {
    /// A random graph where each of `nodes` has `degree` neighbours, or is one of few that have one less, and that is
    /// connected: `degree / 2` random rings through all nodes on top of one another, and a random pairing for an odd
    /// one. What falls on a pair that is there is drawn again, a bounded number of times. All of them are neighbours
    /// where there are no more than that. A degree below 2 connects pairs at most.
    pub(crate) fn random(nodes: u32, degree: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut overlay = Self { neighbours: vec![BTreeSet::new(); nodes as usize], ..Self::default() };
        if degree + 1 >= nodes as usize && degree > 0 {
            (0..nodes).for_each(|a| (0..a).for_each(|b| overlay.link(a, b)));
            return overlay;
        }
        let mut order: Vec<u32> = (0..nodes).collect();
        for _ in 0..degree / 2 {
            order.shuffle(rng);
            let next = order.iter().cycle().skip(1);
            order.iter().zip(next).for_each(|(a, b)| overlay.link(*a, *b));
        }
        // What collided, and the odd one.
        for _ in 0..4 {
            order.shuffle(rng);
            order.retain(|node| overlay.degree(*node) < degree);
            let pairs = order.as_chunks::<2>().0.iter();
            pairs.for_each(|[a, b]| overlay.link(*a, *b));
        }
        overlay
    }

    /// One more node, without neighbours.
    pub(crate) fn grow(&mut self) {
        self.neighbours.push(BTreeSet::new());
    }

    pub(crate) fn link(&mut self, a: u32, b: u32) {
        if a != b {
            self.neighbours.get_mut(a as usize).map(|set| set.insert(b));
            self.neighbours.get_mut(b as usize).map(|set| set.insert(a));
        }
    }

    pub(crate) fn unlink(&mut self, a: u32, b: u32) {
        self.neighbours.get_mut(a as usize).map(|set| set.remove(&b));
        self.neighbours.get_mut(b as usize).map(|set| set.remove(&a));
    }

    pub(crate) fn are_linked(&self, a: u32, b: u32) -> bool {
        self.neighbours.get(a as usize).is_some_and(|set| set.contains(&b))
    }

    pub(crate) fn neighbours(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.neighbours.get(node as usize).into_iter().flatten().copied()
    }

    pub(crate) fn degree(&self, node: u32) -> usize {
        self.neighbours.get(node as usize).map_or(0, BTreeSet::len)
    }

    /// The nodes that can be reached from this one over pairs that may be passed.
    pub(crate) fn reached(&self, from: u32, passes: impl Fn(u32, u32) -> bool) -> BTreeSet<u32> {
        let (mut reached, mut next) = (BTreeSet::from([from]), vec![from]);
        while let Some(node) = next.pop() {
            next.extend(self.neighbours(node).filter(|peer| passes(node, *peer) && reached.insert(*peer)));
        }
        reached
    }

    /// The pairs that are neighbours.
    pub(crate) fn pairs(&self) -> Vec<(u32, u32)> {
        let nodes = (0_u32..).zip(&self.neighbours);
        nodes.flat_map(|(a, set)| set.range(a..).map(move |b| (a, *b))).collect()
    }

    /// Between which lives of the two there is a connection.
    pub(crate) fn connection(&self, pair: (u32, u32)) -> Option<(u32, u32)> {
        self.connections.get(&pair).copied()
    }

    pub(crate) fn set_connection(&mut self, pair: (u32, u32), lives: Option<(u32, u32)>) {
        match lives {
            Some(lives) => self.connections.insert(pair, lives),
            None => self.connections.remove(&pair),
        };
    }

    /// The neighbours that there is a connection to.
    pub(crate) fn connected(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.neighbours(node).filter(move |peer| self.connections.contains_key(&pair(node, *peer)))
    }
}

/// A random number below `nodes` that is wanted; `None` where there is none, or a bounded number of tries finds none of
/// many.
pub(crate) fn pick(nodes: u32, rng: &mut ChaCha8Rng, wanted: impl Fn(u32) -> bool) -> Option<u32> {
    const TRIES: u32 = 64;
    if nodes == 0 {
        return None;
    }
    let first = rng.random_range(0..nodes);
    match nodes <= TRIES {
        true => (0..nodes).map(|n| (first + n) % nodes).find(|node| wanted(*node)),
        false => (0..TRIES).map(|_| rng.random_range(0..nodes)).find(|node| wanted(*node)),
    }
}

/// What a node has seen, for a while, as in gossipsub's duplicate cache: a time to live from the first sight.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Never iterated, so its order does not matter.
    ids: HashSet<MessageId>,
    order: VecDeque<(At, MessageId)>,
}

impl Seen {
    /// Whether this id was not seen since `keep_from`; it is from now on.
    pub(crate) fn is_new(&mut self, now: At, keep_from: At, id: MessageId) -> bool {
        let old = |(at, _): &(At, MessageId)| *at < keep_from;
        while self.order.front().is_some_and(old) {
            self.forget();
        }
        let new = self.ids.insert(id);
        if new {
            self.order.push_back((now, id));
        }
        if self.order.len() > MAX_SIM_SEEN {
            self.forget();
        }
        new
    }

    fn forget(&mut self) {
        self.order.pop_front().map(|(_, id)| self.ids.remove(&id));
    }

    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_random_overlay_is_connected_and_regular() {
        for (seed, (nodes, degree)) in (0..).zip([(1, 4), (2, 6), (5, 2), (10, 9), (10, 20), (100, 3), (1000, 8)]) {
            let overlay = Overlay::random(nodes, degree, &mut ChaCha8Rng::seed_from_u64(seed));
            let wanted = degree.min(nodes as usize - 1);
            let degrees: Vec<_> = (0..nodes).map(|node| overlay.degree(node)).collect();
            assert!(degrees.iter().all(|degree| *degree <= wanted), "{degrees:?}");
            assert!(degrees.iter().sum::<usize>() * 100 >= wanted * nodes as usize * 98, "{nodes}, {degrees:?}");
            assert_eq!(overlay.pairs().len() * 2, degrees.iter().sum());
            assert_eq!(overlay.reached(0, |_, _| true).len(), nodes as usize);
        }
    }

    #[test]
    fn an_id_is_new_again_after_its_time_and_the_cache_is_bounded() {
        let mut seen = Seen::default();
        assert!(seen.is_new(10, 0, MessageId(1)));
        assert!(!seen.is_new(20, 10, MessageId(1)), "at the end of its time, counted from the first sight");
        assert!(seen.is_new(21, 11, MessageId(1)));
        for id in 0..2 * MAX_SIM_SEEN as u128 {
            seen.is_new(30, 0, MessageId(id));
        }
        assert!(seen.ids.len() == MAX_SIM_SEEN && seen.ids.len() == seen.order.len());
    }
}
