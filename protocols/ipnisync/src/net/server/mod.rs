//! Serving a chain, and taking announcements.

mod io;
mod routes;
mod slots;

use std::{future::Future, io::Write, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits::{
    HTTP_IDLE_SECS, HTTP_LINGER_SECS, HTTP_PIECE_BYTES, MAX_HTTP_CONNECTIONS, MAX_HTTP_CONNECTIONS_PER_SOURCE,
    MAX_HTTP_HEAD_BYTES, MAX_HTTP_HEADERS, MAX_HTTP_REQUESTS, MAX_HTTP_STREAMS, MAX_HTTP_STREAMS_PER_PEER,
};
use futures::{StreamExt, future::BoxFuture};
use futures_rustls::TlsAcceptor;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use libp2p::PeerId;
use libp2p_stream::IncomingStreams;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::{
    compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt},
    sync::CancellationToken,
};

use self::{io::Paced, slots::Slots};
use super::{AnnounceBody, ConfigError, Pace};

/// What a server asks of its node.
pub trait Source: Send + Sync + 'static {
    /// Whether `peer` may fetch from us; over plain HTTP nobody says who they are.
    fn allows(&self, peer: Option<&PeerId>) -> bool;

    /// The encoded signed head; `None` where there is no chain yet.
    fn head(&self) -> BoxFuture<'static, Result<Option<Bytes>, String>>;

    /// The block of `cid` as it is stored; `None` where it is not held, or not to be given away.
    fn block(&self, cid: Cid) -> BoxFuture<'static, Result<Option<Bytes>, String>>;

    /// Somebody announces a head. Its form is for the node to check; its length is within the cap.
    fn announced(&self, body: AnnounceBody, from: Option<PeerId>) -> BoxFuture<'static, Result<(), Refusal>>;
}

/// Why an announcement is not taken. The reason is told to whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It cannot be read: 400.
    #[error("{0}")]
    Malformed(String),
    /// Its publisher is not one that we take announcements of, or none are taken at all: 403.
    #[error("{0}")]
    Forbidden(String),
    /// Not now: 503, with `Retry-After`.
    #[error("too many announcements")]
    Busy,
}

/// Serves what a [`Source`] has. Cheap to clone; its clones share all limits.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn Source>,
    pace: Pace,
    /// Requests that read the store or send what was read.
    requests: Arc<Semaphore>,
    connections: Slots<IpAddr>,
    streams: Slots<PeerId>,
}

impl Server {
    /// A server that serves nothing yet.
    pub fn new(source: Arc<dyn Source>) -> Self {
        let idle = Duration::from_secs(HTTP_IDLE_SECS);
        Self::with_pace(source, Pace { idle, ..Pace::default() })
    }

    /// The same, with other waits than those of the house. `idle` is also how long the head of a request may take.
    pub fn with_pace(source: Arc<dyn Source>, pace: Pace) -> Self {
        let shared = Shared {
            source,
            pace,
            requests: Arc::new(Semaphore::new(MAX_HTTP_REQUESTS)),
            connections: Slots::new(MAX_HTTP_CONNECTIONS, MAX_HTTP_CONNECTIONS_PER_SOURCE),
            streams: Slots::new(MAX_HTTP_STREAMS, MAX_HTTP_STREAMS_PER_PEER),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves HTTP on `listener`, HTTPS where there is `tls`, until `stop`. Answers that are under way then have
    /// [`HTTP_LINGER_SECS`] to end. Whoever has as many connections as it may is told to come again and cut off.
    /// Dropped, it cuts all of its connections.
    pub async fn serve(&self, listener: TcpListener, tls: Option<Arc<ServerConfig>>, stop: impl Future) {
        let tls = tls.map(TlsAcceptor::from);
        let stopped = CancellationToken::new();
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                _ = &mut stop => break,
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let (tcp, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely; a moment later some are free again.
                    tracing::warn!(%error, "no HTTP connection can be taken");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let Some(slot) = self.shared.connections.take(slots::source_of(from.ip())) else {
                tracing::debug!(%from, "too many HTTP connections");
                if tls.is_none() {
                    // An empty socket takes it at once; nobody waits for it.
                    let _ = tcp.into_std().and_then(|mut tcp| tcp.write(routes::FULL));
                }
                continue;
            };
            let (shared, tls, stopped) = (Arc::clone(&self.shared), tls.clone(), stopped.clone());
            connections.spawn(async move {
                if let Err(error) = serve_tcp(shared, tcp, tls, stopped).await {
                    tracing::debug!(%from, error, "an HTTP connection broke");
                }
                drop(slot);
            });
        }
        drop(listener);
        stopped.cancel();
        let linger = Duration::from_secs(HTTP_LINGER_SECS);
        let _ = timeout(linger, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
    }

    /// Serves HTTP on streams of libp2p, one request each, until the Swarm is gone. Streams that are beyond what is
    /// served at once, in all or for one peer, are reset. Dropped, it cuts those that are being served.
    pub async fn serve_streams(&self, mut incoming: IncomingStreams) {
        let mut serves = JoinSet::new();
        loop {
            let (peer, stream) = tokio::select! {
                next = incoming.next() => match next {
                    Some(next) => next,
                    None => break,
                },
                Some(_) = serves.join_next() => continue,
            };
            let Some(slot) = self.shared.streams.take(peer) else {
                tracing::debug!(%peer, "too many HTTP streams");
                continue;
            };
            let shared = Arc::clone(&self.shared);
            serves.spawn(async move {
                if let Err(error) = serve_one(shared, stream.compat(), peer).await {
                    tracing::debug!(%peer, error, "an HTTP stream broke");
                }
                drop(slot);
            });
        }
        while serves.join_next().await.is_some() {}
    }
}

/// What TLS is served with: a chain of certificates, the own one first, and its key, both in PEM.
///
/// # Errors
/// Where one of them is none, or they do not belong together.
pub fn tls_config(cert_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, ConfigError> {
    let pem = |what| move |error: rustls::pki_types::pem::Error| ConfigError::Pem { what, reason: error.to_string() };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert_pem).collect();
    let chain = chain.map_err(pem("the certificates"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(pem("the key"))?;
    if chain.is_empty() {
        return Err(ConfigError::Pem { what: "the certificates", reason: "there is none".to_owned() });
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn serve_tcp(
    shared: Arc<Shared>,
    tcp: TcpStream,
    tls: Option<TlsAcceptor>,
    stopped: CancellationToken,
) -> Result<(), String> {
    // An answer is written at once, and often fits into a packet.
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let io = Paced::new(tcp, &shared.pace);
    let Some(tls) = tls else { return serve_http(shared, io, None, true, stopped).await };
    let secured = tokio::select! {
        secured = timeout(shared.pace.connect, tls.accept(io.compat())) => secured,
        () = stopped.cancelled() => return Ok(()),
    };
    let secured = secured.map_err(|_| "TLS took too long".to_owned())?;
    serve_http(shared, secured.map_err(|error| error.to_string())?.compat(), None, true, stopped).await
}

async fn serve_one(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: PeerId,
) -> Result<(), String> {
    let io = Paced::new(stream, &shared.pace);
    serve_http(shared, io, Some(peer), false, CancellationToken::new()).await
}

async fn serve_http(
    shared: Arc<Shared>,
    io: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: Option<PeerId>,
    keep_alive: bool,
    stopped: CancellationToken,
) -> Result<(), String> {
    // Over a connection the next request may come later; a stream is opened for the one that it carries.
    let patience = if keep_alive { shared.pace.idle } else { shared.pace.connect };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&shared, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_headers(MAX_HTTP_HEADERS)
        .max_header_size(MAX_HTTP_HEAD_BYTES)
        .max_buf_size(HTTP_PIECE_BYTES)
        // go-libp2p closes its side of a stream after the request.
        .half_close(!keep_alive)
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(|error| error.to_string())
}
