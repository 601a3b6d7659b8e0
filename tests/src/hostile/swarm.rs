//! The Swarm under a hostile node: what ours has, without its rules.

use std::{collections::HashMap, net::Ipv4Addr, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, gossipsub, identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    multiaddr::Protocol,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent, dial_opts::DialOpts},
    tcp, tls, yamux,
};
use tokio::sync::{mpsc, oneshot};

use crate::peer::SOON;

/// The network of the profile `test`.
const NETWORK: &str = "test";

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) streams: libp2p_stream::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    gossip: gossipsub::Behaviour,
}

/// What a swarm is told to do.
pub(super) enum Command {
    Dial { addr: Multiaddr, reply: oneshot::Sender<Result<PeerId, String>> },
    Disconnect(PeerId),
    Provide { key: Vec<u8>, reply: oneshot::Sender<()> },
    Gossip { topic: String, message: Vec<u8>, reply: oneshot::Sender<bool> },
}

pub(super) type Commands = mpsc::Sender<Command>;

pub(super) fn commands() -> (Commands, mpsc::Receiver<Command>) {
    mpsc::channel(16)
}

/// A swarm that listens on loopback, and where.
pub(super) async fn start(key: &Keypair) -> (Swarm<Behaviour>, Multiaddr) {
    let transports = (tls::Config::new, noise::Config::new);
    let mut swarm = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), transports, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(behaviour)
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    let addr = listen(&mut swarm).await;
    swarm.add_external_address(addr.clone());
    let peer = *swarm.local_peer_id();
    (swarm, addr.with(Protocol::P2p(peer)))
}

/// Has a swarm listen on a free port of loopback; where.
pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    listen_at(swarm, Ipv4Addr::LOCALHOST).await
}

/// The same at another address of loopback.
pub(super) async fn listen_at<B: NetworkBehaviour>(swarm: &mut Swarm<B>, ip: Ipv4Addr) -> Multiaddr {
    swarm.listen_on(Multiaddr::from(ip).with(Protocol::Tcp(0))).expect("a listener");
    let listening = async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    };
    tokio::time::timeout(SOON, listening).await.expect("an address in time")
}

fn behaviour(key: &Keypair) -> Behaviour {
    let peer = key.public().to_peer_id();
    let kad_config = kad::Config::new(StreamProtocol::new("/dagmesh/test/kad/1.0.0"));
    let mut kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), kad_config);
    kad.set_mode(Some(kad::Mode::Server));
    let identify = identify::Config::new(format!("/dagmesh/{NETWORK}/1.0.0"), key.public());
    let author = gossipsub::MessageAuthenticity::Signed(key.clone());
    Behaviour {
        streams: libp2p_stream::Behaviour::new(),
        ping: ping::Behaviour::default(),
        identify: identify::Behaviour::new(identify),
        kad,
        gossip: gossipsub::Behaviour::new(author, gossipsub::Config::default()).expect("a behaviour"),
    }
}

/// Runs the swarm until nobody can tell it anything any more.
pub(super) async fn run(swarm: &mut Swarm<Behaviour>, mut commands: mpsc::Receiver<Command>) {
    let mut dials: HashMap<libp2p::swarm::ConnectionId, oneshot::Sender<Result<PeerId, String>>> = HashMap::new();
    let mut provided: HashMap<kad::QueryId, oneshot::Sender<()>> = HashMap::new();
    loop {
        let event = tokio::select! {
            command = commands.recv() => {
                let Some(command) = command else { return };
                match command {
                    Command::Dial { addr, reply } => {
                        let dial = DialOpts::unknown_peer_id().address(addr).build();
                        let connection = dial.connection_id();
                        match swarm.dial(dial) {
                            Ok(()) => drop(dials.insert(connection, reply)),
                            Err(error) => drop(reply.send(Err(error.to_string()))),
                        }
                    }
                    Command::Disconnect(peer) => drop(swarm.disconnect_peer_id(peer)),
                    Command::Provide { key, reply } => {
                        let query = swarm.behaviour_mut().kad.start_providing(key.into()).expect("room for a record");
                        provided.insert(query, reply);
                    }
                    Command::Gossip { topic, message, reply } => {
                        let topic = gossipsub::IdentTopic::new(topic);
                        let _already = swarm.behaviour_mut().gossip.subscribe(&topic);
                        let _ = reply.send(swarm.behaviour_mut().gossip.publish(topic, message).is_ok());
                    }
                }
                continue;
            }
            event = swarm.select_next_some() => event,
        };
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                if let Some(reply) = dials.remove(&connection_id) {
                    let _ = reply.send(Ok(peer_id));
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(reply) = dials.remove(&connection_id) {
                    let _ = reply.send(Err(error.to_string()));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                for addr in info.listen_addrs {
                    swarm.behaviour_mut().kad.add_address(&peer_id, addr);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, step, .. })) => {
                if step.last
                    && let Some(reply) = provided.remove(&id)
                {
                    let _ = reply.send(());
                }
            }
            _ => {}
        }
    }
}
