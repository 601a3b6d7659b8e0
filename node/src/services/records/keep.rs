//! Keeps the book: rows to the disk, bans to the swarm, records to the closest nodes again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use dagmesh_core::limits::DEFAULT_RECORD_REPLICAS;
use dagmesh_records::{Answer, Code, Verified};
use libp2p::PeerId;

use super::{Records, unix_ms};
use crate::{
    error::NodeError,
    store::{Error, Store},
    swarm::{RecordChanges, RecordWork},
};

/// How long after a write that failed it is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How soon to look again where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

impl Records {
    /// Runs until it is dropped.
    pub(super) async fn keep(&self) {
        let mut bans = HashMap::<PeerId, u64>::new();
        let mut retry_at = None::<Instant>;
        loop {
            let (RecordWork { changes, number, banned, republish }, due_ms) = self.book.take();
            for (peer, ban) in banned {
                tracing::info!(%peer, until_ms = ban.until_ms, "banned: it put a record with a forged signature");
                bans.insert(peer, ban.until_ms);
                let _stopping = self.context.swarm.ban(peer).await;
            }
            for record in republish {
                let this = self.clone();
                self.context.spawn(async move { this.put_again(record).await });
            }
            let waiting = retry_at.is_some_and(|at| Instant::now() < at);
            let failed = match changes.is_empty() {
                true => {
                    self.book.written(number, None);
                    false
                }
                // Those who wait are told at once, not after the disk has failed once more.
                false if waiting => {
                    self.book.written(number, Some(changes));
                    true
                }
                false => !self.write(number, changes).await,
            };
            retry_at = failed.then(|| retry_at.filter(|_| waiting).unwrap_or_else(|| Instant::now() + RETRY));
            let now_ms = unix_ms();
            for (peer, _) in bans.extract_if(|_, until_ms| *until_ms <= now_ms) {
                let _stopping = self.context.swarm.unban(peer).await;
            }
            let unban = bans.values().min().map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
            let retry = retry_at.map(|at| at.saturating_duration_since(Instant::now()));
            let due = due_ms.map(Duration::from_millis);
            let sleep = [unban, retry, due].into_iter().flatten().fold(IDLE, Duration::min);
            tokio::select! {
                () = self.book.changed() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Writes rows in one transaction; whether they are durable.
    async fn write(&self, number: u64, changes: RecordChanges) -> bool {
        let again = changes.clone();
        let written = self.context.blocking(move |store| write(store, &changes)).await;
        match written {
            Ok(()) => self.book.written(number, None),
            Err(error) => {
                tracing::warn!(%error, rows = again.len(), "records could not be kept; trying again");
                self.book.written(number, Some(again));
                return false;
            }
        }
        true
    }

    async fn put_again(&self, record: Verified) {
        let key = record.key().to_vec();
        match self.replicate(record, DEFAULT_RECORD_REPLICAS).await {
            Ok(result) => tracing::debug!(holders = result.holders.len(), asked = result.asked, "record put again"),
            Err(error) => tracing::debug!(%error, "record not put again"),
        }
        self.book.republished(&key);
    }
}

/// What whoever put a record is told where it could not be written.
pub(super) fn not_written(answer: Answer) -> Answer {
    match answer {
        Answer::Stored { .. } => Answer::error(Code::Internal, "it could not be written to the disk"),
        other => other,
    }
}

fn write(store: &Store, changes: &RecordChanges) -> Result<(), NodeError> {
    let written = store.transaction(|batch| {
        for (key, row) in &changes.records {
            match row {
                Some(row) => batch.set_record(row)?,
                None => batch.remove_record(key)?,
            }
        }
        for (key, mark) in &changes.marks {
            match mark {
                Some(mark) => batch.set_record_mark(key, mark)?,
                None => batch.remove_record_mark(key)?,
            }
        }
        for (peer, ban) in &changes.bans {
            match ban {
                Some(ban) => batch.set_ban(peer, ban)?,
                None => batch.remove_ban(peer)?,
            }
        }
        Ok::<_, Error>(())
    });
    Ok(written?)
}
