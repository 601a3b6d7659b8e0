//! Groups on the simulated network.

mod compared;
mod costs;
mod seeds;
