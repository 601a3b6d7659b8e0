use dagmesh_dag::{Block, Codec};
use libp2p_identity::Keypair;
use proptest::prelude::*;

use super::*;

const UNIX_MS: u64 = 1_700_000_000_000;

fn now() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    Instant::now()
}

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

fn entry(text: &str) -> Cid {
    *Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block").cid()
}

fn head(key: &Keypair, seq: u64, text: &str) -> SignedHead {
    SignedHead::sign(key, &FeedName::default(), entry(text), seq, UNIX_MS).expect("signs")
}

/// One publisher, one neighbour, one validator.
struct Bench {
    key: Keypair,
    neighbour: PeerId,
    validator: Validator,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ValidatorConfig)) -> Self {
        let mut config = ValidatorConfig { own: peer(), publishers: Publishers::Any, only_reachable: false };
        change(&mut config);
        let validator = Validator::new(config);
        Self { key: Keypair::generate_ed25519(), neighbour: peer(), validator, now: now() }
    }

    fn publisher(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    fn gossip(&mut self, announcement: &Announcement, author: Option<PeerId>) -> Verdict {
        let bytes = announcement.encode().expect("encodes");
        self.validator.check(self.now, UNIX_MS, &Origin::gossip(self.neighbour, author), &bytes)
    }

    /// The publisher's own gossip message.
    fn announce(&mut self, head: &SignedHead) -> Verdict {
        self.gossip(&Announcement::new(head, []), Some(head.publisher()))
    }

    fn later(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }
}

fn accepted(verdict: Verdict) -> VerifiedAnnouncement {
    match verdict {
        Verdict::Accept(verified) => *verified,
        other => panic!("not accepted: {other:?}"),
    }
}

#[test]
fn a_signed_head_of_its_publisher_is_accepted() {
    let mut bench = Bench::new();
    let head = head(&bench.key, 1, "one");
    let addr: Multiaddr = "/ip4/10.0.0.7/tcp/4101".parse().expect("an address");
    let verdict = bench.gossip(&Announcement::new(&head, [addr.clone()]), Some(bench.publisher()));
    assert_eq!(verdict.acceptance(), Acceptance::Accept);
    let expected = VerifiedAnnouncement { head: head.clone(), addrs: vec![addr], relay: None, news: true };
    assert_eq!(accepted(verdict), expected);
    assert_eq!(bench.validator.known(bench.publisher(), head.feed()), Some(&head));
}

#[test]
fn bytes_that_are_no_announcement_are_rejected() {
    let mut bench = Bench::new();
    let origin = Origin::direct(bench.neighbour);
    let verdict = bench.validator.check(bench.now, UNIX_MS, &origin, b"nonsense");
    assert!(matches!(verdict, Verdict::Reject(Refused::Bad(AnnounceError::Message(_)))), "{verdict:?}");
    let long = vec![0; limits::MAX_ANNOUNCEMENT_BYTES + 1];
    let verdict = bench.validator.check(bench.now, UNIX_MS, &origin, &long);
    assert!(matches!(verdict, Verdict::Reject(Refused::Bad(AnnounceError::TooLong { .. }))), "{verdict:?}");
}

#[test]
fn an_invented_head_without_a_signature_is_rejected() {
    let mut bench = Bench::new();
    let invented = Announcement { cid: entry("x"), addrs: vec![], extra: vec![], orig_peer: None };
    let verdict = bench.gossip(&invented, Some(bench.publisher()));
    assert_eq!(verdict, Verdict::Reject(Refused::Unsigned { cid: Box::new(entry("x")) }));
}

#[test]
fn a_head_with_a_broken_signature_is_rejected() {
    let mut bench = Bench::new();
    let mut announcement = Announcement::new(&head(&bench.key, 1, "one"), []);
    if let Some(last) = announcement.extra.last_mut() {
        *last ^= 1;
    }
    let verdict = bench.gossip(&announcement, Some(bench.publisher()));
    assert!(matches!(verdict, Verdict::Reject(Refused::Bad(AnnounceError::Head(_)))), "{verdict:?}");
}

#[test]
fn a_signed_head_under_the_name_of_another_entry_is_rejected() {
    let mut bench = Bench::new();
    let mut announcement = Announcement::new(&head(&bench.key, 1, "one"), []);
    announcement.cid = entry("another");
    let verdict = bench.gossip(&announcement, Some(bench.publisher()));
    assert!(matches!(verdict, Verdict::Reject(Refused::Bad(AnnounceError::OtherHead { .. }))), "{verdict:?}");
}

#[test]
fn a_message_of_another_author_is_rejected_unless_it_names_the_publisher_who_signed() {
    let mut bench = Bench::new();
    let (relay, publisher) = (peer(), bench.publisher());
    let plain = Announcement::new(&head(&bench.key, 1, "one"), []);

    let refused = |claimed| {
        let impostor = Impostor { author: relay, claimed, publisher };
        Verdict::Reject(Refused::NotThePublisher(Box::new(impostor)))
    };
    assert_eq!(bench.gossip(&plain, Some(relay)), refused(None));
    assert_eq!(bench.gossip(&plain.clone().relayed(relay), Some(relay)), refused(Some(relay)));
    assert_eq!(bench.gossip(&plain, None), Verdict::Reject(Refused::NoAuthor));

    let verdict = bench.gossip(&plain.relayed(publisher), Some(relay));
    assert_eq!(accepted(verdict).relay, Some(relay));
}

#[test]
fn only_publishers_on_the_allow_list_are_taken() {
    let mut bench = Bench::new();
    let (publisher, one) = (bench.publisher(), head(&bench.key, 1, "one"));
    bench.validator.set_publishers(Publishers::Except([publisher].into()));
    assert_eq!(bench.announce(&one), Verdict::Ignore(Ignored::NotAllowed { publisher }));
    bench.validator.set_publishers(Publishers::Only([peer()].into()));
    assert_eq!(bench.announce(&one), Verdict::Ignore(Ignored::NotAllowed { publisher }));
    bench.validator.set_publishers(Publishers::Only([publisher].into()));
    assert!(accepted(bench.announce(&one)).news);
}

#[test]
fn our_own_announcement_come_back_is_ignored() {
    let mut bench = Bench::new();
    bench.validator.config.own = bench.publisher();
    let one = head(&bench.key, 1, "one");
    assert_eq!(bench.announce(&one), Verdict::Ignore(Ignored::Own));
}

#[test]
fn a_head_is_taken_up_to_the_clock_skew_and_ignored_beyond_it() {
    let mut bench = Bench::new();
    let at = |ahead: u64, seq| {
        SignedHead::sign(&bench.key, &FeedName::default(), entry("x"), seq, UNIX_MS + ahead).expect("signs")
    };
    let (fits, over) = (at(limits::MAX_CLOCK_SKEW_MS, 1), at(limits::MAX_CLOCK_SKEW_MS + 1, 2));
    assert!(accepted(bench.announce(&fits)).news);
    let ahead_ms = limits::MAX_CLOCK_SKEW_MS + 1;
    assert_eq!(bench.announce(&over), Verdict::Ignore(Ignored::Future { ahead_ms }));
}

#[test]
fn a_duplicate_is_ignored_whoever_brings_it() {
    let mut bench = Bench::new();
    let one = head(&bench.key, 1, "one");
    accepted(bench.announce(&one));
    bench.neighbour = peer();
    assert_eq!(bench.announce(&one), Verdict::Ignore(Ignored::Duplicate));
    let relayed = Announcement::new(&one, []).relayed(one.publisher());
    assert_eq!(bench.gossip(&relayed, Some(peer())), Verdict::Ignore(Ignored::Duplicate));
    // Signed once more, with another time: other bytes, the same head.
    let again = SignedHead::sign(&bench.key, one.feed(), *one.head(), 1, UNIX_MS + 1).expect("signs");
    assert_eq!(bench.announce(&again), Verdict::Ignore(Ignored::Duplicate));
}

#[test]
fn a_known_head_travels_again_after_the_duplicate_window() {
    let mut bench = Bench::new();
    let one = head(&bench.key, 1, "one");
    accepted(bench.announce(&one));
    bench.later(limits::DUPLICATE_WINDOW_MS - 1);
    assert_eq!(bench.announce(&one), Verdict::Ignore(Ignored::Duplicate));
    bench.later(1);
    assert!(!accepted(bench.announce(&one)).news);
    assert_eq!(bench.announce(&one), Verdict::Ignore(Ignored::Duplicate));
}

#[test]
fn an_older_head_than_the_newest_known_is_ignored() {
    let mut bench = Bench::new();
    let (one, two, three) = (head(&bench.key, 1, "one"), head(&bench.key, 2, "two"), head(&bench.key, 3, "three"));
    accepted(bench.announce(&two));
    assert_eq!(bench.announce(&one), Verdict::Ignore(Ignored::Older { seq: 1, known: 2 }));
    // A head learned another way counts as well; its own announcement still travels.
    bench.validator.learn(&three);
    bench.later(limits::DUPLICATE_WINDOW_MS);
    assert_eq!(bench.announce(&two), Verdict::Ignore(Ignored::Older { seq: 2, known: 3 }));
    assert!(!accepted(bench.announce(&three)).news);
    bench.validator.learn(&one);
    assert_eq!(bench.validator.known(one.publisher(), one.feed()), Some(&three));
}

#[test]
fn a_fork_is_told_once_with_both_heads_and_the_old_one_is_kept() {
    let mut bench = Bench::new();
    let (known, other, third) = (head(&bench.key, 5, "a"), head(&bench.key, 5, "b"), head(&bench.key, 5, "c"));
    accepted(bench.announce(&known));
    let verdict = bench.announce(&other);
    assert_eq!(verdict.acceptance(), Acceptance::Accept, "others must learn of it");
    assert_eq!(verdict, Verdict::Fork { known: Box::new(known.clone()), other: Box::new(other) });
    assert_eq!(bench.announce(&third), Verdict::Ignore(Ignored::ForkKnown { seq: 5 }));
    assert_eq!(bench.validator.known(known.publisher(), known.feed()), Some(&known));
}

#[test]
fn a_publisher_that_announces_too_often_is_ignored_and_others_are_not() {
    let mut bench = Bench::new();
    let mut announce = |key: &Keypair, seq| bench.announce(&head(key, seq, "x"));
    let (flood, honest) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    for seq in 1..=u64::from(limits::ANNOUNCEMENT_BURST) {
        accepted(announce(&flood, seq));
    }
    let verdict = announce(&flood, 1000);
    assert_eq!(verdict, Verdict::Ignore(Ignored::PublisherRate { peer: flood.public().to_peer_id() }));
    accepted(announce(&honest, 1));
}

#[test]
fn a_neighbour_that_floods_is_ignored_before_anything_is_verified() {
    let mut bench = Bench::new();
    let burst = limits::ANNOUNCEMENT_BURST * limits::ANNOUNCEMENT_RELAY_FACTOR;
    let origin = Origin::direct(bench.neighbour);
    for _ in 0..burst {
        let verdict = bench.validator.check(bench.now, UNIX_MS, &origin, b"nonsense");
        assert_eq!(verdict.acceptance(), Acceptance::Reject);
    }
    let peer = bench.neighbour;
    let verdict = bench.validator.check(bench.now, UNIX_MS, &origin, b"nonsense");
    assert_eq!(verdict, Verdict::Ignore(Ignored::NeighbourRate { peer }));
}

#[test]
fn a_replay_by_others_does_not_use_up_the_rate_of_the_publisher() {
    let mut bench = Bench::new();
    let (old, new) = (head(&bench.key, 1, "one"), head(&bench.key, 2, "two"));
    accepted(bench.announce(&new));
    for n in 0..200u64 {
        // Each with other bytes, so that none is told a duplicate at once.
        let replay = SignedHead::sign(&bench.key, old.feed(), *old.head(), 1, n).expect("signs");
        assert!(matches!(bench.announce(&replay), Verdict::Ignore(Ignored::Older { .. })));
    }
    accepted(bench.announce(&head(&bench.key, 3, "three")));
}

#[test]
fn private_addresses_are_left_out_on_a_public_mesh() {
    let addrs = ["/ip4/192.168.0.7/tcp/4101", "/ip4/8.8.8.8/tcp/4101", "/ip4/127.0.0.1/tcp/4101"]
        .map(|text| text.parse::<Multiaddr>().expect("an address"));
    for (only_reachable, left) in [(false, 3), (true, 1)] {
        let mut bench = Bench::with(|config| config.only_reachable = only_reachable);
        let announcement = Announcement::new(&head(&bench.key, 1, "one"), addrs.clone());
        let verified = accepted(bench.gossip(&announcement, Some(bench.publisher())));
        assert_eq!(verified.addrs.len(), left);
        assert!(verified.addrs.contains(&addrs[1]));
    }
}

#[test]
fn an_address_that_names_another_peer_is_left_out() {
    let mut bench = Bench::new();
    let (publisher, other) = (bench.publisher(), peer());
    let [theirs, others] = [publisher, other]
        .map(|peer| format!("/ip4/8.8.8.8/tcp/4101/p2p/{peer}").parse::<Multiaddr>().expect("an address"));
    let announcement = Announcement::new(&head(&bench.key, 1, "one"), [theirs.clone(), others]);
    assert_eq!(accepted(bench.gossip(&announcement, Some(publisher))).addrs, [theirs]);
}

#[test]
fn no_more_announcements_and_feeds_are_remembered_than_the_caps() {
    let mut bench = Bench::new();
    let (seen, feeds) = (limits::MAX_SEEN_ANNOUNCEMENTS, limits::MAX_ANNOUNCED_FEEDS);
    for n in 0..=seen.max(feeds) as u64 {
        let feed = FeedName::new(&n.to_string()).expect("a name");
        let head = SignedHead::sign(&bench.key, &feed, entry("x"), 1, UNIX_MS).expect("signs");
        bench.later(1000);
        accepted(bench.announce(&head));
        if n + 1 == seen.min(feeds) as u64 {
            assert_eq!((bench.validator.seen.len(), bench.validator.known.len()), (seen, feeds), "both are full now");
        }
    }
    assert_eq!((bench.validator.seen.len(), bench.validator.known.len()), (seen, feeds));
    let first = FeedName::new("0").expect("a name");
    assert!(bench.validator.known(bench.publisher(), &first).is_none(), "the one quiet for longest made room");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_get_a_verdict(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
        let mut bench = Bench::new();
        let whole = Announcement::new(&head(&bench.key, 1, "one"), []).encode().expect("encodes");
        let mut damaged = whole.clone();
        let at = at.index(damaged.len());
        let origin = Origin::direct(bench.publisher());
        damaged.splice(at.., bytes.iter().copied());
        for bytes in [&bytes, &damaged].into_iter().filter(|bytes| **bytes != whole) {
            let verdict = bench.validator.check(bench.now, UNIX_MS, &origin, bytes);
            prop_assert!(!matches!(verdict, Verdict::Accept(_)), "no damaged announcement is accepted");
        }
    }

    #[test]
    fn the_known_head_never_goes_back(seqs in prop::collection::vec((1u64..20, 0u8..3, 0u64..90_000), 1..40)) {
        let mut bench = Bench::new();
        let mut newest = 0;
        for (seq, text, wait) in seqs {
            bench.later(wait);
            let head = head(&bench.key, seq, &text.to_string());
            let verdict = bench.announce(&head);
            match verdict {
                Verdict::Accept(verified) => prop_assert_eq!(verified.news, seq > newest),
                Verdict::Fork { .. } | Verdict::Ignore(_) => prop_assert!(seq <= newest),
                Verdict::Reject(why) => prop_assert!(false, "{}", why),
            }
            newest = newest.max(seq);
            prop_assert_eq!(bench.validator.known(bench.publisher(), head.feed()).map(SignedHead::seq), Some(newest));
        }
    }
}
