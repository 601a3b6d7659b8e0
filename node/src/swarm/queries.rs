use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use dagmesh_core::limits;
use libp2p::kad::QueryId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::error::SwarmError;
use super::event::{FoundRecords, Provided};

type Reply<T> = oneshot::Sender<Result<T, SwarmError>>;

/// The Kademlia queries that callers wait for, and the provider records that have reached nobody yet.
#[derive(Default)]
pub(super) struct Queries {
    running: HashMap<QueryId, Query>,
    /// Keys of provider records to publish once somebody is there.
    waiting: BTreeSet<Vec<u8>>,
    publish_at: Option<Instant>,
}

/// One query and who waits for it.
pub(super) enum Query {
    FindPeer { peer: PeerId, tried: Vec<Multiaddr>, reply: Reply<Vec<Multiaddr>> },
    Providers(Providers),
    Provide { reply: Reply<Provided> },
    Closest(Closest),
    PutRecord { reply: Reply<bool> },
    Records { found: FoundRecords, reply: Reply<FoundRecords> },
    Bootstrap { reply: Reply<()> },
}

/// A search for the peers closest to a key.
pub(super) struct Closest {
    pub(super) key: Vec<u8>,
    /// How often to begin anew where nobody answers.
    pub(super) retries: usize,
    pub(super) found: Vec<PeerId>,
    pub(super) count: usize,
    pub(super) reply: Reply<Vec<PeerId>>,
}

/// A search for providers.
pub(super) struct Providers {
    pub(super) found: Vec<PeerId>,
    pub(super) limit: usize,
    pub(super) until: Instant,
    pub(super) reply: Reply<Vec<PeerId>>,
}

impl Providers {
    /// Takes in providers; true once there are enough.
    pub(super) fn add(&mut self, providers: impl IntoIterator<Item = PeerId>) -> bool {
        for peer in providers {
            if self.found.len() < self.limit && !self.found.contains(&peer) {
                self.found.push(peer);
            }
        }
        self.found.len() >= self.limit
    }
}

impl Query {
    /// Whether its caller has gone, or its time is over and it answers with what there is.
    fn is_over(&self, now: Instant) -> bool {
        match self {
            Self::FindPeer { reply, .. } => reply.is_closed(),
            Self::Providers(Providers { reply, until, .. }) => reply.is_closed() || now >= *until,
            Self::Provide { reply } => reply.is_closed(),
            Self::Closest(Closest { reply, .. }) => reply.is_closed(),
            Self::PutRecord { reply } => reply.is_closed(),
            Self::Records { reply, .. } => reply.is_closed(),
            Self::Bootstrap { reply } => reply.is_closed(),
        }
    }
}

impl Queries {
    /// Whether another query may run for a caller.
    pub(super) fn check_room(&self, what: &'static str) -> Result<(), SwarmError> {
        if self.running.len() < limits::MAX_QUERIES {
            return Ok(());
        }
        Err(SwarmError::Busy { what, limit: limits::MAX_QUERIES })
    }

    pub(super) fn insert(&mut self, id: QueryId, query: Query) {
        self.running.insert(id, query);
    }

    pub(super) fn get_mut(&mut self, id: &QueryId) -> Option<&mut Query> {
        self.running.get_mut(id)
    }

    pub(super) fn remove(&mut self, id: &QueryId) -> Option<Query> {
        self.running.remove(id)
    }

    /// Searches for peers that are under way.
    pub(super) fn peer_searches(&self) -> Vec<(QueryId, PeerId, Vec<Multiaddr>)> {
        let search = |(id, query): (&QueryId, &Query)| match query {
            Query::FindPeer { peer, tried, .. } => Some((*id, *peer, tried.clone())),
            _ => None,
        };
        self.running.iter().filter_map(search).collect()
    }

    /// Takes out what nobody waits for any more, or what has to answer now.
    pub(super) fn take_over(&mut self, now: Instant) -> Vec<(QueryId, Query)> {
        self.running.extract_if(|_, query| query.is_over(now)).collect()
    }

    /// How soon to look again: often while a peer is searched, whose addresses come without an event.
    pub(super) fn pace(&self) -> Duration {
        if self.running.values().any(|query| matches!(query, Query::FindPeer { .. })) {
            Duration::from_millis(100)
        } else {
            Duration::from_secs(1)
        }
    }

    /// A provider record was published, or found nobody.
    pub(super) fn published(&mut self, key: &[u8], reached: bool) {
        if reached {
            self.waiting.remove(key);
        } else if self.waiting.len() < limits::MAX_PROVIDED_KEYS {
            self.waiting.insert(key.to_vec());
        }
    }

    pub(super) fn withdrawn(&mut self, key: &[u8]) {
        self.waiting.remove(key);
    }

    /// The routing table has a new peer: publish what waits, in a moment, when more may have come.
    pub(super) fn new_peer(&mut self, now: Instant) {
        if !self.waiting.is_empty() && self.publish_at.is_none() {
            self.publish_at = Some(now + Duration::from_millis(500));
        }
    }

    /// Keys to publish now, a handful at a time.
    pub(super) fn due_keys(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.publish_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let keys: Vec<_> = std::iter::from_fn(|| self.waiting.pop_first()).take(64).collect();
        self.publish_at = (!self.waiting.is_empty()).then(|| now + Duration::from_secs(1));
        keys
    }

    pub(super) fn publish_due(&self) -> Option<Instant> {
        self.publish_at
    }
}
