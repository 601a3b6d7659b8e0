//! What the rows `bulk` and `small` have in common: one large file, cut into blocks of a size, followed whole.

use std::{fs::File, io::Write, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use dagmesh::{
    Api,
    api::ProgressSink,
    types::{AddRequest, Content, PublishRequest},
};

use crate::nodes::{self, Running};

/// A node that publishes one file of bytes that do not compress.
pub(crate) struct LargeFile {
    pub(crate) publisher: Running,
    /// All blocks: leaves, inner nodes, and the entry.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl LargeFile {
    /// Publishes a file of `bytes`, cut into leaves of `chunk_bytes`.
    pub(crate) async fn publish(bytes: u64, chunk_bytes: usize) -> Result<Self> {
        let publisher = Running::fresh().await?;
        let path = publisher.home().join("large-file");
        write_noise(&path, bytes).context("writing the file to be published")?;
        let request =
            AddRequest { path: path.clone(), hidden: false, chunk_bytes: Some(chunk_bytes), content_defined: false };
        let added = publisher.node.add(request, ProgressSink::none()).await?;
        std::fs::remove_file(&path)?;
        publisher.publish(PublishRequest::new(Content::Cid(added.cid))).await?;
        let stat = publisher.node.repo_stat().await?;
        ensure!(stat.blocks >= bytes.div_ceil(chunk_bytes as u64), "{} blocks of {bytes} bytes", stat.blocks);
        Ok(Self { publisher, blocks: stat.blocks, bytes: stat.bytes })
    }

    /// Follows it with a fresh node in this process until all is durable there.
    pub(crate) async fn follow(&self) -> Result<Duration> {
        let follower = Running::fresh().await?;
        let target = self.publisher.target().await?;
        let elapsed = nodes::follow(&follower.node, &target).await?;
        let held = follower.node.repo_stat().await?.blocks;
        ensure!(held == self.blocks, "{held} of {} blocks arrived", self.blocks);
        follower.stop().await?;
        Ok(elapsed)
    }
}

fn write_noise(path: &Path, bytes: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let len = left.min(buffer.len() as u64) as usize;
        buffer.truncate(len);
        nodes::noise(left, &mut buffer);
        file.write_all(&buffer)?;
        left -= len as u64;
    }
    Ok(())
}
