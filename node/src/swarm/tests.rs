//! Real swarms on loopback. Everything waits for an event or a state, with a deadline.

use std::time::{Duration, Instant};

use libp2p::gossipsub::{Message, MessageAcceptance};
use libp2p::identity::Keypair;
use libp2p::pnet::PreSharedKey;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::*;
use crate::testing::{until, within};

mod autonat;
mod gossip;
mod records;
mod routing;

const TOPIC: &str = "/dagmesh/heads/test";

struct Node {
    handle: SwarmHandle,
    gossip: mpsc::Receiver<GossipMessage>,
    events: broadcast::Receiver<MeshEvent>,
}

impl Node {
    async fn start() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut SwarmConfig)) -> Self {
        Self::validated(change, Box::new(AcceptAll)).await
    }

    async fn validated(change: impl FnOnce(&mut SwarmConfig), validator: Box<dyn GossipValidator>) -> Self {
        Self::launch(Keypair::generate_ed25519(), change, validator).await
    }

    async fn launch(key: Keypair, change: impl FnOnce(&mut SwarmConfig), validator: Box<dyn GossipValidator>) -> Self {
        let mut config = SwarmConfig::for_profile(Profile::Test);
        change(&mut config);
        let RunningSwarm { handle, gossip } = start(config, key, validator).await.unwrap();
        let events = handle.events();
        Self { handle, gossip, events }
    }

    fn peer(&self) -> PeerId {
        self.handle.local_peer_id()
    }

    async fn addr(&self, part: &str) -> Multiaddr {
        let addrs = self.handle.addrs().await.unwrap();
        addrs.iter().find(|addr| addr.to_string().contains(part)).unwrap_or_else(|| panic!("{part}: {addrs:?}")).clone()
    }

    async fn tcp(&self) -> Multiaddr {
        let addrs = self.handle.addrs().await.unwrap();
        addrs.into_iter().find(address::is_plain_tcp).unwrap()
    }

    /// Waits for the event that `wanted` picks.
    async fn event<T>(&mut self, what: &str, mut wanted: impl FnMut(&MeshEvent) -> Option<T>) -> T {
        within(what, async {
            loop {
                if let Some(found) = wanted(&self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        })
        .await
    }

    /// Waits until what `peer` is known to be satisfies `wanted`.
    async fn sees(&self, what: &str, peer: PeerId, wanted: impl Fn(&PeerInfo) -> bool) -> PeerInfo {
        until(what, async || {
            let peers = self.handle.peers().await.unwrap();
            peers.into_iter().find(|it| it.peer == peer && wanted(it))
        })
        .await
    }

    /// Waits until `peer` is identified and known to be subscribed to the topic.
    async fn sees_subscriber(&self, peer: PeerId, topic: &str) {
        self.sees("a subscriber", peer, |it| it.agent.is_some() && it.topics.iter().any(|name| name == topic)).await;
    }

    async fn message(&mut self) -> GossipMessage {
        within("a gossip message", self.gossip.recv()).await.unwrap()
    }
}

async fn subscribed_pair() -> (Node, Node) {
    let (a, b) = (Node::start().await, Node::start().await);
    a.handle.subscribe(TOPIC).await.unwrap();
    b.handle.subscribe(TOPIC).await.unwrap();
    a.handle.connect(b.tcp().await).await.unwrap();
    a.sees_subscriber(b.peer(), TOPIC).await;
    b.sees_subscriber(a.peer(), TOPIC).await;
    (a, b)
}

#[tokio::test]
async fn two_nodes_connect_over_each_transport_and_identify() {
    for transport in ["/tcp/", "/quic-v1", "/ws"] {
        let (mut a, b) = (Node::start().await, Node::start().await);
        let addr = b.addr(transport).await;
        let connected = within("connection", a.handle.connect(addr.clone())).await.unwrap();
        assert_eq!(connected, b.peer());
        let protocols = a
            .event("identify", |event| match event {
                MeshEvent::PeerIdentified { peer, protocols, .. } if *peer == connected => Some(protocols.clone()),
                _ => None,
            })
            .await;
        for protocol in ["/ipfs/id/1.0.0", "/dagmesh/test/kad/1.0.0", "/meshsub/1.1.0"] {
            assert!(protocols.iter().any(|it| it == protocol), "{protocol} over {transport}: {protocols:?}");
        }
        let info = a.sees("round-trip time", b.peer(), |it| it.rtt.is_some()).await;
        assert_eq!(info.direction, Direction::Outbound);
        assert_eq!(info.addr, addr);
        assert!(info.agent.unwrap().starts_with("dagmesh/"));
        assert_eq!(info.protocols, protocols);
        let seen = b.sees("the dialler", a.peer(), |it| it.agent.is_some()).await;
        assert_eq!(seen.direction, Direction::Inbound);
        assert_eq!((a.handle.peer_count(), b.handle.peer_count()), (1, 1));
    }
}

#[tokio::test]
async fn a_newcomer_finds_providers_and_peers_through_its_bootstrap_node_alone() {
    let hub = Node::start().await;
    let bootstrap = hub.tcp().await;
    let join = |config: &mut SwarmConfig| config.bootstrap = vec![bootstrap.clone()];
    let provider = Node::with(join).await;
    let identified = |it: &PeerInfo| it.agent.is_some();
    provider.sees("the hub", hub.peer(), identified).await;
    hub.sees("the provider", provider.peer(), identified).await;
    let key = b"\x12\x20a multihash of thirty-two bytes!!".to_vec();
    assert_eq!(within("publication", provider.handle.provide(key.clone())).await.unwrap(), Provided::Published);

    let newcomer = Node::with(join).await;
    newcomer.sees("the hub", hub.peer(), identified).await;
    let found = within("providers", newcomer.handle.find_providers(key.clone(), 1)).await.unwrap();
    assert_eq!(found, [provider.peer()]);
    let addrs = within("addresses", newcomer.handle.find_peer(provider.peer())).await.unwrap();
    assert!(addrs.contains(&provider.tcp().await), "{addrs:?}");
    within("dial by id", newcomer.handle.dial_peer(provider.peer())).await.unwrap();
    newcomer.sees("the provider", provider.peer(), identified).await;

    provider.handle.stop_providing(key).await.unwrap();
    let none = within("end of the walk", newcomer.handle.find_providers(vec![0x12, 1, 7], 3)).await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_peer_is_dialled_by_its_id_alone_once_the_dht_is_joined() {
    let (hub, target) = (Node::start().await, Node::start().await);
    let identified = |it: &PeerInfo| it.agent.is_some();
    target.handle.connect(hub.tcp().await).await.unwrap();
    hub.sees("the target", target.peer(), identified).await;
    let seeker = Node::start().await;
    let unknown = seeker.handle.dial_peer(target.peer()).await.unwrap_err();
    assert!(matches!(unknown, SwarmError::NoAddress { connected: 0, .. }), "{unknown}");
    seeker.handle.connect(hub.tcp().await).await.unwrap();
    seeker.sees("the hub", hub.peer(), identified).await;
    within("dial by id", seeker.handle.dial_peer(target.peer())).await.unwrap();
    target.sees("the seeker", seeker.peer(), |_| true).await;
}

#[tokio::test]
async fn a_key_provided_alone_is_published_when_somebody_comes() {
    let (provider, hub) = (Node::start().await, Node::start().await);
    let key = vec![0x12, 0x01, 0x2a];
    assert_eq!(within("walk", provider.handle.provide(key.clone())).await.unwrap(), Provided::Waiting);
    provider.handle.connect(hub.tcp().await).await.unwrap();
    until("publication", async || {
        (hub.handle.find_providers(key.clone(), 1).await.unwrap() == [provider.peer()]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_withdrawn_key_is_not_published_when_somebody_comes() {
    let (provider, hub) = (Node::start().await, Node::start().await);
    let (kept, withdrawn) = (vec![0x12, 0x01, 0x2a], vec![0x12, 0x01, 0x2b]);
    provider.handle.provide(withdrawn.clone()).await.unwrap();
    provider.handle.provide(kept.clone()).await.unwrap();
    provider.handle.stop_providing(withdrawn.clone()).await.unwrap();
    provider.handle.connect(hub.tcp().await).await.unwrap();
    until("publication", async || hub.handle.find_providers(kept.clone(), 1).await.unwrap().pop()).await;
    assert!(within("walk", hub.handle.find_providers(withdrawn, 1)).await.unwrap().is_empty());
}

/// To join through it, the node dials it at the moment at which its listener would.
#[tokio::test]
async fn a_relay_may_be_a_bootstrap_peer_too() {
    let relay = Node::with(|config| config.relay_server = true).await;
    let (addr, server) = (relay.tcp().await, relay.peer());
    let mut node = Node::with(|config| {
        config.listen = vec![config.listen[0].clone(), addr.clone().with(libp2p::multiaddr::Protocol::P2pCircuit)];
        config.bootstrap = vec![addr];
    })
    .await;
    // Within the deadline, which is shorter than the time after which a listener that ended is opened again.
    node.event("reservation", |event| {
        matches!(event, MeshEvent::RelayReserved { relay } if *relay == server).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_listens_at_a_relay_is_reached_through_it() {
    let relay = Node::with(|config| config.relay_server = true).await;
    let at_relay = relay.tcp().await.with(libp2p::multiaddr::Protocol::P2pCircuit);
    let mut hidden = Node::with(|config| config.listen = vec![at_relay.clone()]).await;
    let server = relay.peer();
    let reserved =
        |event: &MeshEvent| matches!(event, MeshEvent::RelayReserved { relay } if *relay == server).then_some(());
    hidden.event("reservation", reserved).await;
    let seeker = Node::start().await;
    let addr = with_peer(at_relay, hidden.peer()).unwrap();
    assert_eq!(within("relayed connection", seeker.handle.connect(addr)).await.unwrap(), hidden.peer());
    let info = seeker.sees("the hidden node", hidden.peer(), |it| it.agent.is_some()).await;
    assert!(info.relayed && address::is_relayed(&info.addr), "{}", info.addr);
    assert!(hidden.sees("the seeker", seeker.peer(), |it| it.agent.is_some()).await.relayed);
}

#[tokio::test]
async fn joining_the_dht_needs_somebody_in_it() {
    let (a, b) = (Node::start().await, Node::start().await);
    let error = a.handle.bootstrap().await.unwrap_err();
    assert!(matches!(error, SwarmError::NoPeers { .. }), "{error}");
    a.handle.connect(b.tcp().await).await.unwrap();
    a.sees("identify", b.peer(), |it| it.agent.is_some()).await;
    within("walk", a.handle.bootstrap()).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_fails_the_start_with_the_address_and_the_fix() {
    let first = Node::start().await;
    for part in ["/tcp/", "/quic-v1"] {
        let taken = without_peer(&first.addr(part).await);
        let mut config = SwarmConfig::for_profile(Profile::Test);
        config.listen = vec![taken.clone()];
        let error = start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await.unwrap_err();
        assert!(matches!(&error, SwarmError::Listen { addr, .. } if *addr == taken), "{error}");
        let text = error.to_string();
        assert!(text.contains("the port is taken") && text.contains("--listen"), "{text}");
    }
}

#[tokio::test]
async fn a_failed_dial_says_what_was_tried_and_how_it_failed() {
    let (a, gone) = (Node::start().await, Node::start().await);
    let addr = gone.tcp().await;
    gone.handle.shutdown().await.unwrap();
    let error = within("failure", a.handle.connect(addr.clone())).await.unwrap_err();
    let SwarmError::Unreachable { tried, .. } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 1);
    assert_eq!(tried[0].addr, addr);
    assert!(tried[0].reason.contains("refused"), "{error}");

    let b = Node::start().await;
    let other = with_peer(without_peer(&b.tcp().await), gone.peer()).unwrap();
    let error = within("failure", a.handle.connect(other)).await.unwrap_err();
    assert!(error.to_string().contains(&b.peer().to_string()), "{error}");
    let error = a.handle.connect(a.tcp().await).await.unwrap_err();
    assert!(matches!(error, SwarmError::OwnAddress { .. }), "{error}");
}

#[tokio::test]
async fn a_banned_peer_is_disconnected_and_refused() {
    let (mut a, b) = (Node::start().await, Node::start().await);
    a.handle.connect(b.tcp().await).await.unwrap();
    let banned = b.peer();
    a.handle.ban(banned).await.unwrap();
    let left =
        |event: &MeshEvent| matches!(event, MeshEvent::PeerDisconnected { peer, .. } if *peer == banned).then_some(());
    a.event("disconnection", left).await;
    let error = a.handle.connect(b.tcp().await).await.unwrap_err();
    assert!(matches!(error, SwarmError::Denied { .. }), "{error}");
    a.handle.unban(banned).await.unwrap();
    a.handle.connect(b.tcp().await).await.unwrap();
}

#[tokio::test]
async fn a_node_that_lost_everybody_comes_back_by_itself() {
    let hub = Node::start().await;
    let addr = hub.tcp().await;
    let mut a = Node::with(|config| config.bootstrap = vec![addr]).await;
    let peer = hub.peer();
    let joined =
        |event: &MeshEvent| matches!(event, MeshEvent::PeerConnected { peer: it, .. } if *it == peer).then_some(());
    a.sees("the hub", peer, |_| true).await;
    hub.handle.disconnect(a.peer()).await.unwrap();
    a.event("isolation", |event| matches!(event, MeshEvent::Isolated).then_some(())).await;
    a.event("return", joined).await;
}

#[tokio::test]
async fn known_peers_outlive_a_restart() {
    let (a, b) = (Node::start().await, Node::start().await);
    a.handle.connect(b.tcp().await).await.unwrap();
    a.sees("identify", b.peer(), |it| it.agent.is_some()).await;
    let mut known = a.handle.known_peers();
    a.handle.shutdown().await.unwrap();
    let list = known.borrow_and_update().clone();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].peer, b.peer());
    assert_eq!(list[0].addrs[0], without_peer(&b.tcp().await));
    let again = Node::with(|config| config.known_peers = list.to_vec()).await;
    again.sees("the known peer", b.peer(), |_| true).await;
}

#[tokio::test]
async fn streams_open_by_peer_id_and_carry_bytes() {
    use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
    let (a, b) = (Node::start().await, Node::start().await);
    let protocol = libp2p::StreamProtocol::new("/dagmesh/test-echo/1");
    let mut incoming = b.handle.streams().accept(protocol.clone()).unwrap();
    a.handle.add_address(b.peer(), b.tcp().await).await.unwrap();
    let mut stream = within("stream", a.handle.streams().open_stream(b.peer(), protocol)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.close().await.unwrap();
    let (from, mut stream) = within("incoming stream", incoming.next()).await.unwrap();
    assert_eq!(from, a.peer());
    let mut text = Vec::new();
    within("bytes", stream.read_to_end(&mut text)).await.unwrap();
    assert_eq!(text, b"hello");
}

#[tokio::test]
async fn a_private_network_lets_in_only_those_with_its_key() {
    let private = |key: u8| {
        move |config: &mut SwarmConfig| {
            config.psk = Some(PreSharedKey::new([key; 32]));
            config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        }
    };
    let (a, b, stranger) = (Node::with(private(1)).await, Node::with(private(1)).await, Node::with(private(2)).await);
    within("connection", a.handle.connect(b.tcp().await)).await.unwrap();
    let error = within("failure", stranger.handle.connect(b.tcp().await)).await.unwrap_err();
    assert!(matches!(error, SwarmError::Unreachable { .. }), "{error}");
    let mut config = SwarmConfig::for_profile(Profile::Test);
    config.psk = Some(PreSharedKey::new([1; 32]));
    let error = start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await.unwrap_err();
    assert!(error.to_string().contains("only plain TCP"), "{error}");
}

#[tokio::test]
async fn a_peer_proves_that_an_address_is_reachable() {
    let nat = |config: &mut SwarmConfig| config.autonat = true;
    let (mut a, b) = (Node::with(nat).await, Node::with(nat).await);
    a.handle.connect(b.tcp().await).await.unwrap();
    let (addr, error) = a
        .event("address test", |event| match event {
            MeshEvent::AddressTested { addr, error, .. } => Some((addr.clone(), error.clone())),
            _ => None,
        })
        .await;
    assert_eq!(error, None);
    let report = a.handle.reachability().await.unwrap();
    let status = report.addresses.iter().find(|it| it.addr == without_peer(&addr)).unwrap();
    assert!(report.reachable);
    assert_eq!((status.state, status.tested_by), (Reachability::Reachable, Some(b.peer())));
}

#[tokio::test]
async fn shutdown_is_bounded_frees_the_ports_and_ends_every_call() {
    let (a, mut b) = (Node::start().await, Node::start().await);
    a.handle.connect(b.tcp().await).await.unwrap();
    let addr = without_peer(&a.tcp().await);
    let (left, mut events) = (a.peer(), a.handle.events());
    timeout(Duration::from_secs(5), a.handle.shutdown()).await.unwrap().unwrap();
    a.handle.shutdown().await.unwrap();
    assert!(matches!(a.handle.peers().await, Err(SwarmError::Stopped)));
    within("last event", async { while !matches!(events.recv().await.unwrap(), MeshEvent::Stopped) {} }).await;
    b.event("farewell", |event| {
        matches!(event, MeshEvent::PeerDisconnected { peer, .. } if *peer == left).then_some(())
    })
    .await;
    Node::with(|config| config.listen = vec![addr]).await;
}

#[tokio::test]
async fn the_swarm_stops_when_its_last_handle_is_dropped() {
    let a = Node::start().await;
    let mut events = a.handle.events();
    drop(a);
    within("last event", async {
        loop {
            match events.recv().await {
                Ok(MeshEvent::Stopped) | Err(broadcast::error::RecvError::Closed) => return,
                _ => {}
            }
        }
    })
    .await;
}

#[tokio::test]
async fn on_the_public_profile_addresses_of_strangers_must_be_reachable_by_all() {
    let public = || {
        let mut config = SwarmConfig::for_profile(Profile::Public);
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        (config.bootstrap, config.upnp, config.kad_mode) = (Vec::new(), false, KadMode::Server);
        config
    };
    let (a, b) = (Node::with(|config| *config = public()).await, Node::with(|config| *config = public()).await);
    // The connection is the other's, so its address is known to the one from identify alone.
    b.handle.connect(a.tcp().await).await.unwrap();
    let info = a.sees("identify", b.peer(), |it| it.agent.is_some()).await;
    assert!(info.protocols.iter().any(|it| it == "/ipfs/kad/1.0.0"), "{:?}", info.protocols);
    assert!(a.handle.external_addrs().await.unwrap().is_empty());
    let report = a.handle.reachability().await.unwrap();
    assert!(!report.reachable);
    assert!(report.addresses.iter().any(|it| it.state == Reachability::Local), "{report:?}");
    assert!(a.handle.known_peers().borrow().is_empty());
    let error = a.handle.bootstrap().await.unwrap_err();
    assert!(matches!(error, SwarmError::NoPeers { .. }), "{error}");
    b.handle.bootstrap().await.unwrap_err();
}

#[test]
fn a_bootstrap_address_without_a_peer_is_refused() {
    let mut config = SwarmConfig::for_profile(Profile::Private);
    config.bootstrap = vec!["/ip4/10.0.0.1/tcp/4101".parse().unwrap()];
    let error = config.check().unwrap_err();
    assert!(error.to_string().contains("/p2p/"), "{error}");
}

#[test]
fn every_profile_has_a_valid_default() {
    for profile in [Profile::Public, Profile::Lan, Profile::Private, Profile::Test] {
        let config = SwarmConfig::for_profile(profile);
        config.check().unwrap();
        assert_eq!(config.bootstrap.len(), if profile == Profile::Public { 5 } else { 0 });
        assert!(config.listen.len() >= 2);
        assert_eq!(config.kad_protocol().unwrap().as_ref() == "/ipfs/kad/1.0.0", profile == Profile::Public);
    }
}
