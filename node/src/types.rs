//! What goes in and out of the node's handle, its local API and `--json`.
//!
//! The names of fields are a contract: fields may be added, never renamed. CIDs, peer ids, addresses and feeds are
//! text; times are unix milliseconds; sizes are bytes.

use std::path::PathBuf;

use cid::Cid;
use dagmesh_dag::FeedName;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::ticket::Target;

mod event;
pub mod text;

pub use event::Event;

// ---- Requests --------------------------------------------------------------------------------------------------

/// `connect`: dials a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectRequest {
    /// Where; ends with `/p2p/<peer>` where the peer is to be checked.
    pub addr: Multiaddr,
}

/// `add`: imports a file or folder as UnixFS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// Absolute path, on the daemon's machine.
    #[serde(deserialize_with = "text::absolute")]
    pub path: PathBuf,
    /// Also takes files and folders whose name starts with a dot.
    #[serde(default)]
    pub hidden: bool,
    /// Size of a chunk; the default where absent.
    #[serde(default)]
    pub chunk_bytes: Option<usize>,
}

/// `get`: writes a file or folder to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetRequest {
    /// What.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Absolute path, on the daemon's machine, of the file or folder to be made.
    #[serde(deserialize_with = "text::absolute")]
    pub output: PathBuf,
    /// Replaces what stands there already.
    #[serde(default)]
    pub overwrite: bool,
}

impl GetRequest {
    /// Writes `cid` to `output`, where nothing may stand yet.
    pub fn new(cid: Cid, output: PathBuf) -> Self {
        Self { cid, output, overwrite: false }
    }
}

/// `cat`: the content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatRequest {
    /// Which file.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Starts here.
    #[serde(default)]
    pub offset: u64,
    /// Gives at most so many bytes; up to the end where absent.
    #[serde(default)]
    pub length: Option<u64>,
}

/// `ls` and `dag stat`: one CID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CidRequest {
    /// Which.
    #[serde(with = "text::one")]
    pub cid: Cid,
}

/// How one block is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// Bytes as they are.
    Raw,
    /// DAG-PB.
    DagPb,
    /// DAG-CBOR.
    DagCbor,
    /// DAG-JSON.
    DagJson,
}

/// The hash that names a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum HashName {
    /// SHA2-256.
    #[default]
    #[serde(rename = "sha2-256")]
    #[value(name = "sha2-256")]
    Sha2_256,
    /// SHA2-512.
    #[serde(rename = "sha2-512")]
    #[value(name = "sha2-512")]
    Sha2_512,
    /// BLAKE3 with 32 bytes.
    #[serde(rename = "blake3")]
    #[value(name = "blake3")]
    Blake3,
    /// BLAKE2b with 32 bytes.
    #[serde(rename = "blake2b-256")]
    #[value(name = "blake2b-256")]
    Blake2b256,
}

/// `dag put`: stores one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DagPutRequest {
    /// How `data` is written.
    pub input: DataFormat,
    /// How the block is to be stored. Only between DAG-CBOR and DAG-JSON is there a way that changes nothing.
    pub codec: DataFormat,
    /// Its hash.
    #[serde(default)]
    pub hash: HashName,
    /// Its bytes, in base64 on the wire.
    #[serde(with = "text::base64")]
    pub data: Vec<u8>,
}

/// `dag get`: the bytes of one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DagGetRequest {
    /// Which.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Written how; as it is stored where absent.
    #[serde(default)]
    pub output: Option<DataFormat>,
}

/// `dag import`: takes the blocks of a CAR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DagImportRequest {
    /// Absolute path of the CAR, on the daemon's machine.
    #[serde(deserialize_with = "text::absolute")]
    pub path: PathBuf,
}

/// What is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A file or folder on the daemon's machine, by its absolute path; it is imported first.
    #[serde(deserialize_with = "text::absolute")]
    Path(PathBuf),
    /// A DAG that is held already.
    #[serde(with = "text::one")]
    Cid(Cid),
}

/// `publish`: appends an entry to a feed and moves its head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// `{"path": ...}` or `{"cid": ...}`.
    pub content: Content,
    /// Which feed.
    #[serde(default)]
    pub feed: FeedName,
    /// Moves the head without announcing it.
    #[serde(default)]
    pub no_announce: bool,
    /// Also takes files and folders whose name starts with a dot.
    #[serde(default)]
    pub hidden: bool,
    /// Kept in the entry, as DAG-JSON.
    #[serde(default)]
    pub meta: Option<serde_json::Value>,
}

impl PublishRequest {
    /// Publishes `content` in the default feed and announces it.
    pub fn new(content: Content) -> Self {
        Self { content, feed: FeedName::default(), no_announce: false, hidden: false, meta: None }
    }
}

/// `head`: the signed head of a feed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadRequest {
    /// Whose; our own where absent.
    #[serde(default)]
    pub target: Option<Target>,
    /// Which feed; the ticket's or the default one where absent.
    #[serde(default)]
    pub feed: Option<FeedName>,
}

/// `announce`: announces a head again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceRequest {
    /// The head.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Of which feed.
    #[serde(default)]
    pub feed: FeedName,
}

/// `follow`: follows a publisher's feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowRequest {
    /// Whom.
    pub target: Target,
    /// Which feed; the ticket's or the default one where absent.
    #[serde(default)]
    pub feed: Option<FeedName>,
    /// Most entries of the chain that the first sync takes; all where absent.
    #[serde(default)]
    pub depth: Option<u64>,
    /// Keeps the content of the newest so many entries; of all where absent, the chain alone where 0.
    #[serde(default)]
    pub keep: Option<u64>,
    /// Answers when in sync with the publisher's head, not at once.
    #[serde(default)]
    pub wait: bool,
}

impl FollowRequest {
    /// Follows `target` with all its entries and contents, and does not wait.
    pub fn new(target: Target) -> Self {
        Self { target, feed: None, depth: None, keep: None, wait: false }
    }
}

/// `unfollow`: follows no longer. What has been fetched stays until `gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnfollowRequest {
    /// Whom.
    pub target: Target,
    /// Which feed; the ticket's where absent, and if there is none, all feeds of that publisher.
    #[serde(default)]
    pub feed: Option<FeedName>,
}

/// `sync`: one explicit sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// From whom.
    pub target: Target,
    /// Which feed; the ticket's or the default one where absent.
    #[serde(default)]
    pub feed: Option<FeedName>,
    /// From this head; from the publisher's newest where absent.
    #[serde(default, with = "text::option")]
    pub head: Option<Cid>,
    /// Down to this link, which is not fetched; to the latest synced entry where absent.
    #[serde(default, with = "text::option")]
    pub stop: Option<Cid>,
    /// Most entries of the chain.
    #[serde(default)]
    pub depth: Option<u64>,
    /// Most blocks of a segment.
    #[serde(default)]
    pub segment: Option<u64>,
    /// Ignores the latest synced entry: walks the whole chain again.
    #[serde(default)]
    pub resync: bool,
}

impl SyncRequest {
    /// Syncs the newest head of `target` down to the latest synced entry.
    pub fn new(target: Target) -> Self {
        Self { target, feed: None, head: None, stop: None, depth: None, segment: None, resync: false }
    }
}

/// `ticket`: the string that leads others here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {
    /// Which feed; the default one where absent.
    #[serde(default)]
    pub feed: FeedName,
}

/// `gc`: removes what nothing refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Counts, and removes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

// ---- Results: lifecycle and mesh -------------------------------------------------------------------------------

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its peer id.
    pub peer_id: PeerId,
    /// Where it can be dialled, each ending with `/p2p/<peer_id>`; empty while it is stopped.
    pub addrs: Vec<Multiaddr>,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its peer id.
    pub peer_id: PeerId,
    /// The address of the oldest connection with it.
    pub addr: Multiaddr,
    /// The protocols that it told; empty until it has.
    pub protocols: Vec<String>,
    /// Its software, as it told.
    #[serde(default)]
    pub agent: Option<String>,
    /// Connections with it.
    #[serde(default)]
    pub connections: u32,
    /// Whether the oldest connection runs through a relay.
    #[serde(default)]
    pub relayed: bool,
    /// Round trip of the last ping, in milliseconds.
    #[serde(default)]
    pub rtt_ms: Option<u64>,
}

/// Whether the world reaches an address of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Not tested yet.
    #[default]
    Unknown,
    /// A peer dialled it.
    Reachable,
    /// A peer tried, in vain.
    Unreachable,
}

/// One address of ours, and whether it is of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The address.
    pub addr: Multiaddr,
    /// What the last test said.
    pub reach: Reach,
    /// When that was.
    #[serde(default)]
    pub tested: Option<u64>,
    /// What to do about it, where something is to be done.
    #[serde(default)]
    pub advice: Option<String>,
}

/// A feed that this node publishes, and how far its head has come, each step with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// Its name.
    pub feed: FeedName,
    /// Its head.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// The head's sequence number.
    pub seq: u64,
    /// When the head moved there.
    pub published: u64,
    /// When it was announced last; `None` while no peer was there to hear it.
    #[serde(default)]
    pub announced: Option<u64>,
    /// How many peers it was sent to.
    #[serde(default)]
    pub announced_to: usize,
    /// When a peer first fetched it.
    #[serde(default)]
    pub fetched: Option<u64>,
    /// When a peer first confirmed that it is in sync with it.
    #[serde(default)]
    pub confirmed: Option<u64>,
    /// How many peers did.
    #[serde(default)]
    pub confirmed_by: usize,
}

/// How a node is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its peer id.
    pub peer_id: PeerId,
    /// Its version.
    pub version: String,
    /// Its network's name.
    pub network: String,
    /// Its profile.
    pub profile: String,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// Addresses it listens on.
    pub listen: Vec<Multiaddr>,
    /// Addresses others may reach it at, each with what is known about it.
    pub addresses: Vec<AddressStatus>,
    /// Connected peers.
    pub peers: usize,
    /// Connected peers that are on our announcement topic.
    pub topic_peers: usize,
    /// Feeds that it publishes.
    pub feeds: Vec<FeedStatus>,
    /// Feeds that it follows.
    pub follows: usize,
    /// Those of them that are in sync.
    pub in_sync: usize,
    /// Syncs that run now.
    pub syncing: usize,
    /// Blocks held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What needs a person's attention, each with the fix; empty if all is well.
    pub warnings: Vec<String>,
}

/// A peer was dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Who answered.
    pub peer_id: PeerId,
    /// Where.
    pub addr: Multiaddr,
}

// ---- Results: files and DAGs -----------------------------------------------------------------------------------

/// A file or folder was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Its root.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Its blocks, each counted once.
    pub blocks: u64,
    /// The bytes of the files in it.
    pub bytes: u64,
    /// Its files.
    #[serde(default)]
    pub files: u64,
    /// Those of its blocks that were not held before.
    #[serde(default)]
    pub new_blocks: u64,
    /// Paths that were passed over (sockets, devices, and what could not be read), at most 100.
    #[serde(default)]
    pub skipped: Vec<String>,
}

/// A file or folder was written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gotten {
    /// Its root.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Not known: its block is not held.
    Unknown,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its name.
    pub name: String,
    /// Its root.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// What it is.
    pub kind: EntryKind,
    /// Size of the file, or of all blocks of a folder; `None` where it is not known.
    pub size: Option<u64>,
}

/// A block was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockPut {
    /// Its CID.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Its size.
    pub bytes: u64,
}

/// The size of a DAG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DagStat {
    /// Its root.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// Blocks of it that are held, each counted once.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Longest path from the root, in links.
    pub depth: u64,
    /// Links to blocks that are not held.
    #[serde(default)]
    pub missing: u64,
}

/// A CAR was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarImported {
    /// The roots that its header names.
    #[serde(with = "text::list")]
    pub roots: Vec<Cid>,
    /// Blocks in it.
    pub blocks: u64,
    /// Their bytes.
    #[serde(default)]
    pub bytes: u64,
    /// Those that were not held before.
    #[serde(default)]
    pub new_blocks: u64,
}

// ---- Results: feeds --------------------------------------------------------------------------------------------

/// A feed's head was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Which feed.
    pub feed: FeedName,
    /// Its new head: the entry.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// The entry's sequence number.
    pub seq: u64,
    /// What the entry carries.
    #[serde(with = "text::one")]
    pub content: Cid,
    /// Blocks that were not held before, the entry among them.
    pub blocks_added: u64,
    /// Peers that it was announced to at once; others hear of it when they connect.
    #[serde(default)]
    pub peers: usize,
}

/// A signed head, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Who signed it.
    pub publisher: PeerId,
    /// Which feed.
    pub feed: FeedName,
    /// The entry.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// Its sequence number.
    pub seq: u64,
    /// When it was signed.
    pub time: u64,
}

/// A head was announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The head.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// Peers that it was sent to; with 0 it is kept and sent as soon as one is there.
    pub peers: usize,
}

/// How far a followed feed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowState {
    /// The publisher's head is not known yet.
    Waiting,
    /// A newer head is known, and its sync waits for its turn or its next try.
    Behind,
    /// A sync runs.
    Syncing,
    /// All that is known is held.
    InSync,
    /// It cannot go on by itself (a fork, or the publisher refuses us).
    Failed,
}

/// A followed feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// Whose.
    pub publisher: PeerId,
    /// Which.
    pub feed: FeedName,
    /// How far it is.
    pub state: FollowState,
    /// Why it is not in sync, and what happens next; `None` where it is.
    pub reason: Option<String>,
    /// The newest entry that is held with its whole content.
    #[serde(with = "text::option")]
    pub latest: Option<Cid>,
    /// The newest head that is known.
    #[serde(with = "text::option")]
    pub announced: Option<Cid>,
    /// Blocks that the running sync knows of, or the last one had.
    pub known_blocks: u64,
    /// Those of them that are held.
    pub have_blocks: u64,
    /// Sequence number of `latest`.
    #[serde(default)]
    pub latest_seq: Option<u64>,
    /// Sequence number of `announced`.
    #[serde(default)]
    pub announced_seq: Option<u64>,
    /// Since when `state` has held.
    #[serde(default)]
    pub since: u64,
    /// When the next try is due, where one is.
    #[serde(default)]
    pub retry_at: Option<u64>,
    /// As [`FollowRequest::keep`].
    #[serde(default)]
    pub keep: Option<u64>,
    /// As [`FollowRequest::depth`].
    #[serde(default)]
    pub depth: Option<u64>,
}

/// What is followed no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfollowed {
    /// Whose.
    pub publisher: PeerId,
    /// Which feeds.
    pub feeds: Vec<FeedName>,
}

/// One sync is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// Where it began.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// Where it ended: the link that it did not fetch; `None` at the start of the chain.
    #[serde(with = "text::option")]
    pub stop: Option<Cid>,
    /// Blocks that travelled.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that they came in.
    pub segments: u64,
    /// Blocks that were held already.
    pub from_cache: u64,
    /// Entries of the chain that were walked.
    #[serde(default)]
    pub entries: u64,
}

/// One string that leads to a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketMade {
    /// The string, for `dagmesh follow`.
    pub ticket: String,
    /// The peer id in it.
    pub peer_id: PeerId,
    /// The addresses in it.
    pub addrs: Vec<Multiaddr>,
    /// The feed in it.
    pub feed: FeedName,
}

// ---- Results: the store ----------------------------------------------------------------------------------------

/// What `gc` removed, or would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Blocks.
    pub removed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that stay.
    #[serde(default)]
    pub kept: u64,
    /// Whether nothing was really removed.
    #[serde(default)]
    pub dry_run: bool,
}

/// What `repo verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Blocks that were hashed again.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that failed; they were put aside and count as not held.
    pub damaged: u64,
    /// The first 1,024 of those. The store knows no codec, so they are told as raw.
    #[serde(with = "text::list")]
    pub damaged_cids: Vec<Cid>,
    /// Blocks that something needs and that are not held.
    #[serde(default)]
    pub missing: u64,
    /// The first 1,024 of those.
    #[serde(default, with = "text::list")]
    pub missing_cids: Vec<Cid>,
}

/// The size of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStat {
    /// Where it is.
    pub path: PathBuf,
    /// Blocks held.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that it takes on the disk.
    pub disk_bytes: u64,
    /// Own feeds.
    #[serde(default)]
    pub feeds: u64,
    /// Feeds followed.
    #[serde(default)]
    pub follows: u64,
    /// Blocks put aside because they no longer match their CID.
    #[serde(default)]
    pub quarantined: u64,
}

/// `{}`: done, with nothing to say about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

// ---- Progress --------------------------------------------------------------------------------------------------

/// What a long command is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Looking for a peer and connecting to it.
    #[default]
    Connecting,
    /// Reading files and making blocks of them.
    Importing,
    /// Fetching the chain of entries.
    Chain,
    /// Fetching the content of an entry.
    Content,
    /// Writing files.
    Exporting,
    /// Walking what is held.
    Walking,
    /// Hashing blocks again.
    Verifying,
    /// Removing blocks.
    Removing,
    /// Nothing has come for a while; [`Progress::note`] says why.
    Stalled,
}

/// How far a long command is. All counts grow, and `known` figures may be passed while more is discovered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Blocks done.
    pub done_blocks: u64,
    /// Blocks known to be part of it so far.
    pub known_blocks: u64,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes known to be part of it, where that is known.
    #[serde(default)]
    pub known_bytes: Option<u64>,
    /// Files done.
    #[serde(default)]
    pub files: u64,
    /// One short sentence, where there is more to say.
    #[serde(default)]
    pub note: Option<String>,
}
