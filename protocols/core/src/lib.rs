//! What every dagmesh protocol stands on.
//!
//! - [`Machine`]: a protocol as a state machine without I/O.
//! - [`frame`]: messages behind a length prefix, refused before memory is taken.
//! - [`cbor`]: the one bounded DAG-CBOR codec, and the scanner that finds links without building a tree.
//! - [`take_cid`]: a binary CID, in its one form.
//! - [`bounded`]: collections that cannot be decoded past their bound.
//! - [`is_global`]: whether an IP address is the whole internet's.
//! - `exchange` (feature `net`): one request and its answer on a libp2p stream, for the protocols that are just that.
//! - [`limits`]: every cap of the house, each with its reason.
//!
//! Without the feature `net`, the crate knows no network; a runtime it never knows.

pub mod bounded;
pub mod cbor;
mod cid_bytes;
#[cfg(feature = "net")]
pub mod exchange;
pub mod frame;
pub mod limits;
mod machine;
mod reach;

pub use cid_bytes::{NoCid, take_cid};
pub use machine::Machine;
pub use reach::is_global;
