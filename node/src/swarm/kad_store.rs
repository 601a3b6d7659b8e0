//! What the node keeps for the DHT: provider records in memory, records in the [`RecordBook`].
//!
//! The memory store of libp2p-kad counts own and foreign keys against one cap, has none for each peer, and drops
//! expired providers only when somebody asks for their key; so one stranger could fill it for good. Hence our own.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, hash_map};
use std::sync::Arc;
use std::time::Instant;

use dagmesh_core::limits;
use dagmesh_records::{RecordError, Verified};
use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

use super::metrics::Counters;
use super::peer_book;
use super::record_book::RecordBook;

/// The caps of a [`KadStore`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) provided: usize,
    pub(super) provider_keys: usize,
    pub(super) keys_per_provider: usize,
    pub(super) providers_per_key: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            provided: limits::MAX_PROVIDED_KEYS,
            provider_keys: limits::MAX_KAD_PROVIDER_KEYS,
            keys_per_provider: limits::MAX_KAD_KEYS_PER_PROVIDER,
            providers_per_key: limits::MAX_PROVIDERS_PER_KEY,
        }
    }
}

/// Provider records, capped in all, per key and per provider, own ones apart; and what the DHT asks of the record book.
pub(super) struct KadStore {
    local: PeerId,
    caps: Caps,
    global_only: bool,
    book: RecordBook,
    metrics: Arc<Counters>,
    /// Who sends what is put now.
    sender: Option<PeerId>,
    /// Keys that this node provides.
    provided: HashSet<RecordKey>,
    /// Providers of foreign keys and of our own, without this node.
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
    /// How many keys each foreign provider has here.
    counts: HashMap<PeerId, usize>,
}

impl KadStore {
    /// With `global_only`, addresses of providers are taken only where everybody can reach them.
    pub(super) fn new(local: PeerId, caps: Caps, global_only: bool, book: RecordBook, metrics: Arc<Counters>) -> Self {
        Self {
            local,
            caps,
            global_only,
            book,
            metrics,
            sender: None,
            provided: HashSet::new(),
            providers: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// Says who sends what is put from now on; only that is taken as a record.
    pub(super) fn set_sender(&mut self, sender: Option<PeerId>) {
        self.sender = sender;
    }

    /// The records.
    pub(super) fn book(&self) -> &RecordBook {
        &self.book
    }

    /// Drops providers that have expired by `now`. Runs over everything: call it every few minutes.
    pub(super) fn sweep(&mut self, now: Instant) {
        let counts = &mut self.counts;
        self.providers.retain(|_, list| {
            list.retain(|record| {
                let keep = !record.is_expired(now);
                if !keep {
                    uncount(counts, &record.provider);
                }
                keep
            });
            !list.is_empty()
        });
    }

    /// Whether this node provides the key.
    pub(super) fn provides(&self, key: &[u8]) -> bool {
        self.provided.contains(key)
    }
}

impl RecordStore for KadStore {
    type RecordsIter<'a> = std::vec::IntoIter<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.book.get(key.as_ref()).map(|held| Cow::Owned(record_of(&held)))
    }

    /// Takes what a peer has sent, if it holds; an error makes libp2p-kad reset the stream, which the peer counts as a
    /// failure. It is held when it is acknowledged, and on the disk a moment later: others hold it too.
    fn put(&mut self, record: Record) -> Result<()> {
        // What this node puts itself goes into the book and not through here.
        let Some(peer) = self.sender else { return Err(Error::MaxRecords) };
        if self.book.is_banned(&peer) {
            return Err(Error::MaxRecords);
        }
        let put = self.book.put_of_peer(peer, record.key.as_ref(), &record.value);
        put.map(drop).map_err(|error| {
            self.metrics.kad_refused.add();
            tracing::debug!(%peer, %error, "record refused");
            match error {
                RecordError::TooLarge { .. } => Error::ValueTooLarge,
                _ => Error::MaxRecords,
            }
        })
    }

    /// The book drops records itself, when their time is over.
    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        let all = self.book.list(false).into_iter().map(|(held, _)| Cow::Owned(record_of(&held)));
        all.collect::<Vec<_>>().into_iter()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        record.addresses.retain(|addr| peer_book::accepts(addr, self.global_only));
        record.addresses.truncate(limits::MAX_ADDRS_PER_PEER);
        if record.key.as_ref().len() > limits::MAX_KAD_KEY_BYTES {
            return Err(Error::ValueTooLarge);
        }
        if record.provider == self.local {
            if self.provided.len() >= self.caps.provided && !self.provided.contains(&record.key) {
                return Err(Error::MaxProvidedKeys);
            }
            self.provided.insert(record.key);
            return Ok(());
        }
        if let Some(list) = self.providers.get_mut(&record.key)
            && let Some(held) = list.iter_mut().find(|held| held.provider == record.provider)
        {
            *held = record;
            return Ok(());
        }
        let known_key = self.providers.get(&record.key);
        // Whoever came first stays: a flood of new identities does not push honest providers out.
        if known_key.is_some_and(|list| list.len() >= self.caps.providers_per_key)
            || (known_key.is_none() && self.providers.len() >= self.caps.provider_keys)
            || self.counts.get(&record.provider).is_some_and(|count| *count >= self.caps.keys_per_provider)
        {
            self.metrics.kad_refused.add();
            return Err(Error::MaxProvidedKeys);
        }
        *self.counts.entry(record.provider).or_default() += 1;
        self.providers.entry(record.key.clone()).or_default().push(record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let own = self.provided.get(key).map(|key| ProviderRecord::new(key.clone(), self.local, Vec::new()));
        own.into_iter().chain(self.providers.get(key).into_iter().flatten().cloned()).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        let own = |key: &RecordKey| Cow::Owned(ProviderRecord::new(key.clone(), self.local, Vec::new()));
        self.provided.iter().map(own).collect::<Vec<_>>().into_iter()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.local {
            self.provided.remove(key);
            return;
        }
        if let hash_map::Entry::Occupied(mut entry) = self.providers.entry(key.clone()) {
            let list = entry.get_mut();
            if let Some(i) = list.iter().position(|record| record.provider == *provider) {
                list.remove(i);
                uncount(&mut self.counts, provider);
            }
            if list.is_empty() {
                entry.remove();
            }
        }
    }
}

/// As it travels: a record says itself until when it is valid.
fn record_of(held: &Verified) -> Record {
    Record::new(held.key().to_vec(), held.bytes().to_vec())
}

fn uncount(counts: &mut HashMap<PeerId, usize>, provider: &PeerId) {
    if let hash_map::Entry::Occupied(mut entry) = counts.entry(*provider) {
        *entry.get_mut() = entry.get().saturating_sub(1);
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CAPS: Caps = Caps { provided: 2, provider_keys: 3, keys_per_provider: 2, providers_per_key: 2 };

    fn store(local: PeerId) -> KadStore {
        KadStore::new(local, CAPS, false, RecordBook::in_memory(local), Arc::default())
    }

    fn key(i: u8) -> RecordKey {
        RecordKey::from(vec![i])
    }

    fn provider(i: u8, peer: PeerId) -> ProviderRecord {
        ProviderRecord::new(key(i), peer, Vec::new())
    }

    #[test]
    fn one_peer_provides_no_more_keys_than_its_share() {
        let (flooder, honest) = (PeerId::random(), PeerId::random());
        let mut store = store(PeerId::random());
        store.add_provider(provider(1, flooder)).unwrap();
        store.add_provider(provider(2, flooder)).unwrap();
        assert!(store.add_provider(provider(3, flooder)).is_err());
        store.add_provider(provider(3, honest)).unwrap();
        store.remove_provider(&key(1), &flooder);
        store.add_provider(provider(4, flooder)).unwrap();
    }

    #[test]
    fn a_key_holds_no_more_providers_than_its_cap_and_refreshes_those_it_has() {
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        let mut store = store(PeerId::random());
        store.add_provider(provider(1, peers[0])).unwrap();
        store.add_provider(provider(1, peers[1])).unwrap();
        assert!(store.add_provider(provider(1, peers[2])).is_err());
        store.add_provider(provider(1, peers[0])).unwrap();
        assert_eq!(store.providers(&key(1)).len(), 2);
    }

    #[test]
    fn foreign_keys_leave_room_for_our_own() {
        let local = PeerId::random();
        let mut store = store(local);
        for i in 0..3 {
            store.add_provider(provider(i, PeerId::random())).unwrap();
        }
        assert!(store.add_provider(provider(3, PeerId::random())).is_err());
        store.add_provider(provider(4, local)).unwrap();
        store.add_provider(provider(5, local)).unwrap();
        assert!(store.add_provider(provider(6, local)).is_err());
        assert_eq!(store.provided().count(), 2);
        assert!(store.provides(&[4]) && store.provides(&[5]));
        store.remove_provider(&key(4), &local);
        assert!(store.providers(&key(4)).is_empty() && !store.provides(&[4]));
    }

    #[test]
    fn expired_providers_make_room_at_the_sweep() {
        let (now, flooder) = (Instant::now(), PeerId::random());
        let mut store = store(PeerId::random());
        for i in 0..2 {
            let mut record = provider(i, flooder);
            record.expires = Some(now + Duration::from_secs(1));
            store.add_provider(record).unwrap();
        }
        store.sweep(now);
        assert!(store.add_provider(provider(2, flooder)).is_err());
        store.sweep(now + Duration::from_secs(2));
        store.add_provider(provider(2, flooder)).unwrap();
        assert!(store.providers(&key(0)).is_empty());
    }

    #[test]
    fn addresses_of_providers_are_kept_where_strangers_may_be_dialled_there_and_in_number() {
        let addrs =
            |n: u16, ip: &str| (0..n).map(|n| format!("/ip4/{ip}/tcp/{}", n + 1).parse().unwrap()).collect::<Vec<_>>();
        for (global_only, ip, kept) in [(false, "10.0.0.1", limits::MAX_ADDRS_PER_PEER), (true, "10.0.0.1", 0)] {
            let local = PeerId::random();
            let mut store = KadStore::new(local, CAPS, global_only, RecordBook::in_memory(local), Arc::default());
            store.add_provider(ProviderRecord::new(key(1), PeerId::random(), addrs(200, ip))).unwrap();
            assert_eq!(store.providers(&key(1))[0].addresses.len(), kept);
        }
    }
}
