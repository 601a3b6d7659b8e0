//! `init`, `id`, `status`, `peers`, `connect`, `shutdown`, `completions`, `version`.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;
use libp2p::Multiaddr;
use serde_json::json;

use super::{
    Backend, Cli, Context, Outcome, offline,
    output::{ago, count, duration, fields, size, table, visible},
};
use crate::{
    api::Result,
    error::{ErrorKind, NodeError},
    http::Token,
    identity,
    types::{ConnectRequest, Connected, Done, Identity, PeerInfo, Reach, Status},
};

/// Version of the API's paths and of the names in JSON.
const API_VERSION: u32 = 1;

/// What `init` writes as the user's config: every line a comment, so it changes nothing.
const CONFIG_EXAMPLE: &str = include_str!("config.example.toml");

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Creates home directory, key, token and an example of a config.
    Init,
    /// Peer id and addresses.
    Id,
    /// How the node is doing.
    Status,
    /// Who is connected.
    Peers,
    /// Dials a peer.
    Connect {
        /// Where; ends with /p2p/<peer> where the peer is to be checked.
        addr: Multiaddr,
    },
    /// Stops the daemon.
    Shutdown,
    /// Prints completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Prints the version.
    Version,
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Init => init(context),
        Command::Id => {
            let identity = id(context).await?;
            context.output.essential(
                &identity,
                |identity| identity.peer_id.to_string(),
                |identity| {
                    let mut lines = vec![("peer id", identity.peer_id.to_string())];
                    lines.extend(identity.addrs.iter().map(|addr| ("address", addr.to_string())));
                    fields(&lines)
                },
            )
        }
        Command::Status => {
            let status: Status = context.client()?.call("status", &Done {}).await?;
            context.output.result(&status, status_text)
        }
        Command::Peers => {
            let peers: Vec<PeerInfo> = context.client()?.call("peers", &Done {}).await?;
            context.output.result(&peers, |peers| peers_text(peers))
        }
        Command::Connect { addr } => {
            let connected: Connected = context.client()?.call("connect", &ConnectRequest { addr }).await?;
            context.output.result(&connected, |done| format!("connected with {} at {}", done.peer_id, done.addr))
        }
        Command::Shutdown => {
            let done: Done = context.client()?.call("shutdown", &Done {}).await?;
            context.output.result(&done, |_| "the daemon is stopping".into())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dagmesh", &mut script);
            context.output.bytes(&script)?;
            Ok(context.output.streams.out.flush()?)
        }
        Command::Version => {
            let version = json!({ "name": "dagmesh", "version": env!("CARGO_PKG_VERSION"), "api": API_VERSION });
            if context.output.json {
                context.output.object(&version)
            } else {
                context.output.line(concat!("dagmesh ", env!("CARGO_PKG_VERSION")))
            }
        }
    }
}

/// Creates what `daemon` would create too, and leaves alone what is there.
fn init<B>(context: &mut Context<'_, B>) -> Outcome {
    let home = context.home.clone();
    home.create()?;
    let (key, new_key) = identity::load_or_create(&home.key_file())?;
    Token::load_or_create(&home.token_file())?;
    let config = home.config_file();
    let new_config = !config.exists();
    if new_config {
        let failed = |error| NodeError::file("create", config, &error);
        if let Some(folder) = config.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        std::fs::write(config, CONFIG_EXAMPLE).map_err(failed)?;
    }
    let peer_id = key.public().to_peer_id();
    let made = json!({
        "peer_id": peer_id,
        "home": home.root(),
        "config": config,
        "new_key": new_key,
        "new_config": new_config,
    });
    context.output.result(&made, |_| {
        fields(&[
            ("peer id", format!("{peer_id} ({})", if new_key { "new" } else { "as before" })),
            ("home", home.root().display().to_string()),
            ("config", format!("{} ({})", config.display(), if new_config { "an example" } else { "as before" })),
        ])
    })
}

/// Asks the daemon; without one, the key says who we are, and we are nowhere.
async fn id<B>(context: &Context<'_, B>) -> Result<Identity> {
    if let Some(client) = offline::live(context).await? {
        return client.call("id", &Done {}).await;
    }
    let key = identity::load(&context.home.key_file()).map_err(|error| match error.kind {
        ErrorKind::NotFound => NodeError::not_found(format!(
            "there is no key in {} yet; make one with `dagmesh init`",
            context.home.root().display()
        )),
        _ => error,
    })?;
    Ok(Identity { peer_id: key.public().to_peer_id(), addrs: Vec::new() })
}

fn status_text(status: &Status) -> String {
    let mut lines = vec![
        ("peer id", status.peer_id.to_string()),
        ("version", status.version.clone()),
        ("network", format!("{} (profile {})", status.network, status.profile)),
        ("up for", duration(std::time::Duration::from_millis(status.uptime_ms))),
        ("peers", format!("{}, {} of them on our topic", status.peers, status.topic_peers)),
        ("store", format!("{}, {}", count(status.blocks, "block"), size(status.bytes))),
        ("follows", format!("{}, {} in sync, {} syncing", status.follows, status.in_sync, status.syncing)),
    ];
    lines.extend(status.listen.iter().map(|addr| ("listening", addr.to_string())));
    for address in &status.addresses {
        let reach = match address.reach {
            Reach::Unknown => "not tested yet",
            Reach::Reachable => "reachable",
            Reach::Unreachable => "not reachable",
        };
        let when = address.tested.map(|time| format!(" ({})", ago(time))).unwrap_or_default();
        let advice = address.advice.as_ref().filter(|_| address.reach != Reach::Reachable);
        let advice = advice.map(|advice| format!(": {advice}")).unwrap_or_default();
        lines.push(("address", format!("{} {reach}{when}{advice}", address.addr)));
    }
    for feed in &status.feeds {
        let step = |name: &str, time: Option<u64>| {
            time.map_or_else(|| format!("not {name}"), |time| format!("{name} {}", ago(time)))
        };
        let peers = |time: Option<u64>, word: &str, peers: usize| {
            time.map_or_else(String::new, |_| format!(" {word} {}", count(peers as u64, "peer")))
        };
        lines.push((
            "feed",
            format!(
                "{} at {} ({}): {}, {}{}, {}, {}{}",
                feed.feed,
                feed.seq,
                feed.head,
                step("published", Some(feed.published)),
                step("announced", feed.announced),
                peers(feed.announced, "to", feed.announced_to),
                step("fetched", feed.fetched),
                step("confirmed", feed.confirmed),
                peers(feed.confirmed, "by", feed.confirmed_by),
            ),
        ));
    }
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    fields(&lines)
}

fn peers_text(peers: &[PeerInfo]) -> String {
    if peers.is_empty() {
        return "no peer is connected; join one with `dagmesh connect MULTIADDR`, or start with --bootstrap".into();
    }
    let mut rows = vec![["PEER", "RTT", "AGENT", "ADDRESS"].map(String::from).to_vec()];
    for peer in peers {
        let rtt = peer.rtt_ms.map_or("-".into(), |rtt| format!("{rtt} ms"));
        let agent = peer.agent.clone().unwrap_or_else(|| "-".into());
        let relayed = if peer.relayed { " (relayed)" } else { "" };
        rows.push(vec![peer.peer_id.to_string(), rtt, printable(&agent), format!("{}{relayed}", peer.addr)]);
    }
    table(&rows)
}

/// A stranger's text as a person may see it, cut to a bearable length.
pub(super) fn printable(text: &str) -> String {
    visible(text).chars().take(60).collect()
}
