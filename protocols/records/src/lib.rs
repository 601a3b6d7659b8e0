//! Signed, named, expiring records in a DHT, and IPNS: a name that only its owner can point, that outlives its owner's
//! connection, and that never goes backwards.
//!
//! - [`Record`]: an owner's word on what stands under a name, signed over all of it; [`IpnsRecord`] is that of IPNS.
//! - [`verify`]: the one place that decides about a key and a value of unknown origin; [`Verified`] is what passed, and
//!   its [`Order`] says which of two is the newer.
//! - [`Store`]: what a node keeps for others and of its own, bounded and fair; [`Bans`]: whom it does not talk to.
//! - [`Request`], [`Answer`]: putting and getting between two nodes, where an older record is answered with the newer;
//!   [`serve`] is the side that answers. [`FetchRequest`], [`FetchAnswer`]: the same question as other implementations of IPNS
//!   over PubSub ask it.
//! - [`Put`], [`Get`]: the machines that replicate a record to the closest nodes, and read it from a quorum of them.
//!
//! With the feature `net`, `net` carries these over libp2p streams. All else is pure: time is told from outside, in Unix milliseconds where a record's own times count.
//!
//! Source: N. Tollervey, "drogulus" (signed items, keys made of owner and name, error codes); the IPNS record
//! specification, <https://specs.ipfs.tech/ipns/ipns-record/>; P. Maymounkov, D. Mazières, "Kademlia" (IPTPS 2002),
//! section 2.3, for caching at the closest node that lacked the value. Sequences, marks, fair eviction and the encoding
//! are dagmesh's own.

mod bans;
mod error;
mod fetch;
mod hash;
mod ipns;
mod message;
#[cfg(feature = "net")]
pub mod net;
mod order;
mod quorum;
mod record;
mod serve;
mod store;
#[cfg(test)]
mod testing;
mod validator;

pub use bans::{Ban, Banned, Bans, Delivery};
pub use error::{Code, RecordError};
pub use fetch::{FETCH_PROTOCOL, FetchAnswer, FetchError, FetchRequest};
pub use ipns::{IpnsDraft, IpnsName, IpnsRecord, Validity};
pub use message::{Answer, KeyBytes, MessageError, PROTOCOL, RecordBytes, Refusal, Request};
pub use order::Order;
pub use quorum::{
    Correction, Effect, Fault, Get, GetConfig, GetResult, Input, Put, PutConfig, PutEnd, PutResult, Times,
};
pub use record::{Draft, RECORD_PREFIX, Record, RecordName, record_key};
pub use serve::{Served, serve};
pub use store::{Held, Mark, Row, Source, Store, StoreConfig, StoreEffect, Stored};
pub use validator::{Namespace, Verified, select, verify};
