//! The command line: one file a command group.
//!
//! `daemon` runs the node; every other command asks it over the local API. [`Backend`] is what the node gives to the
//! commands, so that they are tested without one.

use std::{ffi::OsString, future::Future, io::Write, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use libp2p::identity::Keypair;

use crate::{
    api::{Api, Result},
    config::{Config, Home, Loaded, Sources},
    error::{ErrorKind, NodeError},
};

mod backend;
mod client;
mod config;
mod daemon;
mod dag;
mod demo;
mod feeds;
mod files;
mod follow;
mod group;
mod input;
mod ipni;
mod key;
mod lifecycle;
mod name;
mod offline;
mod output;
mod progress;
mod record;
mod repo;

use client::Client;
use output::Output;

pub use backend::NodeBackend;
pub use daemon::init_logs;
pub use output::{Failure, Outcome, Streams};

/// How long an ended command waits for its threads.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the commands need of the node.
pub trait Backend: Send + Sync + 'static {
    /// A running node.
    type Api: Api;

    /// Starts the node: store open, listening, feeds served. It answers when it can be used.
    ///
    /// Errors: the store is in use or damaged, an address cannot be listened on.
    fn start(&self, start: Start) -> impl Future<Output = Result<Arc<Self::Api>>> + Send;
}

/// What a node is started with.
#[derive(Debug)]
pub struct Start {
    /// Where it keeps its things; the directory exists.
    pub home: Home,
    /// How it behaves.
    pub config: Config,
    /// Who it is.
    pub key: Keypair,
}

/// Keeps content-addressed DAGs in sync between publishers and subscribers.
#[derive(Debug, Parser)]
#[command(name = "dagmesh", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// Directory that holds key, store, config and token.
    #[arg(long, global = true, env = "DAGMESH_HOME", value_name = "DIR", help_heading = "Global")]
    pub(crate) home: Option<PathBuf>,
    /// Config file, above the one in the home directory.
    #[arg(long = "config", global = true, value_name = "FILE", help_heading = "Global")]
    pub(crate) config_file: Option<PathBuf>,
    /// Prints one JSON object, or one a line where it streams.
    #[arg(long, global = true, help_heading = "Global")]
    pub(crate) json: bool,
    /// Prints nothing but what a script needs.
    #[arg(short, long, global = true, help_heading = "Global")]
    pub(crate) quiet: bool,
    /// Draws no progress.
    #[arg(long, global = true, help_heading = "Global")]
    pub(crate) no_progress: bool,
    /// Logs more on stderr; twice for even more.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global")]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made in the life of a process")]
enum Command {
    /// Starts the node; the first time it creates key and store.
    Daemon(daemon::DaemonArgs),
    #[command(flatten)]
    Lifecycle(lifecycle::Command),
    #[command(flatten)]
    Files(files::Command),
    /// Blocks, statistics, CAR files.
    #[command(subcommand)]
    Dag(dag::Command),
    #[command(flatten)]
    Feeds(feeds::Command),
    #[command(flatten)]
    Follow(follow::Command),
    /// Groups: several writers, no leader; every member learns what each of them says.
    #[command(subcommand)]
    Group(group::Command),
    /// Signed records in the DHT: what only their owner can change, and what outlives its connection.
    #[command(subcommand)]
    Record(record::Command),
    /// IPNS names: pointed by their owner, read by everybody.
    #[command(subcommand)]
    Name(name::Command),
    /// Named keys, to sign records and names with.
    #[command(subcommand)]
    Key(key::Command),
    /// The IPNI network: advertisements published, followed, announced.
    #[command(subcommand)]
    Ipni(ipni::Command),
    #[command(flatten)]
    Repo(repo::Command),
    /// A real mesh on loopback: publish a folder, follow it, change it, sync the change.
    Demo(demo::DemoArgs),
    /// The config: what holds, whether it is right, what can stand in it.
    #[command(subcommand)]
    Config(config::Command),
}

/// What a command runs in.
pub(crate) struct Context<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) home: Home,
    pub(crate) global: Global,
    pub(crate) output: Output,
}

impl<B> Context<'_, B> {
    /// The daemon of our home.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::find(&self.home)
    }

    /// The config without flags of its own.
    pub(crate) fn config(&self) -> Result<Loaded> {
        Loaded::load(&Sources::new(Default::default(), self.global.config_file.clone(), &self.home))
    }
}

/// Runs the command line of this process: what `main` does.
pub fn main<B: Backend>(backend: &B) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: cannot start the threads of the program: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(backend, std::env::args_os().collect(), Streams::standard()));
    // Whatever still blocks (a read of standard input, a disk) does not keep the program.
    runtime.shutdown_timeout(PATIENCE);
    ExitCode::from(code)
}

/// Runs one command line, the program's name first, and gives its exit code.
///
/// Cancel safety: dropped, it ends the command; the daemon ends what it was doing for it.
pub async fn run<B: Backend>(backend: &B, args: Vec<OsString>, streams: Streams) -> u8 {
    let mut output = Output { streams, json: false, quiet: false, progress: true };
    let cli = match Cli::command().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return clap_exit(&mut output, &error),
    };
    let Cli { global, command } = cli;
    (output.json, output.quiet, output.progress) = (global.json, global.quiet, !global.no_progress);
    let home = match Home::locate(global.home.as_deref()) {
        Ok(home) => home,
        Err(error) => return output.end(Err(error.into())),
    };
    let mut context = Context { backend, home, global, output };
    // Boxed: what all the commands need together is too much for the stack of a thread that runs several.
    let outcome = match command {
        // These two mind signals themselves: they have nodes to stop in order.
        Command::Daemon(args) => Box::pin(daemon::run(&mut context, args)).await,
        Command::Demo(args) => Box::pin(demo::run(&mut context, args)).await,
        command => tokio::select! {
            outcome = Box::pin(dispatch(&mut context, command)) => outcome,
            _ = tokio::signal::ctrl_c() => Err(NodeError::new(ErrorKind::Interrupted, "interrupted").into()),
        },
    };
    context.output.end(outcome)
}

async fn dispatch<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Daemon(args) => daemon::run(context, args).await,
        Command::Demo(args) => demo::run(context, args).await,
        Command::Lifecycle(command) => lifecycle::run(context, command).await,
        Command::Files(command) => files::run(context, command).await,
        Command::Dag(command) => dag::run(context, command).await,
        Command::Feeds(command) => feeds::run(context, command).await,
        Command::Follow(command) => follow::run(context, command).await,
        Command::Group(command) => group::run(context, command).await,
        Command::Record(command) => record::run(context, command).await,
        Command::Name(command) => name::run(context, command).await,
        Command::Key(command) => key::run(context, command).await,
        Command::Ipni(command) => ipni::run(context, command).await,
        Command::Repo(command) => repo::run(context, command).await,
        Command::Config(command) => config::run(context, command),
    }
}

/// `--help` and `--version` go to stdout, wrong usage to stderr.
fn clap_exit(output: &mut Output, error: &clap::Error) -> u8 {
    let text = error.render();
    let terminal = if error.use_stderr() { output.streams.err_is_terminal } else { output.streams.out_is_terminal };
    let text = if terminal { text.ansi().to_string() } else { text.to_string() };
    if error.use_stderr() {
        let _ = output.streams.err.write_all(text.as_bytes());
        2
    } else {
        let outcome = output.bytes(text.as_bytes());
        output.end(outcome)
    }
}

/// The absolute form of a path that must exist: the daemon has another working directory.
pub(crate) fn existing(path: &std::path::Path) -> Result<PathBuf> {
    std::fs::metadata(path).map_err(|error| NodeError::file("read", path, &error))?;
    absolute(path)
}

/// The absolute form of a path.
pub(crate) fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| NodeError::file("use", path, &error))
}

/// Reads a CID off the command line.
pub(crate) fn cid(text: &str) -> std::result::Result<cid::Cid, String> {
    dagmesh_dag::hash::parse_cid(text).map_err(|error| error.to_string())
}

/// Reads a feed's name off the command line.
pub(crate) fn feed(text: &str) -> std::result::Result<dagmesh_dag::FeedName, String> {
    dagmesh_dag::FeedName::new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
