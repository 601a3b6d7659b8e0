//! What every dagmesh protocol stands on.
//!
//! - [`Machine`]: a protocol as a state machine without I/O.
//! - [`frame`]: messages behind a length prefix, refused before memory is taken.
//! - [`cbor`]: the one bounded DAG-CBOR codec, and the scanner that finds links without building a tree.
//! - [`take_cid`]: a binary CID, in its one form.
//! - [`bounded`]: collections that cannot be decoded past their bound.
//! - [`is_global`]: whether an IP address is the whole internet's.
//! - [`limits`]: every cap of the house, each with its reason.
//!
//! The crate knows no runtime and no network.

pub mod bounded;
pub mod cbor;
mod cid_bytes;
pub mod frame;
pub mod limits;
mod machine;
mod reach;

pub use cid_bytes::{NoCid, take_cid};
pub use machine::Machine;
pub use reach::is_global;
