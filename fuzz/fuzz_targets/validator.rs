#![no_main]
//! See [`dagmesh_fuzz::validator`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::validator(data));
