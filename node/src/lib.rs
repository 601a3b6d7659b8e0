//! A libp2p node that keeps content-addressed DAGs in sync between publishers and subscribers.

pub mod api;
pub mod cli;
pub mod config;
pub mod error;
#[cfg(test)]
mod fake;
pub mod http;
pub mod identity;
pub mod store;
pub mod ticket;
pub mod types;
pub mod upkeep;

pub use api::Api;
pub use error::{ErrorKind, NodeError};
