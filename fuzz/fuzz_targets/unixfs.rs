#![no_main]
//! See [`dagmesh_fuzz::unixfs`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::unixfs(data));
