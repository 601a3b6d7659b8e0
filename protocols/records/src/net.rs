//! The adapter to libp2p: requests about records between two nodes over streams, one frame each way.
//!
//! Whoever sends what is no frame within its cap, and whoever is banned, has its stream dropped.

use std::{collections::HashMap, future::Future, io, pin::pin, time::Duration};

use bytes::Bytes;
use dagmesh_core::{
    frame::{self, FrameError, FrameReader},
    limits::{CALL_TIMEOUT_SECS, MAX_RECORD_MESSAGE_BYTES, MAX_RECORD_SERVED, MAX_RECORD_SERVED_PER_PEER},
};
use futures::{
    AsyncRead, AsyncWrite, AsyncWriteExt, StreamExt,
    future::{Either, select},
    stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};

use crate::message::{Answer, MessageError, Request};

/// The protocol of a request: one stream each, one frame each way.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new(crate::message::PROTOCOL);

/// How long opening the stream and the exchange on it may take together.
const DEADLINE: Duration = Duration::from_secs(CALL_TIMEOUT_SECS);
/// Waits before a stream that died without an answer is opened again. `libp2p_stream` hands streams over one at a time
/// and drops those that come while one waits, so a healthy peer drops some of those that reach it at once.
const REOPEN_MS: [u64; 3] = [20, 100, 400];

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No stream to the peer.
    #[error("no stream to {peer} for a record's request: {error}")]
    Open {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: OpenStreamError,
    },
    /// The stream was dropped: the peer has no place for it, or bans us.
    #[error("{peer} dropped a record's request")]
    Dropped {
        /// The peer.
        peer: PeerId,
    },
    /// The answer is no frame within its cap.
    #[error("{peer} answered a record's request wrongly: {error}")]
    Answer {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: FrameError,
    },
    /// The request is none, or the answer is none.
    #[error("a record's request to {peer}: {error}")]
    Message {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: MessageError,
    },
    /// No answer within [`CALL_TIMEOUT_SECS`].
    #[error("no answer from {peer} to a record's request within {CALL_TIMEOUT_SECS} s")]
    TimedOut {
        /// The peer.
        peer: PeerId,
    },
}

impl CallError {
    /// Whether the peer does not know the protocol; it may be one of plain Kademlia.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Open { error: OpenStreamError::UnsupportedProtocol(_), .. })
    }
}

/// Asks one peer, dialling it if needed, and gives its answer within [`CALL_TIMEOUT_SECS`]. A record in it is not checked
/// yet.
///
/// Dropping the future gives the call up; the peer may have taken the request all the same.
pub async fn ask(control: &mut Control, peer: PeerId, request: &Request) -> Result<Answer, CallError> {
    let request = request.encode().map_err(|error| CallError::Message { peer, error })?;
    let call = async {
        let mut waits = REOPEN_MS.into_iter();
        loop {
            let opened = control.open_stream(peer, PROTOCOL).await;
            let stream = opened.map_err(|error| CallError::Open { peer, error })?;
            match (exchange(stream, &request).await, waits.next()) {
                (Ok(Some(answer)), _) => {
                    return Answer::decode(&answer).map_err(|error| CallError::Message { peer, error });
                }
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
/// `handler` gets the peer and the undecoded request, of at most [`MAX_RECORD_MESSAGE_BYTES`], for
/// [`serve`](crate::serve); `None` drops the stream. Each exchange may take [`CALL_TIMEOUT_SECS`]. A stream over
/// [`MAX_RECORD_SERVED`], or over [`MAX_RECORD_SERVED_PER_PEER`], is dropped at once.
///
/// Dropping the future ends the serving and every exchange.
pub async fn serve_on<H, F>(mut incoming: IncomingStreams, handler: H)
where
    H: Fn(PeerId, Bytes) -> F,
    F: Future<Output = Option<Answer>>,
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
                if running.len() >= MAX_RECORD_SERVED || count >= MAX_RECORD_SERVED_PER_PEER {
                    tracing::debug!(%peer, "too many requests about records at once; dropped one");
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
    H: Fn(PeerId, Bytes) -> F,
    F: Future<Output = Option<Answer>>,
{
    let exchange = async {
        let (request, mut stream) = receive(stream).await?;
        let answer = handler(peer, request).await.and_then(|answer| answer.encode().ok());
        if let Some(answer) = answer {
            frame::write(&mut stream, &answer).await?;
            stream.close().await?;
        }
        Ok::<_, FrameError>(())
    };
    match within(exchange).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%peer, %error, "a request about a record broke off"),
        None => tracing::debug!(%peer, "a request about a record took too long"),
    }
    peer
}

/// Sends a request and reads the answer; `None` where the stream ends without one. Not cancel-safe: drop the stream
/// with it.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &[u8],
) -> Result<Option<Bytes>, FrameError> {
    frame::write(&mut stream, request).await?;
    stream.flush().await?;
    let mut reader = FrameReader::new(stream, MAX_RECORD_MESSAGE_BYTES);
    let answer = reader.next().await?;
    // It is answered; how the stream ends no longer matters.
    let _ = reader.into_inner().0.close().await;
    Ok(answer)
}

/// Reads a request, not decoded yet, and gives the stream back. Not cancel-safe.
async fn receive<S: AsyncRead + Unpin>(stream: S) -> Result<(Bytes, S), FrameError> {
    let mut reader = FrameReader::new(stream, MAX_RECORD_MESSAGE_BYTES);
    let request = reader.next().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok((request, reader.into_inner().0))
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

    #[test]
    fn a_request_is_taken_at_the_cap_and_refused_from_its_prefix_beyond_it() {
        let at = |len: usize| {
            let mut bytes = Vec::new();
            frame::append(&mut bytes, &[&vec![7; len]]);
            block_on(receive(Cursor::new(bytes))).map(|(request, _)| request.len())
        };
        assert_eq!(at(MAX_RECORD_MESSAGE_BYTES).expect("reads"), MAX_RECORD_MESSAGE_BYTES);
        let error = at(MAX_RECORD_MESSAGE_BYTES + 1).expect_err("too long");
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
        assert!(block_on(receive(Cursor::new(Vec::new()))).is_err(), "nothing came");
    }
}
