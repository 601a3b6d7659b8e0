//! When a record is put again.

use dagmesh_core::limits::RECORD_RETRY_SECS;

use super::*;

#[test]
fn records_are_put_again_while_they_are_held_unless_another_does_so() {
    let interval_ms = RECORD_REPUBLISH_SECS * 1000;
    let (own, other, again) = (record(1, "own", 1, ""), record(2, "other", 1, ""), record(3, "again", 1, ""));
    let mut node = Node::new(small());
    node.put(NOW_MS, Source::Own, &own).expect("is stored");
    node.put(NOW_MS, from(2), &other).expect("is stored");
    node.put(NOW_MS, from(3), &again).expect("is stored");
    let first_ms = node.store.poll_timeout().expect("something is to come");
    assert!((NOW_MS + interval_ms * 3 / 4..=NOW_MS + interval_ms * 5 / 4).contains(&first_ms));
    // Others put all three again at half the time: only our own keeps its turn.
    for record in [&own, &again] {
        node.put(NOW_MS + interval_ms / 2, from(4), record).expect("is stored");
    }
    let due_ms = NOW_MS + interval_ms * 5 / 4;
    node.timeout(due_ms);
    let mut keys = [own.key(), other.key()];
    let mut republished = std::mem::take(&mut node.republished);
    keys.sort();
    republished.sort();
    // The jitter may have brought the third one's turn as well.
    republished.retain(|key| *key != again.key());
    assert_eq!(republished, keys);
    node.timeout(due_ms);
    assert!(node.republished.is_empty(), "each once");
    node.store.republished(due_ms, &own.key());
    node.timeout(due_ms + interval_ms * 5 / 4);
    assert!(node.republished.contains(&own.key()));
    node.timeout(NOW_MS + DAY_MS);
    assert_eq!(node.store.counts().0, 0);
    node.republished.clear();
    node.timeout(NOW_MS + 2 * DAY_MS);
    assert!(node.republished.is_empty(), "not what has expired");
}

#[test]
fn after_a_restart_records_are_put_again_over_the_whole_interval_and_few_at_once() {
    let interval_ms = RECORD_REPUBLISH_SECS * 1000;
    let mut node = Node::new(StoreConfig { max_records: 200, max_per_source: 200, ..small() });
    for n in 0..200 {
        node.put(NOW_MS, from(n), &record(n, "name", 1, "")).expect("is stored");
    }
    let now_ms = NOW_MS + HOUR_MS;
    let mut node = node.restart(now_ms);
    let (mut quarters, mut last_ms) = ([0; 4], now_ms);
    while let Some(at_ms) = node.store.poll_timeout().filter(|at_ms| *at_ms < now_ms + interval_ms * 3 / 4) {
        assert!(at_ms >= last_ms, "time goes on");
        last_ms = at_ms;
        node.timeout(at_ms);
        assert!(node.republished.len() <= MAX_RECORD_REPUBLISHES);
        for key in std::mem::take(&mut node.republished) {
            quarters[((at_ms - now_ms) * 4 / interval_ms) as usize] += 1;
            node.store.republished(at_ms, &key);
        }
    }
    assert!(quarters[..3].iter().all(|count| (25..=80).contains(count)), "{quarters:?} of 200, 50 a quarter");
}

#[test]
fn a_republish_that_is_never_reported_does_not_block_the_others() {
    let mut node = Node::new(small());
    for n in 0..10 {
        node.put(NOW_MS, from(n), &record(n, "name", 1, "")).expect("is stored");
    }
    let mut now_ms = NOW_MS;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        now_ms = node.store.poll_timeout().expect("something is to come");
        node.timeout(now_ms);
        seen.extend(std::mem::take(&mut node.republished));
    }
    assert_eq!(seen.len(), 10, "by {} min", (now_ms - NOW_MS) / 60_000);
}

#[test]
fn an_own_record_that_too_few_hold_is_put_again_soon_and_each_time_later() {
    let (interval_ms, retry_ms) = (RECORD_REPUBLISH_SECS * 1000, RECORD_RETRY_SECS * 1000);
    let (own, other) = (record(1, "own", 1, ""), record(2, "other", 1, ""));
    let mut node = Node::new(StoreConfig { republish: Duration::from_secs(RECORD_REPUBLISH_SECS), ..small() });
    node.put(NOW_MS, Source::Own, &own).expect("is stored");
    node.put(NOW_MS, from(2), &other).expect("is stored");
    node.store.put_ended(NOW_MS, &other.key(), false);
    assert!(
        node.store.poll_timeout().expect("something is to come") >= NOW_MS + interval_ms * 3 / 4,
        "another's is its owner's business"
    );
    let mut now_ms = NOW_MS;
    for n in 0..12 {
        node.store.put_ended(now_ms, &own.key(), false);
        let wait_ms = (retry_ms << n).min(interval_ms);
        let due_ms = node.store.republishes.iter().find(|(_, at)| *at == own.key()).expect("is to come").0;
        assert!((wait_ms * 3 / 4..=wait_ms * 5 / 4).contains(&(due_ms - now_ms)), "{n}: {}", due_ms - now_ms);
        node.timeout(due_ms);
        assert!(std::mem::take(&mut node.republished).contains(&own.key()));
        now_ms = due_ms;
        if now_ms > NOW_MS + 12 * HOUR_MS {
            break;
        }
    }
    node.store.put_ended(now_ms, &own.key(), true);
    node.store.put_ended(now_ms, &own.key(), false);
    let due_ms = node.store.republishes.iter().find(|(_, at)| *at == own.key()).expect("is to come").0;
    assert!(due_ms <= now_ms + retry_ms * 5 / 4, "it begins anew");
}

#[test]
fn what_too_few_hold_is_put_in_a_moment_once_there_are_nodes_also_after_a_restart() {
    let (lacking, held) = (record(1, "own", 1, ""), record(2, "own", 1, ""));
    let mut node = Node::new(small());
    for (record, enough) in [(&lacking, false), (&held, true)] {
        node.put(NOW_MS, Source::Own, record).expect("is stored");
        node.store.put_ended(NOW_MS, &record.key(), enough);
    }
    node.store.hurry(NOW_MS);
    node.timeout(NOW_MS + 2500);
    assert_eq!(node.republished, [lacking.key()]);
    // While it is being put, it is not put once more.
    node.store.hurry(NOW_MS + 2500);
    node.timeout(NOW_MS + 5000);
    assert_eq!(node.republished, [lacking.key()]);
    // What others have of our own is not known after a restart.
    let mut node = node.restart(NOW_MS + HOUR_MS);
    node.store.hurry(NOW_MS + HOUR_MS);
    node.timeout(NOW_MS + HOUR_MS + 2500);
    let mut keys = [lacking.key(), held.key()];
    keys.sort();
    node.republished.sort();
    assert_eq!(node.republished, keys);
}
