use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::testing::{NOW_MS, head};

fn state(heads: &[GroupHead]) -> State {
    let mut state = State::new();
    state.apply(NOW_MS, heads.iter().cloned());
    state
}

fn merged(one: &State, two: &State) -> State {
    let mut all = one.clone();
    all.merge(NOW_MS, two);
    all
}

/// What the state says, without the tree.
fn content(state: &State) -> Vec<GroupHead> {
    state.heads().cloned().collect()
}

/// The tree, count and sum from nothing but the leaves.
fn rebuilt(state: &State) -> Summary {
    self::state(&content(state)).summary()
}

fn heads() -> impl Strategy<Value = Vec<GroupHead>> {
    // Few producers, sessions, numbers and texts, so that heads replace and fork one another.
    let one = (0..4u16, 0..3u64, 1..5u64, prop::bool::weighted(0.1));
    prop::collection::vec(one, 0..24).prop_map(|all| {
        let text = |odd| if odd { "odd" } else { "even" };
        all.into_iter().map(|(producer, session, seq, odd)| head(producer, session, seq, text(odd))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_order_of_application_does_not_matter((one, two) in heads().prop_flat_map(|heads| {
        (Just(heads.clone()), Just(heads).prop_shuffle())
    })) {
        let (mut slow, one) = (State::new(), state(&one));
        for head in two {
            slow.apply(NOW_MS, [head]);
        }
        prop_assert_eq!(content(&one), content(&slow));
        prop_assert_eq!(one.summary(), slow.summary());
        prop_assert_eq!(one.summary(), rebuilt(&slow));
    }

    #[test]
    fn merge_is_idempotent_commutative_and_associative(a in heads(), b in heads(), c in heads()) {
        let (a, b, c) = (state(&a), state(&b), state(&c));
        prop_assert_eq!(content(&merged(&a, &a)), content(&a));
        prop_assert_eq!(content(&merged(&a, &b)), content(&merged(&b, &a)));
        let (left, right) = (merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(content(&left), content(&right));
        prop_assert_eq!(left.summary(), right.summary());
    }

    #[test]
    fn roots_are_equal_where_states_are(a in heads(), b in heads()) {
        let vector = |state: &State| state.heads().map(|head| (head.key(), head.sequence())).collect::<Vec<_>>();
        let (a, b) = (state(&a), state(&b));
        prop_assert_eq!(vector(&a) == vector(&b), a.summary().root == b.summary().root);
        prop_assert!(a.summary() == b.summary() || a.summary().is_ahead_of(&b.summary()) != b.summary().is_ahead_of(&a.summary()));
    }
}

#[test]
fn numbers_that_were_jumped_are_told_with_the_head_that_jumped_them() {
    let mut state = State::new();
    let applied = state.apply(NOW_MS, [head(1, 5, 3, "c"), head(1, 5, 7, "g"), head(1, 5, 6, "f"), head(1, 5, 7, "g")]);
    assert_eq!(applied, [Applied::New { first: 1 }, Applied::New { first: 4 }, Applied::Known, Applied::Known]);
    assert_eq!((state.summary().leaves, state.summary().sum), (1, 7));
}

#[test]
fn two_heads_of_one_number_are_told_once_and_all_who_saw_both_keep_the_same() {
    let (one, two) = (head(1, 5, 3, "one"), head(1, 5, 3, "two"));
    let (mut a, mut b) = (state(std::slice::from_ref(&one)), state(std::slice::from_ref(&two)));
    assert!(matches!(&a.apply(NOW_MS, [two.clone()])[..], [Applied::Fork { other, .. }] if **other == one));
    assert!(matches!(&b.apply(NOW_MS, [one.clone()])[..], [Applied::Fork { other, .. }] if **other == two));
    assert_eq!(content(&a), content(&b));
    assert_eq!(a.apply(NOW_MS, [one, two]), [Applied::Known, Applied::Known]);
}

#[test]
fn a_session_is_taken_up_to_a_day_ahead_and_no_further() {
    let ahead = |ms| state(&[head(1, NOW_MS + ms, 1, "x")]).summary().leaves;
    assert_eq!((ahead(MAX_GROUP_SESSION_AHEAD_MS), ahead(MAX_GROUP_SESSION_AHEAD_MS + 1)), (1, 0));
}

#[test]
fn the_highest_sessions_of_a_producer_count_in_whatever_order_they_come() {
    let all: Vec<_> = (0..=MAX_GROUP_SESSIONS as u64).map(|session| head(1, session, 2, "x")).collect();
    let (up, down) = (state(&all), state(&all.iter().rev().cloned().collect::<Vec<_>>()));
    assert_eq!(up.summary(), down.summary());
    assert_eq!(up.summary(), rebuilt(&up));
    assert_eq!(up.summary().leaves, MAX_GROUP_SESSIONS as u64);
    assert_eq!(up.heads().map(GroupHead::session).min(), Some(1));
    let mut up = up;
    assert_eq!(up.apply(NOW_MS, [all[0].clone()]), [Applied::Refused(Refused::OldSession)], "nor is it told again");
}

#[test]
fn a_full_group_takes_no_more_leaves_and_still_takes_newer_heads() {
    let mut state = State::new();
    let sessions = MAX_GROUP_SESSIONS as u64;
    let producers = (MAX_GROUP_LEAVES / MAX_GROUP_SESSIONS) as u16;
    state.apply(NOW_MS, (0..producers).flat_map(|n| (0..sessions).map(move |session| head(n, session, 1, "x"))));
    assert_eq!(state.summary().leaves, MAX_GROUP_LEAVES as u64);
    let applied = state.apply(NOW_MS, [head(producers, 1, 1, "x"), head(0, 1, 2, "y"), head(0, sessions, 1, "z")]);
    assert_eq!(applied[0], Applied::Refused(Refused::Full));
    assert_eq!(applied[1..], [Applied::New { first: 2 }, Applied::New { first: 1 }]);

    // One leaf of all these is changed 200 times in less than it takes to build the tree once, ten times over.
    #[allow(clippy::disallowed_methods, reason = "a ratio of two times")]
    let took = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().max(Duration::from_micros(1))
    };
    let all = content(&state);
    let whole = took(&mut || assert_eq!(self::state(&all).summary(), state.summary()));
    let news: Vec<_> = (3..203).map(|sequence| head(9, 1, sequence, "x")).collect();
    let mut changed = state.clone();
    let single = took(&mut || news.iter().for_each(|head| drop(changed.apply(NOW_MS, [head.clone()])))) / 200;
    assert!(single * 20 < whole, "one change took {single:?}, all of them {whole:?}");
}
