//! AutoNAT v1 with peers that know no other version: plain swarms of libp2p.

use std::time::Duration;

use futures::StreamExt;
use libp2p::autonat::{self, NatStatus};
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identify, noise, tcp, yamux};
use tokio::task::JoinHandle;

use super::*;

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Old {
    identify: identify::Behaviour,
    autonat: autonat::Behaviour,
}

/// A peer that knows AutoNAT v1 alone and listens, and where.
async fn old_peer(connected_serve: bool) -> (Swarm<Old>, Multiaddr) {
    let config = autonat::Config {
        boot_delay: Duration::from_millis(500),
        retry_interval: Duration::from_millis(500),
        throttle_server_period: Duration::ZERO,
        use_connected: connected_serve,
        only_global_ips: false,
        ..autonat::Config::default()
    };
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| Old {
            identify: identify::Behaviour::new(identify::Config::new("/old/1.0.0".to_owned(), key.public())),
            autonat: autonat::Behaviour::new(key.public().to_peer_id(), config),
        })
        .unwrap()
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let peer = *swarm.local_peer_id();
    let addr = within("an address", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return with_peer(address, peer).unwrap();
            }
        }
    })
    .await;
    (swarm, addr)
}

fn run(mut swarm: Swarm<Old>) -> JoinHandle<()> {
    tokio::spawn(async move { while swarm.next().await.is_some() {} })
}

#[tokio::test]
async fn the_word_of_two_peers_of_version_1_makes_an_address_reachable() {
    let nat = |config: &mut SwarmConfig| {
        config.autonat = true;
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    };
    let mut node = Node::with(nat).await;
    let ours = without_peer(&node.tcp().await);
    let (first, second) = (old_peer(false).await, old_peer(false).await);
    let servers = [*first.0.local_peer_id(), *second.0.local_peer_id()];
    let mut running = Vec::new();
    for (swarm, addr) in [first, second] {
        running.push(run(swarm));
        node.handle.connect(addr).await.unwrap();
    }
    let (addr, by) = node
        .event("an address that others vouch for", |event| match event {
            MeshEvent::AddressTested { addr, by, error: None } => Some((addr.clone(), *by)),
            _ => None,
        })
        .await;
    assert!(addr == ours && servers.contains(&by), "{addr} by {by}");
    assert_eq!(node.handle.external_addrs().await.unwrap().iter().map(without_peer).collect::<Vec<_>>(), [ours]);
    assert!(node.handle.reachability().await.unwrap().reachable);
    running.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_peer_of_version_1_learns_from_us_that_it_is_reachable() {
    let node = Node::with(|config| config.autonat = true).await;
    let (mut swarm, addr) = old_peer(true).await;
    swarm.dial(node.tcp().await).unwrap();
    let status = within("a status", async {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(OldEvent::Autonat(autonat::Event::StatusChanged { new, .. })) = event {
                return new;
            }
        }
    })
    .await;
    assert_eq!(status, NatStatus::Public(addr));
}
