//! The adapter to libp2p: direct announcements over streams, verdicts for gossipsub.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use dagmesh_core::{
    exchange::{Exchange, ExchangeError},
    limits::{
        CALL_TIMEOUT_SECS, MAX_ANNOUNCEMENT_BYTES, MAX_ANSWER_BYTES, MAX_DIRECT_ANNOUNCEMENTS,
        MAX_DIRECT_ANNOUNCEMENTS_PER_PEER,
    },
};
use libp2p::{PeerId, StreamProtocol, gossipsub::MessageAcceptance};
use libp2p_stream::{AlreadyRegistered, Control, IncomingStreams};

use crate::{Acceptance, AnnounceError, Announcement, Answer};

/// The protocol of a direct announcement: one stream each, one frame each way.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/dagmesh/announce/1.0.0");

static EXCHANGE: Exchange = Exchange {
    protocol: PROTOCOL,
    what: "a direct announcement",
    max_request_bytes: MAX_ANNOUNCEMENT_BYTES,
    max_answer_bytes: MAX_ANSWER_BYTES,
    deadline: Duration::from_secs(CALL_TIMEOUT_SECS),
    // Whoever tells a peer directly hears at once that it did not take it.
    reopen_ms: &[],
    places: MAX_DIRECT_ANNOUNCEMENTS,
    places_per_peer: MAX_DIRECT_ANNOUNCEMENTS_PER_PEER,
};

/// Why a direct announcement got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nothing came back.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The announcement is none, or the answer is none.
    #[error("a direct announcement to {peer}: {error}")]
    Message {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: AnnounceError,
    },
}

/// Announces a head to one peer, dialling it if needed, and gives its answer within [`CALL_TIMEOUT_SECS`].
///
/// Dropping the future gives the call up; the peer may have taken the announcement all the same.
pub async fn announce_to(
    control: &mut Control,
    peer: PeerId,
    announcement: &Announcement,
) -> Result<Answer, CallError> {
    let message = |error| CallError::Message { peer, error };
    let request = announcement.encode().map_err(message)?;
    let answer = EXCHANGE.ask(control, peer, &request).await?;
    Answer::decode(&answer).map_err(message)
}

/// Answers direct announcements for as long as it is polled; ends when the swarm is gone. Fails where the protocol is
/// served already.
///
/// `handler` gets the peer and the undecoded message (see [`Validator::check`](crate::Validator::check) with
/// [`Origin::direct`](crate::Origin::direct)). Each exchange may take [`CALL_TIMEOUT_SECS`]. A stream over
/// [`MAX_DIRECT_ANNOUNCEMENTS`], or over [`MAX_DIRECT_ANNOUNCEMENTS_PER_PEER`], is dropped at once.
///
/// Dropping the future ends the serving and every exchange.
pub async fn serve<H, F>(control: &mut Control, handler: H) -> Result<(), AlreadyRegistered>
where
    H: Fn(PeerId, Bytes) -> F,
    F: Future<Output = Answer>,
{
    serve_on(control.accept(PROTOCOL)?, handler).await;
    Ok(())
}

/// Like [`serve`], on streams that are accepted already, so that the protocol is registered before the first peer
/// connects.
pub async fn serve_on<H, F>(incoming: IncomingStreams, handler: H)
where
    H: Fn(PeerId, Bytes) -> F,
    F: Future<Output = Answer>,
{
    let handler = &handler;
    let answer = move |peer, request| async move { handler(peer, request).await.encode().ok() };
    EXCHANGE.serve_on(incoming, answer).await;
}

impl From<Acceptance> for MessageAcceptance {
    fn from(acceptance: Acceptance) -> Self {
        match acceptance {
            Acceptance::Accept => Self::Accept,
            Acceptance::Ignore => Self::Ignore,
            Acceptance::Reject => Self::Reject,
        }
    }
}

#[cfg(test)]
mod tests {
    use dagmesh_core::frame::{self, FrameError};
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    #[test]
    fn an_announcement_is_taken_at_the_cap_and_refused_from_its_prefix_beyond_it() {
        let at = |len: usize| {
            let mut bytes = Vec::new();
            frame::append(&mut bytes, &[&vec![7; len]]);
            block_on(EXCHANGE.receive(Cursor::new(bytes))).map(|(request, _)| request.len())
        };
        assert_eq!(at(MAX_ANNOUNCEMENT_BYTES).expect("fits"), MAX_ANNOUNCEMENT_BYTES);
        let error = at(MAX_ANNOUNCEMENT_BYTES + 1).expect_err("too long");
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }
}
