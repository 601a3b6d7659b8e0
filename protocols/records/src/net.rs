//! The adapter to libp2p: requests about records between two nodes over streams, one frame each way.
//!
//! Whoever sends what is no frame within its cap, and whoever is banned, has its stream dropped.

pub mod fetch;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use dagmesh_core::{
    exchange::{Exchange, ExchangeError, REOPEN_MS},
    limits::{CALL_TIMEOUT_SECS, MAX_RECORD_MESSAGE_BYTES, MAX_RECORD_SERVED, MAX_RECORD_SERVED_PER_PEER},
};
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams};

use crate::message::{Answer, MessageError, Request};

/// The protocol of a request: one stream each, one frame each way.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new(crate::message::PROTOCOL);

static EXCHANGE: Exchange = Exchange {
    protocol: PROTOCOL,
    what: "a record's request",
    max_request_bytes: MAX_RECORD_MESSAGE_BYTES,
    max_answer_bytes: MAX_RECORD_MESSAGE_BYTES,
    deadline: Duration::from_secs(CALL_TIMEOUT_SECS),
    reopen_ms: REOPEN_MS,
    places: MAX_RECORD_SERVED,
    places_per_peer: MAX_RECORD_SERVED_PER_PEER,
};

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nothing came back.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The request is none, or the answer is none.
    #[error("a record's request to {peer}: {error}")]
    Message {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: MessageError,
    },
}

impl CallError {
    /// Whether the peer does not know the protocol; it may be one of plain Kademlia.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_unsupported())
    }
}

/// Asks one peer, dialling it if needed, and gives its answer within [`CALL_TIMEOUT_SECS`]. A record in it is not checked
/// yet.
///
/// Dropping the future gives the call up; the peer may have taken the request all the same.
pub async fn ask(control: &mut Control, peer: PeerId, request: &Request) -> Result<Answer, CallError> {
    let message = |error| CallError::Message { peer, error };
    let request = request.encode().map_err(message)?;
    let answer = EXCHANGE.ask(control, peer, &request).await?;
    Answer::decode(&answer).map_err(message)
}

/// Answers requests for as long as it is polled; ends when the swarm is gone.
///
/// `handler` gets the peer and the undecoded request, of at most [`MAX_RECORD_MESSAGE_BYTES`], for
/// [`serve`](crate::serve); `None` drops the stream. Each exchange may take [`CALL_TIMEOUT_SECS`]. A stream over
/// [`MAX_RECORD_SERVED`], or over [`MAX_RECORD_SERVED_PER_PEER`], is dropped at once.
///
/// Dropping the future ends the serving and every exchange.
pub async fn serve_on<H, F>(incoming: IncomingStreams, handler: H)
where
    H: Fn(PeerId, Bytes) -> F,
    F: Future<Output = Option<Answer>>,
{
    let handler = &handler;
    let answer = move |peer, request| async move { handler(peer, request).await?.encode().ok() };
    EXCHANGE.serve_on(incoming, answer).await;
}

#[cfg(test)]
mod tests {
    use dagmesh_core::frame::{self, FrameError};
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    #[test]
    fn a_request_is_taken_at_the_cap_and_refused_from_its_prefix_beyond_it() {
        let at = |len: usize| {
            let mut bytes = Vec::new();
            frame::append(&mut bytes, &[&vec![7; len]]);
            block_on(EXCHANGE.receive(Cursor::new(bytes))).map(|(request, _)| request.len())
        };
        assert_eq!(at(MAX_RECORD_MESSAGE_BYTES).expect("reads"), MAX_RECORD_MESSAGE_BYTES);
        let error = at(MAX_RECORD_MESSAGE_BYTES + 1).expect_err("too long");
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }
}
