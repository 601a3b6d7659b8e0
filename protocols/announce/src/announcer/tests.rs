use cid::Cid;
use dagmesh_dag::{Block, Codec, HashCode};
use libp2p_identity::Keypair;
use proptest::prelude::*;

use super::*;

struct Bench {
    key: Keypair,
    announcer: Announcer,
    now: Instant,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let key = Keypair::ed25519_from_bytes([7; 32]).expect("a key");
        #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        let now = Instant::now();
        Self { key, announcer: Announcer::new(AnnouncerConfig::new(seed)), now }
    }

    fn head(&self, feed: &str, seq: u64) -> SignedHead {
        let feed = FeedName::new(feed).expect("a name");
        SignedHead::sign(&self.key, &feed, entry(seq), seq, 1_700_000_000_000).expect("signs")
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.announcer.handle(self.now, input);
        self.effects()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.announcer.poll_effect()).collect()
    }

    /// Goes on to the next deadline, which must be there.
    fn next(&mut self) -> Vec<Effect> {
        self.now = self.announcer.poll_timeout().expect("a deadline").max(self.now);
        self.announcer.handle_timeout(self.now);
        self.effects()
    }

    fn published(&mut self, head: &SignedHead) -> Vec<Effect> {
        self.tell(Input::Published { feed: head.feed().clone(), seq: head.seq() })
    }

    fn failed(&mut self, head: &SignedHead, error: PublishError) -> Vec<Effect> {
        self.tell(Input::Failed { feed: head.feed().clone(), seq: head.seq(), error })
    }
}

fn entry(seq: u64) -> Cid {
    *Block::new(Codec::Raw, HashCode::Sha2_256, seq.to_be_bytes().to_vec()).expect("a block").cid()
}

#[test]
fn a_head_that_moves_is_announced_at_once() {
    let mut bench = Bench::new(1);
    let (one, two) = (bench.head("main", 1), bench.head("main", 2));
    assert_eq!(bench.tell(Input::Peers(3)), []);
    assert_eq!(bench.tell(Input::Announce(Box::new(one.clone()))), [Effect::Publish(one.clone())]);
    assert_eq!(bench.published(&one), []);
    assert_eq!(bench.tell(Input::Announce(Box::new(two.clone()))), [Effect::Publish(two)]);
}

#[test]
fn without_peers_on_the_topic_a_head_is_queued_and_sent_to_the_first_that_comes() {
    let mut bench = Bench::new(1);
    let one = bench.head("main", 1);
    let queued = Effect::Queued { head: one.clone(), peers: 0, reason: PublishError::NoPeers };
    assert_eq!(bench.tell(Input::Announce(Box::new(one.clone()))), [queued]);
    assert_eq!(bench.announcer.poll_timeout(), None, "an idle node runs no timer");
    assert!(bench.announcer.feeds().all(|feed| feed.queued));
    assert_eq!(bench.tell(Input::Peers(1)), [Effect::Publish(one.clone())]);
    bench.published(&one);
    assert!(bench.announcer.feeds().all(|feed| !feed.queued && feed.announced == Some(bench.now)));
}

#[test]
fn a_mesh_that_has_not_formed_yet_is_tried_again_and_told_once() {
    let mut bench = Bench::new(1);
    let one = bench.head("main", 1);
    bench.tell(Input::Peers(1));
    bench.tell(Input::Announce(Box::new(one.clone())));
    let queued = Effect::Queued { head: one.clone(), peers: 1, reason: PublishError::NoPeers };
    assert_eq!(bench.failed(&one, PublishError::NoPeers), [queued]);
    let started = bench.now;
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        let before = bench.now;
        assert_eq!(bench.next(), [Effect::Publish(one.clone())]);
        assert_eq!(bench.now - before, Duration::from_secs(wait));
        assert_eq!(bench.failed(&one, PublishError::NoPeers), []);
    }
    assert!(bench.now - started < Duration::from_secs(200));
}

#[test]
fn a_head_is_repeated_periodically_with_jitter() {
    let mut bench = Bench::new(1);
    let one = bench.head("main", 1);
    bench.tell(Input::Peers(1));
    bench.tell(Input::Announce(Box::new(one.clone())));
    let mut waits = Vec::new();
    for _ in 0..10 {
        bench.published(&one);
        let before = bench.now;
        assert_eq!(bench.next(), [Effect::Publish(one.clone())]);
        waits.push(bench.now - before);
    }
    let interval = AnnouncerConfig::new(1).interval;
    assert!(waits.iter().all(|wait| (interval.mul_f64(0.8)..=interval.mul_f64(1.2)).contains(wait)), "{waits:?}");
    assert!(waits.windows(2).any(|pair| pair[0] != pair[1]), "there is jitter");
}

#[test]
fn new_peers_are_greeted_but_not_before_the_floor() {
    let mut bench = Bench::new(1);
    let config = AnnouncerConfig::new(1);
    let one = bench.head("main", 1);
    bench.tell(Input::Peers(1));
    bench.tell(Input::Announce(Box::new(one.clone())));
    bench.published(&one);
    let announced = bench.now;
    for peers in 2..10 {
        bench.now += Duration::from_secs(1);
        assert_eq!(bench.tell(Input::Peers(peers)), [], "a crowd does not make us repeat ourselves");
    }
    assert_eq!(bench.next(), [Effect::Publish(one.clone())]);
    assert_eq!(bench.now, announced + config.floor);
    bench.published(&one);

    bench.now += config.floor * 2;
    let came = bench.now;
    assert_eq!(bench.tell(Input::Peers(4)), [], "peers that go are not greeted");
    assert_eq!(bench.tell(Input::Peers(5)), []);
    assert_eq!(bench.next(), [Effect::Publish(one)]);
    assert_eq!(bench.now, came + config.settle);
}

#[test]
fn somebody_who_asks_is_not_held_to_the_floor() {
    let mut bench = Bench::new(1);
    let one = bench.head("main", 1);
    bench.tell(Input::Peers(1));
    bench.tell(Input::Announce(Box::new(one.clone())));
    bench.published(&one);
    assert_eq!(bench.tell(Input::Announce(Box::new(one.clone()))), [Effect::Publish(one)]);
}

#[test]
fn an_older_head_does_not_replace_a_newer_one() {
    let mut bench = Bench::new(1);
    bench.tell(Input::Peers(1));
    let (one, two) = (bench.head("main", 1), bench.head("main", 2));
    bench.tell(Input::Announce(Box::new(two.clone())));
    bench.published(&two);
    assert_eq!(bench.tell(Input::Announce(Box::new(one))), []);
    assert!(bench.announcer.feeds().all(|feed| feed.head == two));
}

#[test]
fn a_head_that_moves_while_the_old_one_is_under_way_follows_it() {
    let mut bench = Bench::new(1);
    let (one, two) = (bench.head("main", 1), bench.head("main", 2));
    bench.tell(Input::Peers(1));
    bench.tell(Input::Announce(Box::new(one.clone())));
    assert_eq!(bench.tell(Input::Announce(Box::new(two.clone()))), [], "one at a time");
    assert_eq!(bench.published(&one), [Effect::Publish(two)]);
}

#[test]
fn a_swarm_that_never_answers_does_not_silence_a_feed() {
    let mut bench = Bench::new(1);
    let one = bench.head("main", 1);
    bench.tell(Input::Peers(1));
    bench.tell(Input::Announce(Box::new(one.clone())));
    assert!(matches!(bench.next()[..], [Effect::Queued { .. }]));
    assert_eq!(bench.next(), [Effect::Publish(one)]);
}

#[test]
fn a_withdrawn_feed_is_announced_no_more() {
    let mut bench = Bench::new(1);
    let one = bench.head("main", 1);
    bench.tell(Input::Announce(Box::new(one.clone())));
    bench.tell(Input::Withdraw(one.feed().clone()));
    assert_eq!(bench.tell(Input::Peers(1)), []);
    assert_eq!(bench.announcer.poll_timeout(), None);
}

#[test]
fn many_feeds_keep_to_half_the_rate_that_others_take_from_one_publisher() {
    let mut bench = Bench::new(1);
    let count = 3 * ANNOUNCEMENT_BURST as usize;
    for n in 0..count {
        let head = bench.head(&n.to_string(), 1);
        bench.tell(Input::Announce(Box::new(head)));
    }
    let mut effects = bench.tell(Input::Peers(1));
    assert_eq!(effects.len(), ANNOUNCEMENT_BURST as usize / 2);
    let started = bench.now;
    let mut all = 0;
    while all < count {
        all += effects.len();
        for effect in effects {
            let Effect::Publish(head) = effect else { panic!("{effect:?}") };
            bench.published(&head);
        }
        effects = if all < count { bench.next() } else { Vec::new() };
    }
    let took = (bench.now - started).as_secs_f64();
    let fair = (count - ANNOUNCEMENT_BURST as usize / 2) as f64 / f64::from(ANNOUNCEMENTS_PER_SECOND / 2);
    assert!((fair - 1.0..fair + 1.0).contains(&took), "{took} s where {fair} s is the pace");
}

#[test]
fn feeds_are_taken_at_the_cap_and_refused_beyond_it() {
    let mut bench = Bench::new(1);
    for n in 0..MAX_OWN_FEEDS {
        let head = bench.head(&n.to_string(), 1);
        assert!(!matches!(bench.tell(Input::Announce(Box::new(head)))[..], [Effect::TooMany(_)]));
    }
    let over = bench.head("over", 1);
    assert_eq!(bench.tell(Input::Announce(Box::new(over.clone()))), [Effect::TooMany(over.feed().clone())]);
    assert_eq!(bench.announcer.feeds().count(), MAX_OWN_FEEDS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_each_feed_is_announced_in_the_end(
        steps in prop::collection::vec((0u8..6, 0u8..4, 1u64..4, 0u64..100_000), 0..60),
        seed in any::<u64>(),
    ) {
        let mut runs = [Bench::new(seed), Bench::new(seed)];
        runs[1].now = runs[0].now;
        let mut newest = BTreeMap::new();
        for (kind, feed, seq, wait) in steps {
            let name = FeedName::new(&feed.to_string()).expect("a name");
            let [a, b] = runs.each_mut().map(|bench| {
                bench.now += Duration::from_millis(wait);
                bench.announcer.handle_timeout(bench.now);
                bench.tell(match kind {
                    0 | 1 => Input::Announce(Box::new(bench.head(name.as_str(), seq))),
                    2 => Input::Peers(wait as usize % 3),
                    3 => Input::Published { feed: name.clone(), seq },
                    4 => Input::Failed { feed: name.clone(), seq, error: PublishError::NoPeers },
                    _ => Input::Withdraw(name.clone()),
                })
            });
            prop_assert_eq!(a, b, "the same seed gives the same effects");
            match kind {
                0 | 1 => { newest.entry(name).and_modify(|known: &mut u64| *known = seq.max(*known)).or_insert(seq); }
                5 => { newest.remove(&name); }
                _ => {}
            }
        }
        // From here on the swarm works.
        let [mut bench, _] = runs;
        let mut waiting = newest.clone();
        let mut effects = bench.tell(Input::Peers(4));
        for _ in 0..200 {
            for effect in effects {
                if let Effect::Publish(head) = effect {
                    waiting.remove(head.feed());
                    bench.published(&head);
                }
            }
            if newest.is_empty() { break }
            let before = bench.now;
            effects = bench.effects();
            if effects.is_empty() { effects = bench.next(); }
            prop_assert!(bench.announcer.poll_timeout().is_some_and(|at| at > before), "time moves on");
        }
        for feed in bench.announcer.feeds() {
            prop_assert_eq!(newest.get(feed.head.feed()), Some(&feed.head.seq()));
            prop_assert!(feed.announced.is_some(), "{:?} was never announced", feed.head.feed());
        }
    }
}
