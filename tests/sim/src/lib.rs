//! Protocols on the deterministic network of [`dagmesh_simnet`], with what they are compared to.
//!
//! - [`Scenario`]: what a run is like: nodes, links, disks, faults, publications; its bounds stand in one place.
//! - [`chronosync`]: groups: the machine that runs on the wire, and two baselines, as [`Model`](chronosync::Model)s.
//! - [`run()`]: one model in one scenario, its invariants checked at every step; gives an [`Outcome`].
//! - [`sweep`]: many seeds of small and wild cases. [`table`]: the models beside each other.
//!
//! The program `dagmesh-sim` is [`cli`]. The crate stands above the protocol crates, and none depends on it.

pub mod chronosync;
pub mod cli;
mod outcome;
mod run;
mod scenario;
pub mod sweep;
pub mod table;

pub use outcome::Outcome;
pub use run::{prepare, run};
pub use scenario::{Burst, Outages, Scenario, ScenarioError, Span};
