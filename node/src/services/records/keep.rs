//! Keeps the book: rows to the disk, bans to the swarm, records to the closest nodes again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use dagmesh_core::limits::DEFAULT_RECORD_REPLICAS;
use dagmesh_records::{Answer, Code, IpnsDraft, IpnsName, IpnsRecord, Namespace, Source, Validity, Verified};
use libp2p::PeerId;

use super::{Records, unix_ms};
use crate::{
    error::NodeError,
    store::{Error, Store},
    swarm::{RecordBook, RecordChanges, RecordWork},
};

/// How long after a write that failed it is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// A name is signed anew after such a part of its time: when it is put again as often as is usual, each time.
const RENEWED_AFTER: u64 = 16;
/// How soon to look again where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

impl Records {
    /// Runs until it is dropped.
    pub(super) async fn keep(&self) {
        let _stopped = Stopped(&self.book);
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
        let record = self.renewed(record).await;
        if let Err(error) = self.replicate(record, DEFAULT_RECORD_REPLICAS).await {
            tracing::debug!(%error, "record not put again");
            self.book.put_ended(&key, false);
        }
    }

    /// An own record of IPNS with the same number and a later validity, where its time has run for a while and its key is
    /// here; else as it is. It is valid for as long again as its owner wanted at first.
    async fn renewed(&self, record: Verified) -> Verified {
        let renewed = self.renew(&record).await;
        renewed.unwrap_or(record)
    }

    async fn renew(&self, record: &Verified) -> Option<Verified> {
        let since_ms = self.book.own_since(record.key()).filter(|_| record.namespace() == Namespace::Ipns)?;
        let lifetime_ms = record.expires_ms().checked_sub(since_ms)?;
        if unix_ms().saturating_sub(since_ms) < lifetime_ms / RENEWED_AFTER {
            return None;
        }
        let (keys, owner) = (self.keys.clone(), record.owner());
        let key = self.context.blocking(move |_| Ok(keys.of(&owner))).await.ok()??;
        let _one_at_a_time = self.signing.lock().await;
        let old = IpnsRecord::decode(&IpnsName::from_key(record.key()).ok()?, record.bytes()).ok()?;
        let validity = Validity::from_unix_ms(unix_ms().saturating_add(lifetime_ms));
        let new = IpnsRecord::sign(&key, IpnsDraft { validity, ..old.draft().clone() }).ok()?;
        let new = Verified::from(&new);
        // Refused where there is a newer one: then that is put in its own time.
        let (_, number) = self.book.put(Source::Own, new.clone()).ok()?;
        self.book.durable(number).await.then_some(new)
    }
}

/// Tells those who wait for the disk when nobody writes any more.
struct Stopped<'a>(&'a RecordBook);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.stopped();
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
