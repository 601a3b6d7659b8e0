//! Places for those that are served at once.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Counts places, in all and for each key.
#[derive(Debug)]
pub(super) struct Slots<K> {
    all: usize,
    each: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    by_key: HashMap<K, usize>,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub(super) struct Slot<K: Eq + Hash> {
    key: K,
    taken: Arc<Mutex<Taken<K>>>,
}

impl<K: Copy + Eq + Hash> Slots<K> {
    /// `all` places, `each` for one key.
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self { all, each, taken: Arc::new(Mutex::new(Taken { all: 0, by_key: HashMap::new() })) }
    }

    pub(super) fn take(&self, key: K) -> Option<Slot<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.all || taken.by_key.get(&key).is_some_and(|count| *count >= self.each) {
            return None;
        }
        taken.all += 1;
        *taken.by_key.entry(key).or_default() += 1;
        Some(Slot { key, taken: Arc::clone(&self.taken) })
    }
}

impl<K: Eq + Hash> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.by_key.remove(&self.key);
            }
        }
    }
}

/// Where a connection comes from: an IPv4 address, or the first half of an IPv6 address, which is what one customer
/// gets.
pub(super) fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_of_places_and_all_have_theirs() {
        let slots = Slots::new(3, 2);
        let held = [slots.take('a'), slots.take('a')];
        assert!(held.iter().all(Option::is_some));
        assert!(slots.take('a').is_none(), "its share is taken");
        let other = slots.take('b');
        assert!(other.is_some());
        assert!(slots.take('c').is_none(), "all places are taken");
        drop(held);
        assert!(slots.take('a').is_some());
        drop(other);
        assert!(slots.taken.lock().expect("not poisoned").by_key.is_empty(), "who has none is not remembered");
    }

    #[test]
    fn addresses_of_one_customer_are_one_source() {
        let source = |text: &str| source_of(text.parse().expect("an address"));
        assert_eq!(source("2a00:1:2:3:4::1"), source("2a00:1:2:3:5::2"));
        assert_ne!(source("2a00:1:2:3::1"), source("2a00:1:2:4::1"));
        assert_eq!(source("::ffff:8.8.8.8"), source("8.8.8.8"));
        assert_ne!(source("8.8.8.8"), source("8.8.8.9"));
    }
}
