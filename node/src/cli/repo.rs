//! `gc`, `repo verify`, `repo stat`: the store, with or without a daemon.

use serde::de::DeserializeOwned;

use super::{
    Backend, Context, Outcome, offline,
    offline::OfflineStore,
    output::{count, fields, size},
    progress::Bar,
};
use crate::{
    api::{ProgressSink, Result},
    cli::client::Watcher,
    error::NodeError,
    types::{Done, GcReport, GcRequest, RepoStat, VerifyReport},
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
                on_either(context, "gc", ask, move |store: &B::Store, sink| store.gc(ask, sink)).await?;
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
                on_either(context, "repo/verify", Done {}, |store: &B::Store, sink| store.verify(sink)).await?;
            context.output.result(&report, |report| {
                let sound = format!("checked {} ({})", count(report.checked, "block"), size(report.bytes));
                let damaged = report.damaged_cids.iter().map(|cid| format!("\ndamaged  {cid}")).collect::<String>();
                format!("{sound}{damaged}")
            })?;
            match report.damaged {
                0 => Ok(()),
                n => Err(NodeError::verification(format!(
                    "{} did not match: put aside, and fetched again when a sync asks for it",
                    count(n, "block")
                ))
                .into()),
            }
        }
        Command::Repo(Repo::Stat) => {
            let stat: RepoStat = on_either(context, "repo/stat", Done {}, |store: &B::Store, _| store.stat()).await?;
            context.output.result(&stat, |stat| {
                fields(&[
                    ("store", stat.path.display().to_string()),
                    ("blocks", stat.blocks.to_string()),
                    ("bytes", size(stat.bytes)),
                    ("on disk", size(stat.disk_bytes)),
                    ("free", stat.free_bytes.map_or("unknown".into(), size)),
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
    work: impl FnOnce(&B::Store, &ProgressSink) -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut bar = Bar::new(&context.output);
    if let Some(client) = offline::live(context).await? {
        return client.call_watched(command, &ask, &mut bar).await;
    }
    let (sink, mut reports) = ProgressSink::channel();
    let mut working = std::pin::pin!(offline::on_store(context, move |store| work(store, &sink)));
    loop {
        tokio::select! {
            done = &mut working => return done,
            Some(report) = reports.recv() => bar.progress(report),
        }
    }
}
