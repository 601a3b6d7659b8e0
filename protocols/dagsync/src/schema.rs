//! What a chain is made of: our own feeds, or another publisher's.

use cid::Cid;
use dagmesh_dag::{Block, Digests, Entry};

/// How the entries of a chain are read.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The field that links an entry to the one before it.
    pub field: &'static str,
    /// Reads an entry, or says what is wrong with it. Called for each entry of a chain before any content is fetched, and
    /// again for those whose content is.
    pub read: fn(&Block) -> Result<Link, String>,
    /// Whether what an entry says is to be believed; otherwise why not. The chain goes on past one that is refused, without
    /// its content; [`Report::refused`](crate::feed_sync::Report::refused) names it.
    pub accept: fn(&Block) -> Result<(), String>,
    /// Whether contents have much in common with the ones before them: then both ends compare the two, and contents are
    /// asked for by naming the chain.
    pub grows: bool,
    /// How much of a digest proves a block of it.
    pub digests: Digests,
}

/// One entry, as its block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its sequence number, where its publisher gives one. Otherwise entries are counted from the stop link on, or from the
    /// oldest one fetched, which has the number 1.
    pub seq: Option<u64>,
    /// The entry before it.
    pub previous: Option<Cid>,
    /// What it carries.
    pub content: Cid,
}

impl Schema {
    /// Our own feeds.
    pub const FEED: Self = Self {
        field: Entry::CHAIN_FIELD,
        read: |block| {
            let Entry { seq, previous, content, .. } = Entry::from_block(block).map_err(|error| error.to_string())?;
            Ok(Link { seq: Some(seq), previous, content })
        },
        accept: |_| Ok(()),
        grows: true,
        digests: Digests::Whole,
    };
}
