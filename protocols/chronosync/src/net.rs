//! The adapter to libp2p: requests between two members over streams, one frame each way.
//!
//! ```text
//! request   the group's id, 32 bytes ‖ the request      answer   the answer
//! ```
//! Whoever is asked about a group that it is no member of, or asked in a way that breaks the protocol, drops the stream.

use std::{future::Future, time::Duration};

use bytes::{Buf, Bytes};
pub use dagmesh_core::exchange::ExchangeError as CallError;
use dagmesh_core::{
    exchange::{Exchange, REOPEN_MS},
    limits::{CALL_TIMEOUT_SECS, MAX_GROUP_MESSAGE_BYTES, MAX_GROUP_REQUESTS, MAX_GROUP_REQUESTS_PER_PEER},
};
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams};

use crate::GroupId;

/// The protocol of a request: one stream each, one frame each way.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/dagmesh/group/1.0.0");

/// Bytes of a group's id, before the request.
const ID_BYTES: usize = 32;

static EXCHANGE: Exchange = Exchange {
    protocol: PROTOCOL,
    what: "a group's request",
    max_request_bytes: ID_BYTES + MAX_GROUP_MESSAGE_BYTES,
    max_answer_bytes: MAX_GROUP_MESSAGE_BYTES,
    deadline: Duration::from_secs(CALL_TIMEOUT_SECS),
    reopen_ms: REOPEN_MS,
    places: MAX_GROUP_REQUESTS,
    places_per_peer: MAX_GROUP_REQUESTS_PER_PEER,
};

/// Asks one peer, dialling it if needed, and gives its answer, of at most [`MAX_GROUP_MESSAGE_BYTES`], not decoded yet,
/// within [`CALL_TIMEOUT_SECS`].
///
/// Dropping the future gives the call up; the peer may have taken the request all the same.
pub async fn ask(control: &mut Control, peer: PeerId, group: &GroupId, request: &[u8]) -> Result<Bytes, CallError> {
    EXCHANGE.ask(control, peer, &[group.as_bytes(), request].concat()).await
}

/// Answers requests for as long as it is polled; ends when the swarm is gone.
///
/// `handler` gets the peer, the group and the undecoded request, of at most [`MAX_GROUP_MESSAGE_BYTES`]; `None` drops
/// the stream. Each exchange may take [`CALL_TIMEOUT_SECS`]. A stream over [`MAX_GROUP_REQUESTS`], or over
/// [`MAX_GROUP_REQUESTS_PER_PEER`], is dropped at once.
///
/// Dropping the future ends the serving and every exchange.
pub async fn serve_on<H, F>(incoming: IncomingStreams, handler: H)
where
    H: Fn(PeerId, GroupId, Bytes) -> F,
    F: Future<Output = Option<Vec<u8>>>,
{
    let handler = &handler;
    let answer = move |peer, request| async move {
        let (group, request) = split(request)?;
        handler(peer, group, request).await
    };
    EXCHANGE.serve_on(incoming, answer).await;
}

/// The group and the request to it; `None` where no group is named.
fn split(mut request: Bytes) -> Option<(GroupId, Bytes)> {
    let id = *request.first_chunk::<ID_BYTES>()?;
    request.advance(ID_BYTES);
    Some((GroupId::from_bytes(id), request))
}

#[cfg(test)]
mod tests {
    use dagmesh_core::frame::{self, FrameError};
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn receive(body: &[u8]) -> Result<Bytes, FrameError> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, &[body]);
        block_on(EXCHANGE.receive(Cursor::new(bytes))).map(|(request, _)| request)
    }

    #[test]
    fn a_request_is_taken_at_the_cap_and_refused_from_its_prefix_beyond_it() {
        let at = |len: usize| receive(&vec![7; ID_BYTES + len]);
        let (group, request) = split(at(MAX_GROUP_MESSAGE_BYTES).expect("reads")).expect("names a group");
        assert_eq!((group, request.len()), (GroupId::from_bytes([7; 32]), MAX_GROUP_MESSAGE_BYTES));
        let error = at(MAX_GROUP_MESSAGE_BYTES + 1).expect_err("too long");
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }

    #[test]
    fn a_request_without_a_whole_id_names_no_group() {
        assert!(split(receive(&[7; ID_BYTES - 1]).expect("reads")).is_none());
    }
}
