//! Content-addressed DAGs: what dagmesh keeps in sync.
//!
//! - [`Block`] exists only verified; [`hash`] says which CIDs we take at all.
//! - [`links`] finds the links of a block, in order and bounded.
//! - [`unixfs`] turns files and folders into DAGs and back; [`car`] carries DAGs in one stream of bytes.
//! - [`Blockstore`] is what every store offers; [`conformance`] is the suite that every store runs.

mod batch;
pub mod block;
pub mod car;
pub mod conformance;
pub mod hash;
pub mod links;
mod memory;
pub mod store;
pub mod unixfs;

pub use block::{Block, BlockError};
pub use hash::{CidError, Codec, HashCode, check_cid};
pub use links::{LinksError, Place};
pub use memory::MemoryBlockstore;
pub use store::{Blockstore, StoreError};
