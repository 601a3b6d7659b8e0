//! The adapter to libp2p: requests between two members over streams, one frame each way.
//!
//! ```text
//! request   the group's id, 32 bytes ‖ the request      answer   the answer
//! ```
//! Whoever is asked about a group that it is no member of, or asked in a way that breaks the protocol, drops the stream.

use std::{collections::HashMap, future::Future, io, pin::pin, time::Duration};

use bytes::{Buf, Bytes};
use dagmesh_core::{
    frame::{self, FrameError, FrameReader},
    limits::{CALL_TIMEOUT_SECS, MAX_GROUP_MESSAGE_BYTES, MAX_GROUP_REQUESTS, MAX_GROUP_REQUESTS_PER_PEER},
};
use futures::{
    AsyncRead, AsyncWrite, AsyncWriteExt, StreamExt,
    future::{Either, select},
    stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};

use crate::GroupId;

/// The protocol of a request: one stream each, one frame each way.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/dagmesh/group/1.0.0");

/// How long opening the stream and the exchange on it may take together.
const DEADLINE: Duration = Duration::from_secs(CALL_TIMEOUT_SECS);
/// Waits before a stream that died without an answer is opened again. `libp2p_stream` hands streams over one at a time
/// and drops those that come while one waits, so a healthy peer drops some of those that reach it at once.
const REOPEN_MS: [u64; 3] = [20, 100, 400];
/// Bytes of a group's id, before the request.
const ID_BYTES: usize = 32;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No stream to the peer.
    #[error("no stream to {peer} for a group's request: {error}")]
    Open {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: OpenStreamError,
    },
    /// The stream was dropped: the peer is no member, or does not take the request, or has no place for it.
    #[error("{peer} dropped a group's request")]
    Dropped {
        /// The peer.
        peer: PeerId,
    },
    /// The answer is no frame within its cap.
    #[error("{peer} answered a group's request wrongly: {error}")]
    Answer {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: FrameError,
    },
    /// No answer within [`CALL_TIMEOUT_SECS`].
    #[error("no answer from {peer} to a group's request within {CALL_TIMEOUT_SECS} s")]
    TimedOut {
        /// The peer.
        peer: PeerId,
    },
}

/// Asks one peer, dialling it if needed, and gives its answer, of at most [`MAX_GROUP_MESSAGE_BYTES`], not decoded yet,
/// within [`CALL_TIMEOUT_SECS`].
///
/// Dropping the future gives the call up; the peer may have taken the request all the same.
pub async fn ask(control: &mut Control, peer: PeerId, group: &GroupId, request: &[u8]) -> Result<Bytes, CallError> {
    let call = async {
        let mut waits = REOPEN_MS.into_iter();
        loop {
            let opened = control.open_stream(peer, PROTOCOL).await;
            let stream = opened.map_err(|error| CallError::Open { peer, error })?;
            match (exchange(stream, group, request).await, waits.next()) {
                (Ok(Some(answer)), _) => return Ok(answer),
                (Err(error @ (FrameError::TooLong { .. } | FrameError::Prefix)), _) => {
                    return Err(CallError::Answer { peer, error });
                }
                (Ok(None) | Err(_), Some(wait)) => Delay::new(Duration::from_millis(wait)).await,
                (Ok(None) | Err(_), None) => return Err(CallError::Dropped { peer }),
            }
        }
    };
    within(call).await.unwrap_or(Err(CallError::TimedOut { peer }))
}

/// Answers requests for as long as it is polled; ends when the swarm is gone.
///
/// `handler` gets the peer, the group and the undecoded request, of at most [`MAX_GROUP_MESSAGE_BYTES`]; `None` drops
/// the stream. Each exchange may take [`CALL_TIMEOUT_SECS`]. A stream over [`MAX_GROUP_REQUESTS`], or over
/// [`MAX_GROUP_REQUESTS_PER_PEER`], is dropped at once.
///
/// Dropping the future ends the serving and every exchange.
pub async fn serve_on<H, F>(mut incoming: IncomingStreams, handler: H)
where
    H: Fn(PeerId, GroupId, Bytes) -> F,
    F: Future<Output = Option<Vec<u8>>>,
{
    let mut running = FuturesUnordered::new();
    let mut per_peer = HashMap::<PeerId, usize>::new();
    loop {
        // The stream of streams drops what is not fetched at once, so it is polled always, also when full.
        let next = if running.is_empty() {
            Either::Left(incoming.next().await)
        } else {
            match select(incoming.next(), running.next()).await {
                Either::Left((stream, _)) => Either::Left(stream),
                Either::Right((ended, _)) => Either::Right(ended),
            }
        };
        match next {
            Either::Left(None) => return,
            Either::Left(Some((peer, stream))) => {
                let count = per_peer.get(&peer).copied().unwrap_or_default();
                if running.len() >= MAX_GROUP_REQUESTS || count >= MAX_GROUP_REQUESTS_PER_PEER {
                    tracing::debug!(%peer, "too many requests of groups at once; dropped one");
                    continue;
                }
                per_peer.insert(peer, count + 1);
                running.push(answer_one(peer, stream, &handler));
            }
            Either::Right(Some(peer)) => {
                if let Some(count) = per_peer.get_mut(&peer) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        per_peer.remove(&peer);
                    }
                }
            }
            Either::Right(None) => {}
        }
    }
}

async fn answer_one<H, F>(peer: PeerId, stream: Stream, handler: &H) -> PeerId
where
    H: Fn(PeerId, GroupId, Bytes) -> F,
    F: Future<Output = Option<Vec<u8>>>,
{
    let exchange = async {
        let Some((group, request, mut stream)) = receive(stream).await? else { return Ok(()) };
        if let Some(answer) = handler(peer, group, request).await {
            frame::write(&mut stream, &answer).await?;
            stream.close().await?;
        }
        Ok::<_, FrameError>(())
    };
    match within(exchange).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%peer, %error, "a request of a group broke off"),
        None => tracing::debug!(%peer, "a request of a group took too long"),
    }
    peer
}

/// Sends a request and reads the answer; `None` where the stream ends without one. Not cancel-safe: drop the stream
/// with it.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    group: &GroupId,
    request: &[u8],
) -> Result<Option<Bytes>, FrameError> {
    frame::write(&mut stream, &[group.as_bytes(), request].concat()).await?;
    stream.flush().await?;
    let mut reader = FrameReader::new(stream, MAX_GROUP_MESSAGE_BYTES);
    let answer = reader.next().await?;
    // It is answered; how the stream ends no longer matters.
    let _ = reader.into_inner().0.close().await;
    Ok(answer)
}

/// Reads a request, not decoded yet, and gives the stream back; `None` where it names no group. Not cancel-safe.
async fn receive<S: AsyncRead + Unpin>(stream: S) -> Result<Option<(GroupId, Bytes, S)>, FrameError> {
    let mut reader = FrameReader::new(stream, ID_BYTES + MAX_GROUP_MESSAGE_BYTES);
    let Some(mut request) = reader.next().await? else {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    };
    let Some(id) = request.first_chunk::<ID_BYTES>().copied() else { return Ok(None) };
    request.advance(ID_BYTES);
    Ok(Some((GroupId::from_bytes(id), request, reader.into_inner().0)))
}

/// `None` where the deadline came first.
async fn within<F: Future>(future: F) -> Option<F::Output> {
    match select(pin!(future), Delay::new(DEADLINE)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, &[body]);
        bytes
    }

    #[test]
    fn a_request_is_taken_at_the_cap_and_refused_from_its_prefix_beyond_it() {
        let at = |len: usize| block_on(receive(Cursor::new(framed(&vec![7; ID_BYTES + len]))));
        let (group, request, _) = at(MAX_GROUP_MESSAGE_BYTES).expect("reads").expect("names a group");
        assert_eq!((group, request.len()), (GroupId::from_bytes([7; 32]), MAX_GROUP_MESSAGE_BYTES));
        let error = at(MAX_GROUP_MESSAGE_BYTES + 1).map(drop).expect_err("too long");
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }

    #[test]
    fn a_request_without_a_whole_id_names_no_group() {
        assert!(block_on(receive(Cursor::new(framed(&[7; ID_BYTES - 1])))).expect("reads").is_none());
        assert!(block_on(receive(Cursor::new(Vec::new()))).is_err(), "nothing came");
    }
}
