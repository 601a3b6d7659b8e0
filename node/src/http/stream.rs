//! Answers that take their time: NDJSON with progress, events, bytes.

use std::{convert::Infallible, future::Future, pin::Pin};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::routes::error_response;
use crate::{
    api::{ByteStream, Result},
    error::NodeError,
    types::Progress,
};

/// Trailer that carries the error of a stream of bytes which had begun well.
pub(crate) const ERROR_TRAILER: HeaderName = HeaderName::from_static("dagmesh-error");
const NDJSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
const OCTETS: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));

/// A line of a long answer.
enum Line<T> {
    Progress(Progress),
    Result(T),
    Error(NodeError),
}

impl<T: Serialize> Line<T> {
    fn to_bytes(&self) -> Bytes {
        let value = match self {
            Self::Progress(progress) => json!({ "progress": progress }),
            Self::Result(result) => json!({ "result": result }),
            Self::Error(error) => json!({ "error": error }),
        };
        Bytes::from(format!("{value}\n"))
    }
}

/// Runs `work`, one line a report, the last one its result. Dropping the response drops `work`.
pub(super) async fn with_progress<T: Serialize + Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    progress: mpsc::Receiver<Progress>,
) -> Response {
    let mut lines = Box::pin(lines(work, progress));
    match lines.next().await {
        // Nothing has been said yet: the status can still tell what is wrong.
        Some(Line::Error(error)) => error_response(&error),
        first => {
            let lines = stream::iter(first).chain(lines).map(|line| Ok::<_, Infallible>(line.to_bytes()));
            ([NDJSON], Body::from_stream(lines)).into_response()
        }
    }
}

fn lines<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    progress: mpsc::Receiver<Progress>,
) -> impl Stream<Item = Line<T>> + Send {
    type Work<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;
    let work: Work<T> = Box::pin(work);
    stream::unfold((Some(work), progress), async |(work, mut progress)| {
        let mut work = work?;
        // `recv` gives none at once where the work dropped its sink; then only the work is left to wait for.
        let line = tokio::select! {
            biased;
            Some(report) = progress.recv() => Line::Progress(report),
            done = &mut work => match done {
                Ok(result) => Line::Result(result),
                Err(error) => Line::Error(error),
            },
        };
        let work = matches!(line, Line::Progress(_)).then_some(work);
        Some((line, (work, progress)))
    })
}

/// One event a line, until the node stops. Each line has a time: the event's own, or that at which it was written.
pub(super) fn events<T: Serialize>(
    events: impl Stream<Item = T> + Send + 'static,
    stopping: CancellationToken,
) -> Response {
    let lines = events.take_until(stopping.cancelled_owned()).map(|event| {
        let mut value = json!(event);
        if let Some(object) = value.as_object_mut() {
            object.entry("time").or_insert_with(|| json!(unix_ms()));
        }
        Ok::<_, Infallible>(Bytes::from(format!("{value}\n")))
    });
    ([NDJSON], Body::from_stream(lines)).into_response()
}

/// Bytes as they come. An error before the first has its status; a later one goes into a trailer where the client
/// takes trailers, and else cuts the connection, so that nobody takes half for all.
pub(super) async fn octets(mut bytes: ByteStream, headers: &HeaderMap) -> Response {
    let first = match bytes.next().await {
        Some(Err(error)) => return error_response(&error),
        first => first,
    };
    let trailers = headers.get(header::TE).is_some_and(|value| value.as_bytes() == b"trailers");
    let frames = stream::iter(first).chain(bytes).map(move |piece| match piece {
        Ok(piece) => Ok(Frame::data(piece)),
        Err(error) if trailers => Ok(Frame::trailers(trailer(&error))),
        Err(error) => Err(error),
    });
    // What follows an error is not sent.
    let frames = frames.scan(false, |ended, frame| {
        let over = *ended;
        *ended = !matches!(&frame, Ok(frame) if frame.is_data());
        std::future::ready((!over).then_some(frame))
    });
    let named = (header::TRAILER, HeaderValue::from(ERROR_TRAILER));
    ([OCTETS, named], Body::new(StreamBody::new(frames))).into_response()
}

/// The whole of a short answer.
pub(super) fn once(bytes: Bytes) -> ByteStream {
    Box::pin(stream::iter([Ok(bytes)]))
}

fn trailer(error: &NodeError) -> HeaderMap {
    // JSON escapes control characters, so its bytes always fit a header.
    let value = serde_json::to_vec(error).ok().and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
    value.map(|value| (ERROR_TRAILER, value)).into_iter().collect()
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
