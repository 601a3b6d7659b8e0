//! Own feeds: the newest head of each, and publishing as one step.

use dagmesh_core::cbor;
use dagmesh_dag::{Block, Entry, FeedName, SignedHead, StoreError};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Batch, Error, Store, engine::Table, error::bad_row};

/// What is kept of an own feed.
#[derive(Debug, Serialize, Deserialize)]
struct FeedRow {
    seq: u64,
    head: ByteBuf,
}

impl Store {
    /// Publishes an entry: entry and head are on the disk, both or neither, when it returns.
    ///
    /// `head` must name `entry`, and carry the number after the feed's last one; the entry must link to the feed's
    /// last one. So no sequence number is ever used twice, also not by two calls at once: the later one gets
    /// [`Error::Sequence`].
    pub fn publish_entry(&self, entry: &Block, head: &SignedHead) -> Result<(), Error> {
        self.transaction(|batch| batch.publish_entry(entry, head))
    }

    /// The newest head of an own feed.
    pub fn own_head(&self, feed: &FeedName) -> Result<Option<SignedHead>, Error> {
        self.read_row(Table::Feeds, feed.as_str().as_bytes())?.map(|row| decode(&row)).transpose()
    }

    /// The newest head of each own feed, by name.
    pub fn own_heads(&self) -> Result<Vec<SignedHead>, Error> {
        self.engine.keyspaces.rows(Table::Feeds, &[]).map(|row| decode(&row?.1)).collect()
    }
}

impl Batch<'_> {
    /// See [`Store::publish_entry`].
    pub fn publish_entry(&mut self, entry: &Block, head: &SignedHead) -> Result<(), Error> {
        let feed = head.feed();
        let refuse = |reason| Err(Error::Publish { feed: feed.to_string(), reason });
        let content = Entry::from_block(entry)?;
        let last = self.own_head(feed)?;
        let next = last.as_ref().map_or(1, |last| last.seq().saturating_add(1));
        if head.seq() != next {
            return Err(Error::Sequence { feed: feed.to_string(), seq: head.seq(), next });
        }
        if head.head() != entry.cid() {
            return refuse("the head names another entry");
        }
        if content.seq != next {
            return refuse("the entry carries another number than its head");
        }
        if content.previous.as_ref() != last.as_ref().map(SignedHead::head) {
            return refuse("the entry does not link to the feed's last entry");
        }
        self.put_blocks(std::slice::from_ref(entry))?;
        let row = cbor::to_vec(&FeedRow { seq: head.seq(), head: ByteBuf::from(head.encode()) })?;
        if self.put_row(Table::Feeds, feed.as_str().as_bytes(), row)? {
            self.counters.feeds += 1;
        }
        self.roots(|| [*entry.cid()]);
        Ok(())
    }

    /// The newest head of an own feed.
    pub fn own_head(&self, feed: &FeedName) -> Result<Option<SignedHead>, Error> {
        self.row(Table::Feeds, feed.as_str().as_bytes())?.map(|row| decode(&row)).transpose()
    }
}

fn decode(row: &[u8]) -> Result<SignedHead, Error> {
    let row: FeedRow = cbor::from_slice(row).map_err(|error| bad_row("feeds", error))?;
    let head = SignedHead::decode(&row.head).map_err(|error| bad_row("feeds", error))?;
    if head.seq() != row.seq {
        return Err(StoreError::Corrupt(format!(
            "feed {} has number {}, its head {}",
            head.feed(),
            row.seq,
            head.seq()
        ))
        .into());
    }
    Ok(head)
}
