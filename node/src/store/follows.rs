//! Followed feeds: what is wanted of each, and how far it is.

use cid::Cid;
use dagmesh_core::{cbor, limits};
use dagmesh_dag::{FeedName, SignedHead, StoreError};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Batch, Error, FrontierKey, Store, engine::Table, error::bad_row};

/// How much of a followed feed is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FollowPolicy {
    /// How many entries back from the head the chain is fetched; `None`: to its start, or to what is held.
    pub depth: Option<u64>,
    /// Of how many of the newest entries the content is kept; `None`: of all, 0: of none, the chain alone.
    pub keep: Option<u64>,
    /// The same as `depth`, for the first sync alone.
    pub first_sync_depth: Option<u64>,
}

/// What is known of a followed feed. Fields may be added; an older row has their default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FollowRecord {
    /// How much is wanted.
    pub policy: FollowPolicy,
    /// The newest entry whose whole closure (as far as the policy wants it) is on the disk.
    pub latest: Option<Cid>,
    /// Its sequence number; 0 where there is none.
    pub latest_seq: u64,
    /// The newest head heard of, as signed ([`SignedHead::encode`]). It may be ahead of `latest`.
    pub newest_head: Option<ByteBuf>,
    /// Of a chain without numbers: its newest entry heard of. It may be ahead of `latest`.
    pub newest_entry: Option<Cid>,
    /// Whether a sync that was bounded by a depth may have left the chain without its oldest entries: they are not asked
    /// for later either.
    pub cut: bool,
    /// Where the publisher was last found.
    #[serde(with = "addrs")]
    pub addrs: Vec<Multiaddr>,
    /// The name that it is followed by: its key in the DHT.
    pub name: Option<ByteBuf>,
    /// Since when it is followed, in Unix milliseconds.
    pub created_ms: u64,
}

impl FollowPolicy {
    /// Whether the chain may end before its start.
    pub fn cuts(&self) -> bool {
        self.depth.is_some() || self.first_sync_depth.is_some()
    }
}

impl FollowRecord {
    /// The newest head heard of, decoded.
    pub fn head(&self) -> Option<SignedHead> {
        SignedHead::decode(self.newest_head.as_ref()?).ok()
    }

    /// The newest entry heard of, signed for or not.
    pub fn newest(&self) -> Option<Cid> {
        self.head().map(|head| *head.head()).or(self.newest_entry)
    }
}

impl Store {
    /// What is known of a followed feed; `None` where it is not followed.
    pub fn follow(&self, publisher: &PeerId, feed: &FeedName) -> Result<Option<FollowRecord>, Error> {
        self.read_row(Table::Follows, &key(publisher, feed))?.map(|row| decode(&row)).transpose()
    }

    /// All that is followed, by publisher and feed.
    pub fn follows(&self) -> Result<Vec<(PeerId, FeedName, FollowRecord)>, Error> {
        let row = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (row_key, value) = row?;
            let (publisher, feed) = parse_key(&row_key).ok_or_else(|| bad_row("follows", "its key"))?;
            Ok((publisher, feed, decode(&value)?))
        };
        self.engine.keyspaces.rows(Table::Follows, &[]).map(row).collect()
    }

    /// Follows a feed, or replaces what is known of it; durable. See [`Batch::set_follow`].
    pub fn set_follow(&self, publisher: &PeerId, feed: &FeedName, record: &FollowRecord) -> Result<(), Error> {
        self.transaction(|batch| batch.set_follow(publisher, feed, record))
    }

    /// Changes what is known of a followed feed, durable, and returns it; `None` where it is not followed.
    pub fn update_follow(
        &self,
        publisher: &PeerId,
        feed: &FeedName,
        change: impl FnOnce(&mut FollowRecord),
    ) -> Result<Option<FollowRecord>, Error> {
        self.transaction(|batch| {
            let Some(mut record) = batch.follow(publisher, feed)? else { return Ok(None) };
            change(&mut record);
            batch.set_follow(publisher, feed, &record)?;
            Ok(Some(record))
        })
    }

    /// Follows a feed no more, durable; whether it was followed. Its blocks go with the next collection of garbage.
    pub fn remove_follow(&self, publisher: &PeerId, feed: &FeedName) -> Result<bool, Error> {
        self.transaction(|batch| batch.remove_follow(publisher, feed))
    }
}

impl Batch<'_> {
    /// What is known of a followed feed.
    pub fn follow(&self, publisher: &PeerId, feed: &FeedName) -> Result<Option<FollowRecord>, Error> {
        self.row(Table::Follows, &key(publisher, feed))?.map(|row| decode(&row)).transpose()
    }

    /// Follows a feed, or replaces what is known of it. At most [`limits::MAX_FOLLOWS`]; one more is
    /// [`Error::Full`].
    pub fn set_follow(&mut self, publisher: &PeerId, feed: &FeedName, record: &FollowRecord) -> Result<(), Error> {
        if self.put_row(Table::Follows, &key(publisher, feed), cbor::to_vec(record)?)? {
            self.counters.follows += 1;
            if self.counters.follows > limits::MAX_FOLLOWS as u64 {
                return Err(Error::Full { what: "follows", max: limits::MAX_FOLLOWS });
            }
        }
        self.roots(|| record.latest.into_iter().chain(record.newest()));
        Ok(())
    }

    /// Follows a feed no more, and forgets its saved frontier; whether it was followed.
    pub fn remove_follow(&mut self, publisher: &PeerId, feed: &FeedName) -> Result<bool, Error> {
        let held = self.delete_row(Table::Follows, &key(publisher, feed))?;
        if held {
            self.counters.follows = self.counters.follows.saturating_sub(1);
        }
        self.remove_frontier(&FrontierKey::Follow(*publisher, feed.clone()))?;
        Ok(held)
    }
}

/// The length of the peer id in one byte, the peer id, the feed's name.
pub(super) fn key(publisher: &PeerId, feed: &FeedName) -> Vec<u8> {
    let peer = publisher.to_bytes();
    let mut key = Vec::with_capacity(1 + peer.len() + feed.as_str().len());
    // A peer id is a multihash of at most 42 bytes.
    key.push(peer.len() as u8);
    key.extend_from_slice(&peer);
    key.extend_from_slice(feed.as_str().as_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(PeerId, FeedName)> {
    let (len, rest) = key.split_first()?;
    let (peer, feed) = rest.split_at_checked(usize::from(*len))?;
    Some((PeerId::from_bytes(peer).ok()?, FeedName::new(std::str::from_utf8(feed).ok()?).ok()?))
}

fn decode(row: &[u8]) -> Result<FollowRecord, Error> {
    cbor::from_slice(row).map_err(|error| bad_row("follows", error).into())
}

/// Addresses as byte strings. One that this version cannot read is left out, so that it makes no row unreadable.
pub(super) mod addrs {
    use libp2p::Multiaddr;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_bytes::{ByteBuf, Bytes};

    pub(in crate::store) fn serialize<S: Serializer>(addrs: &[Multiaddr], serializer: S) -> Result<S::Ok, S::Error> {
        addrs.iter().map(|addr| Bytes::new(addr.as_ref())).collect::<Vec<_>>().serialize(serializer)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Multiaddr>, D::Error> {
        let addrs = Vec::<ByteBuf>::deserialize(deserializer)?;
        Ok(addrs.into_iter().filter_map(|addr| Multiaddr::try_from(addr.into_vec()).ok()).collect())
    }
}
