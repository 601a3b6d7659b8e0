//! The IPNI network: what is asked of a node about it, and what it answers.

use std::path::PathBuf;

use cid::Cid;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::text;
use crate::ticket::Target;

/// `ipni publish`, `ipni remove`: appends an advertisement to the own chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpniPublishRequest {
    /// Absolute path, on the daemon's machine, of a list of multihashes or a CAR; no entries where absent.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// What the provider calls these entries, at most 64 bytes of text; the CID of the entries where absent.
    #[serde(default)]
    pub context_id: Option<String>,
    /// How the content is fetched, in hexadecimal, at most 1,024 bytes: what the protocol it begins with says.
    #[serde(default)]
    pub metadata: String,
    /// Says that the provider has it no more.
    #[serde(default)]
    pub remove: bool,
    /// Moves the head without announcing it.
    #[serde(default)]
    pub no_announce: bool,
}

/// An advertisement that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpniPublished {
    /// It.
    #[serde(with = "text::one")]
    pub ad: Cid,
    /// The newest of its entry chunks, or what stands for none.
    #[serde(with = "text::one")]
    pub entries: Cid,
    /// How many chunks there are.
    pub chunks: u64,
    /// How many multihashes are in them.
    pub multihashes: u64,
    /// The advertisement before it.
    #[serde(default, with = "text::option")]
    pub previous: Option<Cid>,
    /// Advertisements in the chain, with this one.
    #[serde(default)]
    pub ads: u64,
    /// Peers that it was announced to on gossip.
    #[serde(default)]
    pub announced_to: usize,
}

/// `ipni ad get`, `ipni ad verify`, `ipni ad entries`: one advertisement that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpniAdRequest {
    /// Which; the head of the own chain where absent.
    #[serde(default, with = "text::option")]
    pub cid: Option<Cid>,
    /// Of its entries: how many, at most 100,000; 1,000 where absent.
    #[serde(default)]
    pub entries: Option<usize>,
}

/// The multihashes that an advertisement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpniEntries {
    /// The advertisement.
    #[serde(with = "text::one")]
    pub ad: Cid,
    /// Its multihashes in hexadecimal, in the order of the chunks or of the HAMT's nodes; each as often as it stands there.
    pub multihashes: Vec<String>,
    /// Whether these are all: no more were there than were asked for, and every chunk was held.
    pub complete: bool,
}

/// `ipni ad list`: a chain, the newest advertisement first, as far as it is held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpniAdsRequest {
    /// Whose; the own chain where absent.
    #[serde(default)]
    pub target: Option<Target>,
    /// In which network; that of the config where absent.
    #[serde(default)]
    pub network: Option<String>,
    /// How many, at most 10,000; 100 where absent.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// An advertisement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpniAd {
    /// It.
    #[serde(with = "text::one")]
    pub cid: Cid,
    /// The one before it.
    #[serde(with = "text::option")]
    pub previous: Option<Cid>,
    /// Who has the content, as text.
    pub provider: String,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// The newest of its entry chunks, the root of a HAMT, or what stands for none.
    #[serde(with = "text::one")]
    pub entries: Cid,
    /// What the provider calls these entries, in hexadecimal.
    pub context_id: String,
    /// How the content is fetched, in hexadecimal.
    pub metadata: String,
    /// Whether the provider has it no more.
    pub is_rm: bool,
    /// Whether all of its signatures hold.
    pub verified: bool,
    /// Who has signed it, where that is so: its provider, or somebody on behalf of it.
    #[serde(default)]
    pub signer: Option<PeerId>,
    /// What is wrong with its signatures.
    #[serde(default)]
    pub problem: Option<String>,
    /// Extended providers, as text.
    #[serde(default)]
    pub extended: Vec<String>,
    /// Those of them for whom only the publisher has signed.
    #[serde(default)]
    pub unproven: Vec<String>,
}

/// `ipni follow`: follows the chain of a publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpniFollowRequest {
    /// Whom: a multiaddr of HTTP ends with `/p2p/<peer>` too.
    pub target: Target,
    /// In which network; that of the config where absent.
    #[serde(default)]
    pub network: Option<String>,
    /// Most advertisements that the first sync takes; all where absent.
    #[serde(default)]
    pub depth: Option<u64>,
    /// Keeps the entries of the newest so many advertisements; of all where absent, the chain alone where 0.
    #[serde(default)]
    pub keep: Option<u64>,
    /// Answers when in sync with the publisher's head, not at once.
    #[serde(default)]
    pub wait: bool,
}

/// `ipni announce`: tells an indexer of a head over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpniAnnounceRequest {
    /// The indexer: `http://...` or `https://...`; the path `/announce` where it has none.
    pub to: String,
    /// Which advertisement; the head of the own chain where absent.
    #[serde(default, with = "text::option")]
    pub cid: Option<Cid>,
    /// As CBOR, and not as JSON.
    #[serde(default)]
    pub cbor: bool,
}

/// An indexer was told, and took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpniAnnounced {
    /// The head.
    #[serde(with = "text::one")]
    pub head: Cid,
    /// Who was told.
    pub to: String,
}
