#![no_main]
//! See [`dagmesh_fuzz::fetch`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::fetch(data));
