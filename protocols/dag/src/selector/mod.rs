//! Selectors: which part of a DAG a traversal visits.
//!
//! Source: the IPLD selector specification, <https://ipld.io/specs/selectors/>; where it leaves things open (what a
//! condition is), the behaviour is that of go-ipld-prime for what it knows, and said at the clause otherwise.

pub(crate) mod condition;
pub(crate) mod cost;
mod json;
pub(crate) mod node;
mod parse;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use cid::Cid;
use dagmesh_core::{
    cbor::{self, CborError},
    limits,
};
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use self::condition::At;
use self::{
    condition::Condition,
    node::{Matcher, Node},
};
use crate::hash::HashCode;

/// An IPLD selector. Cloning is cheap.
///
/// Whatever was read from outside is bounded: [`limits::MAX_SELECTOR_BYTES`], [`limits::MAX_SELECTOR_DEPTH`],
/// [`limits::MAX_SELECTOR_NODES`], [`limits::MAX_SELECTOR_RECURSIONS`], and a cost of at most
/// [`limits::MAX_SELECTOR_COST`]. The cost is the number of clauses in all forms that the selector can take on its
/// way down a DAG, each form counted once and limits of recursion aside; it bounds the work at each node. Bytes and
/// depth hold for the forms too, so that what is left of a selector at any link is a selector that can be sent.
///
/// What a clause does at a link it does to the block behind it: a link and its block are one node. So a condition
/// asks about both, and a block whose condition needs its content is loaded, and visited, before it is decided.
#[derive(Clone)]
pub struct Selector {
    shape: Arc<Shape>,
    /// Of the recursion at the top; [`UNLIMITED`] where there is none. It stands beside the shape, because a
    /// traversal of a long chain counts it down at each block and keeps all else.
    limit: u64,
}

/// No limit. One read from outside is at most `i64::MAX`.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// A selector without the limit of the recursion at its top.
struct Shape {
    node: Arc<Node>,
    plan: Plan,
    print: OnceLock<u128>,
}

/// How a selector is walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Everything below, but for one link: no need to build a tree.
    All { stop: Option<Cid> },
    /// A chain over one field: no need either.
    Chain { field: String, stop: Option<Cid> },
    /// Clause by clause over the decoded block.
    General,
}

/// Why a selector is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// The clause at this place is not one of the specification.
    #[error("not a selector at {at}: {what}")]
    Malformed {
        /// The keys that lead there.
        at: String,
        /// What was wrong there.
        what: String,
    },
    /// Neither DAG-CBOR nor DAG-JSON.
    #[error("a selector cannot be decoded: {0}")]
    Codec(String),
    /// More bytes than a selector may have.
    #[error("a selector of {len} bytes where at most {max} may stand")]
    TooLarge {
        /// Length found, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// Nested deeper than the cap.
    #[error("a selector nested deeper than {max}")]
    TooDeep {
        /// The cap.
        max: usize,
    },
    /// More clauses than the cap.
    #[error("a selector of more than {max} clauses")]
    TooManyNodes {
        /// The cap.
        max: usize,
    },
    /// More recursions inside one another than the cap.
    #[error("a selector with more than {max} recursions inside one another")]
    Recursions {
        /// The cap.
        max: usize,
    },
    /// Too much work at each node.
    #[error("a selector that unfolds to more than {max} clauses")]
    Cost {
        /// The cap.
        max: usize,
    },
}

impl Selector {
    /// Everything below the root: a recursion without limit over all links and fields.
    pub fn all() -> Self {
        static ALL: OnceLock<Selector> = OnceLock::new();
        ALL.get_or_init(|| Self::all_until(None, None)).clone()
    }

    /// The root alone.
    pub fn matcher() -> Self {
        Self::from_node(Arc::new(Node::Matcher(Matcher::default())))
    }

    /// Everything down to `limit` steps, but for `stop` and what is below it. A step is one field, list position or
    /// entry, so a link deep inside a block is several; to count blocks see
    /// [`WalkConfig::depth`](crate::walk::WalkConfig::depth).
    ///
    /// This is what go-libipni's `ExploreRecursiveWithStop` makes of "explore all".
    pub fn all_until(limit: Option<u64>, stop: Option<Cid>) -> Self {
        Self::recursion(limit, Node::All(Arc::new(Node::Edge)), stop)
    }

    /// A chain over one field: the root, what its field links to, and so on. `limit` is the number of blocks; `stop`
    /// is not visited.
    pub fn chain(field: &str, limit: Option<u64>, stop: Option<Cid>) -> Self {
        let fields = BTreeMap::from([(field.to_owned(), Arc::new(Node::Edge))]);
        Self::recursion(limit, Node::Fields(fields), stop)
    }

    /// A chain over `field` whose blocks have other fields to follow, each with a selector of its own.
    ///
    /// # Errors
    /// Where the whole is over a cap of [`Selector`].
    pub fn chain_with<'a>(
        field: &str,
        limit: Option<u64>,
        stop: Option<Cid>,
        others: impl IntoIterator<Item = (&'a str, Self)>,
    ) -> Result<Self, SelectorError> {
        let others = others.into_iter().map(|(name, selector)| (name.to_owned(), selector.node()));
        let fields = others.chain([(field.to_owned(), Arc::new(Node::Edge))]).collect();
        Self::recursion(limit, Node::Fields(fields), stop).checked()
    }

    /// The root, and under each of the named fields what its selector says.
    ///
    /// # Errors
    /// Where the whole is over a cap of [`Selector`]; likewise for the combinators below.
    pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Result<Self, SelectorError> {
        let fields = fields.into_iter().map(|(name, selector)| (name.to_owned(), selector.node())).collect();
        Self::from_node(Arc::new(Node::Fields(fields))).checked()
    }

    /// What stands at the end of a path of fields, selected by `last`; and the blocks on the way.
    pub fn path<'a>(path: impl IntoIterator<Item = &'a str>, last: Self) -> Result<Self, SelectorError> {
        let path: Vec<_> = path.into_iter().collect();
        let step = |below, name: &&str| Arc::new(Node::Fields(BTreeMap::from([((*name).to_owned(), below)])));
        Self::from_node(path.iter().rev().fold(last.node(), step)).checked()
    }

    /// The root, and each entry or item right below it by one selector.
    pub fn each(next: Self) -> Result<Self, SelectorError> {
        Self::from_node(Arc::new(Node::All(next.node()))).checked()
    }

    /// The root, and the items `range` of the list there.
    pub fn range(range: std::ops::Range<u64>, next: Self) -> Result<Self, SelectorError> {
        // What could not be read back is not made.
        Self::from_ipld(&parse::write(&Node::Range(range.start, range.end, next.node())))
    }

    /// What any of the selectors visits.
    pub fn union(selectors: impl IntoIterator<Item = Self>) -> Result<Self, SelectorError> {
        let members: Vec<_> = selectors.into_iter().map(|selector| selector.node()).collect();
        Self::from_node(Arc::new(Node::Union(members))).checked()
    }

    /// Reads the IPLD form.
    pub fn from_ipld(value: &Ipld) -> Result<Self, SelectorError> {
        let node = parse::read(value)?;
        cost::check(&node)?;
        Ok(Self::from_node(node))
    }

    /// The IPLD form.
    pub fn to_ipld(&self) -> Ipld {
        parse::write(&self.node())
    }

    /// Reads DAG-CBOR.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, SelectorError> {
        check_len(bytes.len())?;
        cbor::scan(bytes, |_, _| {}).map_err(|error: CborError| SelectorError::Codec(error.to_string()))?;
        let value = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| SelectorError::Codec(error.to_string()))?;
        Self::from_ipld(&value)
    }

    /// Writes DAG-CBOR.
    ///
    /// # Errors
    /// None for a selector that was read or made within the caps.
    pub fn to_cbor(&self) -> Result<Vec<u8>, SelectorError> {
        cbor::to_vec(&self.to_ipld()).map_err(|error| SelectorError::Codec(error.to_string()))
    }

    /// Reads DAG-JSON.
    pub fn from_json(text: &str) -> Result<Self, SelectorError> {
        check_len(text.len())?;
        let value = json::read(text).map_err(SelectorError::Codec)?;
        Self::from_ipld(&value)
    }

    /// Writes DAG-JSON.
    ///
    /// # Errors
    /// As [`to_cbor`](Self::to_cbor).
    pub fn to_json(&self) -> Result<String, SelectorError> {
        let codec = |error: String| SelectorError::Codec(error);
        let bytes = serde_ipld_dagjson::to_vec(&self.to_ipld()).map_err(|error| codec(error.to_string()))?;
        String::from_utf8(bytes).map_err(|error| codec(error.to_string()))
    }

    /// Whether it is [`Selector::all`].
    pub fn is_all(&self) -> bool {
        self.limit == UNLIMITED && self.shape.plan == Plan::All { stop: None }
    }

    /// The limit of the recursion at its top.
    pub fn limit(&self) -> Option<u64> {
        (self.limit != UNLIMITED).then_some(self.limit)
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.shape.plan
    }

    /// The same selector after `steps` turns of its recursion; `None` where its limit does not allow them.
    pub(crate) fn after(&self, steps: u64) -> Option<Self> {
        let limit = match self.limit {
            UNLIMITED => UNLIMITED,
            limit => limit.checked_sub(steps).filter(|left| *left > 0)?,
        };
        Some(Self { shape: self.shape.clone(), limit })
    }

    /// A fingerprint of all but the limit at the top.
    pub(crate) fn print(&self) -> u128 {
        *self.shape.print.get_or_init(|| {
            let bytes = cbor::to_vec(&parse::write(&self.shape.node)).unwrap_or_default();
            HashCode::Sha2_256.digest(&bytes).map_or(0, |hash| leading(hash.digest()))
        })
    }

    pub(crate) fn node(&self) -> Arc<Node> {
        match (&*self.shape.node, self.limit()) {
            (Node::Recursive { sequence, stop, .. }, limit @ Some(_)) => {
                Arc::new(Node::Recursive { limit, sequence: sequence.clone(), stop: stop.clone() })
            }
            _ => self.shape.node.clone(),
        }
    }

    pub(crate) fn from_node(node: Arc<Node>) -> Self {
        let (node, limit) = match &*node {
            Node::Recursive { limit: Some(limit), sequence, stop } => {
                let (sequence, stop) = (sequence.clone(), stop.clone());
                (Arc::new(Node::Recursive { limit: None, sequence, stop }), *limit)
            }
            _ => (node, UNLIMITED),
        };
        let plan = Plan::of(&node);
        Self { shape: Arc::new(Shape { node, plan, print: OnceLock::new() }), limit }
    }

    /// Refuses what is left of a selector if it is larger than the caps allow: the last guard behind the cost.
    pub(crate) fn check_size(&self) -> Result<(), SelectorError> {
        cost::check_size(&self.shape.node)
    }

    fn recursion(limit: Option<u64>, sequence: Node, stop: Option<Cid>) -> Self {
        // No DAG is deeper than this, and a limit has to fit the data model's integers.
        let limit = limit.map(|limit| limit.min(i64::MAX.unsigned_abs()));
        let stop = stop.map(|stop| Arc::new(Condition::IsLink(stop)));
        Self::from_node(Arc::new(Node::Recursive { limit, sequence: Arc::new(sequence), stop }))
    }

    fn checked(self) -> Result<Self, SelectorError> {
        cost::check(&self.shape.node)?;
        Ok(self)
    }
}

impl Plan {
    fn of(node: &Node) -> Self {
        let Node::Recursive { sequence, stop, .. } = node else { return Self::General };
        let stop = match stop.as_deref() {
            None => None,
            Some(Condition::IsLink(cid)) => Some(*cid),
            Some(_) => return Self::General,
        };
        match &**sequence {
            Node::All(next) if **next == Node::Edge => Self::All { stop },
            Node::Fields(fields) => match (fields.len(), fields.iter().next()) {
                (1, Some((field, next))) if **next == Node::Edge => Self::Chain { field: field.clone(), stop },
                _ => Self::General,
            },
            _ => Self::General,
        }
    }
}

/// The first 128 bits of a digest.
pub(crate) fn leading(digest: &[u8]) -> u128 {
    digest.iter().take(16).fold(0, |value, byte| (value << 8) | u128::from(*byte))
}

fn check_len(len: usize) -> Result<(), SelectorError> {
    let max = limits::MAX_SELECTOR_BYTES;
    if len > max { Err(SelectorError::TooLarge { len, max }) } else { Ok(()) }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.limit == other.limit && (Arc::ptr_eq(&self.shape, &other.shape) || self.shape.node == other.shape.node)
    }
}

// Floats in conditions are finite, so that equality is total.
impl Eq for Selector {}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_json() {
            Ok(json) => write!(f, "Selector({json})"),
            Err(error) => write!(f, "Selector({error})"),
        }
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_ipld().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_ipld(&Ipld::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
