//! Putting a record to so many of the closest nodes.

use std::{collections::VecDeque, time::Instant};

use dagmesh_core::{
    Machine,
    limits::{DEFAULT_RECORD_REPLICAS, MAX_RECORD_PEERS},
};
use libp2p_identity::PeerId;

use super::{
    Effect, Fault, Input, Pace, Times,
    fanout::{Fanout, until},
};
use crate::{
    error::RecordError,
    message::{Answer, MessageError, Request},
    validator::{Verified, verify},
};

/// What a [`Put`] is told once.
#[derive(Debug, Clone)]
pub struct PutConfig {
    /// The record.
    pub record: Verified,
    /// How many nodes shall hold it: 1 to [`MAX_RECORD_PEERS`].
    pub replicas: usize,
    /// The clock at the beginning, in Unix milliseconds.
    pub unix_ms: u64,
    /// How long it may take.
    pub times: Times,
}

impl PutConfig {
    /// As many copies as Kademlia makes.
    pub fn new(record: Verified, unix_ms: u64) -> Self {
        Self { record, replicas: DEFAULT_RECORD_REPLICAS, unix_ms, times: Times::default() }
    }
}

/// How a put ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutEnd {
    /// As many hold it as were wanted.
    Complete,
    /// Fewer do, at least one: no more nodes were found, or the time was over.
    Partial,
    /// None does.
    Nowhere,
    /// A node holds a newer record: here it is. Nothing more was put.
    Superseded(Box<Verified>),
}

/// What came of a put: found `holders.len()` of `wanted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutResult {
    /// How it ended.
    pub end: PutEnd,
    /// Who holds the record.
    pub holders: Vec<PeerId>,
    /// How many were wanted.
    pub wanted: usize,
    /// How many were asked.
    pub asked: usize,
    /// Who refused it, with the reason; a peer that did not answer is not among them.
    pub refused: Vec<(PeerId, String)>,
}

impl PutResult {
    /// Whether anybody holds it.
    pub fn is_stored(&self) -> bool {
        !self.holders.is_empty() && !matches!(self.end, PutEnd::Superseded(_))
    }
}

/// Puts one record to the closest nodes until as many hold it as are wanted: in the order of distance, no more requests at
/// once than are still missing, the next node for each that fails.
#[derive(Debug)]
pub struct Put {
    record: Verified,
    request: Request,
    wanted: usize,
    pace: Pace,
    fanout: Option<Fanout>,
    holders: Vec<PeerId>,
    refused: Vec<(PeerId, String)>,
    done: bool,
    effects: VecDeque<Effect<PutResult>>,
}

impl Put {
    /// Begins. An error where fewer than one copy is wanted or more than [`MAX_RECORD_PEERS`], or where the record is larger
    /// than what travels.
    pub fn new(now: Instant, config: PutConfig) -> Result<Self, RecordError> {
        let PutConfig { record, replicas, unix_ms, times } = config;
        if !(1..=MAX_RECORD_PEERS).contains(&replicas) {
            let reason = format!("{replicas} where 1 to {MAX_RECORD_PEERS} may stand");
            return Err(RecordError::form("number of replicas", reason));
        }
        let request = Request::put(record.key(), record.bytes())
            .map_err(|error: MessageError| RecordError::form("record that can be put", error))?;
        let effects = VecDeque::from([Effect::FindClosest(record.key().to_vec())]);
        Ok(Self {
            record,
            request,
            wanted: replicas,
            pace: Pace::new(now, unix_ms, times),
            fanout: None,
            holders: Vec::new(),
            refused: Vec::new(),
            done: false,
            effects,
        })
    }

    fn answered(&mut self, now: Instant, peer: PeerId, answer: Answer) {
        match answer {
            Answer::Stored { .. } => self.holders.push(peer),
            Answer::Superseded { record, .. } => match verify(self.record.key(), &record, self.pace.unix_ms(now)) {
                Ok(newer) if newer.order() > self.record.order() => {
                    self.effects.push_back(Effect::Newer(Box::new(newer.clone())));
                    self.end(PutEnd::Superseded(Box::new(newer)));
                }
                Ok(_) => self.refused.push((peer, "it calls a record newer that is not".into())),
                Err(why) => {
                    self.refused.push((peer, why.to_string()));
                    self.effects.push_back(Effect::Fault(Fault { peer, why }));
                }
            },
            Answer::Error(refusal) => self.refused.push((peer, refusal.to_string())),
            Answer::Record(_) | Answer::Absent => self.refused.push((peer, "the answer is none to a put".into())),
        }
    }

    /// Asks the next ones, or ends.
    fn go_on(&mut self, now: Instant) {
        if self.done {
            return;
        }
        let late = now >= self.pace.deadline;
        let deadline = until(now, self.pace.request_timeout, self.pace.deadline);
        if let Some(fanout) = &mut self.fanout {
            let parallel = self.pace.parallel.min(self.wanted.saturating_sub(self.holders.len()));
            while !late && let Some(peer) = fanout.next(parallel, deadline) {
                self.effects.push_back(Effect::Send { peer, request: self.request.clone() });
            }
        }
        let over = self.fanout.as_ref().is_some_and(Fanout::is_over);
        match self.holders.len() {
            found if found >= self.wanted => self.end(PutEnd::Complete),
            0 if late || over => self.end(PutEnd::Nowhere),
            _ if late || over => self.end(PutEnd::Partial),
            _ => {}
        }
    }

    fn end(&mut self, end: PutEnd) {
        self.done = true;
        let (holders, refused) = (std::mem::take(&mut self.holders), std::mem::take(&mut self.refused));
        let asked = self.fanout.take().map_or(0, |fanout| fanout.asked());
        let result = PutResult { end, holders, wanted: self.wanted, asked, refused };
        self.effects.extend([Effect::Result(result), Effect::Done]);
    }
}

impl Machine for Put {
    type Input = Input;
    type Effect = Effect<PutResult>;

    fn handle(&mut self, now: Instant, input: Input) {
        if self.done {
            return;
        }
        match input {
            Input::Closest(peers) => drop(self.fanout.get_or_insert_with(|| Fanout::new(peers))),
            Input::Answered { peer, answer } => {
                if self.fanout.as_mut().is_some_and(|fanout| fanout.ended(&peer)) {
                    self.answered(now, peer, answer);
                }
            }
            Input::Failed(peer) => drop(self.fanout.as_mut().map(|fanout| fanout.ended(&peer))),
        }
        self.go_on(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let late = self.fanout.as_mut().map(|fanout| fanout.late(now)).unwrap_or_default();
        if !late.is_empty() || now >= self.pace.deadline {
            self.go_on(now);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<PutResult>> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let request = self.fanout.as_ref().and_then(Fanout::timeout);
        (!self.done).then(|| request.map_or(self.pace.deadline, |at| at.min(self.pace.deadline)))
    }
}
