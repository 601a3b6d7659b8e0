//! A libp2p node that keeps content-addressed DAGs in sync between publishers and subscribers.

pub mod api;
pub mod error;
pub mod ticket;
pub mod types;

pub use api::Api;
pub use error::{ErrorKind, NodeError};
