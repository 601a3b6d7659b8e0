//! What a node offers to the local API and the commands: one method a command.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

use crate::{
    error::NodeError,
    types::{
        AddRequest, Added, AnnounceRequest, Announced, BlockPut, CarImported, CatRequest, CidRequest, ConnectRequest,
        Connected, DagGetRequest, DagImportRequest, DagPutRequest, DagStat, DirEntry, Event, Follow, FollowRequest,
        GcReport, GcRequest, GetRequest, Gotten, GroupCreateRequest, GroupEntry, GroupEvent, GroupInfo,
        GroupJoinRequest, GroupLogRequest, GroupMembers, GroupMembersRequest, GroupPublishRequest, GroupPublished,
        GroupRequest, GroupState, GroupWatchRequest, Head, HeadRequest, Identity, IpniAd, IpniAdRequest,
        IpniAdsRequest, IpniAnnounceRequest, IpniAnnounced, IpniEntries, IpniFollowRequest, IpniPublishRequest,
        IpniPublished, KeyExported, KeyImportRequest, KeyInfo, KeyRequest, NamePublishRequest, NameResolveRequest,
        NameResolved, NameWatchRequest, PeerInfo, Progress, PublishRequest, Published, RecordFound, RecordGetRequest,
        RecordHeld, RecordListRequest, RecordPutDone, RecordPutRequest, RepoStat, Status, SyncRequest, Synced,
        TicketMade, TicketRequest, UnfollowRequest, Unfollowed, VerifyReport,
    },
};

/// What a method answers.
pub type Result<T> = std::result::Result<T, NodeError>;
/// Bytes in pieces; an error ends them.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;
/// Events, until the node stops. A watcher that is too slow is given [`Event::Lagged`].
pub type EventStream = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// What happens in a group, until it is left or the node stops. It is read from the log as fast as it is taken, so a slow
/// watcher misses nothing.
pub type GroupEventStream = Pin<Box<dyn Stream<Item = GroupEvent> + Send>>;

/// Where a name points, the newest record last, until the node stops.
pub type NameStream = Pin<Box<dyn Stream<Item = NameResolved> + Send>>;

/// Reports that wait for a client to read them; the next one makes them stale anyway.
const PROGRESS_QUEUE: usize = 16;

/// Where a long method reports how far it is. Cheap to clone and to call; reports nobody takes in time are dropped.
#[derive(Debug, Clone, Default)]
pub struct ProgressSink(Option<mpsc::Sender<Progress>>);

impl ProgressSink {
    /// A sink and the end its reports come out of.
    pub fn channel() -> (Self, mpsc::Receiver<Progress>) {
        let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE);
        (Self(Some(sender)), receiver)
    }

    /// A sink that drops all.
    pub fn none() -> Self {
        Self(None)
    }

    /// Reports `progress`, or drops it where the queue is full or nobody listens.
    pub fn send(&self, progress: Progress) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(progress);
        }
    }

    /// Whether nobody listens: reports need not be made.
    pub fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(mpsc::Sender::is_closed)
    }
}

/// One method a command.
///
/// Every method may be dropped before it answers: that ends its work (a sync stops at the next checkpoint and can be
/// taken up again; an import leaves blocks that `gc` removes), and never harms the store. An implementation may write
/// `async fn` for each. Sizes, times and names are those of [`types`](crate::types); every error names what was tried.
pub trait Api: Send + Sync + 'static {
    /// Who we are and where we can be dialled.
    fn id(&self) -> impl Future<Output = Result<Identity>> + Send;
    /// How we are doing.
    fn status(&self) -> impl Future<Output = Result<Status>> + Send;
    /// Who is connected.
    fn peers(&self) -> impl Future<Output = Result<Vec<PeerInfo>>> + Send;
    /// Dials a peer and waits until the connection stands.
    fn connect(&self, request: ConnectRequest) -> impl Future<Output = Result<Connected>> + Send;

    /// Imports a file or folder.
    fn add(&self, request: AddRequest, progress: ProgressSink) -> impl Future<Output = Result<Added>> + Send;
    /// Writes a file or folder to disk.
    fn get(&self, request: GetRequest, progress: ProgressSink) -> impl Future<Output = Result<Gotten>> + Send;
    /// The content of a file.
    fn cat(&self, request: CatRequest) -> impl Future<Output = Result<ByteStream>> + Send;
    /// The entries of a folder.
    fn ls(&self, request: CidRequest) -> impl Future<Output = Result<Vec<DirEntry>>> + Send;

    /// Stores one block.
    fn dag_put(&self, request: DagPutRequest) -> impl Future<Output = Result<BlockPut>> + Send;
    /// The bytes of one block.
    fn dag_get(&self, request: DagGetRequest) -> impl Future<Output = Result<Bytes>> + Send;
    /// The size of a DAG.
    fn dag_stat(&self, request: CidRequest, progress: ProgressSink) -> impl Future<Output = Result<DagStat>> + Send;
    /// Takes the blocks of a CAR.
    fn dag_import(
        &self,
        request: DagImportRequest,
        progress: ProgressSink,
    ) -> impl Future<Output = Result<CarImported>> + Send;
    /// A DAG as a CAR of version 1.
    fn dag_export(&self, request: CidRequest) -> impl Future<Output = Result<ByteStream>> + Send;

    /// Appends an entry to a feed and moves its head.
    fn publish(
        &self,
        request: PublishRequest,
        progress: ProgressSink,
    ) -> impl Future<Output = Result<Published>> + Send;
    /// A signed head, our own or a peer's.
    fn head(&self, request: HeadRequest) -> impl Future<Output = Result<Head>> + Send;
    /// Announces a head again.
    fn announce(&self, request: AnnounceRequest) -> impl Future<Output = Result<Announced>> + Send;
    /// Follows a feed; with `wait`, answers when it is in sync.
    fn follow(&self, request: FollowRequest, progress: ProgressSink) -> impl Future<Output = Result<Follow>> + Send;
    /// What is followed, and how far it is.
    fn follows(&self) -> impl Future<Output = Result<Vec<Follow>>> + Send;
    /// Follows no longer.
    fn unfollow(&self, request: UnfollowRequest) -> impl Future<Output = Result<Unfollowed>> + Send;
    /// One explicit sync.
    fn sync(&self, request: SyncRequest, progress: ProgressSink) -> impl Future<Output = Result<Synced>> + Send;
    /// The events from now on.
    fn watch(&self) -> impl Future<Output = Result<EventStream>> + Send;
    /// One string that leads to a feed of ours.
    fn ticket(&self, request: TicketRequest) -> impl Future<Output = Result<TicketMade>> + Send;

    /// Appends an advertisement to the own chain of the IPNI network, and announces it.
    fn ipni_publish(
        &self,
        request: IpniPublishRequest,
        progress: ProgressSink,
    ) -> impl Future<Output = Result<IpniPublished>> + Send;
    /// One advertisement that is held.
    fn ipni_ad(&self, request: IpniAdRequest) -> impl Future<Output = Result<IpniAd>> + Send;
    /// The multihashes of one advertisement, as far as they are held.
    fn ipni_entries(&self, request: IpniAdRequest) -> impl Future<Output = Result<IpniEntries>> + Send;
    /// A chain of advertisements, as far as it is held.
    fn ipni_ads(&self, request: IpniAdsRequest) -> impl Future<Output = Result<Vec<IpniAd>>> + Send;
    /// Follows the chain of a publisher; with `wait`, answers when it is in sync.
    fn ipni_follow(
        &self,
        request: IpniFollowRequest,
        progress: ProgressSink,
    ) -> impl Future<Output = Result<Follow>> + Send;
    /// Tells an indexer of a head over HTTP.
    fn ipni_announce(&self, request: IpniAnnounceRequest) -> impl Future<Output = Result<IpniAnnounced>> + Send;

    /// Makes a group and takes part in it.
    fn group_create(&self, request: GroupCreateRequest) -> impl Future<Output = Result<GroupInfo>> + Send;
    /// Takes part in a group, over restarts too; with `wait`, answers when our state is that of the others.
    fn group_join(&self, request: GroupJoinRequest) -> impl Future<Output = Result<GroupInfo>> + Send;
    /// Takes part no longer, and forgets its log.
    fn group_leave(&self, request: GroupRequest) -> impl Future<Output = Result<GroupInfo>> + Send;
    /// The groups that are taken part in.
    fn group_list(&self) -> impl Future<Output = Result<Vec<GroupInfo>>> + Send;
    /// Tells a group something. It is durable when this answers; dropped, it may be told all the same.
    fn group_publish(
        &self,
        request: GroupPublishRequest,
        progress: ProgressSink,
    ) -> impl Future<Output = Result<GroupPublished>> + Send;
    /// A part of the log of a group.
    fn group_log(&self, request: GroupLogRequest) -> impl Future<Output = Result<Vec<GroupEntry>>> + Send;
    /// Who is in a group; the owner of a closed one may change its list.
    fn group_members(&self, request: GroupMembersRequest) -> impl Future<Output = Result<GroupMembers>> + Send;
    /// The state of a group.
    fn group_state(&self, request: GroupRequest) -> impl Future<Output = Result<GroupState>> + Send;
    /// What happens in a group.
    fn group_watch(&self, request: GroupWatchRequest) -> impl Future<Output = Result<GroupEventStream>> + Send;

    /// Puts a signed record to the nodes closest to its key. It is durable here first.
    fn record_put(&self, request: RecordPutRequest) -> impl Future<Output = Result<RecordPutDone>> + Send;
    /// The newest record under a key, of a quorum of the nodes closest to it.
    fn record_get(&self, request: RecordGetRequest) -> impl Future<Output = Result<RecordFound>> + Send;
    /// The records that are held here, by key.
    fn record_list(&self, request: RecordListRequest) -> impl Future<Output = Result<Vec<RecordHeld>>> + Send;
    /// Points an IPNS name.
    fn name_publish(&self, request: NamePublishRequest) -> impl Future<Output = Result<RecordPutDone>> + Send;
    /// Where an IPNS name points.
    fn name_resolve(&self, request: NameResolveRequest) -> impl Future<Output = Result<NameResolved>> + Send;
    /// Where an IPNS name points, and each newer record from then on.
    fn name_watch(&self, request: NameWatchRequest) -> impl Future<Output = Result<NameStream>> + Send;
    /// Makes a named key.
    fn key_gen(&self, request: KeyRequest) -> impl Future<Output = Result<KeyInfo>> + Send;
    /// The named keys, the node's own first.
    fn key_list(&self) -> impl Future<Output = Result<Vec<KeyInfo>>> + Send;
    /// A private key.
    fn key_export(&self, request: KeyRequest) -> impl Future<Output = Result<KeyExported>> + Send;
    /// Takes a private key under a name that is free.
    fn key_import(&self, request: KeyImportRequest) -> impl Future<Output = Result<KeyInfo>> + Send;

    /// Removes what nothing refers to.
    fn gc(&self, request: GcRequest, progress: ProgressSink) -> impl Future<Output = Result<GcReport>> + Send;
    /// Hashes every block again.
    fn repo_verify(&self, progress: ProgressSink) -> impl Future<Output = Result<VerifyReport>> + Send;
    /// The size of the store.
    fn repo_stat(&self) -> impl Future<Output = Result<RepoStat>> + Send;
    /// Stops the node: producers, swarm, store, within [`SHUTDOWN_SECS`](dagmesh_core::limits::SHUTDOWN_SECS). A
    /// second call waits for the first.
    fn shutdown(&self) -> impl Future<Output = Result<()>> + Send;
}
