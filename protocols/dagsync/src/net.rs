//! The two stream protocols on a libp2p Swarm, over [`libp2p_stream`].

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dagmesh_core::{frame::FrameError, limits};
use dagmesh_dag::{Blockstore, SignedHead};
use futures::{StreamExt, future::BoxFuture};
use futures_timer::Delay;
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::{AlreadyRegistered, Control, IncomingStreams, OpenStreamError};

use crate::{
    client::{Fetch, FetchError, Observer},
    feed_sync::Provider,
    head::{self, HeadError, HeadQuery},
    message::{self, Status},
    rate::within,
    server::{self, ServeBudget, Served},
    transfer::{self, Outcome},
};

const SYNC: StreamProtocol = StreamProtocol::new(message::PROTOCOL);
const HEAD: StreamProtocol = StreamProtocol::new(head::PROTOCOL);

/// Waits before a stream that died without an answer is opened again. `libp2p_stream` hands streams over one at a time
/// and drops those that come while one waits, so a healthy peer drops some of those that reach it at once.
const REOPEN_MS: [u64; 6] = [10, 40, 160, 320, 640, 640];

/// Fetches from peers. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    control: Control,
    /// Counts the streams opened again: spreads those that died together.
    reopened: Arc<AtomicU64>,
}

impl Client {
    /// A client that opens its streams with `control`.
    pub fn new(control: Control) -> Self {
        Self { control, reopened: Arc::default() }
    }

    /// Asks `peer` for signed heads. Dials it where there is no connection. Cancel-safe.
    pub async fn heads(&self, peer: PeerId, query: &HeadQuery) -> Result<Vec<SignedHead>, HeadError> {
        let mut waits = REOPEN_MS.into_iter();
        loop {
            let stream = match self.open(peer, HEAD).await {
                Ok(stream) => stream,
                Err(FetchError::Unreachable(reason)) => return Err(HeadError::Unreachable(reason)),
                Err(error) => return Err(HeadError::Unreachable(error.to_string())),
            };
            match (head::ask(stream, query, peer).await, waits.next()) {
                // The stream died; what came over it and is no answer comes again.
                (Err(HeadError::Frame(FrameError::CutShort | FrameError::Io(_))), Some(wait)) => self.pause(wait).await,
                (answer, _) => return answer,
            }
        }
    }

    /// Drives `fetch` with one peer, segment after segment, until all is walked or the peer can do no more. Gives the
    /// fetch back, so that another peer can go on; `None` only if its thread broke. Where it is dropped, what was
    /// received stays.
    pub async fn sync<O: Observer>(
        &self,
        peer: PeerId,
        mut fetch: Fetch<O>,
    ) -> (Option<Fetch<O>>, Result<(), FetchError>) {
        let mut waits = REOPEN_MS.into_iter();
        loop {
            fetch = match transfer::segment(self.open(peer, SYNC), fetch).await {
                (Some(fetch), Ok(Outcome::Complete)) => {
                    let result = if fetch.first_missing().is_some() { Err(fetch.missing_error()) } else { Ok(()) };
                    return (Some(fetch), result);
                }
                (Some(fetch), Ok(Outcome::Answered(_) | Outcome::Enough)) => {
                    waits = REOPEN_MS.into_iter();
                    fetch
                }
                (Some(fetch), Err(error @ FetchError::Stream(_))) if !fetch.has_answer() => match waits.next() {
                    Some(wait) => {
                        self.pause(wait).await;
                        fetch
                    }
                    None => return (Some(fetch), Err(error)),
                },
                (fetch, Ok(_)) => return (fetch, Err(FetchError::Stream("the storing thread broke".to_owned()))),
                (fetch, Err(error)) => return (fetch, Err(error)),
            };
        }
    }

    /// `peer` as a provider for a feed's sync.
    pub fn provider(&self, peer: PeerId) -> PeerProvider {
        PeerProvider { client: self.clone(), peer }
    }

    /// Waits about `wait_ms`; those that wait at once go on one after the other.
    async fn pause(&self, wait_ms: u64) {
        // 7 and 16 share no divisor, so sixteen in a row get sixteen different waits.
        let step = self.reopened.fetch_add(1, Ordering::Relaxed).wrapping_mul(7) % 16;
        Delay::new(Duration::from_millis(wait_ms + wait_ms * step / 16)).await;
    }

    async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, FetchError> {
        let mut control = self.control.clone();
        let opened = within(limits::FIRST_BYTE_TIMEOUT_SECS, control.open_stream(peer, protocol)).await?;
        opened.map_err(|error| {
            let reason = match error {
                OpenStreamError::Io(error) => error.to_string(),
                OpenStreamError::UnsupportedProtocol(protocol) => format!("the peer does not speak {protocol}"),
                error => error.to_string(),
            };
            FetchError::Unreachable(reason.trim_end_matches('.').to_owned())
        })
    }
}

/// One peer on the Swarm.
pub struct PeerProvider {
    client: Client,
    peer: PeerId,
}

impl Provider for PeerProvider {
    async fn ready(&self) -> Result<(), FetchError> {
        self.client.open(self.peer, SYNC).await.map(drop)
    }

    async fn sync<O: Observer>(&self, fetch: Fetch<O>) -> (Option<Fetch<O>>, Result<(), FetchError>) {
        self.client.sync(self.peer, fetch).await
    }
}

/// What the serving side asks of its node.
pub trait Access: Send + Sync + 'static {
    /// Whether `peer` may fetch from us at all.
    fn allows(&self, peer: &PeerId) -> bool;

    /// The newest heads that we know, own or followed.
    fn heads(&self, query: HeadQuery) -> BoxFuture<'static, Vec<SignedHead>>;

    /// A serve to `peer` ended.
    fn served(&self, _peer: PeerId, _served: Served) {}
}

/// Serves both protocols until the Swarm of `control` is gone.
///
/// Each stream runs on a task of its own, made with `spawn`; at most [`limits::MAX_SERVES`] in all and
/// [`limits::MAX_SERVES_PER_PEER`] for one peer, whoever is beyond that is told that we are busy.
///
/// # Errors
/// Where one of the protocols is already served on this Swarm.
pub fn serve(
    mut control: Control,
    store: Arc<dyn Blockstore>,
    access: Arc<dyn Access>,
    budget: ServeBudget,
    spawn: impl Fn(BoxFuture<'static, ()>) + Send + Clone + 'static,
) -> Result<impl Future<Output = ()> + Send, AlreadyRegistered> {
    let syncs = control.accept(SYNC)?;
    let heads = control.accept(HEAD)?;
    let slots = Slots::default();
    let answers = answer_heads(heads, Arc::clone(&access), slots.clone(), spawn.clone());
    let serves = serve_syncs(syncs, store, access, budget, slots, spawn);
    Ok(async move {
        futures::join!(serves, answers);
    })
}

async fn serve_syncs(
    mut streams: IncomingStreams,
    store: Arc<dyn Blockstore>,
    access: Arc<dyn Access>,
    budget: ServeBudget,
    slots: Slots,
    spawn: impl Fn(BoxFuture<'static, ()>),
) {
    while let Some((peer, mut stream)) = streams.next().await {
        let (store, access, slot) = (Arc::clone(&store), Arc::clone(&access), slots.take(peer));
        spawn(Box::pin(async move {
            let refusal = if !access.allows(&peer) {
                Some((Status::Refused, "this node does not serve you"))
            } else if slot.is_none() {
                Some((Status::Busy, "too many requests are being served"))
            } else {
                None
            };
            let served = match refusal {
                Some((status, reason)) => server::refuse(&mut stream, status, reason).await.map(|()| None),
                None => server::serve(stream, store, budget).await.map(Some),
            };
            match served {
                Ok(Some(served)) => access.served(peer, served),
                Ok(None) => {}
                Err(error) => tracing::debug!(%peer, %error, "a sync could not be served to its end"),
            }
            drop(slot);
        }));
    }
}

async fn answer_heads(
    mut streams: IncomingStreams,
    access: Arc<dyn Access>,
    slots: Slots,
    spawn: impl Fn(BoxFuture<'static, ()>),
) {
    while let Some((peer, stream)) = streams.next().await {
        // Without a slot, or without leave, the stream is reset: the answer would cost more than the question.
        let Some(slot) = slots.take(peer).filter(|_| access.allows(&peer)) else { continue };
        let access = Arc::clone(&access);
        spawn(Box::pin(async move {
            if let Err(error) = head::answer(stream, |query| access.heads(query)).await {
                tracing::debug!(%peer, %error, "a head could not be told");
            }
            drop(slot);
        }));
    }
}

/// Counts what is being served, in all and for each peer.
#[derive(Clone, Default)]
struct Slots {
    taken: Arc<Mutex<HashMap<PeerId, usize>>>,
}

/// One place; free again when dropped.
struct Slot {
    peer: PeerId,
    slots: Slots,
}

impl Slots {
    fn take(&self, peer: PeerId) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= limits::MAX_SERVES {
            return None;
        }
        let count = taken.entry(peer).or_default();
        if *count >= limits::MAX_SERVES_PER_PEER {
            return None;
        }
        *count += 1;
        Some(Slot { peer, slots: self.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_of_places_and_no_more() {
        let slots = Slots::default();
        let (greedy, honest) = (PeerId::random(), PeerId::random());
        let held: Vec<_> = (0..limits::MAX_SERVES_PER_PEER).map(|_| slots.take(greedy)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(slots.take(greedy).is_none());
        assert!(slots.take(honest).is_some());
        drop(held);
        assert!(slots.take(greedy).is_some());
        assert_eq!(slots.taken.lock().expect("not poisoned").len(), 0, "nobody who is not served is remembered");
    }
}
