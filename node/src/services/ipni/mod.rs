//! The IPNI network: own chains of advertisements, published, announced and served; chains of others, found and asked.
//!
//! A chain is followed like a feed, under a name of its own ([`feed_of`]): the follower's machine, journal and syncs are
//! the same. What differs is who is asked for the head, how entries are read, and that blocks may come one by one.

mod entries;
mod list;
mod news;
mod provider;
mod publish;
mod schema;
mod serve;

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use cid::Cid;
use dagmesh_dagsync::follower::FollowKey;
use dagmesh_ipnisync::net::{Client, ClientConfig, NetError};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use parking_lot::Mutex;

pub(crate) use self::{
    news::Ingest,
    provider::{ChainProvider, Wanted},
    publish::{AdContent, refuse_reserved},
    schema::{ADS, check, feed_of, hold_no_entries, network_of, topic},
    serve::Listening,
};
use super::{Context, follower::Follower};
use crate::{
    config::IpniConfig,
    error::{ErrorKind, NodeError},
};

/// What this node is and does in the network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ipni {
    context: Context,
    config: Arc<IpniConfig>,
    client: Client,
    /// Where our chain is served over plain HTTP or HTTPS.
    http: Arc<OnceLock<serve::ServedAt>>,
    /// One advertisement at a time: the next one links to it.
    publishing: Arc<tokio::sync::Mutex<()>>,
    /// Publishers that are being asked for their head because somebody else spoke of it.
    asking: Arc<Mutex<HashSet<PeerId>>>,
    /// Topics that are heard.
    topics: Arc<Mutex<HashSet<String>>>,
}

impl Ipni {
    /// Nothing runs yet; see [`serve`](Self::serve) and [`follows`](Self::follows).
    pub(crate) fn new(context: &Context, config: &IpniConfig, only_reachable: bool) -> Result<Self, NodeError> {
        let client = ClientConfig {
            only_reachable,
            user_agent: concat!("dagmesh/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..ClientConfig::default()
        };
        let client = Client::new(client, Some(context.swarm.streams()));
        let client = client.map_err(|error| NodeError::other(format!("HTTP cannot be spoken: {error}")))?;
        Ok(Self {
            context: context.clone(),
            config: Arc::new(config.clone()),
            client,
            http: Arc::default(),
            publishing: Arc::default(),
            asking: Arc::default(),
            topics: Arc::default(),
        })
    }

    /// The network that is meant where none is named.
    pub(crate) fn network(&self) -> &str {
        &self.config.network
    }

    /// Hears of new heads in a network from now on.
    pub(crate) async fn hear(&self, network: &str) -> Result<(), NodeError> {
        let topic = topic(network);
        if self.topics.lock().insert(topic.clone()) {
            self.context.swarm.subscribe(topic).await?;
        }
        Ok(())
    }

    /// Asks a publisher for the newest entry of its chain, at these addresses.
    pub(crate) async fn head(&self, publisher: PeerId, addrs: &[Multiaddr]) -> Result<Cid, NetError> {
        self.client.remote(publisher, addrs).head().await.map(|head| *head.head())
    }

    /// The same for somebody who asked for it: dials at the addresses that are not of HTTP.
    pub(crate) async fn ask_head(&self, publisher: PeerId, addrs: &[Multiaddr]) -> Result<Cid, NodeError> {
        for addr in addrs.iter().filter(|addr| !is_http(addr)) {
            self.context.swarm.add_address(publisher, addr.clone()).await?;
        }
        self.head(publisher, addrs).await.map_err(|error| {
            let kind = match &error {
                error if error.is_bad_peer() => ErrorKind::Verification,
                error if error.is_not_found() => ErrorKind::NotFound,
                _ => ErrorKind::NoPeers,
            };
            NodeError::new(kind, format!("{publisher} could not be asked for the head of its chain: {error}"))
        })
    }

    /// The publisher as a provider for a sync of its chain.
    pub(crate) fn provider(&self, publisher: PeerId, addrs: &[Multiaddr], wanted: Wanted) -> ChainProvider {
        ChainProvider::new(&self.context, &self.client, publisher, addrs, wanted)
    }

    /// Whether an entry is behind what is held of a followed chain: then it is no news.
    pub(crate) async fn is_behind(&self, key: &FollowKey, entry: Cid) -> Result<Option<Cid>, NodeError> {
        let key = key.clone();
        let behind = self.context.blocking(move |store| {
            let latest = store.follow(&key.publisher, &key.feed)?.and_then(|record| record.latest);
            Ok(match latest {
                Some(latest) if schema::is_behind(store, latest, &entry)? => Some(latest),
                _ => None,
            })
        });
        behind.await
    }

    /// Takes part in the network as far as the node does already: hears the topics of what is followed, announces the
    /// own chain, and looks into what others say.
    pub(crate) async fn start(&self, follower: Follower, ingest: &Ingest) -> Result<(), NodeError> {
        let followed = follower.follows().into_iter().filter_map(|follow| network_of(&follow.feed).map(str::to_owned));
        let own = self.context.blocking(|store| Ok(store.own_chains()?)).await?;
        for network in followed.chain(own.iter().map(|(network, _)| network.clone())) {
            self.hear(&network).await?;
        }
        for (network, chain) in own {
            self.provide(&network, chain.head, None);
        }
        ingest.start(self, follower);
        Ok(())
    }
}

/// Whether an address is one of HTTP, which the swarm cannot dial.
pub(crate) fn is_http(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::Http | Protocol::Https | Protocol::HttpPath(_)))
}
