//! Publishers of the IPNI network over HTTP: asking theirs, serving ours.
//!
//! - [`Client`] and [`Remote`]: fetch a publisher's head and blocks, over HTTP, HTTPS, and HTTP on libp2p streams;
//!   [`Client::announce`] tells an indexer of a new head.
//! - [`Server`] and [`Source`]: serve a chain over the same three, and take announcements.
//!
//! Over TCP connections stay open for further requests; over libp2p a stream carries one request, and both sides say so
//! (`Connection: close`). Nothing is believed that is not proven: a block is hashed, a head must be signed by the
//! publisher. What a peer sends is read up to its cap and no further, and not for longer than [`Pace`] allows.
//!
//! Source: go-libipni 0.7 (`dagsync/ipnisync`, `maurl`, `announce/httpsender`), go-libp2p 0.48 (`p2p/http`),
//! <https://github.com/libp2p/specs/blob/master/http/README.md>.

mod addr;
mod client;
mod error;
mod pace;
mod server;

use bytes::Bytes;
use libp2p::StreamProtocol;

pub use client::{Client, ClientConfig, Remote};
pub use error::{ConfigError, NetError};
pub use pace::Pace;
pub use server::{Refusal, Server, Source, tls_config};

/// The stream protocol under which libp2p peers speak HTTP/1.1.
pub const HTTP: StreamProtocol = StreamProtocol::new("/http/1.1");

/// Where publishers serve their chain, and the name of the protocol in [`PROTOCOLS_PATH`].
const BASE_PATH: &str = "/ipni/v1/ad";
/// Where a libp2p peer says under which path it serves which protocol.
const PROTOCOLS_PATH: &str = "/.well-known/libp2p/protocols";
/// The same, in a draft of the specification that is still in use.
const OLD_PROTOCOLS_PATH: &str = "/.well-known/libp2p";
/// Where indexers take announcements.
const ANNOUNCE_PATH: &str = "/announce";
/// The header that says what a block is asked for as.
const KIND_HEADER: &str = "ipni-cid-schema-type";
/// The media type of an announcement in CBOR.
const OCTETS: &str = "application/octet-stream";
/// The media type of an announcement in JSON.
const JSON: &str = "application/json";

/// What a block is asked for as. A hint: publishers that make blocks when they are asked look for it in the right place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A link of the chain.
    Advertisement,
    /// A chunk of an advertisement's entries, or a node of their HAMT.
    EntryChunk,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Advertisement => "Advertisement",
            Self::EntryChunk => "EntryChunk",
        }
    }
}

/// An announcement as it travels over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnnounceBody {
    /// As on gossipsub, `application/octet-stream`: at most [`dagmesh_core::limits::MAX_ANNOUNCEMENT_BYTES`].
    Cbor(Bytes),
    /// As JSON, `application/json`: at most [`dagmesh_core::limits::MAX_IPNI_ANNOUNCEMENT_JSON_BYTES`].
    Json(Bytes),
}
