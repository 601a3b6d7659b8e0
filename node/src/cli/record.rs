//! `record`: signed records in the DHT.

use std::{collections::BTreeMap, time::Duration};

use dagmesh_core::limits::{
    DEFAULT_RECORD_REPLICAS, MAX_RECORD_LIFETIME_MS, MAX_RECORD_PEERS, MAX_RECORD_VALUE_BYTES, RECORD_QUORUM,
    RECORD_REPUBLISH_SECS,
};

use super::{
    Backend, Context, Outcome, input,
    output::{clock, count, fields, size, table, visible},
};
use crate::{
    api::Result,
    error::NodeError,
    types::{
        KeyName, RecordAnswers, RecordFound, RecordGetRequest, RecordHeld, RecordListRequest, RecordPut, RecordPutDone,
        RecordPutRequest, RecordTarget,
    },
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Signs a record with the next number, keeps it, and puts it to the nodes closest to its key.
    ///
    /// It is put again from time to time while it is valid and this node runs, after a restart too.
    Put {
        /// Under which name: 1 to 136 bytes.
        name: String,
        /// What: at most 8 KiB. @FILE reads a file, @- standard input; a text that begins with @ is written @@...
        #[arg(value_name = "VALUE|@FILE", allow_hyphen_values = true)]
        value: String,
        /// How long it is valid: 1s to 30d.
        #[arg(long, value_name = "TIME", value_parser = expires, default_value = "7d")]
        expires: Duration,
        /// How many nodes shall hold it: 1 to 64.
        #[arg(long, value_name = "N", value_parser = peers, default_value_t = DEFAULT_RECORD_REPLICAS)]
        replicas: usize,
        /// A piece of metadata; at most 16.
        #[arg(long, value_name = "KEY=TEXT", value_parser = piece)]
        meta: Vec<(String, String)>,
        /// Signs with this named key instead of the node's own (`dagmesh key ls`).
        #[arg(long, value_name = "NAME")]
        key: Option<KeyName>,
    },
    /// Prints the newest record: of what this node holds, and what the nodes closest to its key say.
    ///
    /// --quiet writes its value alone, byte for byte.
    Get {
        /// Which: its key, as `put` prints it, or PUBLICKEY/NAME.
        ///
        /// PUBLICKEY is the owner's peer id or IPNS name where that holds the key, as those of Ed25519 (12D3Koo...,
        /// k51...) and secp256k1 (16Uiu2...) do; else the public key in libp2p's protobuf in any multibase, as `key ls
        /// --json` prints it.
        #[arg(value_name = "KEY")]
        target: RecordTarget,
        /// How many valid ones are waited for, of those that are asked: 1 to 64.
        #[arg(long, value_name = "N", value_parser = peers, default_value_t = RECORD_QUORUM)]
        quorum: usize,
    },
    /// Lists the records that this node holds: its own, and those it keeps for others.
    Ls {
        /// Its own alone.
        #[arg(long)]
        own: bool,
    },
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Put { name, value, expires, replicas, meta, key } => {
            let (value, meta) = (value_of(value).await?, meta_of(meta)?);
            let ask = RecordPutRequest { key, record: RecordPut { name, value, lifetime: expires, replicas, meta } };
            let done: RecordPutDone = context.client()?.call("record/put", &ask).await?;
            note_incomplete(context, &done);
            context.output.essential(&done, |done| RecordTarget::key_text(&done.key), |done| fields(&put_fields(done)))
        }
        Command::Get { target, quorum } => {
            let ask = RecordGetRequest { target, quorum: Some(quorum) };
            let found: RecordFound = context.client()?.call("record/get", &ask).await?;
            if context.output.quiet && !context.output.json {
                context.output.bytes(&found.value)?;
                return Ok(context.output.streams.out.flush()?);
            }
            context.output.result(&found, found_text)
        }
        Command::Ls { own } => {
            let held: Vec<RecordHeld> = context.client()?.call("record/list", &RecordListRequest { own }).await?;
            context.output.result(&held, |held| held_text(held, own))
        }
    }
}

fn expires(text: &str) -> std::result::Result<Duration, String> {
    input::time(text, Duration::from_secs(1)..=Duration::from_millis(MAX_RECORD_LIFETIME_MS))
}

/// Reads a number of nodes off the command line.
pub(super) fn peers(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_RECORD_PEERS).contains(number));
    number.ok_or_else(|| format!("a number from 1 to {MAX_RECORD_PEERS} is wanted"))
}

fn piece(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=TEXT is wanted")?;
    if key.is_empty() { Err("its key is empty".into()) } else { Ok((key.to_owned(), value.to_owned())) }
}

fn meta_of(pieces: Vec<(String, String)>) -> Result<BTreeMap<String, String>> {
    let mut meta = BTreeMap::new();
    for (key, value) in pieces {
        if let Some(other) = meta.insert(key.clone(), value) {
            let text = format!("the metadata {} is given twice, once as {:?}", visible(&key), visible(&other));
            return Err(NodeError::usage(text));
        }
    }
    Ok(meta)
}

async fn value_of(value: String) -> Result<Vec<u8>> {
    let what = "the value of the record";
    let max = MAX_RECORD_VALUE_BYTES;
    match value.strip_prefix('@') {
        Some(text) if !text.starts_with('@') => input::read(text, max, what).await,
        text => {
            let text = text.unwrap_or(&value).as_bytes().to_vec();
            if text.len() > max { Err(NodeError::usage(format!("{what} has more than {max} bytes"))) } else { Ok(text) }
        }
    }
}

/// Tells a person what becomes of a record that fewer nodes hold than were wanted.
pub(super) fn note_incomplete<B>(context: &mut Context<'_, B>, done: &RecordPutDone) {
    if !done.complete {
        let again = input::written(Duration::from_secs(RECORD_REPUBLISH_SECS));
        let (held, wanted) = (done.replicas, done.wanted);
        context.output.note(format!("{held} of {wanted} wanted nodes hold it; it is put again about every {again}"));
    }
}

/// What came of a put.
pub(super) fn put_fields(done: &RecordPutDone) -> Vec<(&'static str, String)> {
    let nodes = count(done.wanted as u64, "wanted node");
    let mut lines = vec![
        ("key", RecordTarget::key_text(&done.key)),
        ("number", done.sequence.to_string()),
        ("held by", format!("{} of {nodes}; {} asked", done.replicas, done.asked)),
        ("expires", clock(done.expires_ms)),
    ];
    lines.extend(
        done.refused.iter().map(|refused| ("refused", format!("{}: {}", refused.peer, visible(&refused.reason)))),
    );
    lines
}

/// Who had what.
pub(super) fn answers_text(answers: &RecordAnswers) -> String {
    let &RecordAnswers { holders, stale, absent, invalid, asked, wanted, corrected, .. } = answers;
    let mut text = format!("{holders} of {} that were asked", count(asked as u64, "node"));
    for (number, what) in [(stale, "had an older one"), (absent, "had none"), (invalid, "had one that does not hold")] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    if holders + stale < wanted {
        text += &format!("; {wanted} were wanted");
    }
    if corrected > 0 {
        text += &format!("; {corrected} are given it now");
    }
    text
}

fn found_text(found: &RecordFound) -> String {
    let mut lines = vec![
        ("key", RecordTarget::key_text(&found.key)),
        ("owner", found.owner.to_string()),
        ("name", visible(&found.name)),
        ("number", found.sequence.to_string()),
        ("signed", clock(found.timestamp_ms)),
        ("expires", clock(found.expires_ms)),
        ("found at", answers_text(&found.answers)),
    ];
    lines.extend(found.meta.iter().map(|(key, text)| ("meta", format!("{} = {}", visible(key), visible(text)))));
    let mut below = String::new();
    match std::str::from_utf8(&found.value) {
        Ok(text) if text.lines().count() > 1 => {
            lines.push(("value", format!("{}, below", count(text.lines().count() as u64, "line"))));
            below.extend(text.lines().map(|line| format!("    {}\n", visible(line))));
        }
        Ok(text) => lines.push(("value", visible(text.strip_suffix('\n').unwrap_or(text)))),
        Err(_) => {
            let bytes = size(found.value.len() as u64);
            lines.push(("value", format!("{bytes} that are no text; --quiet writes them, --json has them in base64")));
        }
    }
    fields(&lines) + &below
}

fn held_text(held: &[RecordHeld], own: bool) -> String {
    if held.is_empty() {
        let whose = if own { " of its own" } else { "" };
        return format!("this node holds no record{whose}; `dagmesh record put NAME VALUE` makes one");
    }
    let mut rows = vec![["NUMBER", "EXPIRES", "FROM", "OWNER", "NAME", "KEY"].map(String::from).to_vec()];
    for record in held {
        let from = record.from.map_or_else(|| "us".to_owned(), |peer| peer.to_string());
        let (number, expires) = (record.sequence.to_string(), clock(record.expires_ms));
        let (name, key) = (visible(&record.name), RecordTarget::key_text(&record.key));
        rows.push(vec![number, expires, from, record.owner.to_string(), name, key]);
    }
    table(&rows)
}
