//! What travels: one request, then a stream of frames.
//!
//! ```text
//! client                                   server
//!   frame: Request (DAG-CBOR)       ->
//!                                   <-     frame: 0x01 CID bytes    a block
//!                                   <-     frame: 0x02 CID          a block that the server does not hold
//!                                   <-     frame: 0x03 End (DAG-CBOR)
//! ```
//! Every frame stands behind its length ([`dagmesh_core::frame`]). A client that resets the stream cancels.

use bytes::{Buf, Bytes};
use cid::Cid;
use dagmesh_core::{
    bounded::{BoundedBytes, BoundedString, BoundedVec, OverBound},
    cbor::{self, CborError},
    frame, limits,
};
use dagmesh_dag::{
    CidError, Digests, check_cid, check_cid_with,
    selector::{Selector, SelectorError},
    walk::Root,
};
use serde::{Deserialize, Serialize};

/// Stream protocol of a sync.
pub const PROTOCOL: &str = "/dagmesh/dagsync/1.0.0";

/// Version of the request.
const VERSION: u64 = 1;
const KIND_BLOCK: u8 = 1;
const KIND_MISSING: u8 = 2;
const KIND_END: u8 = 3;

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not DAG-CBOR, or not the fields.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// A list over its bound.
    #[error(transparent)]
    Bound(#[from] OverBound),
    /// A selector that is refused.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A CID that is refused.
    #[error(transparent)]
    Cid(#[from] CidError),
    /// Another version of the protocol.
    #[error("a request of version {0} where {VERSION} is spoken")]
    Version(u64),
    /// A root names a selector that is not there.
    #[error("root {root} names selector {selector}, of {selectors}")]
    NoSelector {
        /// Index of the root.
        root: usize,
        /// The selector it names.
        selector: u64,
        /// How many selectors there are.
        selectors: usize,
    },
    /// A request without roots.
    #[error("a request without roots")]
    NoRoots,
    /// A frame of an unknown kind, or one that holds no CID.
    #[error("a frame that is none: {0}")]
    Frame(String),
}

/// Asks for one segment: what lies under `roots` as their selectors say, in depth-first order, up to the budgets.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Where to start, in order; 1 to [`limits::MAX_REQUEST_ROOTS`]. With `held`, the client says that it holds the
    /// whole closure of that CID.
    pub roots: Vec<Root>,
    /// More roots, after those: the contents of a part of a feed's chain, named by its ends.
    pub chain: Option<Chain>,
    /// Links that are neither sent nor walked; at most [`limits::MAX_STOP_LINKS`].
    pub stop: Vec<Cid>,
    /// At most so many blocks on a path from a root; `None` leaves it to the selectors.
    pub depth: Option<u64>,
    /// At most so many blocks in all; the server may set a lower bound of its own.
    pub blocks: u64,
    /// Ends after the block that brings the sum to this many bytes; the server may set a lower bound of its own.
    pub bytes: u64,
}

/// Entries of a feed, by their CIDs: those that lead from `to` back to `after`, without `after` itself; at most
/// [`limits::MAX_REQUEST_ENTRIES`].
///
/// Their contents are roots, oldest first, all of each, with the content of the entry before as `held`. Both ends know
/// the chain by then, so that ten thousand roots take a hundred bytes. A server that does not hold it leaves these roots
/// out; the client then names them one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The entry before the first.
    pub after: Cid,
    /// The last entry.
    pub to: Cid,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestWire {
    v: u64,
    roots: BoundedVec<(Cid, u64, Option<Cid>), { limits::MAX_REQUEST_ROOTS }>,
    sels: BoundedVec<BoundedBytes<{ limits::MAX_SELECTOR_BYTES }>, { limits::MAX_REQUEST_SELECTORS }>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<(Cid, Cid)>,
    stop: BoundedVec<Cid, { limits::MAX_STOP_LINKS }>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    depth: Option<u64>,
    blocks: u64,
    bytes: u64,
}

impl Request {
    /// Encodes it; an error where a list is over its bound.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let mut kinds: Vec<&Selector> = Vec::new();
        let mut roots = Vec::with_capacity(self.roots.len());
        for Root { cid, selector, held } in &self.roots {
            let index = kinds.iter().position(|known| *known == selector).unwrap_or_else(|| {
                kinds.push(selector);
                kinds.len() - 1
            });
            roots.push((*cid, index as u64, *held));
        }
        let mut sels = Vec::with_capacity(kinds.len());
        for selector in kinds {
            sels.push(BoundedBytes::new(selector.to_cbor()?)?);
        }
        let wire = RequestWire {
            v: VERSION,
            roots: BoundedVec::new(roots)?,
            sels: BoundedVec::new(sels)?,
            chain: self.chain.map(|Chain { after, to }| (after, to)),
            stop: BoundedVec::new(self.stop.clone())?,
            depth: self.depth,
            blocks: self.blocks,
            bytes: self.bytes,
        };
        Ok(cbor::to_vec(&wire)?)
    }

    /// Decodes it; every list is bounded, every selector's cost and every CID checked. Digests may be cut: who asks for
    /// such a block decides whether that proves it.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let wire: RequestWire = cbor::from_slice(bytes)?;
        if wire.v != VERSION {
            return Err(MessageError::Version(wire.v));
        }
        let selectors: Result<Vec<_>, _> = wire.sels.iter().map(|bytes| Selector::from_cbor(bytes)).collect();
        let selectors = selectors?;
        let mut roots = Vec::with_capacity(wire.roots.len());
        for (index, (cid, selector, held)) in wire.roots.into_inner().into_iter().enumerate() {
            check_cid_with(&cid, Digests::OrCut)?;
            held.as_ref().map(|held| check_cid_with(held, Digests::OrCut)).transpose()?;
            let found = usize::try_from(selector).ok().and_then(|at| selectors.get(at)).cloned();
            let selectors = selectors.len();
            let selector = found.ok_or(MessageError::NoSelector { root: index, selector, selectors })?;
            roots.push(Root { cid, selector, held });
        }
        if roots.is_empty() {
            return Err(MessageError::NoRoots);
        }
        let chain = wire.chain.map(|(after, to)| Chain { after, to });
        if let Some(Chain { after, to }) = &chain {
            check_cid(after)?;
            check_cid(to)?;
        }
        let stop = wire.stop.into_inner();
        Ok(Self { roots, chain, stop, depth: wire.depth, blocks: wire.blocks, bytes: wire.bytes })
    }
}

/// How a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything under the roots was walked.
    Done,
    /// A budget was used up; the frontier says where to go on.
    Segment,
    /// Everything was walked but for blocks that the server does not hold.
    Missing,
    /// The request is refused, for the reason given; the same request will be refused again.
    Refused,
    /// The server has no room now; try again later.
    Busy,
    /// The server failed, for the reason given.
    Failed,
}

/// The last frame of a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How it ended.
    pub status: Status,
    /// Why, where it was refused or failed; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<BoundedString<{ limits::MAX_REASON_BYTES }>>,
    /// Blocks sent.
    pub blocks: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
    /// The first links still to be walked, in order; at most [`limits::MAX_END_FRONTIER`]. For people and tests: a
    /// client trusts its own walk alone.
    pub frontier: BoundedVec<Cid, { limits::MAX_END_FRONTIER }>,
}

impl End {
    /// An end with nothing sent, for the reason given.
    pub fn without(status: Status, reason: &str) -> Self {
        let reason = Some(BoundedString::cut(reason));
        Self { status, reason, blocks: 0, bytes: 0, frontier: BoundedVec::default() }
    }

    /// The reason, or nothing.
    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }
}

/// One frame of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A block as it was sent: not verified yet.
    Block {
        /// The CID it claims.
        cid: Cid,
        /// Its bytes.
        data: Bytes,
    },
    /// The server does not hold this block; it goes on with the rest.
    Missing(Cid),
    /// The last frame.
    End(End),
}

impl Frame {
    /// Appends it to a buffer, behind its length.
    pub fn append(&self, buffer: &mut Vec<u8>) -> Result<(), MessageError> {
        match self {
            Self::Block { cid, data } => append_block(buffer, cid, data),
            Self::Missing(cid) => frame::append(buffer, &[&[KIND_MISSING], &cid.to_bytes()]),
            Self::End(end) => frame::append(buffer, &[&[KIND_END], &cbor::to_vec(end)?]),
        }
        Ok(())
    }

    /// Decodes one frame, without its length. A block shares the frame's memory.
    pub fn decode(mut frame: Bytes) -> Result<Self, MessageError> {
        if frame.is_empty() {
            return Err(MessageError::Frame("it is empty".into()));
        }
        match frame.get_u8() {
            KIND_BLOCK => {
                let cid = take_cid(&mut frame)?;
                Ok(Self::Block { cid, data: frame })
            }
            KIND_MISSING => {
                let cid = take_cid(&mut frame)?;
                if frame.is_empty() {
                    Ok(Self::Missing(cid))
                } else {
                    Err(MessageError::Frame("bytes follow the CID".into()))
                }
            }
            KIND_END => Ok(Self::End(cbor::from_slice(&frame)?)),
            kind => Err(MessageError::Frame(format!("kind {kind} is unknown"))),
        }
    }
}

/// Appends the frame of a block to a buffer.
pub fn append_block(buffer: &mut Vec<u8>, cid: &Cid, data: &[u8]) {
    frame::append(buffer, &[&[KIND_BLOCK], &cid.to_bytes(), data]);
}

/// Takes the CID at the front; what is left in `bytes` follows it.
fn take_cid(bytes: &mut Bytes) -> Result<Cid, MessageError> {
    let (before, mut rest) = (bytes.len(), &bytes[..]);
    let cid = dagmesh_core::take_cid(&mut rest).map_err(|error| MessageError::Frame(format!("it holds {error}")))?;
    let taken = before - rest.len();
    bytes.advance(taken);
    Ok(cid)
}

#[cfg(test)]
mod tests {
    use dagmesh_dag::{Block, Codec, HashCode};
    use proptest::prelude::*;

    use super::*;

    fn block(text: &str) -> Block {
        Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block")
    }

    fn request(roots: usize, stop: usize) -> Request {
        let root = |i: usize| Root {
            cid: *block(&i.to_string()).cid(),
            selector: if i.is_multiple_of(2) { Selector::all() } else { Selector::chain("previous", Some(7), None) },
            held: i.is_multiple_of(3).then(|| *block("held").cid()),
        };
        let stop = vec![*block("stop").cid(); stop];
        let chain = Some(Chain { after: *block("after").cid(), to: *block("to").cid() });
        Request { roots: (0..roots).map(root).collect(), chain, stop, depth: Some(9), blocks: 10, bytes: 1 << 40 }
    }

    #[test]
    fn a_request_comes_back_as_it_was_sent() {
        let request = request(5, 2);
        assert_eq!(Request::decode(&request.encode().expect("encodes")), Ok(request));
    }

    #[test]
    fn lists_of_a_request_are_taken_at_their_bound_and_refused_beyond_it() {
        let full = request(limits::MAX_REQUEST_ROOTS, limits::MAX_STOP_LINKS).encode().expect("encodes");
        assert!(full.len() <= limits::MAX_REQUEST_BYTES, "the largest request fits its frame: {}", full.len());
        assert!(Request::decode(&full).is_ok());
        assert!(request(limits::MAX_REQUEST_ROOTS + 1, 0).encode().is_err());
        assert!(request(1, limits::MAX_STOP_LINKS + 1).encode().is_err());
        assert!(Request::decode(&request(0, 0).encode().expect("encodes")).is_err());
    }

    #[test]
    fn frames_come_back_as_they_were_sent() {
        let one = block("one");
        let frames = [
            Frame::Block { cid: *one.cid(), data: one.data().clone() },
            Frame::Missing(*one.cid()),
            Frame::End(End::without(Status::Refused, &"é".repeat(limits::MAX_REASON_BYTES))),
        ];
        for frame in frames {
            let mut buffer = Vec::new();
            frame.append(&mut buffer).expect("encodes");
            let prefix = unsigned_varint_len(&buffer);
            assert_eq!(Frame::decode(Bytes::from(buffer).slice(prefix..)), Ok(frame));
        }
    }

    #[test]
    fn a_cid_with_a_number_that_overflows_is_refused() {
        let cid = block("one").cid().to_bytes();
        let overflowing = [&[KIND_MISSING, 1, 0xd5][..], &[0x80; 8], &[0x02], &cid[2..]].concat();
        assert!(matches!(Frame::decode(overflowing.into()), Err(MessageError::Frame(_))));
        assert!(Frame::decode([&[KIND_MISSING][..], &cid].concat().into()).is_ok());
    }

    fn unsigned_varint_len(bytes: &[u8]) -> usize {
        bytes.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1
    }

    proptest! {
        #[test]
        fn decoders_take_any_bytes_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = Request::decode(&bytes);
            let _ = Frame::decode(Bytes::from(bytes));
        }
    }
}
