//! What peers may ask of us: whom we serve, which heads we know, which announcements we take.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use dagmesh_announce::{Acceptance, Announcement, Answer, Origin, Publishers, Verdict};
use dagmesh_dag::SignedHead;
use dagmesh_dagsync::{head::HeadQuery, net::Access, server::Served};
use futures::future::BoxFuture;
use libp2p::{
    PeerId,
    gossipsub::{Message, MessageAcceptance},
};

use super::{Context, follower::Follower, publisher::Publisher, unix_ms};
use crate::swarm::SwarmHandle;

/// Serves strangers, within what the node's user allows.
pub(crate) struct Serving {
    pub(crate) context: Context,
    pub(crate) publisher: Publisher,
    pub(crate) allowed: Publishers,
}

impl Access for Serving {
    fn allows(&self, peer: &PeerId) -> bool {
        self.allowed.allow(peer)
    }

    fn heads(&self, query: HeadQuery) -> BoxFuture<'static, Vec<SignedHead>> {
        let (context, publisher) = (self.context.clone(), self.publisher.clone());
        let own = context.key.public().to_peer_id();
        let of = query.publisher.unwrap_or(own);
        Box::pin(async move {
            let found = match query.feed {
                Some(feed) if of == own => Ok(publisher.head(&feed).into_iter().collect()),
                None if of == own => Ok(publisher.heads()),
                Some(feed) => context
                    .blocking(move |store| Ok(store.follow(&of, &feed)?))
                    .await
                    .map(|follow| follow.and_then(|follow| follow.head()).into_iter().collect()),
                None => context.blocking(|store| Ok(store.follows()?)).await.map(|follows| {
                    let follows = follows.into_iter().filter(|(peer, ..)| *peer == of);
                    follows.filter_map(|(_, _, follow)| follow.head()).collect()
                }),
            };
            let mut heads: Vec<_> = found.unwrap_or_else(|error| {
                tracing::warn!(%error, "heads that a peer asked for could not be read");
                Vec::new()
            });
            heads.truncate(dagmesh_dagsync::head::MAX_HEADS);
            heads
        })
    }

    fn served(&self, peer: PeerId, served: Served) {
        tracing::debug!(%peer, blocks = served.end.blocks, bytes = served.end.bytes, "served");
        if served.end.blocks > 0 {
            self.publisher.fetched(&served.roots);
        }
    }
}

/// Judges announcements, from gossip and direct, and hands what is new to the follower.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) validator: Arc<parking_lot::Mutex<dagmesh_announce::Validator>>,
    pub(crate) topic: String,
    /// Set once the follower runs; what comes before it is heard again at the next announcement.
    pub(crate) follower: Arc<std::sync::OnceLock<Follower>>,
    /// Whether direct announcements are handed on to the topic, so that the mesh hears of publishers it is not
    /// connected with.
    pub(crate) republish: bool,
}

impl Listener {
    /// In the swarm's worker: cheap, and decided at once.
    pub(crate) fn gossip(&self, now: Instant, source: PeerId, message: &Message) -> MessageAcceptance {
        if message.topic.as_str() != self.topic {
            return MessageAcceptance::Ignore;
        }
        let verdict = self.check(now, &Origin::gossip(source, message.source), &message.data);
        match verdict.acceptance() {
            Acceptance::Accept => MessageAcceptance::Accept,
            Acceptance::Ignore => MessageAcceptance::Ignore,
            Acceptance::Reject => MessageAcceptance::Reject,
        }
    }

    /// Answers a direct announcement. A peer that announces our own head to us says that it is in sync with it.
    pub(crate) async fn direct(
        &self,
        swarm: &SwarmHandle,
        publisher: Publisher,
        peer: PeerId,
        message: Bytes,
    ) -> Answer {
        let head = Announcement::decode(&message).ok().and_then(|announcement| announcement.signed_head()?.ok());
        if let Some(head) = head
            && publisher.confirmed(peer, &head)
        {
            return Answer::Accepted;
        }
        let verdict = self.check(Instant::now(), &Origin::direct(peer), &message);
        if self.republish
            && let Verdict::Accept(announcement) = &verdict
        {
            // It carries the publisher's own signature; we say only that we pass it on.
            let relayed = Announcement::new(&announcement.head, announcement.addrs.clone());
            match relayed.relayed(announcement.head.publisher()).encode() {
                Ok(message) => {
                    let published = swarm.publish(self.topic.clone(), message).await;
                    tracing::debug!(head = %announcement.head.head(), ?published, "a direct announcement is passed on");
                }
                Err(error) => tracing::debug!(%error, "a direct announcement cannot be passed on"),
            }
        }
        Answer::from(&verdict)
    }

    fn check(&self, now: Instant, origin: &Origin, data: &[u8]) -> Verdict {
        let verdict = self.validator.lock().check(now, unix_ms(), origin, data);
        match (&verdict, self.follower.get()) {
            (Verdict::Accept(announcement), Some(follower)) => follower.announced(announcement),
            (Verdict::Fork { known, other }, Some(follower)) => follower.forked(known, other),
            (Verdict::Ignore(why), _) => tracing::trace!(%why, "an announcement is ignored"),
            (Verdict::Reject(why), _) => tracing::debug!(peer = %origin.neighbour, %why, "an announcement is rejected"),
            _ => {}
        }
        verdict
    }
}
