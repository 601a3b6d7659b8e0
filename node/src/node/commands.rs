//! What the node answers to each command: the services, called by name.

use std::time::Duration;

use bytes::Bytes;
use dagmesh_announce::topic;
use dagmesh_core::limits;
use dagmesh_dag::Blockstore;
use dagmesh_dag::unixfs::Chunker;
use dagmesh_dagsync::follower::{FollowKey, Policy};
use data_encoding::HEXLOWER_PERMISSIVE;
use ipld_core::ipld::Ipld;

use super::{Inner, Node};
use crate::{
    api::{Api, ByteStream, EventStream, GroupEventStream, NameStream, ProgressSink, Result},
    error::{ErrorKind, NodeError},
    keys::Keyring,
    services::{
        files,
        ipni::{AdContent, refuse_reserved},
        syncer, unix_ms_of,
    },
    swarm,
    ticket::{Target, Ticket},
    types::{
        AddRequest, Added, AddressStatus, AnnounceRequest, Announced, BlockPut, CarImported, CatRequest, CidRequest,
        ConnectRequest, Connected, Content, DagGetRequest, DagImportRequest, DagPutRequest, DagStat, DirEntry, Follow,
        FollowRequest, FollowState, GcReport, GcRequest, GetRequest, Gotten, GroupCreateRequest, GroupEntry, GroupInfo,
        GroupJoinRequest, GroupLogRequest, GroupMembers, GroupMembersRequest, GroupPublishRequest, GroupPublished,
        GroupRequest, GroupState, GroupWatchRequest, Head, HeadRequest, Identity, IpniAd, IpniAdRequest,
        IpniAdsRequest, IpniAnnounceRequest, IpniAnnounced, IpniEntries, IpniFollowRequest, IpniPublishRequest,
        IpniPublished, KeyExported, KeyImportRequest, KeyInfo, KeyRequest, NamePublishRequest, NameResolveRequest,
        NameResolved, NameWatchRequest, PeerInfo, PublishRequest, Published, Reach, RecordFound, RecordGetRequest,
        RecordHeld, RecordListRequest, RecordPutDone, RecordPutRequest, RepoStat, Status, SyncRequest, Synced,
        TicketMade, TicketRequest, UnfollowRequest, Unfollowed, VerifyReport,
    },
    upkeep,
};

impl Api for Node {
    async fn id(&self) -> Result<Identity> {
        Ok(Identity { peer_id: self.peer_id(), addrs: self.addrs().await? })
    }

    async fn status(&self) -> Result<Status> {
        let Inner { context, publisher, follower, ipni, config, started, .. } = &*self.inner;
        let (report, follows) = (context.swarm.reachability().await?, follower.follows());
        let count = |state| follows.iter().filter(|follow| follow.state == state).count();
        let stat = context.blocking(|store| Ok(store.stat())).await?;
        let topic_peers = publisher.announcer().listeners().await;
        let peers = context.swarm.peer_count();
        Ok(Status {
            peer_id: self.peer_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: context.network.clone(),
            profile: config.swarm.profile.to_string(),
            uptime_ms: started.elapsed().as_millis() as u64,
            listen: context.swarm.listen_addrs().await?,
            addresses: report.addresses.into_iter().map(address_status).collect(),
            peers,
            topic_peers,
            feeds: publisher.feeds(),
            ipni_http: ipni.url(),
            follows: follows.len(),
            in_sync: count(FollowState::InSync),
            syncing: count(FollowState::Syncing),
            blocks: stat.blocks,
            bytes: stat.bytes,
            warnings: warnings(peers, topic_peers, &context.network, &follows, stat.quarantined),
        })
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>> {
        let peers = self.inner.context.swarm.peers().await?;
        let info = |peer: swarm::PeerInfo| PeerInfo {
            peer_id: peer.peer,
            relayed: peer.relayed,
            addr: peer.addr,
            protocols: peer.protocols,
            agent: peer.agent,
            connections: peer.connections as u32,
            rtt_ms: peer.rtt.map(|rtt| rtt.as_millis() as u64),
        };
        Ok(peers.into_iter().map(info).collect())
    }

    async fn connect(&self, request: ConnectRequest) -> Result<Connected> {
        let peer_id = self.inner.context.swarm.connect(request.addr.clone()).await?;
        Ok(Connected { peer_id, addr: request.addr })
    }

    async fn add(&self, request: AddRequest, progress: ProgressSink) -> Result<Added> {
        files::add(&self.inner.context, request, progress).await
    }

    async fn get(&self, request: GetRequest, progress: ProgressSink) -> Result<Gotten> {
        files::get(&self.inner.context, request, progress).await
    }

    async fn cat(&self, request: CatRequest) -> Result<ByteStream> {
        files::cat(&self.inner.context, request).await
    }

    async fn ls(&self, request: CidRequest) -> Result<Vec<DirEntry>> {
        files::ls(&self.inner.context, request.cid).await
    }

    async fn dag_put(&self, request: DagPutRequest) -> Result<BlockPut> {
        files::dag_put(&self.inner.context, request).await
    }

    async fn dag_get(&self, request: DagGetRequest) -> Result<Bytes> {
        files::dag_get(&self.inner.context, request).await
    }

    async fn dag_stat(&self, request: CidRequest, progress: ProgressSink) -> Result<DagStat> {
        files::dag_stat(&self.inner.context, request.cid, progress).await
    }

    async fn dag_import(&self, request: DagImportRequest, _: ProgressSink) -> Result<CarImported> {
        files::dag_import(&self.inner.context, request).await
    }

    async fn dag_export(&self, request: CidRequest) -> Result<ByteStream> {
        files::dag_export(&self.inner.context, request.cid).await
    }

    async fn publish(&self, request: PublishRequest, progress: ProgressSink) -> Result<Published> {
        let Inner { context, publisher, names, .. } = &*self.inner;
        refuse_reserved(&request.feed)?;
        // Before anything is done.
        if let Some(key) = &request.name {
            names.key(key).await?;
        }
        let meta = request.meta.map(meta).transpose()?;
        // Held until the entry refers to what was imported.
        let _protection = context.store.protect();
        let (content, added) = match request.content {
            Content::Cid(cid) => (cid, 0),
            Content::Path(path) => {
                let imported = files::import(context, path, request.hidden, Chunker::default(), progress).await?;
                (imported.cid, imported.new_blocks)
            }
        };
        let (head, peers) = publisher.publish(request.feed, content, meta, !request.no_announce).await?;
        match &request.name {
            Some(key) => drop(names.bind(head.feed().clone(), key).await?),
            None => names.moved(head.feed()),
        }
        Ok(Published {
            feed: head.feed().clone(),
            head: *head.head(),
            seq: head.seq(),
            content,
            blocks_added: added + 1,
            peers,
            name: names.name_of(head.feed()).map(|name| name.to_string()),
        })
    }

    async fn head(&self, request: HeadRequest) -> Result<Head> {
        let Inner { context, publisher, .. } = &*self.inner;
        let head = match &request.target {
            Some(target) if target.peer() != self.peer_id() => {
                syncer::reach(context, target.peer(), target.addrs()).await?;
                syncer::ask_head(context, target.peer(), &target.feed_or(request.feed.clone())).await?
            }
            _ => {
                let feed = request.feed.unwrap_or_default();
                publisher
                    .head(&feed)
                    .ok_or_else(|| NodeError::not_found(format!("nothing has been published in feed {feed} yet")))?
            }
        };
        Ok(Head {
            publisher: head.publisher(),
            feed: head.feed().clone(),
            head: *head.head(),
            seq: head.seq(),
            time: head.time(),
        })
    }

    async fn announce(&self, request: AnnounceRequest) -> Result<Announced> {
        let Inner { publisher, names, .. } = &*self.inner;
        let head = publisher.head(&request.feed).filter(|head| *head.head() == request.cid).ok_or_else(|| {
            NodeError::not_found(format!(
                "{} is not the head of feed {}; `dagmesh head` shows which is, `dagmesh publish` moves it",
                request.cid, request.feed
            ))
        })?;
        match &request.name {
            Some(_) if request.no_name => return Err(NodeError::usage("name and no_name contradict each other")),
            Some(key) => drop(names.bind(request.feed.clone(), key).await?),
            None if request.no_name => drop(names.unbind(&request.feed).await?),
            None => names.moved(&request.feed),
        }
        let peers = match &request.to {
            None => publisher.announce(&head).await,
            Some(target) => {
                syncer::reach(&self.inner.context, target.peer(), target.addrs()).await?;
                publisher.announcer().tell(target.peer(), &head).await?;
                1
            }
        };
        let name = names.name_of(&request.feed).map(|name| name.to_string());
        Ok(Announced { head: *head.head(), peers, name })
    }

    async fn follow(&self, request: FollowRequest, progress: ProgressSink) -> Result<Follow> {
        let target = &request.target;
        let key = FollowKey { publisher: target.peer(), feed: target.feed_or(request.feed.clone()) };
        refuse_reserved(&key.feed)?;
        let policy = Policy { depth: None, keep: request.keep, first_sync_depth: request.depth };
        if let Target::Name { name, .. } = target {
            let key = self.inner.follower.follow_name(*name, &key.feed, policy).await?;
            return self.followed(key, request.wait, progress).await;
        }
        self.begin_follow(key, target, policy, request.wait, progress).await
    }

    async fn follows(&self) -> Result<Vec<Follow>> {
        Ok(self.inner.follower.follows())
    }

    async fn unfollow(&self, request: UnfollowRequest) -> Result<Unfollowed> {
        let feed = request.feed.or_else(|| request.target.feed().cloned());
        let publisher = match &request.target {
            // It may lead to another's feed.
            Target::Name { name, .. } => {
                let mut named = self.inner.follower.named(name).into_iter();
                let key = named.find(|key| feed.as_ref().is_none_or(|feed| *feed == key.feed));
                key.map_or(request.target.peer(), |key| key.publisher)
            }
            other => other.peer(),
        };
        let feeds = self.inner.follower.unfollow(publisher, feed).await?;
        if feeds.is_empty() {
            return Err(NodeError::not_found(format!("{publisher} is not followed; `dagmesh follows` lists what is")));
        }
        Ok(Unfollowed { publisher, feeds })
    }

    async fn sync(&self, request: SyncRequest, progress: ProgressSink) -> Result<Synced> {
        syncer::sync(&self.inner.context, &self.inner.ipni, request, None, progress).await
    }

    async fn watch(&self) -> Result<EventStream> {
        Ok(self.inner.context.events.watch())
    }

    async fn ticket(&self, request: TicketRequest) -> Result<TicketMade> {
        let (peer_id, addrs) = (self.peer_id(), self.addrs().await?);
        let ticket = Ticket::new(peer_id, &addrs, request.feed.clone())
            .map_err(|error| NodeError::other(format!("no ticket can be made: {error}")))?;
        Ok(TicketMade { ticket: ticket.to_string(), peer_id, addrs: ticket.addrs().to_vec(), feed: request.feed })
    }

    async fn ipni_publish(&self, request: IpniPublishRequest, _: ProgressSink) -> Result<IpniPublished> {
        let IpniPublishRequest { path, context_id, metadata, remove, no_announce } = request;
        let metadata = HEXLOWER_PERMISSIVE
            .decode(metadata.as_bytes())
            .map_err(|error| NodeError::usage(format!("the metadata is no hexadecimal: {error}")))?;
        let context_id = context_id.map(String::into_bytes);
        let content = AdContent { context_id, metadata, is_rm: remove };
        self.inner.ipni.publish(path, content, !no_announce).await
    }

    async fn ipni_ad(&self, request: IpniAdRequest) -> Result<IpniAd> {
        self.inner.ipni.ad(request.cid).await
    }

    async fn ipni_entries(&self, request: IpniAdRequest) -> Result<IpniEntries> {
        self.inner.ipni.entries(request.cid, request.entries).await
    }

    async fn ipni_ads(&self, request: IpniAdsRequest) -> Result<Vec<IpniAd>> {
        self.inner.ipni.ads(request).await
    }

    async fn ipni_follow(&self, request: IpniFollowRequest, progress: ProgressSink) -> Result<Follow> {
        let IpniFollowRequest { target, network, depth, keep, wait } = request;
        let key = self.inner.ipni.key(&target, network.as_deref())?;
        let policy = Policy { depth: None, keep, first_sync_depth: depth };
        self.begin_follow(key, &target, policy, wait, progress).await
    }

    async fn ipni_announce(&self, request: IpniAnnounceRequest) -> Result<IpniAnnounced> {
        self.inner.ipni.announce_to(&request.to, request.cid, request.cbor).await
    }

    async fn group_create(&self, request: GroupCreateRequest) -> Result<GroupInfo> {
        self.inner.groups.create(request).await
    }

    async fn group_join(&self, request: GroupJoinRequest) -> Result<GroupInfo> {
        self.inner.groups.join(request).await
    }

    async fn group_leave(&self, request: GroupRequest) -> Result<GroupInfo> {
        self.inner.groups.leave(&request.name).await
    }

    async fn group_list(&self) -> Result<Vec<GroupInfo>> {
        self.inner.groups.list().await
    }

    async fn group_publish(&self, request: GroupPublishRequest, progress: ProgressSink) -> Result<GroupPublished> {
        self.inner.groups.publish(request, progress).await
    }

    async fn group_log(&self, request: GroupLogRequest) -> Result<Vec<GroupEntry>> {
        self.inner.groups.log(request).await
    }

    async fn group_members(&self, request: GroupMembersRequest) -> Result<GroupMembers> {
        self.inner.groups.members(request).await
    }

    async fn group_state(&self, request: GroupRequest) -> Result<GroupState> {
        self.inner.groups.state(&request.name)
    }

    async fn group_watch(&self, request: GroupWatchRequest) -> Result<GroupEventStream> {
        self.inner.groups.watch(request).await
    }

    async fn record_put(&self, request: RecordPutRequest) -> Result<RecordPutDone> {
        self.put_record(request).await
    }

    async fn record_get(&self, request: RecordGetRequest) -> Result<RecordFound> {
        let RecordGetRequest { target, quorum } = request;
        self.inner.records.get(&target, quorum.unwrap_or(limits::RECORD_QUORUM)).await
    }

    async fn record_list(&self, request: RecordListRequest) -> Result<Vec<RecordHeld>> {
        self.list_records(request).await
    }

    async fn name_publish(&self, request: NamePublishRequest) -> Result<RecordPutDone> {
        self.point_name(request).await
    }

    async fn name_resolve(&self, request: NameResolveRequest) -> Result<NameResolved> {
        let NameResolveRequest { name, quorum } = request;
        self.inner.records.resolve(&name, quorum.unwrap_or(limits::RECORD_QUORUM)).await
    }

    async fn name_watch(&self, request: NameWatchRequest) -> Result<NameStream> {
        Ok(Box::pin(self.inner.records.watch(request.name)))
    }

    async fn key_gen(&self, request: KeyRequest) -> Result<KeyInfo> {
        self.with_keys(move |keys| keys.generate(&request.name)).await
    }

    async fn key_list(&self) -> Result<Vec<KeyInfo>> {
        self.with_keys(Keyring::list).await
    }

    async fn key_export(&self, request: KeyRequest) -> Result<KeyExported> {
        let KeyRequest { name } = request;
        self.with_keys(move |keys| keys.export(&name).map(|key| KeyExported::new(name, key))).await
    }

    async fn key_import(&self, request: KeyImportRequest) -> Result<KeyInfo> {
        self.with_keys(move |keys| keys.import(&request.name, &request.key)).await
    }

    async fn gc(&self, request: GcRequest, progress: ProgressSink) -> Result<GcReport> {
        self.inner.context.blocking(move |store| upkeep::gc(store, &[], request, &progress)).await
    }

    async fn repo_verify(&self, progress: ProgressSink) -> Result<VerifyReport> {
        self.inner.context.blocking(move |store| upkeep::verify(store, &progress)).await
    }

    async fn repo_stat(&self) -> Result<RepoStat> {
        let dir = self.inner.store_dir.clone();
        self.inner.context.blocking(move |store| Ok(upkeep::stat(store, &dir))).await
    }

    async fn shutdown(&self) -> Result<()> {
        let Inner { context, follower, .. } = &*self.inner;
        let bound = Duration::from_secs(limits::SHUTDOWN_SECS);
        // Producers, swarm, store: what still runs has nobody to serve, then nothing to write to.
        follower.close();
        context.stop.cancel();
        context.tasks.close();
        let ended = tokio::time::timeout(bound, context.tasks.wait()).await;
        let swarm = context.swarm.shutdown().await;
        context.blocking_at_the_end(|store| Ok(store.sync()?)).await?;
        if ended.is_err() {
            return Err(NodeError::timeout("ending what was under way", bound));
        }
        Ok(swarm?)
    }
}

impl Node {
    async fn begin_follow(
        &self,
        key: FollowKey,
        target: &Target,
        policy: Policy,
        wait: bool,
        progress: ProgressSink,
    ) -> Result<Follow> {
        self.inner.follower.follow(key.clone(), target.addrs(), policy, None).await?;
        self.followed(key, wait, progress).await
    }

    async fn followed(&self, key: FollowKey, wait: bool, progress: ProgressSink) -> Result<Follow> {
        let follower = &self.inner.follower;
        if wait {
            return follower.wait(&key, &progress).await;
        }
        follower
            .status(&key)
            .ok_or_else(|| NodeError::other(format!("{key} could not be followed; there are too many follows")))
    }
}

/// DAG-JSON, as a person gives it, as the meta of an entry.
fn meta(value: serde_json::Value) -> Result<Ipld> {
    serde_ipld_dagjson::from_slice(value.to_string().as_bytes())
        .map_err(|error| NodeError::usage(format!("the meta is no DAG-JSON: {error}")))
}

fn address_status(status: swarm::AddressStatus) -> AddressStatus {
    AddressStatus {
        addr: status.addr,
        reach: match status.state {
            swarm::Reachability::Reachable => Reach::Reachable,
            swarm::Reachability::Unreachable => Reach::Unreachable,
            _ => Reach::Unknown,
        },
        tested: status.tested.map(unix_ms_of),
        advice: Some(status.advice).filter(|_| status.state != swarm::Reachability::Reachable),
    }
}

/// What needs a person's attention, each with the next step.
fn warnings(peers: usize, topic_peers: usize, network: &str, follows: &[Follow], quarantined: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    if peers == 0 {
        warnings.push("no peer is connected; `dagmesh connect MULTIADDR` or set swarm.bootstrap".to_owned());
    } else if topic_peers == 0 {
        let topic = topic::heads(network);
        warnings.push(format!("none of {peers} connected peers is on {topic}; announcements wait for one"));
    }
    for follow in follows.iter().filter(|follow| follow.state == FollowState::Failed) {
        let reason = follow.reason.as_deref().unwrap_or("the reason is not known");
        warnings.push(format!("{} of {} is not in sync: {reason}", follow.feed, follow.publisher));
    }
    if quarantined > 0 {
        warnings.push(format!(
            "{quarantined} damaged blocks were put aside; run `dagmesh repo verify`, and look at the disk"
        ));
    }
    warnings
}

impl From<swarm::SwarmError> for NodeError {
    fn from(error: swarm::SwarmError) -> Self {
        use swarm::SwarmError as E;
        let kind = match &error {
            E::Config { .. } => ErrorKind::Usage,
            E::Unreachable { .. } | E::NoAddress { .. } | E::NoPeers { .. } => ErrorKind::NoPeers,
            E::Timeout { .. } => ErrorKind::Timeout,
            E::OwnAddress { .. } => ErrorKind::Usage,
            E::Stopped => ErrorKind::Unavailable,
            _ => ErrorKind::Error,
        };
        Self::new(kind, error.to_string())
    }
}
