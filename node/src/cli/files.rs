//! `add`, `get`, `cat`, `ls`: files and folders in and out.

use std::{io::Write, path::PathBuf};

use cid::Cid;

use super::{
    Backend, Context, Outcome, absolute, cid, existing,
    output::{count, size, table, visible},
    progress::Bar,
};
use crate::{
    error::{ErrorKind, NodeError},
    types::{AddRequest, Added, CatRequest, CidRequest, DirEntry, EntryKind, GetRequest, Gotten},
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Imports a file or folder as UnixFS.
    Add {
        /// File or folder.
        path: PathBuf,
        /// Also takes what starts with a dot.
        #[arg(long)]
        hidden: bool,
        /// Size of a chunk, in bytes.
        #[arg(long, value_name = "BYTES")]
        chunk_bytes: Option<usize>,
        /// Cuts where the content says so, so that an insertion changes few chunks.
        #[arg(long, conflicts_with = "chunk_bytes")]
        content_defined: bool,
    },
    /// Writes a file or folder to disk.
    Get {
        /// Which.
        #[arg(value_parser = cid)]
        cid: Cid,
        /// Where to; the CID itself where absent.
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
        /// Replaces what stands there already.
        #[arg(long)]
        overwrite: bool,
    },
    /// Prints the content of a file, as it is, with `--json` too.
    Cat {
        /// Which.
        #[arg(value_parser = cid)]
        cid: Cid,
        /// Starts at this byte.
        #[arg(long, default_value_t = 0, value_name = "BYTES")]
        offset: u64,
        /// Prints at most so many bytes.
        #[arg(long, value_name = "BYTES")]
        length: Option<u64>,
    },
    /// Lists a folder.
    Ls {
        /// Which.
        #[arg(value_parser = cid)]
        cid: Cid,
    },
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Add { path, hidden, chunk_bytes, content_defined } => {
            let ask = AddRequest { path: existing(&path)?, hidden, chunk_bytes, content_defined };
            let client = context.client()?;
            let added: Added = client.call_watched("add", &ask, &mut Bar::new(&context.output)).await?;
            for skipped in &added.skipped {
                context.output.note(format!("passed over: {skipped}"));
            }
            context.output.essential(
                &added,
                |added| added.cid.to_string(),
                |added| {
                    let (blocks, files) = (count(added.blocks, "block"), count(added.files, "file"));
                    format!("{}  {files}, {}, {blocks}, {} new", added.cid, size(added.bytes), added.new_blocks)
                },
            )
        }
        Command::Get { cid, output, overwrite } => {
            let output = absolute(&output.unwrap_or_else(|| cid.to_string().into()))?;
            if !overwrite && output.symlink_metadata().is_ok() {
                return Err(NodeError::usage(format!(
                    "{} exists already; name another place with -o, or replace it with --overwrite",
                    output.display()
                ))
                .into());
            }
            if let Some(folder) = output.parent()
                && !folder.is_dir()
            {
                return Err(NodeError::not_found(format!(
                    "cannot write to {}: there is no folder {}",
                    output.display(),
                    folder.display()
                ))
                .into());
            }
            let client = context.client()?;
            let ask = GetRequest { cid, output: output.clone(), overwrite };
            let gotten: Gotten = client.call_watched("get", &ask, &mut Bar::new(&context.output)).await?;
            context.output.result(&gotten, |gotten| {
                format!("{}  {}, {}", output.display(), count(gotten.files, "file"), size(gotten.bytes))
            })
        }
        Command::Cat { cid, offset, length } => {
            let client = context.client()?;
            let output = &mut context.output;
            client.octets("cat", &CatRequest { cid, offset, length }, |piece| output.bytes(piece)).await?;
            Ok(context.output.streams.out.flush()?)
        }
        Command::Ls { cid } => {
            let entries: Vec<DirEntry> = context.client()?.call("ls", &CidRequest { cid }).await?;
            context.output.result(&entries, |entries| {
                let rows = entries.iter().map(|entry| {
                    let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
                    let size = entry.size.map_or("-".into(), size);
                    vec![entry.cid.to_string(), size, format!("{}{slash}", visible(&entry.name))]
                });
                table(&rows.collect::<Vec<_>>())
            })
        }
    }
}

/// Refuses to pour bytes over a person's terminal.
pub(super) fn refuse_terminal<B>(context: &Context<'_, B>, what: &str) -> Result<(), NodeError> {
    if context.output.streams.out_is_terminal {
        let message = format!("{what} is no text; send it elsewhere with -o FILE or `> FILE`");
        return Err(NodeError::new(ErrorKind::Usage, message));
    }
    Ok(())
}
