#![no_main]
//! See [`dagmesh_fuzz::announcement`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::announcement(data));
