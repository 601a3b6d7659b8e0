//! Getting the newest record from a quorum of the closest nodes, and correcting those that lack it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use dagmesh_core::{
    Machine,
    limits::{DEFAULT_RECORD_REPLICAS, MAX_RECORD_PEERS, RECORD_QUORUM},
};
use libp2p_identity::PeerId;

use super::{
    Effect, Fault, Input, Pace, Times,
    fanout::{Fanout, until},
};
use crate::{
    error::RecordError,
    message::{Answer, Request},
    order::Order,
    validator::{Namespace, Verified, verify},
};

/// Peers asked at once, however small the quorum: Kademlia's alpha.
const MIN_PARALLEL: usize = 3;

/// What a [`Get`] is told once.
#[derive(Debug, Clone)]
pub struct GetConfig {
    /// The key.
    pub key: Vec<u8>,
    /// How many valid records are waited for: 1 to [`MAX_RECORD_PEERS`].
    pub quorum: usize,
    /// How many of the closest nodes should hold it: those of them that say they do not are given it.
    pub replicas: usize,
    /// Whether those of these are asked too, after the result, that the quorum made needless, to be given it where they
    /// lack it.
    pub thorough: bool,
    /// What this node holds itself.
    pub local: Option<Verified>,
    /// The clock at the beginning, in Unix milliseconds.
    pub unix_ms: u64,
    /// How long it may take.
    pub times: Times,
}

impl GetConfig {
    /// The quorum of IPNS, and as many copies as Kademlia makes; thorough.
    pub fn new(key: Vec<u8>, unix_ms: u64) -> Self {
        Self {
            key,
            quorum: RECORD_QUORUM,
            replicas: DEFAULT_RECORD_REPLICAS,
            thorough: true,
            local: None,
            unix_ms,
            times: Times::default(),
        }
    }
}

/// What came of a get: found `holders + stale` valid records, of `wanted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetResult {
    /// The newest; `None` where nobody had a valid one.
    pub record: Option<Verified>,
    /// How many peers had it.
    pub holders: usize,
    /// How many had an older one.
    pub stale: usize,
    /// How many had none.
    pub absent: usize,
    /// How many answered with what is none, or is not valid.
    pub invalid: usize,
    /// How many were asked; those that did not answer are in none of the figures above.
    pub asked: usize,
    /// How many valid ones were waited for.
    pub wanted: usize,
    /// Who is being given the newest now, and why; of those that are asked later, more may come to it.
    pub corrected: Vec<(PeerId, Correction)>,
}

/// Why a peer is given the newest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Correction {
    /// It had an older one, or one that is void.
    Stale,
    /// It should hold the record, as one of the closest, and does not.
    Missing,
    /// It is the closest that does not hold it: who reads the key later comes by it.
    Cache,
}

/// What a peer had.
#[derive(Debug, Clone, Copy)]
enum Had {
    Record(Order),
    Nothing,
    Invalid,
}

/// Gets one record: asks the closest nodes in the order of distance until a quorum of them has brought a valid one, or all
/// have answered, or the time is over; gives the newest; then puts it to those that had an older one, to those of the
/// closest that had none, and to the one closest of all that had none. Where it is thorough, it goes on meanwhile to ask
/// those of the closest that were not asked yet: else a record would thin out at just those, however often it is read.
#[derive(Debug)]
pub struct Get {
    config: GetConfig,
    pace: Pace,
    request: Request,
    /// By distance.
    closest: Vec<PeerId>,
    reads: Option<Fanout>,
    fixes: Fanout,
    /// Whether it is settled which one further off is given it, if any.
    cached: bool,
    had: BTreeMap<PeerId, Had>,
    newest: Option<Verified>,
    phase: Phase,
    effects: VecDeque<Effect<GetResult>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    Correcting,
    Done,
}

impl Get {
    /// Begins. An error where the key is in no namespace of ours, or the quorum is not 1 to [`MAX_RECORD_PEERS`].
    pub fn new(now: Instant, config: GetConfig) -> Result<Self, RecordError> {
        Namespace::of(&config.key)?;
        if !(1..=MAX_RECORD_PEERS).contains(&config.quorum) {
            let reason = format!("{} where 1 to {MAX_RECORD_PEERS} may stand", config.quorum);
            return Err(RecordError::form("quorum", reason));
        }
        let request =
            Request::get(&config.key).map_err(|error| RecordError::form("key that can be asked for", error))?;
        let effects = VecDeque::from([Effect::FindClosest(config.key.clone())]);
        Ok(Self {
            pace: Pace::new(now, config.unix_ms, config.times),
            newest: config
                .local
                .clone()
                .filter(|local| local.key() == config.key && local.check_time(config.unix_ms).is_ok()),
            config,
            request,
            closest: Vec::new(),
            reads: None,
            fixes: Fanout::default(),
            cached: false,
            had: BTreeMap::new(),
            phase: Phase::Reading,
            effects,
        })
    }

    fn read(&mut self, now: Instant, peer: PeerId, answer: Answer) {
        let had = match answer {
            Answer::Record(bytes) => match verify(&self.config.key, &bytes, self.pace.unix_ms(now)) {
                Ok(record) => {
                    let order = record.order();
                    if self.newest.as_ref().is_none_or(|newest| order > newest.order()) {
                        self.effects.push_back(Effect::Newer(Box::new(record.clone())));
                        self.newest = Some(record);
                    }
                    Had::Record(order)
                }
                Err(why) => {
                    self.effects.push_back(Effect::Fault(Fault { peer, why }));
                    Had::Invalid
                }
            },
            Answer::Absent => Had::Nothing,
            // Not able to answer, or no answer to a get: it is not given the record either.
            Answer::Error(_) | Answer::Stored { .. } | Answer::Superseded { .. } => return,
        };
        self.had.insert(peer, had);
    }

    fn go_on(&mut self, now: Instant) {
        let late = now >= self.pace.deadline;
        let found = self.had.values().filter(|had| matches!(had, Had::Record(_))).count();
        let parallel = match self.phase {
            // Not more than could still be needed, so that a small quorum asks few; some, since one may be silent.
            Phase::Reading => self.pace.parallel.min(self.config.quorum.saturating_sub(found).max(MIN_PARALLEL)),
            Phase::Correcting => self.pace.parallel,
            Phase::Done => return,
        };
        let enough = self.phase == Phase::Reading && found >= self.config.quorum;
        let deadline = until(now, self.pace.request_timeout, self.pace.deadline);
        if let Some(reads) = &mut self.reads {
            while !late
                && !enough
                && let Some(peer) = reads.next(parallel, deadline)
            {
                self.effects.push_back(Effect::Send { peer, request: self.request.clone() });
            }
        }
        if let Some(put) = self.newest.as_ref().and_then(|newest| Request::put(newest.key(), newest.bytes()).ok()) {
            while !late && let Some(peer) = self.fixes.next(parallel, deadline) {
                self.effects.push_back(Effect::Send { peer, request: put.clone() });
            }
        }
        let read = late || self.reads.as_ref().is_some_and(Fanout::is_over);
        match self.phase {
            Phase::Reading if read || enough => {
                self.result(late);
                self.go_on(now);
            }
            Phase::Correcting if late || (read && self.fixes.is_over()) => {
                // What was read since.
                let more = if late { Vec::new() } else { self.correct() };
                if more.is_empty() {
                    self.phase = Phase::Done;
                    self.effects.push_back(Effect::Done);
                } else {
                    self.go_on(now);
                }
            }
            _ => {}
        }
    }

    /// Tells the result, and begins to correct, unless it is too `late` for that.
    fn result(&mut self, late: bool) {
        self.phase = Phase::Correcting;
        let newest = self.newest.as_ref().map(Verified::order);
        let count = |is: &dyn Fn(&Had) -> bool| self.had.values().filter(|had| is(had)).count();
        let is_newest = |had: &Had| matches!(had, Had::Record(order) if Some(*order) == newest);
        let mut result = GetResult {
            holders: count(&is_newest),
            stale: count(&|had| matches!(had, Had::Record(_)) && !is_newest(had)),
            absent: count(&|had| matches!(had, Had::Nothing)),
            invalid: count(&|had| matches!(had, Had::Invalid)),
            asked: self.reads.as_ref().map_or(0, Fanout::asked),
            wanted: self.config.quorum,
            corrected: Vec::new(),
            record: self.newest.clone(),
        };
        if !late {
            result.corrected = self.correct();
        }
        let more = if self.config.thorough && newest.is_some() { self.config.replicas } else { 0 };
        self.reads.as_mut().into_iter().for_each(|reads| reads.keep_first(more));
        self.effects.push_back(Effect::Result(result));
    }

    /// Begins to give the newest to those that lack it, each once.
    fn correct(&mut self) -> Vec<(PeerId, Correction)> {
        let Some(newest) = self.newest.as_ref().map(Verified::order) else { return Vec::new() };
        let corrections = self.corrections(newest);
        self.had.extend(corrections.iter().map(|(peer, _)| (*peer, Had::Record(newest))));
        self.cached = true;
        self.fixes = Fanout::new(corrections.iter().map(|(peer, _)| *peer));
        corrections
    }

    /// In the order of distance.
    fn corrections(&self, newest: Order) -> Vec<(PeerId, Correction)> {
        let mut first_without = !self.cached;
        let correct = |(at, peer): (usize, &PeerId)| {
            let why = match self.had.get(peer)? {
                Had::Record(order) if *order == newest => return None,
                Had::Record(_) | Had::Invalid => Correction::Stale,
                Had::Nothing if at < self.config.replicas => Correction::Missing,
                Had::Nothing if first_without => Correction::Cache,
                Had::Nothing => return None,
            };
            first_without = first_without && why == Correction::Stale;
            Some((*peer, why))
        };
        self.closest.iter().enumerate().filter_map(correct).collect()
    }
}

impl Machine for Get {
    type Input = Input;
    type Effect = Effect<GetResult>;

    fn handle(&mut self, now: Instant, input: Input) {
        if self.phase == Phase::Done {
            return;
        }
        match input {
            Input::Closest(peers) => {
                if self.reads.is_none() {
                    self.closest = peers;
                    self.closest.truncate(MAX_RECORD_PEERS);
                    self.reads = Some(Fanout::new(self.closest.iter().copied()));
                }
            }
            Input::Answered { peer, answer } => match self.reads.as_mut().is_some_and(|reads| reads.ended(&peer)) {
                true => self.read(now, peer, answer),
                false => {
                    self.fixes.ended(&peer);
                }
            },
            Input::Failed(peer) => {
                for fanout in self.reads.as_mut().into_iter().chain([&mut self.fixes]) {
                    fanout.ended(&peer);
                }
            }
        }
        self.go_on(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let fanouts = self.reads.as_mut().into_iter().chain([&mut self.fixes]);
        let late = fanouts.map(|fanout| fanout.late(now).len()).sum::<usize>();
        if late > 0 || now >= self.pace.deadline {
            self.go_on(now);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<GetResult>> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let request = self.reads.iter().chain([&self.fixes]).filter_map(Fanout::timeout).min();
        (self.phase != Phase::Done).then(|| request.map_or(self.pace.deadline, |at| at.min(self.pace.deadline)))
    }
}
