//! What a selector may cost, found before any block is touched.
//!
//! While a traversal goes down, a selector turns into others: what is left of it after each step. The *forms* of a
//! selector are all those, whatever the data, limits of recursion aside, each counted once. A union of them is all
//! that a traversal can have in hand at one node, so the clauses of all forms together bound the work at each node
//! and the size of what a frontier keeps. That sum is the cost. Recursions inside recursions, unions of recursions
//! that run out of step and edges in many places all show in it; a limit of depth, however large, does not.

use std::sync::Arc;

use dagmesh_core::limits;

use super::{SelectorError, node::Node};

/// Refuses a selector that is over one of the caps.
pub(super) fn check(node: &Arc<Node>) -> Result<(), SelectorError> {
    check_size(node)?;
    cost(node).map(drop)
}

/// Refuses a selector that could not be written and read back, its cost aside.
pub(super) fn check_size(node: &Node) -> Result<(), SelectorError> {
    let (depth, recursions, nodes) = (depth(node), recursions(node), nodes(node));
    if depth > limits::MAX_SELECTOR_DEPTH {
        return Err(SelectorError::TooDeep { max: limits::MAX_SELECTOR_DEPTH });
    }
    if nodes > limits::MAX_SELECTOR_NODES {
        return Err(SelectorError::TooManyNodes { max: limits::MAX_SELECTOR_NODES });
    }
    if recursions > limits::MAX_SELECTOR_RECURSIONS {
        return Err(SelectorError::Recursions { max: limits::MAX_SELECTOR_RECURSIONS });
    }
    Ok(())
}

/// The clauses in all forms of a selector; an error as soon as they are more than [`limits::MAX_SELECTOR_COST`].
pub(super) fn cost(node: &Arc<Node>) -> Result<usize, SelectorError> {
    let node = node.without_limits();
    let mut forms = Vec::new();
    let mut waiting = vec![node];
    let mut total = 0;
    while let Some(form) = waiting.pop() {
        if forms.contains(&form) {
            continue;
        }
        total += nodes(&form);
        if total > limits::MAX_SELECTOR_COST {
            return Err(SelectorError::Cost { max: limits::MAX_SELECTOR_COST });
        }
        let mut found = Vec::new();
        form.steps(&mut found);
        found.iter().for_each(|form| members(form, &mut waiting));
        forms.push(form);
    }
    Ok(total)
}

fn members(node: &Arc<Node>, found: &mut Vec<Arc<Node>>) {
    match &**node {
        Node::Union(inner) => inner.iter().for_each(|member| members(member, found)),
        _ => found.push(node.clone()),
    }
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
fn nodes(node: &Node) -> usize {
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
