#![no_main]
//! See [`dagmesh_fuzz::car`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::car(data));
