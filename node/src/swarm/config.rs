use std::time::Duration;

use dagmesh_core::limits;
use libp2p::pnet::PreSharedKey;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address;
use super::diversity::Diversity;
use super::error::SwarmError;
use super::event::KnownPeer;
use super::record_book::RecordBook;

/// A set of defaults for one kind of place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The public mesh: well-known bootstrap peers, addresses of private ranges are ignored.
    #[default]
    Public,
    /// One network of machines that see each other: mDNS, no bootstrap peers.
    Lan,
    /// A mesh of one's own behind a pre-shared key.
    Private,
    /// Loopback on free ports, no bootstrap peers, no mDNS; Kademlia serves at once.
    Test,
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Lan => "lan",
            Self::Private => "private",
            Self::Test => "test",
        })
    }
}

/// Whether the node answers Kademlia queries of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KadMode {
    /// As soon as a peer has confirmed one of our addresses.
    #[default]
    Auto,
    /// Never.
    Client,
    /// At once.
    Server,
}

/// The bootstrap peers of the public libp2p network, as every implementation ships them.
pub const PUBLIC_BOOTSTRAP: [&str; 5] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
];

/// How the swarm is set up. Start from [`SwarmConfig::for_profile`] and change fields.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// The kind of network.
    pub profile: Profile,
    /// Addresses to listen on. A `/p2p-circuit` address asks that relay for a reservation.
    pub listen: Vec<Multiaddr>,
    /// Addresses that the operator knows to reach this node from outside; advertised unproven.
    pub external: Vec<Multiaddr>,
    /// Peers to join the mesh through; each needs a trailing `/p2p/<peer>`.
    pub bootstrap: Vec<Multiaddr>,
    /// Peers known from the last run, as [`super::SwarmHandle::known_peers`] gave them.
    pub known_peers: Vec<KnownPeer>,
    /// Name of the network, part of the protocol names outside [`Profile::Public`]: 1 to 64 of `a-z 0-9 - _ .`.
    pub network: String,
    /// Key of a private network. With it the node speaks TCP only, since the key protects a plain byte stream.
    pub psk: Option<PreSharedKey>,
    /// Established connections in all.
    pub max_connections: u32,
    /// Established connections with one peer.
    pub max_connections_per_peer: u32,
    /// How long an unused connection stays open; protected peers are exempt.
    pub idle_timeout: Duration,
    /// Whether Kademlia queries of others are answered.
    pub kad_mode: KadMode,
    /// Protocol of the DHT, where it is not the profile's: `/ipfs/lan/kad/1.0.0` is that of Kubo on a local network.
    pub kad_protocol: Option<String>,
    /// Of which peers only so many of one part of the internet are relied on in the DHT.
    pub dht_diversity: Diversity,
    /// Looks for peers on the local network.
    pub mdns: bool,
    /// Asks the router for a port mapping.
    pub upnp: bool,
    /// Has own addresses tested by peers, and tests theirs (AutoNAT v2; v1 with peers that know no other).
    pub autonat: bool,
    /// Upgrades relayed connections to direct ones (DCUtR).
    pub hole_punching: bool,
    /// Relays for others (circuit relay v2).
    pub relay_server: bool,
    /// Topics that a peer may subscribe to, and the node itself.
    pub max_topics: usize,
    /// Beginnings of the topics taken part in; subscriptions of peers to other topics are not remembered.
    pub topic_prefixes: Vec<String>,
    /// The records of the DHT that are held, where they are kept on the disk; `None`: in memory.
    pub records: Option<RecordBook>,
}

impl SwarmConfig {
    /// The defaults of a profile. Ports: 4101 for TCP and for UDP (QUIC); `test`: loopback and port 0.
    #[must_use]
    pub fn for_profile(profile: Profile) -> Self {
        let listen: &[&str] = match profile {
            Profile::Public | Profile::Lan => &[
                "/ip4/0.0.0.0/tcp/4101",
                "/ip6/::/tcp/4101",
                "/ip4/0.0.0.0/udp/4101/quic-v1",
                "/ip6/::/udp/4101/quic-v1",
            ],
            // TCP alone, so that the same defaults work with and without a pre-shared key.
            Profile::Private => &["/ip4/0.0.0.0/tcp/4101", "/ip6/::/tcp/4101"],
            Profile::Test => &["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0/ws"],
        };
        let bootstrap: &[&str] = if profile == Profile::Public { &PUBLIC_BOOTSTRAP } else { &[] };
        let network = match profile {
            Profile::Public => "mainnet".to_owned(),
            other => other.to_string(),
        };
        let parse = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect::<Vec<Multiaddr>>();
        Self {
            profile,
            listen: parse(listen),
            external: Vec::new(),
            bootstrap: parse(bootstrap),
            known_peers: Vec::new(),
            network,
            psk: None,
            max_connections: limits::MAX_CONNECTIONS,
            max_connections_per_peer: limits::MAX_CONNECTIONS_PER_PEER,
            idle_timeout: Duration::from_secs(limits::IDLE_CONNECTION_SECS),
            // Peers of a LAN or a private network reach one another without a proof from outside.
            kad_mode: if profile == Profile::Public { KadMode::Auto } else { KadMode::Server },
            kad_protocol: None,
            // Elsewhere all nodes may well be in one place, and known.
            dht_diversity: if profile == Profile::Public { Diversity::Global } else { Diversity::Off },
            mdns: profile == Profile::Lan,
            upnp: profile == Profile::Public,
            autonat: profile != Profile::Test,
            hole_punching: profile != Profile::Test,
            relay_server: false,
            max_topics: limits::MAX_TOPICS,
            topic_prefixes: ["/dagmesh/", "/indexer/ingest/", "/record/"].map(str::to_owned).to_vec(),
            records: None,
        }
    }

    /// The Kademlia protocol: as configured, the public DHT's, or one of the network's own.
    pub(super) fn kad_protocol(&self) -> Result<StreamProtocol, SwarmError> {
        let (key, name) = match &self.kad_protocol {
            Some(name) => ("kad_protocol", name.clone()),
            None if self.profile == Profile::Public => return Ok(StreamProtocol::new("/ipfs/kad/1.0.0")),
            None => ("network", format!("/dagmesh/{}/kad/1.0.0", self.network)),
        };
        StreamProtocol::try_from_owned(name).map_err(|error| SwarmError::Config { key, reason: error.to_string() })
    }

    /// Whether addresses of strangers must be globally reachable to be used.
    pub(super) fn global_only(&self) -> bool {
        self.profile == Profile::Public
    }

    /// The bootstrap peers with their addresses.
    pub(super) fn bootstrap_peers(&self) -> Vec<(PeerId, Multiaddr)> {
        self.bootstrap.iter().filter_map(|addr| Some((address::peer_of(addr)?, addr.clone()))).collect()
    }

    pub(super) fn check(&self) -> Result<(), SwarmError> {
        let wrong = |key, reason: String| Err(SwarmError::Config { key, reason });
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if self.network.is_empty() || self.network.len() > 64 || !self.network.chars().all(named) {
            return wrong("network", format!("{:?} is not 1 to 64 of a-z, 0-9, '-', '_', '.'", self.network));
        }
        if let Some(addr) = self.bootstrap.iter().find(|addr| address::peer_of(addr).is_none()) {
            return wrong("bootstrap", format!("{addr} names no peer; append /p2p/<peer id>"));
        }
        if self.psk.is_some()
            && let Some(addr) = self.listen.iter().find(|addr| !address::is_plain_tcp(addr))
        {
            return wrong("listen", format!("{addr}: with a pre-shared key only plain TCP works; remove it"));
        }
        if self.max_connections == 0 || self.max_connections_per_peer == 0 {
            return wrong("max_connections", "0 would refuse every peer; set at least 1".to_owned());
        }
        Ok(())
    }
}
