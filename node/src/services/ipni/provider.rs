//! A publisher of the IPNI network as a provider for a sync: natively where it speaks that, else block by block over
//! HTTP.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{Block, Blockstore, links};
use dagmesh_dagsync::{
    Fetch, FetchError, Observer,
    feed_sync::Provider,
    message,
    piecewise::{self, Blocks},
};
use dagmesh_ipnisync::{
    Advertisement, NO_ENTRIES,
    net::{Client, Kind, NetError, Remote},
};
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, broadcast::error::RecvError};
use tokio_util::task::AbortOnDropHandle;

use super::is_http;
use crate::{services::Context, store::Store};

/// How long the native protocol is tried before HTTP is taken.
const NATIVE_PATIENCE: Duration = Duration::from_secs(3);

/// One publisher.
pub(crate) struct ChainProvider {
    context: Context,
    publisher: PeerId,
    /// Whether it may be on the mesh: not where only addresses of HTTP are known of it.
    on_mesh: bool,
    speaks_native: OnceCell<bool>,
    blocks: SingleBlocks,
}

impl ChainProvider {
    /// The publisher at `addrs`, over HTTP by `client`, from whom the chain at `head` is wanted, with the entries of its
    /// newest `keep` advertisements (`None`: of all).
    pub(super) fn new(
        context: &Context,
        client: &Client,
        publisher: PeerId,
        addrs: &[Multiaddr],
        head: Cid,
        keep: Option<u64>,
    ) -> Self {
        let ahead = Ahead { next_ad: Some(head), left: keep.unwrap_or(u64::MAX), fetching: HashMap::new() };
        let blocks = Shared {
            remote: client.remote(publisher, addrs),
            store: Arc::clone(&context.store),
            ahead: Mutex::new(ahead),
            hands: Arc::new(Semaphore::new(limits::MAX_IPNI_AHEAD_REQUESTS)),
            waiting: Arc::default(),
        };
        let on_mesh = addrs.is_empty() || addrs.iter().any(|addr| !is_http(addr));
        Self {
            context: context.clone(),
            publisher,
            on_mesh,
            speaks_native: OnceCell::new(),
            blocks: SingleBlocks(Arc::new(blocks)),
        }
    }

    async fn speaks_native(&self) -> bool {
        let ask = async { tokio::time::timeout(NATIVE_PATIENCE, self.ask_protocols()).await.unwrap_or(false) };
        *self.speaks_native.get_or_init(|| ask).await
    }

    /// Whether the publisher says that it speaks the native protocol. A stream does not tell: that a peer does not speak
    /// its protocol is known at the first answer alone.
    async fn ask_protocols(&self) -> bool {
        let swarm = &self.context.swarm;
        let mut events = swarm.events();
        let mut dialled = !self.on_mesh;
        loop {
            let peers = swarm.peers().await.unwrap_or_default();
            match peers.iter().find(|peer| peer.peer == self.publisher) {
                Some(peer) if !peer.protocols.is_empty() => {
                    return peer.protocols.iter().any(|name| *name == message::PROTOCOL);
                }
                Some(_) => {}
                None if dialled || swarm.dial_peer(self.publisher).await.is_err() => return false,
                None => {
                    dialled = true;
                    continue;
                }
            }
            // It has not told yet.
            match events.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return false,
            }
        }
    }
}

impl Provider for ChainProvider {
    async fn ready(&self) -> Result<(), FetchError> {
        self.speaks_native().await;
        Ok(())
    }

    async fn sync<O: Observer>(&self, fetch: Fetch<O>) -> (Option<Fetch<O>>, Result<(), FetchError>) {
        if self.speaks_native().await {
            return self.context.client.provider(self.publisher).sync(fetch).await;
        }
        piecewise::sync(&self.blocks, fetch).await
    }
}

/// Asks for one block at a time. A chain gives away its next link only with each block, so while it comes, the entries
/// of the advertisements that are there already are fetched beside it, and wait here until the sync asks for them.
struct SingleBlocks(Arc<Shared>);

struct Shared {
    remote: Remote,
    store: Arc<Store>,
    ahead: Mutex<Ahead>,
    hands: Arc<Semaphore>,
    /// Bytes that have come and have not been asked for.
    waiting: Arc<AtomicU64>,
}

struct Ahead {
    /// The advertisement that comes next in the chain.
    next_ad: Option<Cid>,
    /// Of so many more advertisements the entries are wanted.
    left: u64,
    fetching: HashMap<Cid, AbortOnDropHandle<Answer>>,
}

type Answer = Result<Option<Bytes>, FetchError>;

impl Blocks for SingleBlocks {
    async fn block(&self, cid: Cid) -> Answer {
        let fetching = self.0.ahead.lock().fetching.remove(&cid);
        if let Some(fetching) = fetching
            && let Ok(Ok(answer)) = fetching.await
        {
            self.0.waiting.fetch_sub(answer.as_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
            return Ok(answer);
        }
        let is_ad = self.0.ahead.lock().next_ad == Some(cid);
        let kind = if is_ad { Kind::Advertisement } else { Kind::EntryChunk };
        let Some(block) = self.get(cid, kind).await? else { return Ok(None) };
        if is_ad {
            self.note_ad(&block);
        }
        Ok(Some(block.into_parts().1))
    }
}

impl SingleBlocks {
    async fn get(&self, cid: Cid, kind: Kind) -> Result<Option<Block>, FetchError> {
        match self.0.remote.block(cid, kind).await {
            Ok(block) => Ok(Some(block)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(fetch_error(error)),
        }
    }

    /// Remembers what comes next in the chain, and begins to fetch the entries.
    fn note_ad(&self, block: &Block) {
        let Ok(ad) = Advertisement::from_block(block) else { return };
        let wanted = {
            let mut ahead = self.0.ahead.lock();
            ahead.next_ad = ad.previous_id;
            let wanted = ahead.left > 0;
            ahead.left = ahead.left.saturating_sub(1);
            wanted
        };
        if wanted && ad.entries != NO_ENTRIES {
            self.look_ahead(ad.entries);
        }
    }

    /// Begins to fetch a block before it is asked for, and what it links to, as far as there is room.
    fn look_ahead(&self, cid: Cid) {
        let mut ahead = self.0.ahead.lock();
        let full = self.0.waiting.load(Ordering::Relaxed) >= limits::MAX_IPNI_AHEAD_BYTES;
        if full || ahead.fetching.len() >= limits::MAX_IPNI_AHEAD_BLOCKS || ahead.fetching.contains_key(&cid) {
            return;
        }
        // Not a strong one: it would keep itself alive through the handle.
        let this = Arc::downgrade(&self.0);
        let (hands, store) = (Arc::clone(&self.0.hands), Arc::clone(&self.0.store));
        let fetching = tokio::spawn(async move {
            let _hand = hands.acquire_owned().await;
            let held = tokio::task::spawn_blocking(move || store.has(&cid)).await;
            let Some(this) = this.upgrade().map(SingleBlocks).filter(|_| !matches!(held, Ok(Ok(true)))) else {
                return Err(FetchError::Stream("it is not fetched ahead".to_owned()));
            };
            let Some(block) = this.get(cid, Kind::EntryChunk).await? else { return Ok(None) };
            for link in links::links(&block).unwrap_or_default() {
                this.look_ahead(link);
            }
            let data = block.into_parts().1;
            this.0.waiting.fetch_add(data.len() as u64, Ordering::Relaxed);
            Ok(Some(data))
        });
        ahead.fetching.insert(cid, AbortOnDropHandle::new(fetching));
    }
}

pub(super) fn fetch_error(error: NetError) -> FetchError {
    match error {
        error if error.is_bad_peer() => FetchError::BadAnswer(error.to_string()),
        error => FetchError::Unreachable(error.to_string()),
    }
}
