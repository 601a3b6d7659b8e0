//! Those who lie, and those who shout.

use dagmesh_core::limits::{
    GROUP_GOSSIP_BURST, GROUP_GOSSIP_PER_SECOND, GROUP_GOSSIP_UNIT_BYTES, MAX_GROUP_CHECKED_HEADS, MAX_GROUP_LEAVES,
    MAX_GROUP_PAGE_HEADS, MAX_GROUP_SESSION_AHEAD_MS,
};

use super::*;
use crate::{
    message::{HeadBytes, MemberBytes},
    testing::list,
};

const HOUR_MS: u64 = 60 * 60 * 1000;

fn update_of(bytes: impl IntoIterator<Item = Vec<u8>>) -> Gossip {
    let heads: Vec<_> = bytes.into_iter().map(|bytes| HeadBytes::new(bytes).expect("fits")).collect();
    let state = Summary { members: 0, root: [9; 32], leaves: 1, sum: 9 };
    let changed = HeadList::new(heads).expect("fits");
    Gossip::Update(Update { previous: [8; 32], state, changed, vector: HeadList::default() })
}

/// A head with the signature of another.
fn forged(head: &GroupHead, other: &GroupHead) -> Vec<u8> {
    let (bytes, sig) = (head.encode(), &other.encode()[other.encode().len() - 64..]);
    [&bytes[..bytes.len() - 64], sig].concat()
}

impl Bench {
    /// Hears a message as it came from this neighbour; only the verdict counts.
    fn hear_from(&mut self, neighbour: PeerId, bytes: Vec<u8>) -> Acceptance {
        let effects = self.tell(Input::Gossip { token: 1, author: neighbour, neighbour, bytes });
        let verdict = effects.iter().rev().find_map(|effect| match effect {
            Effect::Verdict { acceptance, .. } => Some(*acceptance),
            _ => None,
        });
        verdict.expect("one verdict")
    }

    /// Everything that a stranger could make grow.
    fn assert_bounded(&self) {
        let group = &self.group;
        assert!(group.claims.len() <= MAX_GROUP_PENDING_DIGESTS);
        assert!(group.peers.len() <= MAX_GROUP_PEERS);
        assert!(group.answers.len() <= MAX_GROUP_PENDING_ANSWERS);
        assert!(group.calls.len() <= MAX_GROUP_PEERS + dagmesh_core::limits::MAX_GROUP_RECOVERIES);
        assert!(group.log.len() <= MAX_GROUP_LOG_ROOTS);
        assert!(group.recent.len() <= MAX_GROUP_CHECKED_HEADS);
        assert!(group.effects.is_empty() && group.state.summary().leaves <= MAX_GROUP_LEAVES as u64);
    }
}

/// Messages of so many bytes that a neighbour gets through at one instant.
fn fit(bytes: usize) -> usize {
    GROUP_GOSSIP_BURST as usize / (bytes / GROUP_GOSSIP_UNIT_BYTES + 1)
}

#[test]
fn row_29_a_million_unknown_digests_take_no_more_than_a_few() {
    let mut bench = Bench::new();
    let neighbours = [peer(1), peer(2)];
    neighbours.iter().for_each(|neighbour| drop(bench.tell(Input::PeerJoined(*neighbour))));
    let digest = |n| Summary { members: 0, root: [n; 32], leaves: 1, sum: MAX_GROUP_SEQUENCE };
    let message = |n| Gossip::Digest { state: digest(n), bucket: 1 }.encode().expect("encodes");
    let (bytes, other) = (message(1), message(2));
    let at = bytes.iter().zip(&other).position(|(a, b)| a != b).expect("the root");
    let mut heard = 0;
    for n in 0..1_000_000u64 {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&n.to_be_bytes());
        let acceptance = bench.hear_from(neighbours[n as usize % 2], bytes);
        heard += usize::from(acceptance == Acceptance::Accept);
        if n % 100_000 == 0 {
            bench.now += SECOND;
            bench.assert_bounded();
        }
    }
    bench.assert_bounded();
    let most = 2 * (GROUP_GOSSIP_BURST + 10 * GROUP_GOSSIP_PER_SECOND) as usize;
    assert!(heard > 0 && heard <= most, "{heard} were even decoded");
    assert_eq!(bench.group.state().summary().leaves, 0);
    // Another neighbour is heard all the while.
    assert_eq!(bench.hear_from(peer(3), other), Acceptance::Accept);
}

#[test]
fn row_29_an_invented_state_is_refused_before_the_merge_and_costs_so_many_checks() {
    let mut bench = Bench::new();
    let (one, two) = (head(1, 5, 3, "x"), head(2, 5, 3, "x"));
    let bytes = update_of([forged(&one, &two)]).encode().expect("encodes");
    let neighbour = peer(1);
    let flood = |bench: &mut Bench| {
        let verdicts = (0..20_000).map(|_| bench.hear_from(neighbour, bytes.clone()));
        let (mut rejected, mut ignored) = (0, 0);
        verdicts.for_each(|acceptance| match acceptance {
            Acceptance::Reject => rejected += 1,
            Acceptance::Ignore => ignored += 1,
            Acceptance::Accept => panic!("an invented state was taken"),
        });
        assert_eq!(rejected + ignored, 20_000);
        rejected
    };
    assert_eq!(flood(&mut bench), fit(bytes.len()), "each has one head, so as many signatures were checked");
    bench.now += SECOND;
    let a_second = fit(bytes.len()) * GROUP_GOSSIP_PER_SECOND as usize / GROUP_GOSSIP_BURST as usize;
    assert!(flood(&mut bench).abs_diff(a_second) <= 1);
    bench.assert_bounded();
    assert_eq!(bench.group.state().summary(), State::new().summary());
    assert_eq!(
        bench.hear_from(peer(2), update_of([one.encode().to_vec()]).encode().expect("encodes")),
        Acceptance::Accept
    );
}

#[test]
fn no_head_is_smaller_than_the_unit_that_bounds_signature_checks() {
    let payload = Payload::inline(b"").expect("short");
    let smallest = GroupHead::sign(&key(1), &group(), 0, 1, payload, 0).expect("signs");
    // And its length in the list.
    assert!(smallest.encode().len() + 2 >= GROUP_GOSSIP_UNIT_BYTES, "{}", smallest.encode().len());
}

#[test]
fn row_29_forged_heads_are_rejected_and_nothing_beside_them_is_taken() {
    let (good, mine) = (head(3, 5, 3, "good"), head(1, 5, 3, "mine"));
    let elsewhere = head_in(&closed_group(), 1, 5, 3, "x");
    let with_key_of_another = {
        let (from, to) = (key(1).public().encode_protobuf(), key(2).public().encode_protobuf());
        let at = mine.encode().windows(from.len()).position(|window| window == from).expect("the key");
        let mut bytes = mine.encode().to_vec();
        bytes[at..at + to.len()].copy_from_slice(&to);
        bytes
    };
    let cut = mine.encode()[..mine.encode().len() - 1].to_vec();
    let raised = forged(&head(1, 5, 4, "mine"), &mine);
    for wrong in [with_key_of_another, elsewhere.encode().to_vec(), cut, forged(&mine, &good), raised, vec![]] {
        let mut bench = Bench::new();
        let (acceptance, effects) = bench.hear(3, &update_of([good.encode().to_vec(), wrong.clone()]));
        assert_eq!(acceptance, Acceptance::Reject);
        assert!(matches!(effects[..], [Effect::Event(Event::Misbehaved { .. })]));
        assert_eq!(bench.group.state().summary().leaves, 0);
        // By a request as well.
        let heads = HeadList::new([HeadBytes::new(wrong).expect("fits")]).expect("fits");
        let from = Cursor { base: [1; 32], after: None };
        let request = Request::Recover { from, state: bench.group.state().summary(), heads, members: None };
        assert_eq!(bench.group.serve(bench.now, peer(4), &request.encode().expect("encodes")), None);
    }
}

#[test]
fn a_false_head_that_is_no_news_to_us_is_not_passed_on_to_whom_it_could_be() {
    let mut bench = Bench::new();
    let known = head(1, 5, 9, "x");
    bench.hear(3, &update_of([known.encode().to_vec()]));
    let (older, another) = (head(1, 5, 7, "x"), head(1, 5, 8, "x"));
    assert_eq!(bench.hear(3, &update_of([older.encode().to_vec()])).0, Acceptance::Accept);
    assert_eq!(bench.hear(3, &update_of([forged(&another, &older)])).0, Acceptance::Reject);
    assert_eq!(bench.hear(3, &update_of([forged(&known, &older)])).0, Acceptance::Reject);
}

#[test]
fn row_29_a_number_inflated_by_its_own_producer_harms_nobody_else() {
    let mut pump = Pump::new(5, 3, 0.1);
    pump.run(SECOND);
    let bytes = update_of([head(9, NOW_MS, MAX_GROUP_SEQUENCE, "x").encode().to_vec()]).encode().expect("encodes");
    pump.tell(0, Input::Gossip { token: 0, author: peer(9), neighbour: peer(1), bytes });
    for n in 0..30 {
        pump.publish(n % 5);
        pump.run(Duration::from_millis(40));
    }
    pump.converge(60 * SECOND);
    for group in &pump.groups {
        let state = group.state().summary();
        assert_eq!((state.leaves, state.sum), (6, MAX_GROUP_SEQUENCE + 30));
    }
    // And it has no number left.
    let mut bench = Bench::new();
    bench.tell(Input::Restored(vec![head(9, NOW_MS, MAX_GROUP_SEQUENCE, "x")]));
    bench.tell(Input::AddProducer { key: Box::new(key(9)), session: Some(NOW_MS) });
    let effects = bench.tell(Input::Publish { producer: peer(9), payload: Payload::inline(b"x").expect("short") });
    assert!(matches!(effects[..], [Effect::Event(Event::Refused { .. })]), "{effects:?}");
}

#[test]
fn row_29_a_session_from_the_future_is_left_out_and_nobody_punished() {
    let mut bench = Bench::new();
    let ahead = |hours| update_of([head(1, NOW_MS + hours * HOUR_MS, 1, "x").encode().to_vec()]);
    assert_eq!(MAX_GROUP_SESSION_AHEAD_MS, 24 * HOUR_MS);
    assert_eq!(bench.hear(3, &ahead(25)), (Acceptance::Ignore, vec![]), "it may be our clock that is wrong");
    assert_eq!(bench.group.state().summary().leaves, 0);
    assert_eq!(bench.hear(3, &ahead(23)).0, Acceptance::Accept);
    assert_eq!(bench.group.state().summary().leaves, 1);
    bench.now += Duration::from_millis(HOUR_MS);
    assert_eq!(bench.hear(3, &ahead(25)).0, Acceptance::Accept, "an hour later it is taken");
}

#[test]
fn row_29_a_flood_of_lists_is_ignored_undecoded_beyond_its_rate() {
    let mut bench = Bench::closed();
    bench.tell(Input::Members(list(1, [1])));
    let large = MemberList::sign(&key(1), &closed_group(), 2, (2..900).map(peer).collect(), NOW_MS).expect("signs");
    let bytes = Gossip::Members(MemberBytes::new(large.encode()).expect("fits")).encode().expect("encodes");
    let neighbour = peer(1);
    let rejected = (0..100).filter(|_| bench.hear_from(neighbour, bytes.clone()) == Acceptance::Reject).count();
    assert_eq!(rejected, fit(bytes.len()));
    bench.assert_bounded();
    assert_eq!(bench.group.member_list(), Some(&list(1, [1])));
}

#[test]
fn row_29_heads_of_one_taken_off_the_list_come_back_by_no_way_and_nobody_is_punished() {
    let mut bench = Bench::closed();
    let (theirs, ours) = (head_in(&closed_group(), 2, 5, 3, "x"), head_in(&closed_group(), 1, 5, 3, "x"));
    bench.tell(Input::Members(list(1, [1, 2])));
    let update = update_of([theirs.encode().to_vec(), ours.encode().to_vec()]);
    assert_eq!(bench.hear(3, &update).0, Acceptance::Accept);
    bench.tell(Input::Members(list(2, [1])));
    assert_eq!(bench.group.state().heads().collect::<Vec<_>>(), [&ours]);
    // A neighbour that has not heard of it yet goes on.
    let (acceptance, effects) = bench.hear(3, &update);
    assert_eq!((acceptance, effects), (Acceptance::Ignore, vec![]));
    let wide = Gossip::Page { to: Cursor { base: [1; 32], after: None }, page: page_of(&[&theirs], 2) };
    assert_eq!(bench.hear(3, &wide).0, Acceptance::Ignore);
    let heads = produce::list([&theirs]).expect("fits");
    let state = Summary { members: 1, root: [1; 32], leaves: 1, sum: 3 };
    let request = Request::Recover { from: Cursor { base: [1; 32], after: None }, state, heads, members: None };
    let answer = bench.group.serve(bench.now, peer(4), &request.encode().expect("encodes")).expect("an answer");
    let Ok(Answer::Page(page)) = Answer::decode(&answer) else { panic!("a page") };
    assert_eq!(page.members.as_deref(), Some(list(2, [1]).encode()), "it is told why");
    assert_eq!(bench.group.state().heads().collect::<Vec<_>>(), [&ours]);
}

#[test]
fn a_page_of_less_than_we_know_silences_no_answer_to_a_call_to_all() {
    let heads: Vec<_> = (1..4).map(|n| head(n, 1, 3, "x")).collect();
    let to = Cursor { base: [1; 32], after: None };
    let answer_after = |page: Page| {
        let mut bench = Bench::new();
        bench.tell(Input::Restored(heads.clone()));
        assert_eq!(bench.hear(8, &Gossip::Recover { from: to, members: 0, bucket: 1 }).0, Acceptance::Accept);
        bench.hear(9, &Gossip::Page { to, page });
        bench.now += bench.group.config.answer_delay;
        bench.group.handle_timeout(bench.now);
        let mut effects = std::iter::from_fn(|| bench.group.poll_effect());
        effects.any(|effect| match effect {
            Effect::Gossip(bytes) => {
                matches!(Gossip::decode(&bytes), Ok(Gossip::Page { to: whose, .. }) if whose == to)
            }
            _ => false,
        })
    };
    let mut ordered: Vec<_> = heads.iter().collect();
    ordered.sort_by_key(|head| head.key());
    let [a, b, c] = ordered[..] else { panic!("three heads") };
    assert!(!answer_after(page_of(&[a, b, c], 0)), "another has answered");
    assert!(answer_after(page_of(&[], 0)), "it tells nothing");
    assert!(answer_after(page_of(&[a, b], 0)), "it leaves one out");
    let older = GroupHead::sign(&key(2), &group(), 1, 2, Payload::inline(b"x").expect("fits"), NOW_MS).expect("signs");
    let olds: Vec<_> = ordered.iter().map(|head| if head.key() == older.key() { &older } else { *head }).collect();
    assert!(answer_after(page_of(&olds, 0)), "one of it is older than ours");
    let part = Page { next: Some(a.key()), ..page_of(&[a], 0) };
    assert!(answer_after(part), "it ends long before it is full");
}

#[test]
fn a_page_of_nothing_does_not_end_our_call_to_all() {
    let mut bench = Bench::new();
    let from = Cursor { base: bench.group.state().summary().root, after: None };
    bench.group.wide = Some(Wide { from, pages: 0, deadline: bench.now + Duration::from_secs(5) });
    bench.hear(9, &Gossip::Page { to: from, page: page_of(&[], 0) });
    assert!(bench.group.wide.is_some() && !bench.group.is_initialized());
    bench.hear(8, &Gossip::Page { to: from, page: page_of(&[&head(1, 1, 3, "x")], 0) });
    assert!(bench.group.wide.is_none() && bench.group.is_initialized());
}

fn page_of(heads: &[&GroupHead], members: u64) -> Page {
    let state = Summary { members, root: [1; 32], leaves: 5, sum: 99 };
    let heads = produce::list(heads.iter().copied()).expect("fits");
    Page { state, difference: false, heads, next: None, members: None }
}

/// Begins a recovery with peer 1, and gives its call.
fn begin(bench: &mut Bench) -> CallId {
    let claim = Summary { members: bench.group.state().summary().members, root: [1; 32], leaves: 5, sum: 99 };
    let bytes = Request::Hello(claim).encode().expect("encodes");
    asked(&bench.tell(Input::Request { token: 1, peer: peer(1), bytes })).expect("it is asked").0
}

#[test]
fn row_29_pages_that_lie_are_dropped_whole_and_another_is_asked() {
    let mut sorted = [head(1, 5, 3, "x"), head(2, 5, 3, "x"), head(3, 5, 3, "x")];
    sorted.sort_by_key(GroupHead::key);
    let [a, b, c] = &sorted;
    let forged =
        Page { heads: HeadList::new([HeadBytes::new(forged(a, b)).expect("fits")]).expect("fits"), ..page_of(&[], 0) };
    let twice = page_of(&[a, b, a], 0);
    let beyond = Page { next: Some(b.key()), ..page_of(&[a, b, c], 0) };
    for page in [forged, twice, beyond] {
        let mut bench = Bench::new();
        let call = begin(&mut bench);
        // Another has claimed it too.
        let digest = Gossip::Digest { state: page.state, bucket: 1 };
        bench.hear(7, &digest);
        let effects = bench.tell(Input::Answered { call, bytes: Answer::Page(page).encode().expect("encodes") });
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Event(Event::Misbehaved { .. }))), "{effects:?}");
        let whom = effects.iter().find_map(|effect| match effect {
            Effect::Request { peer, .. } => Some(*peer),
            _ => None,
        });
        assert_eq!(whom, Some(peer(7)));
        assert_eq!(bench.group.state().summary().leaves, 0);
        bench.assert_bounded();
    }
}

#[test]
fn row_29_foreign_heads_in_a_page_are_left_and_the_rest_of_it_taken() {
    let mut bench = Bench::closed();
    bench.tell(Input::Members(list(1, [1, 2])));
    let mut heads = [1, 2, 3, 4].map(|n| head_in(&closed_group(), n, 5, 3, "x"));
    heads.sort_by_key(GroupHead::key);
    let call = begin(&mut bench);
    let page = page_of(&heads.iter().collect::<Vec<_>>(), 1);
    bench.tell(Input::Answered { call, bytes: Answer::Page(page).encode().expect("encodes") });
    let producers: std::collections::BTreeSet<_> = bench.group.state().heads().map(GroupHead::producer).collect();
    assert_eq!(producers, [peer(1), peer(2)].into());
}

#[test]
fn row_29_a_recovery_takes_no_more_heads_than_a_group_has() {
    let mut bench = Bench::new();
    // Sessions too far ahead: parsed and left out, so that nobody has to sign so many.
    let first = NOW_MS + 30 * HOUR_MS;
    let signed = GroupHead::sign(&key(2), &group(), first, 1, Payload::inline(b"").expect("short"), 0).expect("signs");
    let at = signed.encode().windows(8).position(|window| window == first.to_be_bytes()).expect("the session");
    let heads = |page: u64| {
        let sessions = (0..MAX_GROUP_PAGE_HEADS as u64).map(|n| first + page * MAX_GROUP_PAGE_HEADS as u64 + n);
        let heads = sessions.map(|session| {
            let mut bytes = signed.encode().to_vec();
            bytes[at..at + 8].copy_from_slice(&session.to_be_bytes());
            HeadBytes::new(bytes).expect("fits")
        });
        HeadList::new(heads.collect::<Vec<_>>()).expect("fits")
    };
    let (mut call, mut pages) = (begin(&mut bench), 0);
    let effects = loop {
        let next = LeafKey { session: first + (pages + 1) * MAX_GROUP_PAGE_HEADS as u64 - 1, ..signed.key() };
        let page = Page { heads: heads(pages), next: Some(next), ..page_of(&[], 0) };
        let effects = bench.tell(Input::Answered { call, bytes: Answer::Page(page).encode().expect("encodes") });
        let Some((next, _)) = asked(&effects) else { break effects };
        (call, pages) = (next, pages + 1);
    };
    assert_eq!(pages, (MAX_GROUP_LEAVES / MAX_GROUP_PAGE_HEADS + 1) as u64, "some may be news since the first page");
    assert!(matches!(effects[..], [Effect::Event(Event::Misbehaved { .. }), ..]), "{effects:?}");
    bench.assert_bounded();
}

#[test]
fn an_honest_burst_through_one_neighbour_is_heard_whole() {
    let mut bench = Bench::new();
    let mut newest: Vec<_> = (0..5).map(|n| head(n, NOW_MS, 1, &"x".repeat(60))).collect();
    let (mut taken, neighbour) = (0, peer(1));
    for sequence in 1..=200 {
        for n in 0..5 {
            newest[usize::from(n)] = head(n, NOW_MS, sequence, &"x".repeat(60));
            let others: Vec<_> = newest.iter().filter(|head| head.producer() != peer(n.into())).collect();
            let Gossip::Update(update) = update_of([newest[usize::from(n)].encode().to_vec()]) else { unreachable!() };
            let update = Update { vector: produce::list(others).expect("fits"), ..update };
            let bytes = Gossip::Update(update).encode().expect("encodes");
            assert!(bytes.len() > 900 && bytes.len() <= 1200, "as large as it may be: {}", bytes.len());
            taken += usize::from(bench.hear_from(neighbour, bytes) == Acceptance::Accept);
        }
    }
    assert_eq!(taken, 1000, "all at one instant");
    assert_eq!(bench.group.state().summary().sum, 1000);
}

#[test]
fn what_is_dropped_in_a_flood_is_found_by_digest() {
    let mut pump = Pump::new(3, 11, 0.0);
    pump.run(SECOND);
    for _ in 0..2 * fit(4096) {
        [1, 2].into_iter().for_each(|to| pump.flood(to, 0, vec![0xff; 4096]));
    }
    (0..20).for_each(|n| pump.publish(n % 3));
    // What it gains by time is used up at once.
    for _ in 0..100 {
        (0..8).for_each(|n| pump.flood(1 + n % 2, 0, vec![0xff]));
        pump.run(Duration::from_millis(1));
    }
    pump.converge(60 * SECOND);
    pump.told_all(20);
    assert!(pump.ignored > 0, "some of it was dropped");
}

#[test]
fn row_35_all_converge_over_partitions_in_any_order_and_nothing_is_told_twice() {
    for seed in 0..4 {
        let mut pump = Pump::new(6, 40 + seed, 0.05);
        pump.twice = true;
        for n in 0..120 {
            // Delays of 5 to 50 ms, publications each 10 ms: messages overtake one another.
            pump.publish(n % 6);
            pump.run(Duration::from_millis(10));
            if n % 30 == 0 {
                pump.cut = (pump.cut + 2) % 5;
            }
        }
        pump.cut = 0;
        pump.converge(60 * SECOND);
        pump.told_all(120);
    }
}
