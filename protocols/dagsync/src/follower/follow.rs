//! One followed feed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dagmesh_core::limits;
use libp2p_identity::PeerId;

use super::{CallId, Config, FollowKey, Head, Latest, Policy, State, SyncId};

/// Two machines side by side: the question for the head, and the work of syncing what is known of it.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) policy: Policy,
    /// The newest head; never replaced by an older one.
    pub(super) head: Option<Head>,
    pub(super) latest: Option<Latest>,
    /// The number of the last fork that was told.
    pub(super) forked: Option<u64>,

    pub(super) ask: Ask,
    pub(super) ask_failures: u32,
    pub(super) ask_trouble: Option<String>,
    /// When the publisher last answered, or failed to.
    pub(super) asked: Option<Instant>,

    pub(super) work: Work,
    pub(super) failures: u32,
    pub(super) trouble: Option<String>,
    /// Look for providers before the next try.
    pub(super) search: bool,
    /// Those that Kademlia named, as it named them.
    providers: Vec<PeerId>,
    faults: BTreeMap<PeerId, Fault>,

    pub(super) known_blocks: u64,
    pub(super) have_blocks: u64,

    /// The state and reason that were told last, and since when the state holds.
    pub(super) shown: Option<(State, Option<String>)>,
    pub(super) since: Instant,
    /// Where it stands in the table of timers.
    pub(super) due: Option<Instant>,
}

/// Asking the publisher for its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Never: the publisher is refused.
    Off,
    /// Asked next then.
    Rest { next: Instant },
    /// Waits for a slot.
    Waiting,
    /// Asked; `again`: after it was looked for in the DHT.
    Head { call: CallId, deadline: Instant, again: bool },
    /// Looked for in the DHT.
    Peer { call: CallId, deadline: Instant },
}

/// Syncing up to the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing to do.
    Rest,
    /// Waits for its turn.
    Ready,
    /// Waits for a slot to look for providers.
    Lookup,
    /// Looks for providers.
    Searching { call: CallId, deadline: Instant },
    /// Runs.
    Running { id: SyncId },
    /// Tried again then.
    Pause { next: Instant },
    /// Not tried again by itself.
    Failed,
}

/// What a provider has done wrong since the last sync that ended well, or for which it is still left out.
#[derive(Debug, Clone, Copy, Default)]
struct Fault {
    count: u32,
    bad_until: Option<Instant>,
}

impl Follow {
    pub(super) fn new(now: Instant, policy: Policy, latest: Option<Latest>) -> Self {
        Self {
            policy,
            head: None,
            latest,
            forked: None,
            ask: Ask::Rest { next: now },
            ask_failures: 0,
            ask_trouble: None,
            asked: None,
            work: Work::Rest,
            failures: 0,
            trouble: None,
            search: false,
            providers: Vec::new(),
            faults: BTreeMap::new(),
            known_blocks: 0,
            have_blocks: 0,
            shown: None,
            since: now,
            due: None,
        }
    }

    /// Whether a newer head is known than what is held.
    pub(super) fn is_behind(&self) -> bool {
        self.head.as_ref().is_some_and(|head| self.latest.is_none_or(|latest| !head.is_reached(latest)))
    }

    pub(super) fn announced(&self) -> Option<Latest> {
        self.head.as_ref().map(Head::place)
    }

    /// Moves `latest` forward, never back.
    pub(super) fn move_latest(&mut self, to: Latest) {
        if self.latest.is_none_or(|latest| latest.seq < to.seq) {
            self.latest = Some(to);
        }
    }

    /// Shortens the wait for the next try, if there is one; wakes up what had given up.
    pub(super) fn hurry(&mut self, by: Instant) {
        match &mut self.work {
            Work::Pause { next } => *next = (*next).min(by),
            Work::Failed => self.work = Work::Pause { next: by },
            _ => {}
        }
    }

    /// Lets what waits for its next try go on at once, as if nothing had failed.
    pub(super) fn start_over(&mut self, now: Instant) {
        self.failures = 0;
        if matches!(self.work, Work::Pause { .. } | Work::Failed) {
            self.work = Work::Rest;
            self.trouble = None;
        }
        self.ask_now(now);
    }

    /// Asks for the head now, unless that is under way.
    pub(super) fn ask_now(&mut self, now: Instant) {
        if let Ask::Rest { next } = &mut self.ask {
            *next = (*next).min(now);
        }
    }

    /// The publisher, then those that Kademlia named; whoever failed more often stands further back, and who sent what
    /// it should not is left out while there are others.
    pub(super) fn candidates(&self, now: Instant, key: &FollowKey, config: &Config) -> Vec<PeerId> {
        let found = self.providers.iter().filter(|peer| **peer != key.publisher);
        let mut all: Vec<_> = std::iter::once(&key.publisher).chain(found).copied().collect();
        let fault = |peer: &PeerId| self.faults.get(peer).copied().unwrap_or_default();
        all.sort_by_key(|peer| fault(peer).count);
        let good = |peer: &PeerId| fault(peer).bad_until.is_none_or(|until| until <= now);
        if all.iter().any(good) {
            all.retain(good);
        }
        all.truncate(config.max_providers.max(1));
        all
    }

    /// Takes in whom Kademlia named. Faults of those no longer named are forgotten, so that they stay bounded.
    pub(super) fn set_providers(&mut self, key: &FollowKey, config: &Config, mut named: Vec<PeerId>) {
        let mut seen = std::collections::BTreeSet::new();
        named.retain(|peer| *peer != config.own && *peer != key.publisher && seen.insert(*peer));
        named.truncate(config.max_providers.saturating_sub(1));
        self.faults.retain(|peer, _| *peer == key.publisher || named.contains(peer));
        self.providers = named;
    }

    /// Remembers that this provider failed.
    pub(super) fn blame(&mut self, now: Instant, key: &FollowKey, provider: PeerId, bad: bool) {
        if provider == key.publisher || self.providers.contains(&provider) {
            let fault = self.faults.entry(provider).or_default();
            fault.count = fault.count.saturating_add(1);
            if bad {
                fault.bad_until = Some(now + Duration::from_secs(limits::BAD_PROVIDER_SECS));
            }
        }
    }

    /// A sync ended well: whatever went wrong before is over. But who sent what it should not stays out for its time:
    /// that another one was honest says nothing about it.
    pub(super) fn forgive(&mut self, now: Instant) {
        self.failures = 0;
        self.trouble = None;
        self.search = false;
        self.faults.retain(|_, fault| fault.bad_until.is_some_and(|until| until > now));
    }

    /// How it stands, in words.
    pub(super) fn describe(&self) -> (State, Option<String>) {
        let reason =
            |trouble: &Option<String>, otherwise: &str| Some(trouble.clone().unwrap_or_else(|| otherwise.to_owned()));
        match (self.ask, self.work) {
            (Ask::Off, _) => (State::Failed, Some("this publisher is refused here".into())),
            (_, Work::Running { .. }) => (State::Syncing, None),
            (_, Work::Failed) => (State::Failed, reason(&self.trouble, "the sync failed")),
            _ if self.is_behind() => (State::Behind, reason(&self.trouble, "waits for its turn")),
            _ if self.head.is_none() => (State::Waiting, reason(&self.ask_trouble, "asks the publisher for its head")),
            _ => (State::InSync, None),
        }
    }

    /// When it goes on by itself, for whoever reads its reason.
    pub(super) fn next_try(&self) -> Option<Instant> {
        match (self.ask, self.work) {
            (Ask::Off, _) => None,
            (_, Work::Pause { next }) => Some(next),
            (Ask::Rest { next }, Work::Rest) if self.head.is_none() => Some(next),
            _ => None,
        }
    }

    /// The next instant at which something happens by itself, apart from a running sync's slice.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ask = match self.ask {
            Ask::Rest { next } => Some(next),
            Ask::Head { deadline, .. } | Ask::Peer { deadline, .. } => Some(deadline),
            Ask::Off | Ask::Waiting => None,
        };
        let work = match self.work {
            Work::Pause { next } => Some(next),
            Work::Searching { deadline, .. } => Some(deadline),
            Work::Rest | Work::Ready | Work::Lookup | Work::Running { .. } | Work::Failed => None,
        };
        [ask, work].into_iter().flatten().min()
    }

    /// The look-ups that are under way for it.
    pub(super) fn calls(&self) -> impl Iterator<Item = CallId> {
        let ask = match self.ask {
            Ask::Head { call, .. } | Ask::Peer { call, .. } => Some(call),
            Ask::Off | Ask::Rest { .. } | Ask::Waiting => None,
        };
        let work = match self.work {
            Work::Searching { call, .. } => Some(call),
            _ => None,
        };
        [ask, work].into_iter().flatten()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn remembered_peers(&self) -> usize {
        self.providers.len().max(self.faults.len())
    }
}
