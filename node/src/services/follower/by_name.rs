//! Following by name: a name in the DHT says where the head is, also when its publisher does not.

use std::time::Duration;

use dagmesh_core::limits;
use dagmesh_dag::{FeedName, SignedHead};
use dagmesh_dagsync::follower::{FollowKey, Head, Input, Policy};
use dagmesh_records::IpnsName;
use tokio::sync::broadcast::error::RecvError;

use super::Follower;
use crate::{
    error::{ErrorKind, NodeError},
    services::{names, records::pubsub::Listening},
    swarm::MeshEvent,
};

/// How long a node that knows nobody waits for somebody whom it can ask for a name.
const PATIENCE: Duration = Duration::from_secs(limits::CALL_TIMEOUT_SECS);

/// The name of a follow.
pub(super) struct Named {
    name: IpnsName,
    /// Whether it is being asked, and whether it is to be asked again then: since gossip said something new.
    asking: Option<bool>,
    _listening: Option<Listening>,
}

impl Follower {
    /// Follows the feed that a name leads to, from now on and over restarts. Gives which that is.
    ///
    /// # Errors
    /// As [`names::head_of`].
    pub(crate) async fn follow_name(
        &self,
        name: IpnsName,
        feed: &FeedName,
        policy: Policy,
    ) -> Result<FollowKey, NodeError> {
        let head = self.first_head(&name, feed).await?;
        let key = FollowKey::of(&head);
        self.follow(key.clone(), &[], policy, Some(name)).await?;
        self.take_head(head);
        Ok(key)
    }

    /// What a name leads to. A node that has just been started may know nobody to ask yet: it is given a moment.
    async fn first_head(&self, name: &IpnsName, feed: &FeedName) -> Result<SignedHead, NodeError> {
        let swarm = &self.context.swarm;
        let mut events = swarm.events();
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            let alone = !swarm.peers().await?.iter().any(|peer| peer.protocols.iter().any(|it| it.contains("/kad/")));
            let error = match names::head_of(&self.context, &self.records, name, feed).await {
                Err(error) if alone && error.kind == ErrorKind::NotFound => error,
                other => return other,
            };
            let somebody = async {
                loop {
                    match events.recv().await {
                        Ok(MeshEvent::PeerIdentified { .. }) => return,
                        Ok(_) | Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = somebody => {}
                () = &mut patience => return Err(error),
            }
        }
    }

    /// The name that a feed is followed by.
    pub(crate) fn name_of(&self, key: &FollowKey) -> Option<IpnsName> {
        self.named.lock().get(key).map(|named| named.name)
    }

    /// The feeds that are followed by a name.
    pub(crate) fn named(&self, name: &IpnsName) -> Vec<FollowKey> {
        let named = self.named.lock();
        named.iter().filter(|(_, named)| named.name == *name).map(|(key, _)| key.clone()).collect()
    }

    /// From now on this name is asked for the feed, and heard of over gossip.
    pub(super) fn name(&self, key: FollowKey, name: IpnsName) {
        {
            let mut named = self.named.lock();
            if named.get(&key).is_some_and(|known| known.name == name) {
                return;
            }
            named.insert(key.clone(), Named { name, asking: None, _listening: None });
        }
        let this = self.clone();
        self.context.spawn(async move {
            let listening = this.records.listen(name).await;
            if let Some(named) = this.named.lock().get_mut(&key).filter(|named| named.name == name) {
                named._listening = listening;
            }
        });
    }

    /// Asks the name of a feed for its head, where it has one. One question at a time; it ends by itself.
    pub(super) async fn ask_name(&self, key: FollowKey, news: bool) {
        let name = {
            let mut named = self.named.lock();
            let Some(named) = named.get_mut(&key) else { return };
            if let Some(again) = &mut named.asking {
                *again |= news;
                return;
            }
            named.asking = Some(false);
            named.name
        };
        let mut news = news;
        loop {
            self.ask_once(&key, &name, news).await;
            match self.named.lock().get_mut(&key).filter(|named| named.name == name) {
                Some(Named { asking: Some(again), .. }) if *again => {
                    *again = false;
                    news = true;
                }
                Some(named) => return named.asking = None,
                None => return,
            }
        }
    }

    async fn ask_once(&self, key: &FollowKey, name: &IpnsName, news: bool) {
        let found = names::by_record(&self.records, name, &key.feed).await;
        let known = match &found {
            Ok(head) if FollowKey::of(head) == *key => {
                self.take_head(head.clone());
                Some(head.clone())
            }
            Ok(head) => return self.lead_to(key, name, head.clone()).await,
            Err(error) => {
                tracing::debug!(%key, %name, %error, "a name told no head");
                None
            }
        };
        if known.is_some() && !news {
            return;
        }
        // The head's own record may be behind the name, or be nowhere.
        match names::by_entry(&self.context, &self.records, name, &key.feed, known.as_ref()).await {
            Ok((_, heads)) => {
                heads.into_iter().filter(|head| FollowKey::of(head) == *key).for_each(|head| self.take_head(head))
            }
            Err(error) => tracing::debug!(%key, %name, %error, "a name leads nowhere"),
        }
    }

    /// Asks the record of a publisher's own key for a head that nobody announced to us.
    pub(super) async fn ask_record(&self, key: FollowKey) {
        let Ok(name) = IpnsName::try_from(key.publisher) else { return };
        if self.name_of(&key) == Some(name) || !self.reading.lock().insert(key.clone()) {
            return;
        }
        match names::by_record(&self.records, &name, &key.feed).await {
            Ok(head) => self.take_head(head),
            Err(error) => tracing::debug!(%key, %error, "no head in the DHT"),
        }
        self.reading.lock().remove(&key);
    }

    /// As if it had been announced: an older one moves nothing.
    fn take_head(&self, head: SignedHead) {
        self.context.validator.lock().learn(&head);
        self.machine.input(Input::Announced(Box::new(Head::Signed(head))));
    }

    /// The owner of a name has given it to another publisher: that one is followed in the place of the one before.
    async fn lead_to(&self, key: &FollowKey, name: &IpnsName, head: SignedHead) {
        let to = FollowKey::of(&head);
        let Some(policy) =
            self.machine.look(|machine| machine.status(std::time::Instant::now(), key)).map(|it| it.policy)
        else {
            return;
        };
        tracing::info!(%name, from = %key, to = %to, "a name leads to another publisher now; it is followed instead");
        if let Err(error) = self.follow(to, &[], policy, Some(*name)).await {
            return tracing::warn!(%name, %error, "the feed that a name leads to now cannot be followed");
        }
        self.take_head(head);
        if let Err(error) = self.unfollow(key.publisher, Some(key.feed.clone())).await {
            tracing::warn!(%key, %error, "a feed that a name led to before is still followed");
        }
    }

    /// Asks a name at once when gossip brings a newer record of it.
    pub(super) async fn hear_names(&self) {
        let Some(mut news) = self.records.name_news() else { return };
        loop {
            let keys = match news.recv().await {
                Ok(name) => self.named(&name),
                Err(RecvError::Lagged(_)) => self.named.lock().keys().cloned().collect(),
                Err(RecvError::Closed) => return,
            };
            for key in keys {
                let this = self.clone();
                self.context.spawn(async move { this.ask_name(key, true).await });
            }
        }
    }
}
