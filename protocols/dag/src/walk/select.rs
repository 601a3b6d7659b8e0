//! Which links of a block a selector follows, and with what left of it.

use std::{cell::OnceCell, sync::Arc};

use cid::Cid;
use dagmesh_core::{
    cbor::{self, Segment},
    limits,
};
use ipld_core::ipld::Ipld;

use super::WalkError;
use crate::{
    Block, Codec, LinksError, SelectorError,
    links::links,
    selector::{
        At, Plan, Selector,
        cost::nodes,
        node::{Node, Step},
    },
};

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
        _ => General { codec, position: 0, work: 0, found: &mut found }.root(selector, block)?,
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
    /// Clauses tried so far.
    work: usize,
    found: &'a mut Vec<Selected>,
}

enum Refused {
    Links,
    Work,
    Selector(SelectorError),
}

impl General<'_> {
    fn root(mut self, selector: &Selector, block: &Block) -> Result<(), WalkError> {
        let value = decode(block, self.codec)?;
        let at = At { value: Some(&value), link: Some(block.cid()) };
        self.below(at, &value, Some(&Left::new(selector.node()))).map_err(|refused| match refused {
            Refused::Links => {
                let max = limits::MAX_LINKS_PER_BLOCK;
                unreadable(block, format!("more than {max} links in one block")).into()
            }
            Refused::Work => WalkError::Work { cid: Box::new(*block.cid()), max: limits::MAX_SELECT_WORK },
            Refused::Selector(reason) => WalkError::Selector { reason },
        })
    }

    /// Visits the entries or items of a value. Links are counted also where no selector leads, so that positions and
    /// bounds are those of the block.
    fn below(&mut self, at: At<'_>, value: &Ipld, left: Option<&Left>) -> Result<(), Refused> {
        // Where all steps lead to the same selector, it is found once.
        let mut same = None;
        let mut child = |general: &mut Self, step: Step<'_>, value: &Ipld| match (value, left) {
            (Ipld::Link(_) | Ipld::List(_) | Ipld::Map(_), Some(left)) if left.is_uniform => {
                let next = same.get_or_insert_with(|| left.node.explore(at, step).map(Left::new));
                general.node(value, next.as_ref())
            }
            (Ipld::Link(_) | Ipld::List(_) | Ipld::Map(_), Some(left)) => {
                general.work += left.nodes;
                if general.work > limits::MAX_SELECT_WORK {
                    return Err(Refused::Work);
                }
                general.node(value, left.node.explore(at, step).map(Left::new).as_ref())
            }
            (Ipld::Link(_) | Ipld::List(_) | Ipld::Map(_), None) => general.node(value, None),
            _ => Ok(()),
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

    fn node(&mut self, value: &Ipld, left: Option<&Left>) -> Result<(), Refused> {
        let Ipld::Link(cid) = value else {
            return self.below(At { value: Some(value), link: None }, value, left);
        };
        let position = self.position;
        self.position += 1;
        if self.position > limits::MAX_LINKS_PER_BLOCK {
            return Err(Refused::Links);
        }
        if let Some(left) = left
            && left.node.reaches(cid)
        {
            let selector = left.selector.get_or_init(|| Selector::from_node(left.node.clone())).clone();
            selector.check_size().map_err(Refused::Selector)?;
            self.found.push(Selected { cid: *cid, selector, position });
        }
        Ok(())
    }
}

/// What is left of a selector; made into one that can be kept only where a link stands.
struct Left {
    node: Arc<Node>,
    nodes: usize,
    is_uniform: bool,
    selector: OnceCell<Selector>,
}

impl Left {
    fn new(node: Arc<Node>) -> Self {
        Self { nodes: nodes(&node), is_uniform: node.is_uniform(), node, selector: OnceCell::new() }
    }
}
