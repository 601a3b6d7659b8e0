//! Hostile peers against real nodes, over real connections: one test for each row of the table of hostile inputs, named
//! by the row.
//!
//! A test that fails prints what the nodes logged.

#![allow(clippy::indexing_slicing, reason = "a test that finds another shape than it expects has failed")]

mod blocks;
mod chain;
mod content;
mod groups;
mod heads;
mod ipni;
mod memory;
mod records;
mod requests;
mod scene;
mod slow;
mod swarm;
