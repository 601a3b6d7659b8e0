//! A libp2p node that keeps content-addressed DAGs in sync between publishers and subscribers.
//!
//! [`Node`] is the whole of it behind one handle: [`Node::builder`] starts it, [`Api`] says what it does.

pub mod api;
pub mod cli;
pub mod config;
pub mod error;
#[cfg(test)]
mod fake;
pub mod http;
pub mod identity;
pub mod keys;
pub mod node;
mod services;
pub mod store;
pub mod swarm;
#[cfg(test)]
mod testing;
pub mod ticket;
pub mod types;
pub mod upkeep;

pub use api::Api;
pub use dagmesh_dag as dag;
pub use dagmesh_dagsync as dagsync;
pub use dagmesh_records as records;
pub use error::{ErrorKind, NodeError};
pub use node::{Group, Node, NodeBuilder, Records};
pub use services::outbox::{EntryHook, SyncedEntry};
