//! The data of the IPNI network: what its publishers sign and serve, and what a follower of theirs reads.
//!
//! - [`Advertisement`]: one link of a publisher's chain; [`NO_ENTRIES`] stands for an empty list of entries.
//! - [`Advertisement::sign`] and [`Advertisement::verify`]: signed envelopes, of extended providers as well;
//!   [`Signers`] says who signed.
//! - [`SignedHead`]: a publisher's word on where its chain stands.
//! - [`EntryChunk`], [`Chunks`], [`HamtNode`]: the multihashes that an advertisement is about.
//!
//! Everything is DAG-JSON or DAG-CBOR, named by the codec of its CID. What is written is canonical, byte for byte what
//! go-libipni writes. What is read may be DAG-JSON in any order, with white space, with padded base64; nothing else is
//! let through. Without the feature `net` the crate knows no network; with it, `net` asks publishers and serves ours.
//!
//! Source: go-libipni 0.7 (`ingest/schema`, `dagsync/ipnisync/head`), <https://github.com/ipni/specs/blob/main/IPNI.md>.

mod entries;
mod envelope;
mod error;
mod head;
#[cfg(feature = "net")]
pub mod net;
mod schema;
mod sign;
mod wire;

pub use entries::{Chunks, Entries, EntryChunk, HamtNode};
pub use error::IpniError;
pub use head::SignedHead;
pub use schema::{Advertisement, ExtendedProvider, NO_ENTRIES, Provider};
pub use sign::Signers;
