//! What others say of chains: announcements on gossip and over HTTP, looked into as far as they are not proven.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use cid::Cid;
use dagmesh_announce::{Announcement, IngestValidator, IngestVerdict, Ingested, Origin, ValidatorConfig};
use dagmesh_core::limits;
use dagmesh_dagsync::follower::FollowKey;
use dagmesh_ipnisync::net::{AnnounceBody, Refusal};
use futures::{StreamExt, future, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId,
    gossipsub::{Message, MessageAcceptance},
};
use parking_lot::Mutex;

use super::{Ipni, feed_of, is_http, network_of, topic};
use crate::services::follower::Follower;

/// Judges announcements, and hands what is new to the follower. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ingest {
    validator: Arc<Mutex<IngestValidator>>,
    /// Set once the follower runs; what comes before it is heard again at the next announcement.
    running: Arc<OnceLock<(Ipni, Follower)>>,
    /// Whether announcements over HTTP are handed on to the topic, once they have proven true.
    republish: bool,
}

impl Ingest {
    pub(crate) fn new(config: ValidatorConfig, republish: bool) -> Self {
        Self { validator: Arc::new(Mutex::new(IngestValidator::new(config))), running: Arc::default(), republish }
    }

    pub(super) fn start(&self, ipni: &Ipni, follower: Follower) {
        let _ = self.running.set((ipni.clone(), follower));
    }

    /// In the swarm's worker: cheap, and decided at once. `None` where the topic is not one of these.
    pub(crate) fn gossip(&self, now: Instant, source: PeerId, message: &Message) -> Option<MessageAcceptance> {
        let network = message.topic.as_str().strip_prefix(&topic(""))?;
        let taken = self.validator.lock().gossip(now, &Origin::gossip(source, message.source), &message.data);
        Some(match taken {
            Ok(news) => {
                if let Some(feed) = feed_of(network) {
                    let key = FollowKey { publisher: news.publisher, feed };
                    self.look_into(key, news, false);
                }
                MessageAcceptance::Accept
            }
            Err(IngestVerdict::Ignore(why)) => {
                tracing::trace!(%why, "an announcement is ignored");
                MessageAcceptance::Ignore
            }
            Err(IngestVerdict::Reject(why)) => {
                tracing::debug!(peer = %source, %why, "an announcement is rejected");
                MessageAcceptance::Reject
            }
        })
    }

    /// An announcement that was put to us over HTTP.
    pub(super) fn http(&self, body: &AnnounceBody, from: Option<PeerId>) -> Result<(), Refusal> {
        let announcement = match body {
            AnnounceBody::Cbor(bytes) => Announcement::decode(bytes),
            AnnounceBody::Json(bytes) => Announcement::decode_json(bytes),
        };
        let announcement = announcement.map_err(|error| Refusal::Malformed(error.to_string()))?;
        let now = Instant::now();
        let news = match self.validator.lock().http(now, from, announcement) {
            Ok(news) => news,
            Err(IngestVerdict::Reject(why)) => return Err(Refusal::Malformed(why.to_string())),
            // It was taken a moment ago, or will be the next time.
            Err(IngestVerdict::Ignore(why)) => {
                tracing::debug!(%why, "an announcement over HTTP is ignored");
                return Ok(());
            }
        };
        let Some((_, follower)) = self.running.get() else { return Ok(()) };
        let keys: Vec<FollowKey> = follower.chains_of(news.publisher);
        if keys.is_empty() {
            return Err(Refusal::Forbidden(format!("{} is not followed here", news.publisher)));
        }
        for key in keys {
            self.look_into(key, news.clone(), self.republish);
        }
        Ok(())
    }

    /// Hands a head to the follower: at once where its publisher says so itself, else once the publisher has signed it
    /// when it was asked.
    fn look_into(&self, key: FollowKey, news: Ingested, republish: bool) {
        let Some((ipni, follower)) = self.running.get() else { return };
        if !follower.is_followed(&key) {
            return;
        }
        let (ipni, follower) = (ipni.clone(), follower.clone());
        let task = {
            let ipni = ipni.clone();
            async move {
                let Ingested { publisher, head, addrs, by_publisher } = news;
                let proven = if by_publisher { Some((head, addrs)) } else { ipni.ask(&follower, &key, addrs).await };
                let Some((head, addrs)) = proven else { return };
                follower.learn_addrs(&key, addrs.clone()).await;
                match ipni.is_behind(&key, head).await {
                    Ok(None) => follower.chain_moved(key.clone(), head),
                    Ok(Some(_)) => tracing::debug!(%key, %head, "an old head is announced again"),
                    Err(error) => tracing::warn!(%key, %error, "an announced head could not be looked up"),
                }
                if let (true, Some(network)) = (republish, network_of(&key.feed)) {
                    let relayed = Announcement::bare(head, addrs).relayed(publisher).encode();
                    if let Ok(message) = relayed {
                        let _ = ipni.context.swarm.publish(topic(network), message).await;
                    }
                }
            }
        };
        ipni.context.spawn(task);
    }
}

impl Ipni {
    /// Asks a publisher, of whom somebody else spoke, for its head: where it was before, and only where it does not answer
    /// there at the addresses that were named, each by itself. One question a publisher at a time, and few in all.
    ///
    /// The head that it signed, and where: whoever relays could name good addresses and false ones together.
    async fn ask(&self, follower: &Follower, key: &FollowKey, named: Vec<Multiaddr>) -> Option<(Cid, Vec<Multiaddr>)> {
        let publisher = key.publisher;
        {
            let mut asking = self.asking.lock();
            if asking.len() >= limits::MAX_IPNI_LOOKS || !asking.insert(publisher) {
                return None;
            }
        }
        let _done = Asked { ipni: self, publisher };
        let known = follower.known_addrs(key).await;
        match self.head(publisher, &known).await {
            Ok(head) => return Some((head, known)),
            Err(error) => tracing::debug!(%publisher, %error, "a publisher of whom somebody spoke is not where it was"),
        }
        let others = named.into_iter().filter(|addr| !known.contains(addr)).take(limits::MAX_IPNI_PLACES);
        // At once: each may keep us waiting.
        let asked = others.map(|addr| self.ask_at(publisher, addr));
        let mut proven = asked.collect::<FuturesUnordered<_>>().filter_map(future::ready);
        proven.next().await
    }

    /// Asks a publisher for its head at one address.
    async fn ask_at(&self, publisher: PeerId, addr: Multiaddr) -> Option<(Cid, Vec<Multiaddr>)> {
        if !is_http(&addr) {
            // Whoever answers there is the publisher, or nobody is.
            self.context.swarm.connect(addr.clone().with_p2p(publisher).ok()?).await.ok()?;
        }
        match self.head(publisher, std::slice::from_ref(&addr)).await {
            Ok(head) => Some((head, vec![addr])),
            Err(error) => {
                tracing::debug!(%publisher, %error, "an announcement did not prove true");
                None
            }
        }
    }
}

/// The question that is under way; dropped also where its task is.
struct Asked<'a> {
    ipni: &'a Ipni,
    publisher: PeerId,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.ipni.asking.lock().remove(&self.publisher);
    }
}
