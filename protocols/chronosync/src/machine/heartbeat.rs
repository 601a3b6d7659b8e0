use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// When our digest is told: once an interval, at a random moment of its second half, unless an equal one was heard
/// before. Intervals double while all agree; a difference brings back the shortest, and what was learnt over a cut is told
/// at once.
///
/// Source: RFC 6206 (Trickle), with a redundancy constant of 1.
#[derive(Debug)]
pub(super) struct Heartbeat {
    min: Duration,
    max: Duration,
    interval: Duration,
    /// When to tell it in this interval; `None` once that is past.
    at: Option<Instant>,
    end: Instant,
    heard: bool,
}

impl Heartbeat {
    pub(super) fn new(now: Instant, rng: &mut ChaCha8Rng, min: Duration, max: Duration) -> Self {
        let mut heartbeat = Self { min, max, interval: min, at: None, end: now, heard: false };
        heartbeat.begin(now, rng);
        heartbeat
    }

    fn begin(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        self.at = Some(now + self.interval.mul_f64(rng.random_range(0.5..1.0)));
        self.end = now + self.interval;
        self.heard = false;
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// An equal digest was heard.
    pub(super) fn agree(&mut self) {
        self.heard = true;
    }

    /// A different one was heard, or ours has moved. A running shortest interval goes on, so that a busy group still
    /// hears one.
    pub(super) fn differ(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        if self.interval > self.min {
            self.restart(now, rng);
        } else {
            self.heard = false;
        }
    }

    /// Begins the shortest interval.
    pub(super) fn restart(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        self.interval = self.min;
        self.begin(now, rng);
    }

    /// Begins the shortest interval, and tells the digest at its beginning.
    pub(super) fn at_once(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        self.restart(now, rng);
        self.at = Some(now);
    }

    /// Whether the digest is to be told now.
    pub(super) fn tick(&mut self, now: Instant, rng: &mut ChaCha8Rng) -> bool {
        let tell = self.at.take_if(|at| *at <= now).is_some() && !self.heard;
        if self.end <= now {
            self.interval = (self.interval * 2).min(self.max);
            self.begin(now, rng);
        }
        tell
    }

    pub(super) fn next(&self) -> Instant {
        self.at.unwrap_or(self.end)
    }
}
