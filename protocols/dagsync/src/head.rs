//! Asking a peer for signed heads: one small request and its answer, beside the sync itself.

use dagmesh_core::{
    bounded::{BoundedBytes, BoundedVec},
    cbor,
    frame::{self, FrameError, FrameReader},
    limits,
};
use dagmesh_dag::{FeedName, SignedHead};
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::rate::{TooSlow, within};

/// Stream protocol of the question.
pub const PROTOCOL: &str = "/dagmesh/head/1.0.0";
/// Most heads in one answer.
pub const MAX_HEADS: usize = 64;
/// Longest question: a peer id and a name.
const MAX_QUERY_BYTES: usize = 512;
/// Longest answer.
const MAX_ANSWER_BYTES: usize = MAX_HEADS * (limits::MAX_SIGNED_HEAD_BYTES + 8) + 64;

/// Asks for the newest heads that the peer knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadQuery {
    /// Whose heads; `None` asks for the peer's own.
    pub publisher: Option<PeerId>,
    /// Of which feed; `None` asks for all, at most [`MAX_HEADS`].
    pub feed: Option<FeedName>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publisher: Option<BoundedBytes<64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feed: Option<FeedName>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerWire {
    heads: BoundedVec<BoundedBytes<{ limits::MAX_SIGNED_HEAD_BYTES }>, MAX_HEADS>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The stream failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer took too long.
    #[error(transparent)]
    TooSlow(#[from] TooSlow),
    /// No stream to the peer could be opened.
    #[error("{0}")]
    Unreachable(String),
    /// The message is none.
    #[error("the peer's message is refused: {0}")]
    Message(String),
}

impl From<std::io::Error> for HeadError {
    fn from(error: std::io::Error) -> Self {
        Self::Frame(error.into())
    }
}

fn refused(error: impl ToString) -> HeadError {
    HeadError::Message(error.to_string())
}

/// Asks over `stream`; every head in the answer has its signature checked and is what was asked for.
/// Ends within [`limits::CALL_TIMEOUT_SECS`].
pub async fn ask<S>(stream: S, query: &HeadQuery, peer: PeerId) -> Result<Vec<SignedHead>, HeadError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let publisher = query.publisher.map(|peer| BoundedBytes::new(peer.to_bytes())).transpose().map_err(refused)?;
    let wire = QueryWire { publisher, feed: query.feed.clone() };
    let bytes = cbor::to_vec(&wire).map_err(refused)?;
    let answer = within(limits::CALL_TIMEOUT_SECS, exchange(stream, &bytes)).await??;
    let answer: AnswerWire = cbor::from_slice(&answer).map_err(refused)?;
    let expected = query.publisher.unwrap_or(peer);
    let mut heads = Vec::new();
    for bytes in answer.heads.iter() {
        let head = SignedHead::decode(bytes).map_err(refused)?;
        if head.publisher() != expected || query.feed.as_ref().is_some_and(|feed| feed != head.feed()) {
            return Err(refused(format!("a head of {} {} that was not asked for", head.publisher(), head.feed())));
        }
        heads.push(head);
    }
    Ok(heads)
}

/// Answers one question over `stream` with what `find` gives; more than [`MAX_HEADS`] are cut.
pub async fn answer<S, F>(stream: S, find: impl FnOnce(HeadQuery) -> F) -> Result<(), HeadError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Vec<SignedHead>>,
{
    within(limits::CALL_TIMEOUT_SECS, async {
        let mut reader = FrameReader::new(stream, MAX_QUERY_BYTES);
        let query = reader.next().await?.ok_or(FrameError::CutShort)?;
        let wire: QueryWire = cbor::from_slice(&query).map_err(refused)?;
        let publisher = wire.publisher.map(|bytes| PeerId::from_bytes(&bytes)).transpose().map_err(refused)?;
        let mut heads = find(HeadQuery { publisher, feed: wire.feed }).await;
        heads.truncate(MAX_HEADS);
        let heads: Result<Vec<_>, _> = heads.iter().map(|head| BoundedBytes::new(head.encode())).collect();
        let wire = AnswerWire { heads: BoundedVec::new(heads.map_err(refused)?).map_err(refused)? };
        let (mut stream, _) = reader.into_inner();
        frame::write(&mut stream, &cbor::to_vec(&wire).map_err(refused)?).await?;
        stream.flush().await?;
        Ok(stream.close().await?)
    })
    .await?
}

async fn exchange<S>(mut stream: S, query: &[u8]) -> Result<bytes::Bytes, HeadError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    frame::write(&mut stream, query).await?;
    stream.flush().await?;
    let mut reader = FrameReader::new(stream, MAX_ANSWER_BYTES);
    Ok(reader.next().await?.ok_or(FrameError::CutShort)?)
}
