//! A follower, the keys of some publishers, and virtual time.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use cid::Cid;
use dagmesh_dag::{Block, Codec, FeedName, HashCode, SignedHead};
use libp2p_identity::Keypair;

use super::super::*;

pub(super) struct Bench {
    pub(super) follower: Follower,
    pub(super) now: Instant,
}

pub(super) fn own() -> PeerId {
    key_pair(255).public().to_peer_id()
}

/// Made once: a long run asks for them again and again.
fn key_pair(n: u8) -> &'static Keypair {
    static KEYS: LazyLock<Vec<Keypair>> =
        LazyLock::new(|| (0..=255).map(|n| Keypair::ed25519_from_bytes([n; 32]).expect("a key")).collect());
    &KEYS[usize::from(n)]
}

pub(super) fn peer(n: u8) -> PeerId {
    key_pair(n).public().to_peer_id()
}

/// The feed `main` of publisher `n`.
pub(super) fn key(n: u8) -> FollowKey {
    key_of(n, "main")
}

pub(super) fn key_of(n: u8, feed: &str) -> FollowKey {
    FollowKey { publisher: peer(n), feed: FeedName::new(feed).expect("a name") }
}

pub(super) fn entry(text: &str) -> Cid {
    *Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block").cid()
}

pub(super) fn head(n: u8, seq: u64) -> Head {
    head_of(n, "main", seq, "")
}

/// A head with this number; another `text` makes it a fork.
pub(super) fn head_of(n: u8, feed: &str, seq: u64, text: &str) -> Head {
    Head::Signed(signed(n, feed, seq, text))
}

pub(super) fn signed(n: u8, feed: &str, seq: u64, text: &str) -> SignedHead {
    type Name = (u8, String, u64, String);
    static HEADS: LazyLock<Mutex<HashMap<Name, SignedHead>>> = LazyLock::new(Mutex::default);
    let sign = || {
        let feed = FeedName::new(feed).expect("a name");
        SignedHead::sign(key_pair(n), &feed, entry(&format!("{n} {feed} {seq} {text}")), seq, 1).expect("signs")
    };
    let mut heads = HEADS.lock().expect("no panic before");
    heads.entry((n, feed.to_owned(), seq, text.to_owned())).or_insert_with(sign).clone()
}

pub(super) fn latest(n: u8, seq: u64) -> Latest {
    head(n, seq).place()
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(own(), 7);
        change(&mut config);
        #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        let now = Instant::now();
        Self { follower: Follower::new(config), now }
    }

    pub(super) fn tell(&mut self, input: Input) -> Vec<Effect> {
        self.follower.handle(self.now, input);
        self.effects()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.follower.poll_effect()).collect()
    }

    /// Lets time go on, without stopping at deadlines.
    pub(super) fn later(&mut self, wait: Duration) -> Vec<Effect> {
        self.now += wait;
        self.follower.handle_timeout(self.now);
        self.effects()
    }

    /// Goes to the next deadline.
    pub(super) fn next(&mut self) -> Vec<Effect> {
        let next = self.follower.poll_timeout().expect("a deadline");
        self.later(next.saturating_duration_since(self.now))
    }

    /// Goes from deadline to deadline until an effect of this kind comes.
    pub(super) fn until(&mut self, wanted: impl Fn(&Effect) -> bool) -> Vec<Effect> {
        for _ in 0..1000 {
            let effects = self.next();
            if effects.iter().any(&wanted) {
                return effects;
            }
        }
        panic!("it never came");
    }

    pub(super) fn follow(&mut self, key: FollowKey) -> Vec<Effect> {
        self.tell(Input::Follow { key, policy: Policy::default(), latest: None, head: None })
    }

    /// Follows the publisher, who answers with this head: the sync that starts.
    pub(super) fn syncing(&mut self, n: u8, seq: u64) -> StartSync {
        let call = query(&self.follow(key(n)));
        sync(&self.found(call, head(n, seq)))
    }

    pub(super) fn found(&mut self, call: CallId, head: Head) -> Vec<Effect> {
        self.tell(Input::HeadFound { call, head: Some(Box::new(head)) })
    }

    pub(super) fn announce(&mut self, head: Head) -> Vec<Effect> {
        self.tell(Input::Announced(Box::new(head)))
    }

    pub(super) fn finish(&mut self, id: SyncId) -> Vec<Effect> {
        self.tell(Input::SyncFinished { id, summary: Summary::default() })
    }

    pub(super) fn fail(&mut self, id: SyncId, provider: PeerId, kind: FailureKind) -> Vec<Effect> {
        self.tell(Input::SyncFailed { id, provider: Some(provider), reason: "it broke".into(), kind })
    }

    pub(super) fn status(&self, key: &FollowKey) -> Status {
        self.follower.status(self.now, key).expect("is followed")
    }

    pub(super) fn state(&self, key: &FollowKey) -> State {
        self.status(key).state
    }
}

pub(super) fn syncs(effects: &[Effect]) -> Vec<StartSync> {
    let started = |effect: &Effect| match effect {
        Effect::StartSync(sync) => Some((**sync).clone()),
        _ => None,
    };
    effects.iter().filter_map(started).collect()
}

/// The one sync that was started.
pub(super) fn sync(effects: &[Effect]) -> StartSync {
    match &syncs(effects)[..] {
        [sync] => sync.clone(),
        other => panic!("not one sync: {other:?}"),
    }
}

/// The one question for a head.
pub(super) fn query(effects: &[Effect]) -> CallId {
    let calls: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::QueryHead { call, .. } => Some(*call),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 1, "not one question: {effects:?}");
    calls[0]
}

/// The one search for providers.
pub(super) fn search(effects: &[Effect]) -> CallId {
    let calls: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::FindProviders { call, .. } => Some(*call),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 1, "not one search: {effects:?}");
    calls[0]
}

/// The one search for a peer.
pub(super) fn find(effects: &[Effect]) -> CallId {
    let calls: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::FindPeer { call, .. } => Some(*call),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 1, "not one search: {effects:?}");
    calls[0]
}

pub(super) fn cancels(effects: &[Effect]) -> Vec<SyncId> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::CancelSync(id) => Some(*id),
            _ => None,
        })
        .collect()
}

pub(super) fn events(effects: &[Effect]) -> Vec<Event> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Event(Event::StateChanged(_)) => None,
            Effect::Event(event) => Some(event.clone()),
            _ => None,
        })
        .collect()
}

pub(super) fn is_query(effect: &Effect) -> bool {
    matches!(effect, Effect::QueryHead { .. })
}
