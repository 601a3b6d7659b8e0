//! A deterministic network that runs any [`Machine`](dagmesh_core::Machine), in virtual time and one thread.
//!
//! - [`Host`]: how a machine meets the network. A protocol writes one for its machine, in its tests; the machine is the
//!   one that runs on the wire.
//! - [`Simulation`]: nodes, and what happens to them: links with latency, loss, copies and reordering ([`Link`]), a
//!   gossip overlay, cuts, crashes and restarts with and without the disk ([`DiskModel`]), nodes that come and go
//!   ([`Churn`]). A seed decides everything; [`Simulation::trace_hash`] tells whether two runs were the same.
//! - [`Simulation::always`], [`Simulation::finally`]: invariants; one that does not hold ends the run with a
//!   [`Violation`], which says the seed, the time and the last events.
//! - [`Counters`], [`Histogram`]: what the run cost, and how long it took until everybody knew.
//! - [`plot`]: a table as CSV, and curves as SVG.
//!
//! What is simple here and is not on the internet: bandwidth is without end; a message that is lost is not sent again by
//! a transport, and a request that is lost ends at its deadline; publications travel on one overlay for all topics,
//! without gossipsub's IHAVE and IWANT, so that nothing but a protocol's own means repairs a loss.
//!
//! The crate stands beside the protocol crates and knows none of them.

mod carry;
mod check;
mod counters;
mod disk;
mod host;
mod life;
mod link;
mod overlay;
pub mod plot;
mod queue;
mod simulation;
mod step;
mod trace;

pub use check::Violation;
pub use counters::{Counters, Histogram, Tally, Way};
pub use disk::{Disk, DiskError, DiskModel};
pub use host::{
    Boot, CallId, Delivery, Durability, Effect, Host, Input, MessageId, NodeId, Outbox, Packet, PublishError,
    RequestError, Topic, Verdict,
};
pub use life::{Churn, CutId};
pub use link::{Latency, Link};
pub use simulation::{Config, Simulation, Spread};
pub use trace::TraceHash;
