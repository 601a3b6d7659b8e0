#![no_main]
//! See [`dagmesh_fuzz::frame`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::frame(data));
