#![no_main]
//! See [`dagmesh_fuzz::selector`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::selector(data));
