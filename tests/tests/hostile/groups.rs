//! Rows 29 and 35, and what else a peer can do in a group: each while an honest member goes on, and is heard.

mod entries;
mod flood;
mod heads;
mod pages;

use dagmesh::types::{GroupEntry, GroupEvent};
use dagmesh_chronosync::{GroupHead, GroupId};
use dagmesh_tests::{
    Daemon,
    group::{self, GroupWatch},
    hostile::{
        Hostile,
        group::{Writer, topic, update},
    },
};
use libp2p::PeerId;

/// The name of the group.
const GROUP: &str = "chess";

/// A daemon that is attacked, an honest member beside it, and what the first is told.
struct Scene {
    daemon: Daemon,
    honest: Daemon,
    watch: GroupWatch,
    group: GroupId,
    said: u64,
}

impl Scene {
    /// An open group of the two.
    async fn start() -> Self {
        let (daemon, honest) = tokio::join!(Daemon::start(), Daemon::start());
        let ticket = group::create(&daemon, GROUP).await.ticket;
        group::join_wait(&honest, &ticket).await;
        let watch = GroupWatch::from(&daemon, GROUP, 0).await;
        let mut scene = Self { daemon, honest, watch, group: GroupId::open(GROUP).expect("a name"), said: 0 };
        scene.honest_is_heard().await;
        scene
    }

    fn peer_id(&self) -> PeerId {
        group::peer(&self.daemon)
    }

    /// A hostile node that is connected with the daemon, and a producer with its key.
    async fn intruder(&self) -> (Hostile, Writer) {
        let hostile = Hostile::start().await;
        hostile.connect(self.daemon.addr("tcp").parse().expect("an address")).await;
        let writer = Writer::new(hostile.key(), self.group);
        (hostile, writer)
    }

    /// Says on the topic that these heads are new.
    async fn gossip(&self, hostile: &Hostile, heads: &[&[u8]]) {
        hostile.gossip(&topic(&self.group), update(heads)).await;
    }

    /// The honest member publishes, and the daemon is told.
    async fn honest_is_heard(&mut self) {
        self.said += 1;
        let text = format!("{} by an honest member", self.said);
        let published = group::say(&self.honest, GROUP, &text).await;
        let told = self.told(&published.producer, published.session, published.seq).await;
        assert_eq!(told.text, Some(text));
    }

    /// Waits until the daemon tells of this publication.
    async fn told(&self, producer: &PeerId, session: u64, seq: u64) -> GroupEntry {
        let fits = |event: &GroupEvent| match event {
            GroupEvent::Entry(entry) => (&entry.producer, entry.session, entry.seq) == (producer, session, seq),
            _ => false,
        };
        match self.watch.wait(&format!("number {seq} of {producer}"), fits).await {
            GroupEvent::Entry(entry) => *entry,
            other => panic!("an entry is {other:?}"),
        }
    }

    /// Waits until the daemon tells of the publication that this head names.
    async fn told_head(&self, head: &GroupHead) -> GroupEntry {
        self.told(&head.producer(), head.session(), head.sequence()).await
    }

    /// Everything that was ever told: each publication once and in order; all of it by one of these.
    async fn assert_told_only(&mut self, producers: &[PeerId]) {
        self.honest_is_heard().await;
        assert!(self.daemon.is_running(), "{}", self.daemon.stderr());
        let log = group::log(&self.daemon, GROUP).await;
        for (producer, _) in group::assert_sound(&log).keys() {
            let known = producers.contains(producer) || *producer == group::peer(&self.honest);
            assert!(known, "{producer} was heard");
        }
    }
}
