#![no_main]
//! See [`dagmesh_fuzz::records`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::records(data));
