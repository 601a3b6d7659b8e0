//! The one traversal of the house: what is sent, what is asked for, what is kept and what is exported are all found
//! by the same walk, so that both ends of a sync agree on every step.

mod closure;
mod select;
#[cfg(test)]
mod tests;
mod visited;

use std::collections::{HashMap, HashSet};

use cid::Cid;
use dagmesh_core::limits;

pub use self::closure::{Closure, ClosureError, Found, Reached, closure, closure_cids};
use self::{select::select, visited::Visited};
use crate::{
    Block, CidError, Codec, LinksError, Selector, SelectorError,
    links::{Place, places},
};

/// Where a walk starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The link.
    pub cid: Cid,
    /// What of it is visited.
    pub selector: Selector,
    /// A block whose whole closure the receiver holds: what the two have in common at the same places is passed over.
    pub held: Option<Cid>,
}

/// What bounds a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkConfig {
    /// Links that are never visited, whatever leads to them.
    pub stop: HashSet<Cid>,
    /// How many blocks deep: `n` visits `n` blocks of a chain. Inline content takes no depth.
    pub depth: Option<u64>,
    /// Most links that may wait; by default [`limits::MAX_FRONTIER_LINKS`].
    pub max_frontier: usize,
    /// Most visits; by default [`limits::MAX_VISITED`].
    pub max_visited: usize,
}

impl Default for WalkConfig {
    fn default() -> Self {
        Self {
            stop: HashSet::new(),
            depth: None,
            max_frontier: limits::MAX_FRONTIER_LINKS,
            max_visited: limits::MAX_VISITED,
        }
    }
}

/// One link that the walk has come to. Its links follow when it is given back to [`Walk::enter`] with its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The link.
    pub cid: Cid,
    /// How many blocks are above it; 0 for a root.
    pub depth: u64,
    /// The index of the root from which it was reached first.
    pub root: usize,
    /// The block at the same place of the held tree, which [`Walk::enter`] wants to see.
    pub held: Option<Cid>,
    selector: Selector,
}

impl Visit {
    /// What of its block is visited.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }
}

/// A link still to walk, with what a plain [`Root`] does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontierEntry {
    /// The link, with what is left of its selector.
    pub root: Root,
    /// The index of the root from which it was reached.
    pub from: usize,
    /// How many blocks are above it.
    pub depth: u64,
}

/// Why a walk cannot go on below a block. The walk itself is as it was before the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The block is not of its codec.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// Another block than the visit asks for.
    #[error("block {given} was given where the walk stands at {wanted}")]
    WrongBlock {
        /// The block that was given.
        given: Box<Cid>,
        /// The block that the walk asked for.
        wanted: Box<Cid>,
    },
    /// A link to what no bytes can prove: for whoever verifies blocks, see [`Walk`].
    #[error("the DAG leads to {cid}, which is refused: {reason}")]
    Cid {
        /// The link.
        cid: Box<Cid>,
        /// What is wrong with it.
        reason: CidError,
    },
    /// Too many links wait.
    #[error("more than {max} links wait to be walked, at {cid}")]
    Frontier {
        /// The block whose links were too many.
        cid: Box<Cid>,
        /// The cap.
        max: usize,
    },
    /// Too many visits.
    #[error("more than {max} blocks visited, at {cid}")]
    Visited {
        /// The block that was one too many.
        cid: Box<Cid>,
        /// The cap.
        max: usize,
    },
    /// A block with more to try than a selector may take.
    #[error("{cid} has so many entries that its selector would try more than {max} clauses")]
    Work {
        /// The block.
        cid: Box<Cid>,
        /// The cap.
        max: usize,
    },
    /// What is left of the selector could not be kept.
    #[error("a selector grew past its bounds on its way down: {reason}")]
    Selector {
        /// Which bound.
        reason: SelectorError,
    },
}

/// A walk through a DAG that the caller reads: it says where to go next, and is given the block.
///
/// - The order is depth-first, parents first, links in the order of their block. When a visit of root `j` comes, all
///   that the roots before `j` select has been visited.
/// - Each link is visited once with the same selector and no less of its limits left; so under a selector with limits
///   or several states a link can come again, and a raw block or one under [`Selector::all`] never does.
/// - Stop links, and links that the selector's own stop condition names, are not visited at all, be they roots.
/// - Inline content (identity CIDs) is entered by the walk itself. It is returned only if it cannot be read, so that
///   [`enter`](Self::enter) can say why.
/// - The same inputs give the same walk: a sender and a receiver that enter the same blocks see the same visits.
/// - A link is returned whatever its hash or codec; [`check_cid`](crate::check_cid) is the caller's.
///
/// Without recursion, and in bounded memory: at most [`WalkConfig::max_frontier`] links wait and
/// [`WalkConfig::max_visited`] are remembered.
#[derive(Debug)]
pub struct Walk {
    config: WalkConfig,
    /// The link to be walked next is the last one.
    stack: Vec<Waiting>,
    visited: Visited,
    visits: usize,
}

#[derive(Debug)]
struct Waiting {
    cid: Cid,
    selector: Selector,
    depth: u64,
    root: usize,
    held: Option<Box<Cid>>,
}

impl Walk {
    /// A walk over `roots`, the first one first.
    pub fn new(config: WalkConfig, roots: Vec<Root>) -> Self {
        let entries = roots.into_iter().enumerate().map(|(from, root)| FrontierEntry { root, from, depth: 0 });
        Self::resume(config, entries.collect())
    }

    /// A walk that goes on where another one stood; depths and indices of roots are those of the other one.
    pub fn resume(config: WalkConfig, entries: Vec<FrontierEntry>) -> Self {
        let mut walk = Self { config, stack: Vec::new(), visited: Visited::default(), visits: 0 };
        for FrontierEntry { root: Root { cid, selector, held }, from, depth } in entries.into_iter().rev() {
            if selector.node().reaches(&cid) && walk.is_wanted(&cid, depth, held.as_ref()) {
                walk.stack.push(Waiting { cid, selector, depth, root: from, held: held.map(Box::new) });
            }
        }
        walk
    }

    /// The next link; `None` at the end. A visit that is not entered before the next one is a leaf.
    pub fn next_visit(&mut self) -> Option<Visit> {
        while let Some(waiting) = self.stack.pop() {
            let Waiting { cid, selector, depth, root, held } = waiting;
            if !self.visited.mark(&cid, &selector, self.depth_left(depth)) {
                continue;
            }
            self.visits = self.visits.saturating_add(1);
            let visit = Visit { cid, depth, root, held: held.map(|held| *held), selector };
            match Block::inline(&cid) {
                Some(block) if self.enter_inline(&visit, &block).is_ok() => {}
                _ => return Some(visit),
            }
        }
        None
    }

    /// Goes below a visit: its block's selected links come next.
    ///
    /// `held` is the block that [`Visit::held`] names, if the caller has it. Then every link that also stands anywhere
    /// in `held` is passed over, and each other link is compared further with the one at the same place there.
    /// Sender and receiver must agree on whether the held block was at hand.
    ///
    /// # Errors
    /// [`WalkError`]; nothing below the block is walked then, and the walk can go on beside it.
    pub fn enter(&mut self, visit: &Visit, block: &Block, held: Option<&Block>) -> Result<(), WalkError> {
        expect(block, &visit.cid)?;
        if let Some(held) = held
            && visit.held.as_ref() != Some(held.cid())
        {
            let wanted = visit.held.unwrap_or(visit.cid);
            return Err(WalkError::WrongBlock { given: Box::new(*held.cid()), wanted: Box::new(wanted) });
        }
        if self.visits > self.config.max_visited {
            return Err(WalkError::Visited { cid: Box::new(visit.cid), max: self.config.max_visited });
        }
        self.push(visit, visit.depth.saturating_add(1), block, held)
    }

    /// The links still to walk, next first, each once. A walk over them goes on exactly where this one stands, except
    /// that it visits again what it reaches again. The visit returned last is not among them.
    ///
    /// Depths start anew from a plain root: where [`WalkConfig::depth`] is set, see
    /// [`frontier_entries`](Self::frontier_entries).
    pub fn frontier(&self) -> Vec<Root> {
        self.frontier_entries().into_iter().map(|entry| entry.root).collect()
    }

    /// The [`frontier`](Self::frontier) with the root and depth of each link, for [`Walk::resume`].
    pub fn frontier_entries(&self) -> Vec<FrontierEntry> {
        let mut listed = Visited::default();
        let mut entries = Vec::new();
        for Waiting { cid, selector, depth, root: from, held } in self.stack.iter().rev() {
            let left = self.depth_left(*depth);
            if !self.visited.contains(cid, selector, left) && listed.mark(cid, selector, left) {
                let root = Root { cid: *cid, selector: selector.clone(), held: held.as_deref().copied() };
                entries.push(FrontierEntry { root, from: *from, depth: *depth });
            }
        }
        entries
    }

    /// The links that wait, next first; one that was visited meanwhile may be among them.
    pub fn waiting_links(&self) -> impl Iterator<Item = &Cid> {
        self.stack.iter().rev().map(|waiting| &waiting.cid)
    }

    /// The roots from which the links that wait were reached, next first.
    pub fn waiting_roots(&self) -> impl Iterator<Item = usize> {
        self.stack.iter().rev().map(|waiting| waiting.root)
    }

    /// Gives up all but the next `kept` links that wait, and returns them as
    /// [`frontier_entries`](Self::frontier_entries) does: the walk ends before them, and one over them goes on there.
    pub fn split_off(&mut self, kept: usize) -> Vec<FrontierEntry> {
        // The last in order stand first on the stack.
        let kept = self.stack.split_off(self.stack.len().saturating_sub(kept));
        let given = self.frontier_entries();
        self.stack = kept;
        given
    }

    /// How many visits there were, inline content included.
    pub fn visits(&self) -> usize {
        self.visits
    }

    /// How many links wait, those counted twice that wait twice.
    pub fn waiting(&self) -> usize {
        self.stack.len()
    }

    /// Inline content takes no depth, and what is held is compared with it only if that is inline too.
    fn enter_inline(&mut self, visit: &Visit, block: &Block) -> Result<(), WalkError> {
        let held = visit.held.as_ref().and_then(Block::inline);
        self.push(visit, visit.depth, block, held.as_ref())
    }

    fn push(&mut self, visit: &Visit, depth: u64, block: &Block, held: Option<&Block>) -> Result<(), WalkError> {
        if self.config.depth.is_some_and(|max| depth >= max) {
            return Ok(());
        }
        let selected = select(&visit.selector, block)?;
        let beside = match held {
            Some(held) if !selected.is_empty() => Some(Beside::new(block, held)?),
            _ => None,
        };
        let (before, left) = (self.stack.len(), self.depth_left(depth));
        for link in selected {
            let held = match &beside {
                Some(beside) if beside.holds(&link.cid) => continue,
                Some(beside) => beside.at(link.position, &link.cid),
                None => None,
            };
            if !self.is_wanted(&link.cid, depth, held.as_ref())
                || self.visited.contains(&link.cid, &link.selector, left)
            {
                continue;
            }
            if self.stack.len() >= self.config.max_frontier {
                self.stack.truncate(before);
                return Err(WalkError::Frontier { cid: Box::new(visit.cid), max: self.config.max_frontier });
            }
            let (cid, selector, held) = (link.cid, link.selector, held.map(Box::new));
            self.stack.push(Waiting { cid, selector, depth, root: visit.root, held });
        }
        if let Some(new) = self.stack.get_mut(before..) {
            new.reverse();
        }
        Ok(())
    }

    fn is_wanted(&self, cid: &Cid, depth: u64, held: Option<&Cid>) -> bool {
        held != Some(cid) && self.config.depth.is_none_or(|max| depth < max) && !self.config.stop.contains(cid)
    }

    fn depth_left(&self, depth: u64) -> Option<u64> {
        self.config.depth.map(|max| max.saturating_sub(depth))
    }
}

fn expect(block: &Block, wanted: &Cid) -> Result<(), WalkError> {
    if block.cid() == wanted {
        return Ok(());
    }
    Err(WalkError::WrongBlock { given: Box::new(*block.cid()), wanted: Box::new(*wanted) })
}

/// The links of a block beside those of a held one.
struct Beside {
    /// The places of the block's links, by position.
    places: Vec<Place>,
    held: HashMap<Place, Cid>,
    held_cids: HashSet<Cid>,
}

impl Beside {
    fn new(block: &Block, held: &Block) -> Result<Self, LinksError> {
        let places_of_block = places(block)?.into_iter().map(|(place, _)| place).collect();
        let (mut held_at, mut held_cids) = (HashMap::new(), HashSet::new());
        for (place, cid) in places(held)? {
            held_cids.insert(cid);
            // Of two links with one name the first counts.
            held_at.entry(place).or_insert(cid);
        }
        Ok(Self { places: places_of_block, held: held_at, held_cids })
    }

    /// Whether the link stands anywhere in the held block.
    fn holds(&self, cid: &Cid) -> bool {
        self.held_cids.contains(cid)
    }

    /// The held link at the same place, where comparing can save anything: a raw block has no links.
    fn at(&self, position: usize, cid: &Cid) -> Option<Cid> {
        let held = self.places.get(position).and_then(|place| self.held.get(place))?;
        (cid.codec() != Codec::Raw as u64 && held.codec() != Codec::Raw as u64).then_some(*held)
    }
}
