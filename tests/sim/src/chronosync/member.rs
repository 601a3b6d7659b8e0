//! A member of a group: the machine of [`dagmesh_chronosync`], and what a driver does around it.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use dagmesh_chronosync::{
    Acceptance, Answer, CallId, Config, Effect, Event, Gossip, Group, GroupHead, Input, LeafKey, PersistId, Request,
};
use dagmesh_core::Machine;
use dagmesh_simnet::{Boot, CallId as AnswerId, Delivery, Durability, Host, NodeId, Outbox, Packet, Topic};

use super::{Model, Number, Numbers, World, world::payload};

const TOPIC: Topic = Topic(0);
/// Where a member keeps the session of its producer; heads stand under their places, which are longer.
const SESSION: &[u8] = b"session";

/// One member. It publishes as one producer, writes what the machine wants durable, and tells its application what is
/// new once that is on the disk, in order: so the disk and the application never differ, whenever it crashes.
#[derive(Debug)]
pub struct Member {
    world: Rc<World>,
    node: u32,
    group: Group,
    timeout: Duration,
    next_token: u64,
    calls: BTreeMap<u64, CallId>,
    answers: BTreeMap<u64, AnswerId>,
    writes: BTreeMap<u64, Write>,
    /// Heads of others whose write runs, oldest first, with what is to be told then.
    storing: VecDeque<Storing>,
    /// What the disk held at the start, until the application has it.
    found: Vec<Number>,
    /// The sum of all numbers, when it was looked at last.
    sum: u64,
    recovered: u64,
}

#[derive(Debug)]
enum Write {
    Session(PersistId),
    Head(PersistId, Number),
    Other(LeafKey),
}

#[derive(Debug, Default)]
struct Storing {
    left: Vec<u64>,
    news: Vec<Number>,
}

impl Member {
    /// The machine.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// How many numbers it was told as recovery in this life.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn number(&self, head: &GroupHead, sequence: u64) -> Number {
        Number { producer: self.world.producer(&head.producer()), session: head.session(), sequence }
    }

    fn write(&mut self, what: Write, key: Vec<u8>, value: Vec<u8>, out: &mut Outbox<Number>) -> u64 {
        let token = self.token();
        self.writes.insert(token, what);
        out.write(token, key, Some(Bytes::from(value)), Durability::Synced);
        token
    }

    fn store(&mut self, head: &GroupHead, out: &mut Outbox<Number>) -> u64 {
        self.write(Write::Other(head.key()), place(&head.key()), head.encode().to_vec(), out)
    }

    fn event(&mut self, event: Event, out: &mut Outbox<Number>) {
        match event {
            Event::New { head, first, is_recovery } => {
                let news = (first..=head.sequence()).map(|sequence| self.number(&head, sequence));
                let news: Vec<_> = news.collect();
                self.recovered += if is_recovery { news.len() as u64 } else { 0 };
                if self.storing.is_empty() {
                    self.storing.push_back(Storing::default());
                }
                self.storing.back_mut().into_iter().for_each(|last| last.news.extend(&news));
                self.tell(out);
            }
            Event::Published(head) => {
                let number = self.number(&head, head.sequence());
                self.world.ledger().publish(number);
                out.published(number);
            }
            Event::Equivocation { kept, .. } => self.fail(format!("two heads of one number: {kept:?}")),
            Event::Misbehaved { peer, reason } => self.fail(format!("{peer} misbehaves: {reason}")),
            _ => {}
        }
    }

    /// Tells the application what is on the disk.
    fn tell(&mut self, out: &mut Outbox<Number>) {
        while self.storing.front().is_some_and(|first| first.left.is_empty()) {
            let Some(first) = self.storing.pop_front() else { return };
            for number in first.news {
                if self.world.ledger().tell(self.node, number) {
                    out.delivered(number);
                }
            }
        }
    }

    fn fail(&self, why: String) {
        self.world.ledger().fail(format!("n{}: {why}", self.node));
    }

    fn written(&mut self, token: u64, durable: bool, out: &mut Outbox<Number>) -> Option<Input> {
        let (id, number) = match self.writes.remove(&token)? {
            Write::Session(id) => (id, None),
            Write::Head(id, number) => (id, Some(number)),
            Write::Other(key) => {
                // The next try writes what is newest then; an older one must not come after it.
                let head = self.group.state().get(&key).filter(|_| !durable).cloned();
                let again = head.map(|head| self.store(&head, out));
                for batch in &mut self.storing {
                    if let Some(at) = batch.left.iter().position(|left| *left == token) {
                        batch.left.swap_remove(at);
                        batch.left.extend(again);
                    }
                }
                self.tell(out);
                return None;
            }
        };
        if durable {
            return Some(Input::Persisted(id));
        }
        number.into_iter().for_each(|number| self.world.ledger().refuse(number));
        Some(Input::PersistFailed(id))
    }
}

impl Model for Member {
    const NAME: &'static str = "ours";
    const STRICT: bool = true;

    fn boot(boot: Boot<'_>, world: &Rc<World>) -> Self {
        let node = boot.node.0;
        let config = Config::new(world.group, world.unix_ms(boot.now), boot.seed);
        let mut member = Self {
            world: world.clone(),
            node,
            timeout: config.request_timeout,
            group: Group::new(boot.now, config),
            next_token: 0,
            calls: BTreeMap::new(),
            answers: BTreeMap::new(),
            writes: BTreeMap::new(),
            storing: VecDeque::new(),
            found: Vec::new(),
            sum: 0,
            recovered: 0,
        };
        let session =
            boot.disk.get(SESSION).and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)));
        let known = world.known(node, boot.wipes);
        let session =
            session.or_else(|| known.iter().find(|head| head.producer() == world.peer(node)).map(GroupHead::session));
        let mut heads = known.to_vec();
        let on_disk = boot.disk.iter().filter(|(key, _)| key.as_ref() != SESSION);
        for (_, bytes) in on_disk {
            match GroupHead::decode(&world.group, bytes) {
                Ok(head) => heads.push(head),
                Err(error) => member.fail(format!("its disk holds no head: {error}")),
            }
        }
        // What is on the disk comes last: it is no older.
        let found: Numbers =
            heads.iter().map(|head| ((world.producer(&head.producer()), head.session()), head.sequence())).collect();
        world.ledger().boot(node, boot.wipes, &found);
        let all = found.iter().flat_map(|((producer, session), last)| {
            (1..=*last).map(|sequence| Number { producer: *producer, session: *session, sequence })
        });
        member.found = all.filter(|number| !world.ledger().is_refused(number)).collect();
        member.group.handle(boot.now, Input::Restored(heads));
        member.group.handle(boot.now, Input::AddProducer { key: Box::new(world.key(node).clone()), session });
        member
    }

    fn publication(world: &World, node: u32, count: u64) -> Input {
        Input::Publish { producer: world.peer(node), payload: payload(node, count) }
    }

    fn root(&self) -> [u8; 32] {
        self.group.state().summary().root
    }

    fn check(&self) -> Result<(), String> {
        let over = self.group.queues().into_iter().find(|(_, len, most)| len > most);
        over.map_or(Ok(()), |(what, len, most)| Err(format!("n{}: {len} {what}, at most {most}", self.node)))
    }
}

impl Host for Member {
    type Machine = Group;
    type Event = Number;

    fn machine(&self) -> &Group {
        &self.group
    }

    fn machine_mut(&mut self) -> &mut Group {
        &mut self.group
    }

    fn carry_out(&mut self, effect: Effect, out: &mut Outbox<Number>) {
        let sum = self.group.state().summary().sum;
        if sum < std::mem::replace(&mut self.sum, sum) {
            self.fail(format!("its state fell to {sum}"));
        }
        // An own number that was on the disk and never said counts as published now.
        std::mem::take(&mut self.found).into_iter().for_each(|number| out.published(number));
        match effect {
            Effect::Gossip(bytes) => out.publish(TOPIC, Packet::new(gossip_kind(&bytes), bytes)),
            Effect::Verdict { acceptance: Acceptance::Reject, .. } => self.fail("it rejects a member's message".into()),
            Effect::Verdict { .. } => {}
            Effect::Request { call, peer, bytes } => {
                let (token, kind) = (self.token(), request_kind(&bytes));
                let Some(to) = self.world.node(&peer) else { return self.fail(format!("it asks a stranger, {peer}")) };
                self.calls.insert(token, call);
                out.request(NodeId(to), token, Packet::new(kind, bytes), self.timeout);
            }
            Effect::Answer { token, answer } => {
                let call = self.answers.remove(&token);
                if let Some((call, bytes)) = call.zip(answer) {
                    out.answer(call, Packet::new(answer_kind(&bytes), bytes));
                }
            }
            Effect::PersistSession { id, session, .. } => {
                self.write(Write::Session(id), SESSION.to_vec(), session.to_be_bytes().to_vec(), out);
            }
            Effect::PersistHead { id, head } => {
                let number = self.number(&head, head.sequence());
                self.write(Write::Head(id, number), place(&head.key()), head.encode().to_vec(), out);
            }
            Effect::Store(heads) => {
                let left = heads.iter().map(|head| self.store(head, out)).collect();
                self.storing.push_back(Storing { left, news: Vec::new() });
            }
            Effect::StoreMembers(_) => self.fail("an open group has a list of members".into()),
            Effect::Event(event) => self.event(event, out),
        }
    }

    fn arrive(&mut self, delivery: Delivery, out: &mut Outbox<Number>) -> Option<Input> {
        let peer = |node: NodeId| self.world.peer(node.0);
        match delivery {
            Delivery::Gossip { from, origin, packet, .. } => {
                let (author, neighbour) = (peer(origin), peer(from));
                Some(Input::Gossip { token: 0, author, neighbour, bytes: packet.bytes().to_vec() })
            }
            Delivery::Request { from, call, packet } => {
                let peer = peer(from);
                let token = self.token();
                self.answers.insert(token, call);
                Some(Input::Request { token, peer, bytes: packet.bytes().to_vec() })
            }
            Delivery::Answer { token, packet, .. } => {
                let call = self.calls.remove(&token)?;
                Some(Input::Answered { call, bytes: packet.bytes().to_vec() })
            }
            Delivery::NoAnswer { token, .. } => Some(Input::Failed(self.calls.remove(&token)?)),
            Delivery::Written { token, result } => self.written(token, result.is_ok(), out),
            Delivery::PeerUp(node) => Some(Input::PeerJoined(peer(node))),
            Delivery::PeerDown(node) => Some(Input::PeerLeft(peer(node))),
            // What the overlay does not take may be dropped, and nothing else comes.
            Delivery::NotPublished { .. } | Delivery::Message { .. } => None,
        }
    }
}

fn place(key: &LeafKey) -> Vec<u8> {
    [&key.name[..], &key.session.to_be_bytes()].concat()
}

fn gossip_kind(bytes: &[u8]) -> &'static str {
    match Gossip::decode(bytes) {
        Ok(Gossip::Update(_)) => "update",
        Ok(Gossip::Digest { .. }) => "digest",
        Ok(Gossip::Recover { .. }) => "call",
        Ok(Gossip::Page { .. }) => "page to all",
        Ok(Gossip::Members(_)) => "list",
        Err(_) => "unreadable",
    }
}

fn request_kind(bytes: &[u8]) -> &'static str {
    match Request::decode(bytes) {
        Ok(Request::Hello(_)) => "hello",
        Ok(Request::Recover { .. }) => "recover",
        Err(_) => "unreadable",
    }
}

fn answer_kind(bytes: &[u8]) -> &'static str {
    match Answer::decode(bytes) {
        Ok(Answer::Digest(_)) => "digest",
        Ok(Answer::Page(_)) => "page",
        Ok(Answer::Busy) => "busy",
        Err(_) => "unreadable",
    }
}
