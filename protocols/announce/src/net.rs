//! The adapter to libp2p: direct announcements over streams, verdicts for gossipsub.

use std::{collections::HashMap, future::Future, pin::pin, time::Duration};

use bytes::Bytes;
use dagmesh_core::limits::{CALL_TIMEOUT_SECS, MAX_DIRECT_ANNOUNCEMENTS, MAX_DIRECT_ANNOUNCEMENTS_PER_PEER};
use futures::{
    StreamExt,
    future::{Either, select},
    stream::FuturesUnordered,
};
use futures_timer::Delay;
use libp2p::{PeerId, Stream, StreamProtocol, gossipsub::MessageAcceptance};
use libp2p_stream::{AlreadyRegistered, Control, IncomingStreams, OpenStreamError};

use crate::{
    Acceptance, Announcement, Answer,
    exchange::{self, ExchangeError},
};

/// The protocol of a direct announcement: one stream each, one frame each way.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/dagmesh/announce/1.0.0");

/// How long opening the stream and the exchange on it may take together.
const DEADLINE: Duration = Duration::from_secs(CALL_TIMEOUT_SECS);

/// Why a direct announcement got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No stream to the peer.
    #[error("no stream to {peer} for a direct announcement: {error}")]
    Open {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: OpenStreamError,
    },
    /// The exchange broke off.
    #[error("the direct announcement to {peer} broke off: {error}")]
    Exchange {
        /// The peer.
        peer: PeerId,
        /// What went wrong.
        error: ExchangeError,
    },
    /// No answer within [`CALL_TIMEOUT_SECS`].
    #[error("no answer from {peer} to a direct announcement within {CALL_TIMEOUT_SECS} s")]
    TimedOut {
        /// The peer.
        peer: PeerId,
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
    let call = async {
        let stream = control.open_stream(peer, PROTOCOL).await.map_err(|error| CallError::Open { peer, error })?;
        exchange::call(stream, announcement).await.map_err(|error| CallError::Exchange { peer, error })
    };
    within(call).await.unwrap_or(Err(CallError::TimedOut { peer }))
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
pub async fn serve_on<H, F>(mut incoming: IncomingStreams, handler: H)
where
    H: Fn(PeerId, Bytes) -> F,
    F: Future<Output = Answer>,
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
                if running.len() >= MAX_DIRECT_ANNOUNCEMENTS || count >= MAX_DIRECT_ANNOUNCEMENTS_PER_PEER {
                    tracing::debug!(%peer, "too many direct announcements at once; dropped one");
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
    F: Future<Output = Answer>,
{
    let exchange = async {
        let (bytes, stream) = exchange::receive(stream).await?;
        exchange::reply(stream, &handler(peer, bytes).await).await
    };
    match within(exchange).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%peer, %error, "a direct announcement broke off"),
        None => tracing::debug!(%peer, "a direct announcement took too long"),
    }
    peer
}

/// `None` where the deadline came first.
async fn within<F: Future>(future: F) -> Option<F::Output> {
    match select(pin!(future), Delay::new(DEADLINE)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
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
