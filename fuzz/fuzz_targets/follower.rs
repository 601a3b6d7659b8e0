#![no_main]
//! See [`dagmesh_fuzz::follower`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::follower(data));
