//! Announces own heads: hands them to the mesh when the announce machine says so, and counts who listens.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use dagmesh_announce::{Announcement, Announcer, AnnouncerConfig, Answer, Effect, Input, PublishError, net, topic};
use dagmesh_dag::{FeedName, SignedHead};
use libp2p::PeerId;
use parking_lot::Mutex;

use super::{Context, driven::Driven};
use crate::{
    error::{ErrorKind, NodeError},
    swarm::{self, MeshEvent},
};

/// How own heads stand with the mesh.
#[derive(Clone)]
pub(crate) struct HeadAnnouncer {
    context: Context,
    machine: Driven<Announcer>,
    /// To how many peers the head of each feed went, by its number.
    reached: Arc<Mutex<BTreeMap<FeedName, (u64, usize)>>>,
}

impl HeadAnnouncer {
    /// Starts to announce `heads`, and whatever [`announce`](Self::announce) adds.
    pub(crate) fn start(context: &Context, heads: Vec<SignedHead>) -> Self {
        let this = Self {
            context: context.clone(),
            machine: Driven::new(Announcer::new(AnnouncerConfig::new(rand::random()))),
            reached: Arc::default(),
        };
        for head in heads {
            this.machine.input(Input::Announce(Box::new(head)));
        }
        let (driver, listener) = (this.clone(), this.clone());
        context.spawn(async move { driver.machine.run(|effect| driver.act(effect)).await });
        context.spawn(async move { listener.count_listeners().await });
        this
    }

    /// Announces a head now; queued while nobody is on the topic. Returns how many peers it went to at once.
    pub(crate) async fn announce(&self, head: SignedHead) -> usize {
        self.machine.input(Input::Announce(Box::new(head)));
        self.listeners().await
    }

    /// Tells one peer directly about a head; an error where it cannot be told, or refuses.
    pub(crate) async fn tell(&self, peer: PeerId, head: &SignedHead) -> Result<(), NodeError> {
        let announcement = Announcement::new(head, self.context.swarm.addrs().await?);
        match net::announce_to(&mut self.context.swarm.streams(), peer, &announcement).await {
            Ok(Answer::Accepted) => Ok(()),
            Ok(Answer::Ignored(reason)) => {
                tracing::debug!(%peer, reason, "a direct announcement was not needed");
                Ok(())
            }
            Ok(Answer::Refused(reason)) => {
                Err(NodeError::new(ErrorKind::Unauthorised, format!("{peer} refuses the announcement: {reason}")))
            }
            Err(error) => Err(NodeError::no_peers(error.to_string())),
        }
    }

    /// How long ago a head was last handed to the mesh, and to how many peers; `None` while it waits for one.
    pub(crate) fn announced(&self, head: &SignedHead) -> Option<(Duration, usize)> {
        let at = self.machine.look(|machine| machine.feeds().find(|feed| feed.head == *head)?.announced)?;
        let reached =
            self.reached.lock().get(head.feed()).filter(|(seq, _)| *seq == head.seq()).map(|(_, peers)| *peers);
        Some((Instant::now().saturating_duration_since(at), reached.unwrap_or_default()))
    }

    /// Peers on the topic.
    pub(crate) async fn listeners(&self) -> usize {
        let topic = topic::heads(&self.context.network);
        match self.context.swarm.peers().await {
            Ok(peers) => peers.iter().filter(|peer| peer.topics.contains(&topic)).count(),
            Err(_) => 0,
        }
    }

    fn act(&self, effect: Effect) {
        match effect {
            Effect::Publish(head) => {
                let this = self.clone();
                self.context.spawn(async move {
                    let (feed, seq) = (head.feed().clone(), head.seq());
                    this.machine.input(match this.publish(&head).await {
                        Ok(()) => Input::Published { feed, seq },
                        Err(error) => Input::Failed { feed, seq, error },
                    });
                });
            }
            Effect::Queued { head, peers, reason } => {
                let (topic, connected) = (topic::heads(&self.context.network), self.context.swarm.peer_count());
                tracing::info!(feed = %head.feed(), head = %head.head(), %topic, peers, connected, "{reason}: the head is announced as soon as somebody listens");
            }
            Effect::TooMany(feed) => tracing::warn!(%feed, "there are too many feeds; this one is not announced"),
        }
    }

    async fn publish(&self, head: &SignedHead) -> Result<(), PublishError> {
        let other = |error: String| PublishError::Other(error);
        let addrs = self.context.swarm.addrs().await.map_err(|error| other(error.to_string()))?;
        let message = Announcement::new(head, addrs).encode().map_err(|error| other(error.to_string()))?;
        match self.context.swarm.publish(topic::heads(&self.context.network), message).await {
            Ok(peers) => {
                self.reached.lock().insert(head.feed().clone(), (head.seq(), peers));
                Ok(())
            }
            Err(swarm::PublishError::NoPeers { .. }) => Err(PublishError::NoPeers),
            Err(swarm::PublishError::Duplicate { .. }) => Err(PublishError::Duplicate),
            Err(error) => Err(other(error.to_string())),
        }
    }

    /// Tells the machine how many peers are on the topic, at every change.
    async fn count_listeners(&self) {
        let topic = topic::heads(&self.context.network);
        let mut events = self.context.swarm.events();
        loop {
            self.machine.input(Input::Peers(self.listeners().await));
            loop {
                match events.recv().await {
                    Ok(MeshEvent::TopicJoined { topic: at, .. } | MeshEvent::TopicLeft { topic: at, .. })
                        if at == topic =>
                    {
                        break;
                    }
                    Ok(MeshEvent::PeerDisconnected { .. })
                    | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                        break;
                    }
                    Ok(_) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        }
    }
}
