//! Announcements: what a head that is heard of sets off.

use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    dag::FeedName,
    store::Store,
    ticket::Target,
    types::{AnnounceRequest, ConnectRequest, Event, FollowRequest, FollowState, SyncRequest},
};
use dagmesh_announce::{Announcement, Answer};
use dagmesh_tests::wait_for;
use libp2p::Multiaddr;

use super::Gate;
use crate::{
    learn::{announce, head_of},
    support::{Peer, PeerOptions, SOON},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announce_replace() {
    let gate = Gate::default();
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::hooked(gate.hook()));
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;

    let mut events = follower.events().await;
    gate.set_closed(true);
    let first = publisher.publish_text("1").await;
    wait_for(SOON, "a sync that is held up", async || gate.waiting() > 0).await;
    let last = publisher.publish_many(5, "more").await;
    let newest = |event: &Event| matches!(event, Event::HeadAnnounced { head, .. } if *head == last.head);
    events.until("the newest announcement", newest).await;
    gate.set_closed(false);
    let (count, blocks, ..) = events.finished(last.head).await;

    assert_eq!(events.started(), [first.head, last.head], "what waited between them was never synced by itself");
    assert_eq!((count, blocks), (5, 10), "and nothing of it is left out");
    assert_eq!(events.latest(), [2, 3, 4, 5, 6, 7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announce_republish() {
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
        let request = AnnounceRequest { to, ..AnnounceRequest::new(published.head) };
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
async fn allow_peer_reject() {
    let (allowed, refused) = tokio::join!(Peer::start(), Peer::start());
    let publisher = Peer::with(PeerOptions { allow: vec![allowed.peer_id()], ..PeerOptions::default() }).await;
    let published = publisher.publish_text("for some").await;
    // Whom the publisher does not allow is not served.
    let request = SyncRequest { head: Some(published.head), ..SyncRequest::new(publisher.target().await) };
    let error = refused.sync(request, ProgressSink::none()).await.expect_err("it is not on the list");
    assert_eq!(error.kind, ErrorKind::Unauthorised, "{error}");
    assert!(!refused.holds(&published.head));

    // Of whom a follower does not follow, no announcement sets off anything: another one that it follows comes through.
    let followed = Peer::start().await;
    followed.publish_text("0").await;
    allowed.follow_wait(FollowRequest::new(followed.target().await)).await;
    let mut events = allowed.events().await;
    let other = Peer::start().await;
    let unheard = other.publish_text("unheard of").await;
    let announcement = Announcement::new(&head_of(&other).await, other.addrs().await.expect("addresses"));
    announce(&allowed, &announcement.relayed(other.peer_id())).await;
    let wanted = followed.publish_text("1").await;
    events.finished(wanted.head).await;
    assert_eq!(events.started(), [wanted.head]);
    assert!(!allowed.holds(&unheard.head));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allow_peer_accept() {
    let allowed = Peer::start().await;
    let publisher = Peer::with(PeerOptions { allow: vec![allowed.peer_id()], ..PeerOptions::default() }).await;
    let published = publisher.publish_text("for some").await;
    let request = SyncRequest { head: Some(published.head), ..SyncRequest::new(publisher.target().await) };
    let synced = allowed.sync(request, ProgressSink::none()).await.expect("synced");
    assert_eq!((synced.entries, synced.blocks), (1, 2));

    allowed.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let mut events = allowed.events().await;
    let announced = publisher.publish_text("announced").await;
    assert_eq!(events.finished(announced.head).await.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learns_the_publishers_address_from_the_announcement() {
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
async fn update_of_peerstore_addresses() {
    let (publisher, follower) = tokio::join!(Peer::start(), Peer::start());
    publisher.publish_text("0").await;
    follower.follow_wait(FollowRequest::new(publisher.target().await)).await;
    let before = publisher.tcp_addr().await;
    publisher.shutdown().await.expect("stopped");
    let publisher = publisher.again().await;
    let now = publisher.tcp_addr().await;
    assert_ne!(now, before, "it listens elsewhere now");

    // Somebody else tells the follower, so that no connection with the publisher stands that could be used.
    let published = publisher.publish_text("1").await;
    let announcement = Announcement::new(&head_of(&publisher).await, publisher.addrs().await.expect("addresses"));
    announce(&follower, &announcement.relayed(publisher.peer_id())).await;
    let follow = follower.in_sync_at(publisher.peer_id(), 2).await;
    assert_eq!(follow.latest, Some(published.head));

    // It is kept, newest first, and outlives a restart.
    follower.shutdown().await.expect("stopped");
    let home = follower.into_home();
    let record = {
        let store = Store::open(home.path().join("store")).expect("a store");
        store.follow(&publisher.peer_id(), &FeedName::default()).expect("a look").expect("the follow")
    };
    let place =
        |addr: &Multiaddr| record.addrs.iter().position(|known| addr.to_string().starts_with(&known.to_string()));
    let now = place(&now).unwrap_or_else(|| panic!("{now} is not in {record:?}"));
    assert!(place(&before).is_none_or(|before| now < before), "{record:?}");
}
