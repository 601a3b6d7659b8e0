//! Peers that do what they should not.
//!
//! - [`gossip`]: gossip written by hand; [`raw`]: multiplexing written by hand.

pub mod gossip;
pub mod proto;
pub mod raw;
