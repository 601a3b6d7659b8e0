//! Announcements that reach a node directly, from whomever.

use std::time::Instant;

use dagmesh::{
    Api,
    api::ProgressSink,
    dag::SignedHead,
    dagsync::{head::HeadQuery, net::Client},
    swarm::{AcceptAll, Profile, RunningSwarm, SwarmConfig},
    ticket::Target,
    types::{FollowRequest, FollowState},
};
use dagmesh_announce::{Announcement, Answer, net};
use dagmesh_tests::wait_for;
use libp2p::{Multiaddr, identity::Keypair};

use crate::support::{Peer, PeerOptions, SOON};

/// A bare swarm: a peer that speaks the protocols and is no node.
async fn stranger() -> RunningSwarm {
    let mut config = SwarmConfig::for_profile(Profile::Test);
    // In no DHT that a node is in, so that it leads nobody anywhere but by what it announces.
    config.network = "strangers".to_owned();
    dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await.expect("a swarm")
}

/// The head that `publisher` gives to whoever asks.
async fn head_of(publisher: &Peer) -> SignedHead {
    let stranger = stranger().await.handle;
    stranger.connect(publisher.tcp_addr().await).await.expect("connected");
    let query = HeadQuery { publisher: None, feed: None };
    let heads = Client::new(stranger.streams()).heads(publisher.peer_id(), &query).await.expect("heads");
    stranger.shutdown().await.expect("stopped");
    heads.into_iter().next().expect("a head")
}

/// Announces a head to `follower` directly, as a peer of its own.
async fn announce_directly(follower: &Peer, head: &SignedHead, addrs: Vec<Multiaddr>) -> Answer {
    let stranger = stranger().await.handle;
    stranger.connect(follower.tcp_addr().await).await.expect("connected");
    let announcement = Announcement::new(head, addrs);
    let answer = net::announce_to(&mut stranger.streams(), follower.peer_id(), &announcement).await.expect("an answer");
    stranger.shutdown().await.expect("stopped");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publishers_address_is_learnt_from_an_announcement() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    let published = publisher.publish_text("found").await;
    let request = FollowRequest::new(Target::Peer(publisher.peer_id()));
    follower.follow(request, ProgressSink::none()).await.expect("followed");
    wait_for(SOON, "a reason why it waits", async || {
        let follow = follower.standing(publisher.peer_id()).await.expect("a follow");
        assert_eq!(follow.state, FollowState::Waiting, "nobody can know where the publisher is");
        follow.reason.is_some_and(|reason| reason.contains("next try"))
    })
    .await;

    let head = head_of(&publisher).await;
    let addrs = publisher.addrs().await.expect("addresses");
    assert_eq!(announce_directly(&follower, &head, addrs).await, Answer::Accepted);
    let follow = follower.in_sync_at(publisher.peer_id(), 1).await;
    assert_eq!(follow.latest, Some(published.head));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_announcement_starts_a_sync_where_no_gossip_reaches() {
    // In another network, so that the follower hears none of its gossip.
    let publisher = Peer::with(PeerOptions { network: Some("elsewhere"), ..PeerOptions::default() });
    let (publisher, follower) = tokio::join!(publisher, Peer::start());
    publisher.publish_text("one").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let mut events = follower.events().await;

    let second = publisher.publish_text("two").await;
    assert_eq!(second.peers, 0, "nobody listens to its gossip");
    let began = Instant::now();
    let head = head_of(&publisher).await;
    assert_eq!(announce_directly(&follower, &head, Vec::new()).await, Answer::Accepted);
    let (count, blocks, ..) = events.finished(second.head).await;
    assert_eq!((count, blocks), (1, 2));
    assert!(began.elapsed() < SOON, "and not at the next time it asks by itself");
    // Told again, it starts nothing.
    announce_directly(&follower, &head, Vec::new()).await;
    let third = publisher.publish_text("three").await;
    announce_directly(&follower, &head_of(&publisher).await, Vec::new()).await;
    events.finished(third.head).await;
    assert_eq!(events.started(), [second.head, third.head]);
}
