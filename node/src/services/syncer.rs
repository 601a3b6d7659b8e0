//! One explicit sync, for `sync` and for callers with hooks of their own.

use std::sync::Arc;

use cid::Cid;
use dagmesh_dag::{Entry, SignedHead, selector::Selector, walk::Root};
use dagmesh_dagsync::{
    Fetch, FetchConfig, FetchError, FetchStats, Flow, Observer,
    feed_sync::{BlockHook, EntryRef, FeedSync, Journal, Phase, Plan, Provider, Saved, Schema},
    follower::FollowKey,
    head::HeadQuery,
};
use libp2p::{Multiaddr, PeerId};

use super::{
    Context,
    ipni::{self, Ipni, Wanted},
    journal::Gauge,
};
use crate::{
    api::ProgressSink,
    error::{ErrorKind, NodeError},
    store::{Pin, PinKind},
    types::{self, SyncRequest, Synced},
};

/// Makes what is needed of a target known to the swarm, and connects to it.
pub(crate) async fn reach(context: &Context, peer: PeerId, addrs: &[Multiaddr]) -> Result<(), NodeError> {
    for addr in addrs {
        context.swarm.add_address(peer, addr.clone()).await?;
    }
    Ok(context.swarm.dial_peer(peer).await?)
}

/// Asks a peer for the head of one of its feeds.
pub(crate) async fn ask_head(
    context: &Context,
    peer: PeerId,
    feed: &dagmesh_dag::FeedName,
) -> Result<SignedHead, NodeError> {
    let query = HeadQuery { publisher: None, feed: Some(feed.clone()) };
    let heads = context.client.heads(peer, &query).await.map_err(|error| {
        NodeError::new(ErrorKind::NoPeers, format!("{peer} could not be asked for the head of {feed}: {error}"))
    })?;
    let head = heads.into_iter().next();
    head.ok_or_else(|| NodeError::not_found(format!("{peer} publishes no feed named {feed}")))
}

/// Syncs as asked, and moves no `latest`.
pub(crate) async fn sync(
    context: &Context,
    ipni: &Ipni,
    request: SyncRequest,
    hook: Option<Arc<dyn BlockHook>>,
    progress: ProgressSink,
) -> Result<Synced, NodeError> {
    let key = match &request.ipni {
        Some(network) => ipni.key(&request.target, Some(network.as_str()).filter(|network| !network.is_empty()))?,
        None => FollowKey { publisher: request.target.peer(), feed: request.target.feed_or(request.feed.clone()) },
    };
    let (peer, feed, is_chain) = (key.publisher, key.feed, request.ipni.is_some());
    let _protection = context.store.protect();
    if !is_chain {
        reach(context, peer, request.target.addrs()).await?;
    }
    let (head, seq) = match request.head {
        Some(head) => (head, None),
        None if is_chain => (ipni.ask_head(peer, request.target.addrs()).await?, None),
        None => {
            let head = ask_head(context, peer, &feed).await?;
            (*head.head(), Some(head.seq()))
        }
    };
    let known = match (request.stop, request.resync) {
        (Some(stop), _) => Some(Stop::Asked(stop)),
        (None, true) => None,
        (None, false) => context
            .blocking(move |store| Ok(store.follow(&peer, &feed)?))
            .await?
            .and_then(|follow| Some(Stop::Latest(follow.latest?, follow.latest_seq))),
    };
    let stop = known.as_ref().map(Stop::cid);
    let hook = hook.or_else(|| context.hook.clone());
    let provider = context.client.provider(peer);
    let mut entries = 0;
    let (is_feed, first) = match stop == Some(head) || is_chain {
        true => (is_chain, None),
        false => look(context, peer, head).await?,
    };
    // The head was fetched to look at it; to whoever counts and hooks, it came with the rest.
    let hook = match (hook, first) {
        (Some(hook), Some(_)) => Some(Arc::new(Arrived { hook, head }) as Arc<dyn BlockHook>),
        (hook, _) => hook,
    };
    let mut stats = if stop == Some(head) {
        FetchStats::default()
    } else if is_feed {
        let latest = match known {
            Some(Stop::Latest(cid, seq)) => Some((cid, seq)),
            Some(Stop::Asked(cid)) => Some((cid, stop_seq(context, cid).await?)),
            None => None,
        };
        let (depth, segment) = (request.depth, request.segment);
        let plan = Plan {
            schema: if is_chain { ipni::ADS } else { Schema::FEED },
            head,
            seq,
            latest,
            depth,
            first_depth: None,
            keep: None,
            segment,
            saved: None,
        };
        let journal = Shown { gauge: Gauge::default(), progress };
        let mut sync = FeedSync::new(context.store.clone(), journal, hook, plan);
        let report = match is_chain {
            true => {
                context.blocking(|store| Ok(ipni::hold_no_entries(store)?)).await?;
                sync.run(&ipni.provider(
                    peer,
                    request.target.addrs(),
                    Wanted { stop, depth: request.depth, keep: None },
                ))
                .await
            }
            false => sync.run(&provider).await,
        };
        let report = report.map_err(|error| failed(peer, &error))?;
        entries = report.entries;
        report.stats
    } else {
        let roots = vec![(0, Root { cid: head, selector: Selector::all_until(request.depth, None), held: None })];
        let config =
            FetchConfig { stop: stop.into_iter().collect(), segment: request.segment, ..FetchConfig::default() };
        let fetch = Fetch::new(context.store.clone(), config, roots, Hooked(hook));
        let (fetch, result) = provider.sync(fetch).await;
        result.map_err(|error| failed(peer, &error))?;
        fetch.map(|fetch| fetch.stats()).unwrap_or_default()
    };
    if let Some(first) = first {
        stats.blocks += first.blocks;
        stats.bytes += first.bytes;
        stats.from_cache = stats.from_cache.saturating_sub(first.blocks);
    }
    // Somebody asked for it by name: it stays until that is taken back. A stop link, a depth or a hook leaves gaps.
    let pin = Pin { kind: PinKind::Held, name: "sync".to_owned() };
    context.blocking(move |store| Ok(store.pin(&head, &pin)?)).await?;
    let FetchStats { blocks, bytes, from_cache, segments, .. } = stats;
    Ok(Synced { head, stop, blocks, bytes, segments, from_cache, entries })
}

enum Stop {
    Asked(Cid),
    Latest(Cid, u64),
}

impl Stop {
    fn cid(&self) -> Cid {
        match self {
            Self::Asked(cid) | Self::Latest(cid, _) => *cid,
        }
    }
}

/// Fetches one block, and tells whether it is an entry of a feed, and what travelled for that, if anything did.
async fn look(context: &Context, peer: PeerId, head: Cid) -> Result<(bool, Option<FetchStats>), NodeError> {
    let roots = vec![(0, Root { cid: head, selector: Selector::matcher(), held: None })];
    let fetch = Fetch::new(context.store.clone(), FetchConfig::default(), roots, ());
    let (fetch, result) = context.client.provider(peer).sync(fetch).await;
    result.map_err(|error| match error {
        FetchError::Missing { .. } => NodeError::not_found(format!("{peer} does not hold {head}")),
        error => failed(peer, &error),
    })?;
    let travelled = fetch.map(|fetch| fetch.stats()).filter(|stats| stats.blocks > 0);
    let is_feed = context.blocking(move |store| {
        let block = dagmesh_dag::Blockstore::block(store, &head)?;
        Ok(block.is_some_and(|block| Entry::from_block(&block).is_ok()))
    });
    Ok((is_feed.await?, travelled))
}

/// Shows the head, which is held since it was looked at, as received.
struct Arrived {
    hook: Arc<dyn BlockHook>,
    head: Cid,
}

impl BlockHook for Arrived {
    fn block(&self, block: &dagmesh_dag::Block, received: bool) -> Flow {
        self.hook.block(block, received || *block.cid() == self.head)
    }
}

/// The number of an entry that the caller named as stop link; 0 where it is not held, so that only its CID counts.
async fn stop_seq(context: &Context, stop: Cid) -> Result<u64, NodeError> {
    context
        .blocking(move |store| {
            let block = dagmesh_dag::Blockstore::block(store, &stop)?;
            Ok(block.and_then(|block| Entry::from_block(&block).ok()).map_or(0, |entry| entry.seq))
        })
        .await
}

pub(crate) fn failed(peer: PeerId, error: &FetchError) -> NodeError {
    let kind = match error {
        FetchError::Hook(_) => ErrorKind::Interrupted,
        FetchError::Missing { .. } => ErrorKind::Partial,
        FetchError::Refused(_) => ErrorKind::Unauthorised,
        FetchError::TooSlow(_) => ErrorKind::Timeout,
        FetchError::Unreachable(_) | FetchError::Stream(_) | FetchError::Busy(_) => ErrorKind::NoPeers,
        FetchError::Store(_) => ErrorKind::Storage,
        error if error.is_bad_peer() => ErrorKind::Verification,
        _ => ErrorKind::Error,
    };
    NodeError::new(kind, format!("the sync from {peer} ended: {error}; what came is kept, try again to go on"))
}

struct Hooked(Option<Arc<dyn BlockHook>>);

impl Observer for Hooked {
    fn block(&mut self, _: usize, _: &dagmesh_dag::walk::Visit, block: &dagmesh_dag::Block, received: bool) -> Flow {
        self.0.as_ref().map_or(Flow::Continue, |hook| hook.block(block, received))
    }

    fn wants_held(&self) -> bool {
        self.0.is_some()
    }
}

/// Keeps nothing and shows how far it is.
struct Shown {
    gauge: Gauge,
    progress: ProgressSink,
}

impl Journal for Shown {
    fn save(&self, _: Option<&Saved>) -> Result<(), dagmesh_dag::StoreError> {
        Ok(())
    }

    fn move_latest(&self, _: &[EntryRef], _: Option<&Saved>) -> Result<(), dagmesh_dag::StoreError> {
        Ok(())
    }

    fn progress(&self, phase: Phase, stats: FetchStats, waiting: usize) {
        self.gauge.set(phase, stats, waiting);
        self.progress.send(report(&self.gauge));
    }
}

/// A gauge as the local API shows it.
pub(crate) fn report(gauge: &Gauge) -> types::Progress {
    use std::sync::atomic::Ordering::Relaxed;
    types::Progress {
        phase: if gauge.chain.load(Relaxed) { types::Phase::Chain } else { types::Phase::Content },
        done_blocks: gauge.have.load(Relaxed),
        known_blocks: gauge.known.load(Relaxed),
        bytes: gauge.bytes.load(Relaxed),
        ..types::Progress::default()
    }
}
