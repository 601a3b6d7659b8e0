//! The native DAG sync protocol: one request streams a whole segment.
//!
//! The client names roots, selectors, stop links, and the trees that it holds already. The server walks its own store
//! and streams blocks in depth-first order; the client walks along and verifies each block before it follows one link
//! of it. Where the walk stands is saved as it goes, so that a killed node, or another provider, goes on from there.
//!
//! - [`message`]: what travels.
//! - [`server`]: [`serve`](server::serve) answers one request.
//! - [`client`]: [`Fetch`] holds the rules of the fetching side; [`transfer`] drives it over a stream.
//! - [`feed_sync`]: a feed's sync in two phases, resumable.
//! - [`follower`]: the machine that decides what is synced when, and from whom.
//! - [`head`]: asking a peer for its signed heads.
//! - [`piecewise`]: drives a [`Fetch`] with a peer that serves single blocks.
//! - `net` (feature): the two stream protocols on a libp2p Swarm.

pub mod client;
pub mod feed_sync;
pub mod follower;
pub mod head;
pub mod message;
#[cfg(feature = "net")]
pub mod net;
pub mod piecewise;
mod pool;
pub mod rate;
mod schema;
pub mod server;
pub mod transfer;

pub use client::{Checkpoint, Fetch, FetchConfig, FetchError, FetchStats, Flow, Observer};
pub use message::{Chain, End, Request, Status};
