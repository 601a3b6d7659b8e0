use std::time::{Duration, Instant};

use dagmesh_core::limits::{ANNOUNCEMENT_BURST, ANNOUNCEMENTS_PER_SECOND, MAX_RATED_PEERS};
use hashlink::LruCache;
use libp2p_identity::PeerId;

/// A token is counted in millionths, so that refilling loses nothing.
const TOKEN: u64 = 1_000_000;

/// One bucket of tokens a peer; the peer quiet for longest is forgotten first, beyond [`MAX_RATED_PEERS`].
#[derive(Debug)]
pub struct Rates {
    buckets: LruCache<PeerId, Bucket>,
    factor: u32,
}

impl Rates {
    /// Buckets of `factor` times the rate and burst of a single publisher.
    pub fn new(factor: u32) -> Self {
        Self { buckets: LruCache::new(MAX_RATED_PEERS), factor }
    }

    /// Takes one token of this peer; `false` where it has none.
    pub fn take(&mut self, now: Instant, peer: PeerId) -> bool {
        if let Some(bucket) = self.buckets.get_mut(&peer) {
            return bucket.take(now);
        }
        let mut bucket = Bucket::new(now, self.factor * ANNOUNCEMENT_BURST, self.factor * ANNOUNCEMENTS_PER_SECOND);
        let taken = bucket.take(now);
        self.buckets.insert(peer, bucket);
        taken
    }
}

/// A bucket of tokens, full at first, refilled at a steady rate.
#[derive(Debug)]
pub(crate) struct Bucket {
    full: u64,
    per_second: u64,
    tokens: u64,
    at: Instant,
}

impl Bucket {
    /// A bucket that holds `burst` tokens and gains `per_second`.
    pub(crate) fn new(now: Instant, burst: u32, per_second: u32) -> Self {
        let full = TOKEN * u64::from(burst);
        Self { full, per_second: u64::from(per_second), tokens: full, at: now }
    }

    /// Takes a token; `false` where there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        match self.tokens.checked_sub(TOKEN) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// When there is a token to take.
    pub(crate) fn ready_at(&self) -> Instant {
        let missing = TOKEN.saturating_sub(self.tokens);
        self.at + Duration::from_micros(missing.div_ceil(self.per_second.max(1)))
    }

    fn refill(&mut self, now: Instant) {
        let micros = u64::try_from(now.saturating_duration_since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.tokens = self.tokens.saturating_add(micros.saturating_mul(self.per_second)).min(self.full);
        // What is left of a started microsecond counts at the next time.
        self.at += Duration::from_micros(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerId {
        libp2p_identity::Keypair::generate_ed25519().public().to_peer_id()
    }

    /// `Instant` has no zero; any will do.
    fn start() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        Instant::now()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (mut rates, peer, now) = (Rates::new(1), peer(), start());
        for n in 0..ANNOUNCEMENT_BURST {
            assert!(rates.take(now, peer), "{n} of the burst");
        }
        assert!(!rates.take(now, peer), "one more than the burst");
        let mut taken = 0;
        for millis in 0..10_000 {
            taken += u32::from(rates.take(now + Duration::from_millis(millis), peer));
        }
        assert!(
            (10 * ANNOUNCEMENTS_PER_SECOND - 1..=10 * ANNOUNCEMENTS_PER_SECOND).contains(&taken),
            "{taken} in 10 s"
        );
    }

    #[test]
    fn an_empty_bucket_says_when_the_next_token_is_there() {
        let now = start();
        let mut bucket = Bucket::new(now, 1, 3);
        assert_eq!(bucket.ready_at(), now);
        assert!(bucket.take(now));
        let ready = bucket.ready_at();
        assert!(!bucket.take(ready - Duration::from_micros(1)));
        assert!(bucket.take(ready));
    }

    #[test]
    fn one_peer_does_not_use_up_the_rate_of_another() {
        let (mut rates, now) = (Rates::new(1), start());
        let (greedy, quiet) = (peer(), peer());
        while rates.take(now, greedy) {}
        assert!(rates.take(now, quiet));
    }

    #[test]
    fn no_more_peers_are_remembered_than_the_cap() {
        let (mut rates, now) = (Rates::new(1), start());
        let peers: Vec<_> = (0..=MAX_RATED_PEERS as u64)
            .map(|n| {
                PeerId::from_multihash(cid::multihash::Multihash::wrap(0, &n.to_be_bytes()).expect("fits"))
                    .expect("a peer")
            })
            .collect();
        for peer in &peers[..MAX_RATED_PEERS] {
            rates.take(now, *peer);
        }
        assert_eq!(rates.buckets.len(), MAX_RATED_PEERS);
        rates.take(now, peers[MAX_RATED_PEERS]);
        assert_eq!(rates.buckets.len(), MAX_RATED_PEERS);
        assert!(!rates.buckets.contains_key(&peers[0]), "the one quiet for longest made room");
    }
}
