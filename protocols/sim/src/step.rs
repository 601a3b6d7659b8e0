//! What happens, one event at a time.

use std::rc::Rc;

use dagmesh_core::{Machine, limits::MAX_SIM_EFFECTS};

use crate::{
    CallId, Delivery, DiskError, Host, MessageId, NodeId, Outbox, Packet, PublishError, RequestError, Simulation,
    Topic, Verdict, Way, life::Outage, trace::Record,
};

/// An event that waits for its time.
pub(crate) enum What<H: Host> {
    Message {
        from: NodeId,
        to: NodeId,
        packet: Packet,
    },
    Gossip {
        from: NodeId,
        to: NodeId,
        hops: u32,
        publication: Rc<Publication>,
    },
    NotPublished {
        node: NodeId,
        topic: Topic,
        packet: Packet,
        why: PublishError,
    },
    Request {
        call: CallId,
        packet: Packet,
    },
    Answer {
        call: CallId,
        packet: Packet,
    },
    NoAnswer {
        call: CallId,
        why: RequestError,
    },
    Written {
        node: NodeId,
        life: u32,
    },
    NotWritten {
        node: NodeId,
        life: u32,
        token: u64,
        why: DiskError,
    },
    /// Whether these two are connected is to be looked at.
    Connection {
        a: u32,
        b: u32,
    },
    Outage(Outage),
    Script(Script<H>),
}

type Script<H> = Box<dyn FnOnce(&mut Simulation<H>)>;

/// What was published, the same at each hop.
pub(crate) struct Publication {
    pub(crate) origin: NodeId,
    pub(crate) topic: Topic,
    pub(crate) id: MessageId,
    pub(crate) packet: Packet,
}

impl<H: Host> Simulation<H> {
    pub(crate) fn happen(&mut self, what: What<H>) {
        match what {
            What::Message { from, to, packet } => {
                if self.comes(Way::Unicast, from, to, packet.kind) {
                    let record = self.record("message from", to).from(from).packet(&packet);
                    self.counters.of(Way::Unicast, packet.kind).delivered += 1;
                    self.deliver(to, record, Delivery::Message { from, packet });
                }
            }
            What::Gossip { from, to, hops, publication } => self.gossip(from, to, hops, publication),
            What::NotPublished { node, topic, packet, why } => {
                let record = self.record("not published", node).packet(&packet);
                self.deliver(node, record, Delivery::NotPublished { topic, packet, why });
            }
            What::Request { call, packet } => self.take_request(call, packet),
            What::Answer { call, packet } => self.take_answer(call, packet),
            What::NoAnswer { call, why } => self.give_up(call, why),
            What::Written { node, life } => {
                let Some(slot) = self.slot_mut(node).filter(|slot| slot.life == life && slot.host.is_some()) else {
                    return;
                };
                if let Some((token, result)) = slot.disk.complete() {
                    self.written(node, token, result);
                }
            }
            What::NotWritten { node, life, token, why } => {
                if self.lives(node) == Some(life) {
                    self.written(node, token, Err(why));
                }
            }
            What::Connection { a, b } => self.look_at_connection(a, b),
            What::Outage(outage) => self.break_one(&outage),
            What::Script(script) => script(self),
        }
    }

    /// The deadline of a node's machine is there.
    pub(crate) fn time_out(&mut self, id: u32) {
        let (node, now, instant) = (NodeId(id), self.now, self.now());
        let Some(slot) = self.slot_mut(node) else { return };
        let (last, count) = slot.timeouts;
        slot.timeouts = (now, if last == now { count + 1 } else { 1 });
        if slot.timeouts.1 > MAX_SIM_EFFECTS {
            return self.break_off("time goes on", format!("{node} had {MAX_SIM_EFFECTS} timeouts at one instant"));
        }
        let Some(host) = slot.host.as_mut() else { return };
        host.machine_mut().handle_timeout(instant);
        self.trace.add(Record::new(now, "timeout", node));
        let out = self.outbox(node);
        self.settle(node, out);
    }

    pub(crate) fn record(&self, what: &'static str, node: NodeId) -> Record {
        Record::new(self.now, what, node)
    }

    /// Hands a delivery to a node that runs.
    pub(crate) fn deliver(&mut self, node: NodeId, record: Record, delivery: Delivery) {
        let now = self.now();
        let mut out = self.outbox(node);
        if let Some(host) = self.slot_mut(node).and_then(|slot| slot.host.as_mut()) {
            if let Some(input) = host.arrive(delivery, &mut out) {
                host.machine_mut().handle(now, input);
            }
            self.trace.add(record);
        }
        self.settle(node, out);
    }

    pub(crate) fn outbox(&mut self, node: NodeId) -> Outbox<H::Event> {
        Outbox { now: self.now(), node, actions: std::mem::take(&mut self.actions) }
    }

    /// Drains the machine's effects, sets its timer, and carries out what its host made of them.
    pub(crate) fn settle(&mut self, node: NodeId, mut out: Outbox<H::Event>) {
        let (mut deadline, mut restless) = (None, false);
        if let Some(host) = self.slot_mut(node).and_then(|slot| slot.host.as_mut()) {
            let mut left = MAX_SIM_EFFECTS;
            while let Some(effect) = host.machine_mut().poll_effect() {
                host.carry_out(effect, &mut out);
                restless = left == 0;
                if restless {
                    break;
                }
                left -= 1;
            }
            deadline = host.machine().poll_timeout();
        }
        if restless {
            self.break_off("comes to rest", format!("{node} wants more than {MAX_SIM_EFFECTS} things done at once"));
        }
        let deadline = deadline.map(|at| self.instant(at).max(self.now));
        self.set_timer(node, deadline);
        let mut actions = out.actions;
        for action in actions.drain(..) {
            self.carry(node, action);
        }
        self.actions = actions;
    }

    pub(crate) fn set_timer(&mut self, node: NodeId, deadline: Option<u64>) {
        if let Some(slot) = self.nodes.get_mut(node.0 as usize) {
            self.queue.set_timer(node.0, slot.timer, deadline);
            slot.timer = deadline;
        }
    }

    /// Whether a message that was under way reaches a node that runs.
    pub(crate) fn comes(&mut self, way: Way, from: NodeId, to: NodeId, kind: &'static str) -> bool {
        let cut = self.is_cut(from.0, to.0);
        let away = self.lives(to).is_none();
        let tally = self.counters.of(way, kind);
        match (cut, away) {
            (true, _) => tally.cut += 1,
            (false, true) => tally.away += 1,
            (false, false) => {}
        }
        !cut && !away
    }

    fn gossip(&mut self, from: NodeId, to: NodeId, hops: u32, publication: Rc<Publication>) {
        let Publication { origin, topic, id, ref packet } = *publication;
        if !self.comes(Way::Gossip, from, to, packet.kind) {
            return;
        }
        let (now, keep_from) = self.seen_time();
        let Some(slot) = self.slot_mut(to) else { return };
        let new = slot.seen.is_new(now, keep_from, id);
        let accepted = new && slot.host.as_mut().is_some_and(|h| h.validate(from, topic, packet) == Verdict::Accept);
        let tally = self.counters.of(Way::Gossip, packet.kind);
        match (new, accepted) {
            (false, _) => tally.duplicates += 1,
            (true, false) => tally.ignored += 1,
            (true, true) => tally.delivered += 1,
        }
        if accepted {
            *self.counters.hops.entry(hops).or_default() += 1;
            let record = self.record("gossip from", to).from(from).number(u64::from(hops)).packet(packet);
            self.pass_on(to, Some(from), hops + 1, &publication);
            self.deliver(to, record, Delivery::Gossip { from, origin, topic, hops, packet: packet.clone() });
        }
    }

    fn written(&mut self, node: NodeId, token: u64, result: Result<(), DiskError>) {
        self.counters.write_errors += u64::from(result.is_err());
        let what = if result.is_ok() { "written" } else { "not written" };
        let record = self.record(what, node).number(token);
        self.deliver(node, record, Delivery::Written { token, result });
    }
}
