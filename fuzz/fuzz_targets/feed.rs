#![no_main]
//! See [`dagmesh_fuzz::feed`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::feed(data));
