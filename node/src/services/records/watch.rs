//! Where an IPNS name points, from now on.

use std::time::{Duration, Instant};

use dagmesh_core::limits::{NAME_WATCH_MAX_SECS, NAME_WATCH_MIN_SECS, NAME_WATCH_RETRY_SECS, RECORD_QUORUM};
use dagmesh_records::{GetResult, IpnsName, IpnsRecord, Order};
use futures::{FutureExt, Stream, future::BoxFuture, stream};
use tokio::sync::watch::Receiver;

use super::{Records, pubsub::Listening};
use crate::{error::NodeError, types::NameResolved};

impl Records {
    /// Where a name points, as soon as it is known, and after that each record that is newer than the last: whatever the book
    /// takes, from wherever it came, and what the DHT says when it is asked again, which it is as often as the record's TTL
    /// says within [`NAME_WATCH_MIN_SECS`] and [`NAME_WATCH_MAX_SECS`], sooner while nobody has it. It ends with the node. A
    /// slow reader is given the newest and may miss those between.
    pub(crate) fn watch(&self, name: IpnsName) -> impl Stream<Item = NameResolved> + Send + use<> {
        let news = self.book.news();
        let watch = Watch {
            records: self.clone(),
            name,
            news,
            newest: None,
            asking: None,
            _listening: None,
            ask_at: Instant::now(),
            retry: RETRY,
        };
        stream::unfold(watch, async |mut watch| watch.next().await.map(|resolved| (resolved, watch)))
    }
}

/// How soon the DHT is asked again after it was asked in vain; doubles. A node that has just begun knows nobody yet.
const RETRY: Duration = Duration::from_secs(NAME_WATCH_RETRY_SECS);

struct Watch {
    records: Records,
    name: IpnsName,
    news: Receiver<()>,
    newest: Option<Order>,
    asking: Option<BoxFuture<'static, Asked>>,
    /// Its topic stays subscribed to.
    _listening: Option<Listening>,
    ask_at: Instant,
    retry: Duration,
}

type Found = Result<(IpnsRecord, GetResult), NodeError>;
type Asked = (Option<Listening>, Found);

impl Watch {
    async fn next(&mut self) -> Option<NameResolved> {
        let stop = self.records.context.stop.clone();
        loop {
            self.news.mark_unchanged();
            if let Some(resolved) = self.held().and_then(|record| self.newer(&record, None)) {
                return Some(resolved);
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                changed = self.news.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.ask_at.into()), if self.asking.is_none() => {
                    let (records, name) = (self.records.clone(), self.name);
                    let asking = async move {
                        let listening = records.listen(name).await;
                        (listening, records.find(&name, RECORD_QUORUM).await)
                    };
                    self.asking = Some(asking.boxed());
                }
                (listening, found) = answer(&mut self.asking) => {
                    self.asking = None;
                    self._listening = listening;
                    if let Some(resolved) = self.found(found) {
                        return Some(resolved);
                    }
                }
            }
        }
    }

    fn held(&self) -> Option<IpnsRecord> {
        let held = self.records.book.get(&self.name.key())?;
        if self.newest.is_some_and(|newest| held.order() <= newest) {
            return None;
        }
        IpnsRecord::decode(&self.name, held.bytes()).ok()
    }

    fn found(&mut self, found: Found) -> Option<NameResolved> {
        let (min, max) = (Duration::from_secs(NAME_WATCH_MIN_SECS), Duration::from_secs(NAME_WATCH_MAX_SECS));
        let (again, resolved) = match found {
            Ok((record, result)) => {
                self.retry = RETRY;
                (Duration::from_nanos(record.draft().ttl_ns).clamp(min, max), self.newer(&record, Some(&result)))
            }
            Err(error) => {
                tracing::debug!(%error, name = %self.name, "a watched name is not found");
                let again = self.retry;
                self.retry = (again * 2).min(min);
                (again, None)
            }
        };
        self.ask_at = Instant::now() + again;
        resolved
    }

    fn newer(&mut self, record: &IpnsRecord, result: Option<&GetResult>) -> Option<NameResolved> {
        if self.newest.is_some_and(|newest| record.order() <= newest) {
            return None;
        }
        self.newest = Some(record.order());
        Some(NameResolved::new(record, result))
    }
}

/// What the DHT says; never, where it is not asked.
async fn answer(asking: &mut Option<BoxFuture<'static, Asked>>) -> Asked {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}
