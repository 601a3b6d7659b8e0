//! The command's end of the local API: one request a connection over TCP or a unix socket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::{
    api::Result,
    config::{ApiAddr, Home},
    error::{ErrorKind, NodeError},
    http::{
        ERROR_TRAILER, Token,
        discovery::{Daemon, no_daemon},
    },
    types::Progress,
};

/// How long the daemon's socket may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a watcher is told that time passes.
const TICK: Duration = Duration::from_secs(1);

/// Sees how far a long command is.
pub(crate) trait Watcher: Send {
    /// A report came.
    fn progress(&mut self, progress: Progress);
    /// A second has passed.
    fn tick(&mut self);
}

/// Sees nothing.
impl Watcher for () {
    fn progress(&mut self, _: Progress) {}
    fn tick(&mut self) {}
}

/// The daemon of one home.
#[derive(Debug)]
pub(crate) struct Client {
    home: Home,
    daemon: Daemon,
    token: Token,
}

/// A line of an answer.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<T> {
    Progress(Progress),
    Result(T),
    Error(NodeError),
}

impl Client {
    /// Finds the daemon that runs in `home`, without asking it anything yet.
    pub(crate) fn find(home: &Home) -> Result<Self> {
        let daemon = Daemon::find(home)?;
        let token = Token::load(&home.token_file()).map_err(|error| match error.kind {
            ErrorKind::NotFound => no_daemon(home.root()),
            _ => error,
        })?;
        Ok(Self { home: home.clone(), daemon, token })
    }

    /// Whether somebody answers there.
    pub(crate) async fn is_alive(&self) -> bool {
        self.connect().await.is_ok()
    }

    /// Runs a command to its end.
    pub(crate) async fn call<Q: Serialize, T: DeserializeOwned>(&self, command: &str, ask: &Q) -> Result<T> {
        self.call_watched(command, ask, &mut ()).await
    }

    /// Runs a command to its end and tells `watcher` how far it is.
    pub(crate) async fn call_watched<Q: Serialize, T: DeserializeOwned>(
        &self,
        command: &str,
        ask: &Q,
        watcher: &mut impl Watcher,
    ) -> Result<T> {
        let mut body = None;
        let mut buffer = BytesMut::new();
        let mut ticks = tokio::time::interval(TICK);
        let mut sending = std::pin::pin!(self.send(command, ask));
        loop {
            // One loop for both halves: a long command may be silent before its first line too.
            let piece = tokio::select! {
                response = &mut sending, if body.is_none() => {
                    body = Some(response?.into_body());
                    continue;
                }
                piece = next_piece(&mut body), if body.is_some() => piece,
                _ = ticks.tick() => {
                    watcher.tick();
                    continue;
                }
            };
            let Some(frame) = piece.map_err(|error| self.broken(command, &error))? else { break };
            buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(line) = take_line(&mut buffer) {
                match parse(&line)? {
                    Line::Progress(progress) => watcher.progress(progress),
                    Line::Result(result) => return Ok(result),
                    Line::Error(error) => return Err(error),
                }
            }
        }
        Err(self.broken(command, &"the answer ended early"))
    }

    /// Runs a command that answers one object a line, until it ends or `on_line` gives an error.
    pub(crate) async fn lines<E: From<NodeError>>(
        &self,
        command: &str,
        ask: &impl Serialize,
        mut on_line: impl FnMut(serde_json::Value) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut body = Some(self.send(command, ask).await?.into_body());
        let mut buffer = BytesMut::new();
        while let Some(frame) = next_piece(&mut body).await.map_err(|error| self.broken(command, &error))? {
            buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(line) = take_line(&mut buffer) {
                on_line(parse(&line)?)?;
            }
        }
        Ok(())
    }

    /// Runs a command that answers bytes, and hands each piece to `on_piece`.
    pub(crate) async fn octets<E: From<NodeError>>(
        &self,
        command: &str,
        ask: &impl Serialize,
        mut on_piece: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut body = Some(self.send(command, ask).await?.into_body());
        while let Some(frame) = next_piece(&mut body).await.map_err(|error| self.broken(command, &error))? {
            match frame.into_data() {
                Ok(data) => on_piece(&data)?,
                Err(frame) => {
                    let trailer = frame.trailers_ref().and_then(|trailers| trailers.get(ERROR_TRAILER));
                    if let Some(error) = trailer {
                        return Err(parse::<NodeError>(error.as_bytes())?.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends one request; an answer that is an error becomes one.
    async fn send(&self, command: &str, ask: &impl Serialize) -> Result<Response<Incoming>> {
        let body = serde_json::to_vec(ask).map_err(|error| NodeError::other(format!("{command}: {error}")))?;
        let host = match &self.daemon.api {
            ApiAddr::Tcp(addr) => addr.to_string(),
            ApiAddr::Unix(_) => "localhost".into(),
        };
        let request = Request::post(format!("/api/v1/{command}"))
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::TE, "trailers")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| NodeError::other(format!("{command}: {error}")))?;
        let io = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(|error| self.broken(command, &error))?;
        // Ends with the answer: its errors reach us through the body.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.broken(command, &error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.broken(command, &error))?.to_bytes();
        Err(match serde_json::from_slice::<Line<serde::de::IgnoredAny>>(&body) {
            Ok(Line::Error(error)) => error,
            _ => NodeError::other(format!("what answers on {} is no dagmesh daemon ({status})", self.daemon.api)),
        })
    }

    async fn connect(&self) -> Result<Box<dyn Io>> {
        let connecting = async {
            Ok::<Box<dyn Io>, std::io::Error>(match &self.daemon.api {
                ApiAddr::Tcp(addr) => Box::new(TcpStream::connect(self::reachable(*addr)).await?),
                ApiAddr::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(io)) => Ok(io),
            // Left over from a daemon that was killed.
            Ok(Err(_)) => Err(no_daemon(self.home.root())),
            Err(_) => Err(NodeError::timeout(format!("the daemon on {}", self.daemon.api), CONNECT_TIMEOUT)),
        }
    }

    fn broken(&self, command: &str, error: &dyn std::fmt::Display) -> NodeError {
        NodeError::other(format!(
            "the daemon on {} went away during `{command}` ({error}); ask it with `dagmesh status`",
            self.daemon.api
        ))
    }
}

/// A socket.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A daemon that listens on all addresses is reached over loopback.
fn reachable(mut addr: std::net::SocketAddr) -> std::net::SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    addr
}

async fn next_piece(body: &mut Option<Incoming>) -> std::result::Result<Option<Frame<Bytes>>, hyper::Error> {
    match body {
        Some(body) => body.frame().await.transpose(),
        None => Ok(None),
    }
}

fn take_line(buffer: &mut BytesMut) -> Option<BytesMut> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    Some(buffer.split_to(end + 1))
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    serde_json::from_slice(line).map_err(|error| {
        NodeError::other(format!("the daemon's answer makes no sense ({error}); is it of another version?"))
    })
}
