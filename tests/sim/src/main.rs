//! `cargo run -p dagmesh-sim -- chronosync --nodes 100 --loss 10 --seed 7 --partition 20s..60s`

use std::process::ExitCode;

use clap::Parser;

/// Ends with 0 if all went as it must, 1 if an invariant was broken or a file not written, 2 on wrong usage.
fn main() -> ExitCode {
    dagmesh_sim::cli::run_args(&dagmesh_sim::cli::Args::parse(), &mut std::io::stdout().lock())
}
