//! Drives a [`Fetch`] with a peer that serves single blocks: it is asked for every link that the walk waits for, many at
//! once, and what comes is handed to the walk in its order.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits;
use futures::{
    StreamExt,
    future::{self, BoxFuture, Either},
    stream::FuturesUnordered,
};
use futures_timer::Delay;

use crate::{
    client::{Fetch, FetchError, Observer, Step},
    message::{End, Frame, Status},
};

/// What came is made durable this often, and after so many blocks: what a kill loses comes again, one by one.
const TICK: Duration = Duration::from_secs(1);
const CHECKPOINT_BLOCKS: usize = 1024;
/// Blocks that are asked for at once.
const WINDOW: usize = limits::MAX_PIECEWISE_REQUESTS;

/// A peer that serves single blocks.
pub trait Blocks: Send + Sync {
    /// Fetches one block, at most [`limits::MAX_BLOCK_BYTES`]; `None` where the peer does not hold it. The bytes are
    /// verified by whoever asks.
    ///
    /// Called for up to [`limits::MAX_PIECEWISE_REQUESTS`] at once; ends by itself, and is dropped where the answer is of
    /// no use any more.
    fn block(&self, cid: Cid) -> impl Future<Output = Result<Option<Bytes>, FetchError>> + Send;
}

/// Drives `fetch` with one peer until all is walked or the peer can do no more, and gives it back; `None` only if its
/// thread broke.
///
/// Cancel-safe in this sense: where the future is dropped, what was received is still made durable.
pub async fn sync<B: Blocks, O: Observer>(blocks: &B, fetch: Fetch<O>) -> (Option<Fetch<O>>, Result<(), FetchError>) {
    let (mut kept, mut post) = (Kept(Some(fetch)), Post::default());
    loop {
        let result = segment(blocks, &mut kept, &mut post).await;
        match result {
            Ok(true) => {}
            Ok(false) => {
                let fetch = kept.0.take();
                let missing = fetch.as_ref().filter(|fetch| fetch.first_missing().is_some());
                let result = missing.map_or(Ok(()), |fetch| Err(fetch.missing_error()));
                return (fetch, result);
            }
            Err(error) => return (kept.0.take(), Err(error)),
        }
    }
}

/// What is underway between the peer and the walk.
#[derive(Default)]
struct Post<'a> {
    asked: FuturesUnordered<BoxFuture<'a, (Cid, Answer)>>,
    /// What is asked for, and what has come and not been taken.
    known: HashSet<Cid>,
    arrived: HashMap<Cid, Answer>,
}

type Answer = Result<Option<Bytes>, FetchError>;

impl<'a> Post<'a> {
    /// Asks for these links, as far as there is room; for the first one in any case.
    fn ask<B: Blocks>(&mut self, blocks: &'a B, wanted: &[Cid]) {
        // What came early and is not among the next has to make room, or the walk would go on one link at a time.
        if self.known.len() >= 2 * WINDOW {
            let Self { known, arrived, .. } = self;
            arrived.retain(|cid, _| wanted.contains(cid) || !known.remove(cid));
        }
        for (at, cid) in wanted.iter().copied().enumerate() {
            let room = self.asked.len() < WINDOW && self.known.len() < 2 * WINDOW;
            if (at == 0 || room) && self.known.insert(cid) {
                self.asked.push(Box::pin(async move { (cid, blocks.block(cid).await) }));
            }
        }
    }

    fn take(&mut self) -> HashMap<Cid, Answer> {
        std::mem::take(&mut self.arrived)
    }

    fn put_back(&mut self, arrived: HashMap<Cid, Answer>, taken: &[Cid]) {
        self.arrived = arrived;
        taken.iter().for_each(|cid| {
            self.known.remove(cid);
        });
    }
}

/// One request of the fetch; whether another one may follow.
async fn segment<'a, B: Blocks, O: Observer>(
    blocks: &'a B,
    kept: &mut Kept<O>,
    post: &mut Post<'a>,
) -> Result<bool, FetchError> {
    let Some(request) = kept.with(Fetch::next_request).await? else { return Ok(false) };
    let mut left = request.blocks;
    let (mut tick, mut since) = (Delay::new(TICK), 0);
    loop {
        let (arrived, known) = (post.take(), post.known.clone());
        let turn = kept.with(move |fetch| Turn::take(fetch, arrived, &known, left)).await?;
        left -= turn.taken.len() as u64;
        since += turn.taken.len();
        post.put_back(turn.arrived, &turn.taken);
        if let Some(result) = turn.over {
            return result;
        }
        post.ask(blocks, &turn.wanted);
        if since >= CHECKPOINT_BLOCKS {
            since = 0;
            kept.with(Fetch::checkpoint).await?;
        }
        loop {
            match future::select(post.asked.next(), &mut tick).await {
                Either::Left((Some((cid, answer)), _)) => {
                    post.arrived.insert(cid, answer);
                    // Only the next one in order lets the walk go on.
                    if turn.wanted.first().is_none_or(|first| post.arrived.contains_key(first)) {
                        break;
                    }
                }
                Either::Left((None, _)) => break,
                Either::Right(_) => {
                    tick.reset(TICK);
                    since = 0;
                    kept.with(|fetch| if fetch.is_dirty() { fetch.checkpoint() } else { Ok(()) }).await?;
                }
            }
        }
    }
}

/// What one visit to the walk has brought.
struct Turn {
    /// What came and is not next.
    arrived: HashMap<Cid, Answer>,
    /// What the walk has taken.
    taken: Vec<Cid>,
    /// What it waits for, next first.
    wanted: Vec<Cid>,
    /// Whether the request is answered, and another one may follow.
    over: Option<Result<bool, FetchError>>,
}

impl Turn {
    /// Gives the walk what it waits for, as far as it has come, `left` blocks at the most.
    fn take<O: Observer>(
        fetch: &mut Fetch<O>,
        arrived: HashMap<Cid, Answer>,
        known: &HashSet<Cid>,
        left: u64,
    ) -> Result<Self, FetchError> {
        let mut turn = Self { arrived, taken: Vec::new(), wanted: Vec::new(), over: None };
        let result = turn.go_on(fetch, known, left);
        if let Err(error) = &result
            && !error.is_fatal()
        {
            // What came before was verified: it is kept.
            fetch.checkpoint()?;
        }
        result.map(|()| turn)
    }

    fn go_on<O: Observer>(&mut self, fetch: &mut Fetch<O>, known: &HashSet<Cid>, left: u64) -> Result<(), FetchError> {
        loop {
            self.wanted = fetch.wanted(WINDOW, known)?;
            let done = self.wanted.is_empty();
            if done || self.taken.len() as u64 >= left {
                let status = if done { Status::Done } else { Status::Segment };
                fetch.on_frame(Frame::End(End::without(status, "")))?;
                self.over = Some(Ok(true));
                return Ok(());
            }
            let Some((cid, answer)) = self.wanted.first().and_then(|cid| self.arrived.remove_entry(cid)) else {
                return fetch.share();
            };
            self.taken.push(cid);
            let frame = match answer? {
                Some(data) => Frame::Block { cid, data },
                None => Frame::Missing(cid),
            };
            if let Step::Enough = fetch.on_frame(frame)? {
                fetch.checkpoint()?;
                self.over = Some(Ok(true));
                return Ok(());
            }
        }
    }
}

/// A fetch, on a thread that may block or between two turns there. What it has received is made durable also where it is
/// dropped.
struct Kept<O: Observer>(Option<Fetch<O>>);

impl<O: Observer> Kept<O> {
    async fn with<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Fetch<O>) -> Result<T, FetchError> + Send + 'static,
    ) -> Result<T, FetchError> {
        let mut taken = Self(self.0.take());
        let (back, result) = blocking::unblock(move || {
            let result = match &mut taken.0 {
                Some(fetch) => act(fetch),
                None => Err(FetchError::Stream("the storing thread broke".to_owned())),
            };
            (taken, result)
        })
        .await;
        *self = back;
        result
    }
}

impl<O: Observer> Drop for Kept<O> {
    fn drop(&mut self) {
        if let Some(mut fetch) = self.0.take().filter(Fetch::is_dirty) {
            blocking::unblock(move || fetch.checkpoint()).detach();
        }
    }
}
