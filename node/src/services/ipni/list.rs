//! Advertisements that are held, shown.

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{Block, Blockstore};
use dagmesh_dagsync::follower::FollowKey;
use dagmesh_ipnisync::{Advertisement, Entries, EntryChunk, HamtNode, NO_ENTRIES};
use data_encoding::HEXLOWER;

use super::{Ipni, check, feed_of};
use crate::{
    config::is_network,
    error::NodeError,
    store::Store,
    ticket::Target,
    types::{IpniAd, IpniAdsRequest, IpniEntries},
};

/// Entries listed where no limit is named.
const DEFAULT_ENTRIES: usize = 1000;
/// Advertisements listed where no limit is named.
const DEFAULT_LISTED: usize = 100;

impl Ipni {
    /// One advertisement; the head of the own chain where none is named.
    pub(crate) async fn ad(&self, cid: Option<Cid>) -> Result<IpniAd, NodeError> {
        let cid = match cid {
            Some(cid) => cid,
            None => self.own_head().await?,
        };
        self.context.blocking(move |store| read(store, cid)?.ok_or_else(|| not_held(cid)).map(|(ad, _)| ad)).await
    }

    /// The multihashes of one advertisement, in chunks or in a HAMT, as far as they are held.
    pub(crate) async fn entries(&self, cid: Option<Cid>, limit: Option<usize>) -> Result<IpniEntries, NodeError> {
        let cid = match cid {
            Some(cid) => cid,
            None => self.own_head().await?,
        };
        let limit = limit.unwrap_or(DEFAULT_ENTRIES).min(limits::MAX_IPNI_LISTED_ENTRIES);
        self.context.blocking(move |store| entries(store, cid, limit)).await
    }

    /// A chain, the newest advertisement first, as far as it is held.
    pub(crate) async fn ads(&self, request: IpniAdsRequest) -> Result<Vec<IpniAd>, NodeError> {
        let head = match &request.target {
            Some(target) if target.peer() != self.context.swarm.local_peer_id() => {
                let key = self.key(target, request.network.as_deref())?;
                let of = key.clone();
                let record = self.context.blocking(move |store| Ok(store.follow(&of.publisher, &of.feed)?)).await?;
                let record = record.ok_or_else(|| {
                    let publisher = key.publisher;
                    NodeError::not_found(format!(
                        "the chain of {publisher} is not followed; `dagmesh ipni follow {publisher}` does"
                    ))
                })?;
                record.latest
            }
            _ => Some(self.own_head().await?),
        };
        let limit = request.limit.unwrap_or(DEFAULT_LISTED).min(limits::MAX_IPNI_LISTED_ADS);
        self.context
            .blocking(move |store| {
                let (mut ads, mut next) = (Vec::new(), head);
                while let Some(cid) = next.filter(|_| ads.len() < limit) {
                    // A chain that is followed from some depth on ends there.
                    let Some((ad, previous)) = read(store, cid)? else { break };
                    ads.push(ad);
                    next = previous;
                }
                Ok(ads)
            })
            .await
    }

    /// The chain of a publisher, as what is followed.
    pub(crate) fn key(&self, target: &Target, network: Option<&str>) -> Result<FollowKey, NodeError> {
        let network = network.unwrap_or(self.network());
        let feed = feed_of(network)
            .filter(|_| is_network(network))
            .ok_or_else(|| NodeError::usage(format!("{network:?} is no name of a network, such as mainnet")))?;
        Ok(FollowKey { publisher: target.peer(), feed })
    }
}

fn not_held(cid: Cid) -> NodeError {
    NodeError::not_found(format!("{cid} is not held; it comes with the chain it stands in: `dagmesh ipni follow`"))
}

/// Reads an advertisement, and checks its signatures; `None` where it is not held.
fn read(store: &Store, cid: Cid) -> Result<Option<(IpniAd, Option<Cid>)>, NodeError> {
    let Some(block) = store.block(&cid)? else { return Ok(None) };
    let ad = Advertisement::from_block(&block)
        .map_err(|error| NodeError::usage(format!("{cid} is no advertisement: {error}")))?;
    let previous = ad.previous_id;
    Ok(Some((shown(&block, ad), previous)))
}

/// Walks the chunks, or the nodes of the HAMT, in depth-first order.
fn entries(store: &Store, cid: Cid, limit: usize) -> Result<IpniEntries, NodeError> {
    let block = store.block(&cid)?.ok_or_else(|| not_held(cid))?;
    let ad = Advertisement::from_block(&block)
        .map_err(|error| NodeError::usage(format!("{cid} is no advertisement: {error}")))?;
    let mut found = IpniEntries { ad: cid, multihashes: Vec::new(), complete: true };
    let (mut waiting, mut root) = (vec![ad.entries], true);
    waiting.retain(|cid| *cid != NO_ENTRIES);
    while let Some(cid) = waiting.pop() {
        let Some(block) = store.block(&cid)? else {
            found.complete = false;
            continue;
        };
        let read = match root {
            true => Entries::from_block(&block),
            // Below the root of a HAMT stand nodes, behind a chunk stand chunks.
            false => match EntryChunk::from_block(&block) {
                Ok(chunk) => Ok(Entries::Chunk(chunk)),
                Err(error) => HamtNode::from_block(&block).map(Entries::Hamt).map_err(|_| error),
            },
        };
        root = false;
        let read = read.map_err(|error| NodeError::verification(format!("{cid} holds no entries: {error}")))?;
        let hashes: Vec<_> = match &read {
            Entries::Chunk(chunk) => chunk.multihashes().collect(),
            Entries::Hamt(node) => node.multihashes().collect(),
        };
        for hash in hashes {
            if found.multihashes.len() >= limit {
                found.complete = false;
                return Ok(found);
            }
            found.multihashes.push(HEXLOWER.encode(&hash.to_bytes()));
        }
        match read {
            Entries::Chunk(chunk) => waiting.extend(chunk.next),
            Entries::Hamt(node) => waiting.extend(node.links.into_iter().rev()),
        }
    }
    Ok(found)
}

fn shown(block: &Block, ad: Advertisement) -> IpniAd {
    let checked = check(block);
    let extended = ad.extended_provider.iter().flat_map(|extended| &extended.providers);
    IpniAd {
        cid: *block.cid(),
        previous: ad.previous_id,
        extended: extended.map(|provider| provider.id.clone()).collect(),
        entries: ad.entries,
        context_id: HEXLOWER.encode(&ad.context_id),
        metadata: HEXLOWER.encode(&ad.metadata),
        is_rm: ad.is_rm,
        verified: checked.is_ok(),
        signer: checked.as_ref().ok().map(|(_, signers)| signers.advertisement),
        unproven: match &checked {
            Ok((ad, signers)) => signers.unproven(ad).map(|provider| provider.id.clone()).collect(),
            Err(_) => Vec::new(),
        },
        problem: checked.err(),
        provider: ad.provider,
        addresses: ad.addresses,
    }
}
