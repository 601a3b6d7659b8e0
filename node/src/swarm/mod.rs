//! The node's libp2p Swarm: how it is composed, the one task that owns it, and the handle to it.
//!
//! - [`SwarmConfig`] says what to listen on, whom to join and what is allowed; [`SwarmConfig::for_profile`] has the
//!   defaults.
//! - [`start`] opens the listeners and spawns the worker, the only owner of the Swarm.
//! - [`SwarmHandle`] is a cheap clone that asks the worker; every method has a deadline and is cancel-safe.
//! - [`MeshEvent`]s tell what happens; [`GossipMessage`]s are what a [`GossipValidator`] accepted.
//!
//! Every channel has a bound (`dagmesh_core::limits`) and a rule for when it is full: callers wait for room among
//! the commands; a watcher of events that lags is told how many it missed; a gossip message that finds no room is
//! ignored (not forwarded, no penalty for its sender) and counted.

mod address;
mod autonat_v1;
mod behaviour;
mod bootstrap;
mod command;
mod config;
mod diversity;
mod error;
mod event;
mod handle;
mod kad_store;
mod kademlia;
mod metrics;
mod on_command;
mod on_event;
mod peer_book;
mod peers;
mod protect;
mod queries;
mod reachability;
mod record_book;
mod routing;
mod sources;
mod tls;
mod topics;
mod transport;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use dagmesh_core::limits;
use libp2p::identity::Keypair;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::kad_store::{Caps, KadStore};

pub use address::{peer_of, with_peer, without_peer};
pub use config::{KadMode, PUBLIC_BOOTSTRAP, Profile, SwarmConfig};
pub use dagmesh_announce::is_globally_reachable;
pub use diversity::Diversity;
pub use error::{DialAttempt, PublishError, SwarmError};
pub use event::{
    AcceptAll, Direction, FoundRecords, GossipMessage, GossipValidator, Held, HeldMessage, KnownPeer, MeshEvent,
    PeerInfo, Provided,
};
pub use handle::SwarmHandle;
pub use metrics::SwarmMetrics;
pub use reachability::{AddressStatus, Reachability, ReachabilityReport};
pub use record_book::{ChangeNumber, RecordBook, RecordChanges, RecordWork, UnixClock};

/// A running swarm: the handle, and the accepted gossip messages.
#[derive(Debug)]
pub struct RunningSwarm {
    /// Asks the worker. The worker stops with [`SwarmHandle::shutdown`], or when the last handle is dropped.
    pub handle: SwarmHandle,
    /// Messages that the validator accepted, in order of arrival. Bounded by [`limits::GOSSIP_QUEUE`]: while it is
    /// full, further messages are ignored and counted in [`SwarmMetrics::gossip_overflow`].
    pub gossip: mpsc::Receiver<GossipMessage>,
}

/// Starts the swarm with the identity `keypair`: opens every listener, then spawns the worker on the current tokio
/// runtime and starts to join the mesh.
///
/// Returns once each listener has an address, so [`SwarmHandle::listen_addrs`] is complete. `validator` is called
/// in the worker for every gossip message and must do cheap work only.
///
/// # Errors
/// [`SwarmError::Listen`] where an address cannot be listened on, with the fix; [`SwarmError::Config`] where the
/// configuration contradicts itself; [`SwarmError::Transport`] where the transports cannot be set up.
///
/// Cancel safety: dropped before it returns, nothing runs on and every listener is closed.
pub async fn start(
    config: SwarmConfig,
    keypair: Keypair,
    validator: Box<dyn GossipValidator>,
) -> Result<RunningSwarm, SwarmError> {
    config.check()?;
    let metrics = Arc::new(metrics::Counters::default());
    let peer = keypair.public().to_peer_id();
    let records = config.records.clone().unwrap_or_else(|| RecordBook::in_memory(peer));
    let store = KadStore::new(peer, Caps::default(), config.global_only(), records.clone(), Arc::clone(&metrics));
    let (swarm, streams) = transport::build(&config, &keypair, store).await?;
    let (commands, command_queue) = mpsc::channel(limits::COMMAND_QUEUE);
    let (gossip_out, gossip) = mpsc::channel(limits::GOSSIP_QUEUE);
    let (events, _) = broadcast::channel(limits::EVENT_QUEUE);
    let (known_out, known_peers) = watch::channel(Arc::new(config.known_peers.clone()));
    let (done_out, done) = watch::channel(false);
    let stop = CancellationToken::new();

    let mut worker = worker::Worker::new(worker::Parts {
        swarm,
        config,
        validator,
        command_queue,
        gossip_out,
        events: events.clone(),
        known_out,
        done_out,
        stop: stop.clone(),
        metrics: Arc::clone(&metrics),
    });
    worker.listen().await?;
    tokio::spawn(worker.run());

    let handle =
        SwarmHandle::new(handle::Parts { peer, commands, events, known_peers, done, stop, metrics, streams, records });
    Ok(RunningSwarm { handle, gossip })
}
