mod republish;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    error::Code,
    hash::sha256,
    ipns::{IpnsDraft, IpnsRecord, Validity},
    record::{Draft, Record},
    testing::{HOUR_MS, NOW_MS, draft, key, peer, record},
};

const DAY_MS: u64 = 24 * HOUR_MS;

fn small() -> StoreConfig {
    let config = StoreConfig::new(peer(1000), 1);
    StoreConfig { max_records: 16, max_per_source: 12, max_own: 2, max_marks: 16, ..config }
}

/// A store, and the disk that its effects are written to.
struct Node {
    store: Store,
    rows: BTreeMap<Vec<u8>, Row>,
    marks: BTreeMap<Vec<u8>, Mark>,
    republished: Vec<Vec<u8>>,
}

impl Node {
    fn new(config: StoreConfig) -> Self {
        Self { store: Store::new(config), rows: BTreeMap::new(), marks: BTreeMap::new(), republished: Vec::new() }
    }

    fn put(&mut self, now_ms: u64, source: Source, record: &Record) -> Result<Stored, RecordError> {
        let stored = self.store.put(now_ms, source, &record.key(), record.encode());
        self.drain();
        stored
    }

    fn timeout(&mut self, now_ms: u64) {
        self.store.handle_timeout(now_ms);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.store.poll_effect() {
            match effect {
                StoreEffect::Save(row) => drop(self.rows.insert(row.key.clone(), row)),
                StoreEffect::Delete(key) => drop(self.rows.remove(&key)),
                StoreEffect::SaveMark(key, mark) => drop(self.marks.insert(key, mark)),
                StoreEffect::DeleteMark(key) => drop(self.marks.remove(&key)),
                StoreEffect::Republish(record) => self.republished.push(record.key().to_vec()),
            }
        }
    }

    /// Killed and started again with what is on the disk.
    fn restart(self, now_ms: u64) -> Self {
        let mut node = Self::new(self.store.config.clone());
        (node.rows, node.marks) = (self.rows.clone(), self.marks.clone());
        node.store.restore(now_ms, self.rows.into_values(), self.marks);
        node.drain();
        node
    }

    fn holds(&self, now_ms: u64, record: &Record) -> bool {
        self.store.get(now_ms, &record.key()).is_some_and(|held| held.record.bytes() == record.encode())
    }

    /// What is on the disk is what is in memory.
    fn check(&self, now_ms: u64) {
        let held: Vec<_> = self.store.iter(now_ms).map(|held| held.record.bytes()).collect();
        let disk: Vec<_> = self.rows.values().map(|row| row.bytes.as_slice()).collect();
        assert_eq!(held, disk);
        assert_eq!(self.store.counts(), (self.rows.len(), self.marks.len()));
    }
}

const FRIEND: u16 = 500;

fn from(n: u16) -> Source {
    Source::Peer(peer(n))
}

fn expiring(owner: u16, sequence: u64, from_ms: u64, life_ms: u64) -> Record {
    let draft = Draft { timestamp_ms: from_ms, expires_ms: from_ms + life_ms, ..draft("name", sequence, "value") };
    Record::sign(&key(owner), draft).expect("signs")
}

/// Of a key from the node of the tests.
fn distance(key: &[u8]) -> Vec<u8> {
    let own = sha256(&[&peer(1000).to_bytes()]);
    sha256(&[key]).iter().zip(own).map(|(byte, own)| byte ^ own).collect()
}

#[test]
fn the_newest_is_kept_and_an_older_one_is_answered_with_it() {
    let mut node = Node::new(small());
    let records: Vec<_> = (0..4).map(|n| record(1, "name", n, &format!("value {n}"))).collect();
    assert_eq!(node.put(NOW_MS, from(1), &records[1]), Ok(Stored::First));
    assert_eq!(node.put(NOW_MS, from(1), &records[3]), Ok(Stored::Newer));
    assert_eq!(node.put(NOW_MS, from(2), &records[3]), Ok(Stored::Same));
    for older in [&records[0], &records[1], &records[2]] {
        let refused = node.put(NOW_MS, from(2), older).expect_err("is older");
        assert_eq!(refused.code(), Code::Superseded);
        assert!(!refused.is_proof());
        let RecordError::Superseded { newer } = &refused else { panic!("{refused}") };
        assert_eq!(newer.bytes(), records[3].encode());
        let crate::Answer::Superseded { record, timestamp_ms } = crate::Answer::refusal(&refused) else {
            panic!("an answer with the newer one");
        };
        assert_eq!((&*record, timestamp_ms), (records[3].encode(), NOW_MS));
    }
    assert!(node.holds(NOW_MS, &records[3]));
    node.check(NOW_MS);
}

#[test]
fn what_does_not_verify_is_not_stored_and_changes_nothing() {
    let mut node = Node::new(small());
    let held = record(1, "name", 1, "held");
    node.put(NOW_MS, from(1), &held).expect("is stored");
    let newer = record(1, "name", 2, "newer");
    let mut forged = newer.encode().to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    let mut put = |key: &[u8], bytes: &[u8], now_ms| {
        let refused = node.store.put(now_ms, from(2), key, bytes).expect_err("is refused");
        assert_eq!(node.store.poll_effect(), None);
        refused.code()
    };
    assert_eq!(put(&held.key(), &forged, NOW_MS), Code::Unverifiable);
    assert_eq!(put(&record(2, "name", 1, "").key(), newer.encode(), NOW_MS), Code::KeyMismatch);
    assert_eq!(put(&held.key(), newer.encode(), NOW_MS + DAY_MS), Code::BadRequest, "expired");
    assert_eq!(put(&held.key(), newer.encode(), NOW_MS - HOUR_MS), Code::BadRequest, "from the future");
    assert_eq!(put(&held.key(), &vec![0; 100_000], NOW_MS), Code::TooBig);
    assert_eq!(put(b"/other/name", newer.encode(), NOW_MS), Code::Unsupported);
    assert_eq!(put(&held.key(), b"junk", NOW_MS), Code::BadRequest);
    // Nor where its signature was checked before.
    for now_ms in [NOW_MS + DAY_MS, NOW_MS - HOUR_MS] {
        let refused = Store::new(small()).insert(now_ms, Source::Own, Verified::from(&held));
        assert_eq!(refused.map_err(|error| error.code()), Err(Code::BadRequest));
    }
    assert!(node.holds(NOW_MS, &held));
}

#[test]
fn an_old_copy_does_not_come_back_after_the_newer_one_has_expired() {
    let mut node = Node::new(small());
    let old = expiring(1, 1, NOW_MS, 20 * DAY_MS);
    let new = expiring(1, 2, NOW_MS, HOUR_MS);
    node.put(NOW_MS, from(1), &old).expect("is stored");
    node.put(NOW_MS, from(1), &new).expect("is stored");
    let mut now_ms = NOW_MS + HOUR_MS;
    assert_eq!(node.store.get(now_ms, &old.key()), None, "gone, before anybody swept");
    for swept in [false, true] {
        if swept {
            node.timeout(now_ms);
            assert_eq!(node.store.counts(), (0, 1));
        }
        let refused = node.put(now_ms, from(66), &old).expect_err("was outlived");
        assert_eq!(refused, RecordError::Outlived { sequence: 2 });
        assert_eq!(refused.code(), Code::Superseded);
    }
    // Not by a restart either, nor later; the owner goes on all the same.
    node = node.restart(now_ms);
    now_ms += 18 * DAY_MS;
    node.timeout(now_ms);
    assert!(node.put(now_ms, from(66), &old).is_err());
    let next = expiring(1, 3, now_ms, HOUR_MS);
    assert_eq!(node.put(now_ms, from(1), &next), Ok(Stored::First));
    node.check(now_ms);
    assert_eq!(node.store.counts(), (1, 0), "the record itself is the mark");
}

#[test]
fn what_was_seen_elsewhere_is_not_held_and_nothing_older_is_taken() {
    let mut node = Node::new(small());
    let [old, seen, new] = [1, 2, 3].map(|sequence| record(1, "name", sequence, "value"));
    node.store.saw(NOW_MS, peer(5), &Verified::from(&seen));
    node.store.saw(NOW_MS, peer(5), &Verified::from(&old));
    assert_eq!((node.store.counts(), node.store.get(NOW_MS, &seen.key())), ((0, 1), None));
    node.drain();
    let mut node = node.restart(NOW_MS);
    assert_eq!(node.put(NOW_MS, from(1), &old), Err(RecordError::Outlived { sequence: 2 }));
    assert_eq!(node.put(NOW_MS, from(1), &seen), Ok(Stored::First));
    // A record that is held says it all.
    node.store.saw(NOW_MS, peer(5), &Verified::from(&new));
    assert_eq!(node.store.counts(), (1, 0));
}

#[test]
fn a_mark_goes_once_nothing_older_can_be_valid() {
    let mut node = Node::new(small());
    let new = expiring(1, 2, NOW_MS, HOUR_MS);
    node.put(NOW_MS, from(1), &new).expect("is stored");
    node.timeout(NOW_MS + HOUR_MS);
    let ends_ms = NOW_MS + MAX_RECORD_LIFETIME_MS + MAX_RECORD_AHEAD_MS;
    assert_eq!(node.store.poll_timeout(), Some(ends_ms));
    node.timeout(ends_ms - 1);
    assert_eq!(node.store.counts(), (0, 1));
    node.timeout(ends_ms);
    assert_eq!(node.store.counts(), (0, 0));
    assert!(node.marks.is_empty());
}

#[test]
fn a_flood_of_one_peer_pushes_out_nothing_that_others_brought() {
    let mut node = Node::new(small());
    let honest: Vec<_> = (0..8).map(|n| record(n, "name", 1, "honest")).collect();
    for (n, record) in honest.iter().enumerate() {
        node.put(NOW_MS, from(n as u16), record).expect("is stored");
    }
    let mut refused = 0;
    for n in 0..200 {
        refused += u32::from(node.put(NOW_MS, from(66), &record(100 + n, "flood", 1, "flood")).is_err());
        node.check(NOW_MS);
        assert!(node.store.counts().0 <= 16);
    }
    assert!(refused > 100, "{refused} of 200 were refused");
    assert!(honest.iter().all(|record| node.holds(NOW_MS, record)), "what others brought is there");
    // And those who come late find room, at the cost of the flood.
    for n in 0..4 {
        let late = record(50 + n, "late", 1, "honest");
        assert_eq!(node.put(NOW_MS, from(50 + n), &late), Ok(Stored::First));
        assert!(node.holds(NOW_MS, &late) && honest.iter().all(|record| node.holds(NOW_MS, record)));
    }
    assert_eq!(node.store.count_of(&peer(66)), 4);
}

#[test]
fn one_peer_has_no_more_than_its_share_though_there_is_room() {
    let mut node = Node::new(small());
    for n in 0..40 {
        let _ = node.put(NOW_MS, from(66), &record(100 + n, "flood", 1, "flood"));
        assert!(node.store.count_of(&peer(66)) <= 12);
    }
    assert_eq!(node.store.counts().0, 12);
}

#[test]
fn of_many_peers_that_bring_one_each_those_with_the_closest_keys_stay() {
    let mut node = Node::new(small());
    let own = crate::hash::sha256(&[&peer(1000).to_bytes()]);
    let distance =
        |key: &[u8]| -> Vec<u8> { crate::hash::sha256(&[key]).iter().zip(own).map(|(byte, own)| byte ^ own).collect() };
    let mut all: Vec<_> = (0..120).map(|n| record(n, "name", 1, "one of many")).collect();
    for (n, record) in all.iter().enumerate() {
        let _ = node.put(NOW_MS, from(n as u16), record);
    }
    all.sort_by_key(|record| distance(&record.key()));
    let (close, far) = all.split_at(16);
    assert!(close.iter().all(|record| node.holds(NOW_MS, record)));
    assert!(!far.iter().any(|record| node.holds(NOW_MS, record)));
}

#[test]
fn a_record_that_several_brought_counts_for_who_has_fewest() {
    let mut node = Node::new(small());
    for n in 0..4 {
        node.put(NOW_MS, from(66), &record(n, "name", 1, "value")).expect("is stored");
    }
    let shared = record(0, "name", 1, "value");
    assert_eq!(node.put(NOW_MS, from(FRIEND), &shared), Ok(Stored::Same));
    assert_eq!((node.store.count_of(&peer(66)), node.store.count_of(&peer(FRIEND))), (3, 1));
    let newer = record(0, "name", 2, "value");
    assert_eq!(node.put(NOW_MS, from(66), &newer), Ok(Stored::Newer));
    assert_eq!((node.store.count_of(&peer(66)), node.store.count_of(&peer(FRIEND))), (3, 1));
    node.check(NOW_MS);
    assert_eq!(node.rows[&newer.key()].source, from(FRIEND));
}

#[test]
fn own_records_are_kept_whatever_comes_up_to_their_cap() {
    let mut node = Node::new(small());
    let own = [record(1, "a", 1, "own"), record(1, "b", 1, "own")];
    for record in &own {
        node.put(NOW_MS, Source::Own, record).expect("is stored");
    }
    let refused = node.put(NOW_MS, Source::Own, &record(1, "c", 1, "own")).expect_err("is one too many");
    assert_eq!(refused.code(), Code::Internal);
    for n in 0..60 {
        let _ = node.put(NOW_MS, from(n), &record(100 + n, "name", 1, "of others"));
    }
    assert!(own.iter().all(|record| node.holds(NOW_MS, record)));
    // Another device of the same owner has a newer one: it stays our own.
    let newer = record(1, "a", 2, "newer");
    node.put(NOW_MS, from(7), &newer).expect("is newer");
    assert_eq!(node.store.get(NOW_MS, &newer.key()).map(|held| held.source), Some(Source::Own));
    node.check(NOW_MS);
}

#[test]
fn what_made_room_leaves_a_mark_and_marks_are_bounded_and_fair() {
    let mut node = Node::new(small());
    let honest = expiring(1, 5, NOW_MS, HOUR_MS);
    node.put(NOW_MS, from(1), &honest).expect("is stored");
    node.timeout(NOW_MS + HOUR_MS);
    let now_ms = NOW_MS + 2 * HOUR_MS;
    for n in 0..100u64 {
        let short = expiring(100 + n as u16, 1, now_ms + n, 1);
        node.put(now_ms + n, from(66), &short).expect("is stored");
        node.timeout(now_ms + n + 1);
        node.check(now_ms + n + 1);
        assert!(node.store.counts().1 <= 16);
    }
    let old = expiring(1, 4, NOW_MS, 20 * DAY_MS);
    assert!(node.put(now_ms, from(66), &old).is_err(), "the mark of what another brought is still there");
    assert_eq!(node.marks.values().filter(|mark| mark.source == peer(66)).count(), 4, "a quarter of 16");
}

#[test]
fn what_made_room_may_come_again_but_nothing_older() {
    let mut owners = [1, 2];
    owners.sort_by_key(|owner| distance(&expiring(*owner, 1, NOW_MS, 1).key()));
    let [near, far] = owners;
    let mut node = Node::new(StoreConfig { max_records: 1, ..small() });
    let record = expiring(far, 5, NOW_MS, DAY_MS);
    node.put(NOW_MS, from(1), &record).expect("is stored");
    node.put(NOW_MS, from(2), &expiring(near, 1, NOW_MS, HOUR_MS)).expect("is closer");
    assert_eq!(node.store.counts(), (1, 1));
    let older = node.put(NOW_MS, from(66), &expiring(far, 4, NOW_MS, DAY_MS)).expect_err("is older");
    assert_eq!(older, RecordError::Outlived { sequence: 5 });
    let full = node.put(NOW_MS, from(1), &record).expect_err("is further away than what is held");
    assert_eq!(full.code(), Code::Internal);
    assert_eq!(node.store.counts(), (1, 1), "a refusal costs nothing");
    assert_eq!(node.put(NOW_MS + HOUR_MS, from(1), &record), Ok(Stored::First), "what has expired makes room at once");
}

#[test]
fn everything_survives_a_restart_and_what_rotted_on_the_disk_is_left_out() {
    let mut node = Node::new(small());
    let records: Vec<_> = (0..6).map(|n| record(n, "name", 1, "value")).collect();
    for (n, record) in records.iter().enumerate() {
        node.put(NOW_MS, if n == 0 { Source::Own } else { from(n as u16) }, record).expect("is stored");
    }
    let gone = expiring(9, 3, NOW_MS, HOUR_MS);
    node.put(NOW_MS, from(9), &gone).expect("is stored");
    let row = node.rows.get_mut(&records[5].key()).expect("is on the disk");
    *row.bytes.last_mut().expect("bytes") ^= 1;
    let later_ms = NOW_MS + 2 * HOUR_MS;
    let mut node = node.restart(later_ms);
    assert!(records[..5].iter().all(|record| node.holds(later_ms, record)));
    assert!(!node.holds(later_ms, &records[5]));
    assert_eq!(node.store.counts(), (5, 1));
    node.check(later_ms);
    assert_eq!(node.store.get(later_ms, &records[0].key()).map(|held| held.source), Some(Source::Own));
    let old = expiring(9, 2, NOW_MS, DAY_MS);
    assert!(node.put(later_ms, from(66), &old).is_err(), "what expired while we were down is remembered");
    // A clock that is years behind after a restart loses nothing.
    let node = node.restart(1_000);
    assert_eq!(node.store.counts().0, 5);
}

fn ipns(sequence: u64, valid_ms: u64) -> IpnsRecord {
    let validity = Validity::from_unix_ms(NOW_MS + valid_ms);
    IpnsRecord::sign(&key(1), IpnsDraft { value: b"/ipfs/x".into(), sequence, validity, ttl_ns: 0 }).expect("signs")
}

#[test]
fn ipns_records_of_others_are_held_for_two_days_after_they_came_last() {
    let mut store = Store::new(small());
    let (old, new) = (ipns(1, 3000 * DAY_MS), ipns(2, 400 * DAY_MS));
    let key = new.name().key();
    store.put(NOW_MS, from(1), &key, old.encode()).expect("is stored");
    store.put(NOW_MS, from(1), &key, new.encode()).expect("is stored");
    let day = |n: u64| NOW_MS + n * DAY_MS;
    store.put(day(1), from(2), &key, new.encode()).expect("is stored");
    assert!(store.get(day(2), &key).is_some() && store.get(day(3), &key).is_none());
    store.handle_timeout(day(3));
    for at in [day(3), day(31), day(2999)] {
        store.handle_timeout(at);
        let refused = store.put(at, from(66), &key, old.encode()).expect_err("was outlived");
        assert_eq!(refused, RecordError::Outlived { sequence: 2 });
    }
    let mut store = Store::new(small());
    store.put(NOW_MS, Source::Own, &key, new.encode()).expect("is stored");
    assert!(store.get(day(399), &key).is_some() && store.get(day(400), &key).is_none(), "our own is held on");
}

#[test]
fn a_record_that_comes_again_and_again_is_not_written_each_time() {
    let mut store = Store::new(small());
    let (native, ipns) = (record(1, "name", 1, "value"), ipns(1, 30 * DAY_MS));
    let puts = [(native.key(), native.encode()), (ipns.name().key(), ipns.encode())];
    for (key, bytes) in &puts {
        store.put(NOW_MS, from(1), key, bytes).expect("is stored");
    }
    while store.poll_effect().is_some() {}
    let mut written = 0;
    for n in 0..1000 {
        for (key, bytes) in &puts {
            store.put(NOW_MS + n * 60_000, from(1), key, bytes).expect("is stored");
        }
        while let Some(effect) = store.poll_effect() {
            written += u32::from(matches!(effect, StoreEffect::Save(_)));
        }
    }
    assert!((1..=6).contains(&written), "{written} writes in 17 hours");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_order_they_come_in_all_stores_end_with_the_same(
        drafts in prop::collection::vec((0u16..3, 0u64..4, 0u64..3, 0u8..3), 1..24),
        seed in any::<u64>(),
    ) {
        let records: Vec<_> = drafts
            .iter()
            .map(|(owner, sequence, later, value)| {
                let timestamp_ms = NOW_MS + later;
                let draft = Draft { timestamp_ms, value: vec![*value], ..draft("name", *sequence, "") };
                Record::sign(&key(*owner), draft).expect("signs")
            })
            .collect();
        let (mut a, mut b) = (Node::new(small()), Node::new(small()));
        records.iter().for_each(|record| drop(a.put(NOW_MS, from(1), record)));
        let mut shuffled: Vec<_> = records.iter().chain(&records).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, rng.random_range(0..=at));
        }
        for record in shuffled {
            let _ = b.put(NOW_MS, from(2), record);
            if rng.random_bool(0.1) {
                b = b.restart(NOW_MS);
            }
        }
        let of = |node: &Node| node.store.iter(NOW_MS).map(|held| held.record.bytes().to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(of(&a), of(&b));
        for record in &records {
            let held = a.store.get(NOW_MS, &record.key()).expect("one of its key is held");
            prop_assert!(held.record.order() >= record.order());
        }
    }

    #[test]
    fn whatever_happens_bounds_hold_and_the_disk_agrees(
        steps in prop::collection::vec((0u8..6, 0u16..8, 0u16..40, 0u64..6), 1..120),
    ) {
        // More marks than there are keys: none is ever lost.
        let mut node = Node::new(StoreConfig { max_marks: 400, ..small() });
        let mut now_ms = NOW_MS;
        let mut highest: BTreeMap<Vec<u8>, crate::Order> = BTreeMap::new();
        for (step, source, owner, n) in steps {
            match step {
                0..=3 => {
                    let record = expiring(owner, n, now_ms, 1 + n * HOUR_MS);
                    let source = if source == 0 { Source::Own } else { from(source) };
                    if node.put(now_ms, source, &record).is_ok() {
                        let before = highest.insert(record.key(), record.order());
                        prop_assert!(before.is_none_or(|before| before <= record.order()), "it went backwards");
                    }
                }
                4 => now_ms += n * HOUR_MS / 2,
                _ => node = node.restart(now_ms),
            }
            node.timeout(now_ms);
            node.check(now_ms);
            let (records, marks) = node.store.counts();
            prop_assert!(records <= 18 && marks <= 40);
            prop_assert!((1..8).all(|n| node.store.count_of(&peer(n)) <= 12));
            prop_assert!(node.store.poll_timeout().is_none_or(|at| at > now_ms) || node.republished.len() >= 4);
        }
    }
}
