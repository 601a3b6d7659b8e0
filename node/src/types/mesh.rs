//! What a node says about itself and its mesh.

use cid::Cid;
use dagmesh_dag::FeedName;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::text;

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its peer id.
    pub peer_id: PeerId,
    /// Where it can be dialled, each ending with `/p2p/<peer_id>`; empty while it is stopped.
    pub addrs: Vec<Multiaddr>,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its peer id.
    pub peer_id: PeerId,
    /// The address of the oldest direct connection with it, or of the oldest of all where none is direct.
    pub addr: Multiaddr,
    /// The protocols that it told; empty until it has.
    pub protocols: Vec<String>,
    /// Its software, as it told.
    #[serde(default)]
    pub agent: Option<String>,
    /// Connections with it.
    #[serde(default)]
    pub connections: u32,
    /// Whether none of them is direct: all run through a relay.
    #[serde(default)]
    pub relayed: bool,
    /// Round trip of the last ping, in milliseconds.
    #[serde(default)]
    pub rtt_ms: Option<u64>,
}

/// Whether the world reaches an address of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Not tested yet.
    #[default]
    Unknown,
    /// A peer dialled it.
    Reachable,
    /// A peer tried, in vain.
    Unreachable,
}

/// One address of ours, and whether it is of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The address.
    pub addr: Multiaddr,
    /// What the last test said.
    pub reach: Reach,
    /// When that was.
    #[serde(default)]
    pub tested: Option<u64>,
    /// What to do about it, where something is to be done.
    #[serde(default)]
    pub advice: Option<String>,
}

/// A feed that this node publishes, and how far its head has come, each step with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// Its name.
    pub feed: FeedName,
    /// Its head.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// The head's sequence number.
    pub seq: u64,
    /// When the head moved there.
    pub published: u64,
    /// When it was announced last; `None` while no peer was there to hear it.
    #[serde(default)]
    pub announced: Option<u64>,
    /// How many peers it was sent to.
    #[serde(default)]
    pub announced_to: usize,
    /// When a peer first fetched it.
    #[serde(default)]
    pub fetched: Option<u64>,
    /// When a peer first confirmed that it is in sync with it.
    #[serde(default)]
    pub confirmed: Option<u64>,
    /// How many peers did.
    #[serde(default)]
    pub confirmed_by: usize,
}

/// How a node is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its peer id.
    pub peer_id: PeerId,
    /// Its version.
    pub version: String,
    /// Its network's name.
    pub network: String,
    /// Its profile.
    pub profile: String,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// Addresses it listens on.
    pub listen: Vec<Multiaddr>,
    /// Addresses others may reach it at, each with what is known about it.
    pub addresses: Vec<AddressStatus>,
    /// Connected peers.
    pub peers: usize,
    /// Connected peers that are on our announcement topic.
    pub topic_peers: usize,
    /// Feeds that it publishes.
    pub feeds: Vec<FeedStatus>,
    /// Where its chain of the IPNI network is served over HTTP, as a URL.
    #[serde(default)]
    pub ipni_http: Option<String>,
    /// Feeds that it follows.
    pub follows: usize,
    /// Those of them that are in sync.
    pub in_sync: usize,
    /// Syncs that run now.
    pub syncing: usize,
    /// Blocks held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What needs a person's attention, each with the fix; empty if all is well.
    pub warnings: Vec<String>,
}

/// A peer was dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Who answered.
    pub peer_id: PeerId,
    /// Where.
    pub addr: Multiaddr,
}
