use std::fmt;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

/// What went wrong in the swarm or on the way to a peer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmError {
    /// The configuration contradicts itself.
    #[error("swarm configuration: {key}: {reason}")]
    Config {
        /// The field of [`super::SwarmConfig`].
        key: &'static str,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The transports cannot be set up.
    #[error("cannot set up {what}: {reason}")]
    Transport {
        /// Which part.
        what: &'static str,
        /// What the system said, and what to do where it is known.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {reason}; {fix}")]
    Listen {
        /// The address of the configuration.
        addr: Multiaddr,
        /// What the system said.
        reason: String,
        /// What to do about it.
        fix: String,
    },
    /// No address of the peer led to it.
    #[error("cannot reach {target}: {}", Attempts(.tried))]
    Unreachable {
        /// The peer, or the address where no peer was named.
        target: String,
        /// Each address that was tried, and how it failed.
        tried: Vec<DialAttempt>,
    },
    /// No address of the peer is known, and the DHT names none.
    #[error("no address of {peer} is known, and none was found in the DHT ({connected} peers connected)")]
    NoAddress {
        /// The peer.
        peer: PeerId,
        /// Peers connected at that moment.
        connected: usize,
    },
    /// The address is this node's own.
    #[error("{addr} leads back to this node")]
    OwnAddress {
        /// The address.
        addr: Multiaddr,
    },
    /// An own limit or ban forbids the connection.
    #[error("the connection to {target} is refused on this side: {reason}")]
    Denied {
        /// The peer or address.
        target: String,
        /// Which limit or ban.
        reason: String,
    },
    /// Nobody is there to ask.
    #[error("{what}: no peer that speaks the DHT is known; connect to one first")]
    NoPeers {
        /// What was asked for.
        what: &'static str,
    },
    /// The local DHT store has no room left.
    #[error("cannot provide {key}: {reason}")]
    Provide {
        /// The key, in hex.
        key: String,
        /// What the store said.
        reason: String,
    },
    /// The topic may not be subscribed to.
    #[error("cannot subscribe to {topic}: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// Which rule forbids it.
        reason: String,
    },
    /// Too many queries run.
    #[error("{what}: {limit} queries run already; try again later")]
    Busy {
        /// What was asked for.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The deadline passed.
    #[error("{what}: no answer within {after:?}")]
    Timeout {
        /// What was asked for.
        what: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The swarm has stopped.
    #[error("the swarm has stopped")]
    Stopped,
}

/// One address that was dialled in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialAttempt {
    /// The address.
    pub addr: Multiaddr,
    /// How it failed.
    pub reason: String,
}

/// Why a message was not published.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// No connected peer takes part in the topic.
    #[error("no peers on {topic} ({connected} connected)")]
    NoPeers {
        /// The topic.
        topic: String,
        /// Peers connected, on whatever topic.
        connected: usize,
    },
    /// The same message was published a moment ago.
    #[error("the message was published on {topic} before")]
    Duplicate {
        /// The topic.
        topic: String,
    },
    /// The message is over [`dagmesh_core::limits::MAX_GOSSIP_CONTENT_BYTES`].
    #[error("{bytes} bytes for {topic} are over the limit of {limit}")]
    TooLarge {
        /// The topic.
        topic: String,
        /// Size of the message.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The topic lies outside the configured prefixes.
    #[error("cannot publish on {topic}: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// Which rule forbids it.
        reason: String,
    },
    /// The queues to all its peers are full, or the message cannot be signed.
    #[error("cannot publish on {topic}: {reason}")]
    Failed {
        /// The topic.
        topic: String,
        /// What failed.
        reason: String,
    },
    /// The swarm has stopped or did not answer in time.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
}

struct Attempts<'a>(&'a [DialAttempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, DialAttempt { addr, reason }) in self.0.iter().enumerate() {
            write!(f, "{}tried {addr}: {reason}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
