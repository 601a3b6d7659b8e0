//! What the tests of a sync share: a feed in memory, a provider behind an in-memory pipe, a journal that remembers.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
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
use futures::{AsyncRead, AsyncWrite, channel::oneshot, future};
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
            let previous = self.entries.last().map(|entry| entry.cid);
            let entry = Entry { previous, seq, time: seq, content: *content.cid(), meta: None };
            let block = entry.to_block().expect("a block");
            self.entries.push(EntryRef { seq, cid: *block.cid(), content: *content.cid() });
            blocks.extend([content, block]);
            self.store.put_many(&blocks).expect("puts");
        }
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
    left: u64,
}

pub(crate) fn duplex(left: u64) -> (Duplex, Duplex) {
    let ((ar, aw), (br, bw)) = (piper::pipe(64 * 1024), piper::pipe(64 * 1024));
    (Duplex { reader: ar, writer: bw, left }, Duplex { reader: br, writer: aw, left: u64::MAX })
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let max = buf.len().min(self.left.try_into().unwrap_or(usize::MAX));
        let read = futures::ready!(Pin::new(&mut self.reader).poll_read(cx, buf.split_at_mut(max).0))?;
        self.left -= read as u64;
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
    pub(crate) cut_after: AtomicU64,
    pub(crate) requests: AtomicU64,
}

impl Local {
    pub(crate) fn new(store: &Arc<MemoryBlockstore>) -> Self {
        Self { store: Arc::clone(store), cut_after: AtomicU64::new(u64::MAX), requests: AtomicU64::new(0) }
    }
}

impl Provider for Local {
    async fn sync<O: Observer>(&self, mut fetch: Fetch<O>) -> (Option<Fetch<O>>, Result<(), FetchError>) {
        loop {
            let (ours, theirs) = duplex(self.cut_after.load(Ordering::SeqCst));
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
