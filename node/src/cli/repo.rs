//! `gc`, `repo verify`, `repo stat`: the store, with or without a daemon.

use std::path::Path;

use cid::Cid;
use serde::de::DeserializeOwned;

use super::{
    Backend, Context, Outcome, offline,
    output::{count, fields, size},
    progress::Bar,
};
use crate::{
    api::{ProgressSink, Result},
    cli::client::Watcher,
    error::NodeError,
    store::Store,
    types::{Done, GcReport, GcRequest, RepoStat, VerifyReport},
    upkeep,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Removes blocks that nothing refers to.
    Gc {
        /// Says what would be removed, and removes nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// The store on disk.
    #[command(subcommand)]
    Repo(Repo),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Repo {
    /// Hashes every block again; exit code 7 where one fails.
    Verify,
    /// Blocks, bytes, disk.
    Stat,
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Gc { dry_run } => {
            let ask = GcRequest { dry_run };
            let report: GcReport =
                on_either(context, "gc", ask, move |store, _, sink| upkeep::gc(store, &[], ask, sink)).await?;
            context.output.result(&report, |report| {
                let (blocks, bytes) = (count(report.removed, "block"), size(report.bytes));
                match report.dry_run {
                    true => format!("would remove {blocks} ({bytes})"),
                    false => format!("removed {blocks} ({bytes}), kept {}", report.kept),
                }
            })
        }
        Command::Repo(Repo::Verify) => {
            let report: VerifyReport =
                on_either(context, "repo/verify", Done {}, |store, _, sink| upkeep::verify(store, sink)).await?;
            context.output.result(&report, |report| {
                let sound = format!("checked {} ({})", count(report.checked, "block"), size(report.bytes));
                let named =
                    |what: &str, cids: &[Cid]| cids.iter().map(|cid| format!("\n{what}  {cid}")).collect::<String>();
                format!("{sound}{}{}", named("damaged", &report.damaged_cids), named("missing", &report.missing_cids))
            })?;
            if report.damaged + report.missing == 0 {
                return Ok(());
            }
            Err(NodeError::verification(format!(
                "{} did not match and were put aside, {} that something needs are not held; a sync that asks for \
                 them fetches them again",
                count(report.damaged, "block"),
                count(report.missing, "block")
            ))
            .into())
        }
        Command::Repo(Repo::Stat) => {
            let stat: RepoStat =
                on_either(context, "repo/stat", Done {}, |store, dir, _| Ok(upkeep::stat(store, dir))).await?;
            context.output.result(&stat, |stat| {
                fields(&[
                    ("store", stat.path.display().to_string()),
                    ("blocks", stat.blocks.to_string()),
                    ("bytes", size(stat.bytes)),
                    ("on disk", size(stat.disk_bytes)),
                    ("feeds", format!("{} own, {} followed", stat.feeds, stat.follows)),
                    ("put aside", count(stat.quarantined, "damaged block")),
                ])
            })
        }
    }
}

/// Asks the daemon where one runs, else works on the store itself.
async fn on_either<B: Backend, T: DeserializeOwned + Send + 'static>(
    context: &mut Context<'_, B>,
    command: &str,
    ask: impl serde::Serialize,
    work: impl FnOnce(&Store, &Path, &ProgressSink) -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut bar = Bar::new(&context.output);
    if let Some(client) = offline::live(context).await? {
        return client.call_watched(command, &ask, &mut bar).await;
    }
    let (sink, mut reports) = ProgressSink::channel();
    let mut working = std::pin::pin!(offline::on_store(context, move |store, dir| work(store, dir, &sink)));
    loop {
        tokio::select! {
            done = &mut working => return done,
            Some(report) = reports.recv() => bar.progress(report),
        }
    }
}
