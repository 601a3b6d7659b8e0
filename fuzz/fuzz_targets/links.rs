#![no_main]
//! See [`dagmesh_fuzz::links`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::links(data));
