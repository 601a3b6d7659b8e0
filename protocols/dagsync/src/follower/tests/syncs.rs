//! Syncs: which runs when, from whom, and what becomes of it.

use super::{super::*, bench::*};

#[test]
fn one_runs_one_waits_and_the_newest_head_replaces_the_waiting_one() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    for seq in [2, 5, 4, 9] {
        assert_eq!(syncs(&bench.announce(head(1, seq))), [], "one at a time");
    }
    let effects = bench.finish(start.id);
    let next = sync(&effects);
    assert_eq!((next.head.seq(), next.latest), (Some(9), Some(latest(1, 1))));
    assert_eq!(syncs(&bench.finish(next.id)), [], "nothing is left");
    assert_eq!(bench.state(&key(1)), State::InSync);
}

#[test]
fn a_finished_sync_is_told_with_what_it_moved_and_how_long_it_took() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 2);
    bench.later(Duration::from_secs(3));
    let summary = Summary { entries: 2, blocks: 10, bytes: 1000, from: Vec::new() };
    let effects = bench.tell(Input::SyncFinished { id: start.id, summary: summary.clone() });
    let took = Duration::from_secs(3);
    let finished = Event::SyncFinished { id: start.id, key: key(1), head: latest(1, 2), summary, took };
    assert_eq!(events(&effects), [finished]);
    assert_eq!(bench.status(&key(1)).latest, Some(latest(1, 2)));
}

#[test]
fn latest_moves_entry_by_entry_and_never_back() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 3);
    for seq in [1, 2] {
        let content = entry("content");
        let moved = Input::LatestMoved { id: start.id, entry: latest(1, seq).entry, seq, content };
        let told = Event::LatestMoved { key: key(1), latest: latest(1, seq), content };
        assert_eq!(events(&bench.tell(moved)), [told]);
        assert_eq!(bench.status(&key(1)).latest, Some(latest(1, seq)));
    }
    let late = Input::LatestMoved { id: start.id, entry: latest(1, 1).entry, seq: 1, content: entry("content") };
    bench.tell(late);
    assert_eq!(bench.status(&key(1)).latest, Some(latest(1, 2)));
}

#[test]
fn progress_and_stalls_are_shown() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    bench.tell(Input::SyncProgress { id: start.id, known_blocks: 100, have_blocks: 40 });
    let status = bench.status(&key(1));
    assert_eq!((status.known_blocks, status.have_blocks, status.stalled), (100, 40, Some(Duration::ZERO)));
    bench.later(Duration::from_secs(9));
    bench.tell(Input::SyncProgress { id: start.id, known_blocks: 120, have_blocks: 40 });
    let status = bench.status(&key(1));
    assert_eq!((status.known_blocks, status.stalled), (120, Some(Duration::from_secs(9))));
}

#[test]
fn syncs_at_once_are_capped_and_the_longest_waiting_is_next() {
    let mut bench = Bench::with(|config| config.max_syncs = 2);
    let running: Vec<_> = (1..=5)
        .flat_map(|n| {
            let call = query(&bench.follow(key(n)));
            syncs(&bench.found(call, head(n, 1)))
        })
        .collect();
    assert_eq!(running.len(), 2);
    assert_eq!(bench.status(&key(3)).sentence().as_deref(), Some("waits for its turn"));
    let mut order = Vec::new();
    let mut next = running[0].clone();
    while let [sync] = &syncs(&bench.finish(next.id))[..] {
        next = sync.clone();
        order.push(next.key.publisher);
    }
    assert_eq!(order, [peer(3), peer(4), peer(5)]);
}

#[test]
fn one_publisher_with_many_feeds_leaves_room_for_others() {
    let mut bench = Bench::with(|config| (config.max_syncs, config.max_syncs_per_publisher) = (4, 2));
    let mut started = Vec::new();
    for feed in ["a", "b", "c", "d", "e"] {
        bench.follow(key_of(1, feed));
        started.extend(syncs(&bench.announce(head_of(1, feed, 1, ""))));
    }
    assert_eq!(started.len(), 2);
    assert_eq!(
        sync(&{
            bench.follow(key(2));
            bench.announce(head(2, 1))
        })
        .key,
        key(2)
    );
}

#[test]
fn an_endless_sync_makes_room_when_others_wait_and_comes_back_after_them() {
    let mut bench = Bench::with(|config| config.max_syncs = 1);
    let endless = bench.syncing(1, 1000);
    let slice = Config::new(own(), 7).slice;
    assert_eq!(cancels(&bench.later(slice * 3)), [], "nobody waits");
    bench.follow(key(2));
    assert_eq!(syncs(&bench.announce(head(2, 1))), []);
    let effects = bench.until(|effect| matches!(effect, Effect::CancelSync(_)));
    assert_eq!(cancels(&effects), [endless.id]);
    assert_eq!(syncs(&effects), [], "not before it has ended");
    let other = sync(&bench.tell(Input::Cancelled(endless.id)));
    assert_eq!(other.key, key(2));
    assert_eq!(bench.state(&key(1)), State::Behind);
    let again = sync(&bench.finish(other.id));
    assert_eq!((again.key, again.attempt), (key(1), 1), "making room is no failure");
}

#[test]
fn a_failed_sync_is_tried_again_after_a_growing_wait_with_its_reason_shown() {
    let mut bench = Bench::new();
    let mut start = bench.syncing(1, 1);
    let mut waits = Vec::new();
    for attempt in 2..6 {
        let effects = bench.fail(start.id, peer(1), FailureKind::Retryable);
        let reason = format!("sync from {} failed: it broke", peer(1));
        assert!(
            matches!(&events(&effects)[..], [Event::SyncFailed { retry_in: Some(_), reason: r, .. }] if *r == reason)
        );
        let status = bench.status(&key(1));
        assert_eq!((status.state, status.reason), (State::Behind, Some(reason)));
        waits.push(status.next_try.expect("a next try"));
        let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
        start = sync(&bench.tell(Input::ProvidersFound { call, providers: vec![] }));
        assert_eq!(start.attempt, attempt);
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    bench.finish(start.id);
    assert_eq!(bench.status(&key(1)).sentence(), None);
}

#[test]
fn a_sync_that_moved_starts_the_waits_over() {
    let mut bench = Bench::new();
    let mut start = bench.syncing(1, 1);
    let mut again = |bench: &mut Bench, moved: bool| {
        if moved {
            bench.tell(Input::SyncProgress { id: start.id, known_blocks: 9, have_blocks: 1 });
        }
        bench.fail(start.id, peer(1), FailureKind::Retryable);
        let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
        start = sync(&bench.tell(Input::ProvidersFound { call, providers: vec![] }));
        start.attempt
    };
    assert_eq!([false, false, false].map(|moved| again(&mut bench, moved)), [2, 3, 4]);
    assert_eq!(again(&mut bench, true), 2);
}

#[test]
fn providers_are_the_publisher_then_those_found_with_the_failing_one_last() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    bench.fail(start.id, peer(1), FailureKind::Retryable);
    let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
    let named = vec![peer(3), peer(1), own(), peer(2), peer(3)];
    let start = sync(&bench.tell(Input::ProvidersFound { call, providers: named.clone() }));
    assert_eq!(
        start.providers,
        [peer(3), peer(2), peer(1)],
        "the publisher failed; ourselves and doubles are left out"
    );

    bench.tell(Input::ProviderFailed { id: start.id, provider: peer(3), bad: false });
    bench.fail(start.id, peer(3), FailureKind::Retryable);
    let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
    let start = sync(&bench.tell(Input::ProvidersFound { call, providers: named }));
    assert_eq!(start.providers, [peer(2), peer(1), peer(3)]);

    // A sync that ends well makes the publisher the first again.
    bench.finish(start.id);
    assert_eq!(sync(&bench.announce(head(1, 2))).providers, [peer(1), peer(3), peer(2)]);
}

#[test]
fn a_bad_provider_is_left_out_while_there_are_others() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    bench.fail(start.id, peer(1), FailureKind::BadPeer);
    let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
    let start = sync(&bench.tell(Input::ProvidersFound { call, providers: vec![peer(2)] }));
    assert_eq!(start.providers, [peer(2)]);
    bench.fail(start.id, peer(2), FailureKind::BadPeer);
    let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
    let start = sync(&bench.tell(Input::ProvidersFound { call, providers: vec![peer(2)] }));
    assert_eq!(start.providers, [peer(1), peer(2)], "with nobody else left, all are tried");
}

#[test]
fn a_bad_provider_stays_out_for_its_time_though_another_one_was_honest() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    bench.fail(start.id, peer(1), FailureKind::BadPeer);
    let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
    let start = sync(&bench.tell(Input::ProvidersFound { call, providers: vec![peer(2)] }));
    bench.finish(start.id);
    let start = sync(&bench.announce(head(1, 2)));
    assert_eq!(start.providers, [peer(2)]);
    bench.finish(start.id);
    bench.later(Duration::from_secs(limits::BAD_PROVIDER_SECS));
    assert_eq!(sync(&bench.announce(head(1, 3))).providers, [peer(2), peer(1)]);
}

#[test]
fn providers_are_taken_up_to_the_cap() {
    let mut bench = Bench::with(|config| config.max_providers = 4);
    let start = bench.syncing(1, 1);
    bench.fail(start.id, peer(1), FailureKind::Retryable);
    let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
    let start = sync(&bench.tell(Input::ProvidersFound { call, providers: (2..40).map(peer).collect() }));
    assert_eq!(start.providers, [peer(2), peer(3), peer(4), peer(1)]);
}

#[test]
fn a_fatal_failure_of_a_head_that_was_overtaken_meanwhile_is_none_of_the_newer_one() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    bench.announce(head(1, 2));
    let effects = bench.fail(start.id, peer(1), FailureKind::Fatal);
    assert!(matches!(&events(&effects)[..], [Event::SyncFailed { retry_in: Some(_), .. }]), "{effects:?}");
    let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
    let start = sync(&bench.tell(Input::ProvidersFound { call, providers: vec![] }));
    assert_eq!(start.head, head(1, 2));
    bench.fail(start.id, peer(1), FailureKind::Fatal);
    assert_eq!(bench.state(&key(1)), State::Failed);
}

#[test]
fn a_fatal_failure_waits_for_a_newer_head_or_a_person() {
    for by_person in [false, true] {
        let mut bench = Bench::new();
        let start = bench.syncing(1, 1);
        let effects = bench.fail(start.id, peer(1), FailureKind::Fatal);
        assert!(matches!(&events(&effects)[..], [Event::SyncFailed { retry_in: None, .. }]));
        assert_eq!((bench.state(&key(1)), bench.status(&key(1)).next_try), (State::Failed, None));
        for _ in 0..20 {
            let effects = bench.next();
            assert_eq!(syncs(&effects), []);
        }
        if by_person {
            sync(&bench.tell(Input::Retry(key(1))));
        } else {
            assert_eq!(syncs(&bench.announce(head(1, 2))), [], "not at once: announcements must not drive it");
            let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
            sync(&bench.tell(Input::ProvidersFound { call, providers: vec![] }));
        }
    }
}

#[test]
fn a_newer_head_shortens_a_long_wait_but_does_not_end_it() {
    let mut bench = Bench::with(|config| config.retry_min = Duration::from_secs(200));
    let start = bench.syncing(1, 1);
    bench.fail(start.id, peer(1), FailureKind::Retryable);
    assert!(bench.status(&key(1)).next_try.expect("a next try") >= Duration::from_secs(200));
    let mut starts = 0;
    for seq in 2..50 {
        starts += syncs(&bench.announce(head(1, seq))).len();
    }
    assert_eq!(starts, 0, "a flood of heads is no flood of syncs");
    assert_eq!(bench.status(&key(1)).next_try, Some(Duration::from_millis(limits::NEWS_RETRY_MS)));
}

#[test]
fn a_publisher_that_comes_back_ends_the_wait() {
    let mut bench = Bench::with(|config| config.retry_max = Duration::from_secs(1000));
    let start = bench.syncing(1, 1);
    let mut id = start.id;
    for _ in 0..12 {
        bench.fail(id, peer(1), FailureKind::Retryable);
        bench.tell(Input::Retry(key(1)));
        id = bench.follower.run_of(&key(1)).expect("a person's retry starts it");
        bench.fail(id, peer(1), FailureKind::Retryable);
        let call = search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
        id = sync(&bench.tell(Input::ProvidersFound { call, providers: vec![] })).id;
    }
    bench.fail(id, peer(1), FailureKind::Retryable);
    bench.tell(Input::Connected(peer(1)));
    assert!(bench.status(&key(1)).next_try.expect("a next try") <= Config::new(own(), 7).retry_min);
}

#[test]
fn unfollow_cancels_what_runs_and_tells_when_it_is_over() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    let effects = bench.tell(Input::Unfollow(key(1)));
    assert_eq!((cancels(&effects), events(&effects)), (vec![start.id], vec![]));
    assert!(bench.follower.is_empty());
    assert_eq!(bench.announce(head(1, 2)), []);
    assert_eq!(bench.tell(Input::Cancelled(start.id)), [Effect::Event(Event::Unfollowed(key(1)))]);
    assert_eq!(bench.follower.poll_timeout(), None, "nothing is left of it");
    bench.follow(key(2));
    assert_eq!(events(&bench.tell(Input::Unfollow(key(2)))), [Event::Unfollowed(key(2))]);
}

#[test]
fn a_feed_followed_anew_waits_for_the_old_sync_to_end() {
    let mut bench = Bench::new();
    let old = bench.syncing(1, 1);
    bench.tell(Input::Unfollow(key(1)));
    bench.follow(key(1));
    assert_eq!(syncs(&bench.announce(head(1, 2))), [], "never two for one feed");
    let new = sync(&bench.tell(Input::Cancelled(old.id)));
    assert_eq!((new.key, new.head.seq()), (key(1), Some(2)));
    assert_eq!(bench.finish(old.id), [], "an end after the end changes nothing");
}

#[test]
fn a_set_latest_starts_a_running_sync_anew_from_there() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 9);
    let set = Input::SetLatest { key: key(1), latest: Some(latest(1, 5)) };
    assert_eq!(cancels(&bench.tell(set)), [start.id]);
    let next = sync(&bench.tell(Input::Cancelled(start.id)));
    assert_eq!(next.latest, Some(latest(1, 5)));
    bench.finish(next.id);

    // None walks all of it again, although it is in sync. An end that crosses the cancel does not count.
    let all = sync(&bench.tell(Input::SetLatest { key: key(1), latest: None }));
    assert_eq!(all.latest, None);
    bench.tell(Input::SetLatest { key: key(1), latest: Some(latest(1, 2)) });
    let once_more = sync(&bench.finish(all.id));
    assert_eq!(once_more.latest, Some(latest(1, 2)));
}

#[test]
fn the_policy_is_carried_along_and_a_change_starts_a_running_sync_anew() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 9);
    let policy = Policy { depth: Some(3), keep: Some(1), first_sync_depth: Some(2) };
    let follow = |policy| Input::Follow { key: key(1), policy, latest: None, head: None };
    assert_eq!(cancels(&bench.tell(follow(policy))), [start.id]);
    let start = sync(&bench.tell(Input::Cancelled(start.id)));
    assert_eq!(start.policy, policy);
    assert_eq!(cancels(&bench.tell(follow(policy))), [], "the same policy changes nothing");
}

#[test]
fn close_cancels_all_and_waits_for_the_ends() {
    let mut bench = Bench::new();
    let starts = [bench.syncing(1, 1), bench.syncing(2, 1)];
    let effects = bench.tell(Input::Close);
    assert_eq!(cancels(&effects), starts.each_ref().map(|start| start.id));
    assert_eq!(bench.announce(head(1, 2)), []);
    assert_eq!(bench.follow(key(3)), []);
    assert_eq!(bench.tell(Input::Cancelled(starts[0].id)), []);
    assert_eq!(events(&bench.finish(starts[1].id)).last(), Some(&Event::Closed));
    assert_eq!(bench.follower.poll_timeout(), None);
    assert_eq!(events(&Bench::new().tell(Input::Close)), [Event::Closed], "with nothing running, at once");
}

#[test]
fn a_sync_cancelled_from_outside_is_tried_again() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    bench.tell(Input::Cancelled(start.id));
    assert_eq!(bench.state(&key(1)), State::Behind);
    search(&bench.until(|effect| matches!(effect, Effect::FindProviders { .. })));
}

#[test]
fn a_reason_from_outside_is_cut_to_its_bound() {
    let mut bench = Bench::new();
    let start = bench.syncing(1, 1);
    let reason = "ü".repeat(10_000);
    bench.tell(Input::SyncFailed { id: start.id, provider: None, reason, kind: FailureKind::Retryable });
    assert!(bench.status(&key(1)).reason.expect("a reason").len() < limits::MAX_REASON_BYTES + 100);
}

#[test]
fn each_change_of_state_is_told_once() {
    let mut bench = Bench::new();
    let mut states = Vec::new();
    let mut note = |effects: Vec<Effect>| {
        for effect in &effects {
            if let Effect::Event(Event::StateChanged(status)) = effect {
                states.push(status.state.as_str());
            }
        }
        effects
    };
    let call = query(&note(bench.follow(key(1))));
    let start = sync(&note(bench.found(call, head(1, 1))));
    note(bench.tell(Input::SyncProgress { id: start.id, known_blocks: 1, have_blocks: 1 }));
    note(bench.fail(start.id, peer(1), FailureKind::Retryable));
    let call = search(&note(bench.until(|effect| matches!(effect, Effect::FindProviders { .. }))));
    let start = sync(&note(bench.tell(Input::ProvidersFound { call, providers: vec![] })));
    note(bench.finish(start.id));
    assert_eq!(states, ["waiting", "behind", "syncing", "behind", "syncing", "in_sync"]);
}
