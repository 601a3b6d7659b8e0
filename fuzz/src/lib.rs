//! What each fuzz target does with its bytes. A target is a function: it panics where a rule is broken.
//!
//! The rules: nothing panics; what is decoded stays within its bounds and is written back to the same bytes, or to the
//! same value where the encoding is not the only one; a machine keeps its invariants whatever it is told. Memory is
//! bounded by libFuzzer's own limit (`fuzz/run`).

mod dag;
mod fetch;
mod groups;
mod input;
mod ipni;
mod records;
pub mod seeds;
mod unixfs;
mod wire;

pub use self::{
    dag::{car, cbor, feed, links, selector},
    fetch::fetch,
    groups::{group, group_machine},
    ipni::ipni,
    records::records,
    unixfs::unixfs,
    wire::{announcement, frame, heads, ingest, request, validator},
};

/// The follower, told of anything in any order: queues stay under their caps, `latest` never goes back, every request
/// ends, and once all works again all is in sync.
pub fn follower(data: &[u8]) {
    dagmesh_dagsync::follower::fuzz(data);
}
