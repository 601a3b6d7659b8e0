//! What a host wants done, carried out: messages, publications, requests, writes, reports.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use dagmesh_core::limits::{MAX_SIM_CALLS, MAX_SIM_EVENTS, MAX_SIM_PACKET_BYTES};

use crate::{
    CallId, Delivery, Durability, Host, Link, NodeId, Packet, PublishError, RequestError, Simulation, Spread, Topic,
    Way,
    disk::Write,
    host::Action,
    link::happens,
    queue::At,
    step::{Publication, What},
};

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Call {
    from: NodeId,
    /// The life of the node that asks.
    life: u32,
    to: NodeId,
    token: u64,
    answered: bool,
}

impl<H: Host> Simulation<H> {
    pub(crate) fn carry(&mut self, node: NodeId, action: Action<H::Event>) {
        match action {
            Action::Send { to, packet } => {
                self.transmit(Way::Unicast, node, to, &packet, |packet| What::Message { from: node, to, packet });
            }
            Action::Publish { topic, packet } => self.publish(node, topic, packet),
            Action::Request { to, token, packet, timeout } => self.request(node, to, token, packet, timeout),
            Action::Answer { call, packet } => self.answer(node, call, packet),
            Action::Write { token, key, value, durability } => self.write(node, token, key, value, durability),
            Action::Published(event) => self.published(node, event),
            Action::Delivered(event) => self.delivered(node, &event),
        }
    }

    /// Sends a message over a link, where it may be lost, held back or doubled.
    fn transmit(&mut self, way: Way, from: NodeId, to: NodeId, packet: &Packet, what: impl Fn(Packet) -> What<H>) {
        let (kind, bytes) = (packet.kind, packet.bytes.len());
        if bytes > MAX_SIM_PACKET_BYTES {
            return self.break_off("limit", format!("{from} sends {kind} of {bytes} bytes"));
        }
        let cut = self.is_cut(from.0, to.0);
        let link = self.link(from, to);
        let rng = &mut self.link_rng;
        let (lost, doubled) = (happens(rng, link.loss), happens(rng, link.duplicate));
        let is_stream = matches!(way, Way::Request | Way::Answer);
        let times = [Some(link.draw(rng)), (doubled && !is_stream).then(|| link.draw(rng))];
        let tally = self.counters.of(way, kind);
        tally.sent += 1;
        tally.bytes += bytes as u64;
        if cut {
            tally.cut += 1;
        } else if lost {
            tally.lost += 1;
        } else {
            tally.doubled += u64::from(times.iter().flatten().count() > 1);
            times.into_iter().flatten().for_each(|time| self.push_after(time, what(packet.clone())));
        }
    }

    pub(crate) fn link(&self, from: NodeId, to: NodeId) -> Link {
        match self.links.is_empty() {
            true => self.config.link,
            false => self.links.get(&(from, to)).copied().unwrap_or(self.config.link),
        }
    }

    fn publish(&mut self, node: NodeId, topic: Topic, packet: Packet) {
        let id = H::message_id(topic, &packet);
        let alone = self.overlay.connected(node.0).next().is_none();
        let (now, keep_from) = self.seen_time();
        let Some(slot) = self.slot_mut(node) else { return };
        let why = if alone {
            PublishError::NoPeers
        } else if !slot.seen.is_new(now, keep_from, id) {
            PublishError::Duplicate
        } else {
            return self.pass_on(node, None, 1, &Rc::new(Publication { origin: node, topic, id, packet }));
        };
        self.counters.not_published += 1;
        self.push(self.now, What::NotPublished { node, topic, packet, why });
    }

    /// Sends a publication to the neighbours, except where it came from.
    pub(crate) fn pass_on(&mut self, node: NodeId, except: Option<NodeId>, hops: u32, publication: &Rc<Publication>) {
        let mut peers = std::mem::take(&mut self.peers);
        peers.extend(self.overlay.connected(node.0));
        for peer in peers.drain(..).map(NodeId) {
            if Some(peer) != except && peer != publication.origin {
                self.transmit(Way::Gossip, node, peer, &publication.packet, |_| What::Gossip {
                    from: node,
                    to: peer,
                    hops,
                    publication: publication.clone(),
                });
            }
        }
        self.peers = peers;
    }

    /// Now, and since when a publication seen counts as seen.
    pub(crate) fn seen_time(&self) -> (At, At) {
        let kept = u64::try_from(self.config.seen_for.as_nanos()).unwrap_or(u64::MAX);
        (self.now, self.now.saturating_sub(kept))
    }

    fn request(&mut self, from: NodeId, to: NodeId, token: u64, packet: Packet, timeout: Duration) {
        let call = CallId(self.next_call);
        self.next_call += 1;
        let life = self.lives(from).unwrap_or_default();
        let room = self.calls.len() < MAX_SIM_CALLS;
        self.calls.insert(call.0, Call { from, life, to, token, answered: false });
        let timeout = if room { timeout } else { Duration::ZERO };
        self.push_after(timeout, What::NoAnswer { call, why: RequestError::TimedOut });
        if room {
            self.transmit(Way::Request, from, to, &packet, |packet| What::Request { call, packet });
        }
    }

    pub(crate) fn take_request(&mut self, id: CallId, packet: Packet) {
        // Nobody waits for it any more, and it comes all the same.
        let Some((from, to)) = self.calls.get(&id.0).map(|call| (call.from, call.to)) else {
            self.counters.of(Way::Request, packet.kind).ignored += 1;
            return;
        };
        if self.comes(Way::Request, from, to, packet.kind) {
            self.counters.of(Way::Request, packet.kind).delivered += 1;
            let record = self.record("request from", to).from(from).number(id.0).packet(&packet);
            self.deliver(to, record, Delivery::Request { from, call: id, packet });
        } else if !self.is_cut(from.0, to.0) {
            let link = self.link(to, from);
            let back = link.draw(&mut self.link_rng);
            self.push_after(back, What::NoAnswer { call: id, why: RequestError::NotRunning });
        }
    }

    fn answer(&mut self, node: NodeId, id: CallId, packet: Packet) {
        let Some(call) = self.calls.get_mut(&id.0).filter(|call| call.to == node && !call.answered) else { return };
        call.answered = true;
        let to = call.from;
        self.transmit(Way::Answer, node, to, &packet, |packet| What::Answer { call: id, packet });
    }

    pub(crate) fn take_answer(&mut self, id: CallId, packet: Packet) {
        let Some(Call { from, life, to, token, .. }) = self.calls.get(&id.0) else {
            self.counters.of(Way::Answer, packet.kind).ignored += 1;
            return;
        };
        let (from, life, to, token) = (*from, *life, *to, *token);
        if !self.comes(Way::Answer, to, from, packet.kind) {
            return;
        }
        let same = self.lives(from) == Some(life);
        let tally = self.counters.of(Way::Answer, packet.kind);
        *(if same { &mut tally.delivered } else { &mut tally.away }) += 1;
        self.calls.remove(&id.0);
        if same {
            let record = self.record("answer from", from).from(to).number(token).packet(&packet);
            self.deliver(from, record, Delivery::Answer { from: to, token, packet });
        }
    }

    pub(crate) fn give_up(&mut self, id: CallId, why: RequestError) {
        let Some(Call { from, life, to, token, .. }) = self.calls.remove(&id.0) else { return };
        if self.lives(from) == Some(life) {
            let record = self.record("no answer from", from).from(to).number(token);
            self.deliver(from, record, Delivery::NoAnswer { from: to, token, why });
        }
    }

    fn write(&mut self, node: NodeId, token: u64, key: Bytes, value: Option<Bytes>, durability: Durability) {
        self.counters.writes += 1;
        let now = self.now;
        let Some(slot) = self.nodes.get_mut(node.0 as usize) else { return };
        let (life, model, rng) = (slot.life, slot.disk_model, &mut self.disk_rng);
        let time = u64::try_from(model.latency.draw(rng).as_nanos()).unwrap_or(u64::MAX);
        match slot.disk.accept(Write { token, key, value, durability, failed: false }, &model, rng) {
            Ok(()) => {
                let done = slot.disk.busy_until.max(now).saturating_add(time);
                slot.disk.busy_until = done;
                self.push(done, What::Written { node, life });
            }
            Err(why) => self.push(now, What::NotWritten { node, life, token, why }),
        }
    }

    fn published(&mut self, node: NodeId, event: H::Event) {
        if self.events.len() >= MAX_SIM_EVENTS {
            return self.break_off("limit", format!("more than {MAX_SIM_EVENTS} events were published"));
        }
        let since = self.elapsed();
        let spread = self.events.entry(event).or_insert_with(|| Spread { since, told: Vec::new() });
        spread.mark(node);
    }

    fn delivered(&mut self, node: NodeId, event: &H::Event) {
        let now = self.elapsed();
        match self.events.get_mut(event) {
            None => self.counters.strays += 1,
            Some(spread) => match spread.mark(node) {
                true => self.delays.add(now.saturating_sub(spread.since)),
                false => self.counters.told_twice += 1,
            },
        }
    }
}

impl Spread {
    /// Whether this is new.
    fn mark(&mut self, node: NodeId) -> bool {
        let (word, bit) = (node.0 as usize / 64, 1 << (node.0 % 64));
        if self.told.len() <= word {
            self.told.resize(word + 1, 0);
        }
        let Some(word) = self.told.get_mut(word) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// The node's disk is gone, and with it what its application knew.
    pub(crate) fn unmark(&mut self, node: NodeId) {
        if let Some(word) = self.told.get_mut(node.0 as usize / 64) {
            *word &= !(1 << (node.0 % 64));
        }
    }
}
