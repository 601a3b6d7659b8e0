//! Files and DAGs of the local store: in and out, without the network.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{
    Block, Blockstore, Codec, HashCode,
    car::{self, CarError, CarWriter},
    unixfs::{self, ExportOptions, ImportOptions, Kind, UnixfsError},
    walk::{Found, Walk, WalkConfig, closure},
};
use ipld_core::ipld::Ipld;
use tokio::sync::mpsc;

use super::Context;
use crate::{
    api::{ByteStream, ProgressSink},
    error::{ErrorKind, NodeError},
    store::Pin,
    types::{
        AddRequest, Added, BlockPut, CarImported, CatRequest, DagGetRequest, DagImportRequest, DagPutRequest, DagStat,
        DataFormat, DirEntry, EntryKind, GetRequest, Gotten, HashName, Phase, Progress,
    },
};

/// Pieces of a byte stream that wait for the client.
const STREAM_QUEUE: usize = 8;
/// Bytes of one piece, about.
const PIECE_BYTES: usize = 256 * 1024;
/// Progress is reported once in so many blocks.
const REPORT_EVERY: u64 = 1024;

/// Imports a file or folder and pins it.
pub(crate) async fn add(context: &Context, request: AddRequest, progress: ProgressSink) -> Result<Added, NodeError> {
    let _protection = context.store.protect();
    let chunker = match (request.chunk_bytes, request.content_defined) {
        (Some(_), true) => return Err(NodeError::usage("chunk_bytes and content_defined exclude each other")),
        (Some(bytes), false) => unixfs::Chunker::Fixed(bytes),
        (None, true) => unixfs::Chunker::content_defined(),
        (None, false) => unixfs::Chunker::default(),
    };
    let added = import(context, request.path, request.hidden, chunker, progress).await?;
    let cid = added.cid;
    // Until it is published, nothing else refers to it.
    context.blocking(move |store| Ok(store.pin(&cid, &Pin::default())?)).await?;
    Ok(added)
}

/// Imports a file or folder; the caller protects it until something refers to it.
pub(crate) async fn import(
    context: &Context,
    path: PathBuf,
    hidden: bool,
    chunker: unixfs::Chunker,
    progress: ProgressSink,
) -> Result<Added, NodeError> {
    context
        .blocking(move |store| {
            let mut options = ImportOptions::default();
            (options.hidden, options.chunker) = (hidden, chunker);
            let mut show = |done: unixfs::Progress<'_>| progress.send(moved(Phase::Importing, &done));
            let imported = unixfs::import(store, &path, &options, &mut show)?;
            let mut skipped = Vec::new();
            if imported.special > 0 {
                skipped.push(format!("{} sockets, devices or pipes", imported.special));
            }
            if imported.hidden > 0 {
                skipped.push(format!("{} hidden names (--hidden takes them)", imported.hidden));
            }
            Ok(Added {
                cid: imported.cid,
                blocks: imported.blocks,
                bytes: imported.bytes,
                files: imported.files,
                new_blocks: imported.new_blocks,
                skipped,
            })
        })
        .await
}

/// Writes a file or folder to disk.
pub(crate) async fn get(context: &Context, request: GetRequest, progress: ProgressSink) -> Result<Gotten, NodeError> {
    context
        .blocking(move |store| {
            let mut options = ExportOptions::default();
            options.overwrite = request.overwrite;
            let mut show = |done: unixfs::Progress<'_>| progress.send(moved(Phase::Exporting, &done));
            let exported = unixfs::export(store, &request.cid, &request.output, &options, &mut show)?;
            Ok(Gotten { cid: request.cid, files: exported.files, bytes: exported.bytes })
        })
        .await
}

/// The content of a file, in pieces.
pub(crate) async fn cat(context: &Context, request: CatRequest) -> Result<ByteStream, NodeError> {
    // An error before the first byte is an answer of its own.
    let size = context.blocking(move |store| Ok(unixfs::cat(store, &request.cid)?.size())).await?;
    if request.offset > size {
        return Err(NodeError::usage(format!(
            "offset {} lies behind the end of {}: it has {size} bytes",
            request.offset, request.cid
        )));
    }
    Ok(stream(context, move |store, send| {
        let mut reader = unixfs::cat(store, &request.cid)?;
        reader.seek_to(request.offset);
        let mut left = request.length.unwrap_or(u64::MAX);
        while left > 0
            && let Some(mut chunk) = reader.next_chunk()?
        {
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= chunk.len() as u64;
            if !send(chunk) {
                break;
            }
        }
        Ok(())
    }))
}

/// The entries of a folder.
pub(crate) async fn ls(context: &Context, cid: Cid) -> Result<Vec<DirEntry>, NodeError> {
    context
        .blocking(move |store| {
            let entries = unixfs::list(store, &cid)?;
            let shown = entries.into_iter().map(|entry| DirEntry {
                name: entry.name,
                cid: entry.cid,
                kind: match entry.kind {
                    Kind::File => EntryKind::File,
                    Kind::Directory => EntryKind::Directory,
                    Kind::Symlink => EntryKind::Symlink,
                    _ => EntryKind::Unknown,
                },
                size: Some(entry.size),
            });
            Ok(shown.collect())
        })
        .await
}

/// Stores one block.
pub(crate) async fn dag_put(context: &Context, request: DagPutRequest) -> Result<BlockPut, NodeError> {
    let hash = match request.hash {
        HashName::Sha2_256 => HashCode::Sha2_256,
        HashName::Sha2_512 => HashCode::Sha2_512,
        HashName::Blake3 => HashCode::Blake3,
        HashName::Blake2b256 => HashCode::Blake2b256,
    };
    let data = convert(request.data.into(), request.input, request.codec)?;
    let block = Block::new(codec(request.codec), hash, data)?;
    // What is not of its codec would be a block that nobody can walk.
    dagmesh_dag::links::links(&block).map_err(|error| NodeError::usage(error.to_string()))?;
    context
        .blocking(move |store| {
            store.put(&block)?;
            store.pin(block.cid(), &Pin::default())?;
            Ok(BlockPut { cid: *block.cid(), bytes: block.data().len() as u64 })
        })
        .await
}

/// The bytes of one block.
pub(crate) async fn dag_get(context: &Context, request: DagGetRequest) -> Result<Bytes, NodeError> {
    let cid = request.cid;
    let block = context.blocking(move |store| Ok(store.verified_block(&cid)?)).await?;
    let data = block.ok_or_else(|| not_held(&cid))?.into_parts().1;
    let stored = match Codec::try_from(cid.codec())? {
        Codec::DagCbor => DataFormat::DagCbor,
        Codec::DagJson => DataFormat::DagJson,
        Codec::DagPb => DataFormat::DagPb,
        _ => DataFormat::Raw,
    };
    convert(data, stored, request.output.unwrap_or(stored))
}

/// How large a DAG is, as far as it is held.
pub(crate) async fn dag_stat(context: &Context, cid: Cid, progress: ProgressSink) -> Result<DagStat, NodeError> {
    context
        .blocking(move |store| {
            let root = dagmesh_dag::Root { cid, selector: dagmesh_dag::Selector::all(), held: None };
            let mut walk = Walk::new(WalkConfig::default(), vec![root]);
            let mut stat = DagStat { cid, blocks: 0, bytes: 0, depth: 0, missing: 0 };
            while let Some(visit) = walk.next_visit() {
                let Some(block) = store.block(&visit.cid)? else {
                    stat.missing += 1;
                    continue;
                };
                walk.enter(&visit, &block, None).map_err(|error| NodeError::verification(error.to_string()))?;
                stat.blocks += 1;
                stat.bytes += block.data().len() as u64;
                stat.depth = stat.depth.max(visit.depth);
                if stat.blocks.is_multiple_of(REPORT_EVERY) {
                    let known_blocks = stat.blocks + walk.waiting() as u64;
                    let (done_blocks, bytes) = (stat.blocks, stat.bytes);
                    progress.send(Progress {
                        phase: Phase::Walking,
                        done_blocks,
                        known_blocks,
                        bytes,
                        ..Progress::default()
                    });
                }
            }
            if stat.blocks == 0 { Err(not_held(&cid)) } else { Ok(stat) }
        })
        .await
}

/// Takes the blocks of a CAR.
pub(crate) async fn dag_import(context: &Context, request: DagImportRequest) -> Result<CarImported, NodeError> {
    context
        .blocking(move |store| {
            let _protection = store.protect();
            let file = File::open(&request.path).map_err(|error| NodeError::file("read", &request.path, &error))?;
            let report = car::import(store, file)
                .map_err(|error| NodeError::from(error).context(format!("cannot import {}", request.path.display())))?;
            for root in &report.roots {
                store.pin(root, &Pin::default())?;
            }
            Ok(CarImported {
                roots: report.roots,
                blocks: report.blocks,
                bytes: report.bytes,
                new_blocks: report.new_blocks,
            })
        })
        .await
}

/// A DAG as a CAR of version 1, in pieces. A block that is not held ends it with an error.
pub(crate) async fn dag_export(context: &Context, cid: Cid) -> Result<ByteStream, NodeError> {
    if !context.blocking(move |store| Ok(store.has(&cid)?)).await? {
        return Err(not_held(&cid));
    }
    Ok(stream(context, move |store, send| {
        let mut writer = CarWriter::new(Pieces { buffer: Vec::new(), send }, &[cid])?;
        for found in closure(store, [cid]) {
            match found.map_err(|error| NodeError::verification(error.to_string()))? {
                Found::Block(block) => writer.write(&block)?,
                Found::Missing(missing) => return Err(not_held(&missing).context(format!("{cid} is not held whole"))),
                _ => {}
            }
        }
        writer.finish()?.end();
        Ok(())
    }))
}

/// Runs `write` on a thread that may block; what it sends comes out of the stream. It is told `false` once nobody
/// listens any more.
fn stream(
    context: &Context,
    write: impl FnOnce(&crate::store::Store, &dyn Fn(Bytes) -> bool) -> Result<(), NodeError> + Send + 'static,
) -> ByteStream {
    let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
    let store = Arc::clone(&context.store);
    context.tasks.spawn_blocking(move || {
        let send = |bytes: Bytes| sender.blocking_send(Ok(bytes)).is_ok();
        if let Err(error) = write(&store, &send) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    Box::pin(futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

/// Collects what is written into pieces and sends them.
struct Pieces<'a> {
    buffer: Vec<u8>,
    send: &'a dyn Fn(Bytes) -> bool,
}

impl Pieces<'_> {
    fn end(mut self) {
        let _ = self.piece();
    }

    fn piece(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.buffer);
        if (self.send)(piece.into()) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.piece()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn moved(phase: Phase, done: &unixfs::Progress<'_>) -> Progress {
    let note = done.path.file_name().map(|name| name.to_string_lossy().into_owned());
    Progress { phase, bytes: done.bytes, files: done.files, note, ..Progress::default() }
}

fn codec(format: DataFormat) -> Codec {
    match format {
        DataFormat::Raw => Codec::Raw,
        DataFormat::DagPb => Codec::DagPb,
        DataFormat::DagCbor => Codec::DagCbor,
        DataFormat::DagJson => Codec::DagJson,
    }
}

/// Writes the same data in another format. Only DAG-CBOR and DAG-JSON say the same things.
fn convert(data: Bytes, from: DataFormat, to: DataFormat) -> Result<Bytes, NodeError> {
    let bad = |error: String| NodeError::usage(format!("the data is no {from:?}: {error}"));
    let value: Ipld = match (from, to) {
        (DataFormat::DagCbor, DataFormat::DagJson) => {
            dagmesh_core::cbor::from_slice(&data).map_err(|error| bad(error.to_string()))?
        }
        (DataFormat::DagJson, DataFormat::DagCbor | DataFormat::DagJson) => {
            serde_ipld_dagjson::from_slice(&data).map_err(|error| bad(error.to_string()))?
        }
        (from, to) if from == to => return Ok(data),
        (from, to) => {
            return Err(NodeError::usage(format!("there is no way from {from:?} to {to:?} that keeps the data")));
        }
    };
    let written = match to {
        DataFormat::DagCbor => dagmesh_core::cbor::to_vec(&value).map_err(|error| bad(error.to_string()))?,
        _ => serde_ipld_dagjson::to_vec(&value).map_err(|error| bad(error.to_string()))?,
    };
    if written.len() > limits::MAX_BLOCK_BYTES {
        return Err(NodeError::usage(format!(
            "{} bytes are over the cap of a block, {}",
            written.len(),
            limits::MAX_BLOCK_BYTES
        )));
    }
    Ok(written.into())
}

fn not_held(cid: &Cid) -> NodeError {
    NodeError::not_found(format!("{cid} is not held here; follow or sync whoever publishes it"))
}

impl From<UnixfsError> for NodeError {
    fn from(error: UnixfsError) -> Self {
        // A full disk has advice of its own.
        let error = match error {
            UnixfsError::Store(error) => return error.into(),
            error => error,
        };
        let kind = match &error {
            UnixfsError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            UnixfsError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorKind::Storage,
            UnixfsError::Missing(_) => ErrorKind::NotFound,
            UnixfsError::Exists(_) | UnixfsError::Options(_) | UnixfsError::NotAFile(_) => ErrorKind::Usage,
            _ => ErrorKind::Error,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<CarError> for NodeError {
    fn from(error: CarError) -> Self {
        match error {
            CarError::Store(error) => error.into(),
            error => Self::verification(error.to_string()),
        }
    }
}
