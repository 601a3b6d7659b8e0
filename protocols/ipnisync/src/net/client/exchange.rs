//! One request and its answer, redirects included.

use std::{
    error::Error as _,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use dagmesh_core::limits::{HTTP_PIECE_BYTES, MAX_HTTP_PROTOCOLS_BYTES, MAX_HTTP_REASON_BYTES, MAX_IPNI_REDIRECTS};
use futures::future::{self, Either};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Body, Incoming},
    header::{
        ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION,
        USER_AGENT,
    },
};
use hyper_util::rt::TokioIo;
use libp2p::PeerId;
use libp2p_stream::{Control, OpenStreamError};
use tokio::time::timeout;
use tokio_util::compat::FuturesAsyncReadCompatExt;
use url::Url;

use super::{
    connect::{self, Connector},
    pool::{Origin, Pool, Sender},
    stream::OneRequest,
};
use crate::net::{
    HTTP, JSON, KIND_HEADER, Kind, NetError, Pace,
    addr::Family,
    pace::{Spread, retry_after},
};

/// Waits before a stream that died without an answer is opened again. `libp2p_stream` hands streams over one at a time
/// and drops those that come while one waits, so a healthy peer drops some of those that reach it at once.
const REOPEN_MS: [u64; 6] = [10, 40, 160, 320, 640, 640];

/// Over what a request goes.
#[derive(Debug, Clone)]
pub(super) enum Route {
    Tcp { dial: Option<String>, family: Family, trusted: bool },
    Stream(PeerId),
}

impl Route {
    /// Over TCP to wherever a name leads: the operator named it.
    pub(super) fn trusted() -> Self {
        Self::Tcp { dial: None, family: Family::Any, trusted: true }
    }
}

/// What is asked.
pub(super) struct Ask {
    method: Method,
    header: Option<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// The cap of what is asked for.
    max: usize,
}

impl Ask {
    pub(super) fn get(kind: Option<Kind>, max: usize) -> Self {
        let value = |kind: Kind| (HeaderName::from_static(KIND_HEADER), HeaderValue::from_static(kind.as_str()));
        Self { method: Method::GET, header: kind.map(value), body: Bytes::new(), max }
    }

    /// For the document that says which protocol is served where.
    pub(super) fn protocols() -> Self {
        let accept = (ACCEPT, HeaderValue::from_static(JSON));
        Self { method: Method::GET, header: Some(accept), body: Bytes::new(), max: MAX_HTTP_PROTOCOLS_BYTES }
    }

    pub(super) fn put(media_type: &'static str, body: Bytes) -> Self {
        let content_type = (CONTENT_TYPE, HeaderValue::from_static(media_type));
        Self { method: Method::PUT, header: Some(content_type), body, max: HTTP_PIECE_BYTES }
    }
}

/// What came back.
pub(super) struct Answer {
    /// Where it came from, for people.
    pub(super) at: String,
    pub(super) status: u16,
    pub(super) body: Bytes,
    retry_after: Option<Duration>,
    location: Option<String>,
}

impl Answer {
    /// The answer as the error that it is.
    pub(super) fn refusal(self) -> NetError {
        let text = self.body.get(..MAX_HTTP_REASON_BYTES).unwrap_or(&self.body);
        let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
        let reason = if text.trim().is_empty() { text } else { format!(": {}", text.trim()) };
        NetError::Status { at: self.at, status: self.status, reason, retry_after: self.retry_after }
    }
}

/// Makes requests.
pub(super) struct Exchange {
    connector: Connector,
    pool: Arc<Pool>,
    streams: Option<Control>,
    user_agent: HeaderValue,
    pace: Pace,
    spread: Spread,
}

impl Exchange {
    pub(super) fn new(connector: Connector, streams: Option<Control>, user_agent: HeaderValue, pace: Pace) -> Self {
        Self { connector, pool: Pool::new(pace.idle), streams, user_agent, pace, spread: Spread::default() }
    }

    pub(super) fn has_streams(&self) -> bool {
        self.streams.is_some()
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Makes a request and follows its redirects, at most [`MAX_IPNI_REDIRECTS`] and never from HTTPS to HTTP. Each
    /// target is looked at as the first one was. The answer's status can be any other.
    pub(super) async fn ask(&self, mut route: Route, mut url: Url, ask: &Ask) -> Result<Answer, NetError> {
        for _ in 0..=MAX_IPNI_REDIRECTS {
            let answer = self.once(&route, &url, ask).await?;
            let follow = match answer.status {
                301..=303 => ask.method == Method::GET,
                307 | 308 => true,
                _ => false,
            };
            let Some(location) = answer.location.as_deref().filter(|_| follow) else { return Ok(answer) };
            let refused = |why: &str| NetError::Redirect {
                at: answer.at.clone(),
                reason: format!("to {:?}: {why}", location.chars().take(200).collect::<String>()),
            };
            let next = url.join(location).map_err(|error| refused(&error.to_string()))?;
            if !matches!(next.scheme(), "http" | "https") {
                return Err(refused("that is not spoken here"));
            }
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(refused("what began with TLS does not go on without"));
            }
            if url.origin() != next.origin() {
                match route {
                    Route::Stream(_) => return Err(refused("a stream leads nowhere else")),
                    Route::Tcp { .. } => route = Route::Tcp { dial: None, family: Family::Any, trusted: false },
                }
            }
            url = next;
        }
        Err(NetError::Redirect { at: url.to_string(), reason: format!("more than {MAX_IPNI_REDIRECTS} times") })
    }

    async fn once(&self, route: &Route, url: &Url, ask: &Ask) -> Result<Answer, NetError> {
        let at = match route {
            Route::Tcp { .. } => url.to_string(),
            Route::Stream(peer) => format!("{peer} over libp2p at {}", url.path()),
        };
        match route {
            Route::Stream(peer) => self.over_stream(*peer, url, ask, &at).await,
            Route::Tcp { dial, family, trusted } => {
                let port = url.port_or_known_default().unwrap_or_default();
                let host = url.host_str().unwrap_or_default().to_owned();
                let (family, trusted) = (*family, *trusted);
                let origin = Origin { tls: url.scheme() == "https", host, port, dial: dial.clone(), family, trusted };
                self.over_tcp(origin, url, ask, &at).await
            }
        }
    }

    async fn over_tcp(&self, origin: Origin, url: &Url, ask: &Ask, at: &str) -> Result<Answer, NetError> {
        let host = match url.port() {
            Some(port) => format!("{}:{port}", origin.host),
            None => origin.host.clone(),
        };
        loop {
            let (mut sender, reused) = match self.pool.take(&origin).await {
                Some(sender) => (sender, true),
                None => (self.connector.open(&origin, at).await?, false),
            };
            let request = self.request(ask, url, &host, at)?;
            let response = match self.head_of(&mut sender, request, at).await {
                // The server closed it while it was idle; that says nothing about the request.
                Err(NetError::Lost { .. }) if reused => continue,
                response => response?,
            };
            let (answer, whole) = self.read(response, ask, at).await?;
            if whole {
                self.pool.keep(origin, sender);
            }
            return Ok(answer);
        }
    }

    async fn over_stream(&self, peer: PeerId, url: &Url, ask: &Ask, at: &str) -> Result<Answer, NetError> {
        let mut waits = REOPEN_MS.into_iter();
        loop {
            let stream = self.open_stream(peer, at).await?;
            let io = TokioIo::new(OneRequest::new(stream.compat()));
            let lost = |error: hyper::Error| NetError::Lost { at: at.to_owned(), reason: error.to_string() };
            let (mut sender, connection) = connect::builder().handshake(io).await.map_err(lost)?;
            let mut request = self.request(ask, url, &peer.to_string(), at)?;
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            let exchange = async {
                match self.head_of(&mut sender, request, at).await {
                    Ok(response) => Ok(self.read(response, ask, at).await),
                    Err(error) => Err(error),
                }
            };
            // Driven here and not on a task, so that the stream ends with the request.
            let answered = match future::select(std::pin::pin!(exchange), std::pin::pin!(connection)).await {
                Either::Left((answered, _)) => answered,
                // What it read before it ended waits to be read.
                Either::Right((_, exchange)) => exchange.await,
            };
            match (answered, waits.next()) {
                (Ok(answer), _) => return answer.map(|(answer, _)| answer),
                (Err(NetError::Lost { .. }), Some(wait)) => {
                    tokio::time::sleep(self.spread.lengthen(Duration::from_millis(wait))).await;
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    async fn open_stream(&self, peer: PeerId, at: &str) -> Result<libp2p::Stream, NetError> {
        let unreachable = |reason: String, temporary| NetError::Unreachable { at: at.to_owned(), reason, temporary };
        let Some(mut control) = self.streams.clone() else {
            return Err(unreachable("there is no node of libp2p".to_owned(), false));
        };
        let opened = timeout(self.pace.answer, control.open_stream(peer, HTTP)).await;
        opened.map_err(|_| self.late("stream", at))?.map_err(|error| match error {
            OpenStreamError::UnsupportedProtocol(protocol) => {
                unreachable(format!("the peer does not speak {protocol}"), false)
            }
            OpenStreamError::Io(error) => {
                let temporary = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
                unreachable(error.to_string().trim_end_matches('.').to_owned(), temporary)
            }
            error => unreachable(error.to_string(), false),
        })
    }

    fn request(&self, ask: &Ask, url: &Url, host: &str, at: &str) -> Result<Request<Full<Bytes>>, NetError> {
        let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(target)
            .header(HOST, host)
            .header(USER_AGENT, self.user_agent.clone())
            .header(ACCEPT_ENCODING, "identity");
        if let Some((name, value)) = &ask.header {
            request = request.header(name, value);
        }
        request
            .body(Full::new(ask.body.clone()))
            .map_err(|error| NetError::Url { url: at.to_owned(), reason: error.to_string() })
    }

    /// Sends the request and waits for the head of its answer.
    async fn head_of(
        &self,
        sender: &mut Sender,
        request: Request<Full<Bytes>>,
        at: &str,
    ) -> Result<Response<Incoming>, NetError> {
        let answered = timeout(self.pace.answer, sender.send_request(request)).await;
        answered.map_err(|_| self.late("answer", at))?.map_err(|error| broken(error, at))
    }

    /// Reads an answer's body, and says whether it came to its end.
    async fn read(&self, response: Response<Incoming>, ask: &Ask, at: &str) -> Result<(Answer, bool), NetError> {
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut answer = Answer {
            at: at.to_owned(),
            status,
            body: Bytes::new(),
            retry_after: retry_after(&head.headers),
            location: text(LOCATION),
        };
        if status == 200 && ask.method == Method::GET {
            if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
            {
                return Err(NetError::Encoding { at: at.to_owned(), encoding });
            }
            answer.body = self.body(body, ask.max, at).await?;
            return Ok((answer, true));
        }
        // Of anything else the status says enough; the text, if it can be had, is for people.
        let body = self.body(body, HTTP_PIECE_BYTES, at).await.ok();
        let whole = body.is_some();
        answer.body = body.unwrap_or_default();
        Ok((answer, whole))
    }

    /// Reads a body of at most `max` bytes that comes fast enough.
    async fn body(&self, mut body: Incoming, max: usize, at: &str) -> Result<Bytes, NetError> {
        let too_large = || NetError::TooLarge { at: at.to_owned(), max };
        if body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        let came = AtomicU64::new(0);
        let read = async {
            let mut whole = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|error| broken(error, at))?.into_data() else { continue };
                if whole.len() + data.len() > max {
                    return Err(too_large());
                }
                came.fetch_add(data.len() as u64, Ordering::Relaxed);
                whole.extend_from_slice(&data);
            }
            Ok(whole.freeze())
        };
        let slow = || NetError::TooSlow { at: at.to_owned(), min: self.pace.min_bytes, within: self.pace.window };
        self.pace.watch(&came, read).await.ok_or_else(slow)?
    }

    fn late(&self, what: &'static str, at: &str) -> NetError {
        NetError::Deadline { at: at.to_owned(), what, within: self.pace.answer }
    }
}

/// What a broken connection says about the other side.
fn broken(error: hyper::Error, at: &str) -> NetError {
    let mut reason = error.to_string();
    let source = error.source();
    if let Some(source) = source {
        reason = format!("{reason}: {source}");
    }
    let io = source.and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    let at = at.to_owned();
    match error.is_parse() || matches!(io, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) {
        true => NetError::NoHttp { at, reason },
        false => NetError::Lost { at, reason },
    }
}
