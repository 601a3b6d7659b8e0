//! Group state: every member of a group learns every other member's newest head, without a leader.
//!
//! - [`GroupHead`]: a producer's signed word on how far one of its sessions is, bound to its group.
//! - [`Entry`]: one publication, a block in its producer's chain, that a head names.
//! - [`State`]: the maximum of those per (producer, session), under a digest tree; [`Summary`] is what members compare.
//! - [`MemberList`]: who may write in a closed group, by its owner's word.
//! - [`DigestLog`]: the roots that our state has gone through, so that a peer at one of them is told the difference.
//! - [`Group`]: the machine; all rules, no I/O.
//! - `net` (feature `net`): requests and answers over libp2p streams.
//! - [`Gossip`], [`Request`], [`Answer`]: what travels, bounded.
//!
//! A valid head is always applied, whatever the digests say; digests only find loss.
//!
//! Source: Z. Zhu, A. Afanasyev, "Let's ChronoSync: Decentralized Dataset State Synchronization in Named Data
//! Networking" (ICNP 2013), for the digest tree, the log and recovery; RFC 6206 (Trickle) for the heartbeat. Signed heads,
//! sums, pages and sessions are dagmesh's own.

mod entry;
mod head;
mod log;
pub mod machine;
mod members;
mod message;
#[cfg(feature = "net")]
pub mod net;
mod state;
#[cfg(test)]
mod testing;
mod tree;

pub use entry::{Body, Entry, EntryError};
pub use head::{GroupHead, GroupId, HeadError, HeadOrder, LeafKey, Payload};
pub use log::DigestLog;
pub use machine::{Acceptance, CallId, Config, Effect, Event, Group, Input, PersistId};
pub use members::{MemberList, Membership};
pub use message::{Answer, Cursor, Gossip, HeadBytes, HeadList, MemberBytes, MessageError, Page, Request, Update};
pub use state::{Applied, Refused, State, Summary};
pub use tree::Digest;
