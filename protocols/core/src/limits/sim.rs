//! The simulator.

/// Nodes that one simulated network ever has, those that left included: sixteen times the largest case that we measure.
pub const MAX_SIM_NODES: usize = 16_384;
/// Events that wait in a simulated network: about 600 MiB at the worst. More of them is a storm, and ends the run.
pub const MAX_SIM_QUEUE: usize = 4_194_304;
/// Effects that one input may cause at a simulated node, and timeouts in a row that may come at one instant: beyond it
/// the machine does not come to rest.
pub const MAX_SIM_EFFECTS: usize = 65_536;
/// Largest message between simulated nodes: the largest block and room for what is around it.
pub const MAX_SIM_PACKET_BYTES: usize = 4 * 1024 * 1024;
/// Longest time that a simulated link or disk takes, in milliseconds: cuts the tail of a distribution.
pub const MAX_SIM_LATENCY_MS: u64 = 60_000;
/// Message ids that a simulated node remembers against duplicates; when full, the oldest makes room.
pub const MAX_SIM_SEEN: usize = 65_536;
/// Questions that wait for an answer in a simulated network; one more is answered as timed out.
pub const MAX_SIM_CALLS: usize = 262_144;
/// Bytes on one simulated disk, keys and what waits to be written included; a write beyond it fails.
pub const MAX_SIM_DISK_BYTES: usize = 64 * 1024 * 1024;
/// Writes that wait at one simulated disk; one more fails. As many are buffered, then the first goes to the disk.
pub const MAX_SIM_WRITES: usize = 16_384;
/// Events of the application whose spread a simulation follows: 128 bytes of marks each at a thousand nodes.
pub const MAX_SIM_EVENTS: usize = 262_144;
/// Cuts of a simulated network at one time.
pub const MAX_SIM_PARTITIONS: usize = 64;
/// Kinds of messages that a simulation counts apart; those of further kinds are counted together.
pub const MAX_SIM_KINDS: usize = 64;
/// Nodes of a run of the simulator's program: the largest case that is measured.
pub const MAX_SIM_RUN_NODES: usize = 1000;
/// Neighbours on the overlay in such a run: four times those of a gossipsub mesh at most.
pub const MAX_SIM_RUN_DEGREE: usize = 48;
/// Publications of such a run: with 1,000 nodes, ten million deliveries.
pub const MAX_SIM_RUN_PUBLICATIONS: usize = 10_000;
/// Longest time, in seconds, until the last publication or fault of such a run.
pub const MAX_SIM_RUN_SECS: u64 = 3600;
/// Longest median latency of a link of such a run, in milliseconds: by way of the moon and back.
pub const MAX_SIM_RUN_LATENCY_MS: u64 = 5000;
/// Last events that a broken invariant is reported with.
pub const SIM_TRACE_LINES: usize = 48;
/// Points of one curve in a plot; of more, evenly spread ones are drawn.
pub const MAX_PLOT_POINTS: usize = 2048;
