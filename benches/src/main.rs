//! `cargo run --release -p dagmesh-benches -- NAME [--json]`

use std::process::ExitCode;

use clap::Parser;
use dagmesh_benches::Args;

/// Ends with 0 if every bar holds, 1 if one does not or a measurement failed, 2 on wrong usage.
fn main() -> anyhow::Result<ExitCode> {
    if dagmesh_benches::child::run()? {
        return Ok(ExitCode::SUCCESS);
    }
    let args = Args::parse();
    if cfg!(debug_assertions) {
        eprintln!("A debug build: these figures say nothing. Use `cargo run --release -p dagmesh-benches`.");
    }
    let report = dagmesh_benches::run(&args)?;
    if args.json {
        println!("{}", serde_json::to_string(&report.to_json())?);
    } else {
        print!("{report}");
    }
    Ok(if report.pass() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
