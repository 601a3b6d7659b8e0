//! The side that answers.

use libp2p_identity::PeerId;

use crate::{
    bans::{Banned, Bans, Delivery},
    error::{Code, RecordError},
    message::{Answer, RecordBytes, Request},
    store::{Source, Store, Stored},
};

/// A request that was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// What the peer is told.
    pub answer: Answer,
    /// Whether it is banned for what it sent: tell it, make that durable, and close its connections.
    pub banned: Option<Banned>,
}

/// Serves one request of a peer, which a connection proves to be `peer`, at `now_ms` (Unix milliseconds). What the store
/// wants done comes as its effects; the answer should wait until they are durable.
pub fn serve(store: &mut Store, bans: &mut Bans, now_ms: u64, peer: PeerId, bytes: &[u8]) -> Served {
    let mut banned = None;
    let answer = match Request::decode(bytes) {
        Err(error) => Answer::error(error.code(), error),
        Ok(Request::Put { key, record }) => match store.put(now_ms, Source::Peer(peer), &key, &record) {
            Ok(stored) => Answer::Stored { news: stored != Stored::Same },
            Err(error) => {
                banned = bans.report(now_ms, peer, &error, Delivery::Direct);
                Answer::refusal(&error)
            }
        },
        Ok(Request::Get { key }) => get(store, now_ms, &key).unwrap_or_else(|error| Answer::refusal(&error)),
    };
    Served { answer, banned }
}

fn get(store: &Store, now_ms: u64, key: &[u8]) -> Result<Answer, RecordError> {
    crate::Namespace::of(key)?;
    let Some(held) = store.get(now_ms, key) else { return Ok(Answer::Absent) };
    Ok(RecordBytes::new(held.record.bytes()).map_or_else(|over| Answer::error(Code::TooBig, over), Answer::Record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::StoreConfig,
        testing::{HOUR_MS, NOW_MS, peer, record},
    };

    /// A peer puts `bytes` under `key`; gives the code it is refused with, and whether it is banned.
    fn put(store: &mut Store, bans: &mut Bans, now_ms: u64, key: &[u8], bytes: &[u8]) -> (Option<Code>, bool) {
        let request = Request::put(key, bytes).expect("fits").encode().expect("fits");
        let Served { answer, banned } = serve(store, bans, now_ms, peer(66), &request);
        assert_eq!(banned.is_some(), bans.is_banned(now_ms, &peer(66)));
        let code = match answer {
            Answer::Stored { .. } => None,
            Answer::Superseded { .. } => Some(Code::Superseded),
            Answer::Error(refusal) => Some(refusal.code),
            other => panic!("{other:?}"),
        };
        (code, banned.is_some())
    }

    #[test]
    fn every_hostile_put_has_its_code_and_only_a_forged_one_leads_to_a_ban() {
        let (mut store, mut bans) = (Store::new(StoreConfig::new(peer(0), 1)), Bans::new());
        let (old, held) = (record(1, "name", 1, "old"), record(1, "name", 2, "held"));
        let (key, other) = (held.key(), record(2, "name", 1, "another's"));
        let mut forged = record(1, "name", 3, "forged").encode().to_vec();
        *forged.last_mut().expect("bytes") ^= 1;
        let mut put = |now_ms, key: &[u8], bytes: &[u8]| put(&mut store, &mut bans, now_ms, key, bytes);
        assert_eq!(put(NOW_MS, &key, held.encode()), (None, false));
        assert_eq!(put(NOW_MS, &key, held.encode()), (None, false), "once more");
        assert_eq!(put(NOW_MS, &key, old.encode()), (Some(Code::Superseded), false));
        assert_eq!(put(NOW_MS, &key, other.encode()), (Some(Code::KeyMismatch), false));
        assert_eq!(put(NOW_MS, &other.key(), b"junk"), (Some(Code::BadRequest), false));
        assert_eq!(put(NOW_MS, b"/pk/name", held.encode()), (Some(Code::Unsupported), false));
        assert_eq!(put(NOW_MS - HOUR_MS, &other.key(), other.encode()), (Some(Code::BadRequest), false), "the future");
        assert_eq!(
            put(NOW_MS + 24 * HOUR_MS, &other.key(), other.encode()),
            (Some(Code::BadRequest), false),
            "expired"
        );
        assert_eq!(put(NOW_MS, &key, &forged), (Some(Code::Unverifiable), true));
    }

    #[test]
    fn what_is_held_is_told_until_it_expires() {
        let (mut store, mut bans) = (Store::new(StoreConfig::new(peer(0), 1)), Bans::new());
        let held = record(1, "name", 2, "held");
        let put = Request::put(&held.key(), held.encode()).expect("fits").encode().expect("fits");
        let get = Request::get(&held.key()).expect("fits").encode().expect("fits");
        let mut ask = |now_ms, bytes: &[u8]| serve(&mut store, &mut bans, now_ms, peer(1), bytes).answer;
        assert_eq!(ask(NOW_MS, &get), Answer::Absent);
        assert_eq!(ask(NOW_MS, &put), Answer::Stored { news: true });
        assert_eq!(ask(NOW_MS, &put), Answer::Stored { news: false });
        let record = RecordBytes::new(held.encode()).expect("fits");
        assert_eq!(ask(NOW_MS + 24 * HOUR_MS - 1, &get), Answer::Record(record));
        assert_eq!(ask(NOW_MS + 24 * HOUR_MS, &get), Answer::Absent);
        let unknown = Request::get(b"/pk/name").expect("fits").encode().expect("fits");
        assert!(matches!(ask(NOW_MS, &unknown), Answer::Error(refusal) if refusal.code == Code::Unsupported));
        assert!(matches!(ask(NOW_MS, b"junk"), Answer::Error(refusal) if refusal.code == Code::BadRequest));
    }
}
