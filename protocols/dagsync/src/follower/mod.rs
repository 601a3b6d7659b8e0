//! The follower: decides what is synced when, and from whom.
//!
//! [`Follower`] is a [`Machine`]: it is told of announcements, answers and ends of syncs, and says what to ask, what to
//! look up and which sync to run. It does none of that itself.
//!
//! Rules
//! - A feed has at most one running and one waiting sync; the newest head replaces the waiting one.
//! - Only a higher number is taken. The same number with another head is told as an equivocation, once.
//! - At most [`Config::max_syncs`] syncs run; whoever waits longest is next. A sync that has run for
//!   [`Config::slice`] while others wait is stopped and goes to the end; nobody starves behind an endless chain.
//! - A publisher is asked for its head when it is first followed, when it connects, and from time to time. If it
//!   cannot be reached it is looked for in the DHT, once a try.
//! - A failed sync is tried again with a growing, jittered wait; before that, others who provide its head are looked
//!   for. The publisher stands first, whoever has failed last.
//! - A follow that is not in sync always has a reason that a person can read.
//!
//! Everything is bounded: follows, syncs, look-ups, providers, and whatever waits waits once a feed.

mod ask;
mod follow;
mod head;
mod line;
mod run;
#[cfg(any(test, fuzzing))]
#[allow(clippy::indexing_slicing, reason = "clippy knows tests by `cfg(test)` alone")]
mod tests;
mod types;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use dagmesh_core::{Machine, limits};
use libp2p_identity::PeerId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::head::Head;
#[cfg(fuzzing)]
pub use self::tests::world::fuzz;
pub use self::types::{
    CallId, Config, Effect, Event, FailureKind, FollowKey, Input, Latest, Policy, Share, StartSync, State, Status,
    Summary, SyncId,
};
use self::{
    follow::{Ask, Follow, Work},
    line::Line,
    run::{Outcome, Run, Stop},
};

/// The machine. See the [module](self) for its rules.
#[derive(Debug)]
pub struct Follower {
    config: Config,
    rng: ChaCha8Rng,
    follows: BTreeMap<FollowKey, Follow>,
    /// Syncs that have been started and have not ended, also those told to stop.
    runs: BTreeMap<SyncId, Run>,
    /// Look-ups that have been started and are not answered.
    calls: BTreeMap<CallId, FollowKey>,
    /// Feeds that wait for their sync.
    ready: Line<FollowKey>,
    /// Look-ups that wait for a slot.
    lookups: Line<(FollowKey, Lookup)>,
    timers: BTreeSet<(Instant, FollowKey)>,
    refused: BTreeSet<PeerId>,
    next_id: u64,
    closing: bool,
    effects: VecDeque<Effect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lookup {
    Head,
    Providers,
}

impl Follower {
    /// A follower that follows nothing. A cap of 0 counts as 1.
    pub fn new(mut config: Config) -> Self {
        let caps = [&mut config.max_syncs, &mut config.max_syncs_per_publisher, &mut config.max_lookups];
        caps.into_iter().for_each(|cap| *cap = (*cap).max(1));
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            follows: BTreeMap::new(),
            runs: BTreeMap::new(),
            calls: BTreeMap::new(),
            ready: Line::default(),
            lookups: Line::default(),
            timers: BTreeSet::new(),
            refused: BTreeSet::new(),
            next_id: 0,
            closing: false,
            effects: VecDeque::new(),
        }
    }

    /// How each follow stands, in the order of their keys.
    pub fn statuses(&self, now: Instant) -> impl Iterator<Item = Status> + '_ {
        self.follows.iter().map(move |(key, follow)| self.status_of(now, key, follow))
    }

    /// How one follow stands; `None` where the feed is not followed.
    pub fn status(&self, now: Instant, key: &FollowKey) -> Option<Status> {
        self.follows.get(key).map(|follow| self.status_of(now, key, follow))
    }

    /// The newest head of a followed feed that is known.
    pub fn head(&self, key: &FollowKey) -> Option<&Head> {
        self.follows.get(key)?.head.as_ref()
    }

    /// Whether this feed is followed.
    pub fn is_followed(&self, key: &FollowKey) -> bool {
        self.follows.contains_key(key)
    }

    /// How many feeds are followed.
    pub fn len(&self) -> usize {
        self.follows.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.follows.is_empty()
    }

    fn status_of(&self, now: Instant, key: &FollowKey, follow: &Follow) -> Status {
        let (state, reason) = follow.describe();
        let run = match follow.work {
            Work::Running { id } => self.runs.get(&id),
            _ => None,
        };
        Status {
            key: key.clone(),
            policy: follow.policy,
            state,
            reason,
            next_try: follow.next_try().map(|at| at.saturating_duration_since(now)),
            latest: follow.latest,
            announced: follow.announced(),
            known_blocks: follow.known_blocks,
            have_blocks: follow.have_blocks,
            for_how_long: now.saturating_duration_since(follow.since),
            stalled: run.map(|run| now.saturating_duration_since(run.moved_at)),
        }
    }

    // ---- Following ---------------------------------------------------------------------------------------------

    fn follow(
        &mut self,
        now: Instant,
        key: FollowKey,
        policy: Policy,
        latest: Option<Latest>,
        head: Option<Box<Head>>,
    ) {
        let full = self.follows.len() >= self.config.max_follows;
        match self.follows.get_mut(&key) {
            Some(follow) => {
                let changed = std::mem::replace(&mut follow.policy, policy) != policy;
                follow.start_over(now);
                if let (true, Work::Running { id }) = (changed, follow.work) {
                    self.stop(id, Stop::Again);
                }
            }
            None if full => {
                let reason = format!("{} feeds are followed already, and no more may be", self.config.max_follows);
                return self.event(Event::FollowRefused { key, reason });
            }
            None => {
                let mut follow = Follow::new(now, policy, latest);
                if self.refused.contains(&key.publisher) {
                    follow.ask = Ask::Off;
                }
                self.follows.insert(key.clone(), follow);
            }
        }
        if let Some(head) = head.filter(|head| head.key() == key) {
            self.take_head(now, &key, *head);
        }
        self.advance(now, &key);
    }

    fn unfollow(&mut self, key: &FollowKey) {
        let Some(follow) = self.follows.remove(key) else { return };
        self.drop_waiting(key, &follow);
        if let Some(due) = follow.due {
            self.timers.remove(&(due, key.clone()));
        }
        match self.run_of(key) {
            Some(id) => self.stop(id, Stop::Drop),
            None => self.event(Event::Unfollowed(key.clone())),
        }
    }

    /// Takes all that waits for this follow, or is looked up for it, out of the queues.
    fn drop_waiting(&mut self, key: &FollowKey, follow: &Follow) {
        self.ready.remove(key);
        self.lookups.remove(&(key.clone(), Lookup::Head));
        self.lookups.remove(&(key.clone(), Lookup::Providers));
        for call in follow.calls() {
            self.calls.remove(&call);
        }
    }

    fn set_refused(&mut self, now: Instant, refused: BTreeSet<PeerId>) {
        self.refused = refused;
        for key in self.keys(|_| true) {
            let refuse = self.refused.contains(&key.publisher);
            let Some(mut follow) = self.follows.remove(&key) else { continue };
            match follow.ask {
                Ask::Off if !refuse => follow.ask = Ask::Rest { next: now },
                Ask::Off => {}
                _ if refuse => {
                    self.drop_waiting(&key, &follow);
                    match follow.work {
                        Work::Running { id } => self.stop(id, Stop::Refused),
                        _ => follow.work = Work::Rest,
                    }
                    follow.ask = Ask::Off;
                }
                _ => {}
            }
            self.follows.insert(key.clone(), follow);
            self.advance(now, &key);
        }
    }

    fn set_latest(&mut self, now: Instant, key: &FollowKey, latest: Option<Latest>) {
        let Some(follow) = self.follows.get_mut(key) else { return };
        follow.latest = latest;
        follow.start_over(now);
        if let Work::Running { id } = follow.work {
            self.stop(id, Stop::Again);
        }
        self.advance(now, key);
    }

    fn close(&mut self) {
        self.closing = true;
        self.ready.clear();
        self.lookups.clear();
        self.calls.clear();
        self.timers.clear();
        self.follows.values_mut().for_each(|follow| follow.due = None);
        let running: Vec<_> = self.runs.keys().copied().collect();
        for id in running {
            self.stop(id, Stop::Close);
        }
        self.closed_if_quiet();
    }

    fn closed_if_quiet(&mut self) {
        if self.closing && self.runs.is_empty() {
            self.event(Event::Closed);
        }
    }

    // ---- The next step -----------------------------------------------------------------------------------------

    /// Takes one follow as far as it goes by itself, then tells how it stands and sets its timer.
    fn advance(&mut self, now: Instant, key: &FollowKey) {
        let Some(follow) = self.follows.get_mut(key).filter(|_| !self.closing) else { return };
        if matches!(follow.ask, Ask::Rest { next } if next <= now) {
            follow.ask = Ask::Waiting;
            self.lookups.push((key.clone(), Lookup::Head));
        }
        match (follow.work, follow.is_behind() && follow.ask != Ask::Off) {
            (Work::Rest, true) => {
                follow.work = Work::Ready;
                self.ready.push(key.clone());
            }
            (Work::Pause { next }, true) if next <= now && follow.search => {
                follow.work = Work::Lookup;
                self.lookups.push((key.clone(), Lookup::Providers));
            }
            (Work::Pause { next }, true) if next <= now => {
                follow.work = Work::Ready;
                self.ready.push(key.clone());
            }
            (Work::Ready, false) => {
                follow.work = Work::Rest;
                self.ready.remove(key);
            }
            (Work::Lookup, false) => {
                follow.work = Work::Rest;
                self.lookups.remove(&(key.clone(), Lookup::Providers));
            }
            (Work::Pause { .. }, false) => follow.work = Work::Rest,
            _ => {}
        }
        self.settle(now, key);
    }

    /// Starts what waits, as far as there are slots.
    fn pump(&mut self, now: Instant) {
        while !self.closing && self.calls.len() < self.config.max_lookups {
            let Some((key, lookup)) = self.lookups.take(|_| true) else { break };
            match lookup {
                Lookup::Head => self.query_head(now, &key, false),
                Lookup::Providers => self.find_providers(now, &key),
            }
            self.settle(now, &key);
        }
        while !self.closing && self.runs.len() < self.config.max_syncs {
            let runs = &self.runs;
            let room = |key: &FollowKey| {
                let of_publisher = runs.values().filter(|run| run.key.publisher == key.publisher).count();
                of_publisher < self.config.max_syncs_per_publisher && !runs.values().any(|run| run.key == *key)
            };
            let Some(key) = self.ready.take(room) else { break };
            self.start(now, &key);
            self.settle(now, &key);
        }
    }

    /// Tells how a follow stands, if that has changed, and sets its timer.
    fn settle(&mut self, now: Instant, key: &FollowKey) {
        let Some(follow) = self.follows.get_mut(key) else { return };
        let slice = match follow.work {
            Work::Running { id } => self.runs.get(&id).filter(|run| run.stop.is_none()).map(|run| run.slice_due),
            _ => None,
        };
        let due = [follow.deadline(), slice].into_iter().flatten().min();
        if follow.due != due {
            if let Some(old) = follow.due {
                self.timers.remove(&(old, key.clone()));
            }
            self.timers.extend(due.map(|due| (due, key.clone())));
            follow.due = due;
        }
        let shown = follow.describe();
        if follow.shown.as_ref() != Some(&shown) {
            if follow.shown.as_ref().is_none_or(|(state, _)| *state != shown.0) {
                follow.since = now;
            }
            follow.shown = Some(shown);
            if let Some(status) = self.status(now, key) {
                self.event(Event::StateChanged(Box::new(status)));
            }
        }
    }

    /// What is late in one follow.
    fn expire(&mut self, now: Instant, key: &FollowKey) {
        let Some(follow) = self.follows.get(key) else { return };
        let late = format!("no answer within {} s", limits::LOOKUP_TIMEOUT_SECS);
        let (ask, work) = (follow.ask, follow.work);
        match ask {
            Ask::Head { call, deadline, .. } if deadline <= now => self.head_failed(now, call, &late),
            Ask::Peer { call, deadline } if deadline <= now => self.peer_not_found(now, call, &late),
            _ => {}
        }
        match work {
            Work::Searching { call, deadline } if deadline <= now => self.providers_found(now, call, Vec::new()),
            Work::Running { id } => self.check_slice(now, id),
            _ => {}
        }
        self.advance(now, key);
    }

    // ---- Small things ------------------------------------------------------------------------------------------

    fn keys(&self, fits: impl Fn(&FollowKey) -> bool) -> Vec<FollowKey> {
        self.follows.keys().filter(|key| fits(key)).cloned().collect()
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn event(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(event));
    }

    /// The wait after so many failures in a row: doubles, with jitter, between the two bounds.
    fn backoff(&mut self, failures: u32) -> Duration {
        let (min, max) = (self.config.retry_min, self.config.retry_max);
        let base = min.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(20))).min(max);
        self.jitter(base).clamp(min, max)
    }

    /// Give or take a quarter, so that many who wait for the same do not come back together.
    fn jitter(&mut self, base: Duration) -> Duration {
        base.mul_f64(self.rng.random_range(0.75..1.25))
    }
}

impl Machine for Follower {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            // Ends of syncs count also while closing.
            Input::SyncFinished { id, summary } => self.ended(now, id, Outcome::Finished(summary)),
            Input::SyncFailed { id, provider, reason, kind } => {
                self.ended(now, id, Outcome::Failed { provider, reason, kind });
            }
            Input::Cancelled(id) => self.ended(now, id, Outcome::Cancelled),
            Input::LatestMoved { id, entry, seq, content } => {
                self.latest_moved(now, id, Latest { entry, seq }, content);
            }
            _ if self.closing => {}
            Input::Follow { key, policy, latest, head } => self.follow(now, key, policy, latest, head),
            Input::Unfollow(key) => self.unfollow(&key),
            Input::Announced(head) => self.announced(now, *head),
            Input::Retry(key) => {
                if let Some(follow) = self.follows.get_mut(&key) {
                    follow.start_over(now);
                }
                self.advance(now, &key);
            }
            Input::SetLatest { key, latest } => self.set_latest(now, &key, latest),
            Input::SetRefused(refused) => self.set_refused(now, refused),
            Input::Connected(peer) => self.connected(now, peer),
            Input::HeadFound { call, head } => self.head_found(now, call, head.map(|head| *head)),
            Input::HeadFailed { call, reason } => self.head_failed(now, call, &reason),
            Input::PeerFound(call) => self.peer_found(now, call),
            Input::PeerNotFound { call, reason } => self.peer_not_found(now, call, &reason),
            Input::ProvidersFound { call, providers } => self.providers_found(now, call, providers),
            Input::SyncProgress { id, known_blocks, have_blocks } => self.progress(now, id, known_blocks, have_blocks),
            Input::ProviderFailed { id, provider, bad } => self.provider_failed(now, id, provider, bad),
            Input::Close => self.close(),
        }
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<_> = self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| key.clone()).collect();
        for key in due {
            self.expire(now, &key);
        }
        self.pump(now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }
}

/// A reason from elsewhere, cut to a bounded length.
fn cut(reason: &str) -> &str {
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= limits::MAX_REASON_BYTES;
    let end = reason.char_indices().take_while(fits).last().map_or(0, |(at, c)| at + c.len_utf8());
    reason.get(..end).unwrap_or_default()
}
