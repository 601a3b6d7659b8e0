//! Putting a record to the nodes closest to its key, and getting one from a quorum of them.
//!
//! Two machines, [`Put`] and [`Get`], which ask their driver for the closest nodes once and then send requests, a few at a
//! time; each ends by itself within a bounded time and says how many of how many it found. Whoever drives them carries
//! requests and answers, as `/dagmesh/records/1.0.0` or as PUT and GET of plain Kademlia.

mod fanout;
mod get;
mod put;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use dagmesh_core::limits::{CALL_TIMEOUT_SECS, MAX_RECORD_REQUESTS, RECORD_CALL_SECS};
use libp2p_identity::PeerId;

pub use self::{
    get::{Correction, Get, GetConfig, GetResult},
    put::{Put, PutConfig, PutEnd, PutResult},
};
use crate::{
    error::RecordError,
    message::{Answer, Request},
    validator::Verified,
};

/// What both machines are told.
#[derive(Debug, Clone)]
pub enum Input {
    /// The nodes closest to the key, the closest first; it may come once. None: there are none.
    Closest(Vec<PeerId>),
    /// This peer has answered.
    Answered {
        /// Who.
        peer: PeerId,
        /// What.
        answer: Answer,
    },
    /// A request has failed: no connection, no answer, not understood.
    Failed(PeerId),
}

/// What both machines want, `T` being how they end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<T> {
    /// Find the nodes closest to this key; then [`Input::Closest`].
    FindClosest(Vec<u8>),
    /// Send this; then [`Input::Answered`] or [`Input::Failed`].
    Send {
        /// To whom.
        peer: PeerId,
        /// What.
        request: Request,
    },
    /// A record that is newer than all so far. The last one before the result is that of it.
    Newer(Box<Verified>),
    /// This peer has sent what is none; see [`crate::Bans::report`].
    Fault(Fault),
    /// The result. A [`Get`] may go on to correct holders.
    Result(T),
    /// It is over.
    Done,
}

/// A peer that has sent a record which is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who.
    pub peer: PeerId,
    /// Why it is refused.
    pub why: RecordError,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// All of it, with the search for the closest nodes and the corrections.
    pub call: Duration,
    /// One request and its answer.
    pub request: Duration,
}

impl Default for Times {
    /// The limits of the house: [`RECORD_CALL_SECS`], [`CALL_TIMEOUT_SECS`].
    fn default() -> Self {
        Self { call: Duration::from_secs(RECORD_CALL_SECS), request: Duration::from_secs(CALL_TIMEOUT_SECS) }
    }
}

/// Times and numbers of both.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// An instant, and what the clock said then, in Unix milliseconds.
    clock: (Instant, u64),
    deadline: Instant,
    request_timeout: Duration,
    parallel: usize,
}

impl Pace {
    fn new(now: Instant, unix_ms: u64, times: Times) -> Self {
        let Times { call, request } = times;
        Self { clock: (now, unix_ms), deadline: now + call, request_timeout: request, parallel: MAX_RECORD_REQUESTS }
    }

    fn unix_ms(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.clock.0).as_millis();
        self.clock.1.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}
