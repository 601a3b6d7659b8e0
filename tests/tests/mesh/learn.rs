//! Announcements that reach a node directly, from whomever.

use dagmesh::{
    dag::SignedHead,
    dagsync::{head::HeadQuery, net::Client},
    swarm::{AcceptAll, Profile, RunningSwarm, SwarmConfig},
    types::{Event, FollowRequest},
};
use dagmesh_announce::{Announcement, Answer, net};
use libp2p::identity::Keypair;

use crate::support::{Peer, PeerOptions};

/// A bare swarm: a peer that speaks the protocols and is no node.
pub(crate) async fn stranger() -> RunningSwarm {
    let mut config = SwarmConfig::for_profile(Profile::Test);
    // In no DHT that a node is in, so that it leads nobody anywhere but by what it announces.
    config.network = "strangers".to_owned();
    dagmesh::swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await.expect("a swarm")
}

/// The head that `publisher` gives to whoever asks.
pub(crate) async fn head_of(publisher: &Peer) -> SignedHead {
    let stranger = stranger().await.handle;
    stranger.connect(publisher.tcp_addr().await).await.expect("connected");
    let query = HeadQuery { publisher: None, feed: None };
    let heads = Client::new(stranger.streams()).heads(publisher.peer_id(), &query).await.expect("heads");
    stranger.shutdown().await.expect("stopped");
    heads.into_iter().next().expect("a head")
}

/// Announces a head to `follower` as a peer of its own.
pub(crate) async fn announce(follower: &Peer, announcement: &Announcement) -> Answer {
    let stranger = stranger().await.handle;
    stranger.connect(follower.tcp_addr().await).await.expect("connected");
    let answer = net::announce_to(&mut stranger.streams(), follower.peer_id(), announcement).await.expect("an answer");
    stranger.shutdown().await.expect("stopped");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_is_told_with_both_heads_and_an_old_head_changes_nothing() {
    let key = Keypair::generate_ed25519();
    let of = |key: &Keypair| PeerOptions { key: Some(key.clone()), ..PeerOptions::default() };
    let (publisher, follower) = tokio::join!(Peer::with(of(&key)), Peer::start());
    publisher.publish_text("one").await;
    let old = head_of(&publisher).await;
    let second = publisher.publish_text("two").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;

    // The same key on another machine, which knows nothing of the first one.
    let twin = Peer::with(of(&key)).await;
    twin.publish_text("one, otherwise").await;
    let other = twin.publish_text("two, otherwise").await;
    let forked = Announcement::new(&head_of(&twin).await, Vec::new()).relayed(publisher.peer_id());
    let mut events = follower.events().await;
    announce(&follower, &Announcement::new(&old, Vec::new()).relayed(publisher.peer_id())).await;
    announce(&follower, &forked).await;
    let told = events.until("a fork", |event| matches!(event, Event::Equivocation { .. })).await;
    let Event::Equivocation { seq, heads, publisher: who, .. } = told else { unreachable!("it is one") };
    assert_eq!((who, seq, heads), (publisher.peer_id(), 2, vec![second.head, other.head]));
    assert_eq!(events.started(), [], "neither the old head nor the other one is synced");
    let follow = follower.in_sync_at(publisher.peer_id(), 2).await;
    assert_eq!(follow.latest, Some(second.head));
    assert!(!follower.holds(&other.head));
}
