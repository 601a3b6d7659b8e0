//! The dagmesh node as a library.

pub mod swarm;
