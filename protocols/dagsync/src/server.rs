//! The serving side: walks the store with the request's selectors and streams what it finds.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cid::Cid;
use dagmesh_core::{
    bounded::BoundedVec,
    frame::{FrameError, FrameReader},
    limits,
};
use dagmesh_dag::{
    Block, Blockstore, Codec, Entry, Selector, StoreError,
    walk::{Root, Visit, Walk, WalkConfig, WalkError},
};
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt, future};

use crate::{
    message::{Chain, End, Frame, MessageError, Request, Status, append_block},
    rate::{TooSlow, with_minimum_rate, within},
};

/// Frames are handed to the stream in batches of about this size: two are in memory, one being written.
const BATCH_BYTES: usize = 256 * 1024;
/// The first batch is small, so that the first block leaves at once.
const FIRST_BATCH_BYTES: usize = 16 * 1024;
/// One block in so many is hashed again before it is sent: what rots on the disk is found by reading it.
const SAMPLE: u64 = 64;

/// What a server allows one request.
#[derive(Debug, Clone, Copy)]
pub struct ServeBudget {
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Default for ServeBudget {
    fn default() -> Self {
        Self { blocks: limits::MAX_SEGMENT_BLOCKS, bytes: limits::MAX_SEGMENT_BYTES }
    }
}

/// One request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// How it ended.
    pub end: End,
    /// What it asked for: the CIDs of its roots.
    pub roots: Vec<Cid>,
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The stream failed, or the peer went away.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer asked for something that is refused.
    #[error("the request is refused: {0}")]
    Request(#[from] MessageError),
    /// The peer takes its bytes too slowly.
    #[error(transparent)]
    TooSlow(#[from] TooSlow),
}

impl From<std::io::Error> for ServeError {
    fn from(error: std::io::Error) -> Self {
        Self::Frame(error.into())
    }
}

/// Serves one request over `stream` and closes it; returns what it was and how it ended.
///
/// Reads the store on threads of the `blocking` pool, never on the caller's. Memory: about two batches of 256 KiB and
/// the walk. Dropping the future ends the serve; the peer sees the stream reset.
pub async fn serve<S>(stream: S, store: Arc<dyn Blockstore>, budget: ServeBudget) -> Result<Served, ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = FrameReader::new(stream, limits::MAX_REQUEST_BYTES);
    let request = within(limits::CALL_TIMEOUT_SECS, reader.next()).await??.ok_or(FrameError::CutShort)?;
    let (mut stream, _) = reader.into_inner();
    let request = match Request::decode(&request) {
        Ok(request) => request,
        Err(error) => {
            refuse(&mut stream, Status::Refused, &error.to_string()).await?;
            return Err(error.into());
        }
    };
    let roots = request.roots.iter().map(|root| root.cid).collect();
    let producer = blocking::unblock(move || Producer::new(store, request, budget)).await;
    let written = AtomicU64::new(0);
    let end = with_minimum_rate(&written, pump(&mut stream, producer, &written)).await??;
    Ok(Served { end, roots })
}

/// Answers with an end that sends nothing, and closes the stream.
pub async fn refuse<S>(stream: &mut S, status: Status, reason: &str) -> Result<(), ServeError>
where
    S: AsyncWrite + Unpin,
{
    let mut frame = Vec::new();
    Frame::End(End::without(status, reason)).append(&mut frame)?;
    within(limits::CALL_TIMEOUT_SECS, async {
        stream.write_all(&frame).await?;
        stream.close().await
    })
    .await??;
    Ok(())
}

/// Writes one batch while the next one is read from the store.
async fn pump<S>(stream: &mut S, producer: Producer, written: &AtomicU64) -> Result<End, ServeError>
where
    S: AsyncWrite + Unpin,
{
    let mut next = produce(producer, FIRST_BATCH_BYTES).await;
    loop {
        let Batch { producer, frames, end } = next;
        if let Some(end) = end {
            write(stream, &frames, written).await?;
            // A client that has read the end may be gone already; it was served all the same.
            let _ = stream.close().await;
            return Ok(end);
        }
        let (sent, produced) = future::join(write(stream, &frames, written), produce(producer, BATCH_BYTES)).await;
        sent?;
        next = produced;
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, mut frames: &[u8], written: &AtomicU64) -> std::io::Result<()> {
    while !frames.is_empty() {
        let sent = stream.write(frames).await?;
        if sent == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        written.fetch_add(sent as u64, Ordering::Relaxed);
        frames = frames.get(sent..).unwrap_or_default();
    }
    stream.flush().await
}

struct Batch {
    producer: Producer,
    frames: Vec<u8>,
    end: Option<End>,
}

async fn produce(mut producer: Producer, target: usize) -> Batch {
    blocking::unblock(move || {
        let mut frames = Vec::with_capacity(target + 4096);
        let end = producer.fill(&mut frames, target);
        Batch { producer, frames, end }
    })
    .await
}

/// The walk of one request over the store: frames out, no I/O but the store's.
pub struct Producer {
    store: Arc<dyn Blockstore>,
    walk: Walk,
    blocks: u64,
    bytes: u64,
    max: ServeBudget,
    missing: bool,
}

impl Producer {
    /// Starts the walk of `request`, within its budgets and the server's.
    ///
    /// Reads the store where the request names a chain: call it on a thread that may block.
    pub fn new(store: Arc<dyn Blockstore>, mut request: Request, budget: ServeBudget) -> Self {
        request.roots.extend(request.chain.and_then(|chain| contents(store.as_ref(), chain)).unwrap_or_default());
        let max = ServeBudget { blocks: request.blocks.min(budget.blocks), bytes: request.bytes.min(budget.bytes) };
        let config =
            WalkConfig { stop: request.stop.into_iter().collect(), depth: request.depth, ..WalkConfig::default() };
        Self { store, walk: Walk::new(config, request.roots), blocks: 0, bytes: 0, max, missing: false }
    }

    /// Appends frames until there are about `target` bytes of them; returns the end once it is among them.
    pub fn fill(&mut self, frames: &mut Vec<u8>, target: usize) -> Option<End> {
        let end = loop {
            if self.blocks >= self.max.blocks || self.bytes >= self.max.bytes {
                break self.segment_end();
            }
            if frames.len() >= target {
                return None;
            }
            let Some(visit) = self.walk.next_visit() else {
                break self.end(if self.missing { Status::Missing } else { Status::Done }, None);
            };
            if let Err(error) = self.visit(&visit, frames) {
                break self.end(Status::Failed, Some(error.to_string()));
            }
        };
        // The end is bounded and of our own making; it cannot fail to encode, and if it did, the stream just closes.
        let _ = Frame::End(end.clone()).append(frames);
        Some(end)
    }

    fn visit(&mut self, visit: &Visit, frames: &mut Vec<u8>) -> Result<(), ProduceError> {
        let Some(block) = self.load(&visit.cid)? else {
            self.missing = true;
            Frame::Missing(visit.cid).append(frames)?;
            return Ok(());
        };
        append_block(frames, &visit.cid, block.data());
        self.blocks += 1;
        self.bytes += block.data().len() as u64;
        let held = if visit.cid.codec() == Codec::Raw as u64 { None } else { visit.held };
        // A held tree that the server does not have prunes nothing: the client passes over what it gets twice.
        let held = held.map(|cid| self.store.block(&cid)).transpose()?.flatten();
        Ok(self.walk.enter(visit, &block, held.as_ref())?)
    }

    fn load(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        if self.blocks.is_multiple_of(SAMPLE) { self.store.verified_block(cid) } else { self.store.block(cid) }
    }

    /// A budget is used up: this is a segment's end, unless nothing was left to walk.
    fn segment_end(&mut self) -> End {
        match self.walk.frontier().as_slice() {
            [] => self.end(if self.missing { Status::Missing } else { Status::Done }, None),
            frontier => {
                let first = frontier.iter().map(|root| root.cid).take(limits::MAX_END_FRONTIER).collect::<Vec<_>>();
                let mut end = self.end(Status::Segment, None);
                end.frontier = BoundedVec::new(first).unwrap_or_default();
                end
            }
        }
    }

    fn end(&self, status: Status, reason: Option<String>) -> End {
        End { blocks: self.blocks, bytes: self.bytes, ..End::without(status, &reason.unwrap_or_default()) }
    }
}

/// The contents of a chain as roots, oldest first; nothing where the chain is not held, too long, or none.
fn contents(store: &dyn Blockstore, Chain { after, to }: Chain) -> Option<Vec<Root>> {
    let entry = |cid: &Cid| store.block(cid).ok().flatten().and_then(|block| Entry::from_block(&block).ok());
    let (mut found, mut next) = (Vec::new(), to);
    while next != after {
        if found.len() >= limits::MAX_REQUEST_ENTRIES {
            return None;
        }
        let Entry { content, previous, .. } = entry(&next)?;
        found.push(content);
        next = previous?;
    }
    let mut held = entry(&after)?.content;
    let root = |cid: Cid| Root { cid, selector: Selector::all(), held: Some(std::mem::replace(&mut held, cid)) };
    Some(found.into_iter().rev().map(root).collect())
}

/// Why the walk cannot go on; its text reaches the peer.
#[derive(Debug, thiserror::Error)]
enum ProduceError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Message(#[from] MessageError),
}
