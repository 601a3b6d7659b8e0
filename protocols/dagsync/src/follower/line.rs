use std::collections::BTreeMap;

/// Those who wait, first come first served, nobody twice.
#[derive(Debug)]
pub(super) struct Line<K> {
    order: BTreeMap<u64, K>,
    places: BTreeMap<K, u64>,
    next: u64,
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), places: BTreeMap::new(), next: 0 }
    }
}

impl<K: Ord + Clone> Line<K> {
    /// Puts `key` at the end, if it does not wait already.
    pub(super) fn push(&mut self, key: K) {
        if !self.places.contains_key(&key) {
            self.order.insert(self.next, key.clone());
            self.places.insert(key, self.next);
            self.next += 1;
        }
    }

    /// Takes out the first one that fits.
    pub(super) fn take(&mut self, fits: impl Fn(&K) -> bool) -> Option<K> {
        let key = self.order.values().find(|key| fits(key))?.clone();
        self.remove(&key);
        Some(key)
    }

    /// Takes `key` out wherever it stands.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(place) = self.places.remove(key) {
            self.order.remove(&place);
        }
    }

    pub(super) fn any(&self, fits: impl Fn(&K) -> bool) -> bool {
        self.order.values().any(fits)
    }

    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.places.clear();
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.order.len(), self.places.len());
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_and_nobody_twice() {
        let mut line = Line::default();
        for key in ["b", "a", "b", "c"] {
            line.push(key);
        }
        assert_eq!(line.len(), 3);
        assert_eq!(line.take(|key| *key != "b"), Some("a"));
        line.push("a");
        line.remove(&"b");
        assert_eq!([line.take(|_| true), line.take(|_| true), line.take(|_| true)], [Some("c"), Some("a"), None]);
    }
}
