//! A publisher of the IPNI network as a provider for a sync: natively where it speaks that, else block by block over
//! HTTP.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{Block, Blockstore, links, selector::Selector};
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
use tokio::sync::{OnceCell, Semaphore, broadcast::error::RecvError, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::is_http;
use crate::{services::Context, store::Store};

/// How long the native protocol is tried before HTTP is taken.
const NATIVE_PATIENCE: Duration = Duration::from_secs(3);

/// Entries are asked for a part of a round trip after their chain's next link, so that the answers do not come together:
/// the chain is what a far sync waits for. In this range; below it at once.
const MIN_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_millis(25);

/// What is wanted of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The advertisement that is not fetched, nor what is behind it.
    pub(crate) stop: Option<Cid>,
    /// Most advertisements.
    pub(crate) depth: Option<u64>,
    /// The entries of so many of the newest ones; of all where absent.
    pub(crate) keep: Option<u64>,
}

/// One publisher.
pub(crate) struct ChainProvider {
    context: Context,
    publisher: PeerId,
    /// Whether it may be on the mesh: not where only addresses of HTTP are known of it.
    on_mesh: bool,
    speaks_native: OnceCell<bool>,
    single: Arc<SingleBlocks>,
}

impl ChainProvider {
    /// The publisher at `addrs`, over HTTP by `client`.
    pub(super) fn new(
        context: &Context,
        client: &Client,
        publisher: PeerId,
        addrs: &[Multiaddr],
        wanted: Wanted,
    ) -> Self {
        let single = SingleBlocks {
            remote: client.remote(publisher, addrs),
            store: Arc::clone(&context.store),
            wanted,
            left: AtomicU64::new(wanted.keep.unwrap_or(u64::MAX)),
            ahead: Mutex::default(),
            hands: Arc::new(Semaphore::new(limits::MAX_IPNI_AHEAD_REQUESTS)),
            waiting: AtomicU64::new(0),
        };
        let on_mesh = addrs.is_empty() || addrs.iter().any(|addr| !is_http(addr));
        let (context, single) = (context.clone(), Arc::new(single));
        Self { context, publisher, on_mesh, speaks_native: OnceCell::new(), single }
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
        let single = Arc::clone(&self.single);
        // Contents are wanted whole, a chain by its one field.
        match fetch.first_root().is_some_and(|root| root.selector == Selector::all()) {
            true => piecewise::sync(&Entries(single), fetch).await,
            false => piecewise::sync(&Ads { single, run: tokio::sync::Mutex::default() }, fetch).await,
        }
    }
}

/// Asks for one block at a time. A chain gives away its next link only with each block: its length is what a far sync
/// takes. So the next one is asked for as soon as one has come, whatever the sync is at; and beside the chain, the entries
/// of the advertisements that are there already are fetched, and wait here until the sync asks for them.
struct SingleBlocks {
    remote: Remote,
    store: Arc<Store>,
    wanted: Wanted,
    /// Of so many more advertisements the entries are wanted.
    left: AtomicU64,
    /// Entries that are fetched before they are asked for.
    ahead: Mutex<HashMap<Cid, AbortOnDropHandle<Answer>>>,
    hands: Arc<Semaphore>,
    /// Bytes of entries that have come and have not been asked for.
    waiting: AtomicU64,
}

type Answer = Result<Option<Bytes>, FetchError>;

/// The advertisements of a chain.
struct Ads {
    single: Arc<SingleBlocks>,
    run: tokio::sync::Mutex<Option<Run>>,
}

/// A chain on its way, in its order, and not further ahead than the channel holds.
struct Run {
    ads: mpsc::Receiver<(Cid, Answer)>,
    _task: AbortOnDropHandle<()>,
}

/// What the advertisements are about.
struct Entries(Arc<SingleBlocks>);

impl Blocks for Ads {
    async fn block(&self, cid: Cid) -> Answer {
        let mut run = self.run.lock().await;
        for fresh in [false, true] {
            if fresh {
                // The first question, or the sync has come past what it holds, or was sent elsewhere.
                let (sender, ads) = mpsc::channel(limits::MAX_PIECEWISE_REQUESTS);
                let task = tokio::spawn(Arc::clone(&self.single).run_ahead(cid, sender));
                *run = Some(Run { ads, _task: AbortOnDropHandle::new(task) });
            }
            let Some(run) = run.as_mut() else { continue };
            if let Some((at, answer)) = run.ads.recv().await
                && at == cid
            {
                return answer;
            }
        }
        self.single.get(cid, Kind::Advertisement).await
    }
}

impl Blocks for Entries {
    async fn block(&self, cid: Cid) -> Answer {
        let ahead = self.0.ahead.lock().remove(&cid);
        if let Some(ahead) = ahead
            && let Ok(Ok(answer)) = ahead.await
        {
            self.0.waiting.fetch_sub(answer.as_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
            return Ok(answer);
        }
        self.0.get(cid, Kind::EntryChunk).await
    }
}

impl SingleBlocks {
    async fn get(&self, cid: Cid, kind: Kind) -> Answer {
        match self.remote.block(cid, kind).await {
            Ok(block) => Ok(Some(block.into_parts().1)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(fetch_error(error)),
        }
    }

    /// Fetches a chain from `first` back, down to the stop link, the depth, or what is held.
    async fn run_ahead(self: Arc<Self>, first: Cid, ads: mpsc::Sender<(Cid, Answer)>) {
        let (mut next, mut came, mut entries) = (Some(first), None, None);
        let mut pause = Duration::ZERO;
        let mut left = self.wanted.depth.unwrap_or(u64::MAX);
        while let Some(cid) = next.take().filter(|_| left > 0) {
            left -= 1;
            let asked = Instant::now();
            let mut get = pin!(self.get(cid, Kind::Advertisement));
            // The chain comes first to a connection that is free; all else waits until its question is on the way.
            let begun = futures::poll!(&mut get);
            entries.take().into_iter().for_each(|entries| self.look_ahead(entries, pause));
            if let Some(before) = came.take() {
                let held = self.holds(cid);
                if ads.send(before).await.is_err() || held.await {
                    return;
                }
            }
            let answer = match begun {
                Poll::Ready(answer) => answer,
                Poll::Pending => get.await,
            };
            pause = (asked.elapsed() / 4).min(MAX_PAUSE);
            let block = answer.as_ref().ok().and_then(|data| Some(Block::trusted(cid, data.clone()?)));
            if let Some(ad) = block.and_then(|block| Advertisement::from_block(&block).ok()) {
                entries = Some(ad.entries).filter(|entries| *entries != NO_ENTRIES && self.is_wanted());
                next = ad.previous_id.filter(|previous| Some(*previous) != self.wanted.stop);
            }
            came = Some((cid, answer));
        }
        entries.into_iter().for_each(|entries| self.look_ahead(entries, Duration::ZERO));
        if let Some(last) = came {
            let _ = ads.send(last).await;
        }
    }

    /// Counts one more advertisement whose entries are fetched; `false` where no more are wanted.
    fn is_wanted(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    async fn holds(&self, cid: Cid) -> bool {
        let store = Arc::clone(&self.store);
        // What cannot be looked up now is asked for, and the sync says what is wrong with the store.
        tokio::task::spawn_blocking(move || store.has(&cid).unwrap_or(false)).await.unwrap_or(false)
    }

    /// Begins to fetch a block before it is asked for, after a pause, and what it links to, as far as there is room.
    fn look_ahead(self: &Arc<Self>, cid: Cid, pause: Duration) {
        let mut ahead = self.ahead.lock();
        let full = self.waiting.load(Ordering::Relaxed) >= limits::MAX_IPNI_AHEAD_BYTES;
        if full || ahead.len() >= limits::MAX_IPNI_AHEAD_BLOCKS || ahead.contains_key(&cid) {
            return;
        }
        // Not a strong one: it would keep itself alive through the handle.
        let (this, hands) = (Arc::downgrade(self), Arc::clone(&self.hands));
        let fetching = tokio::spawn(async move {
            // The clock counts in milliseconds: a shorter pause would become a longer one.
            if pause >= MIN_PAUSE {
                tokio::time::sleep(pause).await;
            }
            let _hand = hands.acquire_owned().await;
            let gone = || FetchError::Stream("it is not fetched ahead".to_owned());
            let this = this.upgrade().ok_or_else(gone)?;
            if this.holds(cid).await {
                return Err(gone());
            }
            let Some(data) = this.get(cid, Kind::EntryChunk).await? else { return Ok(None) };
            for link in links::links(&Block::trusted(cid, data.clone())).unwrap_or_default() {
                this.look_ahead(link, Duration::ZERO);
            }
            this.waiting.fetch_add(data.len() as u64, Ordering::Relaxed);
            Ok(Some(data))
        });
        ahead.insert(cid, AbortOnDropHandle::new(fetching));
    }
}

fn fetch_error(error: NetError) -> FetchError {
    match error {
        error if error.is_bad_peer() => FetchError::BadAnswer(error.to_string()),
        error => FetchError::Unreachable(error.to_string()),
    }
}
