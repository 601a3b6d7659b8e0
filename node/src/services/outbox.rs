//! Entry hooks: each entry that has become whole is told at least once, in order, also over a crash.
//!
//! The row that says so is written in the transaction that moves `latest`, and removed when the hook has taken it.

use std::{sync::Arc, time::Duration};

use cid::Cid;
use dagmesh_core::cbor;
use dagmesh_dag::FeedName;
use dagmesh_dagsync::{feed_sync::EntryRef, follower::FollowKey};
use futures::future::BoxFuture;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Context;
use crate::{
    error::NodeError,
    store::{self, Batch},
};

/// Rows read at once.
const ROWS: usize = 64;
/// First wait after a hook has failed; doubles up to the next figure.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// An entry of a followed feed that is held with its whole content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedEntry {
    /// Whose.
    pub publisher: PeerId,
    /// Of which feed.
    pub feed: FeedName,
    /// Its sequence number.
    pub seq: u64,
    /// The entry.
    pub entry: Cid,
    /// What it carries.
    pub content: Cid,
}

/// Takes each entry of a followed feed that has become whole: at least once, oldest first, one at a time. An entry is
/// given again, after a while, if the hook fails, and after a restart if the node ended before the hook did.
pub trait EntryHook: Send + Sync + 'static {
    /// Takes one entry.
    fn entry(&self, entry: SyncedEntry) -> BoxFuture<'_, Result<(), NodeError>>;
}

impl<F, T> EntryHook for F
where
    F: Fn(SyncedEntry) -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), NodeError>> + Send + 'static,
{
    fn entry(&self, entry: SyncedEntry) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(self(entry))
    }
}

#[derive(Serialize, Deserialize)]
struct Row {
    publisher: serde_bytes::ByteBuf,
    feed: FeedName,
    seq: u64,
    entry: Cid,
    content: Cid,
}

/// Writes rows and has them delivered. Without a hook nothing is written.
#[derive(Clone, Default)]
pub(crate) struct Outbox {
    hook: Option<Arc<dyn EntryHook>>,
    written: Arc<Notify>,
}

impl Outbox {
    pub(crate) fn new(hook: Option<Arc<dyn EntryHook>>) -> Self {
        Self { hook, written: Arc::default() }
    }

    /// Delivers what is waiting, and what comes, until the node stops.
    pub(crate) fn start(&self, context: &Context) {
        let Some(hook) = self.hook.clone() else { return };
        let (this, context) = (self.clone(), context.clone());
        context.clone().spawn(async move { this.deliver(&context, hook.as_ref()).await });
    }

    /// Writes what is to be told of these entries, within the transaction that moves `latest` over them.
    pub(crate) fn write(
        &self,
        batch: &mut Batch<'_>,
        key: &FollowKey,
        entries: &[EntryRef],
    ) -> Result<(), store::Error> {
        if self.hook.is_none() {
            return Ok(());
        }
        for EntryRef { seq, cid, content } in entries {
            let publisher = key.publisher.to_bytes().into();
            let row = Row { publisher, feed: key.feed.clone(), seq: *seq, entry: *cid, content: *content };
            batch.push_outbox(&cbor::to_vec(&row)?)?;
        }
        Ok(())
    }

    /// Tells that rows were written, after the transaction.
    pub(crate) fn wake(&self) {
        self.written.notify_one();
    }

    async fn deliver(&self, context: &Context, hook: &dyn EntryHook) {
        let mut wait = RETRY_MIN;
        loop {
            match self.deliver_some(context, hook).await {
                Ok(true) => wait = RETRY_MIN,
                Ok(false) => self.written.notified().await,
                Err(error) => {
                    tracing::warn!(%error, "an entry hook failed; it is tried again in {} ms", wait.as_millis());
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Whether there was anything to deliver.
    async fn deliver_some(&self, context: &Context, hook: &dyn EntryHook) -> Result<bool, NodeError> {
        let rows = context.blocking(|store| Ok(store.outbox(0, ROWS)?)).await?;
        for (id, row) in &rows {
            match decode(row) {
                Some(entry) => hook.entry(entry).await?,
                None => tracing::warn!(id, "a row of the outbox cannot be read; it is left out"),
            }
            let id = *id;
            context.blocking(move |store| Ok(store.remove_outbox(id)?)).await?;
        }
        Ok(!rows.is_empty())
    }
}

fn decode(row: &[u8]) -> Option<SyncedEntry> {
    let Row { publisher, feed, seq, entry, content } = cbor::from_slice(row).ok()?;
    Some(SyncedEntry { publisher: PeerId::from_bytes(&publisher).ok()?, feed, seq, entry, content })
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        Api, Node,
        api::ProgressSink,
        config::Profile,
        types::{Content, FollowRequest, PublishRequest, TicketRequest},
    };

    const DEADLINE: Duration = Duration::from_secs(60);

    async fn next(told: &mut mpsc::Receiver<u64>) -> u64 {
        tokio::time::timeout(DEADLINE, told.recv()).await.expect("in time").expect("a row")
    }

    /// A follower whose hook tells the numbers it is given, and fails as long as `works` is false.
    async fn follower(home: &Path, works: bool) -> (Node, mpsc::Receiver<u64>) {
        let (tell, told) = mpsc::channel(64);
        let hook = move |entry: SyncedEntry| {
            let tell = tell.clone();
            async move {
                let _ = tell.send(entry.seq).await;
                if works { Ok(()) } else { Err(NodeError::other("the hook's own database is away")) }
            }
        };
        let node = Node::builder().home(home).profile(Profile::Test).entry_hook(hook).start().await.expect("starts");
        (node, told)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_entry_hook_is_told_each_entry_in_order_also_after_it_failed_and_the_node_was_stopped() {
        let homes = [tempfile::tempdir().expect("a dir"), tempfile::tempdir().expect("a dir")];
        let publisher = Node::builder().home(homes[0].path()).profile(Profile::Test).start().await.expect("starts");
        let file = homes[0].path().join("file");
        for version in 1..=3 {
            std::fs::write(&file, format!("{version}")).expect("writes");
            let request = PublishRequest::new(Content::Path(file.clone()));
            publisher.publish(request, ProgressSink::none()).await.expect("publishes");
        }
        let ticket = publisher.ticket(TicketRequest::default()).await.expect("a ticket").ticket;
        let request = FollowRequest { wait: true, ..FollowRequest::new(ticket.parse().expect("a ticket")) };

        let (node, mut told) = follower(homes[1].path(), false).await;
        node.follow(request, ProgressSink::none()).await.expect("follows");
        assert_eq!(next(&mut told).await, 1);
        assert_eq!(next(&mut told).await, 1, "what failed is told again, and nothing overtakes it");
        node.shutdown().await.expect("stops");
        drop(node);

        let (node, mut told) = follower(homes[1].path(), true).await;
        for seq in 1..=3 {
            assert_eq!(next(&mut told).await, seq);
        }
        node.shutdown().await.expect("stops");
        publisher.shutdown().await.expect("stops");
    }
}
