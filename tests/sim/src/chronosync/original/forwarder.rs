//! The network below: a forwarder of named data at each node.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use dagmesh_simnet::NodeId;

use super::packet::{Message, Name};
use crate::chronosync::Numbers;

/// How long an interest waits for data.
const LIFETIME: Duration = Duration::from_secs(1);
/// How long data counts as fresh, so that a later interest is answered with it.
const FRESH: Duration = Duration::from_secs(1);
/// How long an interest for the same name is not passed on again: the most that NFD's multicast strategy suppresses.
const SUPPRESSION: Duration = Duration::from_millis(250);
/// Nonces that are remembered against loops.
const NONCES: usize = 8192;

/// Interests are flooded to all neighbours, those for one name gathered; data goes back to all who asked for it, is kept
/// while it is fresh, and ends their asking. What nobody asked for is dropped.
#[derive(Debug, Default)]
pub(super) struct Forwarder {
    neighbours: BTreeSet<NodeId>,
    pending: BTreeMap<Name, Pending>,
    store: BTreeMap<Name, (Numbers, Instant)>,
    nonces: BTreeSet<u32>,
    order: VecDeque<u32>,
    out: VecDeque<(NodeId, Vec<u8>)>,
}

#[derive(Debug)]
struct Pending {
    faces: BTreeMap<Face, Instant>,
    passed_on: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Face {
    Application,
    Neighbour(NodeId),
}

impl Forwarder {
    pub(super) fn up(&mut self, node: NodeId) {
        self.neighbours.insert(node);
    }

    pub(super) fn down(&mut self, node: NodeId) {
        self.neighbours.remove(&node);
    }

    /// What is to be sent.
    pub(super) fn send(&mut self) -> Option<(NodeId, Vec<u8>)> {
        self.out.pop_front()
    }

    /// Takes in a packet; gives what the application is to hear.
    pub(super) fn hear(&mut self, now: Instant, from: Face, message: Message) -> Option<Message> {
        match message {
            Message::Interest { name, nonce } => self.interest(now, from, name, nonce),
            Message::Data { name, leaves } => self.data(now, from, name, leaves),
        }
    }

    fn interest(&mut self, now: Instant, from: Face, name: Name, nonce: u32) -> Option<Message> {
        if !self.is_new(nonce) {
            return None;
        }
        self.store.retain(|_, (_, until)| now < *until);
        if let Some((leaves, _)) = self.store.get(&name) {
            let data = Message::Data { name, leaves: leaves.clone() };
            return self.to(from, data);
        }
        self.pending.retain(|_, pending| {
            pending.faces.retain(|_, until| now < *until);
            !pending.faces.is_empty()
        });
        let known = self.pending.contains_key(&name);
        let pending = self.pending.entry(name).or_insert_with(|| Pending { faces: BTreeMap::new(), passed_on: now });
        pending.faces.insert(from, now + LIFETIME);
        if known && now < pending.passed_on + SUPPRESSION {
            return None;
        }
        pending.passed_on = now;
        let bytes = Message::Interest { name, nonce }.encode();
        let others = self.neighbours.iter().filter(|node| Face::Neighbour(**node) != from);
        self.out.extend(others.map(|node| (*node, bytes.clone())));
        (from != Face::Application).then_some(Message::Interest { name, nonce })
    }

    fn data(&mut self, now: Instant, from: Face, name: Name, leaves: Numbers) -> Option<Message> {
        let pending = self.pending.remove(&name)?;
        self.store.insert(name, (leaves.clone(), now + FRESH));
        let asking = pending.faces.into_iter().filter(|(face, until)| now < *until && *face != from);
        let asking: Vec<_> = asking.map(|(face, _)| face).collect();
        let data = Message::Data { name, leaves };
        asking.into_iter().filter_map(|face| self.to(face, data.clone())).last()
    }

    /// Sends it to a neighbour, or gives it to the application.
    fn to(&mut self, face: Face, message: Message) -> Option<Message> {
        match face {
            Face::Application => Some(message),
            Face::Neighbour(node) => {
                self.out.push_back((node, message.encode()));
                None
            }
        }
    }

    fn is_new(&mut self, nonce: u32) -> bool {
        let new = self.nonces.insert(nonce);
        if new {
            self.order.push_back(nonce);
        }
        if self.order.len() > NONCES {
            self.order.pop_front().map(|oldest| self.nonces.remove(&oldest));
        }
        new
    }
}
