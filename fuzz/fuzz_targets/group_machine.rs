#![no_main]
//! See [`dagmesh_fuzz::group_machine`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::group_machine(data));
