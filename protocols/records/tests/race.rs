//! Two writers with one key, and everybody else as a reader: a network in one process, with loss and in any order.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dagmesh_core::Machine;
use dagmesh_records::{
    Answer, Bans, Draft, Effect, Get, GetConfig, GetResult, Input, Put, PutConfig, PutEnd, Record, RecordName, Request,
    Store, StoreConfig, Verified, record_key, serve,
};
use libp2p_identity::{Keypair, PeerId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const NOW_MS: u64 = 1_700_000_000_000;
const NODES: u8 = 20;
const UPDATES: u64 = 100;

fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).expect("a key")
}

fn name() -> RecordName {
    RecordName::new("name").expect("a name")
}

/// A call that runs at a node.
enum Call {
    Put(Box<Put>),
    Get(Box<Get>),
}

impl Call {
    fn handle(&mut self, now: Instant, input: Input) {
        match self {
            Self::Put(put) => put.handle(now, input),
            Self::Get(get) => get.handle(now, input),
        }
    }
}

/// How a call ended.
enum End {
    Put(PutEnd),
    Get(Box<GetResult>),
}

struct Net {
    rng: ChaCha8Rng,
    now: Instant,
    loss: f64,
    stores: BTreeMap<PeerId, (Store, Bans)>,
    calls: BTreeMap<usize, (PeerId, Call)>,
    /// What travels to which call; taken in any order.
    on_way: Vec<(usize, Input)>,
    next: usize,
}

impl Net {
    fn new(seed: u64) -> Self {
        let peers = (0..NODES).map(|n| key(n).public().to_peer_id());
        let stores = peers.map(|peer| (peer, (Store::new(StoreConfig::new(peer, seed)), Bans::new()))).collect();
        #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        let now = Instant::now();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { rng, now, loss: 0.1, stores, calls: BTreeMap::new(), on_way: Vec::new(), next: 0 }
    }

    fn peer(&self, n: usize) -> PeerId {
        *self.stores.keys().nth(n).expect("a node")
    }

    fn begin(&mut self, at: PeerId, call: Call) -> usize {
        self.next += 1;
        self.calls.insert(self.next, (at, call));
        self.next
    }

    fn put(&mut self, at: PeerId, record: Verified) -> usize {
        let config = PutConfig { replicas: usize::from(NODES), ..PutConfig::new(record, NOW_MS) };
        let put = Put::new(self.now, config).expect("begins");
        self.begin(at, Call::Put(Box::new(put)))
    }

    fn get(&mut self, at: PeerId, key: Vec<u8>) -> usize {
        let get = Get::new(self.now, GetConfig::new(key, NOW_MS)).expect("begins");
        self.begin(at, Call::Get(Box::new(get)))
    }

    /// The request goes over the wire, is served, and so is its answer; or one of the two is lost.
    fn deliver(&mut self, from: PeerId, to: PeerId, request: &Request) -> Input {
        if self.rng.random_bool(self.loss) {
            return Input::Failed(to);
        }
        let (store, bans) = self.stores.get_mut(&to).expect("a node");
        let served = serve(store, bans, NOW_MS, from, &request.encode().expect("encodes"));
        while store.poll_effect().is_some() {}
        assert_eq!(served.banned, None);
        if self.rng.random_bool(self.loss) {
            return Input::Failed(to);
        }
        let answer = Answer::decode(&served.answer.encode().expect("encodes")).expect("decodes");
        Input::Answered { peer: to, answer }
    }

    /// Carries out what the calls want; gives those that are over.
    fn poll(&mut self) -> Vec<(usize, End)> {
        let (mut ends, mut done) = (Vec::new(), Vec::new());
        let mut sends = Vec::new();
        for (id, (at, call)) in &mut self.calls {
            loop {
                let sent = match call {
                    Call::Put(put) => match put.poll_effect() {
                        Some(Effect::Result(result)) => {
                            ends.push((*id, End::Put(result.end)));
                            continue;
                        }
                        other => other.map(without_result),
                    },
                    Call::Get(get) => match get.poll_effect() {
                        Some(Effect::Result(result)) => {
                            ends.push((*id, End::Get(Box::new(result))));
                            continue;
                        }
                        other => other.map(without_result),
                    },
                };
                match sent {
                    None => break,
                    Some(Effect::Send { peer, request }) => sends.push((*id, *at, Some((peer, request)))),
                    Some(Effect::FindClosest(_)) => sends.push((*id, *at, None)),
                    Some(Effect::Done) => done.push(*id),
                    Some(Effect::Fault(fault)) => panic!("{fault:?}"),
                    Some(_) => {}
                }
            }
        }
        for (id, at, send) in sends {
            let input = match send {
                Some((peer, request)) => self.deliver(at, peer, &request),
                None => Input::Closest(self.stores.keys().copied().collect()),
            };
            self.on_way.push((id, input));
        }
        done.iter().for_each(|id| drop(self.calls.remove(id)));
        ends
    }

    /// One step: what travels arrives, in any order.
    fn step(&mut self) -> Vec<(usize, End)> {
        if !self.on_way.is_empty() {
            let at = self.rng.random_range(0..self.on_way.len());
            let (id, input) = self.on_way.swap_remove(at);
            self.now += Duration::from_millis(1);
            if let Some((_, call)) = self.calls.get_mut(&id) {
                call.handle(self.now, input);
            }
        }
        self.poll()
    }

    /// All nodes read, at once; gives what each found.
    fn read_all(&mut self, key: &[u8]) -> Vec<Verified> {
        let readers: Vec<_> = (0..usize::from(NODES)).map(|n| self.peer(n)).collect();
        for reader in readers {
            self.get(reader, key.to_vec());
        }
        let mut found = Vec::new();
        while !self.calls.is_empty() {
            for (_, end) in self.step() {
                let End::Get(result) = end else { panic!("only gets run") };
                found.push(result.record.expect("everybody finds one"));
            }
        }
        assert_eq!(found.len(), usize::from(NODES));
        found
    }
}

/// What the driver carries out is the same for both; the result was taken before.
fn without_result<T>(effect: Effect<T>) -> Effect<()> {
    match effect {
        Effect::FindClosest(key) => Effect::FindClosest(key),
        Effect::Send { peer, request } => Effect::Send { peer, request },
        Effect::Newer(record) => Effect::Newer(record),
        Effect::Fault(fault) => Effect::Fault(fault),
        Effect::Result(_) | Effect::Done => Effect::Done,
    }
}

/// A writer: one of two devices of one owner.
struct Writer {
    at: PeerId,
    /// The highest sequence that it knows of.
    known: u64,
    written: u64,
    running: Option<usize>,
    superseded: u32,
}

#[test]
fn two_writers_with_one_key_race_100_updates_and_every_reader_ends_with_the_same_newest() {
    for seed in 0..2 {
        let mut net = Net::new(seed);
        let owner = key(200);
        let key = record_key(&owner.public(), &name());
        let mut newest: Option<Verified> = None;
        let writer = |at| Writer { at, known: 0, written: 0, running: None, superseded: 0 };
        let mut writers = [writer(net.peer(3)), writer(net.peer(11))];
        while writers.iter().any(|writer| writer.running.is_some() || writer.written < UPDATES) {
            for (n, writer) in writers.iter_mut().enumerate() {
                if writer.running.is_some() || writer.written >= UPDATES {
                    continue;
                }
                let draft = Draft {
                    name: name(),
                    value: format!("{n}: {}", writer.written).into(),
                    sequence: writer.known + 1,
                    timestamp_ms: NOW_MS + net.rng.random_range(0..3),
                    expires_ms: NOW_MS + 1_000_000,
                    meta: BTreeMap::new(),
                };
                let record = Verified::from(&Record::sign(&owner, draft).expect("signs"));
                if newest.as_ref().is_none_or(|newest| record.order() > newest.order()) {
                    newest = Some(record.clone());
                }
                (writer.known, writer.written) = (writer.known + 1, writer.written + 1);
                writer.running = Some(net.put(writer.at, record));
            }
            for (id, end) in net.step() {
                let writer = writers.iter_mut().find(|writer| writer.running == Some(id)).expect("is a writer's");
                writer.running = None;
                if let End::Put(PutEnd::Superseded(newer)) = end {
                    writer.known = writer.known.max(newer.order().sequence);
                    writer.superseded += 1;
                }
            }
        }
        assert!(writers.iter().any(|writer| writer.superseded > 0), "it was no race: seed {seed}");
        // A part of the nodes may have missed the last one; reading mends that.
        net.read_all(&key);
        net.loss = 0.0;
        let found = net.read_all(&key);
        let newest = newest.expect("something was written");
        assert!(found.iter().all(|record| record.order() == newest.order()), "seed {seed}");
        for (store, _) in net.stores.values() {
            assert_eq!(store.get(NOW_MS, &key).map(|held| held.record.order()), Some(newest.order()), "seed {seed}");
        }
    }
}
