//! What a connection of the server is read from and written to.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use dagmesh_core::limits::HTTP_PIECE_BYTES;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep},
};

use crate::net::Pace;

/// Fails a write where the other side takes too few bytes in a window in which it is always waited for.
pub(super) struct Paced<S> {
    io: S,
    window: Duration,
    min_bytes: u64,
    /// Runs while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
    /// What was written since the timer was set.
    written: u64,
}

impl<S> Paced<S> {
    pub(super) fn new(io: S, pace: &Pace) -> Self {
        Self { io, window: pace.window, min_bytes: pace.min_bytes, timer: None, written: 0 }
    }

    fn waits(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let window = self.window;
        let timer = self.timer.get_or_insert_with(|| {
            self.written = 0;
            Box::pin(sleep(window))
        });
        while timer.as_mut().poll(cx).is_ready() {
            if self.written < self.min_bytes {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the answer is read too slowly"));
            }
            self.written = 0;
            timer.as_mut().reset(Instant::now() + window);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Ready(written) => {
                self.written = self.written.saturating_add(*written.as_ref().unwrap_or(&0) as u64);
                // All of it went at once: nobody is waited for. What goes in pieces goes on to be timed.
                if written.as_ref().is_ok_and(|written| *written == buf.len()) {
                    self.timer = None;
                }
                Poll::Ready(written)
            }
            Poll::Pending => Poll::Ready(Err(ready!(self.waits(cx)))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => Poll::Ready(Err(ready!(self.waits(cx)))),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Ready(closed) => Poll::Ready(closed),
            Poll::Pending => Poll::Ready(Err(ready!(self.waits(cx)))),
        }
    }
}

/// The body of an answer, in pieces.
#[derive(Default)]
pub(super) struct Pieces {
    left: Bytes,
    /// The leave to send it, given back with the last piece.
    _leave: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    pub(super) fn new(whole: Bytes, leave: Option<OwnedSemaphorePermit>) -> Self {
        Self { left: whole, _leave: leave }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let piece = match self.left.len() > HTTP_PIECE_BYTES {
            // Copied: a piece that nobody reads must not keep the whole block in memory.
            true => Bytes::copy_from_slice(&self.left.split_to(HTTP_PIECE_BYTES)),
            false => Bytes::copy_from_slice(&std::mem::take(&mut self.left)),
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
