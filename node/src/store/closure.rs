//! Walks what is held below roots: what a collection of garbage keeps, and what a check finds missing.
//!
//! It follows every link, whatever a selector would have chosen, and its set grows with the store (16 bytes a block
//! and the set's own overhead), so it is no traversal on behalf of a peer and has no cap.

use std::collections::HashSet;

use cid::Cid;
use dagmesh_chronosync as chronosync;
use dagmesh_core::limits;
use dagmesh_dag::{Block, Codec, Entry, HashCode, links};
use dagmesh_ipnisync::Advertisement;

use super::{
    Error, Store,
    blocks::Found,
    gate::{BlockId, block_id},
};

/// Codecs under which a block can have been reached.
const CODECS: [Codec; 4] = [Codec::Raw, Codec::DagPb, Codec::DagCbor, Codec::DagJson];

pub(super) struct Closure<'a> {
    store: &'a Store,
    /// Blocks seen, by their id mixed with the codec: under another codec a block may have links.
    seen: HashSet<BlockId>,
    /// Blocks that stay without what they link to, unless they are seen as well.
    alone: HashSet<BlockId>,
    /// Blocks that were said to be missing.
    told: HashSet<BlockId>,
    /// Entries from which the whole chain has been walked, content and all.
    whole_chains: HashSet<Cid>,
    on_missing: Option<&'a mut dyn FnMut(Cid)>,
}

/// One entry of a chain.
struct Link {
    previous: Option<Cid>,
    believed: bool,
}

impl<'a> Closure<'a> {
    /// `on_missing` is called for each block that is not held; without it, blocks without links are not looked up.
    pub(super) fn new(store: &'a Store, on_missing: Option<&'a mut dyn FnMut(Cid)>) -> Self {
        Self {
            store,
            seen: HashSet::new(),
            alone: HashSet::new(),
            told: HashSet::new(),
            whole_chains: HashSet::new(),
            on_missing,
        }
    }

    /// Whether the walk has come past this block.
    pub(super) fn has(&self, id: BlockId) -> bool {
        self.alone.contains(&id) || CODECS.iter().any(|codec| self.seen.contains(&mix(id, *codec)))
    }

    /// One block, without what it links to.
    pub(super) fn block(&mut self, cid: &Cid) -> Result<(), Error> {
        let inline = cid.hash().code() == HashCode::Identity as u64;
        let new = !inline && self.alone.insert(block_id(cid.hash()));
        if new && self.on_missing.is_some() && !self.store.holds_block(cid.hash())? {
            self.missing(cid);
        }
        Ok(())
    }

    /// A block and all below it.
    pub(super) fn tree(&mut self, root: Cid) -> Result<(), Error> {
        let mut waiting = vec![root];
        while let Some(cid) = waiting.pop() {
            if let Some(block) = self.enter(&cid)? {
                // What cannot be read as its codec says has no links for anybody.
                waiting.extend(links::links(&block).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// A chain of entries, or of advertisements, from its head back, and the content of the newest `keep` (`None`: all).
    /// What is neither is walked as a tree. Where `open` is set, the chain may end at an entry that is not held.
    pub(super) fn chain(&mut self, head: Cid, keep: Option<u64>, open: bool) -> Result<(), Error> {
        let mut next = Some(head);
        let mut passed = 0;
        while let Some(cid) = next.take() {
            if self.whole_chains.contains(&cid) {
                return Ok(());
            }
            let Some(block) = self.read(&cid)? else {
                if passed == 0 || !open {
                    self.missing(&cid);
                }
                return Ok(());
            };
            let Some(Link { previous, believed }) = self.link(&block) else { return self.tree(cid) };
            self.alone.insert(block_id(cid.hash()));
            if believed && keep.is_none_or(|keep| passed < keep) {
                // The content, and what the entry's meta links to.
                for link in links::links(&block).unwrap_or_default() {
                    if Some(link) != previous {
                        self.tree(link)?;
                    }
                }
            }
            if keep.is_none() {
                self.whole_chains.insert(cid);
            }
            next = previous;
            passed += 1;
        }
        Ok(())
    }

    /// An entry of a group and its content, without the entry before it. Gives the link to that; of what is none, all is kept.
    pub(super) fn group_entry(&mut self, cid: Cid) -> Result<Option<Cid>, Error> {
        let Some(block) = self.read(&cid)? else { return Ok(None) };
        let Ok(chronosync::Entry { previous, body, .. }) = chronosync::Entry::from_block(&block) else {
            self.tree(cid)?;
            return Ok(None);
        };
        self.block(&cid)?;
        if let chronosync::Body::Content(content) = body {
            self.tree(content)?;
        }
        Ok(previous)
    }

    /// Entries of a group from the newest one back to `stop`, as far as they are held and would be caught up on.
    pub(super) fn group_chain(&mut self, newest: Cid, stop: Option<Cid>) -> Result<(), Error> {
        let mut next = Some(newest);
        for _ in 0..limits::MAX_GROUP_HISTORY {
            let Some(cid) = next.filter(|cid| Some(*cid) != stop) else { break };
            next = self.group_entry(cid)?;
        }
        Ok(())
    }

    /// Reads an entry or an advertisement. Whether content is to be there matters only to whoever looks for what is
    /// missing: below an advertisement that proves nothing it was never fetched.
    fn link(&self, block: &Block) -> Option<Link> {
        if let Ok(entry) = Entry::from_block(block) {
            return Some(Link { previous: entry.previous, believed: true });
        }
        let ad = Advertisement::from_block(block).ok()?;
        Some(Link { previous: ad.previous_id, believed: self.on_missing.is_none() || ad.verify().is_ok() })
    }

    /// The block, if it is seen for the first time and can have links.
    fn enter(&mut self, cid: &Cid) -> Result<Option<Block>, Error> {
        if let Some(inline) = Block::inline(cid) {
            return Ok(Some(inline));
        }
        let codec = Codec::try_from(cid.codec()).unwrap_or(Codec::Raw);
        if !self.seen.insert(mix(block_id(cid.hash()), codec)) {
            return Ok(None);
        }
        if codec != Codec::Raw {
            let block = self.read(cid)?;
            if block.is_none() {
                self.missing(cid);
            }
            return Ok(block);
        }
        if self.on_missing.is_some() && !self.store.holds_block(cid.hash())? {
            self.missing(cid);
        }
        Ok(None)
    }

    fn read(&self, cid: &Cid) -> Result<Option<Block>, Error> {
        if cid.hash().code() == HashCode::Identity as u64 {
            return Ok(Block::inline(cid));
        }
        Ok(match self.store.read_block(cid.hash())? {
            Found::Bytes(bytes) => Some(Block::trusted(*cid, bytes)),
            Found::Nothing | Found::Damaged => None,
        })
    }

    fn missing(&mut self, cid: &Cid) {
        if let Some(on_missing) = &mut self.on_missing
            && self.told.insert(block_id(cid.hash()))
        {
            on_missing(*cid);
        }
    }
}

fn mix(id: BlockId, codec: Codec) -> BlockId {
    id ^ u128::from(codec as u64)
}
