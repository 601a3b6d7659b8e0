use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dagmesh_core::limits;
use dagmesh_records::{
    Answer, Ban, Banned, Bans, Delivery, Mark, RecordError, Row, Served, Source, Store, StoreConfig, StoreEffect,
    Stored, Verified, serve, verify,
};
use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Tells the time, in Unix milliseconds.
pub type UnixClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What this node holds of the DHT's records, and whom it bans for them: one for the DHT, the exchange and the service
/// that keeps them on the disk. Cheap to clone; each call takes a lock for moments and never waits for the disk.
///
/// What has to become durable gathers here, by key, until [`take`](Self::take) and [`written`](Self::written): more than
/// [`limits::MAX_RECORD_WRITES`] of it, and records of peers are refused.
#[derive(Clone)]
pub struct RecordBook {
    shared: Arc<Shared>,
}

struct Shared {
    book: Mutex<Book>,
    changed: Notify,
    news: watch::Sender<()>,
    written: watch::Sender<Written>,
    clock: UnixClock,
    /// Whether somebody keeps it on the disk.
    kept: bool,
}

struct Book {
    store: Store,
    bans: Bans,
    changes: RecordChanges,
    banned: BTreeMap<PeerId, Ban>,
    republish: VecDeque<Verified>,
    /// Grows with each change.
    number: u64,
}

/// Up to which change it is durable, or was tried in vain.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    durable: u64,
    failed: u64,
}

/// What became of it on the disk: the change with this number, for [`RecordBook::durable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeNumber(u64);

/// Rows to write, and with `None` to delete, in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordChanges {
    /// Records.
    pub records: BTreeMap<Vec<u8>, Option<Row>>,
    /// Marks of those that are gone.
    pub marks: BTreeMap<Vec<u8>, Option<Mark>>,
    /// Bans.
    pub bans: BTreeMap<PeerId, Option<Ban>>,
}

/// What the book wants done.
#[derive(Debug, Default)]
pub struct RecordWork {
    /// To be written; then [`RecordBook::written`].
    pub changes: RecordChanges,
    /// Up to which change these go.
    pub number: u64,
    /// Bans that are new: to be carried out.
    pub banned: BTreeMap<PeerId, Ban>,
    /// To be put again to the nodes closest to them; then [`RecordBook::put_ended`].
    pub republish: Vec<Verified>,
}

impl RecordChanges {
    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len() + self.marks.len() + self.bans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what came later.
    fn extend(&mut self, later: Self) {
        self.records.extend(later.records);
        self.marks.extend(later.marks);
        self.bans.extend(later.bans);
    }
}

impl RecordBook {
    /// A book that forgets everything when its last clone is dropped.
    #[must_use]
    pub fn in_memory(own: PeerId) -> Self {
        let clock: UnixClock = Arc::new(unix_ms);
        Self::new(StoreConfig::new(own, rand::random()), clock, false, Vec::new(), Vec::new(), Vec::new())
    }

    /// A book that is kept on the disk, with what was written there: each record is checked again. Whoever takes it
    /// [takes](Self::take) what it wants done from now on.
    pub fn restore(
        config: StoreConfig,
        clock: UnixClock,
        rows: Vec<Row>,
        marks: Vec<(Vec<u8>, Mark)>,
        bans: Vec<(PeerId, Ban)>,
    ) -> Self {
        Self::new(config, clock, true, rows, marks, bans)
    }

    fn new(
        config: StoreConfig,
        clock: UnixClock,
        kept: bool,
        rows: Vec<Row>,
        marks: Vec<(Vec<u8>, Mark)>,
        bans: Vec<(PeerId, Ban)>,
    ) -> Self {
        let now_ms = clock();
        let mut store = Store::new(config);
        store.restore(now_ms, rows, marks);
        let mut book = Book {
            store,
            changes: RecordChanges::default(),
            banned: BTreeMap::new(),
            republish: VecDeque::new(),
            number: 0,
            bans: Bans::new(),
        };
        let known: Vec<_> = bans.iter().map(|(peer, _)| *peer).collect();
        book.bans = Bans::restore(now_ms, bans);
        let left: BTreeMap<_, _> = book.bans.iter().map(|(peer, ban)| (*peer, *ban)).collect();
        book.changes.bans.extend(known.into_iter().filter(|peer| !left.contains_key(peer)).map(|peer| (peer, None)));
        book.banned.extend(left.into_iter().filter(|(_, ban)| now_ms < ban.until_ms));
        let shared = Shared {
            book: Mutex::new(book),
            changed: Notify::new(),
            news: watch::Sender::new(()),
            written: watch::Sender::new(Written::default()),
            clock,
            kept,
        };
        let this = Self { shared: Arc::new(shared) };
        this.with(|_, _| ());
        this
    }

    // ---- Putting and getting ----

    /// Puts a record that this node or a peer has brought. The number says when it is [durable](Self::durable).
    ///
    /// # Errors
    /// Those of [`Store::insert`]; [`RecordError::Full`] while too much waits for the disk.
    pub fn put(&self, source: Source, record: Verified) -> Result<(Stored, ChangeNumber), RecordError> {
        let (stored, number) = self.with(|book, now_ms| {
            book.check_room(source)?;
            book.store.insert(now_ms, source, record)
        });
        Ok((stored?, number))
    }

    /// Puts what a peer itself has sent, over a connection that proves who it is. A signature that does not hold is
    /// reported.
    pub fn put_of_peer(&self, peer: PeerId, key: &[u8], bytes: &[u8]) -> Result<Stored, RecordError> {
        let source = Source::Peer(peer);
        let held = self.get(key).filter(|held| held.bytes() == bytes);
        // The signature is checked without the lock.
        let record = held.map_or_else(|| verify(key, bytes, (self.shared.clock)()), Ok);
        record.and_then(|record| self.put(source, record)).map(|(stored, _)| stored).inspect_err(|why| {
            self.report(peer, why);
        })
    }

    /// Remembers a record that a peer has shown us and that is not held here: none that is older is taken from now on.
    pub fn saw(&self, peer: PeerId, record: &Verified) {
        self.with(|book, now_ms| book.store.saw(now_ms, peer, record));
    }

    /// Serves one request of a peer, over a connection that proves who it is; `None` where it is banned. The answer may be
    /// sent once the change is [durable](Self::durable).
    pub fn serve(&self, peer: PeerId, request: &[u8]) -> Option<(Answer, ChangeNumber)> {
        let (served, number) = self.with(|book, now_ms| {
            if book.bans.is_banned(now_ms, &peer) {
                return None;
            }
            let served = match book.check_room(Source::Peer(peer)) {
                Err(full) => Served { answer: Answer::refusal(&full), banned: None },
                Ok(()) => serve(&mut book.store, &mut book.bans, now_ms, peer, request),
            };
            book.note(peer, served.banned);
            Some(served.answer)
        });
        Some((served?, number))
    }

    /// The record that is held under a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Verified> {
        self.shared.book.lock().store.get((self.shared.clock)(), key).map(|held| held.record.clone())
    }

    /// All that are held, by key, with who brought each; those of this node alone with `own`.
    #[must_use]
    pub fn list(&self, own: bool) -> Vec<(Verified, Source)> {
        let now_ms = (self.shared.clock)();
        let book = self.shared.book.lock();
        let held = book.store.iter(now_ms).filter(|held| !own || held.source == Source::Own);
        held.map(|held| (held.record.clone(), held.source)).collect()
    }

    /// Changes with each record that is taken, and may do so without; who watches looks at the book again.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<()> {
        self.shared.news.subscribe()
    }

    /// How many records are held, and how many marks of those that are gone.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.shared.book.lock().store.counts()
    }

    // ---- Bans ----

    /// A peer has itself sent what was refused for `why`: it is banned where that proves a fault.
    pub fn report(&self, peer: PeerId, why: &RecordError) {
        if why.is_proof() {
            self.with(|book, now_ms| {
                // What was under way when it was banned does not count twice.
                if !book.bans.is_banned(now_ms, &peer) {
                    let banned = book.bans.report(now_ms, peer, why, Delivery::Direct);
                    book.note(peer, banned);
                }
            });
        }
    }

    /// Whether this peer is banned now.
    #[must_use]
    pub fn is_banned(&self, peer: &PeerId) -> bool {
        self.shared.book.lock().bans.is_banned((self.shared.clock)(), peer)
    }

    // ---- For whoever keeps it ----

    /// Waits until there may be something to [take](Self::take). Cancel-safe.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// What is to be done now, in order; drops what has expired. Gives when to ask again at the latest, in milliseconds
    /// from now.
    #[must_use]
    pub fn take(&self) -> (RecordWork, Option<u64>) {
        let now_ms = (self.shared.clock)();
        let mut book = self.shared.book.lock();
        book.store.handle_timeout(now_ms);
        for peer in book.bans.forget(now_ms) {
            book.changes.bans.insert(peer, None);
        }
        book.drain();
        let work = RecordWork {
            number: book.number,
            changes: std::mem::take(&mut book.changes),
            banned: std::mem::take(&mut book.banned),
            republish: book.republish.drain(..).collect(),
        };
        (work, book.store.poll_timeout().map(|at_ms| at_ms.saturating_sub(now_ms)))
    }

    /// What was taken is durable; or it is not, and is to be taken once more: then `changes` comes back.
    pub fn written(&self, number: u64, failed: Option<RecordChanges>) {
        let mut book = self.shared.book.lock();
        let ok = failed.is_none();
        if let Some(mut earlier) = failed {
            earlier.extend(std::mem::take(&mut book.changes));
            book.changes = earlier;
        }
        drop(book);
        self.shared.written.send_modify(|written| match ok {
            true => written.durable = written.durable.max(number),
            false => written.failed = written.failed.max(number),
        });
    }

    /// A put of a record has ended: whether as many hold it as should.
    pub fn put_ended(&self, key: &[u8], enough: bool) {
        self.with(|book, now_ms| book.store.put_ended(now_ms, key, enough));
        // It may be due earlier than whoever keeps this waits.
        self.shared.changed.notify_one();
    }

    /// There are nodes again: what too few hold is to be put.
    pub fn hurry(&self) {
        self.with(|book, now_ms| book.store.hurry(now_ms));
        self.shared.changed.notify_one();
    }

    /// When this node has put the record of this key; `None` where another has.
    #[must_use]
    pub fn own_since(&self, key: &[u8]) -> Option<u64> {
        let book = self.shared.book.lock();
        let held = book.store.get((self.shared.clock)(), key)?;
        (held.source == Source::Own).then_some(held.received_ms)
    }

    /// Nothing will be written any more: whoever waits for it is told so.
    pub fn stopped(&self) {
        self.shared.written.send_modify(|written| written.failed = u64::MAX);
    }

    /// Waits until a change is on the disk; false where it could not be written. Cancel-safe.
    pub async fn durable(&self, ChangeNumber(number): ChangeNumber) -> bool {
        if !self.shared.kept {
            return true;
        }
        let mut written = self.shared.written.subscribe();
        let ended = written.wait_for(|written| written.durable >= number || written.failed >= number).await;
        ended.is_ok_and(|written| written.durable >= number)
    }

    /// Changes the book, and tells whoever keeps it. Gives the number of the change.
    fn with<T>(&self, change: impl FnOnce(&mut Book, u64) -> T) -> (T, ChangeNumber) {
        let now_ms = (self.shared.clock)();
        let mut book = self.shared.book.lock();
        let before = book.number;
        let value = change(&mut book, now_ms);
        book.drain();
        if !self.shared.kept {
            book.changes = RecordChanges::default();
            (book.banned, book.republish) = Default::default();
        }
        let number = ChangeNumber(book.number);
        let changed = book.number > before;
        let news = !book.changes.is_empty() || !book.banned.is_empty() || !book.republish.is_empty();
        drop(book);
        if news {
            self.shared.changed.notify_one();
        }
        if changed {
            self.shared.news.send_replace(());
        }
        (value, number)
    }
}

impl Book {
    /// Records of peers wait while the disk does not keep up.
    fn check_room(&self, source: Source) -> Result<(), RecordError> {
        match source {
            Source::Peer(_) if self.changes.len() >= limits::MAX_RECORD_WRITES => {
                Err(RecordError::Full("too many others wait for the disk"))
            }
            _ => Ok(()),
        }
    }

    fn note(&mut self, peer: PeerId, banned: Option<Banned>) {
        let Some(Banned { ban, evicted }) = banned else { return };
        self.banned.insert(peer, ban);
        self.changes.bans.insert(peer, Some(ban));
        self.changes.bans.extend(evicted.map(|evicted| (evicted, None)));
        self.number += 1;
    }

    /// Takes what the store wants done, the last word for each key.
    fn drain(&mut self) {
        while let Some(effect) = self.store.poll_effect() {
            self.number += 1;
            match effect {
                StoreEffect::Save(row) => drop(self.changes.records.insert(row.key.clone(), Some(row))),
                StoreEffect::Delete(key) => drop(self.changes.records.insert(key, None)),
                StoreEffect::SaveMark(key, mark) => drop(self.changes.marks.insert(key, Some(mark))),
                StoreEffect::DeleteMark(key) => drop(self.changes.marks.insert(key, None)),
                StoreEffect::Republish(record) => self.republish.push_back(*record),
            }
        }
    }
}

impl fmt::Debug for RecordBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, marks) = self.counts();
        f.debug_struct("RecordBook").field("records", &records).field("marks", &marks).finish_non_exhaustive()
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
