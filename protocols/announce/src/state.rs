//! The rules for an announcement that arrives.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{FeedName, HashCode, HeadOrder, SignedHead};
use hashlink::LruCache;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::{AnnounceError, Announcement, rate::Rates, reach};

/// Decides about announcements, one at a time, without I/O: accept, ignore or reject.
///
/// Cheap first: length, the neighbour's rate, the form, duplicates; then the head's signature and whose it is; then
/// whether it says anything new. What is remembered is bounded ([`limits::MAX_RATED_PEERS`],
/// [`limits::MAX_SEEN_ANNOUNCEMENTS`], [`limits::MAX_ANNOUNCED_FEEDS`]); the entry quiet for longest makes room.
///
/// No rule rejects for what may be our own fault or policy (our clock, our allow-list, a rate): those are ignored, so
/// that an honest neighbour that passes them on is not punished.
#[derive(Debug)]
pub struct Validator {
    config: ValidatorConfig,
    neighbours: Rates,
    publishers: Rates,
    /// Announcements that were verified, by their hash, with the instant.
    seen: LruCache<[u8; 32], Instant>,
    /// The newest head of each feed.
    known: LruCache<(PeerId, FeedName), Known>,
}

/// What a [`Validator`] is told once.
#[derive(Debug, Clone)]
pub struct ValidatorConfig {
    /// Ourselves: our own announcements, come back, are ignored.
    pub own: PeerId,
    /// Whose heads are taken at all.
    pub publishers: Publishers,
    /// Leave out addresses that only a local network reaches: for the public mesh.
    pub only_reachable: bool,
}

/// Whose heads are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Publishers {
    /// Everybody's.
    #[default]
    Any,
    /// Only theirs.
    Only(BTreeSet<PeerId>),
    /// Everybody's but theirs.
    Except(BTreeSet<PeerId>),
}

impl Publishers {
    /// Whether this publisher's heads are taken.
    pub fn allow(&self, publisher: &PeerId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(peers) => peers.contains(publisher),
            Self::Except(peers) => !peers.contains(publisher),
        }
    }
}

/// How an announcement came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The neighbour that handed it to us.
    pub neighbour: PeerId,
    /// Who sent it into the mesh: the signed `From` of a gossip message, the neighbour itself where it was sent
    /// directly. `None` on a gossip message that names nobody; it is rejected.
    pub author: Option<PeerId>,
}

impl Origin {
    /// A gossip message: its propagation source and its signed source.
    pub fn gossip(neighbour: PeerId, author: Option<PeerId>) -> Self {
        Self { neighbour, author }
    }

    /// A direct announcement.
    pub fn direct(peer: PeerId) -> Self {
        Self { neighbour: peer, author: Some(peer) }
    }
}

/// What is to become of an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Verified. Pass it on, and act on it.
    Accept(Box<VerifiedAnnouncement>),
    /// Verified, but the publisher has signed another head with the same number before. Pass it on, once, so that
    /// others learn of it; keep the old head.
    Fork {
        /// The head that was known.
        known: Box<SignedHead>,
        /// The other one.
        other: Box<SignedHead>,
    },
    /// Nothing to do; nobody is to blame.
    Ignore(Ignored),
    /// The neighbour should not have passed this on.
    Reject(Refused),
}

/// What a gossip protocol wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// Pass it on.
    Accept,
    /// Do not pass it on.
    Ignore,
    /// Do not pass it on, and hold it against the neighbour.
    Reject,
}

impl Verdict {
    /// What the gossip protocol is to do.
    pub fn acceptance(&self) -> Acceptance {
        match self {
            Self::Accept(_) | Self::Fork { .. } => Acceptance::Accept,
            Self::Ignore(_) => Acceptance::Ignore,
            Self::Reject(_) => Acceptance::Reject,
        }
    }
}

/// An announcement that passed every rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAnnouncement {
    /// The head; its publisher has signed it.
    pub head: SignedHead,
    /// Where the publisher can be reached: filtered by the configuration, none that names another peer. Only the
    /// sender's word: dial them for this publisher's id alone.
    pub addrs: Vec<Multiaddr>,
    /// Who relayed it, where that was not the publisher itself.
    pub relay: Option<PeerId>,
    /// Whether the head is newer than all that this validator had seen of the feed.
    pub news: bool,
}

/// Why an announcement is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ignored {
    /// Seen a moment ago.
    #[error("the same head was announced less than {} s ago", limits::DUPLICATE_WINDOW_MS / 1000)]
    Duplicate,
    /// A newer head of the feed is known.
    #[error("head {seq} is older than the known head {known}")]
    Older {
        /// Its number.
        seq: u64,
        /// The number that is known.
        known: u64,
    },
    /// A third head of the same number; that the publisher forks is known.
    #[error("yet another head with number {seq}")]
    ForkKnown {
        /// The number.
        seq: u64,
    },
    /// The neighbour sends too many.
    #[error("{peer} passes on too many announcements")]
    NeighbourRate {
        /// The neighbour.
        peer: PeerId,
    },
    /// The publisher announces too often.
    #[error("{peer} announces too often")]
    PublisherRate {
        /// The publisher.
        peer: PeerId,
    },
    /// Our policy does not take this publisher's heads.
    #[error("heads of {publisher} are not taken here")]
    NotAllowed {
        /// The publisher.
        publisher: PeerId,
    },
    /// Signed further in the future than clocks may differ.
    #[error("the head was signed {ahead_ms} ms in the future")]
    Future {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
    /// Our own head.
    #[error("it is our own")]
    Own,
}

/// Why an announcement is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No announcement, or the head in it is none.
    #[error(transparent)]
    Bad(#[from] AnnounceError),
    /// There is no signed head in it: anybody can invent one.
    #[error("the announcement of {cid} carries no signed head")]
    Unsigned {
        /// The head it names.
        cid: Box<Cid>,
    },
    /// The gossip message names no author.
    #[error("the message names no author")]
    NoAuthor,
    /// Sent by one peer, signed by another, and not marked as relayed for it.
    #[error(transparent)]
    NotThePublisher(Box<Impostor>),
}

/// A peer that announces a head in its own name that another one has signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sent by {author} in its own or a third name, but the head is signed by {publisher}")]
pub struct Impostor {
    /// Who sent it.
    pub author: PeerId,
    /// Whom the announcement names as the original publisher.
    pub claimed: Option<PeerId>,
    /// Who signed the head.
    pub publisher: PeerId,
}

#[derive(Debug)]
struct Known {
    head: SignedHead,
    /// When it was last accepted as an announcement.
    announced: Option<Instant>,
    forked: bool,
}

impl Validator {
    /// A validator that has seen nothing.
    pub fn new(config: ValidatorConfig) -> Self {
        Self {
            config,
            neighbours: Rates::new(limits::ANNOUNCEMENT_RELAY_FACTOR),
            publishers: Rates::new(1),
            seen: LruCache::new(limits::MAX_SEEN_ANNOUNCEMENTS),
            known: LruCache::new(limits::MAX_ANNOUNCED_FEEDS),
        }
    }

    /// Changes whose heads are taken from now on.
    pub fn set_publishers(&mut self, publishers: Publishers) {
        self.config.publishers = publishers;
    }

    /// Tells of a head that became known another way: from the store at the start, or from an answer to a question.
    /// Whatever is older than it is ignored from now on; its own announcement still travels.
    pub fn learn(&mut self, head: &SignedHead) {
        let key = (head.publisher(), head.feed().clone());
        let newer = self.known.get(&key).is_none_or(|known| head.compare(&known.head) == HeadOrder::Newer);
        if newer {
            self.known.insert(key, Known { head: head.clone(), announced: None, forked: false });
        }
    }

    /// The newest head of a feed that this validator has seen.
    pub fn known(&self, publisher: PeerId, feed: &FeedName) -> Option<&SignedHead> {
        self.known.peek(&(publisher, feed.clone())).map(|known| &known.head)
    }

    /// Decides about one announcement, at the instant `now`, which is `unix_ms` on the clock.
    pub fn check(&mut self, now: Instant, unix_ms: u64, origin: &Origin, bytes: &[u8]) -> Verdict {
        self.try_check(now, unix_ms, origin, bytes).unwrap_or_else(|verdict| verdict)
    }

    fn try_check(&mut self, now: Instant, unix_ms: u64, origin: &Origin, bytes: &[u8]) -> Result<Verdict, Verdict> {
        if !self.neighbours.take(now, origin.neighbour) {
            return Err(Ignored::NeighbourRate { peer: origin.neighbour }.into());
        }
        let announcement = Announcement::decode(bytes)?;
        let hash = hash(&announcement);
        if self.seen.get(&hash).is_some_and(|at| is_recent(now, *at)) {
            return Err(Ignored::Duplicate.into());
        }
        let head = announcement
            .signed_head()
            .ok_or_else(|| Verdict::from(Refused::Unsigned { cid: Box::new(announcement.cid) }))??;
        let relay = sender(origin, &announcement, &head)?;
        let publisher = head.publisher();
        if publisher == self.config.own {
            return Err(Ignored::Own.into());
        }
        if !self.config.publishers.allow(&publisher) {
            return Err(Ignored::NotAllowed { publisher }.into());
        }
        let ahead_ms = head.time().saturating_sub(unix_ms);
        if ahead_ms > limits::MAX_CLOCK_SKEW_MS {
            return Err(Ignored::Future { ahead_ms }.into());
        }
        self.seen.insert(hash, now);
        let news = self.place(now, &head)?;
        let mut addrs = announcement.addrs;
        addrs.retain(|addr| {
            reach::leads_to(addr, &publisher) && (!self.config.only_reachable || reach::is_globally_reachable(addr))
        });
        Ok(Verdict::Accept(Box::new(VerifiedAnnouncement { head, addrs, relay, news })))
    }

    /// Puts a head into its place among those known; `true` where it is the newest now, `false` where it is known but
    /// may travel once more.
    fn place(&mut self, now: Instant, head: &SignedHead) -> Result<bool, Verdict> {
        let (peer, seq) = (head.publisher(), head.seq());
        let key = (peer, head.feed().clone());
        let order = self.known.get(&key).map(|known| head.compare(&known.head));
        match (order, self.known.get_mut(&key)) {
            (Some(HeadOrder::Older), Some(known)) => {
                return Err(Ignored::Older { seq, known: known.head.seq() }.into());
            }
            (Some(HeadOrder::Same), Some(known)) if known.announced.is_some_and(|at| is_recent(now, at)) => {
                return Err(Ignored::Duplicate.into());
            }
            (Some(HeadOrder::Fork), Some(known)) if known.forked => return Err(Ignored::ForkKnown { seq }.into()),
            _ => {}
        }
        // Only the publisher can make what comes so far: a replay by others cannot use up its rate.
        if !self.publishers.take(now, peer) {
            return Err(Ignored::PublisherRate { peer }.into());
        }
        match (order, self.known.get_mut(&key)) {
            (Some(HeadOrder::Same), Some(known)) => {
                known.announced = Some(now);
                Ok(false)
            }
            (Some(HeadOrder::Fork), Some(known)) => {
                known.forked = true;
                Err(Verdict::Fork { known: Box::new(known.head.clone()), other: Box::new(head.clone()) })
            }
            _ => {
                self.known.insert(key, Known { head: head.clone(), announced: Some(now), forked: false });
                Ok(true)
            }
        }
    }
}

/// Who relayed the announcement, if not the publisher. Its author is the publisher, or names it as the original one.
fn sender(origin: &Origin, announcement: &Announcement, head: &SignedHead) -> Result<Option<PeerId>, Refused> {
    let author = origin.author.ok_or(Refused::NoAuthor)?;
    let (claimed, publisher) = (announcement.orig_peer, head.publisher());
    match claimed {
        None if author == publisher => Ok(None),
        Some(claimed) if claimed == publisher => Ok((author != publisher).then_some(author)),
        _ => Err(Refused::NotThePublisher(Box::new(Impostor { author, claimed, publisher }))),
    }
}

/// Of the head alone: who relays it, and which addresses stand beside it, makes no new announcement.
fn hash(announcement: &Announcement) -> [u8; 32] {
    let mut bytes = announcement.cid.to_bytes();
    bytes.extend_from_slice(&announcement.extra);
    let digest = HashCode::Blake3.digest(&bytes);
    digest.and_then(|digest| digest.digest().try_into().ok()).unwrap_or_default()
}

fn is_recent(now: Instant, at: Instant) -> bool {
    now.saturating_duration_since(at) < Duration::from_millis(limits::DUPLICATE_WINDOW_MS)
}

impl From<Ignored> for Verdict {
    fn from(why: Ignored) -> Self {
        Self::Ignore(why)
    }
}

impl From<Refused> for Verdict {
    fn from(why: Refused) -> Self {
        Self::Reject(why)
    }
}

impl From<AnnounceError> for Verdict {
    fn from(error: AnnounceError) -> Self {
        Self::Reject(Refused::Bad(error))
    }
}
