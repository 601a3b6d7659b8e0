//! A baseline: State Vector Sync, the whole vector in each message.
//!
//! Source: "State Vector Sync Protocol Specification", version 3 (named-data.github.io/StateVectorSync): timers and the
//! suppression curve of 4.1, publication of 4.2, the two states of 4.5, the encoding of section 3. What is to its
//! advantage here: vectors are not signed, and come without the packet around them; names have 16 bytes where a peer id
//! has 38; its disk takes no time, and what it knows survives every crash.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

use dagmesh_core::Machine;
use dagmesh_simnet::{Boot, Delivery, Host, Outbox, Packet, Topic};
use multihash_codetable::{Code, MultihashDigest};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Model, Number, Numbers, World, tlv};

/// How long after the last message a member says its vector again, ± 10 %.
const PERIOD: Duration = Duration::from_secs(30);
/// How long at most a member waits before it tells somebody what that one lacks.
const SUPPRESSION: Duration = Duration::from_millis(200);
/// How fast the suppression curve falls.
const DECAY: f64 = 10.0;

/// TLV types of section 3.
const VECTOR: u8 = 201;
const ENTRY: u8 = 202;
const NUMBER: u8 = 210;
const BOOTSTRAP: u8 = 212;
const SEQUENCE: u8 = 214;
/// TLV type of a nonce, by which equal vectors of two members are two messages.
const NONCE: u8 = 10;

/// The machine.
#[derive(Debug)]
pub struct StateVector {
    own: (u32, u64),
    vector: BTreeMap<(u32, u64), Entry>,
    /// In suppression: what was heard in it.
    merged: Option<Numbers>,
    timer: Instant,
    rng: ChaCha8Rng,
    effects: VecDeque<Effect>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    sequence: u64,
    updated: Option<Instant>,
}

/// What the machine is told.
#[derive(Debug)]
pub enum Input {
    /// Publish the next number.
    Publish,
    /// A vector has come.
    Heard(Numbers),
}

/// What the machine wants.
#[derive(Debug)]
pub enum Effect {
    /// Send the vector to all.
    Emit(Vec<u8>),
    /// This number of ours is published.
    Published(Number),
    /// The application is to be told this number.
    New(Number),
}

impl StateVector {
    fn new(now: Instant, own: (u32, u64), known: &Numbers, seed: u64) -> Self {
        let entry = |sequence: u64| Entry { sequence, updated: None };
        let vector = known.iter().map(|(key, sequence)| (*key, entry(*sequence))).collect();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut machine = Self { own, vector, merged: None, timer: now, rng, effects: VecDeque::new() };
        // Its libraries say the vector soon after a start; all members of a run start at once.
        machine.timer = now + Duration::from_secs(1).mul_f64(machine.rng.random());
        machine
    }

    fn steady(&mut self, now: Instant) {
        self.merged = None;
        self.timer = now + PERIOD.mul_f64(self.rng.random_range(0.9..1.1));
    }

    /// Emits the vector, and is in the steady state.
    fn emit(&mut self, now: Instant) {
        let bytes = encode(&self.vector, self.rng.random());
        self.effects.push_back(Effect::Emit(bytes));
        self.steady(now);
    }

    fn publish(&mut self, now: Instant) {
        let entry = self.vector.entry(self.own).or_insert(Entry { sequence: 0, updated: None });
        *entry = Entry { sequence: entry.sequence + 1, updated: Some(now) };
        let (producer, session) = self.own;
        self.effects.push_back(Effect::Published(Number { producer, session, sequence: entry.sequence }));
        self.emit(now);
    }

    fn heard(&mut self, now: Instant, heard: &Numbers) {
        for (key, theirs) in heard {
            let ours = self.vector.entry(*key).or_insert(Entry { sequence: 0, updated: None });
            if *theirs > ours.sequence {
                let (producer, session) = *key;
                let news = (ours.sequence + 1..=*theirs).map(|sequence| Number { producer, session, sequence });
                self.effects.extend(news.map(Effect::New));
                *ours = Entry { sequence: *theirs, updated: Some(now) };
            }
        }
        if let Some(merged) = &mut self.merged {
            for (key, theirs) in heard {
                let known = merged.entry(*key).or_default();
                *known = (*known).max(*theirs);
            }
            return;
        }
        let recent = |entry: &Entry| entry.updated.is_some_and(|at| now < at + SUPPRESSION);
        let (mut behind, mut for_long) = (false, false);
        for entry in outdated(&self.vector, heard) {
            behind = true;
            for_long |= !recent(entry);
        }
        if !behind {
            self.steady(now);
        } else if for_long {
            self.merged = Some(heard.clone());
            self.timer = now + suppression(self.rng.random());
        }
    }
}

/// The wait of 4.1 for a random number from 0 to 1: mostly close to the whole period, now and then short.
fn suppression(random: f64) -> Duration {
    SUPPRESSION.mul_f64(1.0 - ((random - 1.0) * DECAY).exp())
}

/// Our entries that are newer than theirs.
fn outdated<'a>(ours: &'a BTreeMap<(u32, u64), Entry>, theirs: &'a Numbers) -> impl Iterator<Item = &'a Entry> {
    let mut theirs = theirs.iter().peekable();
    ours.iter().filter_map(move |(key, entry)| {
        while theirs.next_if(|(other, _)| *other < key).is_some() {}
        let known = theirs.next_if(|(other, _)| *other == key).map_or(0, |(_, known)| *known);
        (known < entry.sequence).then_some(entry)
    })
}

impl Machine for StateVector {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Publish => self.publish(now),
            Input::Heard(heard) => self.heard(now, &heard),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now < self.timer {
            return;
        }
        let consistent = self.merged.as_ref().is_some_and(|merged| outdated(&self.vector, merged).next().is_none());
        if consistent { self.steady(now) } else { self.emit(now) }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.timer)
    }
}

fn encode(vector: &BTreeMap<(u32, u64), Entry>, nonce: u32) -> Vec<u8> {
    let mut entries: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for ((producer, session), Entry { sequence, .. }) in vector {
        let mut number = Vec::new();
        tlv::put(&mut number, BOOTSTRAP, &tlv::natural(*session));
        tlv::put(&mut number, SEQUENCE, &tlv::natural(*sequence));
        let entry = entries.entry(*producer).or_insert_with(|| tlv::name(*producer));
        tlv::put(entry, NUMBER, &number);
    }
    let (mut inner, mut bytes) = (Vec::new(), Vec::new());
    entries.values().for_each(|entry| tlv::put(&mut inner, ENTRY, entry));
    tlv::put(&mut bytes, NONCE, &nonce.to_be_bytes());
    tlv::put(&mut bytes, VECTOR, &inner);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Numbers> {
    let mut numbers = Numbers::new();
    let (_, vector) = tlv::read(bytes).find(|(kind, _)| *kind == VECTOR)?;
    for (_, entry) in tlv::read(vector) {
        let mut parts = tlv::read(entry);
        let producer = tlv::read_name(parts.next()?.1)?;
        for (_, number) in parts {
            let mut fields = tlv::read(number).map(|(_, value)| tlv::read_natural(value));
            numbers.insert((producer, fields.next()??), fields.next()??);
        }
    }
    Some(numbers)
}

/// A member.
#[derive(Debug)]
pub struct Vector {
    machine: StateVector,
    world: Rc<World>,
    node: u32,
    wipes: u32,
    /// What the disk held at the start, until the application has it.
    found: Vec<Number>,
}

impl Model for Vector {
    const NAME: &'static str = "vector";
    const STRICT: bool = false;

    fn boot(boot: Boot<'_>, world: &Rc<World>) -> Self {
        let (node, wipes) = (boot.node.0, boot.wipes);
        let known = world.saved(node, wipes);
        // In seconds; the count keeps two starts within one apart, as a careful member would.
        let fresh = world.unix_ms(boot.now) / 1000 + u64::from(wipes);
        let session = known.keys().filter(|(producer, _)| *producer == node).map(|(_, session)| *session).max();
        let machine = StateVector::new(boot.now, (node, session.unwrap_or(fresh)), &known, boot.seed);
        let all = known.iter().flat_map(|((producer, session), last)| {
            (1..=*last).map(|sequence| Number { producer: *producer, session: *session, sequence })
        });
        Self { machine, world: world.clone(), node, wipes, found: all.collect() }
    }

    fn publication(_: &World, _: u32, _: u64) -> Input {
        Input::Publish
    }

    fn root(&self) -> [u8; 32] {
        let bytes = encode(&self.machine.vector, 0);
        Code::Sha2_256.digest(&bytes).digest().try_into().unwrap_or_default()
    }
}

impl Host for Vector {
    type Machine = StateVector;
    type Event = Number;

    fn machine(&self) -> &StateVector {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut StateVector {
        &mut self.machine
    }

    fn carry_out(&mut self, effect: Effect, out: &mut Outbox<Number>) {
        std::mem::take(&mut self.found).into_iter().for_each(|number| out.published(number));
        match effect {
            Effect::Emit(bytes) => out.publish(Topic(0), Packet::new("vector", bytes)),
            Effect::Published(number) => {
                self.world.save(self.node, self.wipes, number);
                out.published(number);
            }
            Effect::New(number) => {
                self.world.save(self.node, self.wipes, number);
                out.delivered(number);
            }
        }
    }

    fn arrive(&mut self, delivery: Delivery, _: &mut Outbox<Number>) -> Option<Input> {
        match delivery {
            Delivery::Gossip { packet, .. } => decode(packet.bytes()).map(Input::Heard),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_comes_back_and_has_the_size_of_the_specification() {
        let entry = |sequence| Entry { sequence, updated: None };
        let vector =
            BTreeMap::from([((1, 1_700_000_000), entry(5)), ((1, 1_700_000_009), entry(1)), ((7, 3), entry(300))]);
        let bytes = encode(&vector, 9);
        let numbers: Numbers = vector.iter().map(|(key, entry)| (*key, entry.sequence)).collect();
        assert_eq!(decode(&bytes), Some(numbers));
        // Nonce 6, vector 2; names 20 and an entry's own 2; numbers 2 each, with sessions of 6 and 3, sequences of 3 and 4.
        assert_eq!(bytes.len(), 6 + 2 + (2 + 20 + 2 * (2 + 6 + 3)) + (2 + 20 + (2 + 3 + 4)));
    }

    #[test]
    fn the_suppression_curve_goes_from_the_whole_period_to_nothing() {
        assert_eq!(suppression(1.0), Duration::ZERO);
        assert!(suppression(0.0) > Duration::from_millis(199) && suppression(0.5) > Duration::from_millis(198));
        assert!(suppression(0.9) < Duration::from_millis(127));
    }
}
