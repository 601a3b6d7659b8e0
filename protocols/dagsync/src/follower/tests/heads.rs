//! Heads: which is taken, and how it is asked for.

use super::{super::*, bench::*};

#[test]
fn a_new_follow_asks_the_publisher_for_its_head_and_syncs_it() {
    let mut bench = Bench::new();
    let effects = bench.follow(key(1));
    assert_eq!(bench.state(&key(1)), State::Waiting);
    assert_eq!(bench.status(&key(1)).reason.as_deref(), Some("asks the publisher for its head"));
    let start = sync(&bench.found(query(&effects), head(1, 3)));
    assert_eq!((start.key, start.head, start.latest, start.attempt), (key(1), head(1, 3), None, 1));
    assert_eq!(start.providers, [peer(1)]);
    assert_eq!(bench.state(&key(1)), State::Syncing);
}

#[test]
fn only_a_higher_number_is_taken() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 3);
    bench.finish(start.id);
    for older in [1, 2, 3] {
        assert_eq!(bench.announce(head(1, older)), [], "head {older}");
    }
    assert_eq!(bench.follower.head(&key(1)), Some(&head(1, 3)));
    let effects = bench.announce(head(1, 4));
    assert_eq!(events(&effects)[0], Event::HeadAnnounced { key: key(1), head: latest(1, 4) });
    assert_eq!(sync(&effects).latest, Some(latest(1, 3)), "the stop link is what is held");
}

#[test]
fn of_heads_without_numbers_the_last_one_counts_until_latest_stands_at_it() {
    let bare = |text: &str| Head::Bare { key: key(1), entry: entry(text) };
    let mut bench = Bench::new();
    let effects = bench.follow(key(1));
    let start = sync(&bench.found(query(&effects), bare("a")));
    assert_eq!((start.head.clone(), start.latest), (bare("a"), None));
    assert_eq!(bench.announce(bare("a")), []);
    // The newest replaces the one that waits.
    bench.announce(bare("b"));
    bench.announce(bare("c"));
    bench.tell(Input::LatestMoved { id: start.id, entry: entry("a"), seq: 7, content: entry("content") });
    let next = sync(&bench.tell(Input::SyncFinished { id: start.id, summary: Summary::default() }));
    assert_eq!((next.head, next.latest), (bare("c"), Some(Latest { entry: entry("a"), seq: 7 })));
    bench.tell(Input::LatestMoved { id: next.id, entry: entry("c"), seq: 9, content: entry("content") });
    let done = bench.tell(Input::SyncFinished { id: next.id, summary: Summary::default() });
    assert_eq!(syncs(&done), []);
    let status = bench.follower.status(bench.now, &key(1)).expect("followed");
    assert_eq!((status.state, status.announced.map(|head| head.entry)), (State::InSync, Some(entry("c"))));
}

#[test]
fn a_fork_keeps_the_old_head_and_is_told_once_with_both() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 3);
    bench.finish(start.id);
    let [other, third] = ["other", "third"].map(|text| head_of(1, "main", 3, text));
    let [kept, forked] = ["", "other"].map(|text| Box::new(signed(1, "main", 3, text)));
    let told = Event::Equivocation { key: key(1), known: kept, other: forked };
    assert_eq!(events(&bench.announce(other.clone())), [told]);
    assert_eq!(bench.announce(other), []);
    assert_eq!(bench.announce(third), []);
    assert_eq!(bench.follower.head(&key(1)), Some(&head(1, 3)));
    // The next number may fork anew.
    bench.announce(head(1, 4));
    assert!(matches!(events(&bench.announce(head_of(1, "main", 4, "other")))[..], [Event::Equivocation { .. }]));
}

#[test]
fn announcements_of_feeds_that_are_not_followed_are_ignored() {
    let mut bench = Bench::new();
    bench.follow(key(1));
    assert_eq!(bench.announce(head(2, 1)), []);
    assert_eq!(bench.announce(head_of(1, "other", 1, "")), []);
    assert_eq!(bench.follower.len(), 1);
}

#[test]
fn an_announcement_alone_is_enough_to_sync() {
    let mut bench = Bench::new();
    let call = query(&bench.follow(key(1)));
    assert_eq!(sync(&bench.announce(head(1, 1))).head, head(1, 1));
    // The answer that comes late says nothing new.
    assert_eq!(bench.found(call, head(1, 1)), []);
}

#[test]
fn a_head_known_from_the_store_is_synced_at_once_and_asked_for_as_well() {
    let mut bench = Bench::new();
    let head = Some(Box::new(head(1, 5)));
    let effects =
        bench.tell(Input::Follow { key: key(1), policy: Policy::default(), latest: Some(latest(1, 2)), head });
    let start = sync(&effects);
    assert_eq!((start.head.seq(), start.latest), (Some(5), Some(latest(1, 2))));
    query(&effects);
}

#[test]
fn what_is_held_already_is_not_synced_again() {
    let mut bench = Bench::new();
    let held = Some(latest(1, 5));
    let effects = bench.tell(Input::Follow { key: key(1), policy: Policy::default(), latest: held, head: None });
    assert_eq!(syncs(&bench.found(query(&effects), head(1, 5))), []);
    assert_eq!(bench.state(&key(1)), State::InSync);
    assert_eq!(bench.status(&key(1)).sentence(), None);
}

#[test]
fn a_publisher_that_cannot_be_reached_is_looked_for_and_then_asked_again() {
    let mut bench = Bench::new();
    let call = query(&bench.follow(key(1)));
    let call = find(&bench.tell(Input::HeadFailed { call, reason: "refused".into() }));
    let call = query(&bench.tell(Input::PeerFound(call)));
    sync(&bench.found(call, head(1, 1)));
}

#[test]
fn a_publisher_that_stays_away_is_tried_again_with_a_reason_a_person_can_read() {
    let mut bench = Bench::with(|config| config.retry_min = Duration::from_secs(12));
    let call = query(&bench.follow(key(1)));
    let call = find(&bench.tell(Input::HeadFailed { call, reason: "refused".into() }));
    let call = query(&bench.tell(Input::PeerFound(call)));
    assert_eq!(
        bench.tell(Input::HeadFailed { call, reason: "refused".into() }).iter().filter(|e| is_query(e)).count(),
        0
    );
    let status = bench.status(&key(1));
    assert_eq!(status.state, State::Waiting);
    let sentence = status.sentence().expect("a reason");
    let next = status.next_try.expect("a next try");
    let wanted = format!("publisher cannot be reached: refused; next try in {} s", next.as_millis().div_ceil(1000));
    assert_eq!(sentence, wanted);
    assert!((12..=15).contains(&next.as_secs()), "{next:?}");

    let call = query(&bench.until(is_query));
    let call = find(&bench.tell(Input::HeadFailed { call, reason: "refused".into() }));
    bench.tell(Input::PeerNotFound { call, reason: "nobody knows it".into() });
    let sentence = bench.status(&key(1)).sentence().expect("a reason");
    let wanted = "publisher cannot be reached: refused; and it was not found: nobody knows it; next try in ";
    assert!(sentence.starts_with(wanted), "{sentence}");
}

#[test]
fn waits_for_an_unreachable_publisher_grow_up_to_their_bound() {
    let mut bench = Bench::new();
    let config = Config::new(own(), 7);
    let mut call = query(&bench.follow(key(1)));
    let mut waits = Vec::new();
    for _ in 0..20 {
        let search = find(&bench.tell(Input::HeadFailed { call, reason: "refused".into() }));
        bench.tell(Input::PeerNotFound { call: search, reason: "nowhere".into() });
        let failed = bench.now;
        call = query(&bench.until(is_query));
        waits.push(bench.now - failed);
    }
    assert!(waits.iter().all(|wait| (config.retry_min..=config.retry_max).contains(wait)), "{waits:?}");
    assert!(waits[0] < Duration::from_secs(1) && waits[3] > waits[0] * 3, "{waits:?}");
    assert!(waits[19] >= config.retry_max.mul_f64(0.75), "{waits:?}");
    assert!(waits.windows(2).skip(12).any(|pair| pair[0] != pair[1]), "there is jitter: {waits:?}");
}

#[test]
fn a_publisher_without_a_head_is_no_failure_and_is_asked_again_later() {
    let mut bench = Bench::new();
    let call = query(&bench.follow(key(1)));
    bench.tell(Input::HeadFound { call, head: None });
    let status = bench.status(&key(1));
    assert_eq!(status.reason.as_deref(), Some("publisher has published nothing in this feed yet"));
    assert!(status.next_try.expect("a next try") > Duration::from_secs(200));
    query(&bench.until(is_query));
}

#[test]
fn an_answer_with_the_head_of_another_feed_is_a_failure() {
    let mut bench = Bench::new();
    let call = query(&bench.follow(key(1)));
    assert_eq!(syncs(&bench.found(call, head(2, 9))), []);
    assert!(bench.status(&key(1)).reason.expect("a reason").contains("another feed"));
    assert_eq!(bench.follower.head(&key(1)), None);
}

#[test]
fn the_head_is_asked_for_from_time_to_time_with_jitter() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    bench.finish(start.id);
    let check = Config::new(own(), 7).head_check;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = bench.now;
        let call = query(&bench.until(is_query));
        waits.push(bench.now - before);
        assert_eq!(syncs(&bench.found(call, head(1, 1))), []);
    }
    assert!(waits.iter().all(|wait| (check.mul_f64(0.75)..=check.mul_f64(1.25)).contains(wait)), "{waits:?}");
    assert!(waits.windows(2).any(|pair| pair[0] != pair[1]), "{waits:?}");
}

#[test]
fn a_publisher_that_connects_is_asked_at_once_but_not_over_and_over() {
    let mut bench = Bench::new();
    let call = query(&bench.follow(key(1)));
    bench.found(call, head(1, 1));
    assert_eq!(bench.tell(Input::Connected(peer(1))), [], "asked a moment ago");
    bench.later(Duration::from_secs(20));
    assert_eq!(bench.tell(Input::Connected(peer(2))), [], "somebody else");
    query(&bench.tell(Input::Connected(peer(1))));
    assert_eq!(bench.tell(Input::Connected(peer(1))), [], "already under way");
}

#[test]
fn a_publisher_that_connects_while_it_is_looked_for_is_asked_at_once() {
    let mut bench = Bench::new();
    let call = query(&bench.follow(key(1)));
    let search = find(&bench.tell(Input::HeadFailed { call, reason: "refused".into() }));
    let call = query(&bench.tell(Input::Connected(peer(1))));
    assert_eq!(bench.tell(Input::PeerFound(search)), [], "no longer of interest");
    sync(&bench.found(call, head(1, 1)));
}

#[test]
fn a_look_up_that_is_never_answered_counts_as_failed() {
    let mut bench = Bench::new();
    let never = query(&bench.follow(key(1)));
    find(&bench.next());
    bench.next();
    assert!(bench.status(&key(1)).reason.expect("a reason").contains("no answer within"));
    query(&bench.until(is_query));
    assert_eq!(bench.found(never, head(1, 1)), [], "an answer after its time is no answer");
}

#[test]
fn look_ups_at_once_are_capped_and_the_others_wait_their_turn() {
    let mut bench = Bench::with(|config| config.max_lookups = 2);
    let calls: Vec<_> = (1..=5).flat_map(|n| bench.follow(key(n))).filter(is_query).collect();
    assert_eq!(calls.len(), 2);
    let mut open: VecDeque<_> = calls.into();
    for done in 1..=5u8 {
        let Some(Effect::QueryHead { call, key }) = open.pop_front() else { panic!("{done} done and none left") };
        let n = (1..=5).find(|n| peer(*n) == key.publisher).expect("known");
        open.extend(bench.found(call, head(n, 1)).into_iter().filter(is_query));
        assert!(open.len() <= 2);
    }
    assert!(open.is_empty());
}

#[test]
fn follows_are_taken_at_the_cap_and_refused_beyond_it() {
    let mut bench = Bench::with(|config| config.max_follows = 2);
    bench.follow(key(1));
    bench.follow(key(2));
    assert!(matches!(events(&bench.follow(key(3)))[..], [Event::FollowRefused { .. }]));
    assert_eq!((bench.follower.len(), bench.follower.is_followed(&key(3))), (2, false));
    assert!(events(&bench.follow(key(2))).is_empty(), "one that is followed already may be followed again");
    bench.tell(Input::Unfollow(key(1)));
    assert!(events(&bench.follow(key(3))).is_empty());
}

#[test]
fn a_refused_publisher_is_neither_asked_nor_synced_until_it_is_allowed_again() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    let effects = bench.tell(Input::SetRefused([peer(1), peer(2)].into()));
    assert_eq!(cancels(&effects), [start.id]);
    bench.tell(Input::Cancelled(start.id));
    assert_eq!(bench.announce(head(1, 2)), []);
    let effects = bench.follow(key(2));
    assert!(!effects.iter().any(is_query), "{effects:?}");
    for n in [1, 2] {
        assert_eq!(bench.state(&key(n)), State::Failed);
        assert_eq!(bench.status(&key(n)).reason.as_deref(), Some("this publisher is refused here"));
    }
    assert_eq!(bench.follower.poll_timeout(), None);
    assert_eq!(bench.tell(Input::Connected(peer(1))), []);

    let effects = bench.tell(Input::SetRefused(BTreeSet::new()));
    assert_eq!(sync(&effects).key, key(1));
    assert_eq!(effects.iter().filter(|e| is_query(e)).count(), 2);
}
