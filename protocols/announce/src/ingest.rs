//! The rules for an announcement of the IPNI network: one that names a head and proves nothing by itself.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::HashCode;
use hashlink::LruCache;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use crate::{
    AnnounceError, Announcement, Ignored, Origin, Refused, ValidatorConfig,
    rate::Rates,
    reach::{self, leads_to},
};

/// Decides about announcements of the IPNI network, one at a time, without I/O.
///
/// As in [`Validator`](crate::Validator): cheap first, all that is remembered is bounded, and nobody is blamed for what may
/// be our own fault or policy. What is left to the caller is to find out whether there is such a head: the publisher signs
/// it for whoever asks.
#[derive(Debug)]
pub struct IngestValidator {
    config: ValidatorConfig,
    neighbours: Rates,
    authors: Rates,
    /// Announcements that were taken, by a hash of what they say, with the instant.
    seen: LruCache<[u8; 32], Instant>,
}

/// An announcement that passed every rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Whose head it is.
    pub publisher: PeerId,
    /// The head.
    pub head: Cid,
    /// Where the publisher can be asked: none of them names another peer. Only the sender's word.
    pub addrs: Vec<Multiaddr>,
    /// Whether the publisher itself said so, with its signature on the gossip message or over a connection of its own.
    /// Otherwise it is somebody's word that the publisher is worth asking.
    pub by_publisher: bool,
}

impl IngestValidator {
    /// A validator that has seen nothing.
    pub fn new(config: ValidatorConfig) -> Self {
        Self {
            config,
            neighbours: Rates::new(limits::ANNOUNCEMENT_RELAY_FACTOR),
            authors: Rates::new(limits::ANNOUNCEMENT_RELAY_FACTOR),
            seen: LruCache::new(limits::MAX_SEEN_ANNOUNCEMENTS),
        }
    }

    /// Decides about a gossip message, at the instant `now`.
    ///
    /// # Errors
    /// [`IngestVerdict::Ignore`] and [`IngestVerdict::Reject`], with the reason.
    pub fn gossip(&mut self, now: Instant, origin: &Origin, bytes: &[u8]) -> Result<Ingested, IngestVerdict> {
        if !self.neighbours.take(now, origin.neighbour) {
            return Err(Ignored::NeighbourRate { peer: origin.neighbour }.into());
        }
        let announcement = Announcement::decode(bytes)?;
        let author = origin.author.ok_or(Refused::NoAuthor)?;
        let publisher = announcement.orig_peer.unwrap_or(author);
        self.take(now, author, publisher, announcement)
    }

    /// Decides about a message that came over HTTP, where nobody signs: every address names the publisher, one and the
    /// same. `sender` is whose connection it came over, where that is known; all others share one rate.
    ///
    /// # Errors
    /// As [`gossip`](Self::gossip).
    pub fn http(
        &mut self,
        now: Instant,
        sender: Option<PeerId>,
        announcement: Announcement,
    ) -> Result<Ingested, IngestVerdict> {
        let sender = sender.unwrap_or(self.config.own);
        if !self.neighbours.take(now, sender) {
            return Err(Ignored::NeighbourRate { peer: sender }.into());
        }
        let publisher = named_by_all(&announcement.addrs)?;
        self.take(now, sender, publisher, announcement)
    }

    fn take(
        &mut self,
        now: Instant,
        author: PeerId,
        publisher: PeerId,
        announcement: Announcement,
    ) -> Result<Ingested, IngestVerdict> {
        if publisher == self.config.own {
            return Err(Ignored::Own.into());
        }
        if !self.config.publishers.allow(&publisher) {
            return Err(Ignored::NotAllowed { publisher }.into());
        }
        let by_publisher = author == publisher;
        let hash = hash(&announcement, &publisher, by_publisher);
        let window = Duration::from_millis(limits::DUPLICATE_WINDOW_MS);
        if self.seen.get(&hash).is_some_and(|at| now.saturating_duration_since(*at) < window) {
            return Err(Ignored::Duplicate.into());
        }
        // Of whoever signs the message: a replay of its words by others cannot use up a publisher's own rate.
        if !self.authors.take(now, author) {
            return Err(Ignored::PublisherRate { peer: author }.into());
        }
        self.seen.insert(hash, now);
        let mut addrs = announcement.addrs;
        addrs.retain(|addr| {
            leads_to(addr, &publisher) && (!self.config.only_reachable || reach::is_globally_reachable(addr))
        });
        Ok(Ingested { publisher, head: announcement.cid, addrs, by_publisher })
    }
}

/// Why an announcement is not acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestVerdict {
    /// Nothing to do; nobody is to blame.
    #[error(transparent)]
    Ignore(#[from] Ignored),
    /// It should not have been sent.
    #[error(transparent)]
    Reject(#[from] Refused),
}

impl From<AnnounceError> for IngestVerdict {
    fn from(error: AnnounceError) -> Self {
        Self::Reject(error.into())
    }
}

/// The one peer that all addresses end with.
fn named_by_all(addrs: &[Multiaddr]) -> Result<PeerId, AnnounceError> {
    let mut named = None;
    for (index, addr) in addrs.iter().enumerate() {
        match (addr.iter().last(), named) {
            (Some(Protocol::P2p(peer)), None) => named = Some(peer),
            (Some(Protocol::P2p(peer)), Some(before)) if peer == before => {}
            _ => return Err(AnnounceError::NoPublisher { index }),
        }
    }
    named.ok_or(AnnounceError::NoPublisher { index: 0 })
}

/// Of the head and its publisher: which addresses stand beside it makes no new announcement, and one of somebody else
/// does not stand in the way of the publisher's own.
fn hash(announcement: &Announcement, publisher: &PeerId, by_publisher: bool) -> [u8; 32] {
    let mut bytes = announcement.cid.to_bytes();
    bytes.extend_from_slice(&publisher.to_bytes());
    bytes.push(by_publisher.into());
    let digest = HashCode::Blake3.digest(&bytes);
    digest.and_then(|digest| digest.digest().try_into().ok()).unwrap_or_default()
}
