//! `seeds check FOLDER`: whether the seeds in FOLDER are the ones that are made here, each taken by its target.
//! `seeds write FOLDER`: writes them.

use std::{fs, path::Path, process::ExitCode};

// The instrumented crates call its runtime.
use libfuzzer_sys as _;

type Target = fn(&[u8]);

/// The target of that name.
fn target(name: &str) -> Target {
    match name {
        "announcement" => dagmesh_fuzz::announcement,
        "car" => dagmesh_fuzz::car,
        "cbor" => dagmesh_fuzz::cbor,
        "feed" => dagmesh_fuzz::feed,
        "fetch" => dagmesh_fuzz::fetch,
        "follower" => dagmesh_fuzz::follower,
        "frame" => dagmesh_fuzz::frame,
        "group" => dagmesh_fuzz::group,
        "group_machine" => dagmesh_fuzz::group_machine,
        "heads" => dagmesh_fuzz::heads,
        "ipni" => dagmesh_fuzz::ipni,
        "links" => dagmesh_fuzz::links,
        "records" => dagmesh_fuzz::records,
        "request" => dagmesh_fuzz::request,
        "selector" => dagmesh_fuzz::selector,
        "unixfs" => dagmesh_fuzz::unixfs,
        "ingest" => dagmesh_fuzz::ingest,
        "validator" => dagmesh_fuzz::validator,
        // Those of `node/` begin with their seeds anyway.
        "ticket" | "config" => |_| {},
        other => panic!("{other} is no target"),
    }
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().collect();
    let [_, action, folder] = args.as_slice() else {
        eprintln!("seeds check|write FOLDER");
        return ExitCode::from(2);
    };
    let seeds = dagmesh_fuzz::seeds::all();
    let mut wrong = 0;
    for (name, seed, bytes) in &seeds {
        target(name)(bytes);
        let path = Path::new(folder).join(name).join(seed);
        if action == "write" {
            fs::create_dir_all(Path::new(folder).join(name)).expect("a folder");
            fs::write(&path, bytes).expect("writes");
        } else if fs::read(&path).ok().as_ref() != Some(bytes) {
            eprintln!("{} is not the seed that is made: `seeds write`", path.display());
            wrong += 1;
        }
    }
    println!("{} seeds, {} bytes, {wrong} wrong", seeds.len(), seeds.iter().map(|seed| seed.2.len()).sum::<usize>());
    ExitCode::from(u8::from(wrong > 0))
}
