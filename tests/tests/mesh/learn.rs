//! Announcements that reach a node directly, from whomever.

use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    dag::{FeedName, SignedHead},
    dagsync::{head::HeadQuery, net::Client},
    swarm::{AcceptAll, Profile, RunningSwarm, SwarmConfig},
    ticket::Target,
    types::{AnnounceRequest, ConnectRequest, Event, FollowRequest, FollowState, SyncRequest},
};
use dagmesh_announce::{Announcement, Answer, net};
use dagmesh_tests::wait_for;
use libp2p::identity::Keypair;

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

/// Announces a head to `follower` as a peer of its own.
async fn announce(follower: &Peer, announcement: &Announcement) -> Answer {
    let stranger = stranger().await.handle;
    stranger.connect(follower.tcp_addr().await).await.expect("connected");
    let answer = net::announce_to(&mut stranger.streams(), follower.peer_id(), announcement).await.expect("an answer");
    stranger.shutdown().await.expect("stopped");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publishers_address_is_learnt_from_an_announcement_that_a_stranger_relays() {
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

    let own = Announcement::new(&head_of(&publisher).await, publisher.addrs().await.expect("addresses"));
    let answer = announce(&follower, &own).await;
    assert!(matches!(answer, Answer::Refused(_)), "a stranger announces in the publisher's name: {answer:?}");
    assert_eq!(announce(&follower, &own.relayed(publisher.peer_id())).await, Answer::Accepted);
    let follow = follower.in_sync_at(publisher.peer_id(), 1).await;
    assert_eq!(follow.latest, Some(published.head));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_announcement_starts_a_sync_where_no_gossip_reaches_and_is_passed_on() {
    // In another network, so that nobody hears its gossip.
    let publisher = Peer::with(PeerOptions { network: Some("elsewhere"), ..PeerOptions::default() });
    let near = Peer::with(PeerOptions { republish: true, ..PeerOptions::default() });
    let (publisher, near, far) = tokio::join!(publisher, near, Peer::start());
    publisher.publish_text("one").await;
    for follower in [&near, &far] {
        follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    }
    far.connect(ConnectRequest { addr: near.tcp_addr().await }).await.expect("connected");
    wait_for(SOON, "two that hear each other", async || {
        near.status().await.expect("a status").topic_peers == 1
            && far.status().await.expect("a status").topic_peers == 1
    })
    .await;
    let (mut at_near, mut at_far) = (near.events().await, far.events().await);

    let mut heads = Vec::new();
    for text in ["two", "three"] {
        let published = publisher.publish_text(text).await;
        assert_eq!(published.peers, 0, "nobody listens to its gossip");
        let to = Some(Target::Peer(near.peer_id()));
        let request = AnnounceRequest { cid: published.head, feed: FeedName::default(), to };
        for _ in 0..2 {
            publisher.announce(request.clone()).await.expect("announced");
        }
        for events in [&mut at_near, &mut at_far] {
            let (count, blocks, ..) = events.finished(published.head).await;
            assert_eq!((count, blocks), (1, 2));
        }
        heads.push(published.head);
    }
    // Told twice, synced once; and the one that only heard it from the other did as well.
    assert_eq!((at_near.started(), at_far.started()), (heads.clone(), heads));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_publisher_does_not_allow_is_refused_and_whom_it_allows_is_served() {
    let (allowed, refused) = tokio::join!(Peer::start(), Peer::start());
    let publisher = Peer::with(PeerOptions { allow: vec![allowed.peer_id()], ..PeerOptions::default() }).await;
    let published = publisher.publish_text("for some").await;
    let request = SyncRequest { head: Some(published.head), ..SyncRequest::new(publisher.target().await) };
    let error = refused.sync(request.clone(), ProgressSink::none()).await.expect_err("it is not on the list");
    assert_eq!(error.kind, ErrorKind::Unauthorised, "{error}");
    assert!(!refused.holds(&published.head));
    let synced = allowed.sync(request, ProgressSink::none()).await.expect("synced");
    assert_eq!((synced.entries, synced.blocks), (1, 2));
}
