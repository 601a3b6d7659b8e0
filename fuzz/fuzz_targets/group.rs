#![no_main]
//! See [`dagmesh_fuzz::group`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::group(data));
