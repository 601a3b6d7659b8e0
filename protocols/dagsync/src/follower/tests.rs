#[cfg_attr(not(test), allow(dead_code, reason = "the fuzzer needs but a part of it"))]
mod bench;
#[cfg(test)]
mod heads;
#[cfg(test)]
mod props;
#[cfg(test)]
mod syncs;
pub(super) mod world;
