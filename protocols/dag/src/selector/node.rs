//! The tree of a selector, and how it changes with each step through the data.

use std::{collections::BTreeMap, sync::Arc};

use cid::Cid;

use super::condition::{At, Condition};

/// One clause. Limits count steps of the recursion; `None` is no limit.
#[derive(Debug, PartialEq)]
pub(crate) enum Node {
    Matcher(Matcher),
    All(Arc<Node>),
    Fields(BTreeMap<String, Arc<Node>>),
    Index(u64, Arc<Node>),
    Range(u64, u64, Arc<Node>),
    Recursive {
        limit: Option<u64>,
        sequence: Arc<Node>,
        stop: Option<Arc<Condition>>,
    },
    /// What is left of a recursion with a stop condition between two of its edges: `next`, as far as `stop` lets it.
    /// It is written as a recursion of depth 1, whose own edge therefore never leads anywhere.
    Until {
        stop: Arc<Condition>,
        next: Arc<Node>,
    },
    Union(Vec<Arc<Node>>),
    Conditional(Arc<Condition>, Arc<Node>),
    Edge,
}

/// Marks a node as a result. Traversal visits it as any other; label and subset are kept for those who ask.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Matcher {
    pub(crate) only_if: Option<Condition>,
    pub(crate) label: Option<String>,
    pub(crate) subset: Option<(u64, u64)>,
}

/// One step down.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(u64),
}

impl Node {
    /// The clause that visits where it stands and goes nowhere.
    pub(crate) fn nothing() -> Arc<Self> {
        Arc::new(Self::Fields(BTreeMap::new()))
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Fields(fields) if fields.is_empty())
    }

    /// Whether it visits where it stands whatever stands there, so that a union with [`nothing`](Self::nothing) adds
    /// nothing.
    fn always_visits(&self) -> bool {
        matches!(self, Self::Matcher(_) | Self::All(_) | Self::Fields(_) | Self::Index(..) | Self::Range(..))
    }

    /// What is left of the selector one step below `at`; `None` where it does not go there.
    ///
    /// This is the derivative of the selector by the step. Edges are replaced with what they stand for, so that the
    /// result of a closed selector is a closed selector.
    pub(crate) fn explore(self: &Arc<Self>, at: At<'_>, step: Step<'_>) -> Option<Arc<Self>> {
        match &**self {
            // An edge that no step led to recurs on the spot, for ever; it visits where it stands and goes nowhere.
            Self::Matcher(_) | Self::Edge => None,
            Self::All(next) => Some(next.clone()),
            Self::Fields(fields) => match step {
                Step::Key(key) => fields.get(key).cloned(),
                Step::Index(index) => fields.get(index.to_string().as_str()).cloned(),
            },
            Self::Index(wanted, next) => matches!(step, Step::Index(index) if index == *wanted).then(|| next.clone()),
            Self::Range(start, end, next) => {
                matches!(step, Step::Index(index) if (*start..*end).contains(&index)).then(|| next.clone())
            }
            Self::Recursive { limit, sequence, stop } => {
                if stop.as_ref().is_some_and(|stop| stop.holds(at) == Some(true)) {
                    return None;
                }
                let next = sequence.explore(at, step)?;
                let again = self.again(*limit, sequence, stop);
                let next = next.close(again.as_ref())?;
                Some(match stop {
                    Some(stop) => next.until(stop),
                    None => next,
                })
            }
            Self::Until { stop, next } => {
                if stop.holds(at) == Some(true) {
                    return None;
                }
                Some(next.explore(at, step)?.until(stop))
            }
            Self::Union(members) => union(members.iter().filter_map(|member| member.explore(at, step))),
            Self::Conditional(condition, next) => {
                if condition.holds(at) == Some(true) {
                    next.explore(at, step)
                } else {
                    None
                }
            }
        }
    }

    /// Whether all steps down lead to the same selector.
    pub(crate) fn is_uniform(&self) -> bool {
        match self {
            Self::Matcher(_) | Self::Edge | Self::All(_) => true,
            Self::Fields(fields) => fields.is_empty(),
            Self::Index(..) | Self::Range(..) => false,
            Self::Recursive { sequence: next, .. } | Self::Until { next, .. } | Self::Conditional(_, next) => {
                next.is_uniform()
            }
            Self::Union(members) => members.iter().all(|member| member.is_uniform()),
        }
    }

    /// Whether the selector wants the block behind `link`, as far as that can be said before it is loaded.
    pub(crate) fn reaches(&self, link: &Cid) -> bool {
        let at = At { value: None, link: Some(link) };
        match self {
            Self::Recursive { limit: Some(0), .. } => false,
            Self::Recursive { sequence, stop, .. } => {
                stop.as_ref().is_none_or(|stop| stop.holds(at) != Some(true)) && sequence.reaches(link)
            }
            Self::Until { stop, next } => stop.holds(at) != Some(true) && next.reaches(link),
            Self::Union(members) => members.iter().any(|member| member.reaches(link)),
            Self::Conditional(condition, next) => condition.holds(at) != Some(false) && next.reaches(link),
            _ => true,
        }
    }

    /// All that can be left after one step, wherever it goes and whatever conditions say; limits are not counted down.
    pub(crate) fn steps(self: &Arc<Self>, found: &mut Vec<Arc<Self>>) {
        match &**self {
            Self::Matcher(_) | Self::Edge => {}
            Self::All(next) | Self::Index(_, next) | Self::Range(_, _, next) => found.push(next.clone()),
            Self::Fields(fields) => found.extend(fields.values().cloned()),
            Self::Recursive { sequence, stop, .. } => {
                let mut inner = Vec::new();
                sequence.steps(&mut inner);
                let closed = inner.iter().filter_map(|next| next.close(Some(self)));
                found.extend(closed.map(|next| match stop {
                    Some(stop) => next.until(stop),
                    None => next,
                }));
            }
            Self::Until { stop, next } => {
                let mut inner = Vec::new();
                next.steps(&mut inner);
                found.extend(inner.iter().map(|next| next.until(stop)));
            }
            Self::Union(members) => members.iter().for_each(|member| member.steps(found)),
            Self::Conditional(_, next) => next.steps(found),
        }
    }

    /// The recursion that its edge stands for: itself with one step less, or nothing.
    fn again(
        self: &Arc<Self>,
        limit: Option<u64>,
        sequence: &Arc<Self>,
        stop: &Option<Arc<Condition>>,
    ) -> Option<Arc<Self>> {
        match limit {
            None => Some(self.clone()),
            Some(0 | 1) => None,
            Some(limit) => Some(Arc::new(Self::Recursive {
                limit: Some(limit - 1),
                sequence: sequence.clone(),
                stop: stop.clone(),
            })),
        }
    }

    /// Replaces the edges of the nearest recursion with `again`. `None` where nothing is left of the selector.
    fn close(self: &Arc<Self>, again: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        if !self.has_edge() {
            return Some(self.clone());
        }
        // A clause whose next one ends with the recursion still visits where it stands.
        let below = |next: &Arc<Self>, make: &dyn Fn(Arc<Self>) -> Self| {
            next.close(again).map_or_else(Self::nothing, |next| Arc::new(make(next)))
        };
        match &**self {
            Self::Edge => again.cloned(),
            Self::All(next) => Some(below(next, &Self::All)),
            Self::Index(index, next) => Some(below(next, &|next| Self::Index(*index, next))),
            Self::Range(start, end, next) => Some(below(next, &|next| Self::Range(*start, *end, next))),
            Self::Fields(fields) => Some(Arc::new(Self::Fields(
                fields.iter().filter_map(|(name, next)| Some((name.clone(), next.close(again)?))).collect(),
            ))),
            Self::Union(members) => union(members.iter().filter_map(|member| member.close(again))),
            Self::Conditional(condition, next) => {
                Some(Arc::new(Self::Conditional(condition.clone(), next.close(again)?)))
            }
            Self::Matcher(_) | Self::Recursive { .. } | Self::Until { .. } => Some(self.clone()),
        }
    }

    /// Whether an edge of the nearest recursion stands in it.
    pub(crate) fn has_edge(&self) -> bool {
        match self {
            Self::Edge => true,
            Self::Matcher(_) | Self::Recursive { .. } | Self::Until { .. } => false,
            Self::All(next) | Self::Index(_, next) | Self::Range(_, _, next) | Self::Conditional(_, next) => {
                next.has_edge()
            }
            Self::Fields(fields) => fields.values().any(|next| next.has_edge()),
            Self::Union(members) => members.iter().any(|member| member.has_edge()),
        }
    }

    /// Holds a selector under the stop condition of the recursion that it came from.
    fn until(self: &Arc<Self>, stop: &Arc<Condition>) -> Arc<Self> {
        match &**self {
            Self::Recursive { stop: Some(own), .. } | Self::Until { stop: own, .. } if own == stop => self.clone(),
            Self::Union(members) => Arc::new(Self::Union(members.iter().map(|member| member.until(stop)).collect())),
            _ => Arc::new(Self::Until { stop: stop.clone(), next: self.clone() }),
        }
    }

    /// The selector with the same, largest limit on every recursion.
    pub(crate) fn with_full_limits(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(match &**self {
            Self::Matcher(_) | Self::Edge => return self.clone(),
            Self::All(next) => Self::All(next.with_full_limits()),
            Self::Index(index, next) => Self::Index(*index, next.with_full_limits()),
            Self::Range(start, end, next) => Self::Range(*start, *end, next.with_full_limits()),
            Self::Fields(fields) => {
                Self::Fields(fields.iter().map(|(name, next)| (name.clone(), next.with_full_limits())).collect())
            }
            Self::Recursive { sequence, stop, .. } => Self::Recursive {
                limit: Some(i64::MAX.unsigned_abs()),
                sequence: sequence.with_full_limits(),
                stop: stop.clone(),
            },
            Self::Until { stop, next } => Self::Until { stop: stop.clone(), next: next.with_full_limits() },
            Self::Union(members) => Self::Union(members.iter().map(Self::with_full_limits).collect()),
            Self::Conditional(condition, next) => Self::Conditional(condition.clone(), next.with_full_limits()),
        })
    }

    /// The members of a union, those of unions in it included; of any other clause itself.
    pub(crate) fn members(self: &Arc<Self>) -> Vec<Arc<Self>> {
        match &**self {
            Self::Union(members) => members.iter().flat_map(Self::members).collect(),
            _ => vec![self.clone()],
        }
    }
}

/// The union of selectors; members that differ in limits alone become one. `None` of none.
pub(crate) fn union(members: impl IntoIterator<Item = Arc<Node>>) -> Option<Arc<Node>> {
    let mut merged: Vec<Arc<Node>> = Vec::new();
    for member in members.into_iter().flat_map(|member| member.members()) {
        if !absorb(&mut merged, &member) {
            merged.push(member);
        }
    }
    match merged.len() {
        0 | 1 => merged.pop(),
        _ => Some(Arc::new(Node::Union(merged))),
    }
}

/// Merges a selector into the member that it resembles; `false` where there is none.
fn absorb(members: &mut [Arc<Node>], selector: &Arc<Node>) -> bool {
    for member in members {
        if let Some(merged) = merge(member, selector) {
            *member = merged;
            return true;
        }
    }
    false
}

/// One selector that visits exactly what the two visit together, where they have the same shape: where they differ in
/// limits, and in what a limit that ran out has cut off.
///
/// A traversal meets one recursion at many depths, as copies with different limits. Without this a union of them
/// would grow with each step; with it there is at most one member for each form of the selector (see `cost`).
fn merge(a: &Arc<Node>, b: &Arc<Node>) -> Option<Arc<Node>> {
    if Arc::ptr_eq(a, b) || a == b || (b.is_nothing() && a.always_visits()) {
        return Some(a.clone());
    }
    if a.is_nothing() && b.always_visits() {
        return Some(b.clone());
    }
    let merged = match (&**a, &**b) {
        (Node::All(a), Node::All(b)) => Node::All(merge(a, b)?),
        (Node::Index(i, a), Node::Index(j, b)) if i == j => Node::Index(*i, merge(a, b)?),
        (Node::Range(i, k, a), Node::Range(j, l, b)) if (i, k) == (j, l) => Node::Range(*i, *k, merge(a, b)?),
        (Node::Fields(a), Node::Fields(b)) => {
            let (mut fields, fewer) = if a.len() < b.len() { (b.clone(), a) } else { (a.clone(), b) };
            for (name, next) in fewer {
                let known = fields.get_mut(name)?;
                *known = merge(known, next)?;
            }
            Node::Fields(fields)
        }
        (Node::Recursive { limit: l, sequence: a, stop: s }, Node::Recursive { limit: m, sequence: b, stop: t })
            if s == t && a == b =>
        {
            let limit = l.zip(*m).map(|(l, m)| l.max(m));
            Node::Recursive { limit, sequence: a.clone(), stop: s.clone() }
        }
        (Node::Until { stop: s, next: a }, Node::Until { stop: t, next: b }) if s == t => {
            Node::Until { stop: s.clone(), next: merge(a, b)? }
        }
        (Node::Conditional(c, a), Node::Conditional(d, b)) if c == d => Node::Conditional(c.clone(), merge(a, b)?),
        (Node::Union(_), _) | (_, Node::Union(_)) => {
            let (a, b) = (a.members(), b.members());
            let (mut members, fewer) = if a.len() < b.len() { (b, a) } else { (a, b) };
            if !fewer.iter().all(|member| absorb(&mut members, member)) {
                return None;
            }
            Node::Union(members)
        }
        _ => return None,
    };
    Some(Arc::new(merged))
}
