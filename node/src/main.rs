//! The `dagmesh` binary.

use std::process::ExitCode;

use dagmesh::cli::{self, NodeBackend};

fn main() -> ExitCode {
    cli::main(&NodeBackend)
}
