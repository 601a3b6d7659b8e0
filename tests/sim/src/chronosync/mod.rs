//! Groups on the simulated network: the machine that runs on the wire, and what it is compared to.
//!
//! - [`Member`]: [`dagmesh_chronosync::Group`], with what a driver does around it.
//! - [`Vector`]: State Vector Sync, the whole vector in each message.
//! - [`Original`]: ChronoSync as its authors' library has it, on a network of named data.
//!
//! All three are told the same: publish the next number, and tell the application each number of the others. What a
//! number stands for is not fetched by any of them.

mod ledger;
mod member;
pub mod original;
mod tlv;
mod vector;
mod world;

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    rc::Rc,
    str::FromStr,
};

use dagmesh_simnet::{Boot, Host, Input};

pub use self::{ledger::Ledger, member::Member, original::Original, vector::Vector, world::World};

/// A publication: the number that a session of a producer gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    /// The producer, by the number of its node.
    pub producer: u32,
    /// The session.
    pub session: u64,
    /// The sequence number, from 1.
    pub sequence: u64,
}

/// The newest sequence number of each session of each producer.
pub type Numbers = BTreeMap<(u32, u64), u64>;

/// A protocol for groups, as a host on the network.
pub trait Model: Host<Event = Number> + Sized + 'static {
    /// How it is named on the command line and in tables.
    const NAME: &'static str;
    /// Whether it promises to tell each number once and never to lose one, so that a run where it does ends there.
    const STRICT: bool;

    /// A member at its node's start.
    fn boot(boot: Boot<'_>, world: &Rc<World>) -> Self;

    /// What the machine of a node is told to publish its next number; `count` tells publications apart.
    fn publication(world: &World, node: u32, count: u64) -> Input<Self>;

    /// A digest that is equal where two members know the same.
    fn root(&self) -> [u8; 32];

    /// Whether every queue is within its bound.
    ///
    /// # Errors
    /// Which is not.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// One of the models, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelName {
    /// [`Member`].
    Ours,
    /// [`Vector`].
    Vector,
    /// [`Original`].
    Original,
}

impl ModelName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Vector, Self::Original];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ours => Member::NAME,
            Self::Vector => Vector::NAME,
            Self::Original => Original::NAME,
        }
    }
}

impl Display for ModelName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|model| model.as_str() == name).ok_or_else(|| format!("no model of [{}]", names()))
    }
}
