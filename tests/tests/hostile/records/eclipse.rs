//! Row 27: twenty identities near a key, all in one network.

use std::{net::Ipv4Addr, sync::Arc};

use dagmesh::{
    Api,
    api::ProgressSink,
    config::Diversity,
    dag::HashCode,
    store::Store,
    ticket::Target,
    types::{FollowRequest, RecordPut},
};
use dagmesh_core::limits;
use dagmesh_records::{RecordName, record_key};
use dagmesh_tests::{
    hostile::{
        Hostile,
        kad::{Ring, near},
        record::{Writer, forged},
    },
    peer::{Peer, PeerOptions, SOON},
    wait_for, wait_for_some,
};
use futures::future::join_all;
use libp2p::{PeerId, identity::Keypair};

use super::connect;

/// As many nodes as Kademlia replicates to, so that none of those that end a lookup need be honest.
const HOSTILE: usize = 20;
const HONEST: u8 = 8;
/// How near: nearer than any honest node is likely to be.
const BITS: u32 = 8;

/// In a network of its own, and relying on few of any network in the DHT.
fn at(network: u8) -> PeerOptions {
    let at = Some(Ipv4Addr::new(127, 0, network, 1));
    PeerOptions { at, diversity: Diversity::All, ..PeerOptions::default() }
}

/// Honest nodes, each in a network of its own, and a ring around a key that all of them have met.
struct Eclipse {
    honest: Vec<Peer>,
    ring: Ring,
}

impl Eclipse {
    async fn of(key: &[u8], garbage: &[u8]) -> Self {
        let start = |n: u8| Peer::with(at(10 + n));
        let honest = join_all((0..HONEST).map(start)).await;
        for (n, peer) in honest.iter().enumerate() {
            for other in &honest[..n] {
                connect(peer, other.tcp_addr().await).await;
            }
        }
        let pairs = (0..HOSTILE).map(|_| near(key, BITS)).collect();
        let ring = Ring::start(Ipv4Addr::new(127, 0, 99, 1), pairs, garbage).await;
        for peer in &honest {
            ring.connect(&peer.tcp_addr().await).await;
        }
        let this = Self { honest, ring };
        for peer in &this.honest {
            let met = async || {
                let peers = peer.peers().await.expect("peers");
                let known = |id: &PeerId| peers.iter().any(|info| info.peer_id == *id && info.agent.is_some());
                this.ring.peers().iter().all(known)
                    && this.honest.iter().all(|it| it.peer_id() == peer.peer_id() || known(&it.peer_id()))
            };
            wait_for(SOON, "nodes that have met all others", met).await;
        }
        this
    }

    /// Every node has most honest ones in its table, and no more of the ring than of any network.
    async fn assert_table(&self, key: &[u8]) {
        let (asker, ring) = (Hostile::start().await, self.ring.peers());
        for peer in &self.honest {
            asker.connect_to(peer).await;
            let mut line = asker.kad(peer.peer_id()).await.expect("a stream");
            let told = wait_for_some(SOON, "a table of honest nodes", async || {
                let told = line.closest(key).await.expect("an answer");
                (told.iter().filter(|id| !ring.contains(id)).count() > usize::from(HONEST) / 2).then_some(told)
            })
            .await;
            let of_ring = told.iter().filter(|id| ring.contains(id)).count();
            assert!(of_ring <= limits::MAX_DHT_GROUP_IN_TABLE, "{of_ring} of {}", told.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_27_twenty_identities_near_a_record_that_swallow_it_do_not_hide_it() {
    let writer = Writer::default();
    let key = record_key(&writer.key.public(), &RecordName::new("name").expect("a name"));
    let eclipse = Eclipse::of(&key, &forged(writer.record("name", 9, b"forged").encode())).await;
    eclipse.assert_table(&key).await;
    let (owner, others) = eclipse.honest.split_first().expect("nodes");
    let done = owner.records().put_as(writer.key.clone(), RecordPut::new("name", "value")).await.expect("is put");
    let swallowed = eclipse.ring.peers().iter().filter(|peer| done.holders.contains(peer)).count();
    assert!(swallowed > 0 && eclipse.ring.swallowed() >= swallowed, "the ring takes what it gets: {swallowed}");
    assert!(swallowed <= limits::MAX_DHT_GROUP_PER_QUERY + limits::MAX_DHT_GROUP_IN_TABLE, "{swallowed}");
    assert_eq!(done.holders.len() - swallowed, others.len(), "all honest nodes hold it");
    // Its owner has it in any case: what counts is that it is found without.
    owner.shutdown().await.expect("stops");
    let (reader, holders) = others.split_last().expect("nodes");
    let fresh = Peer::with(at(50)).await;
    // The newcomer knows one honest node, and the ring.
    connect(&fresh, reader.tcp_addr().await).await;
    eclipse.ring.connect(&fresh.tcp_addr().await).await;
    let public = writer.key.public();
    for node in [reader, &fresh] {
        let found = wait_for_some(SOON, "a record amid a ring", async || {
            let found = node.records().get(&public, "name").await.ok()?;
            (found.answers.holders >= holders.len() / 2).then_some(found)
        })
        .await;
        assert_eq!(found.value, b"value");
    }
    // A plain peer may have been deceived: nobody is banned for what it hands on.
    fresh.shutdown().await.expect("stops");
    let home: Arc<_> = fresh.into_home();
    let store =
        wait_for_some(SOON, "a store that nobody uses", async || Store::open(home.path().join("store")).ok()).await;
    assert_eq!(store.kept_records().expect("rows").bans, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_27_twenty_identities_near_a_feed_and_near_its_publisher_do_not_keep_followers_from_it() {
    let publisher = Keypair::generate_ed25519();
    let id = publisher.public().to_peer_id();
    let feed = [b"dagmesh feed\0".as_slice(), &id.to_bytes(), b"main"].concat();
    let feed = HashCode::Sha2_256.digest(&feed).expect("a hash").to_bytes();
    for key in [id.to_bytes(), feed] {
        let eclipse = Eclipse::of(&key, b"junk").await;
        eclipse.assert_table(&key).await;
        let publisher = Peer::with(PeerOptions { key: Some(publisher.clone()), ..at(51) }).await;
        connect(&publisher, eclipse.honest[0].tcp_addr().await).await;
        publisher.publish_text("amid a ring").await;
        // One that knows its id alone, and then, when it has gone, another one.
        let target: Target = id.to_string().parse().expect("a target");
        let mirror = &eclipse.honest[3];
        mirror.follow(FollowRequest::new(target.clone()), ProgressSink::none()).await.expect("followed");
        mirror.in_sync_at(id, 1).await;
        publisher.shutdown().await.expect("stops");
        let late = &eclipse.honest[6];
        late.follow(FollowRequest::new(target), ProgressSink::none()).await.expect("followed");
        late.in_sync_at(id, 1).await;
    }
}
