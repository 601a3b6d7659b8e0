#![no_main]
//! See [`dagmesh_fuzz::request`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::request(data));
