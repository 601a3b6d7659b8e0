//! When our own heads are announced.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use dagmesh_core::{
    Machine,
    limits::{ANNOUNCEMENT_BURST, ANNOUNCEMENTS_PER_SECOND, DUPLICATE_WINDOW_MS, MAX_OWN_FEEDS},
};
use dagmesh_dag::{FeedName, HeadOrder, SignedHead};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::rate::Bucket;

/// How long the swarm may take to say whether it published, before that counts as a failure.
const FLIGHT: Duration = Duration::from_secs(30);
/// First wait after a failed publication; doubles up to [`MAX_RETRY`]. A gossip mesh forms on heartbeats of a second.
const MIN_RETRY: Duration = Duration::from_secs(1);
/// Longest wait after a failed publication.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Decides when each of our heads is announced on its topic.
///
/// A head is announced at once when it moves or when somebody asks; again when peers come to the topic, never sooner
/// than `floor` after the last time; and periodically with jitter, for those who missed it. While there are no peers
/// on the topic it is queued, not failed: the first peer that comes gets it. All feeds together keep to half the rate
/// that a receiver takes from one publisher. Nothing is due, and no timer runs, while nobody is there.
///
/// Holds at most [`MAX_OWN_FEEDS`] feeds.
#[derive(Debug)]
pub struct Announcer {
    config: AnnouncerConfig,
    rng: ChaCha8Rng,
    peers: usize,
    feeds: BTreeMap<FeedName, Feed>,
    pace: Option<Bucket>,
    effects: VecDeque<Effect>,
}

/// What an [`Announcer`] is told once.
#[derive(Debug, Clone)]
pub struct AnnouncerConfig {
    /// Time between two announcements of the same head, give or take a fifth.
    pub interval: Duration,
    /// Shortest time between two announcements of the same head that nobody asked for. Not below the window in which
    /// receivers take it for a duplicate.
    pub floor: Duration,
    /// How long to wait after peers have come, so that several are greeted with one announcement.
    pub settle: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

impl AnnouncerConfig {
    /// Every 10 min; after new peers within 2 s, at most once a duplicate window.
    pub fn new(seed: u64) -> Self {
        Self {
            interval: Duration::from_secs(10 * 60),
            floor: Duration::from_millis(DUPLICATE_WINDOW_MS),
            settle: Duration::from_secs(2),
            seed,
        }
    }
}

/// What an [`Announcer`] is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// Our feed has this head: announce it now. Also to announce the same head again, because somebody asked.
    Announce(Box<SignedHead>),
    /// Announce this feed no more.
    Withdraw(FeedName),
    /// So many peers are on the topic now. Tell it at every change.
    Peers(usize),
    /// The head of this number was handed to the mesh.
    Published {
        /// The feed.
        feed: FeedName,
        /// The head's number.
        seq: u64,
    },
    /// The head of this number could not be handed to the mesh.
    Failed {
        /// The feed.
        feed: FeedName,
        /// The head's number.
        seq: u64,
        /// Why.
        error: PublishError,
    },
}

/// Why the mesh did not take an announcement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Nobody to send it to (yet).
    #[error("no peers on this topic")]
    NoPeers,
    /// The very same message was sent a moment ago.
    #[error("the same message was sent a moment ago")]
    Duplicate,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What an [`Announcer`] wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Hand the announcement of this head to the mesh; answer with [`Input::Published`] or [`Input::Failed`].
    Publish(SignedHead),
    /// To be shown: this head waits until somebody is there. Told once a head.
    Queued {
        /// The head.
        head: SignedHead,
        /// Peers on the topic. Not 0 where the mesh has not formed yet.
        peers: usize,
        /// Why.
        reason: PublishError,
    },
    /// To be shown: this feed is one over [`MAX_OWN_FEEDS`] and is not announced.
    TooMany(FeedName),
}

/// How the announcement of one of our feeds stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFeed {
    /// The head.
    pub head: SignedHead,
    /// When this head was last announced.
    pub announced: Option<Instant>,
    /// Whether it waits for peers.
    pub queued: bool,
    /// When it is announced next, if somebody is there then.
    pub next: Instant,
    /// Why the last try failed.
    pub failure: Option<PublishError>,
}

#[derive(Debug)]
struct Feed {
    head: SignedHead,
    announced: Option<Instant>,
    queued: bool,
    due: Instant,
    /// Until when the swarm may answer, and about which number.
    flight: Option<(Instant, u64)>,
    failures: u32,
    failure: Option<PublishError>,
}

impl Announcer {
    /// An announcer without feeds and peers.
    pub fn new(config: AnnouncerConfig) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(config.seed);
        Self { config, rng, peers: 0, feeds: BTreeMap::new(), pace: None, effects: VecDeque::new() }
    }

    /// Our feeds and how their announcement stands, by name.
    pub fn feeds(&self) -> impl Iterator<Item = OwnFeed> + '_ {
        self.feeds.values().map(|feed| OwnFeed {
            head: feed.head.clone(),
            announced: feed.announced,
            queued: feed.queued,
            next: feed.due,
            failure: feed.failure.clone(),
        })
    }

    fn announce(&mut self, now: Instant, head: SignedHead) {
        let room = self.feeds.len() < MAX_OWN_FEEDS;
        match self.feeds.get_mut(head.feed()) {
            Some(feed) if head.compare(&feed.head) == HeadOrder::Older => return,
            Some(feed) => {
                if head.compare(&feed.head) != HeadOrder::Same {
                    feed.announced = None;
                    feed.queued = false;
                }
                feed.head = head;
                feed.due = now;
                feed.failures = 0;
            }
            None if room => {
                let feed = Feed {
                    head: head.clone(),
                    announced: None,
                    queued: false,
                    due: now,
                    flight: None,
                    failures: 0,
                    failure: None,
                };
                self.feeds.insert(head.feed().clone(), feed);
            }
            None => return self.effects.push_back(Effect::TooMany(head.feed().clone())),
        }
        self.fire(now);
    }

    fn set_peers(&mut self, now: Instant, peers: usize) {
        let came = peers > self.peers;
        self.peers = peers;
        if came {
            let greet = now + self.config.settle;
            for feed in self.feeds.values_mut() {
                let soonest = match feed.announced {
                    Some(at) => greet.max(at + self.config.floor),
                    None => now,
                };
                feed.due = feed.due.min(soonest);
            }
        }
        self.fire(now);
    }

    fn landed(&mut self, now: Instant, name: &FeedName, seq: u64, result: Result<(), PublishError>) {
        let jitter = self.jitter();
        let Some(feed) = self.feeds.get_mut(name) else { return };
        if feed.flight.take_if(|(_, flown)| *flown == seq).is_none() || feed.head.seq() != seq {
            return self.fire(now);
        }
        match result {
            Ok(()) | Err(PublishError::Duplicate) => {
                feed.announced = Some(now);
                feed.queued = false;
                feed.failures = 0;
                feed.failure = None;
                feed.due = now + jitter;
            }
            Err(error) => {
                feed.due = now + (MIN_RETRY * 2u32.saturating_pow(feed.failures.min(16))).min(MAX_RETRY);
                feed.failures = feed.failures.saturating_add(1);
                feed.failure = Some(error.clone());
                if !std::mem::replace(&mut feed.queued, true) {
                    let head = feed.head.clone();
                    self.effects.push_back(Effect::Queued { head, peers: self.peers, reason: error });
                }
            }
        }
        self.fire(now);
    }

    /// Publishes what is due, the longest due first, as far as the pace allows.
    fn fire(&mut self, now: Instant) {
        if self.peers == 0 {
            for feed in self.feeds.values_mut().filter(|feed| feed.announced.is_none() && !feed.queued) {
                feed.queued = true;
                feed.failure = Some(PublishError::NoPeers);
                let (head, reason) = (feed.head.clone(), PublishError::NoPeers);
                self.effects.push_back(Effect::Queued { head, peers: 0, reason });
            }
            return;
        }
        let pace =
            self.pace.get_or_insert_with(|| Bucket::new(now, ANNOUNCEMENT_BURST / 2, ANNOUNCEMENTS_PER_SECOND / 2));
        let mut due: Vec<_> = self.feeds.values_mut().filter(|feed| feed.due <= now && feed.flight.is_none()).collect();
        due.sort_by_key(|feed| feed.due);
        for feed in due {
            if !pace.take(now) {
                break;
            }
            feed.flight = Some((now + FLIGHT, feed.head.seq()));
            self.effects.push_back(Effect::Publish(feed.head.clone()));
        }
    }

    /// The interval, give or take a fifth.
    fn jitter(&mut self) -> Duration {
        self.config.interval.mul_f64(self.rng.random_range(0.8..1.2)).max(self.config.floor)
    }
}

impl Machine for Announcer {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Announce(head) => self.announce(now, *head),
            Input::Withdraw(feed) => {
                self.feeds.remove(&feed);
            }
            Input::Peers(peers) => self.set_peers(now, peers),
            Input::Published { feed, seq } => self.landed(now, &feed, seq, Ok(())),
            Input::Failed { feed, seq, error } => self.landed(now, &feed, seq, Err(error)),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<_> = self
            .feeds
            .iter()
            .filter_map(|(name, feed)| feed.flight.filter(|(at, _)| *at <= now).map(|(_, seq)| (name.clone(), seq)))
            .collect();
        for (name, seq) in late {
            self.landed(now, &name, seq, Err(PublishError::Other("no answer from the swarm".into())));
        }
        self.fire(now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let flights = self.feeds.values().filter_map(|feed| feed.flight.map(|(at, _)| at)).min();
        let dues = self.feeds.values().filter(|feed| feed.flight.is_none()).map(|feed| feed.due).min();
        let pace = self.pace.as_ref().map(Bucket::ready_at);
        let next = dues.filter(|_| self.peers > 0).map(|due| pace.map_or(due, |pace| due.max(pace)));
        [flights, next].into_iter().flatten().min()
    }
}
