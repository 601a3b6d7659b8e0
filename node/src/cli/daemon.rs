//! `daemon`: the node, its API, and an end in order.

use std::{io::IsTerminal, sync::Arc, time::Duration};

use dagmesh_core::limits;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Backend, Client, Context, Outcome, Start, output::fields};
use crate::{
    api::{Api, Result},
    config::{ApiAddr, Flags, Loaded, LogConfig, LogFormat, Profile, Sources},
    error::NodeError,
    http::{Bound, Server, Token, discovery::Daemon},
    identity,
};

/// Open files that are asked for: each connection, each table of the store takes one.
pub(super) const OPEN_FILES: u64 = 65_536;

#[derive(Debug, clap::Args)]
pub(crate) struct DaemonArgs {
    /// The set of defaults to start from.
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// Address to listen on; repeat it for more.
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<libp2p::Multiaddr>,
    /// Peer to join the mesh through, with /p2p/<peer> at the end; repeat it for more.
    #[arg(long, value_name = "MULTIADDR")]
    bootstrap: Vec<libp2p::Multiaddr>,
    /// Address to tell others, such as a forwarded port's; repeat it for more.
    #[arg(long, value_name = "MULTIADDR")]
    external: Vec<libp2p::Multiaddr>,
    /// Name of the network whose announcements are heard.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Where the local API listens: ADDRESS:PORT or unix:/path.
    #[arg(long, value_name = "ADDR")]
    api: Option<ApiAddr>,
    /// Serves our chain of the IPNI network over HTTP, and takes announcements: ADDRESS:PORT.
    #[arg(long, value_name = "ADDR")]
    ipni_http: Option<std::net::SocketAddr>,
}

impl DaemonArgs {
    fn flags(self) -> Flags {
        let texts = |addrs: Vec<libp2p::Multiaddr>| addrs.iter().map(ToString::to_string).collect();
        Flags {
            profile: self.profile,
            listen: texts(self.listen),
            bootstrap: texts(self.bootstrap),
            external: texts(self.external),
            network: self.network,
            api: self.api,
            ipni_http: self.ipni_http,
        }
    }
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, args: DaemonArgs) -> Outcome {
    let home = context.home.clone();
    let sources = Sources::new(args.flags(), context.global.config_file.clone(), &home);
    let config = Loaded::load(&sources)?.config;
    init_logs(&config.log, context.global.verbose);
    home.create()?;
    if let Ok(client) = Client::find(&home)
        && client.is_alive().await
    {
        return Err(NodeError::other(format!(
            "a daemon is running in {} already; ask it with `dagmesh status`, or stop it with `dagmesh shutdown`",
            home.root().display()
        ))
        .into());
    }
    let (key, new_key) = identity::load_or_create(&home.key_file())?;
    let token = Token::load_or_create(&home.token_file())?;
    // Before the node: a port that is taken costs nothing yet.
    let bound = Bound::bind(&config.api).await?;
    if let Err(error) = rlimit::increase_nofile_limit(OPEN_FILES) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }

    let mut signals = Signals::new()?;
    let starting = context.backend.start(Start { home: home.clone(), config, key });
    let api = tokio::select! {
        api = starting => api?,
        () = signals.next() => return Err(NodeError::new(crate::ErrorKind::Interrupted, "interrupted").into()),
    };
    let server = bound.serve(Arc::clone(&api), token);
    let daemon = Daemon::here(server.addr().clone());
    let stopping = server.stopping().clone();
    let outcome = async {
        daemon.announce(&home)?;
        ready(context, api.as_ref(), server.addr(), new_key).await?;
        tokio::select! {
            () = signals.next() => tracing::info!("stopping; a second signal ends it at once"),
            () = stopping.cancelled() => tracing::info!("stopping, as asked"),
        }
        Ok(())
    }
    .await;
    let stopped = tokio::select! {
        stopped = stop(api.as_ref(), server) => stopped,
        () = signals.next() => Err(NodeError::new(crate::ErrorKind::Interrupted, "ended at once, as asked")),
    };
    daemon.retract(&home);
    outcome.and(stopped.map_err(Into::into))
}

/// Health first, then the node, then the API; all of it bounded.
async fn stop(api: &impl Api, server: Server) -> Result<()> {
    server.begin_stop();
    let bound = Duration::from_secs(limits::SHUTDOWN_SECS);
    let stopped = match tokio::time::timeout(bound, api.shutdown()).await {
        Ok(stopped) => stopped,
        Err(_) => Err(NodeError::timeout("stopping the node", bound)),
    };
    server.stop().await;
    stopped
}

/// The ready line: scripts wait for it.
async fn ready<B: Backend>(context: &mut Context<'_, B>, node: &impl Api, at: &ApiAddr, new_key: bool) -> Outcome {
    let (identity, status) = (node.id().await?, node.status().await?);
    if context.output.json {
        return context.output.object(&json!({
            "event": "ready",
            "peer_id": identity.peer_id,
            "listen": status.listen,
            "addrs": identity.addrs,
            "api": at,
            "ipni_http": status.ipni_http,
            "version": status.version,
            "new_key": new_key,
        }));
    }
    if context.output.quiet {
        return Ok(());
    }
    let mut lines = vec![("dagmesh", format!("{} is up", status.version)), ("peer id", identity.peer_id.to_string())];
    lines.extend(status.listen.iter().map(|addr| ("listening", addr.to_string())));
    lines.push(("network", format!("{} (profile {})", status.network, status.profile)));
    lines.push(("api", at.to_string()));
    lines.extend(status.ipni_http.iter().map(|url| ("ipni", url.clone())));
    lines.push(("home", context.home.root().display().to_string()));
    context.output.line(fields(&lines))
}

/// SIGINT and SIGTERM, one after the other.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self> {
        let failed = |error| NodeError::other(format!("cannot listen for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// The next signal. Cancel-safe: none is lost.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Logs go to stderr: at the level of the config, one level more for each `-v`. The first call of a process counts.
///
/// A plain level is that of dagmesh itself; libraries then log from `warn` on, since at `info` the store's engine
/// alone writes a line for each of its files.
pub fn init_logs(config: &LogConfig, verbose: u8) {
    let plain = config.level.parse::<tracing::Level>().is_ok();
    let directives = match verbose {
        0 if plain && config.level.eq_ignore_ascii_case("error") => "error".to_owned(),
        // Kademlia warns that it knows nobody at every first start.
        0 if plain => format!("warn,libp2p_kad=error,dagmesh={}", config.level),
        0 => config.level.clone(),
        1 => "warn,dagmesh=debug".to_owned(),
        _ => "debug,dagmesh=trace".to_owned(),
    };
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("warn,dagmesh=info"));
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // An error says that logs are set up already (by an embedding program, or by a test).
    let _ = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
