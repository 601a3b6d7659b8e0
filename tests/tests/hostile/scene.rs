//! A hostile publisher, an honest node that has all of its feed, and a victim.

use dagmesh::{
    Api,
    api::ProgressSink,
    dag::{Block, FeedName, SignedHead},
    types::{ConnectRequest, Event, Follow, FollowRequest, FollowState},
};
use dagmesh_announce::{Announcement, Answer as Verdict};
use dagmesh_tests::{
    hostile::{
        Hostile,
        dag::{Feed, leaf, node},
        script::{self, Answer, Asked},
    },
    peer::{Events, Peer, SOON},
    wait_for, wait_for_some,
};
use libp2p::PeerId;

/// A feed whose publisher is hostile to all but the mirror, which holds the whole feed and provides it.
pub(crate) struct Scene {
    pub(crate) hostile: Hostile,
    pub(crate) feed: Feed,
    pub(crate) mirror: Peer,
    /// The root of the first entry's content, then its leaves.
    pub(crate) content: Vec<Block>,
}

impl Scene {
    /// One entry, whose content is a root with three leaves, is published and mirrored.
    pub(crate) async fn start() -> Self {
        let (hostile, mirror) = tokio::join!(Hostile::start(), Peer::start());
        let leaves = ["one", "two", "three"].map(leaf);
        let root = node(&leaves.clone().map(|leaf| *leaf.cid()));
        let content: Vec<Block> = [root].into_iter().chain(leaves).collect();
        let mut feed = Feed::new(hostile.key());
        let head = feed.publish_dag(&content);
        hostile.serve(&feed.store());
        hostile.tell(&[&head]);
        mirror.follow_wait(FollowRequest::new(hostile.target())).await;
        Self { hostile, feed, mirror, content }
    }

    /// Answers the mirror honestly, and everybody else with `script`.
    pub(crate) fn answer(&self, script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        let (blocks, mirror) = (self.feed.blocks(), self.mirror.peer_id());
        self.hostile.answer(move |asked| match asked.from == mirror {
            true => script::steps(script::honest(&blocks, &asked.request)),
            false => script(asked),
        });
    }

    /// A node that is connected with the mirror, and its events.
    pub(crate) async fn victim(&self) -> (Peer, Events) {
        let victim = Peer::start().await;
        let events = victim.events().await;
        victim.connect(ConnectRequest { addr: self.mirror.tcp_addr().await }).await.expect("connected");
        (victim, events)
    }

    /// How many requests of this peer the hostile node has got.
    pub(crate) fn asked_by(&self, peer: PeerId) -> usize {
        self.hostile.exchanges().iter().filter(|exchange| exchange.asked().from == peer).count()
    }

    /// With a script's answers the victim's sync fails with `why`, and nothing counts as synced; then all of it comes
    /// from the mirror.
    pub(crate) async fn is_replaced(&self, why: &str) -> Peer {
        let (victim, mut events) = self.victim().await;
        let hostile = self.hostile.peer_id();
        victim.follow(FollowRequest::new(self.hostile.target()), ProgressSink::none()).await.expect("followed");
        let reason = failure(&mut events, hostile).await;
        assert!(reason.contains(why) && reason.contains(&hostile.to_string()), "{why:?} expected in {reason:?}");
        assert_eq!(events.latest(), [0u64; 0], "nothing counts as synced");
        victim.in_sync_at(hostile, 1).await;
        events.finished(self.feed.entries()[0]).await;
        assert_eq!(self.server(&events), self.mirror.peer_id(), "another peer serves it");
        for block in &self.content {
            let held = victim.blockstore().block(block.cid()).expect("a look into the store");
            assert_eq!(held.as_ref(), Some(block), "all is there, and what it should be");
        }
        let over = async || self.hostile.exchanges().iter().all(|exchange| exchange.is_over());
        wait_for(SOON, "streams that are closed", over).await;
        victim
    }

    /// As [`is_replaced`](Self::is_replaced); and the hostile node is penalised: nobody asks it for the next entry, nor
    /// for the one after that.
    pub(crate) async fn is_dropped_and_replaced(&mut self, why: &str) -> Peer {
        let victim = self.is_replaced(why).await;
        let asked = self.asked_by(victim.peer_id());
        for seq in 2..4 {
            let head = self.feed.publish_text(&format!("entry {seq}"));
            self.hostile.tell(&[&head]);
            for peer in [&self.mirror, &victim] {
                assert_eq!(announce(&self.hostile, peer, &head).await, Some(Verdict::Accepted));
                peer.in_sync_at(self.hostile.peer_id(), seq).await;
            }
        }
        assert_eq!(self.asked_by(victim.peer_id()), asked, "it stays out while there is another one");
        victim
    }

    /// Who served the last sync that began.
    fn server(&self, events: &Events) -> PeerId {
        let from = |event: &Event| match event {
            Event::SyncStarted { from, .. } => Some(*from),
            _ => None,
        };
        events.seen.iter().rev().find_map(from).expect("a sync that began")
    }
}

/// Why a sync of this publisher's feed failed; waits until one has.
pub(crate) async fn failure(events: &mut Events, publisher: PeerId) -> String {
    let why = |event: &Event| match event {
        Event::SyncFailed { publisher: of, reason, .. } if *of == publisher => Some(reason.clone()),
        _ => None,
    };
    if let Some(reason) = events.seen.iter().find_map(why) {
        return reason;
    }
    why(&events.until("a sync that fails", |event| why(event).is_some()).await).expect("it fits")
}

/// Waits until a follow has failed for good.
pub(crate) async fn failed(follower: &Peer, publisher: PeerId, feed: &FeedName) -> Follow {
    wait_for_some(SOON, &format!("{publisher}/{feed} failed"), async || {
        let follows = follower.follows().await.expect("follows");
        let of = |follow: &Follow| follow.publisher == publisher && follow.feed == *feed;
        follows.into_iter().find(|follow| of(follow) && follow.state == FollowState::Failed)
    })
    .await
}

/// Announces a head of its own directly.
pub(crate) async fn announce(hostile: &Hostile, to: &Peer, head: &SignedHead) -> Option<Verdict> {
    hostile.connect_to(to).await;
    let announcement = Announcement::new(head, [hostile.addr()]).encode().expect("an announcement");
    hostile.announce(to.peer_id(), &announcement).await
}
