//! `/libp2p/fetch/0.0.1` over libp2p streams. The framing is that of [`Exchange`]: an unsigned varint, then the message.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use dagmesh_core::{
    exchange::{Exchange, ExchangeError, REOPEN_MS},
    limits::{
        CALL_TIMEOUT_SECS, MAX_FETCH_ANSWER_BYTES, MAX_FETCH_REQUEST_BYTES, MAX_RECORD_SERVED,
        MAX_RECORD_SERVED_PER_PEER,
    },
};
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams};

use crate::fetch::{FETCH_PROTOCOL, FetchAnswer, FetchError, FetchRequest};

/// The protocol of a request: one stream each, one frame each way.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new(FETCH_PROTOCOL);

static EXCHANGE: Exchange = Exchange {
    protocol: PROTOCOL,
    what: "a question for a name's record",
    max_request_bytes: MAX_FETCH_REQUEST_BYTES,
    max_answer_bytes: MAX_FETCH_ANSWER_BYTES,
    deadline: Duration::from_secs(CALL_TIMEOUT_SECS),
    reopen_ms: REOPEN_MS,
    places: MAX_RECORD_SERVED,
    places_per_peer: MAX_RECORD_SERVED_PER_PEER,
};

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchCallError {
    /// Nothing came back.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The question is none, or the answer is none.
    #[error("a question for a name's record to {peer}: {error}")]
    Message {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: FetchError,
    },
}

/// Asks one peer for the record under a key, dialling it if needed, and gives its answer within [`CALL_TIMEOUT_SECS`]. A
/// record in it is not checked yet.
///
/// Dropping the future gives the question up.
pub async fn ask(control: &mut Control, peer: PeerId, key: &[u8]) -> Result<FetchAnswer, FetchCallError> {
    let message = |error| FetchCallError::Message { peer, error };
    let request = FetchRequest::new(key).map_err(message)?.encode();
    let answer = EXCHANGE.ask(control, peer, &request).await?;
    FetchAnswer::decode(&answer).map_err(message)
}

/// Answers questions for as long as it is polled; ends when the swarm is gone.
///
/// `handler` gets the peer and what it asks for; `None` drops the stream, and so does a request that is none. Each exchange
/// may take [`CALL_TIMEOUT_SECS`]. A stream over [`MAX_RECORD_SERVED`], or over [`MAX_RECORD_SERVED_PER_PEER`], is dropped
/// at once.
///
/// Dropping the future ends the serving and every exchange.
pub async fn serve_on<H, F>(incoming: IncomingStreams, handler: H)
where
    H: Fn(PeerId, FetchRequest) -> F,
    F: Future<Output = Option<FetchAnswer>>,
{
    let handler = &handler;
    let answer = move |peer, request: Bytes| async move {
        let request = FetchRequest::decode(&request).ok()?;
        Some(handler(peer, request).await?.encode())
    };
    EXCHANGE.serve_on(incoming, answer).await;
}
