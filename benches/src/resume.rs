//! `resume`: a follower killed half-way goes on where it stood: what it had is neither fetched nor walked again.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dagmesh::{
    Api,
    dag::{Entry, FeedName},
    store::{FrontierKey, Store},
    types::HeadRequest,
};
use dagmesh_tests::DelayProxy;

use crate::{
    Args, Bar, Row,
    child::{Followed, Process, Role, Usage},
    content::LargeFile,
    nodes::{self, PATIENCE, Running},
    runtime,
};

/// Blocks of the default size.
const BLOCK_BYTES: usize = 256 * 1024;

/// The rows of `resume`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let bytes = args.scaled(1 << 30);
    runtime()?.block_on(async {
        let file = LargeFile::publish(bytes, BLOCK_BYTES).await?;
        let mut worst: Option<Resumed> = None;
        for _ in 0..args.runs {
            let resumed = once(&file, bytes).await?;
            if worst.as_ref().is_none_or(|worst| resumed.second_bytes > worst.second_bytes) {
                worst = Some(resumed);
            }
        }
        let Some(worst) = worst else { anyhow::bail!("no run") };
        file.publisher.stop().await?;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        Ok(vec![
            Row::new("resume", format!("{} MiB, killed at 50 %", bytes >> 20), mb(worst.second_bytes), "MB")
                .ceiling(mb(bytes))
                .bar(Bar::RatioAtMost(0.55))
                .note(format!(
                    "over the line in the second run, against the bytes of the content; {:.0} MB came in the first one, \
                     before it was killed (SIGKILL), and {:.0} MB of blocks were stored then; the worst of all runs",
                    mb(worst.first_bytes),
                    mb(worst.stored_bytes)
                ))
                .note(format!(
                    "it went on from {} saved links, the entry and the root not among them, and was in sync {:.2} s \
                     after its start",
                    worst.links,
                    worst.elapsed.as_secs_f64()
                )),
        ])
    })
}

struct Resumed {
    first_bytes: u64,
    /// Blocks in the store of the killed node.
    stored_bytes: u64,
    /// Links of the frontier that the killed node had saved.
    links: usize,
    second_bytes: u64,
    /// From the second start until in sync.
    elapsed: Duration,
}

async fn once(file: &LargeFile, bytes: u64) -> Result<Resumed> {
    let line = DelayProxy::start(file.publisher.socket().await?, Duration::ZERO).await?;
    let target = nodes::target(file.publisher.node.peer_id(), line.addr())?.to_string();
    let home = nodes::home()?;
    let role = Role::Follow { target, nodes: 1, home: Some(home.path().to_owned()) };

    let mut first = Process::spawn(&role)?;
    let _: Usage = first.told().await?;
    let before = line.bytes_from_target();
    first.go().await?;
    let begun = Instant::now();
    while line.bytes_from_target() - before < bytes / 2 {
        ensure!(begun.elapsed() < PATIENCE, "half of it has not come in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.kill().await?;
    let first_bytes = line.bytes_from_target() - before;
    let (stored_bytes, links) = left(&file.publisher, home.path()).await?;

    let before = line.bytes_from_target();
    let begun = Instant::now();
    let mut second = Process::spawn(&role)?;
    let _: Usage = second.told().await?;
    second.go().await?;
    let followed: Followed = second.told().await?;
    let elapsed = begun.elapsed();
    ensure!(followed.blocks == file.blocks, "{} of {} blocks arrived", followed.blocks, file.blocks);
    second.end().await?;
    Ok(Resumed { first_bytes, stored_bytes, links, second_bytes: line.bytes_from_target() - before, elapsed })
}

/// What the killed node has left behind: bytes of blocks, and the links from which it goes on. Neither the entry nor
/// the root of its content may be among these, else the second run would walk from the head.
async fn left(publisher: &Running, home: &Path) -> Result<(u64, usize)> {
    let head = publisher.node.head(HeadRequest::default()).await?;
    let entry = publisher.node.blockstore().block(&head.head)?;
    let content = entry.map(|entry| Entry::from_block(&entry)).transpose()?.map(|entry| entry.content);
    let store = Store::open(home.join("store"))?;
    let frontier = store.load_frontier(&FrontierKey::Follow(head.publisher, FeedName::default()))?;
    let links = frontier.map(|frontier| frontier.links).unwrap_or_default();
    let from_the_head = links.iter().any(|link| link.cid == head.head || Some(link.cid) == content);
    ensure!(!links.is_empty() && !from_the_head, "{} saved links, which do not go on where it stood", links.len());
    Ok((store.stat().bytes, links.len()))
}
