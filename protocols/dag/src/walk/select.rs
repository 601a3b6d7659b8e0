//! Which links of a block a selector follows, and with what left of it.

use cid::Cid;
use dagmesh_core::{
    cbor::{self, Segment},
    limits,
};
use ipld_core::ipld::Ipld;

use super::WalkError;
use crate::{
    Block, Codec, LinksError,
    links::links,
    selector::{
        At, Plan, Selector,
        node::{Node, Step},
    },
};
use std::sync::Arc;

/// A link that is followed.
#[derive(Debug, PartialEq)]
pub(super) struct Selected {
    pub(super) cid: Cid,
    /// What is left of the selector there.
    pub(super) selector: Selector,
    /// Its position among all links of the block.
    pub(super) position: usize,
}

/// The links of `block` that `selector` follows, in the order of the block.
pub(super) fn select(selector: &Selector, block: &Block) -> Result<Vec<Selected>, WalkError> {
    let codec = codec(block)?;
    let mut found = Vec::new();
    match (selector.plan(), codec) {
        (_, Codec::Raw) => {}
        (Plan::All { stop }, _) if selector.limit().is_none() => {
            for (position, cid) in links(block)?.into_iter().enumerate() {
                if Some(cid) != *stop {
                    found.push(Selected { cid, selector: selector.clone(), position });
                }
            }
        }
        (Plan::All { stop }, Codec::DagCbor) => {
            scan(block, |position, path, cid| {
                if let (true, Some(selector)) = (Some(cid) != *stop, selector.after(path.len() as u64)) {
                    found.push(Selected { cid, selector, position });
                }
            })?;
        }
        (Plan::Chain { field, stop }, Codec::DagCbor) => {
            // A field inside the field, with no link between, is one more turn of the chain.
            let on_chain = |segment: &Segment<'_>| matches!(segment, Segment::Key(key) if key == field);
            scan(block, |position, path, cid| {
                if Some(cid) != *stop
                    && path.iter().all(on_chain)
                    && let Some(selector) = selector.after(path.len() as u64)
                {
                    found.push(Selected { cid, selector, position });
                }
            })?;
        }
        _ => General { codec, position: 0, found: &mut found }.root(selector, block)?,
    }
    Ok(found)
}

fn codec(block: &Block) -> Result<Codec, LinksError> {
    Codec::try_from(block.cid().codec()).map_err(|error| unreadable(block, error.to_string()))
}

fn unreadable(block: &Block, reason: String) -> LinksError {
    LinksError { cid: Box::new(*block.cid()), reason }
}

fn scan(block: &Block, mut found: impl FnMut(usize, &[Segment<'_>], Cid)) -> Result<(), LinksError> {
    let mut position = 0;
    cbor::scan(block.data(), |path, cid| {
        found(position, path, cid);
        position += 1;
    })
    .map_err(|error| unreadable(block, error.to_string()))
}

/// A block as a value of the data model. Nesting is at most 128, by the scanner and by the JSON parser.
fn decode(block: &Block, codec: Codec) -> Result<Ipld, LinksError> {
    let decoded = match codec {
        Codec::Raw => Ok(Ipld::Bytes(block.data().to_vec())),
        Codec::DagCbor => {
            scan(block, |_, _, _| {})?;
            serde_ipld_dagcbor::from_slice(block.data()).map_err(|error| error.to_string())
        }
        Codec::DagJson => serde_ipld_dagjson::from_slice(block.data()).map_err(|error| error.to_string()),
        Codec::DagPb => {
            ipld_dagpb::PbNode::from_bytes(block.data().clone()).map(Ipld::from).map_err(|error| error.to_string())
        }
    };
    decoded.map_err(|reason| unreadable(block, reason))
}

/// Walks a decoded block clause by clause.
struct General<'a> {
    codec: Codec,
    /// Links passed so far, followed or not.
    position: usize,
    found: &'a mut Vec<Selected>,
}

impl General<'_> {
    fn root(mut self, selector: &Selector, block: &Block) -> Result<(), WalkError> {
        let value = decode(block, self.codec)?;
        let at = At { value: Some(&value), link: Some(block.cid()) };
        match self.below(at, &value, Some(&selector.node())) {
            Err(Refused::Links) => {
                let max = limits::MAX_LINKS_PER_BLOCK;
                Err(unreadable(block, format!("more than {max} links in one block")).into())
            }
            Err(Refused::Selector(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// Visits the entries or items of a value. Links are counted also where no selector leads, so that positions and
    /// bounds are those of the block.
    fn below(&mut self, at: At<'_>, value: &Ipld, selector: Option<&Arc<Node>>) -> Result<(), Refused> {
        let same = selector.is_some_and(|selector| selector.is_uniform());
        let mut uniform = None;
        let mut child = |general: &mut Self, step: Step<'_>, value: &Ipld| {
            if !matches!(value, Ipld::Link(_) | Ipld::List(_) | Ipld::Map(_)) {
                return Ok(());
            }
            let next = match selector {
                Some(selector) if same => {
                    uniform.get_or_insert_with(|| selector.explore(at, step).map(Prepared::new)).clone()
                }
                Some(selector) => selector.explore(at, step).map(Prepared::new),
                None => None,
            };
            general.node(value, next.as_ref())
        };
        match value {
            Ipld::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    child(self, Step::Index(index as u64), item)?;
                }
            }
            Ipld::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                if self.codec == Codec::DagCbor {
                    // Shorter keys stand first in DAG-CBOR.
                    entries.sort_by_key(|(key, _)| key.len());
                }
                for (key, value) in entries {
                    child(self, Step::Key(key), value)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn node(&mut self, value: &Ipld, next: Option<&Prepared>) -> Result<(), Refused> {
        let Ipld::Link(cid) = value else {
            return self.below(At { value: Some(value), link: None }, value, next.map(|next| &next.node));
        };
        let position = self.position;
        self.position += 1;
        if self.position > limits::MAX_LINKS_PER_BLOCK {
            return Err(Refused::Links);
        }
        if let Some(next) = next
            && next.node.reaches(cid)
        {
            let selector = next.selector.get_or_init(|| Selector::from_node(next.node.clone()));
            selector.check_size().map_err(|error| Refused::Selector(WalkError::Selector { reason: error }))?;
            self.found.push(Selected { cid: *cid, selector: selector.clone(), position });
        }
        Ok(())
    }
}

enum Refused {
    Links,
    Selector(WalkError),
}

/// A selector for a child, made into one that can be kept only where the child is a link.
#[derive(Clone)]
struct Prepared {
    node: Arc<Node>,
    selector: std::cell::OnceCell<Selector>,
}

impl Prepared {
    fn new(node: Arc<Node>) -> Self {
        Self { node, selector: std::cell::OnceCell::new() }
    }
}
