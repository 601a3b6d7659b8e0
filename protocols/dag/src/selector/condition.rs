//! Predicates inside selectors.

use std::cmp::Ordering;

use cid::Cid;
use ipld_core::ipld::Ipld;

/// A node of the data model, as far as it is known: what stands there, and the link that leads to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    /// What stands there; `None` for a link whose block is not loaded yet.
    pub(crate) value: Option<&'a Ipld>,
    /// The link by which it is reached; `None` inside a block.
    pub(crate) link: Option<&'a Cid>,
}

/// A condition of the selector specification. A link and the block behind it are one node: the root of a block
/// answers to the link that led there as well as to what it holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    HasField(String),
    Equals(Ipld),
    Kind(Kind),
    IsLink(Cid),
    Greater(Ipld),
    Less(Ipld),
    And(Vec<Condition>),
    Or(Vec<Condition>),
}

/// The kinds of the data model, by the names that schemas use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Int,
    Float,
    String,
    Bytes,
    List,
    Map,
    Link,
}

impl Condition {
    /// Whether the condition holds at a node; `None` where that is not known before its block is loaded.
    pub(crate) fn holds(&self, at: At<'_>) -> Option<bool> {
        match self {
            Self::IsLink(cid) => Some(at.link == Some(cid)),
            Self::Kind(Kind::Link) => Some(at.link.is_some()),
            Self::Kind(kind) => at.value.map(|value| Kind::of(value) == *kind),
            Self::Equals(Ipld::Link(cid)) => Some(at.link == Some(cid)),
            Self::Equals(expected) => at.value.map(|value| value == expected),
            Self::HasField(name) => at.value.map(|value| matches!(value, Ipld::Map(map) if map.contains_key(name))),
            Self::Greater(than) => at.value.map(|value| compare(value, than) == Some(Ordering::Greater)),
            Self::Less(than) => at.value.map(|value| compare(value, than) == Some(Ordering::Less)),
            Self::And(all) => decide(all, at, false),
            Self::Or(any) => decide(any, at, true),
        }
    }

    /// How many conditions and values it has, itself included.
    pub(crate) fn nodes(&self) -> usize {
        match self {
            Self::Equals(value) | Self::Greater(value) | Self::Less(value) => 1 + value_nodes(value),
            Self::And(inner) | Self::Or(inner) => inner.iter().fold(1, |sum, each| sum + each.nodes()),
            Self::HasField(_) | Self::Kind(_) | Self::IsLink(_) => 1,
        }
    }
}

/// `and` ends at the first false one, `or` at the first true one (`decisive`); what is unknown leaves the rest open.
fn decide(conditions: &[Condition], at: At<'_>, decisive: bool) -> Option<bool> {
    let mut known = true;
    for condition in conditions {
        match condition.holds(at) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => known = false,
        }
    }
    known.then_some(!decisive)
}

/// The order of two values of one kind that has an order.
fn compare(a: &Ipld, b: &Ipld) -> Option<Ordering> {
    match (a, b) {
        (Ipld::Integer(a), Ipld::Integer(b)) => Some(a.cmp(b)),
        (Ipld::Float(a), Ipld::Float(b)) => a.partial_cmp(b),
        (Ipld::String(a), Ipld::String(b)) => Some(a.cmp(b)),
        (Ipld::Bytes(a), Ipld::Bytes(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn value_nodes(value: &Ipld) -> usize {
    match value {
        Ipld::List(items) => items.iter().fold(1, |sum, item| sum + value_nodes(item)),
        Ipld::Map(entries) => entries.values().fold(1, |sum, item| sum + value_nodes(item)),
        _ => 1,
    }
}

impl Kind {
    const NAMES: [(Kind, &'static str); 9] = [
        (Kind::Null, "null"),
        (Kind::Bool, "bool"),
        (Kind::Int, "int"),
        (Kind::Float, "float"),
        (Kind::String, "string"),
        (Kind::Bytes, "bytes"),
        (Kind::List, "list"),
        (Kind::Map, "map"),
        (Kind::Link, "link"),
    ];

    pub(crate) fn of(value: &Ipld) -> Self {
        match value {
            Ipld::Null => Self::Null,
            Ipld::Bool(_) => Self::Bool,
            Ipld::Integer(_) => Self::Int,
            Ipld::Float(_) => Self::Float,
            Ipld::String(_) => Self::String,
            Ipld::Bytes(_) => Self::Bytes,
            Ipld::List(_) => Self::List,
            Ipld::Map(_) => Self::Map,
            Ipld::Link(_) => Self::Link,
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("any", |(_, name)| name)
    }
}
