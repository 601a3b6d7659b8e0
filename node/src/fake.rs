//! A node that only pretends, for the tests of the API and of the commands.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use dagmesh_dag::{Block, Codec, HashCode};
use dagmesh_records::{Draft, IpnsDraft, IpnsName, IpnsRecord, Record, RecordName};
use futures::StreamExt;
use libp2p::{PeerId, identity::Keypair};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast};

use crate::{
    api::{Api, ByteStream, EventStream, GroupEventStream, NameStream, ProgressSink, Result},
    error::{ErrorKind, NodeError},
    ticket::{GroupTarget, GroupTicket, Ticket},
    types::*,
};

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for what must happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Answers by rote. What a method does beside that stands at it.
pub(crate) struct FakeNode {
    pub(crate) peer: PeerId,
    pub(crate) events: broadcast::Sender<Event>,
    /// One permit for each long method that was dropped before its end.
    pub(crate) dropped: Arc<Semaphore>,
    /// One permit for each `shutdown`.
    pub(crate) shut: Arc<Semaphore>,
    /// What was asked about groups, records and names.
    pub(crate) asked: Mutex<Vec<Value>>,
    pub(crate) group_events: broadcast::Sender<GroupEvent>,
    pub(crate) name_events: broadcast::Sender<NameResolved>,
}

impl FakeNode {
    pub(crate) fn new() -> Arc<Self> {
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let (dropped, shut) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (events, group_events) = (broadcast::channel(16).0, broadcast::channel(16).0);
        let name_events = broadcast::channel(16).0;
        Arc::new(Self { peer, events, dropped, shut, asked: Mutex::default(), group_events, name_events })
    }

    /// Notes what was asked. There are all records and names of the node but those of the name `nowhere`.
    fn record(&self, name: &str, ask: &impl Serialize) -> Result<()> {
        self.asked.lock().push(serde_json::to_value(ask).expect("encodes"));
        if name == "nowhere" { Err(NodeError::not_found("3 nodes were asked, 3 had none")) } else { Ok(()) }
    }

    /// Notes what was asked. There are all groups but `nowhere`.
    fn group(&self, name: &str, ask: &impl Serialize) -> Result<GroupInfo> {
        self.asked.lock().push(serde_json::to_value(ask).expect("encodes"));
        if name == "nowhere" {
            return Err(NodeError::not_found("we take no part in nowhere"));
        }
        let (peer, group) = (self.peer, name.to_owned());
        let ticket = GroupTicket::new(name, None, peer, &[])?.to_string();
        let (closed, owner, id) = (false, None, "00".repeat(32));
        Ok(GroupInfo { group, id, closed, owner, writable: true, initialized: true, peers: 0, entries: 2, ticket })
    }

    /// What stands in the log of each group: a text that somebody else has told before we came, and a DAG of ours.
    pub(crate) fn group_entries(&self) -> [GroupEntry; 2] {
        let producer = PeerId::from_multihash(Multihash::wrap(0, &[1; 36]).expect("fits")).expect("a peer id");
        let text = Some("hello\u{1b}[2J\nagain".to_owned());
        let (session, time) = (1_700_000_000_000, 1_700_000_001_000);
        let told = GroupEntry {
            index: 0,
            producer,
            session,
            seq: 1,
            text,
            head: None,
            entry: cid(),
            time,
            received: time + 1,
            recovery: true,
        };
        let own = GroupEntry {
            index: 1,
            producer: self.peer,
            text: None,
            head: Some(cid()),
            recovery: false,
            ..told.clone()
        };
        [told, own]
    }
}

/// One of three wanted nodes holds it.
fn put_done(key: &[u8]) -> RecordPutDone {
    let holder = Keypair::generate_ed25519().public().to_peer_id();
    serde_json::from_value(serde_json::json!({
        "key": RecordTarget::key_text(key), "seq": 7, "expires": 1_700_000_000_000_u64, "replicas": 1, "holders": [holder],
        "wanted": 3, "asked": 2, "refused": [{"peer": holder, "reason": "no\nroom"}], "complete": false,
    }))
    .expect("a result")
}

/// Two had it, of four that were asked.
fn answers() -> dagmesh_records::GetResult {
    let (holders, stale, absent, invalid) = (2, 1, 1, 0);
    dagmesh_records::GetResult {
        record: None,
        holders,
        stale,
        absent,
        invalid,
        asked: 4,
        wanted: 16,
        corrected: Vec::new(),
    }
}

/// Where a name points.
pub(crate) fn resolved(value: &str, sequence: u64) -> NameResolved {
    let draft = IpnsDraft { sequence, ..IpnsDraft::new(value, sequence, 1_700_000_000_000) };
    NameResolved::new(&IpnsRecord::sign(&Keypair::generate_ed25519(), draft).expect("signs"), Some(&answers()))
}

pub(crate) fn cid() -> Cid {
    *Block::new(Codec::Raw, HashCode::Sha2_256, &b"fake"[..]).expect("a block").cid()
}

/// Adds a permit when it is dropped.
struct OnDrop(Arc<Semaphore>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

fn absent<T>() -> Result<T> {
    Err(NodeError::other("the fake node has no such method"))
}

impl Api for FakeNode {
    async fn id(&self) -> Result<Identity> {
        Ok(Identity { peer_id: self.peer, addrs: vec!["/ip4/127.0.0.1/tcp/4101".parse().expect("an address")] })
    }

    async fn status(&self) -> Result<Status> {
        Ok(Status {
            peer_id: self.peer,
            version: "0".into(),
            network: "test".into(),
            profile: "test".into(),
            uptime_ms: 1,
            listen: vec!["/ip4/127.0.0.1/tcp/4101".parse().expect("an address")],
            addresses: Vec::new(),
            peers: 0,
            topic_peers: 0,
            feeds: Vec::new(),
            ipni_http: None,
            follows: 0,
            in_sync: 0,
            syncing: 0,
            blocks: 0,
            bytes: 0,
            warnings: Vec::new(),
        })
    }

    async fn peers(&self) -> Result<Vec<PeerInfo>> {
        Ok(Vec::new())
    }

    async fn connect(&self, request: ConnectRequest) -> Result<Connected> {
        Ok(Connected { peer_id: self.peer, addr: request.addr })
    }

    /// Three reports, then the answer; with `hidden`, one report and then nothing for ever.
    async fn add(&self, request: AddRequest, progress: ProgressSink) -> Result<Added> {
        let dropped = OnDrop(Arc::clone(&self.dropped));
        for done_blocks in 1..=3 {
            progress.send(Progress { done_blocks, known_blocks: 3, ..Progress::default() });
            tokio::task::yield_now().await;
            if request.hidden {
                std::future::pending::<()>().await;
            }
        }
        std::mem::forget(dropped);
        Ok(Added { cid: cid(), blocks: 3, bytes: 4, files: 1, new_blocks: 3, skipped: Vec::new() })
    }

    async fn get(&self, request: GetRequest, _: ProgressSink) -> Result<Gotten> {
        Ok(Gotten { cid: request.cid, files: 1, bytes: 4 })
    }

    /// Two pieces; at offset 1 an error instead of the second, at offset 2 instead of the first.
    async fn cat(&self, request: CatRequest) -> Result<ByteStream> {
        let bad = || Err(NodeError::verification("a block of the file is damaged"));
        let pieces = match request.offset {
            0 => vec![Ok(Bytes::from_static(b"one")), Ok(Bytes::from_static(b"two"))],
            1 => vec![Ok(Bytes::from_static(b"one")), bad(), Ok(Bytes::from_static(b"three"))],
            _ => vec![bad()],
        };
        Ok(Box::pin(futures::stream::iter(pieces)))
    }

    async fn ls(&self, _: CidRequest) -> Result<Vec<DirEntry>> {
        let entry = |name: &str, kind| DirEntry { name: name.into(), cid: cid(), kind, size: Some(2048) };
        Ok(vec![entry("a\u{1b}[31m", EntryKind::File), entry("b", EntryKind::Directory)])
    }

    async fn dag_put(&self, request: DagPutRequest) -> Result<BlockPut> {
        let block = Block::new(Codec::Raw, HashCode::Sha2_256, request.data)?;
        Ok(BlockPut { cid: *block.cid(), bytes: block.data().len() as u64 })
    }

    async fn dag_get(&self, _: DagGetRequest) -> Result<Bytes> {
        Ok(Bytes::from_static(b"fake"))
    }

    async fn dag_stat(&self, request: CidRequest, _: ProgressSink) -> Result<DagStat> {
        Ok(DagStat { cid: request.cid, blocks: 1, bytes: 4, depth: 0, missing: 0 })
    }

    async fn dag_import(&self, _: DagImportRequest, _: ProgressSink) -> Result<CarImported> {
        Ok(CarImported { roots: vec![cid()], blocks: 1, bytes: 4, new_blocks: 1 })
    }

    async fn dag_export(&self, _: CidRequest) -> Result<ByteStream> {
        Ok(Box::pin(futures::stream::iter([Ok(Bytes::from_static(b"car"))])))
    }

    async fn publish(&self, request: PublishRequest, _: ProgressSink) -> Result<Published> {
        let content = match request.content {
            Content::Cid(cid) => cid,
            Content::Path(_) => cid(),
        };
        Ok(Published { feed: request.feed, head: cid(), seq: 0, content, blocks_added: 2, peers: 0, name: None })
    }

    /// Fails in the way that the feed's name says.
    async fn head(&self, request: HeadRequest) -> Result<Head> {
        let name = request.feed.map(|feed| feed.to_string()).unwrap_or_default();
        match serde_json::from_value::<ErrorKind>(name.into()) {
            Ok(kind) => Err(NodeError::new(kind, "as asked")),
            Err(_) => Ok(Head { publisher: self.peer, feed: Default::default(), head: cid(), seq: 7, time: 1 }),
        }
    }

    async fn announce(&self, request: AnnounceRequest) -> Result<Announced> {
        Ok(Announced { head: request.cid, peers: 0, name: None })
    }

    async fn follow(&self, request: FollowRequest, _: ProgressSink) -> Result<Follow> {
        Ok(Follow {
            publisher: request.target.peer(),
            feed: request.target.feed_or(request.feed),
            state: FollowState::Waiting,
            reason: Some("no peer is connected that serves it".into()),
            latest: None,
            announced: None,
            known_blocks: 0,
            have_blocks: 0,
            latest_seq: None,
            announced_seq: None,
            since: 1,
            retry_at: None,
            keep: request.keep,
            depth: request.depth,
            name: None,
        })
    }

    async fn follows(&self) -> Result<Vec<Follow>> {
        Ok(Vec::new())
    }

    async fn unfollow(&self, request: UnfollowRequest) -> Result<Unfollowed> {
        Ok(Unfollowed { publisher: request.target.peer(), feeds: request.feed.into_iter().collect() })
    }

    async fn sync(&self, _: SyncRequest, _: ProgressSink) -> Result<Synced> {
        absent()
    }

    async fn watch(&self) -> Result<EventStream> {
        let events = futures::stream::unfold(self.events.subscribe(), async |mut events| {
            events.recv().await.ok().map(|event| (event, events))
        });
        let hello = futures::stream::iter([Event::Lagged { missed: 0 }]);
        Ok(Box::pin(hello.chain(events)))
    }

    async fn ticket(&self, request: TicketRequest) -> Result<TicketMade> {
        let addrs = self.id().await?.addrs;
        let ticket = Ticket::new(self.peer, &addrs, request.feed.clone())?.to_string();
        Ok(TicketMade { ticket, peer_id: self.peer, addrs, feed: request.feed })
    }

    async fn ipni_publish(&self, _: IpniPublishRequest, _: ProgressSink) -> Result<IpniPublished> {
        absent()
    }

    async fn ipni_ad(&self, _: IpniAdRequest) -> Result<IpniAd> {
        absent()
    }

    async fn ipni_entries(&self, _: IpniAdRequest) -> Result<IpniEntries> {
        absent()
    }

    async fn ipni_ads(&self, _: IpniAdsRequest) -> Result<Vec<IpniAd>> {
        Ok(Vec::new())
    }

    async fn ipni_follow(&self, _: IpniFollowRequest, _: ProgressSink) -> Result<Follow> {
        absent()
    }

    async fn ipni_announce(&self, request: IpniAnnounceRequest) -> Result<IpniAnnounced> {
        Ok(IpniAnnounced { head: request.cid.unwrap_or_else(cid), to: request.to })
    }

    async fn group_create(&self, request: GroupCreateRequest) -> Result<GroupInfo> {
        let owner = request.closed.then_some(self.peer);
        Ok(GroupInfo { closed: request.closed, owner, ..self.group(&request.name, &request)? })
    }

    async fn group_join(&self, request: GroupJoinRequest) -> Result<GroupInfo> {
        let owner = match &request.target {
            GroupTarget::Ticket(ticket) => ticket.owner(),
            GroupTarget::Name(_) => None,
        };
        Ok(GroupInfo { closed: owner.is_some(), owner, ..self.group(request.target.name(), &request)? })
    }

    async fn group_leave(&self, request: GroupRequest) -> Result<GroupInfo> {
        self.group(&request.name, &request)
    }

    async fn group_list(&self) -> Result<Vec<GroupInfo>> {
        Ok(vec![self.group("chess", &())?])
    }

    async fn group_publish(&self, request: GroupPublishRequest, _: ProgressSink) -> Result<GroupPublished> {
        let group = self.group(&request.name, &request)?.group;
        let head = match request.body {
            GroupBody::Text(_) => None,
            GroupBody::Content(Content::Cid(cid)) => Some(cid),
            GroupBody::Content(Content::Path(_)) => Some(cid()),
        };
        Ok(GroupPublished { group, producer: self.peer, session: 1, seq: 3, entry: cid(), head, peers: 0 })
    }

    async fn group_log(&self, request: GroupLogRequest) -> Result<Vec<GroupEntry>> {
        self.group(&request.name, &request)?;
        let entries = self.group_entries().into_iter().filter(|entry| Some(entry.index) >= request.from);
        Ok(entries.take(request.limit).collect())
    }

    async fn group_members(&self, request: GroupMembersRequest) -> Result<GroupMembers> {
        let group = self.group(&request.name, &request)?.group;
        let member = GroupMember { producer: self.peer, writer: true, connected: false, session: None, seq: 0 };
        Ok(GroupMembers { group, version: 0, members: vec![member] })
    }

    async fn group_state(&self, request: GroupRequest) -> Result<GroupState> {
        let group = self.group(&request.name, &request)?.group;
        Ok(GroupState {
            group,
            root: "ab".repeat(32),
            leaves: 1,
            sum: 3,
            members: 1,
            peers: 0,
            initialized: true,
            ahead: Vec::new(),
            missing: 0,
            heads: vec![GroupHeadInfo { producer: self.peer, session: 1, seq: 3, told: 3 }],
        })
    }

    /// The log where it is asked for, then what is sent into `group_events`.
    async fn group_watch(&self, request: GroupWatchRequest) -> Result<GroupEventStream> {
        self.group(&request.name, &request)?;
        let events = futures::stream::unfold(self.group_events.subscribe(), async |mut events| {
            events.recv().await.ok().map(|event| (event, events))
        });
        let from = request.from.unwrap_or(u64::MAX);
        let old = self.group_entries().into_iter().filter(move |entry| entry.index >= from);
        let old = old.map(|entry| GroupEvent::Entry(Box::new(entry))).chain([GroupEvent::Initialized]);
        Ok(Box::pin(futures::stream::iter(old).chain(events)))
    }

    async fn record_put(&self, request: RecordPutRequest) -> Result<RecordPutDone> {
        self.record(&request.record.name, &request)?;
        let name = RecordName::new(request.record.name).map_err(|error| NodeError::usage(error.to_string()))?;
        Ok(put_done(&dagmesh_records::record_key(&Keypair::generate_ed25519().public(), &name)))
    }

    /// Bytes that are no text where the name is `bytes`.
    async fn record_get(&self, request: RecordGetRequest) -> Result<RecordFound> {
        let name = match &request.target {
            RecordTarget::Name { name, .. } => name.as_str().to_owned(),
            RecordTarget::Key(_) => "name".into(),
        };
        self.record(&name, &request)?;
        let value = if name == "bytes" { vec![0, 0xff] } else { b"value \x1b[2J".to_vec() };
        let (timestamp_ms, expires_ms) = (1_700_000_000_000, 1_700_000_060_000);
        let meta = [("type".to_owned(), "text".to_owned())].into();
        let name = RecordName::new(name).expect("a name");
        let draft = Draft { name, value, sequence: 7, timestamp_ms, expires_ms, meta };
        Ok(RecordFound::new(&Record::sign(&Keypair::generate_ed25519(), draft).expect("signs"), &answers()))
    }

    async fn record_list(&self, request: RecordListRequest) -> Result<Vec<RecordHeld>> {
        self.record("", &request)?;
        let draft = IpnsDraft::new("/ipfs/x", 7, 1_700_000_000_000);
        let record = IpnsRecord::sign(&Keypair::generate_ed25519(), draft).expect("signs");
        Ok(vec![RecordHeld::new(&(&record).into(), dagmesh_records::Source::Own)])
    }

    async fn name_publish(&self, request: NamePublishRequest) -> Result<RecordPutDone> {
        self.record("", &request)?;
        Ok(put_done(&IpnsName::of(&Keypair::generate_ed25519().public()).key()))
    }

    async fn name_resolve(&self, request: NameResolveRequest) -> Result<NameResolved> {
        self.record("", &request)?;
        Ok(resolved("/ipfs/x", 7))
    }

    /// One that is known, then what is sent into `name_events`.
    async fn name_watch(&self, request: NameWatchRequest) -> Result<NameStream> {
        self.record("", &request)?;
        let events = futures::stream::unfold(self.name_events.subscribe(), async |mut events| {
            events.recv().await.ok().map(|event| (event, events))
        });
        Ok(Box::pin(futures::stream::iter([resolved("/ipfs/x", 7)]).chain(events)))
    }

    async fn key_gen(&self, _: KeyRequest) -> Result<KeyInfo> {
        absent()
    }

    async fn key_list(&self) -> Result<Vec<KeyInfo>> {
        Ok(Vec::new())
    }

    async fn key_export(&self, request: KeyRequest) -> Result<KeyExported> {
        Ok(KeyExported::new(request.name, PrivateKey(b"fake".to_vec())))
    }

    async fn key_import(&self, _: KeyImportRequest) -> Result<KeyInfo> {
        absent()
    }

    async fn gc(&self, request: GcRequest, _: ProgressSink) -> Result<GcReport> {
        Ok(GcReport { removed: 1, bytes: 4, kept: 0, dry_run: request.dry_run })
    }

    async fn repo_verify(&self, _: ProgressSink) -> Result<VerifyReport> {
        let damaged_cids = vec![cid()];
        Ok(VerifyReport { checked: 2, bytes: 8, damaged: 1, damaged_cids, missing: 0, missing_cids: Vec::new() })
    }

    async fn repo_stat(&self) -> Result<RepoStat> {
        absent()
    }

    async fn shutdown(&self) -> Result<()> {
        self.shut.add_permits(1);
        Ok(())
    }
}
