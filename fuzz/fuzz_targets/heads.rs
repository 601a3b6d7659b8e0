#![no_main]
//! See [`dagmesh_fuzz::heads`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::heads(data));
