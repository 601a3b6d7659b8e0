//! A toy machine: counts of all nodes, spread by gossip, repaired by asking, kept on disk.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use dagmesh_core::Machine;
use dagmesh_simnet::{
    Boot, CallId, Config, Delivery, Durability, Host, Input as InputOf, Latency, Link, NodeId, Outbox, Packet,
    Simulation, Topic,
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// How long a question may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);
const REPAIR: Duration = Duration::from_secs(5);

/// The greatest number heard of each node. A node counts its own up; all want to know all.
///
/// A new number is written first and published once the disk has it, so it is never used twice. A peer that comes is
/// asked for all numbers, and a random one every few seconds.
#[derive(Debug)]
pub(crate) struct Counts {
    own: NodeId,
    pub(crate) known: BTreeMap<u32, u32>,
    /// The own number that waits for the disk.
    pub(crate) pending: Option<u32>,
    pub(crate) disk_errors: u32,
    pub(crate) failures: u32,
    /// The answers to questions that this node sent to one node: of what round.
    pub(crate) pongs: Vec<u32>,
    repairs: bool,
    peers: Vec<NodeId>,
    due: Instant,
    rng: ChaCha8Rng,
    effects: VecDeque<Effect>,
}

pub(crate) enum Input {
    Count,
    /// Sends so many messages to one node.
    Send(NodeId, u32),
    Ask(NodeId),
    Heard(Vec<(u32, u32)>),
    Got(u32),
    Asked(CallId),
    Failed,
    Written(bool),
    Peer(NodeId, bool),
}

#[derive(Debug)]
pub(crate) enum Effect {
    Save(u32),
    Publish(u32),
    Send(NodeId, u32),
    Ask(NodeId),
    Answer(CallId),
    Learnt(u32, u32),
}

impl Counts {
    fn new(boot: &Boot<'_>, repairs: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(boot.seed);
        let due = boot.now + REPAIR.mul_f64(rng.random());
        let saved =
            boot.disk.get(b"own").map(|bytes| u32::from_le_bytes(bytes.as_ref().try_into().expect("four bytes")));
        let known = saved.map(|number| (boot.node.0, number)).into_iter().collect();
        let (pongs, peers, effects) = Default::default();
        let (pending, disk_errors, failures, own) = (None, 0, 0, boot.node);
        Self { own, known, pending, disk_errors, failures, pongs, repairs, peers, due, rng, effects }
    }
}

impl Machine for Counts {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, _: Instant, input: Input) {
        match input {
            Input::Count => {
                let next = self.pending.or(self.known.get(&self.own.0).copied()).unwrap_or_default() + 1;
                self.pending = Some(next);
                self.effects.push_back(Effect::Save(next));
            }
            Input::Written(true) => {
                let next = self.known.get(&self.own.0).copied().unwrap_or_default() + 1;
                self.known.insert(self.own.0, next);
                self.pending = self.pending.filter(|pending| *pending > next);
                self.effects.push_back(Effect::Publish(next));
            }
            Input::Written(false) => {
                self.disk_errors += 1;
                self.pending = None;
            }
            Input::Send(to, count) => self.effects.extend((0..count).map(|n| Effect::Send(to, n))),
            Input::Ask(to) => self.effects.push_back(Effect::Ask(to)),
            Input::Asked(call) => self.effects.push_back(Effect::Answer(call)),
            Input::Got(n) => self.pongs.push(n),
            Input::Heard(numbers) => {
                for (node, number) in numbers {
                    let known = self.known.entry(node).or_default();
                    (*known + 1..=number).for_each(|number| self.effects.push_back(Effect::Learnt(node, number)));
                    *known = number.max(*known);
                }
            }
            Input::Failed => self.failures += 1,
            Input::Peer(peer, up) => {
                self.peers.retain(|other| *other != peer);
                if up {
                    self.peers.push(peer);
                    if self.repairs {
                        self.effects.push_back(Effect::Ask(peer));
                    }
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now < self.due || !self.repairs {
            return;
        }
        self.due = now + REPAIR;
        let peer = self.peers.choose(&mut self.rng).copied();
        self.effects.extend(peer.map(Effect::Ask));
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.repairs.then_some(self.due)
    }
}

#[derive(Debug)]
pub(crate) struct Toy(pub(crate) Counts, Durability);

fn numbers(bytes: &[u8]) -> Vec<(u32, u32)> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    bytes.as_chunks::<8>().0.iter().map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect()
}

fn packet(kind: &'static str, numbers: impl IntoIterator<Item = (u32, u32)>) -> Packet {
    let bytes: Vec<u8> = numbers.into_iter().flat_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()].concat()).collect();
    Packet::new(kind, bytes)
}

impl Host for Toy {
    type Machine = Counts;
    type Event = (u32, u32);

    fn machine(&self) -> &Counts {
        &self.0
    }

    fn machine_mut(&mut self) -> &mut Counts {
        &mut self.0
    }

    fn carry_out(&mut self, effect: Effect, out: &mut Outbox<(u32, u32)>) {
        let own = self.0.own.0;
        match effect {
            Effect::Save(number) => {
                let value = Bytes::copy_from_slice(&number.to_le_bytes());
                out.write(u64::from(number), &b"own"[..], Some(value), self.1);
            }
            Effect::Publish(number) => {
                out.published((own, number));
                out.publish(Topic(0), packet("count", [(own, number)]));
            }
            Effect::Send(to, n) => out.send(to, packet("ping", [(own, n)])),
            Effect::Ask(to) => out.request(to, 7, packet("ask", []), TIMEOUT),
            Effect::Answer(call) => out.answer(call, packet("all", self.0.known.clone())),
            Effect::Learnt(node, number) => out.delivered((node, number)),
        }
    }

    fn arrive(&mut self, delivery: Delivery, _: &mut Outbox<(u32, u32)>) -> Option<InputOf<Self>> {
        match delivery {
            Delivery::Message { packet, .. } => numbers(packet.bytes()).first().map(|(_, n)| Input::Got(*n)),
            Delivery::Gossip { packet, .. } | Delivery::Answer { packet, token: 7, .. } => {
                Some(Input::Heard(numbers(packet.bytes())))
            }
            Delivery::Request { call, .. } => Some(Input::Asked(call)),
            Delivery::NoAnswer { token: 7, .. } => Some(Input::Failed),
            Delivery::Written { result, .. } => Some(Input::Written(result.is_ok())),
            Delivery::PeerUp(peer) => Some(Input::Peer(peer, true)),
            Delivery::PeerDown(peer) => Some(Input::Peer(peer, false)),
            _ => None,
        }
    }
}

pub(crate) const FIRST: NodeId = NodeId(0);
pub(crate) const SECOND: NodeId = NodeId(1);

/// Links of 20 to 120 ms, six neighbours.
pub(crate) fn config(seed: u64) -> Config {
    let latency = Latency::Uniform(Duration::from_millis(20), Duration::from_millis(120));
    Config { link: Link::new(latency), ..Config::new(seed) }
}

pub(crate) fn network(config: Config, nodes: usize) -> Simulation<Toy> {
    Simulation::new(config, nodes, |boot| Toy(Counts::new(&boot, true), Durability::Synced))
}

/// Machines that publish and do nothing by themselves.
pub(crate) fn quiet(config: Config, nodes: usize) -> Simulation<Toy> {
    Simulation::new(config, nodes, |boot| Toy(Counts::new(&boot, false), Durability::Synced))
}

/// Machines whose writes are only buffered.
pub(crate) fn careless(config: Config, nodes: usize) -> Simulation<Toy> {
    Simulation::new(config, nodes, |boot| Toy(Counts::new(&boot, false), Durability::Buffered))
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Whether every node that runs was told all that was published.
pub(crate) fn all_know(network: &Simulation<Toy>) -> bool {
    let running = |spread: &dagmesh_simnet::Spread| network.hosts().all(|(node, _)| spread.reached(node));
    network.events().all(|(_, spread)| running(spread))
}

/// What every node knows.
pub(crate) fn known(network: &Simulation<Toy>) -> Vec<BTreeMap<u32, u32>> {
    network.hosts().map(|(_, toy)| toy.0.known.clone()).collect()
}

/// A machine that wants one thing done for each input, whatever it is.
#[derive(Debug, Default)]
pub(crate) struct Echo(u32);

impl Machine for Echo {
    type Input = ();
    type Effect = ();

    fn handle(&mut self, _: Instant, (): ()) {
        self.0 += 1;
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_effect(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
