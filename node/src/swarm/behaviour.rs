use dagmesh_core::limits;
use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{autonat, dcutr, identify, mdns, memory_connection_limits, ping, relay, upnp};

use super::autonat_v1::AutonatV1;
use super::config::SwarmConfig;
use super::error::SwarmError;
use super::kad_store::KadStore;
use super::kademlia::Kademlia;
use super::peer_book::PeerBook;
use super::protect::Protect;
use super::sources::Sources;
use super::topics;

/// Everything the node speaks. The order counts: limits first, so that nothing is set up for a connection they
/// refuse; the chatty ones after the quiet ones, so that they starve nobody.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) sources: Sources,
    pub(super) limits: connection_limits::Behaviour,
    pub(super) memory: memory_connection_limits::Behaviour,
    pub(super) bans: allow_block_list::Behaviour<BlockedPeers>,
    pub(super) book: PeerBook,
    pub(super) protect: Protect,
    pub(super) streams: libp2p_stream::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) autonat_client: Toggle<autonat::v2::client::Behaviour>,
    pub(super) autonat_server: Toggle<autonat::v2::server::Behaviour>,
    pub(super) autonat_v1: Toggle<AutonatV1>,
    pub(super) relay_client: relay::client::Behaviour,
    pub(super) relay_server: Toggle<relay::Behaviour>,
    pub(super) dcutr: Toggle<dcutr::Behaviour>,
    pub(super) upnp: Toggle<upnp::tokio::Behaviour>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) kad: Kademlia,
    pub(super) gossip: topics::Gossip,
}

impl Behaviour {
    pub(super) fn new(
        config: &SwarmConfig,
        keypair: &Keypair,
        relay_client: relay::client::Behaviour,
        store: KadStore,
    ) -> Result<Self, SwarmError> {
        let peer = keypair.public().to_peer_id();
        let on = |yes: bool| yes.then_some(());
        Ok(Self {
            // One source may have three quarters of the places, so that it cannot keep all others out.
            sources: Sources::new((max_inbound(config).saturating_mul(3)).div_ceil(4)),
            limits: connection_limits::Behaviour::new(connection_limits(config)),
            memory: memory_connection_limits::Behaviour::with_max_percentage(limits::MAX_MEMORY_SHARE),
            bans: allow_block_list::Behaviour::default(),
            book: PeerBook::new(config.global_only()),
            protect: Protect::default(),
            streams: libp2p_stream::Behaviour::new(),
            ping: ping::Behaviour::default(),
            identify: identify::Behaviour::new(identify_config(config, keypair)),
            autonat_client: on(config.autonat).map(|()| autonat::v2::client::Behaviour::default()).into(),
            autonat_server: on(config.autonat).map(|()| autonat::v2::server::Behaviour::default()).into(),
            autonat_v1: on(config.autonat).map(|()| AutonatV1::new(peer, config)).into(),
            relay_client,
            relay_server: on(config.relay_server)
                .map(|()| relay::Behaviour::new(peer, relay::Config::default()))
                .into(),
            dcutr: on(config.hole_punching).map(|()| dcutr::Behaviour::new(peer)).into(),
            upnp: on(config.upnp).map(|()| upnp::tokio::Behaviour::default()).into(),
            mdns: on(config.mdns).and_then(|()| local_discovery(peer)).into(),
            kad: Kademlia::new(config, peer, store)?,
            gossip: topics::behaviour(config, keypair)?,
        })
    }
}

/// Inbound connections, in proportion to all that the config allows.
fn max_inbound(config: &SwarmConfig) -> u32 {
    let share = u64::from(config.max_connections) * u64::from(limits::MAX_INBOUND_CONNECTIONS);
    u32::try_from(share.div_ceil(u64::from(limits::MAX_CONNECTIONS))).unwrap_or(u32::MAX)
}

fn connection_limits(config: &SwarmConfig) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits::MAX_PENDING_INBOUND))
        .with_max_pending_outgoing(Some(limits::MAX_PENDING_OUTBOUND))
        .with_max_established(Some(config.max_connections))
        .with_max_established_incoming(Some(max_inbound(config)))
        .with_max_established_per_peer(Some(config.max_connections_per_peer))
}

fn identify_config(config: &SwarmConfig, keypair: &Keypair) -> identify::Config {
    identify::Config::new(format!("/dagmesh/{}/1.0.0", config.network), keypair.public())
        .with_agent_version(concat!("dagmesh/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        // The peer book keeps addresses instead, filtered.
        .with_cache_size(0)
}

fn local_discovery(peer: libp2p::PeerId) -> Option<mdns::tokio::Behaviour> {
    mdns::tokio::Behaviour::new(mdns::Config::default(), peer)
        .inspect_err(|error| tracing::warn!(%error, "no mDNS: peers of the local network are not found by themselves"))
        .ok()
}
