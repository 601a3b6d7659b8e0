//! Real nodes in this process: a publisher with its content, and followers with fresh homes on the disk.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cid::Cid;
use dagmesh::{
    Api, Node,
    api::{EventStream, ProgressSink},
    config::{Config, Profile},
    dag::{Block, Codec, Entry, FeedName, HashCode, SignedHead},
    store::Store,
    ticket::Target,
    types::{ConnectRequest, Event, Follow, FollowRequest, Head, HeadRequest, PublishRequest},
};
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use tempfile::TempDir;
use tokio::time::timeout;

/// How long anything that is waited for may take before the measurement is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// A node with a home of its own, which goes with it unless it is somebody else's.
pub(crate) struct Running {
    pub(crate) node: Node,
    home: PathBuf,
    temporary: Option<TempDir>,
}

impl Running {
    /// A node with an empty home.
    pub(crate) async fn fresh() -> Result<Self> {
        Self::at(home()?, Keypair::generate_ed25519()).await
    }

    /// A node with a home that has been prepared.
    pub(crate) async fn at(home: TempDir, key: Keypair) -> Result<Self> {
        let node = Self::in_home(home.path().to_owned(), key).await?;
        Ok(Self { temporary: Some(home), ..node })
    }

    /// A node with a home that stays when the node stops.
    pub(crate) async fn in_home(home: PathBuf, key: Keypair) -> Result<Self> {
        let mut config = Config::of_profile(Profile::Test);
        // The ceiling is measured over TCP.
        config.swarm.listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
        let node = Node::builder().home(&home).config(config).key(key).start().await?;
        Ok(Self { node, home, temporary: None })
    }

    /// Its home.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Where it listens.
    pub(crate) async fn socket(&self) -> Result<SocketAddr> {
        let addrs = self.node.addrs().await?;
        addrs.iter().find_map(socket_of).context("the node listens on no TCP address")
    }

    /// The node, as others follow it: by its one address.
    pub(crate) async fn target(&self) -> Result<Target> {
        let socket = self.socket().await?;
        target(self.node.peer_id(), socket)
    }

    /// Publishes, without a word to anybody.
    pub(crate) async fn publish(&self, mut request: PublishRequest) -> Result<Head> {
        request.no_announce = true;
        self.node.publish(request, ProgressSink::none()).await?;
        Ok(self.node.head(HeadRequest::default()).await?)
    }

    /// Stops it and removes its home, if it is its own.
    pub(crate) async fn stop(self) -> Result<()> {
        self.node.shutdown().await?;
        drop(self.node);
        self.temporary.map_or(Ok(()), TempDir::close).context("removing a home")
    }
}

/// A home on the disk that holds temporary files.
pub(crate) fn home() -> Result<TempDir> {
    tempfile::Builder::new().prefix("dagmesh-bench-").tempdir().context("making a home")
}

/// A node by its peer id and the one socket under which it is to be reached.
pub(crate) fn target(peer: PeerId, socket: SocketAddr) -> Result<Target> {
    let addr = Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port())).with(Protocol::P2p(peer));
    Ok(Target::Address { addr, peer })
}

/// Connects, as `dagmesh connect` does.
pub(crate) async fn connect(node: &Node, target: &Target) -> Result<()> {
    for addr in target.addrs() {
        node.connect(ConnectRequest { addr: addr.clone() }).await?;
    }
    Ok(())
}

/// Follows `target` until in sync, as `dagmesh follow --wait` does. Returns how long that took.
pub(crate) async fn follow(node: &Node, target: &Target) -> Result<Duration> {
    let request = FollowRequest { wait: true, ..FollowRequest::new(target.clone()) };
    let begun = Instant::now();
    let follow: Follow = timeout(PATIENCE, node.follow(request, ProgressSink::none()))
        .await
        .context("the follow was not in sync in time")??;
    let elapsed = begun.elapsed();
    ensure!(follow.latest.is_some() && follow.latest == follow.announced, "in sync with nothing: {follow:?}");
    Ok(elapsed)
}

/// What a finished sync says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    pub(crate) at: Instant,
    pub(crate) entries: u64,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

/// Waits until a sync of `head` has finished.
pub(crate) async fn finished(events: &mut EventStream, head: &Cid) -> Result<Finished> {
    let wait = async {
        while let Some(event) = events.next().await {
            match event {
                Event::SyncFinished { head: at, count, blocks, bytes, .. } if at == *head => {
                    return Ok(Finished { at: Instant::now(), entries: count, blocks, bytes });
                }
                Event::SyncFailed { reason, .. } => bail!("the sync failed: {reason}"),
                Event::Lagged { missed } => bail!("{missed} events were missed"),
                _ => {}
            }
        }
        bail!("the node stopped")
    };
    timeout(PATIENCE, wait).await.context("no sync finished in time")?
}

/// Asserts that all went over the one address that `target` names.
pub(crate) async fn only_over(node: &Node, target: &Target) -> Result<()> {
    let peers = node.peers().await?;
    let [peer] = peers.as_slice() else { bail!("{} peers where one was dialled", peers.len()) };
    let (dialled, seen) = (target.addrs().first().and_then(socket_of), socket_of(&peer.addr));
    ensure!(
        peer.connections == 1 && dialled.is_some() && dialled == seen,
        "{} connections with {}, the first over {}: not the one line that was given",
        peer.connections,
        peer.peer_id,
        peer.addr
    );
    Ok(())
}

/// A home in which `entries` entries of a feed have been published, each with a small block as its content, all at
/// once: one by one each would wait for the disk.
pub(crate) fn chain_home(entries: u64) -> Result<(TempDir, Keypair)> {
    /// Entries written together.
    const BATCH: u64 = 4096;
    let (home, key) = (home()?, Keypair::generate_ed25519());
    let store = Store::open(home.path().join("store"))?;
    let mut previous = None;
    for first in (1..=entries).step_by(BATCH as usize) {
        previous = store.transaction(|batch| {
            for seq in first..=entries.min(first + BATCH - 1) {
                let content = small_block(seq)?;
                let time = 1_700_000_000_000 + seq;
                let entry = Entry { previous, seq, time, content: *content.cid(), meta: None }.to_block()?;
                let head = SignedHead::sign(&key, &FeedName::default(), *entry.cid(), seq, time)?;
                batch.put_blocks(&[content]).map_err(dagmesh::store::Error::from)?;
                batch.publish_entry(&entry, &head)?;
                previous = Some(*entry.cid());
            }
            Ok::<_, dagmesh::store::Error>(previous)
        })?;
    }
    Ok((home, key))
}

fn small_block(number: u64) -> Result<Block, dagmesh::store::Error> {
    let text = format!("{{\"entry\":{number},\"text\":\"what a small record of a log may look like\"}}");
    Block::new(Codec::Raw, HashCode::Sha2_256, text.into_bytes())
        .map_err(|error| dagmesh::store::Error::from(dagmesh::dag::StoreError::from(error)))
}

/// Bytes that do not compress and do not repeat, the same for the same seed (splitmix64).
pub(crate) fn noise(seed: u64, buffer: &mut [u8]) {
    let mut state = seed;
    for chunk in buffer.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice((word ^ (word >> 31)).to_le_bytes().get(..chunk.len()).unwrap_or_default());
    }
}

fn socket_of(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    match (parts.next()?, parts.next()?, parts.next()) {
        (Protocol::Ip4(ip), Protocol::Tcp(port), None | Some(Protocol::P2p(_))) => Some((ip, port).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime;

    #[test]
    fn a_chain_that_was_written_at_once_is_followed_like_any_other() {
        runtime().expect("a runtime").block_on(async {
            let (home, key) = chain_home(5).expect("a chain");
            let publisher = Running::at(home, key).await.expect("a publisher");
            let follower = Running::fresh().await.expect("a follower");
            let target = publisher.target().await.expect("an address");
            follow(&follower.node, &target).await.expect("in sync");
            only_over(&follower.node, &target).await.expect("one connection");
            assert_eq!(follower.node.repo_stat().await.expect("a stat").blocks, 10, "5 entries and 5 contents");
        });
    }

    #[test]
    fn noise_is_the_same_for_a_seed_and_another_for_another() {
        let of = |seed| {
            let mut bytes = [0; 19];
            noise(seed, &mut bytes);
            bytes
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
