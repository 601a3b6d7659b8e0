//! The machine of a group: when to say what, whom to ask, and what to tell the user.
//!
//! [`Group`] is a [`Machine`]. Rules
//! - A valid head is applied, whatever the digest beside it says; a message with one that is not is dropped whole.
//! - A number is used once it is durable, a session before its first number. One publication a producer is written at a
//!   time; it is told to the topic at once, with the whole vector while that is small.
//! - The digest is told from time to time, less and less while all agree ([`heartbeat`]).
//! - An unknown digest waits a moment, each with its own timer: most are of updates that are still under way. Then the
//!   one who is ahead is asked, by [`Summary::is_ahead_of`]; whoever is behind asks, the other does nothing. Claimers
//!   are asked first, then two neighbours, then the whole group at once.
//! - What the pages show the other to lack goes back with the next request. Where each lacked something, both tell their
//!   digest at once: it was a cut, and those behind them lack it too.
//! - On a new connection or subscription, digests are exchanged at once, and nothing waits.
//! - Who claimed to be ahead and brought nothing, or did not answer, is left alone for a growing while.
//! - In a closed group the list of members comes before all else: who has the older one asks, whatever its state, and is
//!   given the list with the page. A newer list is told to the topic at once.
//! - What a neighbour sends beyond its rate is ignored undecoded; digests find what was lost by that.
//!
//! Everything is bounded: heads, the log, claims, peers, requests, answers, publications that wait, a neighbour's messages.
//!
//! [`heartbeat`]: Config::heartbeat_min

mod checked;
mod claims;
mod heartbeat;
mod members;
mod peers;
mod produce;
mod queues;
mod recover;
mod serve;
#[cfg(test)]
mod tests;
mod types;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use dagmesh_core::Machine;
use libp2p_identity::PeerId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::types::{Acceptance, CallId, Config, Effect, Event, Input, PersistId};
use self::{
    checked::Recent,
    claims::Claims,
    heartbeat::Heartbeat,
    peers::Peers,
    produce::Producer,
    recover::{Call, Wide},
};
use crate::{
    head::{GroupHead, HeadError},
    log::DigestLog,
    members::{MemberList, Membership},
    message::{Cursor, Gossip, Update},
    state::{Applied, State, Summary},
};

/// One member of one group. See the [module](self) for its rules.
#[derive(Debug)]
pub struct Group {
    config: Config,
    rng: ChaCha8Rng,
    /// An instant, and what the clock said then.
    clock: (Instant, u64),
    members: Option<MemberList>,
    /// The last version of which the owner has signed two lists.
    members_forked: u64,
    state: State,
    log: DigestLog,
    recent: Recent,
    producers: BTreeMap<PeerId, Producer>,
    /// The last sessions of those that were removed: a number of it may be on its way to the disk.
    left: BTreeMap<PeerId, u64>,
    peers: Peers,
    heartbeat: Heartbeat,
    claims: Claims,
    calls: BTreeMap<CallId, Call>,
    wide: Option<Wide>,
    /// When the whole group may be called again.
    wide_after: Instant,
    /// Calls to the whole group that we answer at these instants, unless another does; each with the version of the list
    /// of members that the caller has.
    answers: BTreeMap<Cursor, (Instant, u64)>,
    /// When we may answer one again.
    answer_after: Instant,
    /// When we take ourselves for the first, if nothing was heard; `None` once initialized.
    alone_at: Option<Instant>,
    next_id: u64,
    effects: VecDeque<Effect>,
}

impl Group {
    /// A member that knows nothing yet.
    pub fn new(now: Instant, config: Config) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let heartbeat = Heartbeat::new(now, &mut rng, config.heartbeat_min, config.heartbeat_max);
        Self {
            rng,
            clock: (now, config.unix_ms),
            members: None,
            members_forked: 0,
            state: State::new(),
            log: DigestLog::new(),
            recent: Recent::default(),
            producers: BTreeMap::new(),
            left: BTreeMap::new(),
            peers: Peers::default(),
            heartbeat,
            claims: Claims::default(),
            calls: BTreeMap::new(),
            wide: None,
            wide_after: now,
            answers: BTreeMap::new(),
            answer_after: now,
            alone_at: Some(now + config.settle),
            next_id: 0,
            effects: VecDeque::new(),
            config,
        }
    }

    /// The state: heads, root, leaves, sum.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The peers of the group that are connected.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.joined()
    }

    /// The peers who say to know more than we do, as far as that is not settled.
    pub fn ahead(&self) -> Vec<PeerId> {
        self.claims.ahead_of(&self.state.summary())
    }

    /// Whether the state is that of the others, as far as is known.
    pub fn is_initialized(&self) -> bool {
        self.alone_at.is_none()
    }

    fn unix_ms(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.clock.0).as_millis();
        self.clock.1.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn event(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(event));
    }

    fn persist_id(&mut self) -> PersistId {
        self.next_id += 1;
        PersistId(self.next_id)
    }

    fn initialized(&mut self) {
        if self.alone_at.take().is_some() {
            self.event(Event::Initialized);
        }
    }

    fn restore(&mut self, now: Instant, mut heads: Vec<GroupHead>) {
        heads.retain(|head| self.is_member(&head.producer()));
        self.state.apply(self.unix_ms(now), heads);
        // The log tells what changed since a root only where it has seen all of it.
        self.log = DigestLog::new();
    }

    fn join(&mut self, now: Instant, peer: PeerId) {
        let first = self.peers.joined().next().is_none();
        if !self.peers.join(now, peer) {
            return;
        }
        if first {
            self.heartbeat.restart(now, &mut self.rng);
        }
        self.hello(now, peer);
    }

    /// Applies heads of others and tells what is new. Gives how many were.
    fn learn(&mut self, now: Instant, heads: Vec<GroupHead>, is_recovery: bool) -> usize {
        let before = self.state.summary().root;
        let mut seen = BTreeMap::new();
        for head in &heads {
            let name = head.key().name;
            seen.entry(name).or_insert_with(|| self.state.of_producer(name).next().is_some());
        }
        let applied = self.state.apply(self.unix_ms(now), heads.iter().cloned());
        let (mut changed, mut store, mut events, mut taken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (head, applied) in heads.into_iter().zip(applied) {
            match applied {
                Applied::New { first } => {
                    if let Some(seen @ false) = seen.get_mut(&head.key().name) {
                        *seen = true;
                        events.push(Event::MemberSeen(head.producer()));
                    }
                    changed.push(head.key());
                    store.push(head.clone());
                    taken.extend(self.producers.contains_key(&head.producer()).then(|| head.clone()));
                    events.push(Event::New { head: Box::new(head), first, is_recovery });
                }
                Applied::Fork { other, kept } => {
                    let head = Box::new(head);
                    store.extend(kept.then(|| (*head).clone()));
                    let (kept, other) = if kept { (head, other) } else { (other, head) };
                    events.push(Event::Equivocation { kept, other });
                }
                Applied::Known | Applied::Refused(_) => {}
            }
        }
        let news = changed.len();
        if news > 0 {
            self.log.push(before, changed);
        }
        if !store.is_empty() {
            self.effects.push_back(Effect::Store(store));
        }
        self.effects.extend(events.into_iter().map(Effect::Event));
        if news > 0 && is_recovery {
            // Our side may lack it too.
            self.heartbeat.differ(now, &mut self.rng);
        }
        taken.iter().for_each(|head| self.own_session_taken(now, head));
        news
    }

    /// A member says that this is its state. With `at_once`, an unknown one is not waited for.
    fn observe(&mut self, now: Instant, mut state: Summary, claimers: &[PeerId], at_once: bool) {
        let ours = self.state.summary();
        if self.config.membership == Membership::Open {
            state.members = 0;
        }
        if (state.members, state.root) == (ours.members, ours.root) {
            self.claims.remove(&state.root);
            self.heartbeat.agree();
            return self.initialized();
        }
        self.heartbeat.differ(now, &mut self.rng);
        if !self.is_known(&state) {
            let due = if at_once { now } else { now + self.moment() };
            self.claims.add(&mut self.rng, state, claimers, now, due);
        }
    }

    /// Whether a member of this state has told us all that it knows, or is behind us by its list of members.
    fn is_known(&self, state: &Summary) -> bool {
        let ours = self.state.summary();
        let known = state.root == ours.root || self.log.contains(&state.root);
        state.members < ours.members || (state.members == ours.members && known)
    }

    fn moment(&mut self) -> Duration {
        self.config.moment.mul_f64(self.rng.random_range(1.0 / 3.0..1.0))
    }

    fn gossip(&mut self, now: Instant, author: PeerId, neighbour: PeerId, bytes: &[u8]) -> Acceptance {
        let heard = Gossip::decode(bytes).map_err(|error| error.to_string());
        let result = heard.and_then(|message| {
            let claimers = [author, neighbour];
            match message {
                Gossip::Update(update) => self.take_update(now, update, &claimers).map_err(|error| error.to_string()),
                Gossip::Digest { state, .. } => {
                    self.observe(now, state, &claimers, false);
                    Ok(Acceptance::Accept)
                }
                Gossip::Recover { from, members, .. } => Ok(self.called(now, from, members)),
                Gossip::Members(list) => self.gossiped_members(now, &list).map_err(|error| error.to_string()),
                Gossip::Page { to, page } => {
                    self.take_wide_page(now, to, page, &claimers).map_err(|error| error.to_string())
                }
            }
        });
        result.unwrap_or_else(|reason| {
            self.event(Event::Misbehaved { peer: neighbour, reason });
            Acceptance::Reject
        })
    }

    fn take_update(&mut self, now: Instant, update: Update, claimers: &[PeerId]) -> Result<Acceptance, HeadError> {
        let (changed, vector) = (self.check(now, &update.changed, true)?, self.check(now, &update.vector, true)?);
        let left_out = changed.left_out || vector.left_out;
        self.learn(now, changed.heads, false);
        // To a newcomer the vector is history; to the others it is news that has come a little early.
        self.learn(now, vector.heads, !self.is_initialized());
        // Who was at a root of ours and has told all that it changed since knows nothing that we do not.
        let previous = Summary { root: update.previous, ..update.state };
        let covered = !left_out && self.is_known(&previous);
        if covered && update.state.root != self.state.summary().root {
            self.heartbeat.differ(now, &mut self.rng);
        } else {
            self.observe(now, update.state, claimers, false);
        }
        Ok(if left_out { Acceptance::Ignore } else { Acceptance::Accept })
    }

    /// A time that members share while their heartbeats are equally slow: half an interval.
    fn bucket(&self, now: Instant) -> u64 {
        let half = u64::try_from((self.heartbeat.interval() / 2).as_millis()).unwrap_or(u64::MAX);
        self.unix_ms(now) / half.max(1)
    }

    fn tell(&mut self, message: &Gossip) {
        if let Ok(bytes) = message.encode() {
            self.effects.push_back(Effect::Gossip(bytes));
        }
    }
}

impl Machine for Group {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Members(list) => self.own_members(now, list),
            Input::Restored(heads) => self.restore(now, heads),
            Input::AddProducer { key, session } => self.add_producer(now, *key, session),
            Input::RemoveProducer(producer) => self.remove_producer(producer),
            Input::Publish { producer, payload } => self.publish(now, producer, payload),
            Input::Persisted(id) => self.persisted(now, id, true),
            Input::PersistFailed(id) => self.persisted(now, id, false),
            Input::Gossip { token, neighbour, bytes, .. } if !self.peers.take_bytes(now, neighbour, bytes.len()) => {
                return self.effects.push_back(Effect::Verdict { token, acceptance: Acceptance::Ignore });
            }
            Input::Gossip { token, author, neighbour, bytes } => {
                let acceptance = self.gossip(now, author, neighbour, &bytes);
                self.effects.push_back(Effect::Verdict { token, acceptance });
            }
            Input::PeerJoined(peer) => self.join(now, peer),
            Input::PeerLeft(peer) => self.peers.leave(&peer),
            Input::Request { token, peer, bytes } => {
                let answer = self.serve(now, peer, &bytes);
                self.effects.push_back(Effect::Answer { token, answer });
            }
            Input::Answered { call, bytes } => self.answered(now, call, &bytes),
            Input::Failed(call) => self.call_failed(now, call),
            Input::Clock(unix_ms) => self.clock = (now, unix_ms),
        }
        self.recover(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.give_up_calls(now);
        self.recover(now);
        self.answer_calls(now);
        if self.peers.joined().next().is_some() && self.heartbeat.tick(now, &mut self.rng) {
            let digest = Gossip::Digest { state: self.state.summary(), bucket: self.bucket(now) };
            self.tell(&digest);
        }
        if self.alone_at.is_some_and(|at| at <= now) {
            if self.calls.is_empty() && self.claims.len() == 0 {
                self.initialized();
            } else {
                self.alone_at = Some(now + self.config.settle);
            }
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let heartbeat = self.peers.joined().next().map(|_| self.heartbeat.next());
        let calls = self.calls.values().map(Call::deadline).min();
        let answer = self.answers.values().min().map(|(at, _)| (*at).max(self.answer_after));
        let wide = self.wide.as_ref().map(|wide| wide.deadline);
        [heartbeat, self.claims.next(), calls, answer, wide, self.alone_at].into_iter().flatten().min()
    }
}
