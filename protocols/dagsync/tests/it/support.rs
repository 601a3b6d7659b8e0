//! What the tests of a sync share: a feed in memory, a provider behind an in-memory pipe, a journal that remembers.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use cid::Cid;
use dagmesh_core::cbor;
use dagmesh_dag::{Block, Blockstore, Codec, Entry, HashCode, MemoryBlockstore, StoreError};
use dagmesh_dagsync::{
    Fetch, FetchError, FetchStats, Observer,
    feed_sync::{EntryRef, Journal, Phase, Provider, Saved},
    server::{ServeBudget, serve},
    transfer::{Outcome, segment},
};
use futures::{AsyncRead, AsyncWrite, Future, channel::oneshot, future};
use futures_timer::Delay;
use ipld_core::ipld::Ipld;

/// A block that links to `links` and says `text`.
pub(crate) fn node(text: &str, links: &[Cid]) -> Block {
    let links = links.iter().map(|cid| Ipld::Link(*cid)).collect();
    let value = Ipld::Map([("l".to_owned(), Ipld::List(links)), ("t".to_owned(), Ipld::String(text.into()))].into());
    Block::new(Codec::DagCbor, HashCode::Sha2_256, cbor::to_vec(&value).expect("encodes")).expect("a block")
}

pub(crate) fn leaf(text: &str) -> Block {
    Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block")
}

/// A feed under construction.
pub(crate) struct Feed {
    pub(crate) store: Arc<MemoryBlockstore>,
    pub(crate) entries: Vec<EntryRef>,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self { store: Arc::new(MemoryBlockstore::new()), entries: Vec::new() }
    }

    /// Appends `count` entries, each with a tree of `leaves` leaves of which one differs from entry to entry.
    pub(crate) fn append(&mut self, count: usize, leaves: usize) {
        for _ in 0..count {
            let seq = self.entries.len() as u64 + 1;
            let mut blocks: Vec<Block> = (0..leaves)
                .map(|i| leaf(&if i as u64 == seq % leaves as u64 { format!("{i} of {seq}") } else { format!("{i}") }))
                .collect();
            let content = node(&format!("content {seq}"), &blocks.iter().map(|leaf| *leaf.cid()).collect::<Vec<_>>());
            let root = *content.cid();
            blocks.push(content);
            self.append_content(root, blocks);
        }
    }

    /// Appends one entry that carries `content`.
    pub(crate) fn append_content(&mut self, content: Cid, mut blocks: Vec<Block>) {
        let (previous, seq) = (self.entries.last().map(|entry| entry.cid), self.entries.len() as u64 + 1);
        let entry = Entry { previous, seq, time: seq, content, meta: None };
        let block = entry.to_block().expect("a block");
        self.entries.push(EntryRef { seq, cid: *block.cid(), content });
        blocks.push(block);
        self.store.put_many(&blocks).expect("puts");
    }

    pub(crate) fn head(&self) -> EntryRef {
        *self.entries.last().expect("an entry")
    }
}

/// One end of an in-memory connection.
pub(crate) struct Duplex {
    reader: piper::Reader,
    writer: piper::Writer,
    /// After so many bytes read the connection breaks.
    left: Arc<AtomicU64>,
    /// After so many bytes read nothing comes any more.
    silent: u64,
    /// Waits so long before each read.
    pace: Option<(Duration, Delay)>,
}

/// So many bytes that nobody gets to the end of them.
pub(crate) fn endless() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(u64::MAX))
}

pub(crate) fn duplex(left: &Arc<AtomicU64>) -> (Duplex, Duplex) {
    let ((ar, aw), (br, bw)) = (piper::pipe(64 * 1024), piper::pipe(64 * 1024));
    let end = |reader, writer, left| Duplex { reader, writer, left, silent: u64::MAX, pace: None };
    (end(ar, bw, Arc::clone(left)), end(br, aw, endless()))
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.silent == 0 {
            return Poll::Pending;
        }
        if let Some((_, delay)) = &mut self.pace {
            futures::ready!(Pin::new(delay).poll(cx));
        }
        let max = buf.len().min(left.min(self.silent).try_into().unwrap_or(usize::MAX));
        let read = futures::ready!(Pin::new(&mut self.reader).poll_read(cx, buf.split_at_mut(max).0))?;
        self.left.fetch_sub(read as u64, Ordering::SeqCst);
        self.silent -= read as u64;
        if let Some((wait, delay)) = &mut self.pace {
            delay.reset(*wait);
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_close(cx)
    }
}

/// Serves a store over an in-memory pipe, as a peer would.
pub(crate) struct Local {
    pub(crate) store: Arc<MemoryBlockstore>,
    /// Bytes until the connection breaks, over all requests.
    pub(crate) cut_after: Arc<AtomicU64>,
    pub(crate) requests: AtomicU64,
    /// Waits so long before each read of at most 64 KiB.
    pub(crate) pace: Option<Duration>,
    /// Bytes of each answer until nothing comes any more.
    pub(crate) silent_after: u64,
}

impl Local {
    pub(crate) fn new(store: &Arc<MemoryBlockstore>) -> Self {
        Self {
            store: Arc::clone(store),
            cut_after: endless(),
            requests: AtomicU64::new(0),
            pace: None,
            silent_after: u64::MAX,
        }
    }

    /// One that sends at most 64 KiB in each of these times.
    pub(crate) fn paced(store: &Arc<MemoryBlockstore>, pace: Duration) -> Self {
        Self { pace: Some(pace), ..Self::new(store) }
    }
}

impl Provider for Local {
    async fn sync<O: Observer>(&self, mut fetch: Fetch<O>) -> (Option<Fetch<O>>, Result<(), FetchError>) {
        loop {
            let (mut ours, theirs) = duplex(&self.cut_after);
            ours.silent = self.silent_after;
            ours.pace = self.pace.map(|pace| (pace, Delay::new(pace)));
            let (asked, serve_it) = oneshot::channel();
            let open = async {
                self.requests.fetch_add(1, Ordering::SeqCst);
                let _ = asked.send(());
                Ok(ours)
            };
            let store: Arc<dyn Blockstore> = self.store.clone();
            // Where nothing is asked for, there is nothing to serve.
            let serving = async {
                if serve_it.await.is_ok() {
                    let _ = serve(theirs, store, ServeBudget::default()).await;
                }
            };
            let (result, ()) = future::join(segment(open, fetch), serving).await;
            fetch = match result {
                (Some(fetch), Ok(Outcome::Complete)) if fetch.first_missing().is_some() => {
                    let error = fetch.missing_error();
                    return (Some(fetch), Err(error));
                }
                (fetch, Ok(Outcome::Complete)) => return (fetch, Ok(())),
                (Some(fetch), Ok(_)) => fetch,
                (fetch, result) => return (fetch, result.map(drop)),
            };
        }
    }
}

/// Remembers what a sync saved.
#[derive(Clone, Default)]
pub(crate) struct Memory(pub(crate) Arc<Mutex<Kept>>);

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) saved: Option<Saved>,
    pub(crate) moves: Vec<EntryRef>,
    pub(crate) transactions: usize,
    pub(crate) last_stats: FetchStats,
}

impl Journal for Memory {
    fn save(&self, saved: Option<&Saved>) -> Result<(), StoreError> {
        self.0.lock().expect("a lock").saved = saved.cloned();
        Ok(())
    }

    fn move_latest(&self, entries: &[EntryRef], saved: Option<&Saved>) -> Result<(), StoreError> {
        let mut kept = self.0.lock().expect("a lock");
        kept.moves.extend_from_slice(entries);
        kept.transactions += 1;
        kept.saved = saved.cloned();
        Ok(())
    }

    fn progress(&self, _: Phase, stats: FetchStats, _: usize) {
        self.0.lock().expect("a lock").last_stats = stats;
    }
}
