use libp2p::gossipsub::MessageAcceptance;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::{mpsc, oneshot};

use super::config::KadMode;
use super::error::{PublishError, SwarmError};
use super::event::{FoundRecords, Held, HeldMessage, PeerInfo, Provided};
use super::reachability::ReachabilityReport;

/// What a handle asks of the worker. A dropped `reply` means that nobody waits any more: the work is given up.
pub(super) enum Command {
    ListenAddrs(oneshot::Sender<Vec<Multiaddr>>),
    ExternalAddrs(oneshot::Sender<Vec<Multiaddr>>),
    Dial {
        target: Target,
        reply: oneshot::Sender<Result<PeerId, SwarmError>>,
    },
    Disconnect {
        peer: PeerId,
        reply: oneshot::Sender<bool>,
    },
    Peers(oneshot::Sender<Vec<PeerInfo>>),
    Speaks {
        peer: PeerId,
        protocol: StreamProtocol,
        reply: oneshot::Sender<Option<bool>>,
    },
    AddAddress {
        peer: PeerId,
        addr: Multiaddr,
        reply: oneshot::Sender<()>,
    },
    FindPeer {
        peer: PeerId,
        tried: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<Vec<Multiaddr>, SwarmError>>,
    },
    Provide {
        key: Vec<u8>,
        reply: oneshot::Sender<Result<Provided, SwarmError>>,
    },
    StopProviding {
        key: Vec<u8>,
        reply: oneshot::Sender<()>,
    },
    FindProviders {
        key: Vec<u8>,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<PeerId>, SwarmError>>,
    },
    ClosestPeers {
        key: Vec<u8>,
        count: usize,
        reply: oneshot::Sender<Result<Vec<PeerId>, SwarmError>>,
    },
    PutRecordTo {
        peer: PeerId,
        key: Vec<u8>,
        value: Vec<u8>,
        reply: oneshot::Sender<Result<bool, SwarmError>>,
    },
    FindRecords {
        key: Vec<u8>,
        reply: oneshot::Sender<Result<FoundRecords, SwarmError>>,
    },
    Bootstrap(oneshot::Sender<Result<(), SwarmError>>),
    Subscribe {
        topic: String,
        /// Where its messages wait to be judged, and how many bytes of them may.
        holding: Option<(mpsc::Sender<HeldMessage>, usize)>,
        reply: oneshot::Sender<Result<bool, SwarmError>>,
    },
    Unsubscribe {
        topic: String,
        reply: oneshot::Sender<bool>,
    },
    Judge {
        held: Held,
        acceptance: MessageAcceptance,
    },
    Publish {
        topic: String,
        data: Vec<u8>,
        reply: oneshot::Sender<Result<usize, PublishError>>,
    },
    MeshPeers {
        topic: String,
        reply: oneshot::Sender<Vec<PeerId>>,
    },
    Reachability(oneshot::Sender<ReachabilityReport>),
    SetKadMode {
        mode: KadMode,
        reply: oneshot::Sender<()>,
    },
    Protect {
        peer: PeerId,
        keep: bool,
        reply: oneshot::Sender<()>,
    },
    Ban {
        peer: PeerId,
        banned: bool,
        reply: oneshot::Sender<()>,
    },
    AddExternal {
        addr: Multiaddr,
        reply: oneshot::Sender<()>,
    },
}

/// Whom to dial.
pub(super) enum Target {
    /// Exactly this address, whoever is there unless it names a peer.
    Addr(Multiaddr),
    /// A peer, at the given addresses, or at all known ones where none is given.
    Peer { peer: PeerId, addrs: Vec<Multiaddr> },
}
