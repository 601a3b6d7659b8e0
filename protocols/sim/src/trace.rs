//! What happened, as a hash of all and the text of the last.

use std::{
    collections::VecDeque,
    fmt::{self, Display, Formatter},
    time::Duration,
};

use blake3::Hasher;
use dagmesh_core::limits::SIM_TRACE_LINES;

use crate::{NodeId, Packet};

/// The hash of all that happened in a run, in order: equal for equal runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceHash(pub [u8; 32]);

impl Display for TraceHash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) at: u64,
    pub(crate) what: &'static str,
    pub(crate) node: NodeId,
    pub(crate) from: Option<NodeId>,
    /// A token, a number of hops: what tells it from its like.
    pub(crate) number: u64,
    pub(crate) kind: &'static str,
    pub(crate) bytes: usize,
    pub(crate) hash: u128,
}

impl Record {
    pub(crate) fn new(at: u64, what: &'static str, node: NodeId) -> Self {
        Self { at, what, node, from: None, number: 0, kind: "", bytes: 0, hash: 0 }
    }

    pub(crate) fn from(self, from: NodeId) -> Self {
        Self { from: Some(from), ..self }
    }

    pub(crate) fn number(self, number: u64) -> Self {
        Self { number, ..self }
    }

    pub(crate) fn packet(self, packet: &Packet) -> Self {
        Self { kind: packet.kind, bytes: packet.bytes.len(), hash: packet.hash, ..self }
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>13.6} s  {:<8} {}",
            Duration::from_nanos(self.at).as_secs_f64(),
            self.node.to_string(),
            self.what
        )?;
        if let Some(from) = self.from {
            write!(f, " {from}")?;
        }
        if self.number != 0 {
            write!(f, " #{}", self.number)?;
        }
        match self.kind {
            "" => Ok(()),
            kind => write!(f, " {kind} ({} bytes, {:08x})", self.bytes, (self.hash as u32).swap_bytes()),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: Hasher,
    last: VecDeque<Record>,
}

impl Trace {
    pub(crate) fn add(&mut self, record: Record) {
        let Record { at, what, node, from, number, kind: _, bytes: _, hash } = &record;
        let mut line = [0; 44];
        let fields: [&[u8]; 5] = [
            &at.to_le_bytes(),
            &node.0.to_le_bytes(),
            &from.map_or(u64::MAX, |from| u64::from(from.0)).to_le_bytes(),
            &number.to_le_bytes(),
            &hash.to_le_bytes(),
        ];
        fields.into_iter().flatten().zip(&mut line).for_each(|(byte, place)| *place = *byte);
        // The length ends the name: no two lists of records give the same bytes.
        self.hasher.update(&line).update(what.as_bytes()).update(&[what.len() as u8]);
        if self.last.len() >= SIM_TRACE_LINES {
            self.last.pop_front();
        }
        self.last.push_back(record);
    }

    pub(crate) fn hash(&self) -> TraceHash {
        TraceHash(*self.hasher.finalize().as_bytes())
    }

    pub(crate) fn last(&self) -> Vec<String> {
        self.last.iter().map(Record::to_string).collect()
    }
}
