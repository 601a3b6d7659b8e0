//! Syncs between stores, over pipes in memory: what must happen, and what must not.

mod hostile;
mod piecewise;
mod providers;
mod support;
mod sync;
