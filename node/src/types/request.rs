//! What is asked of a node.

use std::path::PathBuf;

use cid::Cid;
use dagmesh_dag::FeedName;
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use super::{KeyName, text};
use crate::ticket::Target;

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
    /// Cuts where the content says so, not at fixed sizes: an insertion then changes few chunks. Their sizes lie about
    /// the default; not together with `chunk_bytes`.
    #[serde(default)]
    pub content_defined: bool,
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
    /// Gives the feed a name in the DHT, with this key (`self`: the node's own): this publication and every later one moves
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<KeyName>,
}

impl PublishRequest {
    /// Publishes `content` in the default feed and announces it.
    pub fn new(content: Content) -> Self {
        Self { content, feed: FeedName::default(), no_announce: false, hidden: false, meta: None, name: None }
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
    /// Tells this peer alone, directly; the topic where absent.
    #[serde(default)]
    pub to: Option<Target>,
    /// Gives the feed a name in the DHT, with this key (`self`: the node's own), as with `publish`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<KeyName>,
    /// Moves the name of the feed no longer; what the DHT has of it expires.
    #[serde(default)]
    pub no_name: bool,
}

impl AnnounceRequest {
    /// Announces `cid`, the head of the default feed, on the topic.
    pub fn new(cid: Cid) -> Self {
        Self { cid, feed: FeedName::default(), to: None, name: None, no_name: false }
    }
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
    /// Syncs a chain of advertisements of this network of IPNI, and no feed of ours.
    #[serde(default)]
    pub ipni: Option<String>,
}

impl SyncRequest {
    /// Syncs the newest head of `target` down to the latest synced entry.
    pub fn new(target: Target) -> Self {
        Self { target, feed: None, head: None, stop: None, depth: None, segment: None, resync: false, ipni: None }
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
