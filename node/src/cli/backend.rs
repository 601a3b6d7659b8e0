//! The node behind the commands of the binary.

use std::sync::Arc;

use super::{Backend, Start};
use crate::{api::Result, node, node::Node};

/// Starts a [`Node`].
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeBackend;

impl Backend for NodeBackend {
    type Api = Node;

    async fn start(&self, start: Start) -> Result<Arc<Node>> {
        Ok(Arc::new(node::start(&start.home, start.config, start.key, node::Hooks::default()).await?))
    }
}
