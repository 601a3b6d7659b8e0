#![no_main]
//! See [`dagmesh_fuzz::ipni`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::ipni(data));
