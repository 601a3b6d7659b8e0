//! What a selector may cost, found before any block is touched.
//!
//! While a traversal goes down, a selector turns into others: what is left of it after each step. The *forms* of a
//! selector are all those, whatever the data, limits of recursion aside, each counted once. A union of them is all
//! that a traversal can have in hand at one node, so the clauses of all forms together bound the work at each node
//! and the size of what a frontier keeps. That sum is the cost. Recursions inside recursions, unions of recursions
//! that run out of step and edges in many places all show in it; a limit of depth, however large, does not.

use std::sync::Arc;

use dagmesh_core::{cbor, limits};

use super::{SelectorError, node::Node, parse};

/// Refuses a selector that is over one of the caps, or of which something could be left that is.
///
/// Depth and bytes are those of the forms as well: whatever is left of a selector that was taken can be written, and
/// is taken again.
pub(super) fn check(node: &Arc<Node>) -> Result<(), SelectorError> {
    check_size(node)?;
    let (mut cost, mut bytes) = (0, 0);
    each_form(node, |form| {
        if depth(form) > limits::MAX_SELECTOR_DEPTH {
            return Err(SelectorError::TooDeep { max: limits::MAX_SELECTOR_DEPTH });
        }
        cost += nodes(form);
        if cost > limits::MAX_SELECTOR_COST {
            return Err(SelectorError::Cost { max: limits::MAX_SELECTOR_COST });
        }
        let encoded = cbor::to_vec(&parse::write(form)).map_err(|error| SelectorError::Codec(error.to_string()))?;
        bytes += encoded.len();
        if bytes > limits::MAX_SELECTOR_BYTES {
            return Err(SelectorError::TooLarge { len: bytes, max: limits::MAX_SELECTOR_BYTES });
        }
        Ok(())
    })
}

/// Refuses a selector that is too large as it stands.
pub(super) fn check_size(node: &Node) -> Result<(), SelectorError> {
    if depth(node) > limits::MAX_SELECTOR_DEPTH {
        return Err(SelectorError::TooDeep { max: limits::MAX_SELECTOR_DEPTH });
    }
    if nodes(node) > limits::MAX_SELECTOR_NODES {
        return Err(SelectorError::TooManyNodes { max: limits::MAX_SELECTOR_NODES });
    }
    if recursions(node) > limits::MAX_SELECTOR_RECURSIONS {
        return Err(SelectorError::Recursions { max: limits::MAX_SELECTOR_RECURSIONS });
    }
    Ok(())
}

/// Calls `on_form` for each form of a selector, itself first, until there is no other or an error.
fn each_form(
    node: &Arc<Node>,
    mut on_form: impl FnMut(&Node) -> Result<(), SelectorError>,
) -> Result<(), SelectorError> {
    let mut forms = Vec::new();
    let mut waiting = node.with_full_limits().members();
    while let Some(form) = waiting.pop() {
        if forms.contains(&form) {
            continue;
        }
        on_form(&form)?;
        let mut found = Vec::new();
        form.steps(&mut found);
        waiting.extend(found.iter().flat_map(Node::members));
        forms.push(form);
    }
    Ok(())
}

/// The clauses that stand right inside one.
fn inside(node: &Node) -> Vec<&Node> {
    match node {
        Node::Matcher(_) | Node::Edge => Vec::new(),
        Node::All(next)
        | Node::Index(_, next)
        | Node::Range(_, _, next)
        | Node::Conditional(_, next)
        | Node::Until { next, .. }
        | Node::Recursive { sequence: next, .. } => vec![next],
        Node::Fields(fields) => fields.values().map(|next| &**next).collect(),
        Node::Union(members) => members.iter().map(|next| &**next).collect(),
    }
}

/// Clauses and conditions, as written.
pub(crate) fn nodes(node: &Node) -> usize {
    let own = match node {
        Node::Matcher(matcher) => 1 + matcher.only_if.as_ref().map_or(0, |condition| condition.nodes()),
        Node::Conditional(condition, _) => 1 + condition.nodes(),
        Node::Recursive { stop, .. } => 1 + stop.as_ref().map_or(0, |condition| condition.nodes()),
        // Written as a recursion over a union with a field and an edge.
        Node::Until { stop, .. } => 4 + stop.nodes(),
        _ => 1,
    };
    inside(node).into_iter().fold(own, |sum, next| sum + nodes(next))
}

/// Clauses on the longest way down. A union at the very top is not counted: what is left of a selector often is one.
fn depth(node: &Node) -> usize {
    fn down(node: &Node) -> usize {
        let own = if matches!(node, Node::Until { .. }) { 2 } else { 1 };
        own + inside(node).into_iter().map(down).max().unwrap_or(0)
    }
    match node {
        Node::Union(members) => members.iter().map(|member| down(member)).max().unwrap_or(0),
        _ => down(node),
    }
}

/// Recursions on the way down that holds most of them.
fn recursions(node: &Node) -> usize {
    let own = usize::from(matches!(node, Node::Recursive { .. }));
    own + inside(node).into_iter().map(recursions).max().unwrap_or(0)
}
