//! The local API: one `POST /api/v1/<command>` a command, JSON in, JSON or NDJSON out.
//!
//! - Short commands answer `{"result": ...}`, or `{"error": {"kind", "message"}}` with a status that fits the kind.
//! - Long ones answer NDJSON: lines `{"progress": ...}`, then one of the two above. An error that comes first of all
//!   has its own status.
//! - `watch`, `group/watch` and `name/watch` answer one event a line until the client goes; `cat`, `dag/get` and `dag/export` answer bytes.
//! - `GET /health` needs no token: 200, or 503 as soon as the node begins to stop.
//!
//! Every other request carries the token of the file `api.token`; [`auth`] says what else is checked. A request whose
//! client goes away is dropped, which cancels its work.

use std::{sync::Arc, time::Duration};

use axum::Router;
use dagmesh_core::limits;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tokio_util::{either::Either, sync::CancellationToken};

use crate::{
    api::Api,
    config::{ApiAddr, ApiConfig},
    error::NodeError,
};

pub mod auth;
pub mod discovery;
mod routes;
mod stream;

pub use auth::Token;
pub(crate) use stream::ERROR_TRAILER;

/// How long open answers may go on after the node has stopped.
const LINGER: Duration = Duration::from_secs(2);

/// The API's socket, bound and not yet served: a port that is taken is found before the node starts.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    addr: ApiAddr,
    config: ApiConfig,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The API, served.
#[derive(Debug)]
pub struct Server {
    addr: ApiAddr,
    stopping: CancellationToken,
    stopped: CancellationToken,
    task: JoinHandle<()>,
}

impl Bound {
    /// Binds the socket that `config` names.
    ///
    /// Errors: the port is taken, the address is not ours, or it can be reached from other machines and
    /// `allow_remote` is not set.
    pub async fn bind(config: &ApiConfig) -> Result<Self, NodeError> {
        let failed = |error: std::io::Error| {
            let advice = if error.kind() == std::io::ErrorKind::AddrInUse {
                "; another daemon may be running there: ask it with `dagmesh status`, or take a free port with \
                 `--api 127.0.0.1:0`"
            } else {
                ""
            };
            NodeError::other(format!("cannot serve the API on {}: {error}{advice}", config.listen))
        };
        let (listener, addr) = match &config.listen {
            ApiAddr::Tcp(addr) => {
                if !addr.ip().is_loopback() && !config.allow_remote {
                    return Err(NodeError::usage(format!(
                        "the API on {addr} could be reached from other machines; take a loopback address, or set \
                         api.allow_remote = true"
                    )));
                }
                let listener = TcpListener::bind(addr).await.map_err(failed)?;
                let addr = listener.local_addr().map_err(failed)?;
                (Listener::Tcp(listener), ApiAddr::Tcp(addr))
            }
            ApiAddr::Unix(path) => {
                // A socket that nobody listens on is left over from a daemon that was killed.
                if path.exists() && tokio::net::UnixStream::connect(path).await.is_err() {
                    std::fs::remove_file(path).map_err(failed)?;
                }
                let listener = UnixListener::bind(path).map_err(failed)?;
                let private = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
                std::fs::set_permissions(path, private).map_err(failed)?;
                (Listener::Unix(listener), ApiAddr::Unix(path.clone()))
            }
        };
        Ok(Self { listener, addr, config: config.clone() })
    }

    /// The address, with the port that was really bound.
    pub fn addr(&self) -> &ApiAddr {
        &self.addr
    }

    /// Serves `api` to whoever has `token`.
    pub fn serve<A: Api>(self, api: Arc<A>, token: Token) -> Server {
        let (stopping, stopped) = (CancellationToken::new(), CancellationToken::new());
        let guard = auth::Guard::new(&self.addr, &self.config, token);
        let router = routes::router(api, guard, stopping.clone());
        let task = tokio::spawn(accept(self.listener, router, stopped.clone()));
        Server { addr: self.addr, stopping, stopped, task }
    }
}

impl Server {
    /// Where it is served.
    pub fn addr(&self) -> &ApiAddr {
        &self.addr
    }

    /// Cancelled as soon as the node begins to stop: by [`begin_stop`](Self::begin_stop), or by the command
    /// `shutdown`.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Turns health red, ends `watch`, and refuses new commands.
    pub fn begin_stop(&self) {
        self.stopping.cancel();
    }

    /// Closes the socket, gives open answers two seconds to end, then cuts them. Not cancel-safe: dropped, it leaves
    /// the task to end by itself.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.stopped.cancel();
        if self.task.await.is_err() {
            tracing::warn!("the API's task ended by a panic");
        }
        if let ApiAddr::Unix(path) = &self.addr {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes connections until `stopped`, then lets those that are open end within [`LINGER`].
async fn accept(listener: Listener, router: Router, stopped: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits::MAX_API_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            () = stopped.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let io = tokio::select! {
            () = stopped.cancelled() => break,
            io = next(&listener) => io,
        };
        let connection = serve(io, router.clone(), stopped.clone());
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = tokio::time::timeout(LINGER, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
}

async fn next(listener: &Listener) -> Either<tokio::net::TcpStream, tokio::net::UnixStream> {
    loop {
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(io, _)| Either::Left(io)),
            Listener::Unix(listener) => listener.accept().await.map(|(io, _)| Either::Right(io)),
        };
        match accepted {
            Ok(io) => return io,
            Err(error) => {
                // Out of file descriptors, most likely; a moment later some are free again.
                tracing::warn!(%error, "the API cannot take a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send, router: Router, stopped: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits::API_HEADER_TIMEOUT_SECS))
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection with the API broke");
    }
}

#[cfg(test)]
mod tests;
