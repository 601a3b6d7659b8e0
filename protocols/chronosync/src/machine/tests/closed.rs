//! Closed groups: who may write is on a list that the owner signs.

use super::*;
use crate::{message::MemberBytes, testing::list};

fn member(n: u16, sequence: u64) -> GroupHead {
    head_in(&closed_group(), n, 5, sequence, "x")
}

fn members(bytes: &[u8]) -> Gossip {
    Gossip::Members(MemberBytes::new(bytes).expect("fits"))
}

fn is_change(effect: &Effect) -> bool {
    matches!(effect, Effect::StoreMembers(_) | Effect::Event(Event::MembersChanged { .. }))
}

#[test]
fn before_a_list_is_known_only_the_owner_may_write_and_then_those_on_it() {
    let mut bench = Bench::closed();
    let all = bench.update(&[member(0, 1), member(1, 1), member(2, 1)]);
    assert_eq!(bench.hear(3, &all).0, Acceptance::Ignore, "its author may know a list that we do not");
    assert_eq!(bench.group.state().heads().map(GroupHead::producer).collect::<Vec<_>>(), [peer(0)]);
    let effects = bench.tell(Input::Members(list(1, [1])));
    assert!(matches!(
        &effects[..],
        [Effect::StoreMembers(stored), Effect::Event(Event::MembersChanged { version: 1 })] if *stored == list(1, [1])
    ));
    assert_eq!(bench.hear(3, &all).0, Acceptance::Ignore);
    assert_eq!((bench.group.state().summary().leaves, bench.group.state().summary().members), (2, 1));
    assert_eq!(bench.hear(3, &bench.update(&[member(1, 2)])).0, Acceptance::Accept);
    assert_eq!(bench.group.member_list(), Some(&list(1, [1])));
}

#[test]
fn who_is_no_member_is_told_so_and_uses_no_number() {
    let mut bench = Bench::closed();
    bench.tell(Input::Members(list(1, [])));
    let effects = bench.tell(Input::AddProducer { key: Box::new(key(1)), session: None });
    let [Effect::PersistSession { id, .. }] = effects[..] else { panic!("{effects:?}") };
    bench.tell(Input::Persisted(id));
    let publish = || Input::Publish { producer: peer(1), payload: Payload::inline(b"x").expect("short") };
    let refused = |effects: &[Effect]| matches!(effects, [Effect::Event(Event::Refused { .. })]);
    assert!(refused(&bench.tell(publish())));
    bench.tell(Input::Members(list(2, [1])));
    let effects = bench.tell(publish());
    let [Effect::PersistHead { id, head }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(head.sequence(), 1);
    // Taken off the list while it is being written: it is never said, and its number stays used.
    bench.tell(Input::Members(list(3, [])));
    assert!(refused(&bench.tell(Input::Persisted(*id))));
    assert_eq!(bench.group.state().summary().leaves, 0);
    bench.tell(Input::Members(list(4, [1])));
    assert!(matches!(&bench.tell(publish())[..], [Effect::PersistHead { head, .. }] if head.sequence() == 2));
}

#[test]
fn one_taken_off_the_list_and_back_on_it_over_a_restart_uses_no_number_twice() {
    let (mut bench, stored) = (Bench::closed(), member(1, 41));
    bench.tell(Input::Members(list(2, [2])));
    assert_eq!(bench.tell(Input::Restored(vec![stored.clone()])), []);
    assert_eq!(bench.group.state().summary().leaves, 0, "what the store still holds of it is left");
    let effects = bench.tell(Input::AddProducer { key: Box::new(key(1)), session: Some(5) });
    assert!(matches!(effects[..], [Effect::PersistSession { session, .. }] if session > 5), "{effects:?}");
    let mut bench = Bench::closed();
    bench.tell(Input::Members(list(3, [1])));
    bench.tell(Input::Restored(vec![stored]));
    let effects = bench.tell(Input::AddProducer { key: Box::new(key(1)), session: Some(5) });
    assert!(matches!(effects[..], [Effect::Event(Event::SessionOpened { session: 5, .. })]), "{effects:?}");
}

#[test]
fn a_new_list_takes_the_leaves_of_others_out_at_every_member_alike() {
    let mut pump = Pump::closed(5, 1, 0.0);
    pump.tell(0, Input::Members(list(1, 1..5)));
    pump.run(SECOND);
    (0..20).for_each(|n| pump.publish(n % 5));
    pump.converge(SECOND);
    pump.told_all(20);
    let recovered = pump.recover_requests;
    pump.tell(0, Input::Members(list(2, 1..4)));
    pump.run(Duration::from_millis(60));
    assert!(pump.is_whole(), "one message does it");
    let state = pump.groups[4].state().summary();
    assert_eq!((state.leaves, state.sum, state.members), (4, 16, 2));
    assert_eq!(pump.recover_requests, recovered);
    pump.run(60 * SECOND);
    assert!(pump.is_whole(), "nobody brings them back");
    assert_eq!(pump.recover_requests, recovered);
}

#[test]
fn lists_reach_all_under_loss_and_over_a_partition() {
    for seed in 0..4 {
        let mut pump = Pump::closed(6, seed, 0.2);
        pump.tell(0, Input::Members(list(1, 1..6)));
        pump.converge(60 * SECOND);
        for n in 0..30 {
            pump.publish(n % 6);
            pump.run(Duration::from_millis(50));
        }
        pump.converge(60 * SECOND);
        pump.told_all(30);
        pump.cut = 3;
        // The owner is on one side; on the other one publishes whom it takes off.
        pump.tell(0, Input::Members(list(2, 1..5)));
        (0..10).for_each(|_| pump.publish(5));
        (0..10).for_each(|_| pump.publish(4));
        pump.run(20 * SECOND);
        assert_eq!(pump.groups[3].state().summary().members, 1);
        pump.cut = 0;
        pump.converge(60 * SECOND);
        for group in &pump.groups {
            assert_eq!(group.member_list(), Some(&list(2, 1..5)));
            assert_eq!((group.state().summary().leaves, group.state().summary().sum), (5, 35));
        }
    }
}

#[test]
fn a_newcomer_is_given_the_list_with_the_first_page() {
    let mut pump = Pump::closed(2, 4, 0.0);
    (0..2).for_each(|n| pump.tell(n, Input::Members(list(3, 1..200))));
    let heads: Vec<_> = (100..200).map(|n| member(n, 3)).collect();
    (0..2).for_each(|n| pump.restore(n, heads.clone()));
    pump.run(SECOND);
    let newcomer = pump.add();
    pump.run(Duration::from_millis(201));
    assert_eq!(pump.groups[newcomer].state().summary(), pump.groups[0].state().summary());
    assert_eq!(pump.groups[newcomer].member_list(), Some(&list(3, 1..200)));
    assert_eq!((pump.recovered, pump.recover_requests), (100, 1));
}

#[test]
fn a_list_alone_is_worth_a_recovery_and_the_whole_group_is_called_for_it() {
    let mut pump = Pump::closed(3, 5, 0.0);
    pump.run(SECOND);
    pump.gossip_lost = true;
    pump.tell(0, Input::Members(list(1, 1..3)));
    pump.run(SECOND);
    pump.gossip_lost = false;
    assert_eq!(pump.groups[1].member_list(), None);
    pump.converge(60 * SECOND);
    assert_eq!(pump.groups[1].member_list(), Some(&list(1, 1..3)), "the roots are equal, the lists are not");

    pump.gossip_lost = true;
    pump.tell(0, Input::Members(list(2, 1..4)));
    pump.run(SECOND);
    pump.gossip_lost = false;
    pump.requests_fail = true;
    pump.converge(120 * SECOND);
    assert_eq!(pump.groups[2].member_list(), Some(&list(2, 1..4)));
}

#[test]
fn who_asks_one_with_an_older_list_gives_it_the_newer_one() {
    let mut bench = Bench::closed();
    bench.tell(Input::Members(list(1, [1])));
    let claim = Summary { members: 1, root: [1; 32], leaves: 1, sum: 9 };
    let hello = Input::Request { token: 1, peer: peer(1), bytes: Request::Hello(claim).encode().expect("encodes") };
    let (call, _) = asked(&bench.tell(hello)).expect("it is asked");
    bench.tell(Input::Members(list(2, [1, 2])));
    let page = Page { state: claim, difference: true, heads: HeadList::default(), next: None, members: None };
    let bytes = Answer::Page(page.clone()).encode().expect("encodes");
    let effects = bench.tell(Input::Answered { call, bytes: bytes.clone() });
    let given = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Request { call, bytes, .. } => match Request::decode(bytes) {
                Ok(Request::Recover { members, .. }) => members.map(|list| (*call, list)),
                _ => None,
            },
            _ => None,
        })
    };
    let (call, list_given) = given(&effects).expect("the list");
    assert_eq!(&*list_given, list(2, [1, 2]).encode());
    assert_eq!(given(&bench.tell(Input::Answered { call, bytes })), None, "once");

    // And the other side takes it, and the heads of its members with it.
    let mut other = Bench::closed();
    let from = Cursor { base: [1; 32], after: None };
    let heads = produce::list(&[member(2, 3)]).expect("fits");
    let recover = Request::Recover { from, state: bench.group.state().summary(), heads, members: Some(list_given) };
    let answer = other.group.serve(other.now, peer(9), &recover.encode().expect("encodes")).expect("an answer");
    let Ok(Answer::Page(page)) = Answer::decode(&answer) else { panic!("a page") };
    assert_eq!((page.state.members, page.state.leaves, page.members), (2, 1, None));
}

#[test]
fn row_29_lists_of_those_who_are_not_the_owner_are_rejected_and_older_ones_ignored() {
    let mut bench = Bench::closed();
    bench.tell(Input::Members(list(5, [1])));
    let ids = || [peer(2)].into();
    let stranger = MemberList::sign(&key(1), &closed_group(), 9, ids(), NOW_MS).expect("signs");
    let elsewhere = MemberList::sign(&key(0), &group(), 9, ids(), NOW_MS).expect("signs");
    let newer = list(9, [2]);
    let mut forged = newer.encode().to_vec();
    *forged.last_mut().expect("a signature") ^= 1;
    let cut = &newer.encode()[..60];
    for bytes in [stranger.encode(), elsewhere.encode(), &forged[..], cut] {
        let (acceptance, effects) = bench.hear(3, &members(bytes));
        assert_eq!(acceptance, Acceptance::Reject);
        assert!(matches!(effects[..], [Effect::Event(Event::Misbehaved { .. })]));
    }
    bench.tell(Input::Members(stranger));
    bench.tell(Input::Members(elsewhere));
    for version in 1..5 {
        assert_eq!(bench.hear(3, &members(list(version, [1, 2]).encode())), (Acceptance::Ignore, vec![]));
    }
    assert_eq!(bench.hear(3, &members(list(5, [1]).encode())), (Acceptance::Accept, vec![]), "ours, for who lacks it");
    assert_eq!(bench.group.member_list(), Some(&list(5, [1])));
    let mut open = Bench::new();
    assert_eq!(open.hear(3, &members(list(1, [1]).encode())), (Acceptance::Ignore, vec![]));
    assert_eq!(open.group.state().summary().members, 0);
}

#[test]
fn of_two_lists_of_one_version_all_keep_the_same_and_tell_of_it_once() {
    let (one, two) = (list(1, [1]), list(1, [2]));
    let kept = if one.outranks(&two) { &one } else { &two };
    for (first, then) in [(&one, &two), (&two, &one)] {
        let mut bench = Bench::closed();
        bench.tell(Input::Members(first.clone()));
        let (acceptance, effects) = bench.hear(3, &members(then.encode()));
        assert_eq!(acceptance, Acceptance::Accept);
        assert_eq!(effects.iter().any(is_change), kept == then);
        let told = |effects: &[Effect]| {
            effects.iter().filter(|e| matches!(e, Effect::Event(Event::MembersEquivocation { version: 1 }))).count()
        };
        assert_eq!(told(&effects), 1);
        assert_eq!(told(&bench.hear(3, &members(first.encode())).1), 0);
        assert_eq!(bench.group.member_list(), Some(kept));
    }
    // Members who were each given one of them find out as soon as somebody publishes.
    let mut pump = Pump::closed(4, 3, 0.0);
    pump.tell(0, Input::Members(list(1, [1, 2, 3])));
    pump.run(SECOND);
    pump.gossip_lost = true;
    pump.tell(0, Input::Members(list(2, [1, 2])));
    pump.tell(1, Input::Members(list(2, [1, 3])));
    pump.run(Duration::from_millis(300));
    pump.gossip_lost = false;
    for n in 0..4 {
        if pump.groups[n].is_member(&peer(n)) {
            pump.publish(n);
        }
    }
    pump.converge(60 * SECOND);
    pump.run(40 * SECOND);
    let lists: Vec<_> = pump.groups.iter().map(Group::member_list).collect();
    assert!(lists.iter().all(|list| *list == lists[0]), "{lists:?}");
}
