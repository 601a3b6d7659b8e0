//! Signed records, IPNS, and what travels about them; and the store that keeps them.

use std::{collections::BTreeMap, sync::LazyLock};

use dagmesh_core::{frame, limits};
use dagmesh_records::{
    Answer, Draft, IpnsName, IpnsRecord, Mark, Order, Record, RecordName, Request, Row, Source, Store, StoreConfig,
    StoreEffect, verify,
};
use libp2p_identity::Keypair;

use crate::input::Input;

/// The clock of all runs, in Unix milliseconds.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

pub(crate) static KEYS: LazyLock<Vec<Keypair>> =
    LazyLock::new(|| (0..8).map(|n| Keypair::ed25519_from_bytes([n; 32]).expect("a key")).collect());

/// Records, IPNS records and names, messages, a store; the first byte says which: what is taken is within its bounds and is
/// written back to the same bytes, what we sign is taken, and a store keeps its rules whatever comes.
pub fn records(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 7 {
        0 => record(input.rest()),
        1 => signed(input),
        2 => ipns(input.rest()),
        3 => ipns_data(input.rest()),
        4 => name(input.rest()),
        5 => message(input.rest()),
        _ => store(input),
    }
}

fn record(bytes: &[u8]) {
    let Ok(record) = Record::decode(bytes) else { return };
    let draft = record.draft();
    assert_eq!(record.encode(), bytes);
    assert!(draft.value.len() <= limits::MAX_RECORD_VALUE_BYTES && draft.meta.len() <= limits::MAX_RECORD_META);
    assert!(draft.expires_ms - draft.timestamp_ms <= limits::MAX_RECORD_LIFETIME_MS);
    let verified = verify(&record.key(), bytes, draft.timestamp_ms).expect("belongs under its own key");
    assert_eq!(verified.order(), record.order());
}

fn signed(mut input: Input<'_>) {
    let key = &KEYS[input.below(KEYS.len())];
    let Ok(name) = RecordName::new(input.text(140)) else { return };
    let (sequence, timestamp_ms, life_ms) = (input.number(), input.number(), input.number());
    let mut meta = BTreeMap::new();
    for _ in 0..input.below(20) {
        meta.insert(input.text(70).to_owned(), input.text(20).to_owned());
    }
    let expires_ms = timestamp_ms.saturating_add(life_ms % (2 * limits::MAX_RECORD_LIFETIME_MS));
    let draft = Draft { name, value: input.rest().to_vec(), sequence, timestamp_ms, expires_ms, meta };
    let Ok(record) = Record::sign(key, draft) else { return };
    assert_eq!(Record::decode(record.encode()).as_ref(), Ok(&record), "what we sign is taken");
}

fn ipns(bytes: &[u8]) {
    let name = IpnsName::of(&KEYS[0].public());
    let Ok(record) = IpnsRecord::decode(&name, bytes) else { return };
    assert_eq!(record.encode(), bytes);
    assert!(bytes.len() <= limits::MAX_IPNS_RECORD_BYTES);
}

/// The data of an IPNS record, in an envelope that holds.
fn ipns_data(data: &[u8]) {
    let name = IpnsName::of(&KEYS[0].public());
    let signature = KEYS[0].sign(&[b"ipns-signature:", data].concat()).expect("signs");
    let mut bytes = vec![0x42];
    frame::append(&mut bytes, &[&signature]);
    bytes.push(0x4a);
    frame::append(&mut bytes, &[data]);
    let Ok(record) = IpnsRecord::decode(&name, &bytes) else { return };
    let draft = record.draft();
    assert!(draft.sequence <= limits::MAX_RECORD_SEQUENCE && draft.ttl_ns <= limits::MAX_RECORD_SEQUENCE);
    let again = IpnsRecord::sign(&KEYS[0], draft.clone());
    // With both signatures and all twice it may be too large.
    if let Ok(again) = again {
        let read = IpnsRecord::decode(&name, again.encode()).expect("what we sign is taken");
        assert_eq!(read.draft(), draft);
    }
}

/// As a key, as a topic, as text.
fn name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let names = [IpnsName::from_key(bytes).ok(), IpnsName::from_topic(&text), text.parse().ok()];
    for name in names.into_iter().flatten() {
        assert_eq!(IpnsName::from_key(&name.key()), Ok(name));
        assert_eq!(IpnsName::from_topic(&name.topic()), Some(name));
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    assert!(IpnsName::from_key(bytes).map_or(true, |name| name.key() == bytes), "a key has one form");
}

fn message(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode().expect("encodes"), bytes);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(answer.encode().expect("encodes"), bytes);
    }
}

/// Bounds hold, the disk agrees with what is held, and no key ever goes backwards: there are more marks than keys.
fn store(mut input: Input<'_>) {
    let peer = |n: usize| KEYS[n].public().to_peer_id();
    let config = || {
        let config = StoreConfig::new(peer(0), 1);
        StoreConfig { max_records: 6, max_per_source: 4, max_own: 2, max_marks: 256, ..config }
    };
    let (mut store, mut now_ms) = (Store::new(config()), NOW_MS);
    let (mut rows, mut marks) = (BTreeMap::<Vec<u8>, Row>::new(), BTreeMap::<Vec<u8>, Mark>::new());
    let mut newest = BTreeMap::<Vec<u8>, Order>::new();
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        match input.byte() % 8 {
            0 => now_ms += u64::from(input.byte()) * 60_000,
            1 => {
                store = Store::new(config());
                store.restore(now_ms, rows.values().cloned(), marks.clone());
            }
            2 => {
                if let Some(key) = newest.keys().nth(input.below(16)) {
                    store.republished(now_ms, key);
                }
            }
            _ => {
                let name = RecordName::new(["a", "b", "c"][input.below(3)]).expect("a name");
                let (owner, source) = (input.below(KEYS.len()), input.below(KEYS.len()));
                let draft = Draft {
                    name,
                    value: vec![input.byte()],
                    sequence: u64::from(input.byte() % 8),
                    timestamp_ms: now_ms,
                    expires_ms: now_ms + 1 + u64::from(input.byte()) * 60_000,
                    meta: BTreeMap::new(),
                };
                let record = Record::sign(&KEYS[owner], draft).expect("signs");
                let source = if source == 0 { Source::Own } else { Source::Peer(peer(source)) };
                if store.put(now_ms, source, &record.key(), record.encode()).is_ok() {
                    let before = newest.insert(record.key(), record.order());
                    assert!(before.is_none_or(|before| before <= record.order()), "it went backwards");
                }
            }
        }
        store.handle_timeout(now_ms);
        while let Some(effect) = store.poll_effect() {
            match effect {
                StoreEffect::Save(row) => drop(rows.insert(row.key.clone(), row)),
                StoreEffect::Delete(key) => drop(rows.remove(&key)),
                StoreEffect::SaveMark(key, mark) => drop(marks.insert(key, mark)),
                StoreEffect::DeleteMark(key) => drop(marks.remove(&key)),
                StoreEffect::Republish(record) => assert!(rows.contains_key(record.key())),
            }
        }
        assert!(store.iter(now_ms).map(|held| held.record.bytes()).eq(rows.values().map(|row| row.bytes.as_slice())));
        assert_eq!(store.counts(), (rows.len(), marks.len()));
        assert!(rows.len() <= 8 && (1..KEYS.len()).all(|n| store.count_of(&peer(n)) <= 4));
    }
}
