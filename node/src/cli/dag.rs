//! `dag put|get|stat|import|export`: blocks, statistics, CAR.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use cid::Cid;
use dagmesh_core::limits;

use super::{
    Backend, Context, Failure, Outcome, absolute, cid, existing,
    files::refuse_terminal,
    output::{count, size},
    progress::Bar,
};
use crate::{
    api::Result,
    error::NodeError,
    types::{
        BlockPut, CarImported, CidRequest, DagGetRequest, DagImportRequest, DagPutRequest, DagStat, DataFormat,
        HashName,
    },
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Stores one block, of a file or of standard input.
    Put {
        /// File; standard input where absent or `-`.
        file: Option<PathBuf>,
        /// How the input is written.
        #[arg(long, value_enum, default_value = "dag-json")]
        input: DataFormat,
        /// How the block is stored.
        #[arg(long, value_enum, default_value = "dag-cbor")]
        codec: DataFormat,
        /// Its hash.
        #[arg(long, value_enum, default_value = "sha2-256")]
        hash: HashName,
    },
    /// Prints one block.
    Get {
        /// Which.
        #[arg(value_parser = cid)]
        cid: Cid,
        /// Written how; as it is stored where absent.
        #[arg(long, value_enum)]
        format: Option<DataFormat>,
    },
    /// Counts the blocks, bytes and levels of a DAG.
    Stat {
        /// Its root.
        #[arg(value_parser = cid)]
        cid: Cid,
    },
    /// Takes the blocks of a CAR file.
    Import {
        /// The file.
        file: PathBuf,
    },
    /// Writes a DAG as a CAR.
    Export {
        /// Its root.
        #[arg(value_parser = cid)]
        cid: Cid,
        /// File to write; standard output where absent.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Put { file, input, codec, hash } => {
            let ask = DagPutRequest { input, codec, hash, data: read_block(file.as_deref())? };
            let put: BlockPut = context.client()?.call("dag/put", &ask).await?;
            context.output.essential(&put, |put| put.cid.to_string(), |put| format!("{}  {}", put.cid, size(put.bytes)))
        }
        Command::Get { cid, format } => {
            if format != Some(DataFormat::DagJson) {
                refuse_terminal(context, "a block")?;
            }
            let client = context.client()?;
            let output = &mut context.output;
            client.octets("dag/get", &DagGetRequest { cid, output: format }, |piece| output.bytes(piece)).await?;
            Ok(context.output.streams.out.flush()?)
        }
        Command::Stat { cid } => {
            let client = context.client()?;
            let ask = CidRequest { cid };
            let stat: DagStat = client.call_watched("dag/stat", &ask, &mut Bar::new(&context.output)).await?;
            context.output.result(&stat, |stat| {
                let missing = match stat.missing {
                    0 => String::new(),
                    n => format!(", {} not held", count(n, "block")),
                };
                format!("{}, {}, depth {}{missing}", count(stat.blocks, "block"), size(stat.bytes), stat.depth)
            })
        }
        Command::Import { file } => {
            let ask = DagImportRequest { path: existing(&file)? };
            let client = context.client()?;
            let car: CarImported = client.call_watched("dag/import", &ask, &mut Bar::new(&context.output)).await?;
            context.output.result(&car, |car| {
                let roots = car.roots.iter().map(|root| format!("root  {root}\n")).collect::<String>();
                format!("{roots}{}, {}, {} new", count(car.blocks, "block"), size(car.bytes), car.new_blocks)
            })
        }
        Command::Export { cid, output } => export(context, cid, output.as_deref()).await,
    }
}

/// Writes to a file beside the one that is asked for and moves it there when all has come, so that nobody takes half
/// a CAR for a whole one.
async fn export<B: Backend>(context: &mut Context<'_, B>, cid: Cid, output: Option<&Path>) -> Outcome {
    let Some(path) = output else {
        refuse_terminal(context, "a CAR")?;
        let client = context.client()?;
        let output = &mut context.output;
        client.octets("dag/export", &CidRequest { cid }, |piece| output.bytes(piece)).await?;
        return Ok(context.output.streams.out.flush()?);
    };
    let path = absolute(path)?;
    let failed = |error: std::io::Error| NodeError::file("write", &path, &error);
    let client = context.client()?;
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(&path)).map_err(failed)?;
    let mut bytes = 0;
    client
        .octets("dag/export", &CidRequest { cid }, |piece| {
            bytes += piece.len() as u64;
            file.write_all(piece).map_err(|error| Failure::from(failed(error)))
        })
        .await?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    let done = serde_json::json!({ "cid": cid.to_string(), "path": path, "bytes": bytes });
    context.output.result(&done, |_| format!("{}  {}", path.display(), size(bytes)))
}

/// At most one block's worth of bytes: more could never be stored.
fn read_block(file: Option<&Path>) -> Result<Vec<u8>> {
    let file = file.filter(|file| *file != Path::new("-"));
    let name = file.unwrap_or(Path::new("standard input"));
    let failed = |error: std::io::Error| NodeError::file("read", name, &error);
    let max = limits::MAX_BLOCK_BYTES;
    let mut data = Vec::new();
    match file {
        Some(path) => std::fs::File::open(path).map_err(failed)?.take(max as u64 + 1).read_to_end(&mut data),
        None => std::io::stdin().lock().take(max as u64 + 1).read_to_end(&mut data),
    }
    .map_err(failed)?;
    if data.len() > max {
        return Err(NodeError::usage(format!(
            "{} has more than the {max} bytes that a block may have; `dagmesh add` takes files of any size",
            name.display()
        )));
    }
    Ok(data)
}
