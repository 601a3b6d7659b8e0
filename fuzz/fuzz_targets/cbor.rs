#![no_main]
//! See [`dagmesh_fuzz::cbor`].

libfuzzer_sys::fuzz_target!(|data: &[u8]| dagmesh_fuzz::cbor(data));
