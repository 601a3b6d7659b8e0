//! What the tests across nodes, and the measurements, stand on.
//!
//! - [`Daemon`] is a real `dagmesh daemon` process with a home of its own; its [`run`](Daemon::run) is the command line.
//! - [`api`] asks a daemon over its API, and watches it.
//! - [`Peer`](peer::Peer) is a node in this process, where a test needs its handle.
//! - [`group`] asks daemons about groups, and compares what they were told.
//! - [`record`] asks daemons about records and names.
//! - [`Foreign`](foreign::Foreign) is a peer that others wrote, in a process of its own.
//! - [`Hostile`](hostile::Hostile) is a peer that does what it is told, and should not.
//! - [`ipni`] makes chains of advertisements, and asks daemons about theirs.
//! - [`DelayProxy`] is a long, slow or broken line between two nodes, in user space.
//! - [`SmallDisk`] and [`FailingDisk`] are filesystems that are full, or fail at a sync.
//! - [`Nat`](nat::Nat) is a network of machines behind routers that translate addresses.
//! - [`make_folder`] makes the same folder for the same seed; [`assert_same_folder`] compares two of them byte by byte.
//! - [`wait_for`] waits for a condition with a deadline, so that no test sleeps for luck.
//!
//! All of it panics with the reason rather than to return errors: a test that cannot go on has failed.

pub mod api;
pub mod daemon;
pub mod disk;
pub mod folder;
pub mod foreign;
pub mod group;
pub mod hostile;
pub mod ipni;
pub mod nat;
pub mod peer;
pub mod proxy;
pub mod record;
pub mod wait;

pub use daemon::{Daemon, DaemonOptions, Output, dagmesh_binary};
pub use disk::{FailingDisk, Failure, SmallDisk};
pub use folder::{assert_same_folder, edit_files, folder_differences, make_folder, make_oddities};
pub use proxy::{DelayProxy, Line};
pub use wait::{wait_for, wait_for_some};
