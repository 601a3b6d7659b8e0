//! The own chain: advertisements made, appended, announced.

use std::path::PathBuf;

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use dagmesh_announce::Announcement;
use dagmesh_core::limits;
use dagmesh_dag::{Blockstore, Codec};
use dagmesh_dagsync::follower::FollowKey;
use dagmesh_ipnisync::{
    Advertisement, Chunks, NO_ENTRIES, SignedHead,
    net::{AnnounceBody, NetError},
};
use libp2p::{Multiaddr, identity::Keypair, multiaddr::Protocol};

use super::{Ipni, entries, feed_of, hold_no_entries, schema::topic};
use crate::{
    error::{ErrorKind, NodeError},
    services::rendezvous,
    store::Store,
    types::{Event, IpniAnnounced, IpniPublished},
};

/// Entry chunks written in one step.
const CHUNKS_PER_STEP: usize = 8;
/// The codec of what is published: the one that go-libipni's publishers use, and every reader takes.
const CODEC: Codec = Codec::DagJson;

/// What an advertisement says beside its entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct AdContent {
    /// What the provider calls these entries; the CID of the entries where absent.
    pub(crate) context_id: Option<Vec<u8>>,
    /// How the content is fetched.
    pub(crate) metadata: Vec<u8>,
    /// The provider has it no more.
    pub(crate) is_rm: bool,
}

impl Ipni {
    /// Appends an advertisement for the multihashes of `file` (none where absent) to the own chain of the network, and
    /// announces it. Entries, advertisement and head are on the disk before anybody hears of them.
    pub(crate) async fn publish(
        &self,
        file: Option<PathBuf>,
        content: AdContent,
        announce: bool,
    ) -> Result<IpniPublished, NodeError> {
        let _one_at_a_time = self.publishing.lock().await;
        let network = self.network().to_owned();
        self.hear(&network).await?;
        let addrs = self.context.swarm.addrs().await?;
        let (key, of) = (self.context.key.clone(), network.clone());
        let made = self.context.blocking(move |store| append(store, &key, &of, file, content, &addrs)).await?;
        let (published, before) = made;
        self.provide(&network, published.ad, before);
        if let Some(feed) = feed_of(&network) {
            self.context.events.tell(Event::Published { feed, head: published.ad, seq: published.ads });
        }
        let announced_to = match announce {
            true => self.announce_on_topic(published.ad).await,
            false => 0,
        };
        Ok(IpniPublished { announced_to, ..published })
    }

    /// The head of the own chain; an error where there is none yet.
    pub(crate) async fn own_head(&self) -> Result<Cid, NodeError> {
        let network = self.network().to_owned();
        let chain = self.context.blocking(move |store| Ok(store.own_chain(&network)?)).await?;
        chain.map(|chain| chain.head).ok_or_else(|| {
            NodeError::not_found("this node has published no advertisement yet; `dagmesh ipni publish FILE` does")
        })
    }

    /// The head of the own chain, signed, as it is served; `None` before the first advertisement.
    pub(crate) async fn signed_head(&self) -> Result<Option<Bytes>, NodeError> {
        let (network, key) = (self.network().to_owned(), self.context.key.clone());
        let signed = self.context.blocking(move |store| {
            let Some(chain) = store.own_chain(&network)? else { return Ok(None) };
            let head = SignedHead::sign(&key, chain.head, &topic(&network)).and_then(|head| head.encode(CODEC));
            Ok(Some(Bytes::from(head.map_err(|error| NodeError::other(error.to_string()))?)))
        });
        signed.await
    }

    /// Announces a head of the own chain on the topic of the network; returns to how many peers it went.
    pub(crate) async fn announce_on_topic(&self, head: Cid) -> usize {
        let announced = async {
            let message = self.announcement(head).await?;
            let message = message.encode().map_err(|error| NodeError::other(error.to_string()))?;
            Ok::<_, NodeError>(self.context.swarm.publish(topic(self.network()), message).await)
        };
        match announced.await {
            Ok(Ok(peers)) => peers,
            Ok(Err(error)) => {
                tracing::info!(%head, %error, "the advertisement is not announced on gossip now");
                0
            }
            Err(error) => {
                tracing::warn!(%head, %error, "the advertisement cannot be announced");
                0
            }
        }
    }

    /// Announces a head of the own chain to an indexer over HTTP.
    pub(crate) async fn announce_to(
        &self,
        url: &str,
        head: Option<Cid>,
        cbor: bool,
    ) -> Result<IpniAnnounced, NodeError> {
        let head = match head {
            Some(head) => head,
            None => self.own_head().await?,
        };
        let message = self.announcement(head).await?;
        let body = match cbor {
            true => message.encode().map(|bytes| AnnounceBody::Cbor(bytes.into())),
            false => message.encode_json().map(|bytes| AnnounceBody::Json(bytes.into())),
        };
        let told = self.client.announce(url, body.map_err(|error| NodeError::other(error.to_string()))?).await;
        told.map_err(|error| {
            let kind = match &error {
                NetError::Url { .. } => ErrorKind::Usage,
                NetError::Status { status: 401 | 403, .. } => ErrorKind::Unauthorised,
                // Somebody is there, and does not take it.
                NetError::Status { .. } | NetError::Redirect { .. } => ErrorKind::Error,
                error if error.is_bad_peer() => ErrorKind::Error,
                _ => ErrorKind::NoPeers,
            };
            NodeError::new(kind, format!("{url} was not told of {head}: {error}"))
        })?;
        Ok(IpniAnnounced { head, to: url.to_owned() })
    }

    /// Names every address at which the chain is served, each with our peer id, as receivers over HTTP demand.
    async fn announcement(&self, head: Cid) -> Result<Announcement, NodeError> {
        let own = self.context.swarm.local_peer_id();
        let mut addrs: Vec<Multiaddr> = self.http_addrs();
        addrs.extend(self.context.swarm.addrs().await?);
        for addr in &mut addrs {
            if !matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
                addr.push(Protocol::P2p(own));
            }
        }
        Ok(Announcement::bare(head, addrs))
    }

    /// Provides the head of an own chain in Kademlia, and the one before it no longer.
    pub(super) fn provide(&self, network: &str, head: Cid, before: Option<Cid>) {
        let Some(feed) = feed_of(network) else { return };
        let key = FollowKey { publisher: self.context.swarm.local_peer_id(), feed };
        rendezvous::provide(&self.context, &key, &head, before.as_ref().map(rendezvous::head_key));
    }
}

/// Makes entries and advertisement, durable, and moves the head of the chain.
fn append(
    store: &Store,
    key: &Keypair,
    network: &str,
    file: Option<PathBuf>,
    content: AdContent,
    addrs: &[Multiaddr],
) -> Result<(IpniPublished, Option<Cid>), NodeError> {
    let _protection = store.protect();
    let hashes = file.as_deref().map(entries::read).transpose()?.unwrap_or_default();
    let multihashes = hashes.len() as u64;
    let (entries, chunks) = write_chunks(store, hashes)?;
    let before = store.own_chain(network)?.map(|chain| chain.head);
    let peer = key.public().to_peer_id();
    let mut ad = Advertisement {
        previous_id: before,
        provider: peer.to_string(),
        addresses: addrs.iter().map(|addr| without_peer(addr).to_string()).take(limits::MAX_IPNI_ADDRS).collect(),
        signature: Vec::new(),
        entries,
        context_id: content.context_id.unwrap_or_else(|| entries.to_bytes()),
        metadata: content.metadata,
        is_rm: content.is_rm,
        extended_provider: None,
    };
    let refused =
        |error: dagmesh_ipnisync::IpniError| NodeError::usage(format!("the advertisement cannot be made: {error}"));
    ad.sign(key).map_err(refused)?;
    let block = ad.to_block(CODEC).map_err(refused)?;
    let chain = store.publish_ad(network, &block)?;
    let published = IpniPublished {
        ad: chain.head,
        entries,
        chunks,
        multihashes,
        previous: before,
        ads: chain.ads,
        announced_to: 0,
    };
    Ok((published, before))
}

/// Writes the multihashes as a chain of chunks; gives back its newest one, and how many there are.
fn write_chunks(store: &Store, hashes: Vec<Multihash<64>>) -> Result<(Cid, u64), NodeError> {
    hold_no_entries(store)?;
    let mut chunks = Chunks::new(hashes, CODEC, limits::DEFAULT_IPNI_CHUNK_ENTRIES);
    let (mut newest, mut count) = (NO_ENTRIES, 0);
    loop {
        let step: Result<Vec<_>, _> = chunks.by_ref().take(CHUNKS_PER_STEP).collect();
        let step = step.map_err(|error| NodeError::other(format!("the entries cannot be written: {error}")))?;
        let Some(last) = step.last() else { break };
        (newest, count) = (*last.cid(), count + step.len() as u64);
        store.put_many(&step)?;
    }
    store.sync()?;
    Ok((newest, count))
}

fn without_peer(addr: &Multiaddr) -> Multiaddr {
    let mut addr = addr.clone();
    // What stands behind a circuit says who is meant there.
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    addr
}

/// Refuses names for own feeds that stand for chains of the network.
pub(crate) fn refuse_reserved(feed: &dagmesh_dag::FeedName) -> Result<(), NodeError> {
    match super::network_of(feed) {
        None => Ok(()),
        Some(_) => Err(NodeError::usage(format!(
            "{feed} is the name of a chain of the IPNI network; `dagmesh ipni publish` and `dagmesh ipni follow` are for those"
        ))),
    }
}
