//! Heads that are not what they say: rows 18 and 19.

use dagmesh::{
    Api, ErrorKind,
    api::ProgressSink,
    dag::{FeedName, SignedHead},
    types::{Event, FollowRequest, HeadRequest},
};
use dagmesh_announce::{Announcement, Answer as Verdict, topic};
use dagmesh_core::cbor;
use dagmesh_tests::{
    hostile::{Hostile, dag::Feed, script},
    peer::Peer,
};
use ipld_core::ipld::Ipld;
use libp2p::identity::Keypair;

use crate::scene::{announce, failed};

/// The bytes of a head in which one field is another one's.
fn patched(head: &SignedHead, field: &str, from: &SignedHead) -> Vec<u8> {
    let fields = |head: &SignedHead| match cbor::from_slice(head.encode()) {
        Ok(Ipld::Map(fields)) => fields,
        other => panic!("{other:?}"),
    };
    let mut forged = fields(head);
    forged.insert(field.to_owned(), fields(from)[field].clone());
    cbor::to_vec(&Ipld::Map(forged)).expect("encodes")
}

/// An announcement with this in the place of the head.
fn announcement(feed: &Feed, head: &[u8], hostile: &Hostile) -> Vec<u8> {
    let mut announcement = Announcement::new(&feed.head(), [hostile.addr()]);
    announcement.extra = head.to_vec();
    announcement.encode().expect("an announcement")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_18_a_head_signed_by_another_key_is_rejected_however_it_comes() {
    let (hostile, follower) = tokio::join!(Hostile::start(), Peer::start());
    let mut events = follower.events().await;
    let mut feed = Feed::new(hostile.key());
    let right = feed.publish_text("content");
    // The same entry under another key; and with the publisher's key, signed by another one.
    let other = Feed::new(&Keypair::generate_ed25519()).sign(*right.head(), 9);
    let forged = patched(&feed.sign(*right.head(), 9), "sig", &other);
    hostile.serve(&feed.store());
    follower.follow(FollowRequest::new(hostile.target()), ProgressSink::none()).await.expect("followed");

    for (head, why) in [(other.encode().to_vec(), "not asked for"), (forged.clone(), "signature")] {
        let told = vec![head];
        hostile.answer_heads(move |_| script::heads(&told));
        let ask = HeadRequest { target: Some(hostile.target()), feed: None };
        let error = follower.head(ask).await.expect_err("a head that is not its publisher's");
        assert_eq!(error.kind, ErrorKind::NoPeers);
        assert!(error.to_string().contains(why), "{why:?} expected in {error}");
    }
    hostile.connect_to(&follower).await;
    for (head, why) in [(other.encode().to_vec(), "signed by"), (forged, "signature")] {
        let message = announcement(&feed, &head, &hostile);
        match hostile.announce(follower.peer_id(), &message).await {
            Some(Verdict::Refused(reason)) => assert!(reason.contains(why), "{why:?} expected in {reason}"),
            answer => panic!("{answer:?}"),
        }
        hostile.gossip(&topic::heads("test"), message).await;
    }
    // The right one, told on the same ways after all the others, is the first that moves anything.
    hostile.tell(&[&right]);
    assert_eq!(announce(&hostile, &follower, &right).await, Some(Verdict::Accepted));
    follower.in_sync_at(hostile.peer_id(), 1).await;
    events.finished(*right.head()).await;
    let heads: Vec<_> = events.seen.iter().filter_map(seq_of_head).collect();
    assert_eq!(heads, [1], "no head but the publisher's was taken");
    assert_eq!(hostile.exchanges()[0].asked().roots(), [*right.head()], "nothing was fetched before it");
}

fn seq_of_head(event: &Event) -> Option<u64> {
    match event {
        Event::HeadAnnounced { seq, .. } => Some(*seq),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_19_a_head_rolled_back_or_replayed_moves_nothing() {
    let (hostile, follower) = tokio::join!(Hostile::start(), Peer::start());
    let mut events = follower.events().await;
    let mut feed = Feed::new(hostile.key());
    let first = feed.publish_text("first");
    feed.publish_text("second");
    let third = feed.publish_text("third");
    hostile.serve(&feed.store());
    hostile.tell(&[&third]);
    follower.follow_wait(FollowRequest::new(hostile.target())).await;
    let asked = hostile.exchanges().len();

    // As the answer to a question, as an announcement, replayed, and by gossip.
    hostile.tell(&[&first]);
    let told = follower.head(HeadRequest { target: Some(hostile.target()), feed: None }).await.expect("a head");
    assert_eq!(told.seq, 1, "whoever asks is told what the peer says");
    for head in [&first, &first, &third, &first] {
        let answer = announce(&hostile, &follower, head).await;
        assert!(matches!(answer, Some(Verdict::Ignored(_) | Verdict::Accepted)), "{answer:?}");
    }
    let message = Announcement::new(&first, [hostile.addr()]).encode().expect("an announcement");
    hostile.gossip(&topic::heads("test"), message).await;

    events.until("the end of the sync", |event| matches!(event, Event::SyncFinished { .. })).await;
    assert_eq!(events.latest(), [1, 2, 3]);

    // After a restart too, whose first question is answered with the old one.
    follower.shutdown().await.expect("stopped");
    let follower = follower.again().await;
    hostile.connect_to(&follower).await;
    let answer = announce(&hostile, &follower, &first).await;
    assert!(matches!(answer, Some(Verdict::Ignored(_))), "{answer:?}");
    let follow = follower.in_sync_at(hostile.peer_id(), 3).await;
    assert_eq!((follow.latest, follow.announced_seq), (Some(*third.head()), Some(3)));
    assert_eq!(hostile.exchanges().len(), asked, "nothing was fetched for it");
    let fourth = feed.publish_text("fourth");
    hostile.tell(&[&fourth]);
    announce(&hostile, &follower, &fourth).await;
    follower.in_sync_at(hostile.peer_id(), 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_19_two_heads_of_one_number_are_told_and_the_first_one_is_kept() {
    let (hostile, follower) = tokio::join!(Hostile::start(), Peer::start());
    let mut events = follower.events().await;
    let mut feed = Feed::new(hostile.key());
    feed.publish_text("common");
    let mut fork = feed.clone();
    let (known, other) = (feed.publish_text("one thing"), fork.publish_text("another thing"));
    hostile.serve(&feed.store());
    hostile.tell(&[&known]);
    follower.follow_wait(FollowRequest::new(hostile.target())).await;

    hostile.tell(&[&other]);
    match announce(&hostile, &follower, &other).await {
        Some(Verdict::Refused(reason)) => assert!(reason.contains(&known.head().to_string()), "{reason}"),
        answer => panic!("{answer:?}"),
    }
    let told = events.until("an equivocation", |event| matches!(event, Event::Equivocation { .. })).await;
    let (publisher, feed_name) = (hostile.peer_id(), FeedName::default());
    let heads = vec![*known.head(), *other.head()];
    let expected = Event::Equivocation { publisher, feed: feed_name, seq: 2, heads };
    assert_eq!(told, expected, "with both heads");
    let follow = follower.in_sync_at(hostile.peer_id(), 2).await;
    assert_eq!(follow.latest, Some(*known.head()), "the old one is kept");
    assert!(!follower.holds(other.head()), "and the other one is not even fetched");

    // Whatever follows on the branch that is kept is taken; what follows on the other one is not its history.
    let next = fork.publish_text("the other branch goes on");
    hostile.tell(&[&next]);
    announce(&hostile, &follower, &next).await;
    let follow = failed(&follower, hostile.peer_id(), &FeedName::default()).await;
    assert_eq!(follow.latest, Some(*known.head()));
    assert!(follow.reason.is_some_and(|reason| reason.contains("does not lead back")));
}
