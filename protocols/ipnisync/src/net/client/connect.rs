//! Connections over TCP and TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dagmesh_core::limits::{IPNI_NEXT_ADDR_MS, MAX_HTTP_HEAD_BYTES, MAX_HTTP_HEADERS, MAX_IPNI_NAME_ADDRS};
use futures::{StreamExt, stream::FuturesUnordered};
use futures_rustls::TlsConnector;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    sync::OnceCell,
    time::timeout,
};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use super::pool::{Origin, Sender};
use crate::net::{ConfigError, NetError, Pace};

/// Opens connections.
pub(super) struct Connector {
    /// Which addresses a publisher may name.
    reachable: fn(IpAddr) -> bool,
    extra_roots: Vec<CertificateDer<'static>>,
    /// Made when it is first needed: a system without certificates can still speak HTTP.
    tls: OnceCell<TlsConnector>,
    pace: Pace,
}

impl Connector {
    pub(super) fn new(reachable: fn(IpAddr) -> bool, extra_roots: &[u8], pace: Pace) -> Result<Self, ConfigError> {
        let extra_roots: Result<_, _> = CertificateDer::pem_slice_iter(extra_roots).collect();
        let extra_roots =
            extra_roots.map_err(|error| ConfigError::Pem { what: "extra roots", reason: error.to_string() })?;
        Ok(Self { reachable, extra_roots, tls: OnceCell::new(), pace })
    }

    /// Opens a connection with `origin`. What it leads to is looked at after its name was resolved, and exactly those
    /// addresses are dialled: a name that resolves to something else a moment later gains nothing.
    pub(super) async fn open(&self, origin: &Origin, at: &str) -> Result<Sender, NetError> {
        let deadline = |what| move |_| NetError::Deadline { at: at.to_owned(), what, within: self.pace.connect };
        let addrs = timeout(self.pace.connect, resolve(origin)).await.map_err(deadline("answer from the resolver"))?;
        let failed = |error: io::Error| NetError::Unreachable {
            at: at.to_owned(),
            reason: error.to_string(),
            temporary: matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
            ),
        };
        let addrs = addrs.map_err(failed)?;
        let may_dial = |addr: &&SocketAddr| origin.trusted || (self.reachable)(addr.ip());
        let allowed: Vec<_> = addrs.iter().filter(may_dial).take(MAX_IPNI_NAME_ADDRS).copied().collect();
        if let (true, Some(addr)) = (allowed.is_empty(), addrs.first()) {
            return Err(NetError::NotReachable { at: at.to_owned(), ip: addr.ip() });
        }
        let tcp = timeout(self.pace.connect, dial(allowed)).await.map_err(deadline("connection"))?.map_err(failed)?;
        if !origin.tls {
            return handshake(tcp, at).await;
        }
        let refused = |reason: String| NetError::Unreachable { at: at.to_owned(), reason, temporary: false };
        let name = ServerName::try_from(origin.host.clone()).map_err(|error| refused(error.to_string()))?;
        let tls = self.tls.get_or_try_init(|| self.make_tls()).await.map_err(refused)?;
        let secured = timeout(self.pace.connect, tls.connect(name, tcp.compat())).await;
        let secured = secured.map_err(deadline("end of the TLS handshake"))?;
        handshake(secured.map_err(|error| refused(format!("TLS: {error}")))?.compat(), at).await
    }

    async fn make_tls(&self) -> Result<TlsConnector, String> {
        // It reads the disk.
        let native = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let native = native.map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(native.certs);
        for root in &self.extra_roots {
            roots.add(root.clone()).map_err(|error| format!("an extra root is refused: {error}"))?;
        }
        if roots.is_empty() {
            let reason = native.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(format!("the system has no root certificates{reason}"));
        }
        tracing::debug!(system = added, extra = self.extra_roots.len(), "root certificates are read");
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The addresses of `origin`, at least one.
async fn resolve(origin: &Origin) -> io::Result<Vec<SocketAddr>> {
    let host = origin.dial.as_ref().unwrap_or(&origin.host);
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(vec![SocketAddr::new(ip, origin.port)]);
    }
    let addrs = lookup_host((host.as_str(), origin.port)).await?;
    let addrs: Vec<_> = addrs.filter(|addr| origin.family.takes(addr.ip())).collect();
    match addrs.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        false => Ok(addrs),
    }
}

/// Connects with the first of `addrs` that answers; each has a head start on the next.
async fn dial(addrs: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut dials = FuturesUnordered::new();
    let mut addrs = addrs.into_iter();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    loop {
        match addrs.next() {
            Some(addr) => dials.push(TcpStream::connect(addr)),
            None if dials.is_empty() => return Err(last),
            None => {}
        }
        let head_start = if addrs.len() > 0 { Duration::from_millis(IPNI_NEXT_ADDR_MS) } else { Duration::MAX };
        match timeout(head_start, dials.next()).await {
            Ok(Some(Ok(tcp))) => {
                // A request is one small packet that is waited for.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Some(Err(error))) => last = error,
            Ok(None) | Err(_) => {}
        }
    }
}

/// Speaks HTTP over `io`, on a task of its own that ends with the connection.
async fn handshake(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, at: &str) -> Result<Sender, NetError> {
    let (sender, connection) = builder()
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| NetError::Lost { at: at.to_owned(), reason: error.to_string() })?;
    tokio::spawn(connection);
    Ok(sender)
}

pub(super) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_headers(MAX_HTTP_HEADERS).max_buf_size(MAX_HTTP_HEAD_BYTES);
    builder
}
