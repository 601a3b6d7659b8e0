//! `edit`: what a few changed files cost a follower of a large folder. Only they travel, and the nodes above them.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use dagmesh::{
    Api,
    dag::{Blockstore, walk::closure_cids},
    types::{AnnounceRequest, Content, PublishRequest},
};
use dagmesh_tests::{DelayProxy, edit_files, make_folder};

use crate::{
    Args, Bar, Row,
    nodes::{self, Running},
    runtime,
};

/// The larger folder, and the smaller one that its time is compared with.
const FILES: [u64; 2] = [100_000, 10_000];
/// Bytes a file, on average: as in a folder of sources.
const FILE_BYTES: u64 = 2048;
const EDITED: usize = 10;
/// Edits measured for each run that is asked for.
const ROUNDS: u32 = 3;
const SEED: u64 = 7;

/// The rows of `edit`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let [large, small] = FILES.map(|files| args.scaled(files).max(2 * EDITED as u64));
    let (large_edit, small_edit) =
        (runtime()?.block_on(measure(args, large))?, runtime()?.block_on(measure(args, small))?);
    let ms = |edit: &Edit| edit.time.as_secs_f64() * 1e3;
    let bytes = |files: u64, edit: &Edit| {
        Row::new(
            format!("edit bytes, {files} files"),
            format!("{EDITED} of {files} files changed"),
            edit.line_bytes as f64,
            "bytes",
        )
        .ceiling(edit.needed_bytes as f64)
        .bar(Bar::RatioAtMost(1.2))
        .note(format!(
            "all on the line in both directions, announcement and question included, against the {} new blocks: the \
             changed ones, the nodes above them and the entry; the median of all edits",
            edit.needed_blocks
        ))
    };
    Ok(vec![
        bytes(large, &large_edit),
        bytes(small, &small_edit),
        Row::new("edit time", format!("{EDITED} of {large} files changed"), ms(&large_edit), "ms")
            .ceiling(ms(&small_edit))
            .bar(Bar::RatioAtMost(1.2))
            .note(format!(
                "against the same in a folder of {small} files; from the announcement until all is durable and told; \
                 publishing itself reads the whole folder and is not counted"
            )),
    ])
}

struct Edit {
    /// The shortest time of all rounds.
    time: Duration,
    line_bytes: u64,
    needed_bytes: u64,
    needed_blocks: u64,
}

async fn measure(args: &Args, files: u64) -> Result<Edit> {
    let folder = nodes::home()?;
    let path = folder.path().to_owned();
    tokio::task::spawn_blocking(move || make_folder(path, files as usize, files * FILE_BYTES, SEED)).await?;
    let publisher = Running::fresh().await?;
    let mut content = publish(&publisher, &folder).await?.1;
    let line = DelayProxy::start(publisher.socket().await?, Duration::ZERO).await?;
    let target = nodes::target(publisher.node.peer_id(), line.addr())?;
    let follower = Running::fresh().await?;
    nodes::follow(&follower.node, &target).await?;
    let mut events = follower.node.watch().await?;

    let mut known = cids(publisher.node.blockstore(), content).await?;
    let mut edits = Vec::new();
    for round in 0..args.runs * ROUNDS {
        edit_files(folder.path(), EDITED, SEED + 1 + u64::from(round));
        let (head, next) = publish(&publisher, &folder).await?;
        let now = cids(publisher.node.blockstore(), next).await?;
        let store = publisher.node.blockstore();
        let mut needed = Vec::new();
        for cid in now.difference(&known).chain([&head.head]) {
            needed.push(store.get(cid)?.context("an own block is gone")?.len() as u64);
        }
        // What came before is not of this edit.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = line.bytes_from_target() + line.bytes_to_target();
        let begun = Instant::now();
        publisher.node.announce(AnnounceRequest { feed: head.feed.clone(), ..AnnounceRequest::new(head.head) }).await?;
        let finished = nodes::finished(&mut events, &head.head).await?;
        let line_bytes = line.bytes_from_target() + line.bytes_to_target() - before;
        let needed_bytes: u64 = needed.iter().sum();
        ensure!(finished.entries == 1 && finished.bytes >= needed_bytes, "{finished:?}, {needed_bytes} bytes needed");
        edits.push(Edit { time: finished.at - begun, line_bytes, needed_bytes, needed_blocks: needed.len() as u64 });
        (content, known) = (next, now);
    }
    let held = cids(follower.node.blockstore(), content).await?;
    ensure!(held == known, "the follower holds another folder");
    nodes::only_over(&follower.node, &target).await?;
    follower.stop().await?;
    publisher.stop().await?;

    let time = edits.iter().map(|edit| edit.time).min().context("no edit")?;
    // A ping or a look-up may fall into a round: the median of the ratios is free of it.
    edits.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let median = edits.len() / 2;
    let edit = edits.into_iter().nth(median).context("no edit")?;
    Ok(Edit { time, ..edit })
}

fn ratio(edit: &Edit) -> f64 {
    edit.line_bytes as f64 / edit.needed_bytes as f64
}

async fn publish(publisher: &Running, folder: &tempfile::TempDir) -> Result<(dagmesh::types::Head, Cid)> {
    let request = PublishRequest { hidden: true, ..PublishRequest::new(Content::Path(folder.path().to_owned())) };
    let head = publisher.publish(request).await?;
    let block = publisher.node.blockstore().block(&head.head)?.context("the new entry is gone")?;
    Ok((head, dagmesh::dag::Entry::from_block(&block)?.content))
}

/// Everything below `root`; all of it must be held.
async fn cids(store: Arc<dyn Blockstore>, root: Cid) -> Result<HashSet<Cid>> {
    tokio::task::spawn_blocking(move || {
        let mut cids = HashSet::new();
        for reached in closure_cids(store.as_ref(), [root]) {
            let reached = reached?;
            ensure!(reached.held, "{} is not held", reached.cid);
            cids.insert(reached.cid);
        }
        Ok(cids)
    })
    .await?
}
