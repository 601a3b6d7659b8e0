//! Tests across nodes: real daemons, or nodes in this process where the handle is needed; real sockets, stores on disk.
//!
//! A test that fails prints what its daemons logged. `DAGMESH_TEST_SEED` repeats a run of the tests that draw numbers.

#![allow(clippy::indexing_slicing, reason = "a test that finds another shape than it expects has failed")]

mod bad_input;
mod chain;
mod crash;
mod faults;
mod follow;
mod groups;
mod ipni;
mod learn;
mod many;
mod names;
mod nat;
mod providers;
mod publish;
mod records;
mod scenarios;
mod support;
