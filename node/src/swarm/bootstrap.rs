use std::time::{Duration, Instant};

use dagmesh_core::limits;
use libp2p::{Multiaddr, PeerId};
use rand::RngExt;
use rand::seq::IteratorRandom;

use super::event::KnownPeer;

const MIN: Duration = Duration::from_millis(limits::REDIAL_MIN_MS);
const MAX: Duration = Duration::from_millis(limits::REDIAL_MAX_MS);

/// When a node without any connection dials again, and whom.
pub(super) struct Rejoin {
    bootstrap: Vec<(PeerId, Multiaddr)>,
    wait: Duration,
    due: Option<Instant>,
    last: Option<Instant>,
}

impl Rejoin {
    /// Due at once.
    pub(super) fn new(bootstrap: Vec<(PeerId, Multiaddr)>, now: Instant) -> Self {
        Self { bootstrap, wait: MIN, due: Some(now), last: None }
    }

    /// When to call [`dials`](Self::dials) next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A connection stands.
    pub(super) fn connected(&mut self) {
        self.due = None;
    }

    /// The last connection is lost.
    pub(super) fn isolated(&mut self, now: Instant) {
        // Whoever drops us at once is not asked every half second; after a longer stay the waits start over.
        if self.last.is_none_or(|last| now.saturating_duration_since(last) > MAX) {
            self.wait = MIN;
        }
        self.due = Some(now + jittered(self.wait));
    }

    /// Whom to dial now, if it is time: the bootstrap peers and some of those known. Sets the next time, twice as
    /// far away, up to a minute.
    pub(super) fn dials(&mut self, known: &[KnownPeer], now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        if self.bootstrap.is_empty() && known.is_empty() {
            self.due = None;
            return Vec::new();
        }
        self.last = Some(now);
        self.due = Some(now + jittered(self.wait));
        self.wait = (self.wait * 2).min(MAX);
        let rng = &mut rand::rng();
        let mut dials: Vec<(PeerId, Vec<Multiaddr>)> = self
            .bootstrap
            .iter()
            .sample(rng, limits::REDIAL_PEERS)
            .into_iter()
            .map(|(peer, addr)| (*peer, vec![addr.clone()]))
            .collect();
        let others = known.iter().filter(|it| !it.addrs.is_empty()).sample(rng, limits::REDIAL_PEERS);
        dials.extend(others.into_iter().map(|it| (it.peer, it.addrs.clone())));
        dials
    }
}

/// Between three quarters and five quarters of the wait, so that many nodes do not come back at once.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejoin(now: Instant) -> Rejoin {
        Rejoin::new(vec![(PeerId::random(), "/ip4/127.0.0.1/tcp/1".parse().unwrap())], now)
    }

    #[test]
    fn waits_double_up_to_a_minute_while_nobody_answers() {
        let mut now = Instant::now();
        let mut rejoin = rejoin(now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(rejoin.dials(&[], now).len(), 1);
            assert!(rejoin.dials(&[], now).is_empty());
            let due = rejoin.due().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert!(waits[0] < Duration::from_millis(700), "{waits:?}");
        assert!(waits[11] > Duration::from_secs(44) && waits[11] < Duration::from_secs(76), "{waits:?}");
    }

    #[test]
    fn a_long_stay_resets_the_wait_and_a_short_one_does_not() {
        let now = Instant::now();
        let mut rejoin = rejoin(now);
        let mut at = now;
        for _ in 0..8 {
            rejoin.dials(&[], at);
            at = rejoin.due().unwrap();
        }
        rejoin.dials(&[], at);
        rejoin.connected();
        assert_eq!(rejoin.due(), None);
        rejoin.isolated(at + Duration::from_secs(1));
        assert!(rejoin.due().unwrap() - at > Duration::from_secs(40));
        rejoin.connected();
        rejoin.isolated(at + Duration::from_secs(600));
        assert!(rejoin.due().unwrap() - at < Duration::from_secs(601));
    }

    #[test]
    fn with_nobody_to_dial_nothing_is_due() {
        let now = Instant::now();
        let mut rejoin = Rejoin::new(Vec::new(), now);
        assert!(rejoin.dials(&[], now).is_empty());
        assert_eq!(rejoin.due(), None);
    }
}
