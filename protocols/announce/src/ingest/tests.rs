use dagmesh_dag::{Block, Codec};
use libp2p_identity::Keypair;

use super::*;
use crate::Publishers;

fn now() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    Instant::now()
}

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

fn head(text: &str) -> Cid {
    *Block::new(Codec::DagJson, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block").cid()
}

fn addr(text: &str) -> Multiaddr {
    text.parse().expect("an address")
}

fn validator(only_reachable: bool) -> IngestValidator {
    IngestValidator::new(ValidatorConfig { own: peer(), publishers: Publishers::Any, only_reachable })
}

fn bare(text: &str, addrs: &[Multiaddr]) -> Announcement {
    Announcement::bare(head(text), addrs.to_vec())
}

fn gossip(to: &mut IngestValidator, author: PeerId, message: &Announcement) -> Result<Ingested, IngestVerdict> {
    to.gossip(now(), &Origin::gossip(peer(), Some(author)), &message.encode().expect("encodes"))
}

#[test]
fn what_its_author_says_of_itself_is_the_publishers_own_word_and_of_another_it_is_not() {
    let (mut validator, publisher, relay) = (validator(false), peer(), peer());
    let own = gossip(&mut validator, publisher, &bare("a", &[addr("/ip4/127.0.0.1/tcp/1/http")])).expect("taken");
    assert_eq!((own.publisher, own.head, own.by_publisher), (publisher, head("a"), true));
    assert_eq!(own.addrs, [addr("/ip4/127.0.0.1/tcp/1/http")]);
    let relayed = gossip(&mut validator, relay, &bare("b", &[]).relayed(publisher)).expect("taken");
    assert_eq!((relayed.publisher, relayed.by_publisher), (publisher, false));
    // Somebody who was first with it does not keep the publisher from being believed.
    assert!(gossip(&mut validator, publisher, &bare("b", &[])).expect("taken").by_publisher);
}

#[test]
fn what_was_said_a_moment_ago_what_is_our_own_and_what_is_not_wanted_is_ignored() {
    let (mut validator, publisher) = (validator(false), peer());
    gossip(&mut validator, publisher, &bare("a", &[])).expect("taken");
    let again = gossip(&mut validator, publisher, &bare("a", &[addr("/ip4/127.0.0.1/tcp/1")]));
    assert_eq!(again, Err(Ignored::Duplicate.into()));
    let own = validator.config.own;
    assert_eq!(gossip(&mut validator, peer(), &bare("b", &[]).relayed(own)), Err(Ignored::Own.into()));
    validator.config.publishers = Publishers::Except([publisher].into());
    let refused = gossip(&mut validator, publisher, &bare("c", &[]));
    assert_eq!(refused, Err(Ignored::NotAllowed { publisher }.into()));
}

#[test]
fn garbage_and_messages_of_nobody_are_rejected() {
    let mut validator = validator(false);
    let garbage = validator.gossip(now(), &Origin::gossip(peer(), Some(peer())), b"garbage");
    assert!(matches!(garbage, Err(IngestVerdict::Reject(Refused::Bad(_)))), "{garbage:?}");
    let nobody = validator.gossip(now(), &Origin::gossip(peer(), None), &bare("a", &[]).encode().expect("encodes"));
    assert_eq!(nobody, Err(Refused::NoAuthor.into()));
}

#[test]
fn addresses_of_others_and_private_ones_on_the_public_mesh_are_left_out() {
    let (publisher, other) = (peer(), peer());
    let addrs = [
        addr("/ip4/127.0.0.1/tcp/1/http"),
        addr("/ip4/8.8.8.8/tcp/1/http"),
        addr(&format!("/ip4/8.8.4.4/tcp/1/p2p/{other}")),
    ];
    let taken = gossip(&mut validator(true), publisher, &bare("a", &addrs)).expect("taken");
    assert_eq!(taken.addrs, addrs[1..2]);
    let taken = gossip(&mut validator(false), publisher, &bare("a", &addrs)).expect("taken");
    assert_eq!(taken.addrs, addrs[..2]);
}

#[test]
fn over_http_every_address_names_the_publisher_and_all_the_same() {
    let (publisher, other) = (peer(), peer());
    let with = |peer: PeerId| addr(&format!("/ip4/127.0.0.1/tcp/1/http/p2p/{peer}"));
    let taken = validator(false).http(now(), None, bare("a", &[with(publisher), with(publisher)])).expect("taken");
    assert_eq!((taken.publisher, taken.by_publisher, taken.addrs.len()), (publisher, false, 2));
    let itself = validator(false).http(now(), Some(publisher), bare("a", &[with(publisher)])).expect("taken");
    assert!(itself.by_publisher);
    for (addrs, at) in [
        (vec![], 0),
        (vec![with(publisher), with(other)], 1),
        (vec![with(publisher), addr("/ip4/127.0.0.1/tcp/1/http")], 1),
    ] {
        let refused = validator(false).http(now(), None, bare("a", &addrs));
        assert_eq!(refused, Err(AnnounceError::NoPublisher { index: at }.into()));
    }
}

#[test]
fn a_neighbour_and_an_author_have_a_rate_and_all_of_plain_http_share_one() {
    let mut validator = validator(false);
    let (neighbour, at) = (peer(), now());
    let mut taken = 0;
    for n in 0..10_000 {
        let message = bare(&n.to_string(), &[]).encode().expect("encodes");
        taken += u32::from(validator.gossip(at, &Origin::gossip(neighbour, Some(peer())), &message).is_ok());
    }
    assert_eq!(taken, limits::ANNOUNCEMENT_RELAY_FACTOR * limits::ANNOUNCEMENT_BURST);
    let publisher = peer();
    let addrs = [addr(&format!("/ip4/127.0.0.1/tcp/1/http/p2p/{publisher}"))];
    let http = (0..10_000).filter(|n| validator.http(at, None, bare(&format!("http {n}"), &addrs)).is_ok()).count();
    assert_eq!(http, (limits::ANNOUNCEMENT_RELAY_FACTOR * limits::ANNOUNCEMENT_BURST) as usize);
    assert!(validator.seen.len() <= limits::MAX_SEEN_ANNOUNCEMENTS);
}
