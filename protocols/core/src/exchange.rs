//! One request and its answer on a libp2p stream of its own: one bounded frame each way.
//!
//! The protocol crates describe theirs as an [`Exchange`] and keep to themselves what their frames say.

use std::{collections::HashMap, future::Future, io, pin::pin, time::Duration};

use bytes::Bytes;
use futures::{
    AsyncRead, AsyncWrite, AsyncWriteExt, StreamExt,
    future::{Either, select},
    stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p::{PeerId, Stream, StreamProtocol, core::upgrade::NegotiationError};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};

use crate::frame::{self, FrameError, FrameReader};

/// Waits, in milliseconds, before a stream that died without an answer is opened again. `libp2p_stream` hands streams
/// over one at a time and drops those that come while one waits, so a healthy peer drops some of those that reach it at
/// once.
pub const REOPEN_MS: &[u64] = &[20, 100, 400];

/// A protocol of one frame each way, and its caps.
#[derive(Debug)]
pub struct Exchange {
    /// Its name on the wire.
    pub protocol: StreamProtocol,
    /// What one request is called in errors and logs, with its article.
    pub what: &'static str,
    /// Bytes of a request that are taken.
    pub max_request_bytes: usize,
    /// Bytes of an answer that are taken.
    pub max_answer_bytes: usize,
    /// How long asking may take, from opening the stream to the answer, and how long answering one request.
    pub deadline: Duration,
    /// Waits before a stream that died without an answer is opened again, for those who ask: [`REOPEN_MS`], or none.
    pub reopen_ms: &'static [u64],
    /// Requests that are answered at once.
    pub places: usize,
    /// Of these, those of one peer.
    pub places_per_peer: usize,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// No stream to the peer.
    #[error("no stream to {peer} for {what}: {error}")]
    Open {
        /// The peer.
        peer: PeerId,
        /// What was asked.
        what: &'static str,
        /// What went wrong.
        error: OpenStreamError,
    },
    /// The stream was dropped: the peer does not take the request, or has no place for it, or is gone.
    #[error("{peer} dropped {what}")]
    Dropped {
        /// The peer.
        peer: PeerId,
        /// What was asked.
        what: &'static str,
    },
    /// The answer is no frame within its cap.
    #[error("{peer} answered {what} wrongly: {error}")]
    Answer {
        /// The peer.
        peer: PeerId,
        /// What was asked.
        what: &'static str,
        /// What went wrong.
        error: FrameError,
    },
    /// No answer before the deadline.
    #[error("no answer from {peer} to {what} within {} s", deadline.as_secs())]
    TimedOut {
        /// The peer.
        peer: PeerId,
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        deadline: Duration,
    },
}

impl ExchangeError {
    /// Whether the peer does not know the protocol.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Open { error: OpenStreamError::UnsupportedProtocol(_), .. })
    }
}

impl Exchange {
    /// Asks one peer, dialling it if needed, and gives its answer, not decoded yet, before the deadline.
    ///
    /// Dropping the future gives the call up; the peer may have taken the request all the same.
    pub async fn ask(&self, control: &mut Control, peer: PeerId, request: &[u8]) -> Result<Bytes, ExchangeError> {
        let &Self { what, deadline, .. } = self;
        let call = async {
            let mut waits = self.reopen_ms.iter();
            loop {
                let opened = control.open_stream(peer, self.protocol.clone()).await;
                let stream = opened.map_err(|error| ExchangeError::Open { peer, what, error })?;
                match self.call(stream, request).await {
                    Ok(Some(answer)) => return Ok(answer),
                    Err(error @ (FrameError::TooLong { .. } | FrameError::Prefix)) => {
                        return Err(ExchangeError::Answer { peer, what, error });
                    }
                    Err(FrameError::Io(error)) if is_refused(&error) => {
                        let error = OpenStreamError::UnsupportedProtocol(self.protocol.clone());
                        return Err(ExchangeError::Open { peer, what, error });
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%peer, what, %error, "a stream broke off before its answer"),
                }
                let Some(wait) = waits.next() else { return Err(ExchangeError::Dropped { peer, what }) };
                Delay::new(Duration::from_millis(*wait)).await;
            }
        };
        within(deadline, call).await.unwrap_or(Err(ExchangeError::TimedOut { peer, what, deadline }))
    }

    /// Answers requests for as long as it is polled; ends when the swarm is gone.
    ///
    /// `handler` gets the peer and the undecoded request; `None` drops the stream. A stream for which there is no place
    /// is dropped at once, and one at its deadline.
    ///
    /// Dropping the future ends the serving and every exchange.
    pub async fn serve_on<H, F>(&self, mut incoming: IncomingStreams, handler: H)
    where
        H: Fn(PeerId, Bytes) -> F,
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
                    if running.len() >= self.places || count >= self.places_per_peer {
                        tracing::debug!(%peer, what = self.what, "too many at once; dropped one");
                        continue;
                    }
                    per_peer.insert(peer, count + 1);
                    running.push(self.answer_one(peer, stream, &handler));
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

    /// Reads a request, not decoded yet, and gives the stream back. Not cancel-safe: drop the stream with it.
    pub async fn receive<S: AsyncRead + Unpin>(&self, stream: S) -> Result<(Bytes, S), FrameError> {
        let mut reader = FrameReader::new(stream, self.max_request_bytes);
        let request = reader.next().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok((request, reader.into_inner().0))
    }

    /// Sends a request and reads the answer; `None` where the stream ends without one. Not cancel-safe: drop the stream
    /// with it.
    async fn call<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        request: &[u8],
    ) -> Result<Option<Bytes>, FrameError> {
        frame::write(&mut stream, request).await?;
        stream.flush().await?;
        let mut reader = FrameReader::new(stream, self.max_answer_bytes);
        let answer = reader.next().await?;
        // It is answered; how the stream ends no longer matters.
        let _ = reader.into_inner().0.close().await;
        Ok(answer)
    }

    async fn answer_one<H, F>(&self, peer: PeerId, stream: Stream, handler: &H) -> PeerId
    where
        H: Fn(PeerId, Bytes) -> F,
        F: Future<Output = Option<Vec<u8>>>,
    {
        let exchange = async {
            let (request, mut stream) = self.receive(stream).await?;
            if let Some(answer) = handler(peer, request).await {
                frame::write(&mut stream, &answer).await?;
                stream.close().await?;
            }
            Ok::<_, FrameError>(())
        };
        match within(self.deadline, exchange).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%peer, what = self.what, %error, "answering broke off"),
            None => tracing::debug!(%peer, what = self.what, "answering took too long"),
        }
        peer
    }
}

/// Whether a stream ended since the peer does not know its protocol. Where protocols are agreed on lazily, the first
/// message travels with the name, and a stream that is opened says nothing yet.
fn is_refused(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<NegotiationError>());
    matches!(inner, Some(NegotiationError::Failed))
}

/// `None` where the deadline came first.
async fn within<F: Future>(deadline: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), Delay::new(deadline)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    static EXCHANGE: Exchange = Exchange {
        protocol: StreamProtocol::new("/test/1.0.0"),
        what: "a test's request",
        max_request_bytes: 100,
        max_answer_bytes: 10,
        deadline: Duration::from_secs(10),
        reopen_ms: REOPEN_MS,
        places: 2,
        places_per_peer: 1,
    };

    fn framed(len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, &[&vec![7; len]]);
        bytes
    }

    #[test]
    fn a_request_is_taken_at_the_cap_and_refused_from_its_prefix_beyond_it() {
        let at = |len| block_on(EXCHANGE.receive(Cursor::new(framed(len)))).map(|(request, _)| request.len());
        assert_eq!(at(100).expect("reads"), 100);
        let error = at(101).expect_err("too long");
        assert!(matches!(error, FrameError::TooLong { len: 101, max: 100 }), "{error}");
        assert!(block_on(EXCHANGE.receive(Cursor::new(Vec::new()))).is_err(), "nothing came");
    }

    #[test]
    fn an_answer_is_taken_at_the_cap_and_refused_from_its_prefix_beyond_it() {
        // What is written goes before what is read.
        let ask = |answer: Vec<u8>| {
            let stream = [framed(3), answer].concat();
            block_on(EXCHANGE.call(Cursor::new(stream), &[7; 3]))
        };
        assert_eq!(ask(framed(10)).expect("reads").expect("an answer").len(), 10);
        assert!(matches!(ask(framed(11)), Err(FrameError::TooLong { len: 11, max: 10 })));
        assert!(ask(Vec::new()).expect("ends").is_none(), "dropped without an answer");
    }

    #[test]
    fn a_deadline_ends_what_does_not_end_by_itself() {
        assert_eq!(block_on(within(Duration::from_secs(10), async { 7 })), Some(7));
        assert_eq!(block_on(within(Duration::from_millis(1), std::future::pending::<()>())), None);
    }
}
