//! `name`: IPNS names.

use std::time::Duration;

use dagmesh_core::limits::{DEFAULT_RECORD_REPLICAS, MAX_IPNS_LIFETIME_SECS, RECORD_QUORUM};
use dagmesh_records::IpnsName;

use super::{
    Backend, Context, Outcome, input,
    output::{clock, duration, fields, visible},
    record::{answers_text, note_incomplete, peers, put_fields},
};
use crate::types::{
    KeyName, NamePublish, NamePublishRequest, NameResolveRequest, NameResolved, NameWatchRequest, RecordPutDone,
    RecordTarget, content_path,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Points an IPNS name: signs its record with the next number, keeps it, and puts it to the nodes closest to it.
    ///
    /// It is put again from time to time while it is valid and this node runs, after a restart too; it is not signed
    /// again by itself.
    Publish {
        /// Where it is to point: a CID, /ipfs/CID[/path], or /ipns/NAME[/path].
        #[arg(value_name = "CID|PATH", value_parser = content_path)]
        value: String,
        /// The named key whose name it is; the node's own where absent (`dagmesh key ls`).
        #[arg(long, value_name = "NAME")]
        key: Option<KeyName>,
        /// How long it is valid: 1s to 365d.
        #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "48h")]
        lifetime: Duration,
        /// How long others may answer from a cache: 0s to 365d.
        #[arg(long, value_name = "TIME", value_parser = ttl, default_value = "5m")]
        ttl: Duration,
        /// How many nodes shall hold it: 1 to 64.
        #[arg(long, value_name = "N", value_parser = peers, default_value_t = DEFAULT_RECORD_REPLICAS)]
        replicas: usize,
    },
    /// Prints where an IPNS name points.
    ///
    /// --quiet prints the path alone.
    Resolve {
        /// Which: a CID of a key in any base (k51..., bafz...) or a peer id (12D3Koo..., Qm...), with or without /ipns/.
        name: IpnsName,
        /// Prints it as soon as it is known, then each newer record, until interrupted.
        #[arg(long, conflicts_with = "quorum")]
        stream: bool,
        /// How many valid records are waited for, of those that are asked: 1 to 64.
        #[arg(long, value_name = "N", value_parser = peers, default_value_t = RECORD_QUORUM)]
        quorum: usize,
    },
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Publish { value, key, lifetime, ttl, replicas } => {
            let name = NamePublish { value: value.clone(), lifetime, ttl, replicas };
            let ask = NamePublishRequest { key, name };
            let done: RecordPutDone = context.client()?.call("name/publish", &ask).await?;
            note_incomplete(context, &done);
            context.output.essential(
                &done,
                |done| RecordTarget::key_text(&done.key),
                |done| fields(&[put_fields(done), vec![("points at", visible(&value))]].concat()),
            )
        }
        Command::Resolve { name, stream: false, quorum } => {
            let ask = NameResolveRequest { name, quorum: Some(quorum) };
            let resolved: NameResolved = context.client()?.call("name/resolve", &ask).await?;
            context.output.essential(&resolved, |resolved| visible(&resolved.value), resolved_text)
        }
        Command::Resolve { name, stream: true, .. } => stream(context, NameWatchRequest { name }).await,
    }
}

async fn stream<B: Backend>(context: &mut Context<'_, B>, ask: NameWatchRequest) -> Outcome {
    let client = context.client()?;
    let output = &mut context.output;
    client
        .lines("name/watch", &ask, |line| {
            if output.json {
                return output.object(&line);
            }
            match serde_json::from_value::<NameResolved>(line.clone()) {
                Ok(resolved) if output.quiet => output.line(visible(&resolved.value)),
                Ok(resolved) => output.line(format!("{:<6} {}", resolved.sequence, visible(&resolved.value))),
                // Of a newer daemon.
                Err(_) => output.line(line),
            }
        })
        .await
}

fn lifetime(text: &str) -> Result<Duration, String> {
    input::time(text, Duration::from_secs(1)..=Duration::from_secs(MAX_IPNS_LIFETIME_SECS))
}

fn ttl(text: &str) -> Result<Duration, String> {
    input::time(text, Duration::ZERO..=Duration::from_secs(MAX_IPNS_LIFETIME_SECS))
}

fn resolved_text(resolved: &NameResolved) -> String {
    fields(&[
        ("name", resolved.name.clone()),
        ("points at", visible(&resolved.value)),
        ("number", resolved.sequence.to_string()),
        ("expires", clock(resolved.expires_ms)),
        ("cached for", duration(resolved.ttl)),
        ("found at", answers_text(&resolved.answers)),
    ])
}
