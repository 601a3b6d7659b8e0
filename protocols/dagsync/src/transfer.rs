//! Drives a [`Fetch`] over one stream: bytes in on the caller's task, hashing and storing on a thread of their own.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use dagmesh_core::{
    frame::{self, FrameError, FrameReader},
    limits,
};
use futures::{
    AsyncRead, AsyncWrite, AsyncWriteExt,
    future::{self, Either},
};
use futures_timer::Delay;

use crate::{
    client::{Fetch, FetchError, Observer, Step},
    message::{End, Frame, MessageError},
    rate::{with_minimum_rate, within},
};

/// Frames handed to the storing thread at once, in bytes.
const HANDOVER_BYTES: usize = 512 * 1024;
/// Handovers that wait: with the one being worked on, what bounds the memory of a transfer.
const HANDOVERS: usize = 4;
/// While bytes trickle, what came is made durable this often: as often as a file system writes out what it holds back.
/// Each time syncs the disk, and small batches are written twice; once a second, 100 followers took 1 to 2 s of CPU
/// more for each GB.
const TICK: Duration = Duration::from_secs(5);

/// What one request brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was left to ask for: everything is walked, but for what [`Fetch::first_missing`] names.
    Complete,
    /// The request was answered; the next one may follow.
    Answered(End),
    /// The rest of the answer is of no use; make the next request on a new stream.
    Enough,
}

enum Work {
    Frames(Vec<Bytes>),
    Tick,
}

/// Makes the next request of `fetch` over the stream that `open` gives, and takes its answer; where nothing is left to
/// ask for, no stream is opened. Gives the fetch back, whatever happened, so that another provider can go on from where
/// it stands; `None` only if its thread broke.
///
/// Cancel-safe in this sense: where the future is dropped, what was received is still made durable and shown to the
/// observer's checkpoint.
pub async fn segment<S, O>(
    open: impl Future<Output = Result<S, FetchError>>,
    mut fetch: Fetch<O>,
) -> (Option<Fetch<O>>, Result<Outcome, FetchError>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    O: Observer,
{
    let (fetch, request) = blocking::unblock(move || {
        let request = fetch.next_request();
        (fetch, request)
    })
    .await;
    let request = match request {
        Ok(None) => return (Some(fetch), Ok(Outcome::Complete)),
        Ok(Some(request)) => request.encode().map_err(FetchError::from),
        Err(error) => Err(error),
    };
    let asked = async {
        let request = request?;
        let mut stream = open.await?;
        match send(&mut stream, &request).await {
            Ok(()) => Ok((stream, None)),
            // A peer that refuses does not wait for the request; why it does is there to be read.
            Err(error @ FetchError::Stream(_)) => Ok((stream, Some(error))),
            Err(error) => Err(error),
        }
    };
    let (stream, unsent) = match asked.await {
        Ok(asked) => asked,
        Err(error) => return (Some(fetch), Err(error)),
    };
    match (answer(stream, fetch).await, unsent) {
        ((fetch, Err(FetchError::Stream(_))), Some(unsent)) => (fetch, Err(unsent)),
        (answered, _) => answered,
    }
}

/// Takes the answer to the request that was made.
async fn answer<S, O>(stream: S, mut fetch: Fetch<O>) -> (Option<Fetch<O>>, Result<Outcome, FetchError>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    O: Observer,
{
    let (sender, receiver) = async_channel::bounded(HANDOVERS);
    let worker = blocking::unblock(move || {
        let result = work(&mut fetch, &receiver);
        (fetch, result)
    });
    let read = AtomicU64::new(0);
    let reading = with_minimum_rate(&read, receive(stream, sender, &read));
    match future::select(pin!(worker), pin!(reading)).await {
        Either::Left(((fetch, result), _)) => (Some(fetch), result.and_then(|step| step.ok_or_else(cut))),
        // The stream is over, or failed: the worker finishes what it was given.
        Either::Right((ended, worker)) => {
            let (fetch, result) = worker.await;
            let result = match (result, ended) {
                (Ok(Some(outcome)), _) => Ok(outcome),
                (Err(error), _) => Err(error),
                (Ok(None), Ok(Ok(()))) => Err(cut()),
                (Ok(None), Ok(Err(error))) => Err(unreadable(&error)),
                (Ok(None), Err(slow)) => Err(slow.into()),
            };
            (Some(fetch), result)
        }
    }
}

/// A frame over its cap, or behind no length, is the peer's doing; all else may happen to a stream.
fn unreadable(error: &FrameError) -> FetchError {
    match error {
        FrameError::TooLong { .. } | FrameError::Prefix => MessageError::Frame(error.to_string()).into(),
        _ => FetchError::Stream(error.to_string()),
    }
}

fn cut() -> FetchError {
    FetchError::Stream("it ended before the answer did".to_owned())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, request: &[u8]) -> Result<(), FetchError> {
    within(limits::CALL_TIMEOUT_SECS, async {
        frame::write(stream, request).await?;
        stream.flush().await
    })
    .await?
    .map_err(|error| FetchError::Stream(error.to_string()))
}

/// Reads frames and hands them over, many at once; a tick between, so that a slow stream is made durable too.
async fn receive<S>(stream: S, sender: async_channel::Sender<Work>, read: &AtomicU64) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = FrameReader::new(stream, limits::MAX_RESPONSE_FRAME_BYTES);
    let mut tick = Delay::new(TICK);
    loop {
        let first = match future::select(pin!(reader.next()), &mut tick).await {
            Either::Left((frame, _)) => frame?,
            Either::Right(_) => {
                tick.reset(TICK);
                // A worker that is behind is busy making things durable anyway.
                let _ = sender.try_send(Work::Tick);
                continue;
            }
        };
        let Some(first) = first else { return Ok(()) };
        let mut bytes = first.len();
        let mut frames = vec![first];
        while bytes < HANDOVER_BYTES
            && let Some(frame) = reader.buffered()?
        {
            bytes += frame.len();
            frames.push(frame);
        }
        read.fetch_add(bytes as u64, Ordering::Relaxed);
        if sender.send(Work::Frames(frames)).await.is_err() {
            // The worker has its result.
            return Ok(());
        }
    }
}

/// Takes frames until the answer is over; `None` where the stream ended first.
fn work<O: Observer>(
    fetch: &mut Fetch<O>,
    receiver: &async_channel::Receiver<Work>,
) -> Result<Option<Outcome>, FetchError> {
    while let Ok(work) = receiver.recv_blocking() {
        let frames = match work {
            Work::Frames(frames) => frames,
            Work::Tick => {
                if fetch.is_dirty() {
                    fetch.checkpoint()?;
                }
                Vec::new()
            }
        };
        for frame in frames {
            let step = Frame::decode(frame).map_err(FetchError::from).and_then(|frame| fetch.on_frame(frame));
            match step {
                Ok(Step::More) => {}
                Ok(Step::End(end)) => return Ok(Some(Outcome::Answered(end))),
                Ok(Step::Enough) => {
                    fetch.checkpoint()?;
                    return Ok(Some(Outcome::Enough));
                }
                Err(error) => {
                    // What came before was verified: it is kept.
                    if !error.is_fatal() {
                        fetch.checkpoint()?;
                    }
                    return Err(error);
                }
            }
        }
        fetch.share()?;
    }
    fetch.checkpoint()?;
    Ok(None)
}
