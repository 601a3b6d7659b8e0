//! The `dagmesh` binary.
fn main() {}
