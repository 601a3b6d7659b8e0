//! Head announcements: how a publisher tells the mesh that its feed has moved.
//!
//! - [`Announcement`]: the message, IPNI's own format with our signed head inside, so that both worlds read it.
//! - [`Validator`]: what to do with one that arrives: accept, ignore or reject, at once and without I/O.
//! - [`IngestValidator`]: the same for announcements of the IPNI network, which prove nothing by themselves.
//! - [`Announcer`]: when to announce our own heads again, and what to do while nobody listens.
//! - [`Answer`]: what a direct announcement is answered with.
//! - [`topic`]: names of the gossip topics; [`reach`]: which addresses the public mesh may see.
//! - `net` (feature `net`): the adapter to libp2p; the direct announcement, one frame each way on a stream of its own.
//!
//! Source: the announce message of go-libipni 0.7 (`announce/message`); the rest is dagmesh's own.

mod announcer;
mod answer;
mod error;
mod ingest;
mod message;
#[cfg(feature = "net")]
pub mod net;
mod rate;
pub mod reach;
mod state;
pub mod topic;

pub use announcer::{Announcer, AnnouncerConfig, Effect, Input, OwnFeed, PublishError};
pub use answer::Answer;
pub use error::AnnounceError;
pub use ingest::{IngestValidator, IngestVerdict, Ingested};
pub use message::Announcement;
pub use multiaddr::Multiaddr;
pub use rate::Rates;
pub use reach::is_globally_reachable;
pub use state::{
    Acceptance, Ignored, Impostor, Origin, Publishers, Refused, Validator, ValidatorConfig, Verdict,
    VerifiedAnnouncement,
};
