//! Groups on the simulated network.
