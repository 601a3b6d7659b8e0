mod closed;
mod hostile;
mod pump;

use dagmesh_core::limits::{
    MAX_GROUP_LOG_ROOTS, MAX_GROUP_PEERS, MAX_GROUP_PENDING_ANSWERS, MAX_GROUP_PENDING_DIGESTS,
    MAX_GROUP_PENDING_PER_AUTHOR, MAX_GROUP_PRODUCERS, MAX_GROUP_PUBLISH_QUEUE, MAX_GROUP_SEQUENCE,
};
use proptest::prelude::*;

use self::pump::{Pump, peer};
use super::*;
use crate::{
    head::{LeafKey, Payload},
    message::{Answer, HeadList, Page, Request},
    testing::{NOW_MS, closed_group, group, head, head_in, key},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn publications_reach_everybody_once_and_as_they_are_made() {
    let mut pump = Pump::new(5, 1, 0.0);
    pump.run(SECOND);
    (0..20).for_each(|n| pump.publish(n % 5));
    pump.converge(SECOND);
    pump.told_all(20);
    assert_eq!(pump.recovered, 0, "nothing was lost, so nothing was recovered");
}

#[test]
fn two_publications_at_once_do_not_split_the_group() {
    let mut pump = Pump::new(5, 2, 0.0);
    pump.run(SECOND);
    let before = pump.recover_requests;
    for _ in 0..10 {
        pump.publish(0);
        pump.publish(1);
        pump.run(Duration::from_millis(300));
        assert!(pump.is_whole());
    }
    pump.told_all(20);
    assert_eq!(pump.recover_requests, before, "no recovery was needed");
}

#[test]
fn all_converge_under_loss_with_any_seed() {
    for seed in 0..8 {
        let mut pump = Pump::new(6, seed, 0.2);
        for n in 0..30 {
            pump.publish(n % 6);
            pump.publish((n + 1) % 6);
            pump.run(Duration::from_millis(100));
        }
        pump.converge(60 * SECOND);
        pump.told_all(60);
    }
}

#[test]
fn a_partition_heals_from_both_sides() {
    let mut pump = Pump::new(6, 3, 0.05);
    (0..6).for_each(|n| pump.publish(n));
    pump.converge(30 * SECOND);
    pump.cut = 3;
    for n in 0..60 {
        pump.publish(n % 6);
        pump.run(Duration::from_millis(50));
    }
    pump.run(30 * SECOND);
    assert!(!pump.is_whole(), "they are cut off from one another");
    pump.cut = 0;
    pump.converge(60 * SECOND);
    pump.told_all(66);
}

#[test]
fn a_newcomer_is_given_everything_in_two_round_trips_and_told_that_it_is_recovery() {
    let mut pump = Pump::new(2, 4, 0.0);
    let heads: Vec<_> = (100..350).flat_map(|n| (0..4).map(move |session| head(n, session, 3, "x"))).collect();
    (0..2).for_each(|n| pump.restore(n, heads.clone()));
    pump.run(SECOND);
    let newcomer = pump.add();
    // Two round trips of at most 100 ms.
    pump.run(Duration::from_millis(201));
    assert_eq!(pump.groups[newcomer].state().summary(), pump.groups[0].state().summary());
    assert_eq!(pump.recovered, 1000, "each of its events is marked");
    assert!(pump.groups[newcomer].is_initialized());
    assert_eq!(pump.recover_requests, 1, "from one of them, in one page");
}

#[test]
fn a_peer_at_a_past_root_is_told_the_difference_alone() {
    let mut pump = Pump::new(3, 5, 0.0);
    let heads: Vec<_> = (100..350).map(|n| head(n, 1, 3, "x")).collect();
    (0..3).for_each(|n| pump.restore(n, heads.clone()));
    pump.run(SECOND);
    pump.gossip_lost = true;
    pump.publish(0);
    pump.run(SECOND);
    pump.gossip_lost = false;
    pump.page_bytes = 0;
    pump.converge(40 * SECOND);
    assert!(pump.page_bytes > 0 && pump.page_bytes < 2000, "{} bytes of answers", pump.page_bytes);
}

#[test]
fn one_recovery_brings_both_sides_what_they_lack() {
    let mut pump = Pump::new(2, 9, 0.0);
    pump.gossip_lost = true;
    pump.restore(0, (100..103).map(|n| head(n, 1, 3, "x")).collect());
    pump.restore(1, (102..110).map(|n| head(n, 1, 4, "x")).collect());
    // A round trip for the digests, one for the page, half of one for what goes back.
    pump.run(Duration::from_millis(251));
    assert_eq!(pump.groups[0].state().summary(), pump.groups[1].state().summary());
    assert_eq!(pump.groups[0].state().summary().leaves, 10);
    assert_eq!(pump.recover_requests, 2, "the one who is behind asks, and then tells");
}

#[test]
fn sessions_of_one_producer_do_not_disturb_each_other() {
    // Members 0 and 1 publish under one key, each in a session of its own.
    let mut pump = Pump::new(4, 6, 0.1);
    pump.tell(1, Input::AddProducer { key: Box::new(key(0)), session: Some(NOW_MS - 9) });
    for _ in 0..20 {
        pump.publish_as(0, 0);
        pump.publish_as(1, 0);
        pump.run(Duration::from_millis(30));
    }
    pump.converge(60 * SECOND);
    assert_eq!(pump.groups[2].state().summary().sum, 40);
    assert_eq!(pump.groups[2].state().summary().leaves, 2);
    pump.told_all(40);
}

#[test]
fn a_call_to_the_whole_group_helps_where_no_peer_answers() {
    let mut pump = Pump::new(4, 7, 0.0);
    pump.run(SECOND);
    pump.gossip_lost = true;
    pump.publish(0);
    pump.run(Duration::from_millis(200));
    pump.gossip_lost = false;
    pump.requests_fail = true;
    pump.publish(1);
    pump.converge(60 * SECOND);
    pump.told_all(2);
}

#[test]
fn an_idle_group_says_less_and_less_whatever_its_size() {
    let idle = |leaves: u16| {
        let mut pump = Pump::new(10, 8, 0.0);
        let heads: Vec<_> = (100..100 + leaves).map(|n| head(n, 1, 3, "x")).collect();
        (0..10).for_each(|n| pump.restore(n, heads.clone()));
        pump.run(120 * SECOND);
        let before = (pump.gossips, pump.gossip_bytes);
        pump.run(600 * SECOND);
        (pump.gossips - before.0, pump.gossip_bytes - before.1)
    };
    let (few, many) = (idle(1), idle(300));
    assert!(few.0 >= 10 && few.0 < 100, "{} heartbeats in ten minutes", few.0);
    assert!(many.0 < 100 && many.1 < few.1 * 3 / 2, "{few:?} {many:?}");
}

/// One machine, by hand.
struct Bench {
    group: Group,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = pump::start();
        Self { group: Group::new(now, Config::new(group(), NOW_MS, 1)), now }
    }

    /// The group of [`closed_group`], whose owner is peer 0.
    fn closed() -> Self {
        let now = pump::start();
        let membership = Membership::Closed { owner: peer(0) };
        Self { group: Group::new(now, Config { membership, ..Config::new(closed_group(), NOW_MS, 1) }), now }
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.group.handle(self.now, input);
        std::iter::from_fn(|| self.group.poll_effect()).collect()
    }

    fn hear(&mut self, author: u16, message: &Gossip) -> (Acceptance, Vec<Effect>) {
        let (author, bytes) = (peer(author.into()), message.encode().expect("encodes"));
        let mut effects = self.tell(Input::Gossip { token: 7, author, neighbour: author, bytes });
        let Some(Effect::Verdict { token: 7, acceptance }) = effects.pop() else { panic!("no verdict: {effects:?}") };
        (acceptance, effects)
    }

    fn update(&self, heads: &[GroupHead]) -> Gossip {
        let changed = produce::list(heads).expect("fits");
        let state = Summary { members: 0, root: [9; 32], leaves: 1, sum: 9 };
        Gossip::Update(Update { previous: [8; 32], state, changed, vector: HeadList::default() })
    }
}

#[test]
fn a_number_is_said_only_once_it_is_durable_and_a_session_used_only_then() {
    let mut bench = Bench::new();
    let effects = bench.tell(Input::AddProducer { key: Box::new(key(0)), session: None });
    let [Effect::PersistSession { id, session: NOW_MS, .. }] = effects[..] else { panic!("{effects:?}") };
    let payload = Payload::inline(b"x").expect("short");
    let publish = Input::Publish { producer: peer(0), payload };
    assert_eq!(bench.tell(publish.clone()), []);
    let effects = bench.tell(Input::Persisted(id));
    let [Effect::Event(Event::SessionOpened { .. }), Effect::PersistHead { id, head }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((head.session(), head.sequence(), bench.group.state().summary().leaves), (NOW_MS, 1, 0));
    let effects = bench.tell(Input::PersistFailed(*id));
    assert!(matches!(effects[..], [Effect::Event(Event::Refused { .. })]));
    // The number may be on disk: it is not used for anything else.
    let effects = bench.tell(publish);
    let [Effect::PersistHead { id, head }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(head.sequence(), 2);
    let effects = bench.tell(Input::Persisted(*id));
    assert!(matches!(&effects[..], [Effect::Gossip(_), Effect::Event(Event::Published(said))] if said == head));
}

#[test]
fn a_restarted_producer_goes_on_behind_what_it_has_used() {
    let mut bench = Bench::new();
    bench.tell(Input::Restored(vec![head(0, NOW_MS + 5, 41, "x")]));
    bench.tell(Input::AddProducer { key: Box::new(key(0)), session: Some(NOW_MS + 5) });
    let publish = Input::Publish { producer: peer(0), payload: Payload::inline(b"y").expect("short") };
    let effects = bench.tell(publish.clone());
    assert!(matches!(&effects[..], [Effect::PersistHead { head, .. }] if head.sequence() == 42));
    // Its disk was an old one: others know more of its session, so that is left alone, and nothing is lost.
    let (_, effects) = bench.hear(3, &bench.update(&[head(0, NOW_MS + 5, 50, "z")]));
    let id = effects.iter().find_map(|effect| match effect {
        Effect::PersistSession { id, session, .. } if *session == NOW_MS + 6 => Some(*id),
        _ => None,
    });
    let effects = bench.tell(Input::Persisted(id.expect("a later session")));
    let [_, Effect::PersistHead { head, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((head.session(), head.sequence(), head.inline()), (NOW_MS + 6, 1, Some(&b"y"[..])));
}

#[test]
fn a_producer_that_is_removed_while_it_writes_and_added_again_uses_no_number_twice() {
    let mut bench = Bench::new();
    let add = || Input::AddProducer { key: Box::new(key(0)), session: Some(NOW_MS) };
    let publish = Input::Publish { producer: peer(0), payload: Payload::inline(b"x").expect("short") };
    bench.tell(add());
    assert!(matches!(bench.tell(publish.clone())[..], [Effect::PersistHead { .. }]));
    bench.tell(Input::RemoveProducer(peer(0)));
    let effects = bench.tell(add());
    let [Effect::PersistSession { id, session, .. }] = effects[..] else { panic!("{effects:?}") };
    assert!(session > NOW_MS);
    // Nor does a disk that fails for a moment bring the old one back.
    bench.tell(Input::PersistFailed(id));
    let effects = bench.tell(publish);
    assert!(matches!(effects[..], [Effect::PersistSession { session, .. }] if session > NOW_MS), "{effects:?}");
}

#[test]
fn a_message_with_a_forged_head_is_rejected_and_changes_nothing() {
    let mut bench = Bench::new();
    let forged = {
        // Its own number raised by somebody else.
        let mut bytes = head(1, 5, 3, "x").encode().to_vec();
        let at = bytes.iter().rposition(|byte| *byte == b'x').expect("the text");
        bytes[at] = b'y';
        crate::message::HeadBytes::new(bytes).expect("fits")
    };
    let good = crate::message::HeadBytes::new(head(2, 5, 3, "x").encode()).expect("fits");
    let Gossip::Update(update) = bench.update(&[]) else { unreachable!() };
    let update = Update { changed: HeadList::new([good, forged]).expect("fits"), ..update };
    let (acceptance, effects) = bench.hear(3, &Gossip::Update(update));
    assert_eq!(acceptance, Acceptance::Reject);
    assert!(matches!(effects[..], [Effect::Event(Event::Misbehaved { .. })]));
    assert_eq!(bench.group.state().summary().leaves, 0);
}

#[test]
fn a_valid_head_is_applied_whatever_the_digest_says_and_a_claimed_root_is_never_believed() {
    let mut bench = Bench::new();
    let (acceptance, effects) = bench.hear(3, &bench.update(&[head(1, 5, 3, "x")]));
    assert_eq!(acceptance, Acceptance::Accept);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Event(Event::New { first: 1, .. }))));
    assert!(!bench.group.log.contains(&[8; 32]) && !bench.group.log.contains(&[9; 32]));
    let (acceptance, effects) = bench.hear(3, &bench.update(&[head(1, NOW_MS * 2, 3, "x")]));
    assert_eq!((acceptance, effects), (Acceptance::Ignore, vec![]), "from the future, by our clock");
}

#[test]
fn an_update_from_a_root_of_ours_is_no_sign_of_loss_and_one_from_another_is() {
    let mut bench = Bench::new();
    let Gossip::Update(update) = bench.update(&[head(1, 5, 3, "x")]) else { unreachable!() };
    let empty = State::new().summary().root;
    // Its sender has published at the same time as somebody whom we have heard.
    bench.hear(3, &bench.update(&[head(2, 5, 3, "x")]));
    bench.group.claims = Claims::default();
    bench.hear(4, &Gossip::Update(Update { previous: empty, ..update.clone() }));
    assert_eq!(bench.group.claims.len(), 0);
    bench.hear(4, &Gossip::Update(update));
    assert_eq!(bench.group.claims.len(), 1);
}

#[test]
fn an_equivocation_is_told_once_and_no_number_twice() {
    let mut bench = Bench::new();
    bench.hear(3, &bench.update(&[head(1, 5, 3, "x")]));
    let (acceptance, effects) = bench.hear(3, &bench.update(&[head(1, 5, 3, "y")]));
    let events: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Event(_))).collect();
    assert_eq!(acceptance, Acceptance::Accept);
    assert!(matches!(events[..], [Effect::Event(Event::Equivocation { .. })]));
    let again = bench.update(&[head(1, 5, 3, "x"), head(1, 5, 3, "y")]);
    assert_eq!(bench.hear(3, &again).1, []);
}

#[test]
fn a_flood_of_invented_digests_takes_no_memory_and_ends_in_silence() {
    let mut bench = Bench::new();
    bench.tell(Input::PeerJoined(peer(1)));
    let digest = |n: u64| {
        let mut root = [5; 32];
        root[..8].copy_from_slice(&n.to_be_bytes());
        Gossip::Digest { state: Summary { members: 0, root, leaves: 1, sum: MAX_GROUP_SEQUENCE }, bucket: n }
    };
    (0..100).for_each(|n| drop(bench.hear(3, &digest(n))));
    assert_eq!(bench.group.claims.len(), MAX_GROUP_PENDING_PER_AUTHOR);
    (0..3000u64).for_each(|n| drop(bench.hear(n as u16, &digest(n))));
    assert_eq!(bench.group.claims.len(), MAX_GROUP_PENDING_DIGESTS);
    let recover = |n: u8| Gossip::Recover { from: Cursor { base: [n; 32], after: None }, members: 0, bucket: 1 };
    (1..40).for_each(|n| drop(bench.hear(3, &recover(n))));
    assert_eq!(bench.group.answers.len(), MAX_GROUP_PENDING_ANSWERS);
    (0..3000).for_each(|n| drop(bench.group.serve(bench.now, peer(n), &[0xff])));
    assert!(bench.group.peers.len() <= MAX_GROUP_PEERS);
    assert!(bench.group.log.len() <= MAX_GROUP_LOG_ROOTS);
    // Nobody answers: all is given up in the end, and only the heartbeat goes on.
    for _ in 0..5000 {
        bench.now = bench.group.poll_timeout().expect("a heartbeat").max(bench.now);
        bench.group.handle_timeout(bench.now);
        while bench.group.poll_effect().is_some() {}
    }
    assert_eq!((bench.group.claims.len(), bench.group.calls.len(), bench.group.answers.len()), (0, 0, 0));
}

/// The request for a page among these effects.
fn asked(effects: &[Effect]) -> Option<(CallId, Cursor)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Request { call, bytes, .. } => match Request::decode(bytes) {
            Ok(Request::Recover { from, .. }) => Some((*call, from)),
            _ => None,
        },
        _ => None,
    })
}

#[test]
fn who_claims_to_be_ahead_and_brings_nothing_is_left_alone_for_a_while() {
    let mut bench = Bench::new();
    let claim = |n: u8| Summary { members: 0, root: [n; 32], leaves: 1, sum: 9 };
    let hello =
        |n| Input::Request { token: 1, peer: peer(1), bytes: Request::Hello(claim(n)).encode().expect("encodes") };
    let (call, _) = asked(&bench.tell(hello(1))).expect("it is asked at once");
    let empty = Page { state: claim(1), difference: false, heads: HeadList::default(), next: None, members: None };
    bench.tell(Input::Answered { call, bytes: Answer::Page(empty).encode().expect("encodes") });
    bench.now += bench.group.config.moment;
    assert_eq!(asked(&bench.tell(hello(2))), None);
    bench.now += SECOND;
    assert!(asked(&bench.tell(hello(3))).is_some(), "and then asked again");
}

#[test]
fn who_does_not_answer_keeps_nobody_waiting_and_another_is_asked_too() {
    let mut bench = Bench::new();
    let state = Summary { members: 0, root: [1; 32], leaves: 1, sum: 9 };
    let hello = |n| {
        let bytes = Request::Hello(state).encode().expect("encodes");
        Input::Request { token: 1, peer: peer(n), bytes }
    };
    let whom = |effects: &[Effect]| {
        effects.iter().find_map(|effect| if let Effect::Request { peer, .. } = effect { Some(*peer) } else { None })
    };
    assert_eq!(whom(&bench.tell(hello(1))), Some(peer(1)));
    assert_eq!(whom(&bench.tell(hello(2))), None, "the first one has its time");
    let mut wait = |time: Duration| {
        bench.now += time;
        bench.group.handle_timeout(bench.now);
        whom(&std::iter::from_fn(|| bench.group.poll_effect()).collect::<Vec<_>>())
    };
    assert_eq!(wait(Duration::from_millis(900)), None);
    assert_eq!(wait(Duration::from_millis(100)), Some(peer(2)));
    assert_eq!(wait(Duration::from_millis(2500)), None, "there is nobody else, and both may answer yet");
    assert_eq!((bench.group.calls.len(), bench.group.claims.len()), (2, 1));
}

#[test]
fn pages_that_lead_back_or_never_end_are_given_up() {
    let claim = Summary { members: 0, root: [1; 32], leaves: 1, sum: 9 };
    let hello = Input::Request { token: 1, peer: peer(1), bytes: Request::Hello(claim).encode().expect("encodes") };
    let page = |n: u8| {
        let next = Some(LeafKey { name: [n; 32], session: 0 });
        Answer::Page(Page { state: claim, difference: true, heads: HeadList::default(), next, members: None })
            .encode()
            .expect("encodes")
    };
    let mut bench = Bench::new();
    let (call, _) = asked(&bench.tell(hello.clone())).expect("it is asked");
    let (call, from) =
        asked(&bench.tell(Input::Answered { call, bytes: page(5) })).expect("the next page is asked for");
    assert_eq!(from.after, Some(LeafKey { name: [5; 32], session: 0 }));
    let effects = bench.tell(Input::Answered { call, bytes: page(5) });
    assert!(matches!(effects[..], [Effect::Event(Event::Misbehaved { .. }), ..]), "{effects:?}");

    let mut bench = Bench::new();
    let mut running = asked(&bench.tell(hello)).map(|(call, _)| call);
    let mut pages = 0u8;
    while let Some(call) = running {
        pages += 1;
        running = asked(&bench.tell(Input::Answered { call, bytes: page(pages) })).map(|(call, _)| call);
    }
    assert_eq!(u32::from(pages), dagmesh_core::limits::MAX_GROUP_RECOVERY_PAGES);
}

#[test]
fn so_many_recoveries_run_at_once_and_no_more() {
    let mut bench = Bench::new();
    let most = dagmesh_core::limits::MAX_GROUP_RECOVERIES as u8;
    let mut running = 0;
    for n in 1..=most + 1 {
        let state = Summary { members: 0, root: [n; 32], leaves: 1, sum: 9 };
        let bytes = Request::Hello(state).encode().expect("encodes");
        let effects = bench.tell(Input::Request { token: 1, peer: peer(n.into()), bytes });
        running += u8::from(asked(&effects).is_some());
        // The one before is not recent any more.
        bench.now += bench.group.config.moment;
    }
    assert_eq!(running, most);
}

#[test]
fn who_learns_and_gives_over_a_cut_tells_its_side_at_once() {
    let (ours, theirs) = (head(1, 1, 3, "ours"), head(2, 1, 4, "theirs"));
    let is_digest = |effect: &Effect| match effect {
        Effect::Gossip(bytes) => matches!(Gossip::decode(bytes), Ok(Gossip::Digest { .. })),
        _ => false,
    };
    let tells = |bench: &mut Bench| {
        bench.group.handle_timeout(bench.now);
        std::iter::from_fn(|| bench.group.poll_effect()).filter(is_digest).count()
    };
    let page = |state, heads: &[GroupHead]| {
        let heads = produce::list(heads).expect("fits");
        Answer::Page(Page { state, difference: false, heads, next: None, members: None }).encode().expect("encodes")
    };
    let [mut asks, mut serves] = [&ours, &theirs].map(|head| {
        let mut bench = Bench::new();
        bench.tell(Input::Restored(vec![head.clone()]));
        bench.tell(Input::PeerJoined(peer(9)));
        assert_eq!(tells(&mut bench), 0);
        bench
    });
    let ahead = serves.group.state().summary();
    let hello = Request::Hello(ahead).encode().expect("encodes");
    let (call, _) = asked(&asks.tell(Input::Request { token: 1, peer: peer(9), bytes: hello })).expect("it is behind");
    let effects = asks.tell(Input::Answered { call, bytes: page(ahead, &[theirs]) });
    let [.., Effect::Request { call, bytes, .. }] = &effects[..] else { panic!("it gives nothing: {effects:?}") };
    assert_eq!(tells(&mut asks), 0, "it is not done");
    serves.tell(Input::Request { token: 2, peer: peer(9), bytes: bytes.clone() });
    let whole = serves.group.state().summary();
    assert_eq!((tells(&mut serves), tells(&mut serves)), (1, 0), "once");
    asks.tell(Input::Answered { call: *call, bytes: page(whole, &[]) });
    assert_eq!(asks.group.state().summary(), whole);
    assert_eq!((tells(&mut asks), tells(&mut asks)), (1, 0), "once");
}

#[test]
fn a_peer_that_asks_too_often_is_told_so() {
    let mut bench = Bench::new();
    let hello = Request::Hello(bench.group.state().summary()).encode().expect("encodes");
    let mut ask = |peer| Answer::decode(&bench.group.serve(bench.now, peer, &hello).expect("an answer"));
    let burst = dagmesh_core::limits::GROUP_REQUEST_BURST;
    assert!((0..burst).all(|_| matches!(ask(peer(1)), Ok(Answer::Digest(_)))));
    assert_eq!(ask(peer(1)), Ok(Answer::Busy));
    assert!(matches!(ask(peer(2)), Ok(Answer::Digest(_))), "others are served");
}

#[test]
fn producers_and_publications_that_wait_are_bounded() {
    let mut bench = Bench::new();
    let refused = |effects: &[Effect]| matches!(effects, [Effect::Event(Event::Refused { .. })]);
    let add = |n: usize| Input::AddProducer { key: Box::new(key(n as u16)), session: None };
    assert!((0..MAX_GROUP_PRODUCERS).all(|n| !refused(&bench.tell(add(n)))));
    assert!(refused(&bench.tell(add(MAX_GROUP_PRODUCERS))));
    let publish = Input::Publish { producer: peer(0), payload: Payload::inline(b"x").expect("short") };
    assert!((0..MAX_GROUP_PUBLISH_QUEUE).all(|_| bench.tell(publish.clone()).is_empty()));
    assert!(refused(&bench.tell(publish)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pages_of_any_size_tell_everything_once_and_in_order(leaves in 0u16..40, size in 200usize..4000) {
        let mut bench = Bench::new();
        bench.tell(Input::Restored((0..leaves).map(|n| head(n, 1, 3, "x")).collect()));
        let (mut from, mut told) = (Cursor { base: [1; 32], after: None }, Vec::new());
        loop {
            let Page { heads, next, difference, .. } = bench.group.page(&from, size);
            prop_assert!(!difference);
            prop_assert!(heads.iter().map(|bytes| bytes.len()).sum::<usize>() <= size);
            told.extend(heads.iter().map(|bytes| GroupHead::decode(&group(), bytes).expect("a head").key()));
            prop_assert!(next.is_none() || (next > from.after && next == told.last().copied()));
            let Some(next) = next else { break };
            from.after = Some(next);
        }
        prop_assert_eq!(told, bench.group.state().heads().map(GroupHead::key).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_from_anybody_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut bench = Bench::new();
        bench.tell(Input::PeerJoined(peer(1)));
        let gossip = Input::Gossip { token: 1, author: peer(2), neighbour: peer(1), bytes: bytes.clone() };
        bench.tell(gossip);
        bench.tell(Input::Request { token: 2, peer: peer(1), bytes: bytes.clone() });
        bench.tell(Input::Answered { call: CallId(1), bytes });
        prop_assert_eq!(bench.group.state().summary().leaves, 0);
    }
}
