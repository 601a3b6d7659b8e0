//! What is published, of a size and shape that a row asks for.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cid::Cid;
use dagmesh::{
    Api,
    api::ProgressSink,
    dag::{Block, Blockstore, Codec, HashCode},
    types::{AddRequest, Content as Published, PublishRequest},
};
use dagmesh_tests::make_folder;
use serde::{Deserialize, Serialize};

use crate::nodes::{self, Running};

/// Blocks put into the store at once.
const BATCH_BLOCKS: usize = 4096;
/// Links of one block of [`Content::Links`]: 1.3 MiB of them.
const LINKS_PER_BLOCK: usize = 32_768;
const SEED: u64 = 7;

/// A content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Content {
    /// One file of bytes that do not compress.
    File {
        /// Its bytes.
        bytes: u64,
        /// Bytes of a leaf.
        chunk_bytes: usize,
    },
    /// A folder of files.
    Folder {
        /// How many.
        files: u64,
        /// Their bytes, on average.
        file_bytes: u64,
    },
    /// Blocks that link to one other each.
    Deep {
        /// How many.
        blocks: u64,
    },
    /// Links to as many small blocks, in as few blocks as they fit into, and one above these.
    Links {
        /// How many.
        links: u64,
    },
}

impl Content {
    /// Makes it and publishes it. Returns how long the publishing took: importing, where there are files, included.
    pub(crate) async fn publish(&self, publisher: &Running) -> Result<Duration> {
        let path = publisher.home().join("content");
        match *self {
            Self::File { bytes, chunk_bytes } => {
                write_noise(&path, bytes).context("writing the file to be published")?;
                let begun = Instant::now();
                let chunk_bytes = Some(chunk_bytes);
                let request = AddRequest { path: path.clone(), hidden: false, chunk_bytes, content_defined: false };
                let added = publisher.node.add(request, ProgressSink::none()).await?;
                publisher.publish(PublishRequest::new(Published::Cid(added.cid))).await?;
                let elapsed = begun.elapsed();
                std::fs::remove_file(&path)?;
                Ok(elapsed)
            }
            Self::Folder { files, file_bytes } => {
                let folder = path.clone();
                let make = move || make_folder(folder, files as usize, files * file_bytes, SEED);
                tokio::task::spawn_blocking(make).await?;
                let begun = Instant::now();
                let request = PublishRequest { hidden: true, ..PublishRequest::new(Published::Path(path.clone())) };
                publisher.publish(request).await?;
                let elapsed = begun.elapsed();
                tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path)).await??;
                Ok(elapsed)
            }
            Self::Deep { blocks } => publish_made(publisher, move |store| deep(store, blocks)).await,
            Self::Links { links } => publish_made(publisher, move |store| wide(store, links)).await,
        }
    }
}

/// A node of this process that publishes one file of bytes that do not compress.
pub(crate) struct LargeFile {
    pub(crate) publisher: Running,
    /// All blocks: leaves, inner nodes, and the entry.
    pub(crate) blocks: u64,
}

impl LargeFile {
    /// Publishes a file of `bytes`, cut into leaves of `chunk_bytes`.
    pub(crate) async fn publish(bytes: u64, chunk_bytes: usize) -> Result<Self> {
        let publisher = Running::fresh().await?;
        Content::File { bytes, chunk_bytes }.publish(&publisher).await?;
        let blocks = publisher.node.repo_stat().await?.blocks;
        ensure!(blocks >= bytes.div_ceil(chunk_bytes as u64), "{blocks} blocks of {bytes} bytes");
        Ok(Self { publisher, blocks })
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

/// Writes a file of `bytes` that do not compress.
pub(crate) fn write_noise(path: &Path, bytes: u64) -> Result<()> {
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

async fn publish_made(
    publisher: &Running,
    make: impl FnOnce(&mut Maker<'_>) -> Result<Cid> + Send + 'static,
) -> Result<Duration> {
    let store = publisher.node.blockstore();
    let begun = Instant::now();
    let root = tokio::task::spawn_blocking(move || {
        let mut maker = Maker { store: store.as_ref(), waiting: Vec::new() };
        let root = make(&mut maker)?;
        maker.flush()?;
        store.sync()?;
        anyhow::Ok(root)
    })
    .await??;
    publisher.publish(PublishRequest::new(Published::Cid(root))).await?;
    Ok(begun.elapsed())
}

/// The links of a block.
#[derive(Serialize)]
struct Node {
    links: Vec<Cid>,
    number: u64,
}

fn deep(maker: &mut Maker<'_>, blocks: u64) -> Result<Cid> {
    let mut links = Vec::new();
    for number in 0..blocks {
        links = vec![maker.node(&Node { links, number })?];
    }
    links.pop().context("a chain without a block")
}

fn wide(maker: &mut Maker<'_>, links: u64) -> Result<Cid> {
    let (mut nodes, mut leaves) = (Vec::new(), Vec::new());
    for number in 0..links {
        leaves.push(maker.leaf(number)?);
        if leaves.len() == LINKS_PER_BLOCK || number + 1 == links {
            nodes.push(maker.node(&Node { links: std::mem::take(&mut leaves), number })?);
        }
    }
    maker.node(&Node { links: nodes, number: links })
}

/// Puts blocks into a store, many at once.
struct Maker<'a> {
    store: &'a dyn Blockstore,
    waiting: Vec<Block>,
}

impl Maker<'_> {
    fn node(&mut self, node: &Node) -> Result<Cid> {
        self.put(Codec::DagCbor, dagmesh_core::cbor::to_vec(node)?)
    }

    fn leaf(&mut self, number: u64) -> Result<Cid> {
        self.put(Codec::Raw, number.to_be_bytes().to_vec())
    }

    fn put(&mut self, codec: Codec, data: Vec<u8>) -> Result<Cid> {
        let block = Block::new(codec, HashCode::Sha2_256, data)?;
        let cid = *block.cid();
        self.waiting.push(block);
        if self.waiting.len() >= BATCH_BLOCKS {
            self.flush()?;
        }
        Ok(cid)
    }

    fn flush(&mut self) -> Result<()> {
        self.store.put_many(&std::mem::take(&mut self.waiting))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dagmesh::types::CidRequest;

    use super::*;
    use crate::runtime;

    #[test]
    fn every_content_has_the_shape_it_says() {
        let blocks_and_depth = |content: Content| {
            runtime().expect("a runtime").block_on(async {
                let publisher = Running::fresh().await.expect("a node");
                content.publish(&publisher).await.expect("published");
                let head = publisher.node.head(Default::default()).await.expect("a head");
                let stat = publisher.node.dag_stat(CidRequest { cid: head.head }, ProgressSink::none()).await;
                let stat = stat.expect("held");
                assert_eq!(stat.missing, 0);
                (stat.blocks, stat.depth)
            })
        };
        assert_eq!(blocks_and_depth(Content::Deep { blocks: 300 }), (301, 300));
        assert_eq!(blocks_and_depth(Content::Links { links: 40_000 }), (40_004, 3), "two nodes and one above");
        assert_eq!(blocks_and_depth(Content::File { bytes: 4096, chunk_bytes: 1024 }), (6, 2));
        assert!(
            blocks_and_depth(Content::Folder { files: 20, file_bytes: 10_000 }).0 > 10,
            "files, some of them empty"
        );
    }
}
