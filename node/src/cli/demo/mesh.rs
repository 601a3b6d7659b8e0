//! The nodes of the demo: real ones, each with its own home, key, store and sockets.

use std::{
    collections::HashSet,
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use cid::Cid;
use dagmesh_dag::{Blockstore, walk};
use futures::{StreamExt, future::try_join_all};
use indicatif::ProgressBar;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use parking_lot::Mutex;

use super::super::output::size;
use crate::{
    api::{Api, EventStream, ProgressSink, Result},
    config::{Config, Profile},
    error::{ErrorKind, NodeError},
    node::Node,
    ticket::Target,
    types::{Event, FollowRequest},
};

/// How long nodes on one machine may take to find each other, and a sync may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether a peer has said who it is: nothing tells it.
const LOOK: Duration = Duration::from_millis(5);

/// Every node that was started, so that every one is stopped.
#[derive(Default)]
pub(super) struct Running(Mutex<Vec<Node>>);

impl Running {
    /// Stops all nodes. The first error counts.
    pub(super) async fn stop(self) -> Result<()> {
        let nodes = self.0.into_inner();
        let began = Instant::now();
        let ends = futures::future::join_all(nodes.iter().map(Api::shutdown)).await;
        tracing::debug!(took = ?began.elapsed(), "the nodes have stopped");
        drop(nodes);
        tracing::debug!(took = ?began.elapsed(), "their stores are closed");
        ends.into_iter().collect()
    }

    async fn start(&self, home: &Path, bootstrap: Option<Multiaddr>) -> Result<Node> {
        let mut config = Config::of_profile(Profile::Test);
        config.swarm.bootstrap.extend(bootstrap);
        let began = Instant::now();
        let node = Node::builder().home(home).config(config).start().await?;
        tracing::debug!(took = ?began.elapsed(), home = %home.display(), "a node has started");
        self.0.lock().push(node.clone());
        Ok(node)
    }
}

/// Four nodes.
pub(super) struct Mesh {
    pub(super) bootstrap: Node,
    pub(super) publisher: Node,
    pub(super) followers: Vec<Follower>,
}

impl Mesh {
    /// Starts the nodes below `dir` and waits until each has joined the mesh through the bootstrap node, the one
    /// address that the others are given.
    pub(super) async fn start(running: &Running, dir: &Path) -> Result<Self> {
        let bootstrap = running.start(&dir.join("bootstrap"), None).await?;
        let addr = bootstrap.addrs().await?.into_iter().find(is_tcp);
        let addr = addr.ok_or_else(|| NodeError::other("the bootstrap node listens on no address"))?;
        let names = ["publisher", "follower-1", "follower-2"];
        let homes = names.map(|name| dir.join(name));
        let others = try_join_all(homes.iter().map(|home| running.start(home, Some(addr.clone())))).await?;
        for node in &others {
            within("joining the mesh", identified(&bootstrap, node.peer_id())).await?;
            within("joining the mesh", identified(node, bootstrap.peer_id())).await?;
        }
        tracing::debug!("every node has joined");
        let mut others = others.into_iter();
        let publisher = others.next().ok_or_else(NodeError::stopping)?;
        let mut followers = Vec::new();
        for (name, node) in names.into_iter().skip(1).zip(others) {
            followers.push(Follower { name, events: Mutex::new(node.watch().await?), node });
        }
        Ok(Self { bootstrap, publisher, followers })
    }
}

/// What one sync, with its tries, moved.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    /// How long the transfer itself took, by the node's own clock.
    pub(super) sync_ms: u64,
    /// Why a try failed, where one did.
    pub(super) failed: Option<String>,
}

/// A node that follows, and its events since it started.
pub(super) struct Follower {
    pub(super) name: &'static str,
    pub(super) node: Node,
    // Behind a lock, which is never taken, so that it can be shared.
    events: Mutex<EventStream>,
}

impl Follower {
    /// Follows `publisher`, of whom it is told the peer id alone.
    pub(super) async fn follow(&self, publisher: PeerId) -> Result<()> {
        self.node.follow(FollowRequest::new(Target::Peer(publisher)), ProgressSink::none()).await?;
        Ok(())
    }

    /// Waits until it is in sync with `head`.
    pub(super) async fn in_sync_with(&mut self, head: Cid, bar: &ProgressBar) -> Result<Moved> {
        let mut moved = Moved::default();
        loop {
            let event = match tokio::time::timeout(PATIENCE, self.events.get_mut().next()).await {
                Ok(event) => event.ok_or_else(NodeError::stopping)?,
                Err(_) => return Err(self.stuck(moved).await),
            };
            match event {
                Event::SyncProgress { have_blocks, known_blocks, bytes, .. } => {
                    bar.set_length(bar.length().unwrap_or(0).max(known_blocks));
                    bar.set_position(have_blocks);
                    bar.set_message(size(bytes));
                }
                Event::SyncFinished { head: at, blocks, bytes, duration_ms, .. } => {
                    moved.blocks += blocks;
                    moved.bytes += bytes;
                    moved.sync_ms += duration_ms;
                    if at == head {
                        return Ok(moved);
                    }
                }
                Event::SyncFailed { reason, .. } => moved.failed = Some(reason),
                Event::Lagged { missed } => moved.failed = Some(format!("{missed} events were missed")),
                _ => {}
            }
        }
    }

    /// Whether it says itself that it holds `head` with its whole content.
    pub(super) async fn holds(&self, head: Cid) -> Result<bool> {
        Ok(self.node.follows().await?.iter().any(|follow| follow.latest == Some(head)))
    }

    /// What it speaks to `peer` over.
    pub(super) async fn transport(&self, peer: PeerId) -> Result<&'static str> {
        let peers = self.node.peers().await?;
        let Some(info) = peers.iter().find(|info| info.peer_id == peer) else { return Ok("a closed connection") };
        Ok(match info.addr.iter().find(|part| matches!(part, Protocol::QuicV1 | Protocol::Ws(_))) {
            Some(Protocol::QuicV1) => "QUIC",
            Some(_) => "WebSocket",
            None => "TCP",
        })
    }

    async fn stuck(&self, moved: Moved) -> NodeError {
        let follows = self.node.follows().await.unwrap_or_default();
        let reason = follows.into_iter().find_map(|follow| follow.reason).or(moved.failed);
        let reason = reason.unwrap_or_else(|| "nothing says why".to_owned());
        let message = format!("{} has heard nothing for {} s: {reason}", self.name, PATIENCE.as_secs());
        NodeError::new(ErrorKind::Timeout, message)
    }
}

/// The blocks of a DAG, each once. Blocks the thread.
pub(super) fn blocks_of(store: &dyn Blockstore, root: Cid) -> Result<HashSet<Cid>> {
    let mut blocks = HashSet::new();
    for reached in walk::closure_cids(store, [root]) {
        let reached = reached.map_err(|error| NodeError::other(format!("{root} cannot be walked: {error}")))?;
        if !reached.held {
            return Err(NodeError::verification(format!("the publisher itself does not hold {}", reached.cid)));
        }
        blocks.insert(reached.cid);
    }
    Ok(blocks)
}

/// Bytes of blocks that are held. Blocks the thread.
pub(super) fn bytes_of<'a>(store: &dyn Blockstore, blocks: impl IntoIterator<Item = &'a Cid>) -> Result<u64> {
    let mut bytes = 0;
    for cid in blocks {
        bytes += store.get(cid)?.map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

async fn identified(node: &Node, peer: PeerId) -> Result<()> {
    while !node.peers().await?.iter().any(|info| info.peer_id == peer && !info.protocols.is_empty()) {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(NodeError::timeout(what, PATIENCE)))
}

fn is_tcp(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::Tcp(_))) && !addr.iter().any(|part| matches!(part, Protocol::Ws(_)))
}
