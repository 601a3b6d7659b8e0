//! The `dagmesh` binary.

use std::{process::ExitCode, sync::Arc};

use dagmesh::{
    Node, NodeError,
    cli::{self, Backend, Start, Streams},
};

/// Starts real nodes.
struct Real;

impl Backend for Real {
    type Api = Node;

    async fn start(&self, start: Start) -> Result<Arc<Node>, NodeError> {
        let node = Node::builder().home(start.home.root()).config(start.config).key(start.key).start().await?;
        Ok(Arc::new(node))
    }
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::run(&Real, std::env::args_os().collect::<Vec<_>>(), Streams::standard()));
    // What blocks on the disk is done, or has been given up; the process does not wait for it twice.
    runtime.shutdown_background();
    ExitCode::from(code)
}
