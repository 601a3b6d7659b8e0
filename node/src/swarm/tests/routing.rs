//! Who gets into the routing table. Loopback has many networks: 127.0.1.0/24 is one.

use libp2p::kad::KBucketKey;

use super::*;

/// A node that takes so many of each network.
async fn hub() -> Node {
    Node::with(|config| config.dht_diversity = Diversity::All).await
}

/// A node of this network whose place is in the hub's furthest bucket, connected with the hub and known to it.
async fn neighbour(hub: &Node, network: u8) -> Node {
    let place = KBucketKey::from(hub.peer());
    let far = |key: &Keypair| place.distance(&KBucketKey::from(key.public().to_peer_id())).ilog2() == Some(255);
    let key = std::iter::repeat_with(Keypair::generate_ed25519).find(far).unwrap();
    let listen = vec![format!("/ip4/127.0.{network}.1/tcp/0").parse().unwrap()];
    let node = Node::launch(key, |config| config.listen = listen, Box::new(AcceptAll)).await;
    hub.reach(&node).await;
    node
}

impl Node {
    /// Connects with another node, anew, and knows who is there.
    async fn reach(&self, other: &Node) {
        self.handle.disconnect(other.peer()).await.unwrap();
        until("end of a connection", async || {
            (!self.handle.peers().await.unwrap().iter().any(|it| it.peer == other.peer())).then_some(())
        })
        .await;
        self.handle.connect(other.tcp().await).await.unwrap();
        self.sees("an identified peer", other.peer(), |it| it.agent.is_some()).await;
    }

    /// Who is in the table: none of them knows another one.
    async fn table(&self) -> Vec<PeerId> {
        let mut peers = self.handle.closest_peers(b"anything".to_vec(), 64).await.unwrap();
        peers.sort();
        peers
    }
}

fn sorted(nodes: &[&Node]) -> Vec<PeerId> {
    let mut peers: Vec<_> = nodes.iter().map(|node| node.peer()).collect();
    peers.sort();
    peers
}

#[tokio::test]
async fn a_bucket_takes_two_peers_of_a_network_until_one_of_them_is_gone() {
    let hub = hub().await;
    let (first, second) = (neighbour(&hub, 1).await, neighbour(&hub, 1).await);
    let (third, other) = (neighbour(&hub, 1).await, neighbour(&hub, 2).await);
    assert_eq!(hub.table().await, sorted(&[&first, &second, &other]));
    // While the two live, the third does not get in by coming again.
    hub.reach(&third).await;
    assert_eq!(hub.table().await, sorted(&[&first, &second, &other]));
    first.handle.shutdown().await.unwrap();
    until("a place that is free", async || {
        hub.reach(&third).await;
        (hub.table().await == sorted(&[&second, &third, &other])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_is_not_seen_where_it_says_that_it_listens_is_not_told_to_others() {
    for (diversity, taken) in [(Diversity::All, false), (Diversity::Off, true)] {
        let hub = Node::with(|config| config.dht_diversity = diversity).await;
        let elsewhere = Node::with(|config| {
            config.listen.clear();
            config.external = vec!["/ip4/127.0.77.1/tcp/9".parse().unwrap()];
        })
        .await;
        elsewhere.handle.connect(hub.tcp().await).await.unwrap();
        hub.sees("an identified peer", elsewhere.peer(), |it| it.agent.is_some()).await;
        assert_eq!(!hub.table().await.is_empty(), taken, "{diversity:?}");
        if !taken {
            // Who comes from elsewhere, but is there when it is dialled, gets in.
            let there = Node::with(|config| config.listen = vec!["/ip4/127.0.5.1/tcp/0".parse().unwrap()]).await;
            there.handle.connect(hub.tcp().await).await.unwrap();
            until("a peer that was reached", async || (hub.table().await == [there.peer()]).then_some(())).await;
        }
    }
}
