//! The simulator, shown with a toy machine.

#![allow(missing_docs, reason = "a test")]

mod faults;
mod gossip;
mod runs;
mod toy;
