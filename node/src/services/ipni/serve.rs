//! Serving the own chain: over plain HTTP or HTTPS where that is wanted, and always over streams.

use std::{fs, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use cid::Cid;
use dagmesh_announce::Publishers;
use dagmesh_dag::Blockstore;
use dagmesh_ipnisync::net::{self, AnnounceBody, Refusal, Server, Source};
use futures::{FutureExt, future::BoxFuture};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use tokio::net::TcpListener;

use super::{Ingest, Ipni};
use crate::{
    config::IpniConfig,
    error::{ErrorKind, NodeError},
};

/// A socket that is bound before the node runs, so that a port that is taken costs nothing.
pub(crate) struct Listening {
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    at: ServedAt,
}

/// Where the chain is served over TCP.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServedAt {
    addr: SocketAddr,
    tls: bool,
}

impl Listening {
    /// Binds what the config asks for; `None` where it asks for nothing.
    pub(crate) async fn bind(config: &IpniConfig) -> Result<Option<Self>, NodeError> {
        let Some(addr) = config.http else { return Ok(None) };
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => {
                let read = |path| fs::read(path).map_err(|error| NodeError::file("read", path, &error));
                let tls = net::tls_config(&read(cert)?, &read(key)?);
                Some(tls.map_err(|error| NodeError::usage(format!("ipni.tls_cert, ipni.tls_key: {error}")))?)
            }
            _ => None,
        };
        let failed = |error: std::io::Error| {
            NodeError::new(
                ErrorKind::Error,
                format!("cannot serve the chain on {addr}: {error}; take another address with --ipni-http"),
            )
        };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let at = ServedAt { addr, tls: tls.is_some() };
        Ok(Some(Self { listener, tls, at }))
    }
}

impl ServedAt {
    fn multiaddr(&self) -> Multiaddr {
        let addr = Multiaddr::from(self.addr.ip()).with(Protocol::Tcp(self.addr.port()));
        addr.with(if self.tls { Protocol::Https } else { Protocol::Http })
    }

    fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.addr)
    }
}

impl Ipni {
    /// Serves the own chain until the node stops.
    pub(crate) fn serve(
        &self,
        listening: Option<Listening>,
        ingest: &Ingest,
        allowed: Publishers,
    ) -> Result<(), NodeError> {
        let server = Server::new(Arc::new(Chain { ipni: self.clone(), ingest: ingest.clone(), allowed }));
        let incoming = self.context.swarm.streams().accept(net::HTTP);
        let incoming = incoming.map_err(|error| NodeError::other(format!("a protocol is served twice: {error}")))?;
        let over_streams = server.clone();
        self.context.spawn(async move { over_streams.serve_streams(incoming).await });
        if let Some(listening) = listening {
            let _ = self.http.set(listening.at);
            let stop = self.context.stop.clone();
            // Not ended with the other tasks but by itself, so that answers under way are finished.
            self.context.tasks.spawn(async move {
                server.serve(listening.listener, listening.tls, stop.cancelled_owned()).await;
            });
        }
        Ok(())
    }

    /// Where the own chain is served over HTTP or HTTPS, as a URL.
    pub(crate) fn url(&self) -> Option<String> {
        self.http.get().map(ServedAt::url)
    }

    /// The addresses of HTTP that are told to others: those of the config, else the one listened at, unless that is
    /// "everywhere".
    pub(super) fn http_addrs(&self) -> Vec<Multiaddr> {
        if !self.config.announce.is_empty() {
            return self.config.announce.clone();
        }
        self.http.get().filter(|at| !at.addr.ip().is_unspecified()).map(ServedAt::multiaddr).into_iter().collect()
    }
}

/// What the server asks of the node.
struct Chain {
    ipni: Ipni,
    ingest: Ingest,
    allowed: Publishers,
}

impl Source for Chain {
    fn allows(&self, peer: Option<&PeerId>) -> bool {
        // Nobody says who they are over plain HTTP: whoever keeps a list of peers serves nobody there.
        match peer {
            Some(peer) => self.allowed.allow(peer),
            None => self.allowed == Publishers::Any,
        }
    }

    fn head(&self) -> BoxFuture<'static, Result<Option<Bytes>, String>> {
        let ipni = self.ipni.clone();
        async move { ipni.signed_head().await.map_err(|error| error.to_string()) }.boxed()
    }

    fn block(&self, cid: Cid) -> BoxFuture<'static, Result<Option<Bytes>, String>> {
        let context = self.ipni.context.clone();
        async move {
            let read = context.blocking(move |store| Ok(store.get(&cid)?)).await;
            read.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn announced(&self, body: AnnounceBody, from: Option<PeerId>) -> BoxFuture<'static, Result<(), Refusal>> {
        let taken = self.ingest.http(&body, from);
        futures::future::ready(taken).boxed()
    }
}
