//! Content-addressed DAGs: what dagmesh keeps in sync.
//!
//! - [`Block`] exists only verified; [`hash`] says which CIDs we take at all.
//! - [`Entry`] and [`SignedHead`] make a feed: a chain, and its publisher's word on where it stands.
//! - [`links`] finds the links of a block, in order and bounded.
//! - [`Selector`] says which part of a DAG is wanted; [`walk`] goes through it, in one fixed order.
//! - [`unixfs`] turns files and folders into DAGs and back; [`car`] carries DAGs in one stream of bytes.
//! - [`Blockstore`] is what every store offers; [`conformance`] is the suite that every store runs.

mod batch;
pub mod block;
pub mod car;
pub mod conformance;
pub mod feed;
pub mod hash;
pub mod links;
mod memory;
pub mod selector;
pub mod store;
pub mod unixfs;
pub mod walk;

pub use block::{Block, BlockError};
pub use feed::{Entry, FeedError, FeedName, HeadOrder, SignedHead};
pub use hash::{CidError, Codec, Digests, HashCode, check_cid, check_cid_with};
pub use links::{LinksError, Place};
pub use memory::MemoryBlockstore;
pub use selector::{Selector, SelectorError};
pub use store::{Blockstore, StoreError};
pub use walk::{Root, Visit, Walk, WalkConfig, WalkError};
