//! What goes in and out of the node's handle, its local API and `--json`.
//!
//! The names of fields are a contract: fields may be added, never renamed. CIDs, peer ids, addresses and feeds are
//! text; times are unix milliseconds; sizes are bytes.

mod event;
mod group;
mod ipni;
mod key;
mod mesh;
mod record;
mod record_target;
mod request;
mod result;
pub mod text;

pub use event::{Event, Share};
pub use group::*;
pub use ipni::*;
pub use key::*;
pub use mesh::*;
pub use record::*;
pub use record_target::*;
pub use request::*;
pub use result::*;
