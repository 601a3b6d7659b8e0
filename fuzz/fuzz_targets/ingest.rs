#![no_main]
//! See [`dagmesh_fuzz::ingest`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::ingest(data));
