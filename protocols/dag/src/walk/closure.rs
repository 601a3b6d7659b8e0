//! What lies below some roots in a store.

use cid::Cid;

use super::{Root, Visit, Walk, WalkConfig, WalkError};
use crate::{Block, Blockstore, Codec, Selector, StoreError};

/// A link of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// It is held.
    Block(Block),
    /// It is not held; what lies below it is unknown.
    Missing(Cid),
}

/// A link of a closure whose block was not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The link.
    pub cid: Cid,
    /// Whether its block is held.
    pub held: bool,
}

/// Why a closure is not known in full.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClosureError {
    /// The store failed.
    #[error("{cid} cannot be read from the store: {reason}")]
    Store {
        /// The block that was read.
        cid: Box<Cid>,
        /// Why.
        reason: StoreError,
    },
    /// A block cannot be walked below. One with damaged links ends nothing: the closure goes on beside it.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// All blocks below `roots`, roots included, each once, in the order of [`Walk`]. Blocks are read as the iterator
/// goes; the calls block on the store.
///
/// A missing block is an item, no error. After an error the iterator goes on beside the block that caused it; a caller
/// that must know the whole closure (a garbage collector) stops there.
pub fn closure<S: Blockstore + ?Sized>(store: &S, roots: impl IntoIterator<Item = Cid>) -> Closure<'_, S> {
    let roots = roots.into_iter().map(|cid| Root { cid, selector: Selector::all(), held: None });
    Closure::over(store, Walk::new(WalkConfig::default(), roots.collect()))
}

/// All links below `roots`, as [`closure`], without reading the blocks that can have no links.
pub fn closure_cids<S: Blockstore + ?Sized>(
    store: &S,
    roots: impl IntoIterator<Item = Cid>,
) -> impl Iterator<Item = Result<Reached, ClosureError>> {
    let mut closure = closure(store, roots);
    std::iter::from_fn(move || {
        let visit = closure.walk.next_visit()?;
        let cid = visit.cid;
        if cid.codec() == Codec::Raw as u64 {
            return Some(match store.has(&cid) {
                Ok(held) => Ok(Reached { cid, held }),
                Err(reason) => Err(ClosureError::Store { cid: Box::new(cid), reason }),
            });
        }
        Some(closure.find(&visit).map(|found| Reached { cid, held: matches!(found, Found::Block(_)) }))
    })
}

/// A walk through a store. See [`closure`].
#[derive(Debug)]
pub struct Closure<'a, S: ?Sized> {
    store: &'a S,
    walk: Walk,
}

impl<'a, S: Blockstore + ?Sized> Closure<'a, S> {
    /// The blocks that a given walk visits: for other selectors, stop links and bounds than those of [`closure`].
    pub fn over(store: &'a S, walk: Walk) -> Self {
        Self { store, walk }
    }

    fn find(&mut self, visit: &Visit) -> Result<Found, ClosureError> {
        let store = |reason| ClosureError::Store { cid: Box::new(visit.cid), reason };
        let Some(block) = self.store.block(&visit.cid).map_err(store)? else { return Ok(Found::Missing(visit.cid)) };
        let held = match &visit.held {
            Some(held) => self.store.block(held).map_err(store)?,
            None => None,
        };
        self.walk.enter(visit, &block, held.as_ref())?;
        Ok(Found::Block(block))
    }
}

impl<S: Blockstore + ?Sized> Iterator for Closure<'_, S> {
    type Item = Result<Found, ClosureError>;

    fn next(&mut self) -> Option<Self::Item> {
        let visit = self.walk.next_visit()?;
        Some(self.find(&visit))
    }
}
