//! The world around a follower, which does what it is told to, and the invariants that hold whatever happens.

use super::{super::*, bench::*};

pub(super) const PUBLISHERS: u8 = 4;
pub(super) const FEEDS: [&str; 2] = ["main", "other"];
const MAX_FOLLOWS: usize = 6;
const MAX_SYNCS: usize = 3;
const MAX_PER_PUBLISHER: usize = 1;
const MAX_LOOKUPS: usize = 2;
/// Kinds of steps.
pub(super) const KINDS: u8 = 22;
/// Bytes that a step is made of.
#[cfg(fuzzing)]
const STEP_BYTES: usize = 6;

/// What happens next, in numbers: what, whose, which feed, how new, how long to wait before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) kind: u8,
    pub(super) publisher: u8,
    pub(super) feed: usize,
    pub(super) seq: u64,
    pub(super) pick: usize,
    pub(super) wait_ms: u64,
}

#[cfg(fuzzing)]
impl Step {
    /// A step of any bytes.
    fn of(bytes: [u8; STEP_BYTES]) -> Self {
        let [kind, whose, seq, pick, scale, wait] = bytes;
        let wait_ms = u64::from(wait) * [0, 1, 8, 800][usize::from(scale % 4)];
        let (publisher, feed) = (whose % PUBLISHERS, usize::from(whose >> 4) % FEEDS.len());
        Self { kind: kind % KINDS, publisher, feed, seq: 1 + u64::from(seq % 5), pick: usize::from(pick), wait_ms }
    }
}

/// Takes the steps that the bytes describe, and panics where an invariant is broken: for the fuzzer.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let (steps, rest) = bytes.as_chunks::<STEP_BYTES>();
    let mut world = World::new(rest.len() as u64, Bench::new().now);
    for step in steps {
        world.step(Step::of(*step));
    }
    if rest.is_empty() {
        world.heal();
    }
    world.close();
}

/// The world around a follower: what was asked of it and is not answered yet.
pub(super) struct World {
    bench: Bench,
    queries: Vec<(CallId, FollowKey)>,
    finds: Vec<CallId>,
    searches: Vec<CallId>,
    running: Vec<StartSync>,
    pub(super) trace: Vec<Effect>,
    closed: bool,
}

impl World {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        let mut bench = Bench::with(|config| {
            config.seed = seed;
            config.max_follows = MAX_FOLLOWS;
            config.max_syncs = MAX_SYNCS;
            config.max_syncs_per_publisher = MAX_PER_PUBLISHER;
            config.max_lookups = MAX_LOOKUPS;
            config.max_providers = 3;
        });
        bench.now = now;
        let (queries, finds, searches, running, trace) = Default::default();
        Self { bench, queries, finds, searches, running, trace, closed: false }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in &effects {
            match effect {
                Effect::QueryHead { call, key } => self.queries.push((*call, key.clone())),
                Effect::FindPeer { call, .. } => self.finds.push(*call),
                Effect::FindProviders { call, .. } => self.searches.push(*call),
                Effect::StartSync(sync) => {
                    assert!(!self.closed, "nothing starts after the end");
                    assert!(self.running.iter().all(|other| other.key != sync.key), "two syncs for {}", sync.key);
                    let of_publisher = |other: &&StartSync| other.key.publisher == sync.key.publisher;
                    assert!(self.running.iter().filter(of_publisher).count() < MAX_PER_PUBLISHER);
                    assert!(!sync.providers.is_empty() && sync.providers.len() <= 3, "{:?}", sync.providers);
                    assert!(!sync.providers.contains(&own()));
                    assert!(sync.latest.is_none_or(|latest| !sync.head.is_reached(latest)), "nothing to sync");
                    self.running.push((**sync).clone());
                    assert!(self.running.len() <= MAX_SYNCS);
                }
                Effect::CancelSync(id) => {
                    assert!(self.running.iter().any(|sync| sync.id == *id), "{id} is cancelled and does not run");
                }
                Effect::Event(Event::Closed) => {
                    assert!(self.running.is_empty() && !self.closed);
                    self.closed = true;
                }
                Effect::Event(_) => {}
            }
        }
        self.trace.extend(effects);
        self.check();
    }

    fn check(&self) {
        let follower = &self.bench.follower;
        assert!(follower.follows.len() <= MAX_FOLLOWS);
        assert!(follower.calls.len() <= MAX_LOOKUPS);
        assert_eq!(follower.runs.len(), self.running.len(), "each sync that was started is waited for until it ends");
        assert!(follower.ready.len() <= follower.follows.len());
        assert!(follower.lookups.len() <= 2 * follower.follows.len());
        assert_eq!(follower.timers.len(), follower.follows.values().filter(|follow| follow.due.is_some()).count());
        assert!(follower.effects.is_empty());
        for (key, follow) in &follower.follows {
            assert!(follow.remembered_peers() <= 3);
            assert!(follow.due.is_none_or(|due| follower.timers.contains(&(due, key.clone()))));
        }
        for status in follower.statuses(self.bench.now) {
            let in_words = !matches!(status.state, State::InSync | State::Syncing);
            assert_eq!(status.reason.is_some(), in_words, "{status:?}");
        }
    }

    fn tell(&mut self, input: Input) {
        let may_go_back = match &input {
            Input::SetLatest { key, .. } => Some(key.clone()),
            _ => None,
        };
        let before: Vec<_> = self.bench.follower.statuses(self.bench.now).collect();
        let effects = self.bench.tell(input);
        self.take(effects);
        for Status { key, latest, .. } in before {
            let Some(after) = self.bench.follower.status(self.bench.now, &key) else { continue };
            let seq = |latest: Option<Latest>| latest.map(|latest| latest.seq);
            assert!(may_go_back.as_ref() == Some(&key) || seq(after.latest) >= seq(latest), "{key} went back");
        }
    }

    fn later(&mut self, wait: Duration) {
        let effects = self.bench.later(wait);
        self.take(effects);
        let now = self.bench.now;
        assert!(self.bench.follower.poll_timeout().is_none_or(|next| next > now), "time stands still");
    }

    pub(super) fn step(&mut self, step: Step) {
        let Step { kind, publisher, feed, seq, pick, wait_ms } = step;
        self.later(Duration::from_millis(wait_ms));
        let key = key_of(publisher, FEEDS[feed]);
        let text = if pick % 9 == 0 { "fork" } else { "" };
        let head = Box::new(head_of(publisher, FEEDS[feed], seq, text));
        let provider = peer((pick % 6) as u8);
        let sync = (!self.running.is_empty()).then(|| pick % self.running.len());
        let id = sync.map(|at| self.running[at].id);
        match (kind, id) {
            (0..=2, _) => {
                let policy = Policy { keep: (pick % 5 == 0).then_some(1), ..Policy::default() };
                self.tell(Input::Follow { key, policy, latest: None, head: (pick % 3 == 0).then_some(head) });
            }
            (3, _) => self.tell(Input::Unfollow(key)),
            (4..=6, _) => self.tell(Input::Announced(head)),
            (7, _) => self.tell(Input::Retry(key)),
            (8, _) => {
                let latest = (pick % 2 == 0).then(|| head.place());
                self.tell(Input::SetLatest { key, latest });
            }
            (9, _) => {
                let refused = (0..PUBLISHERS).filter(|n| (pick >> n) % 4 == 0).map(peer).collect();
                self.tell(Input::SetRefused(refused));
            }
            (10, _) => self.tell(Input::Connected(peer(publisher))),
            (11 | 12, _) if !self.queries.is_empty() => {
                let (call, asked) = self.queries.remove(pick % self.queries.len());
                match seq {
                    1 => self.tell(Input::HeadFailed { call, reason: "refused".into() }),
                    2 => self.tell(Input::HeadFound { call, head: None }),
                    3 => self.tell(Input::HeadFound { call, head: Some(head) }),
                    _ => {
                        let n = (0..PUBLISHERS).find(|n| peer(*n) == asked.publisher).expect("known");
                        let head = Some(Box::new(head_of(n, asked.feed.as_str(), seq, text)));
                        self.tell(Input::HeadFound { call, head });
                    }
                }
            }
            (13, _) if !self.finds.is_empty() => {
                let call = self.finds.remove(pick % self.finds.len());
                match seq % 2 {
                    0 => self.tell(Input::PeerFound(call)),
                    _ => self.tell(Input::PeerNotFound { call, reason: "nowhere".into() }),
                }
            }
            (14, _) if !self.searches.is_empty() => {
                let call = self.searches.remove(pick % self.searches.len());
                self.tell(Input::ProvidersFound {
                    call,
                    providers: (0..seq as u8 * 3).map(peer).chain([own()]).collect(),
                });
            }
            (15, Some(id)) => self.tell(Input::SyncProgress { id, known_blocks: seq * 2, have_blocks: seq }),
            (16, Some(id)) => self.tell(Input::ProviderFailed { id, provider, bad: seq % 2 == 0 }),
            (17, Some(id)) => {
                self.tell(Input::LatestMoved { id, entry: *head.entry(), seq, content: entry("content") });
            }
            (18..=20, Some(id)) => {
                self.running.remove(sync.expect("it runs"));
                let reason = "it broke".into();
                match seq {
                    1 => self.tell(Input::Cancelled(id)),
                    2 => {
                        let kind = FailureKind::Retryable;
                        self.tell(Input::SyncFailed { id, provider: Some(provider), reason, kind });
                    }
                    3 => self.tell(Input::SyncFailed {
                        id,
                        provider: Some(provider),
                        reason,
                        kind: FailureKind::BadPeer,
                    }),
                    4 => self.tell(Input::SyncFailed { id, provider: None, reason, kind: FailureKind::Fatal }),
                    _ => self.tell(Input::SyncFinished { id, summary: Summary::default() }),
                }
            }
            // A stray word about something long gone, or never there.
            (21, _) => {
                let id = SyncId(seq);
                if self.running.iter().all(|sync| sync.id != id) {
                    self.tell(Input::SyncFinished { id, summary: Summary::default() });
                    self.tell(Input::PeerFound(CallId(u64::MAX)));
                }
            }
            _ => {}
        }
    }

    /// From here on all works: each question is answered with head 9, each sync ends well.
    pub(super) fn heal(&mut self) {
        self.tell(Input::SetRefused(BTreeSet::new()));
        let keys = self.bench.follower.keys(|_| true);
        for key in keys {
            self.tell(Input::Retry(key));
        }
        for _ in 0..400 {
            if let Some((call, key)) = self.queries.pop() {
                let n = (0..PUBLISHERS).find(|n| peer(*n) == key.publisher).expect("known");
                self.tell(Input::HeadFound { call, head: Some(Box::new(head_of(n, key.feed.as_str(), 9, ""))) });
            } else if let Some(call) = self.finds.pop() {
                self.tell(Input::PeerFound(call));
            } else if let Some(call) = self.searches.pop() {
                self.tell(Input::ProvidersFound { call, providers: vec![] });
            } else if let Some(sync) = self.running.pop() {
                self.tell(Input::SyncFinished { id: sync.id, summary: Summary::default() });
            } else {
                let done =
                    self.bench.follower.statuses(self.bench.now).all(|status| {
                        status.state == State::InSync && status.announced.is_some_and(|head| head.seq == 9)
                    });
                if done {
                    return;
                }
                let next = self.bench.follower.poll_timeout().expect("something is still to happen");
                self.later(next.saturating_duration_since(self.bench.now));
            }
        }
        let left: Vec<_> = self.bench.follower.statuses(self.bench.now).collect();
        panic!("not all is in sync: {left:#?}");
    }

    pub(super) fn close(&mut self) {
        self.tell(Input::Close);
        while let Some(sync) = self.running.pop() {
            self.tell(Input::Cancelled(sync.id));
        }
        assert!(self.closed, "it closes once all has ended");
        assert_eq!(self.bench.follower.poll_timeout(), None);
    }
}
