//! Nodes come, go, crash and come back; the network is cut and healed.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use dagmesh_core::limits::{MAX_SIM_NODES, MAX_SIM_PARTITIONS, MAX_SIM_QUEUE};
use rand::{RngExt, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    Boot, Delivery, Disk, Host, NodeId, Simulation,
    link::{exponential, happens, scaled},
    overlay::{Seen, pair, pick},
    simulation::Slot,
    step::What,
};

/// A cut of the network, to be healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CutId(u64);

/// Nodes that leave and come back, at random.
#[derive(Debug, Clone, PartialEq)]
pub struct Churn {
    /// From when to when nodes go, from the beginning of the run. They come back after it too.
    pub during: Range<Duration>,
    /// Those that may go, by their numbers.
    pub nodes: Range<u32>,
    /// Mean time from one to the next in the whole network; exponential.
    pub every: Duration,
    /// Mean time that a node is away; exponential.
    pub away: Duration,
    /// How likely it crashes instead of stopping in good order, from 0 to 1.
    pub crash: f64,
    /// How likely it comes back with an empty disk, from 0 to 1.
    pub wipe: f64,
}

/// One of these, at its time.
pub(crate) struct Outage {
    nodes: Range<u32>,
    away: Duration,
    crash: bool,
    wipe: bool,
}

impl<H: Host> Simulation<H> {
    /// The first nodes start, with their connections.
    pub(crate) fn begin(&mut self, nodes: u32) {
        for _ in 0..nodes {
            let node = self.place();
            self.boot(node);
        }
        for (a, b) in self.overlay.pairs() {
            self.push(0, What::Connection { a, b });
        }
    }

    /// One more node, with an empty disk, which starts now and finds its neighbours.
    pub fn add(&mut self) -> NodeId {
        if self.nodes.len() >= MAX_SIM_NODES {
            self.break_off("limit", format!("one node more than {MAX_SIM_NODES}"));
        }
        let node = self.place();
        self.overlay.grow();
        self.start(node);
        node
    }

    /// Starts a node that does not run, from what its disk holds.
    pub fn start(&mut self, node: NodeId) {
        if self.lives(node).is_none() && self.boot(node) {
            self.look_around(node, Duration::ZERO);
            self.find_neighbours(node);
            self.join_pieces();
        }
    }

    /// Stops a node in good order: its disk is whole, its neighbours know at once.
    pub fn stop(&mut self, node: NodeId) {
        if self.end(node, "stops") {
            if let Some(slot) = self.slot_mut(node) {
                slot.disk.stop();
            }
            self.look_around(node, Duration::ZERO);
        }
    }

    /// A node ends without a word, as by `kill -9` or a power cut: what was not synced may be lost.
    pub fn crash(&mut self, node: NodeId) {
        if self.end(node, "crashes") {
            self.counters.crashes += 1;
            if let Some(slot) = self.nodes.get_mut(node.0 as usize) {
                slot.disk.crash(&mut self.disk_rng);
            }
            self.look_around(node, self.config.notice);
        }
    }

    /// Empties the disk of a node that does not run; its application knows nothing then.
    pub fn wipe(&mut self, node: NodeId) {
        let Some(slot) = self.slot_mut(node).filter(|slot| slot.host.is_none()) else { return };
        slot.disk = Disk::default();
        slot.wipes += 1;
        let record = self.record("is wiped", node);
        self.trace.add(record);
        self.events.values_mut().for_each(|spread| spread.unmark(node));
    }

    /// Cuts the network into these groups, and one more of all nodes that are in none, those to come included. What is
    /// under way between groups is lost. Cuts add up.
    pub fn cut(&mut self, groups: &[&[NodeId]]) -> CutId {
        if self.cuts.len() >= MAX_SIM_PARTITIONS {
            self.break_off("limit", format!("more than {MAX_SIM_PARTITIONS} cuts at once"));
        }
        let mut of_node = vec![0; self.nodes.len()];
        for (number, group) in (1..).zip(groups) {
            for node in *group {
                of_node.get_mut(node.0 as usize).into_iter().for_each(|group| *group = number);
            }
        }
        let id = self.next_cut;
        self.next_cut += 1;
        self.cuts.insert(id, of_node);
        self.rewire("is cut", id);
        CutId(id)
    }

    /// Heals a cut.
    pub fn heal(&mut self, cut: CutId) {
        if self.cuts.remove(&cut.0).is_some() {
            self.rewire("is healed", cut.0);
            // Who found nobody on its side of the cut.
            (0..self.nodes.len() as u32).for_each(|node| self.find_if_lonely(NodeId(node)));
            self.join_pieces();
        }
    }

    /// Cuts the network into these groups from one time to another, both from the beginning of the run.
    pub fn cut_during(&mut self, span: Range<Duration>, groups: Vec<Vec<NodeId>>) {
        self.at(span.start, move |network| {
            let groups: Vec<_> = groups.iter().map(Vec::as_slice).collect();
            let cut = network.cut(&groups);
            network.at(span.end, move |network| network.heal(cut));
        });
    }

    /// Lets nodes go and come back at random.
    pub fn churn(&mut self, churn: &Churn) {
        let mut at = churn.during.start;
        for _ in 0..MAX_SIM_QUEUE {
            let rng = &mut self.churn_rng;
            // A step of its own, so that a mean of zero comes to an end too.
            at = at.saturating_add(scaled(churn.every, exponential(rng)).max(Duration::from_micros(1)));
            if at >= churn.during.end {
                return;
            }
            let away = scaled(churn.away, exponential(rng));
            let (crash, wipe) = (happens(rng, churn.crash), happens(rng, churn.wipe));
            let outage = Outage { nodes: churn.nodes.clone(), away, crash, wipe };
            self.push(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), What::Outage(outage));
        }
    }

    pub(crate) fn break_one(&mut self, outage: &Outage) {
        let Range { start, end } = outage.nodes;
        let count = end.min(self.nodes.len() as u32).saturating_sub(start);
        let runs = |n| self.host(NodeId(start + n)).is_some();
        let mut rng = self.churn_rng.clone();
        let picked = pick(count, &mut rng, runs);
        self.churn_rng = rng;
        let Some(node) = picked.map(|n| NodeId(start + n)) else { return };
        match outage.crash {
            true => self.crash(node),
            false => self.stop(node),
        }
        if outage.wipe {
            self.wipe(node);
        }
        self.at(self.elapsed().saturating_add(outage.away), move |network| network.start(node));
    }

    fn place(&mut self) -> NodeId {
        let node = NodeId(self.nodes.len() as u32);
        self.nodes.push(Slot {
            host: None,
            life: 0,
            wipes: 0,
            disk: Disk::default(),
            disk_model: self.config.disk,
            seen: Seen::default(),
            timer: None,
            timeouts: (0, 0),
        });
        node
    }

    /// Builds a node's host and lets it begin. Whether there is such a node.
    fn boot(&mut self, node: NodeId) -> bool {
        let now = self.now();
        let record = self.record("starts", node);
        let Some(slot) = self.nodes.get_mut(node.0 as usize) else { return false };
        let (restarts, wipes) = (slot.life, slot.wipes);
        slot.life += 1;
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        // The first few streams are the network's own.
        rng.set_stream((u64::from(node.0) + 1) << 32 | u64::from(restarts));
        slot.host = Some((self.build)(Boot { node, restarts, wipes, now, disk: &slot.disk, seed: rng.random() }));
        self.trace.add(record.number(u64::from(restarts)));
        let out = self.outbox(node);
        self.settle(node, out);
        true
    }

    /// Whether the node ran.
    fn end(&mut self, node: NodeId, how: &'static str) -> bool {
        let Some(slot) = self.slot_mut(node) else { return false };
        let ran = slot.host.take().is_some();
        if ran {
            slot.seen.clear();
            let record = self.record(how, node);
            self.trace.add(record);
            self.set_timer(node, None);
        }
        ran
    }

    /// Which life of it runs.
    pub(crate) fn lives(&self, node: NodeId) -> Option<u32> {
        self.nodes.get(node.0 as usize).filter(|slot| slot.host.is_some()).map(|slot| slot.life)
    }

    pub(crate) fn is_cut(&self, a: u32, b: u32) -> bool {
        let group = |of_node: &[u16], node: u32| of_node.get(node as usize).copied().unwrap_or_default();
        self.cuts.values().any(|of_node| group(of_node, a) != group(of_node, b))
    }

    fn rewire(&mut self, what: &'static str, cut: u64) {
        let record = self.record(what, NodeId(u32::MAX)).number(cut);
        self.trace.add(record);
        for (a, b) in self.overlay.pairs() {
            self.push_after(self.config.notice, What::Connection { a, b });
        }
    }

    /// The connections of a node are to be looked at after `wait`.
    fn look_around(&mut self, node: NodeId, wait: Duration) {
        let peers: Vec<_> = self.overlay.neighbours(node.0).collect();
        for peer in peers {
            self.push_after(wait, What::Connection { a: node.0, b: peer });
        }
    }

    /// Makes or ends the connection between two neighbours as things stand, and tells those who run.
    pub(crate) fn look_at_connection(&mut self, a: u32, b: u32) {
        let pair = pair(a, b);
        let was = self.overlay.connection(pair);
        let both = self.lives(NodeId(pair.0)).zip(self.lives(NodeId(pair.1)));
        let is = both.filter(|_| !self.is_cut(a, b) && self.overlay.are_linked(a, b));
        if was != is {
            self.overlay.set_connection(pair, is);
            let ends = [(pair.0, pair.1), (pair.1, pair.0)];
            for (lives, up) in [(was, false), (is, true)] {
                let lives = lives.map_or([None; 2], |(a, b)| [Some(a), Some(b)]);
                for ((node, peer), life) in ends.into_iter().zip(lives) {
                    let node = NodeId(node);
                    if life.is_some() && self.lives(node) == life {
                        self.tell_of_peer(node, NodeId(peer), up);
                    }
                }
            }
        }
        // Who left is no neighbour any more; who is only cut off still is.
        if both.is_none() {
            self.overlay.unlink(a, b);
        }
        if is.is_none() {
            self.find_if_lonely(NodeId(a));
            self.find_if_lonely(NodeId(b));
        }
    }

    fn find_if_lonely(&mut self, node: NodeId) {
        let enough = (2 * self.config.degree).div_ceil(3);
        if self.lives(node).is_some() && self.within_reach(node.0) < enough {
            self.find_neighbours(node);
        }
    }

    fn tell_of_peer(&mut self, node: NodeId, peer: NodeId, up: bool) {
        let (what, delivery) = match up {
            true => ("connected to", Delivery::PeerUp(peer)),
            false => ("disconnected from", Delivery::PeerDown(peer)),
        };
        let record = self.record(what, node).from(peer);
        self.deliver(node, record, delivery);
    }

    /// Links pieces of the overlay that could reach one another and are neighbours no more, as nodes find who they knew
    /// through their peer stores and Kademlia.
    fn join_pieces(&mut self) {
        let all: Vec<_> = self.hosts().map(|(node, _)| node.0).collect();
        let Some(first) = all.first().copied() else { return };
        let mut rng = self.overlay_rng.clone();
        let mut reached = self.piece(first);
        for other in all {
            if reached.contains(&other) || self.is_cut(first, other) {
                continue;
            }
            let piece = self.piece(other);
            let any = |piece: &BTreeSet<u32>, rng: &mut ChaCha8Rng| piece.iter().copied().choose(rng);
            if let Some((a, b)) = any(&reached, &mut rng).zip(any(&piece, &mut rng)) {
                self.overlay.link(a, b);
                let wait = self.link(NodeId(a), NodeId(b)).draw(&mut rng);
                self.push_after(wait, What::Connection { a, b });
            }
            reached.extend(piece);
        }
        self.overlay_rng = rng;
    }

    /// The nodes that this one reaches over the overlay as things stand.
    fn piece(&self, from: u32) -> BTreeSet<u32> {
        self.overlay.reached(from, |a, b| self.lives(NodeId(b)).is_some() && !self.is_cut(a, b))
    }

    /// Neighbours that run and are not cut off.
    fn within_reach(&self, node: u32) -> usize {
        let reach = |peer: &u32| self.lives(NodeId(*peer)).is_some() && !self.is_cut(node, *peer);
        self.overlay.neighbours(node).filter(reach).count()
    }

    /// Gives a node as many neighbours as it should have, of those that have room, as gossipsub grafts them.
    fn find_neighbours(&mut self, node: NodeId) {
        let most = self.config.degree.saturating_mul(2);
        let missing = self.config.degree.saturating_sub(self.within_reach(node.0));
        let mut rng = self.overlay_rng.clone();
        for _ in 0..missing {
            let fits = |peer: u32| {
                let strange = peer != node.0 && !self.overlay.are_linked(node.0, peer);
                strange
                    && self.lives(NodeId(peer)).is_some()
                    && !self.is_cut(node.0, peer)
                    && self.overlay.degree(peer) < most
            };
            let Some(peer) = pick(self.nodes.len() as u32, &mut rng, fits) else { break };
            self.overlay.link(node.0, peer);
            let wait = self.link(node, NodeId(peer)).draw(&mut rng);
            self.push_after(wait, What::Connection { a: node.0, b: peer });
        }
        self.overlay_rng = rng;
    }
}
