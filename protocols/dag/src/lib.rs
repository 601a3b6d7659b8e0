//! Content-addressed DAGs: what dagmesh keeps in sync.
//!
//! - [`Block`] exists only verified; [`hash`] says which CIDs we take at all.
//! - [`Entry`] and [`SignedHead`] make a feed: a chain, and its publisher's word on where it stands.
//! - [`links`] finds the links of a block, in order and bounded.
//! - [`Blockstore`] is what every store offers; [`conformance`] is the suite that every store runs.

pub mod block;
pub mod conformance;
pub mod feed;
pub mod hash;
pub mod links;
mod memory;
pub mod store;

pub use block::{Block, BlockError};
pub use feed::{Entry, FeedError, FeedName, HeadOrder, SignedHead};
pub use hash::{CidError, Codec, HashCode, check_cid};
pub use links::{LinksError, Place};
pub use memory::MemoryBlockstore;
pub use store::{Blockstore, StoreError};
