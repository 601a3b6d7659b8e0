//! What is asked for, and the answer to it.

use std::sync::Arc;

use bytes::Bytes;
use dagmesh_core::limits::{
    HTTP_RETRY_AFTER_SECS, MAX_ANNOUNCEMENT_BYTES, MAX_HTTP_REASON_BYTES, MAX_IPNI_ANNOUNCEMENT_JSON_BYTES,
};
use dagmesh_dag::Codec;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use libp2p::PeerId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Refusal, Shared, io::Pieces};
use crate::{
    net::{ANNOUNCE_PATH, AnnounceBody, BASE_PATH, JSON, OCTETS, OLD_PROTOCOLS_PATH, PROTOCOLS_PATH},
    wire::parse_link,
};

/// The answer to a connection that there is no place for.
pub(super) const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Where which protocol is served.
const PROTOCOLS: &str = r#"{"/ipni/v1/ad":{"path":"/ipni/v1/ad/"}}"#;

type Answer = Response<Pieces>;

/// Answers one request of `peer`, or of somebody over TCP.
pub(super) async fn answer(shared: &Shared, peer: Option<PeerId>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    match path {
        ANNOUNCE_PATH => match *request.method() {
            Method::PUT => announce(shared, peer, request).await,
            _ => not_allowed("PUT"),
        },
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => not_allowed("GET, HEAD"),
        PROTOCOLS_PATH | OLD_PROTOCOLS_PATH => found(JSON, Bytes::from_static(PROTOCOLS.as_bytes()), None),
        _ => match resource(path) {
            Some(_) if !shared.source.allows(peer.as_ref()) => {
                refusal(StatusCode::FORBIDDEN, "this node does not serve you")
            }
            Some("head") => head(shared).await,
            Some(text) => block(shared, text).await,
            None => refusal(StatusCode::NOT_FOUND, "nothing is served here"),
        },
    }
}

/// What `path` names below the protocol's own, or at the root, where the oldest clients look for it.
fn resource(path: &str) -> Option<&str> {
    let below = path.strip_prefix(BASE_PATH).unwrap_or(path).strip_prefix('/')?;
    (!below.is_empty() && !below.contains('/')).then_some(below)
}

async fn head(shared: &Shared) -> Answer {
    let Some(leave) = leave(shared).await else { return busy() };
    match shared.source.head().await {
        Ok(Some(head)) => {
            let mut answer = found(JSON, head, Some(leave));
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            answer
        }
        Ok(None) => status(StatusCode::NO_CONTENT),
        Err(reason) => failed("head", &reason),
    }
}

async fn block(shared: &Shared, text: &str) -> Answer {
    let Ok(cid) = parse_link(text) else { return refusal(StatusCode::BAD_REQUEST, "that is no CID") };
    let Some(leave) = leave(shared).await else { return busy() };
    let media_type = match Codec::try_from(cid.codec()) {
        Ok(Codec::DagJson) => "application/vnd.ipld.dag-json",
        Ok(Codec::DagCbor) => "application/vnd.ipld.dag-cbor",
        _ => OCTETS,
    };
    match shared.source.block(cid).await {
        Ok(Some(block)) => {
            let mut answer = found(media_type, block, Some(leave));
            let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
            answer.headers_mut().insert(CACHE_CONTROL, forever);
            answer
        }
        Ok(None) => refusal(StatusCode::NOT_FOUND, "this node does not have it"),
        Err(reason) => failed("block", &reason),
    }
}

async fn announce(shared: &Shared, peer: Option<PeerId>, request: Request<Incoming>) -> Answer {
    let media_type = request.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let media_type = media_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let (max, of): (_, fn(Bytes) -> AnnounceBody) = match media_type.as_deref() {
        Some(JSON) => (MAX_IPNI_ANNOUNCEMENT_JSON_BYTES, AnnounceBody::Json),
        // As the original has it: whatever does not call itself JSON.
        Some(OCTETS) | None => (MAX_ANNOUNCEMENT_BYTES, AnnounceBody::Cbor),
        Some(_) => return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an announcement is CBOR or JSON"),
    };
    let too_large = || closing(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the announcement is too long"));
    if request.body().size_hint().lower() > max as u64 {
        return too_large();
    }
    let body = match timeout(shared.pace.answer, Limited::new(request.into_body(), max).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => return too_large(),
        Ok(Err(_)) => return closing(refusal(StatusCode::BAD_REQUEST, "the announcement could not be read")),
        Err(_) => return closing(refusal(StatusCode::REQUEST_TIMEOUT, "the announcement takes too long")),
    };
    match shared.source.announced(of(body), peer).await {
        Ok(()) => status(StatusCode::NO_CONTENT),
        Err(Refusal::Malformed(reason)) => refusal(StatusCode::BAD_REQUEST, &reason),
        Err(Refusal::Forbidden(reason)) => refusal(StatusCode::FORBIDDEN, &reason),
        Err(Refusal::Busy) => busy(),
    }
}

/// Leave to read the store and send what was read, for which a request waits a while.
async fn leave(shared: &Shared) -> Option<OwnedSemaphorePermit> {
    let requests: Arc<Semaphore> = Arc::clone(&shared.requests);
    timeout(shared.pace.queue, requests.acquire_owned()).await.ok()?.ok()
}

fn found(media_type: &'static str, body: Bytes, leave: Option<OwnedSemaphorePermit>) -> Answer {
    let mut answer = Response::new(Pieces::new(body, leave));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Strangers' bytes: a browser must not guess what they are.
    let name = HeaderName::from_static("x-content-type-options");
    answer.headers_mut().insert(name, HeaderValue::from_static("nosniff"));
    answer
}

fn refusal(code: StatusCode, reason: &str) -> Answer {
    let text: String = reason.chars().take(MAX_HTTP_REASON_BYTES / 4).chain(['\n']).collect();
    let mut answer = found("text/plain; charset=utf-8", text.into(), None);
    *answer.status_mut() = code;
    answer
}

fn failed(what: &str, reason: &str) -> Answer {
    tracing::warn!(reason, "a {what} could not be served over HTTP");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "it could not be read")
}

fn busy() -> Answer {
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, "too much is asked for at once");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(HTTP_RETRY_AFTER_SECS));
    answer
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    closing(answer)
}

/// What is left of the request is not read.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn status(code: StatusCode) -> Answer {
    let mut answer = Response::new(Pieces::default());
    *answer.status_mut() = code;
    answer
}
