//! What goes into the follower, and what comes out of it.

use std::{collections::BTreeSet, fmt, time::Duration};

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{FeedName, SignedHead};
use libp2p_identity::PeerId;

use super::Head;

/// A feed of a publisher: what is followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FollowKey {
    /// Whose.
    pub publisher: PeerId,
    /// Which.
    pub feed: FeedName,
}

impl FollowKey {
    /// The feed that this head is of.
    pub fn of(head: &SignedHead) -> Self {
        Self { publisher: head.publisher(), feed: head.feed().clone() }
    }
}

impl fmt::Display for FollowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.publisher, self.feed)
    }
}

/// How much of a feed is wanted. The follower only carries it along; the executor of a sync obeys it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Most entries of the chain in any sync; all where absent.
    pub depth: Option<u64>,
    /// Keep the content of the newest so many entries; of all where absent, the chain alone where 0.
    pub keep: Option<u64>,
    /// Most entries of the chain in a sync that has no stop link; all where absent.
    pub first_sync_depth: Option<u64>,
}

/// An entry of a feed by its place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latest {
    /// Its CID.
    pub entry: Cid,
    /// Its number; 0 where the chain has none and it is not synced yet.
    pub seq: u64,
}

/// One sync, from [`Effect::StartSync`] to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncId(pub(super) u64);

/// One look-up, from its effect to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(super) u64);

impl fmt::Display for SyncId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sync {}", self.0)
    }
}

/// What the follower is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Ourselves: never a provider.
    pub own: PeerId,
    /// Feeds followed at the most.
    pub max_follows: usize,
    /// Syncs that run at once.
    pub max_syncs: usize,
    /// Syncs of one publisher that run at once, so that one with many feeds leaves room for others.
    pub max_syncs_per_publisher: usize,
    /// Look-ups that run at once.
    pub max_lookups: usize,
    /// Providers named for one sync at the most.
    pub max_providers: usize,
    /// First wait after a failure; doubles.
    pub retry_min: Duration,
    /// Longest wait after a failure.
    pub retry_max: Duration,
    /// Time between two questions for a head, give or take a quarter.
    pub head_check: Duration,
    /// How long a sync may keep others waiting.
    pub slice: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Config {
    /// The caps of [`limits`].
    pub fn new(own: PeerId, seed: u64) -> Self {
        Self {
            own,
            max_follows: limits::MAX_FOLLOWS,
            max_syncs: limits::MAX_SYNCS,
            max_syncs_per_publisher: limits::MAX_SYNCS.div_ceil(2),
            max_lookups: limits::MAX_LOOKUPS,
            max_providers: limits::MAX_PROVIDERS,
            retry_min: Duration::from_millis(limits::RETRY_MIN_MS),
            retry_max: Duration::from_millis(limits::RETRY_MAX_MS),
            head_check: Duration::from_secs(limits::HEAD_CHECK_SECS),
            slice: Duration::from_secs(limits::SYNC_SLICE_SECS),
            seed,
        }
    }
}

/// What the follower is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// Follow this feed. Of one that is followed already: change its policy, and try at once what waits.
    Follow {
        /// Which.
        key: FollowKey,
        /// How much of it.
        policy: Policy,
        /// The newest entry held with its whole content, from the store or from whoever knows it otherwise.
        latest: Option<Latest>,
        /// The newest head that was known before, from the store.
        head: Option<Box<Head>>,
    },
    /// Follow it no longer. [`Event::Unfollowed`] tells when nothing runs for it any more.
    Unfollow(FollowKey),
    /// This head was announced, by whomever. Of a feed that is not followed: ignored.
    Announced(Box<Head>),
    /// A person wants it tried now.
    Retry(FollowKey),
    /// Sets what counts as synced; a sync that runs is started anew from there.
    SetLatest {
        /// Of which feed.
        key: FollowKey,
        /// The entry; `None`: nothing, so that all is walked again.
        latest: Option<Latest>,
    },
    /// Publishers from whom nothing is taken. Replaces the set given before.
    SetRefused(BTreeSet<PeerId>),
    /// A connection with this peer stands: the first one, or one more.
    Connected(PeerId),

    /// Answers [`Effect::QueryHead`]: the publisher's head; `None` where it has none of this feed.
    HeadFound {
        /// The look-up.
        call: CallId,
        /// The head.
        head: Option<Box<Head>>,
    },
    /// Answers [`Effect::QueryHead`]: no answer from the publisher.
    HeadFailed {
        /// The look-up.
        call: CallId,
        /// Why, in words.
        reason: String,
    },
    /// Answers [`Effect::FindPeer`]: addresses of the publisher are known now.
    PeerFound(CallId),
    /// Answers [`Effect::FindPeer`]: it could not be found.
    PeerNotFound {
        /// The look-up.
        call: CallId,
        /// Why, in words.
        reason: String,
    },
    /// Answers [`Effect::FindProviders`]; empty where none were found, or the search failed.
    ProvidersFound {
        /// The look-up.
        call: CallId,
        /// Who has it; those over the cap are left out.
        providers: Vec<PeerId>,
    },

    /// How far a sync is.
    SyncProgress {
        /// The sync.
        id: SyncId,
        /// Blocks known of it.
        known_blocks: u64,
        /// Those of them that are held.
        have_blocks: u64,
    },
    /// One more entry of the feed is held with its whole content, on disk.
    LatestMoved {
        /// The sync.
        id: SyncId,
        /// The entry.
        entry: Cid,
        /// Its number.
        seq: u64,
        /// What it carries.
        content: Cid,
    },
    /// A provider failed and the sync goes on with another one.
    ProviderFailed {
        /// The sync.
        id: SyncId,
        /// Who.
        provider: PeerId,
        /// Whether it sent what it should not.
        bad: bool,
    },
    /// The sync is over: all of it is on disk, `latest` stands at its head.
    SyncFinished {
        /// The sync.
        id: SyncId,
        /// What it moved.
        summary: Summary,
    },
    /// The sync is over without having reached its head.
    SyncFailed {
        /// The sync.
        id: SyncId,
        /// At whom it failed last, if at anybody.
        provider: Option<PeerId>,
        /// Why, in words.
        reason: String,
        /// What to do about it.
        kind: FailureKind,
    },
    /// The sync is over because it was told to stop; where it stood is saved.
    Cancelled(SyncId),

    /// Stop everything; [`Event::Closed`] tells when nothing runs any more.
    Close,
}

/// What a failed sync means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Try again later, with that provider last.
    Retryable,
    /// Try again later, without that provider while there are others.
    BadPeer,
    /// Trying again changes nothing: wait for a newer head, or for a person.
    Fatal,
}

/// What a sync moved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Entries that are new.
    pub entries: u64,
    /// Blocks that travelled.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Who brought any of them.
    pub from: Vec<Share>,
}

/// What one provider brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub provider: PeerId,
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What the follower wants done. Each look-up and each sync ends with exactly one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the publisher for its head of this feed; dial it if needed.
    QueryHead {
        /// To be named in the answer.
        call: CallId,
        /// Of which feed.
        key: FollowKey,
    },
    /// Find addresses of this publisher in the DHT, and remember them for dialling.
    FindPeer {
        /// To be named in the answer.
        call: CallId,
        /// Whose feed it is for.
        key: FollowKey,
    },
    /// Find those who provide this head in the DHT.
    FindProviders {
        /// To be named in the answer.
        call: CallId,
        /// For which feed.
        key: FollowKey,
        /// What they must provide.
        head: Cid,
    },
    /// Sync a feed. Ends with [`Input::SyncFinished`], [`Input::SyncFailed`] or [`Input::Cancelled`].
    StartSync(Box<StartSync>),
    /// End this sync: save where it stands, then answer with [`Input::Cancelled`]. An end that crosses it is fine.
    CancelSync(SyncId),
    /// To be told to whoever watches.
    Event(Event),
}

/// A sync to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartSync {
    /// To be named in all that is told about it.
    pub id: SyncId,
    /// Which feed.
    pub key: FollowKey,
    /// From this head.
    pub head: Head,
    /// Down to this entry: the stop link.
    pub latest: Option<Latest>,
    /// How much of it.
    pub policy: Policy,
    /// From these peers, the likeliest first; never empty.
    pub providers: Vec<PeerId>,
    /// 1, and one more after each failure in a row.
    pub attempt: u32,
}

/// What happened, for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A newer head of a followed feed is known.
    HeadAnnounced {
        /// Of which feed.
        key: FollowKey,
        /// The head.
        head: Latest,
    },
    /// A sync began.
    SyncStarted {
        /// The sync.
        id: SyncId,
        /// Of which feed.
        key: FollowKey,
        /// From this head.
        head: Latest,
        /// Down to this entry.
        stop: Option<Latest>,
        /// Who is tried first.
        from: PeerId,
        /// 1, and one more after each failure in a row.
        attempt: u32,
    },
    /// A sync is done.
    SyncFinished {
        /// The sync.
        id: SyncId,
        /// Of which feed.
        key: FollowKey,
        /// Its head.
        head: Latest,
        /// What it moved.
        summary: Summary,
        /// How long it took.
        took: Duration,
    },
    /// A sync failed.
    SyncFailed {
        /// The sync.
        id: SyncId,
        /// Of which feed.
        key: FollowKey,
        /// Its head.
        head: Latest,
        /// At whom, if at anybody.
        provider: Option<PeerId>,
        /// Why.
        reason: String,
        /// When it is tried again; `None`: not before something changes.
        retry_in: Option<Duration>,
    },
    /// One more entry is held with its whole content.
    LatestMoved {
        /// Of which feed.
        key: FollowKey,
        /// The entry.
        latest: Latest,
        /// What it carries.
        content: Cid,
    },
    /// The publisher has signed two heads with one number. The one known first is kept. Told once a number.
    Equivocation {
        /// Of which feed.
        key: FollowKey,
        /// The head that is kept.
        known: Box<SignedHead>,
        /// The other one.
        other: Box<SignedHead>,
    },
    /// A follow stands differently.
    StateChanged(Box<Status>),
    /// A feed is not followed.
    FollowRefused {
        /// Which.
        key: FollowKey,
        /// Why.
        reason: String,
    },
    /// A feed is followed no longer, and nothing runs for it.
    Unfollowed(FollowKey),
    /// Nothing runs any more; whatever is told from here on changes nothing.
    Closed,
}

/// How far a followed feed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The publisher's head is not known yet.
    Waiting,
    /// A newer head is known, and its sync waits for its turn or its next try.
    Behind,
    /// A sync runs.
    Syncing,
    /// All that is known is held.
    InSync,
    /// It does not go on by itself.
    Failed,
}

impl State {
    /// Its name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Behind => "behind",
            Self::Syncing => "syncing",
            Self::InSync => "in_sync",
            Self::Failed => "failed",
        }
    }
}

/// How a follow stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which.
    pub key: FollowKey,
    /// How much of it is wanted.
    pub policy: Policy,
    /// How far it is.
    pub state: State,
    /// Why it is not in sync, in words; always there in [`State::Waiting`], [`State::Behind`] and [`State::Failed`].
    pub reason: Option<String>,
    /// In how long it is tried again, where that is known.
    pub next_try: Option<Duration>,
    /// The newest entry held with its whole content.
    pub latest: Option<Latest>,
    /// The newest head that is known.
    pub announced: Option<Latest>,
    /// Blocks that the running sync knows of, or the last one had.
    pub known_blocks: u64,
    /// Those of them that are held.
    pub have_blocks: u64,
    /// For how long it has been in this state.
    pub for_how_long: Duration,
    /// For how long the running sync has made no progress.
    pub stalled: Option<Duration>,
}

impl Status {
    /// The reason, and what happens next, in one sentence: `publisher cannot be reached: refused; next try in 12 s`.
    pub fn sentence(&self) -> Option<String> {
        let reason = self.reason.as_deref()?;
        Some(match self.next_try {
            // Rounded up: "in 0 s" says nothing.
            Some(wait) => format!("{reason}; next try in {} s", wait.as_millis().div_ceil(1000)),
            None => reason.to_owned(),
        })
    }
}
