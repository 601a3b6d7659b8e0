//! What a hostile node answers: a request goes in, steps come out. Honest frames are an iterator, so that what is to be
//! wrong with them is an adaptor: `honest(..).map(..)`, `.filter(..)`, `.chain(..)`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use cid::Cid;
use dagmesh::{
    dag::{Block, Blockstore},
    dagsync::{
        End, Status,
        message::{Frame, Request},
        server::{Producer, ServeBudget},
    },
};
use dagmesh_core::frame;
use ipld_core::{ipld, ipld::Ipld};
use libp2p::PeerId;

/// Makes an answer of a request. Called once for each, in the order in which they come.
pub type Script = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// An answer, made as it is sent: it may have no end. The stream is closed after the last step.
pub type Answer = Box<dyn Iterator<Item = Step> + Send>;

/// A sync request that has come.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who asks.
    pub from: PeerId,
    /// How many requests came before it.
    pub nth: usize,
    /// What is asked.
    pub request: Request,
}

impl Asked {
    /// The CIDs of the request's roots.
    pub fn roots(&self) -> Vec<Cid> {
        self.request.roots.iter().map(|root| root.cid).collect()
    }
}

/// One step of an answer.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends a frame, behind its length.
    Frame(Frame),
    /// Sends bytes as they are.
    Bytes(Bytes),
    /// Sends what was before, then nothing for so long.
    Wait(Duration),
    /// Sends what was before, then nothing for as long as it is listened to.
    Silence,
}

impl From<Frame> for Step {
    fn from(frame: Frame) -> Self {
        Self::Frame(frame)
    }
}

/// A request, and how its answer goes.
#[derive(Debug, Default)]
pub struct Exchange {
    asked: Option<Asked>,
    sent: AtomicU64,
    ended: AtomicBool,
    refused: AtomicBool,
}

impl Exchange {
    pub(super) fn new(asked: Asked) -> Self {
        Self { asked: Some(asked), ..Self::default() }
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn end(&self, whole: bool) {
        self.refused.store(!whole, Ordering::Relaxed);
        self.ended.store(true, Ordering::Release);
    }

    /// The request.
    pub fn asked(&self) -> &Asked {
        self.asked.as_ref().expect("an exchange with a request")
    }

    /// How many bytes were sent so far, as far as the peer's window took them.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether it is over: sent to its end, or the peer has gone.
    pub fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether the peer went before all was sent.
    pub fn was_dropped(&self) -> bool {
        self.is_over() && self.refused.load(Ordering::Relaxed)
    }
}

/// Frames as an answer.
pub fn steps<S: Into<Step> + 'static>(frames: impl IntoIterator<Item = S, IntoIter: Send + 'static>) -> Answer {
    Box::new(frames.into_iter().map(Into::into))
}

/// What an honest node answers that holds these blocks, frame by frame.
pub fn honest(store: &Arc<dyn Blockstore>, request: &Request) -> impl Iterator<Item = Frame> + Send + use<> {
    let mut producer = Some(Producer::new(Arc::clone(store), request.clone(), ServeBudget::default()));
    std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        let ended = producer.as_mut()?.fill(&mut bytes, 1).is_some();
        if ended {
            producer = None;
        }
        Some(frames(Bytes::from(bytes)))
    })
    .flatten()
}

/// The frame of a block.
pub fn block(block: &Block) -> Frame {
    claimed(block.cid(), block.data().clone())
}

/// The frame of bytes that claim to be the block of `cid`.
pub fn claimed(cid: &Cid, data: impl Into<Bytes>) -> Frame {
    Frame::Block { cid: *cid, data: data.into() }
}

/// The frame that ends an answer.
pub fn end(status: Status) -> Frame {
    Frame::End(End::without(status, ""))
}

/// An answer that refuses.
pub fn refused(reason: &str) -> Answer {
    steps([Frame::End(End::without(Status::Refused, reason))])
}

/// Bytes that no frame makes, behind their length.
pub fn framed(parts: &[&[u8]]) -> Step {
    let mut bytes = Vec::new();
    frame::append(&mut bytes, parts);
    Step::Bytes(bytes.into())
}

/// A length prefix that claims `len` bytes, and nothing behind it.
pub fn prefix(len: u64) -> Step {
    Step::Bytes(super::dag::varint(len).into())
}

/// The same bytes again and again, for as long as somebody takes them.
pub fn endless(part: Bytes) -> impl Iterator<Item = Step> + Send {
    std::iter::repeat_with(move || Step::Bytes(part.clone()))
}

/// Each step, with a wait before it.
pub fn slowly(answer: Answer, wait: Duration) -> Answer {
    Box::new(answer.flat_map(move |step| [Step::Wait(wait), step]))
}

/// The answer to a question for heads: these, encoded, be they heads or not.
pub fn heads(heads: &[Vec<u8>]) -> Answer {
    let heads = heads.iter().map(|head| Ipld::Bytes(head.clone())).collect();
    let message = dagmesh_core::cbor::to_vec(&ipld!({"heads": Ipld::List(heads)})).expect("an answer");
    steps([framed(&[&message])])
}

/// Cuts bytes that an honest node made into their frames.
fn frames(mut bytes: Bytes) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (mut len, mut shift) = (0, 0);
        loop {
            let byte = bytes.get_u8();
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        frames.push(Frame::decode(bytes.split_to(len)).expect("an honest frame"));
    }
    frames
}
