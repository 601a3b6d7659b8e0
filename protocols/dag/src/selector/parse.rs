//! Selectors as IPLD: the keyed unions of the specification, read strictly and written canonically.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use dagmesh_core::limits;
use ipld_core::ipld::Ipld;

use super::{
    SelectorError,
    condition::{Condition, Kind},
    node::{Matcher, Node},
};

/// Conditions nest no deeper than this; one that does asks for what no traversal needs.
const MAX_CONDITION_DEPTH: usize = 8;

/// Reads a selector, or the envelope `{"selector": ..}` around one.
pub(super) fn read(value: &Ipld) -> Result<Arc<Node>, SelectorError> {
    let mut reader = Reader::default();
    if let Ipld::Map(map) = value
        && let (1, Some(inner)) = (map.len(), map.get("selector"))
    {
        return reader.inside("selector", |reader| reader.selector(inner));
    }
    reader.selector(value)
}

/// Writes a selector.
pub(super) fn write(node: &Node) -> Ipld {
    let next = |next: &Arc<Node>| (">", write(next));
    match node {
        Node::Matcher(matcher) => {
            let mut body = BTreeMap::new();
            if let Some(condition) = &matcher.only_if {
                body.insert("onlyIf".to_owned(), write_condition(condition));
            }
            if let Some(label) = &matcher.label {
                body.insert("label".to_owned(), Ipld::String(label.clone()));
            }
            if let Some((from, to)) = matcher.subset {
                body.insert("subset".to_owned(), map([("[", int(from)), ("]", int(to))]));
            }
            keyed(".", Ipld::Map(body))
        }
        Node::All(below) => keyed("a", map([next(below)])),
        Node::Fields(fields) => {
            let fields = fields.iter().map(|(name, below)| (name.clone(), write(below))).collect();
            keyed("f", map([("f>", Ipld::Map(fields))]))
        }
        Node::Index(index, below) => keyed("i", map([("i", int(*index)), next(below)])),
        Node::Range(start, end, below) => keyed("r", map([("^", int(*start)), ("$", int(*end)), next(below)])),
        Node::Recursive { limit, sequence, stop } => recursive(*limit, write(sequence), stop.as_deref()),
        Node::Until { stop, next } => {
            let idle = keyed("f", map([("f>", map([("", keyed("@", map([])))]))]));
            recursive(Some(1), keyed("|", Ipld::List(vec![write(next), idle])), Some(stop))
        }
        Node::Union(members) => keyed("|", Ipld::List(members.iter().map(|member| write(member)).collect())),
        Node::Conditional(condition, below) => keyed("&", map([("&", write_condition(condition)), next(below)])),
        Node::Edge => keyed("@", map([])),
    }
}

fn recursive(limit: Option<u64>, sequence: Ipld, stop: Option<&Condition>) -> Ipld {
    let limit = match limit {
        None => keyed("none", map([])),
        Some(limit) => keyed("depth", int(limit)),
    };
    let stop = stop.map(|stop| ("!", write_condition(stop)));
    keyed("R", map([("l", limit), (":>", sequence)].into_iter().chain(stop)))
}

fn write_condition(condition: &Condition) -> Ipld {
    let list = |conditions: &[Condition]| Ipld::List(conditions.iter().map(write_condition).collect());
    match condition {
        Condition::HasField(name) => keyed("hasField", Ipld::String(name.clone())),
        Condition::Equals(value) => keyed("=", value.clone()),
        Condition::Kind(kind) => keyed("%", Ipld::String(kind.name().to_owned())),
        Condition::IsLink(cid) => keyed("/", Ipld::Link(*cid)),
        Condition::Greater(value) => keyed("greaterThan", value.clone()),
        Condition::Less(value) => keyed("lessThan", value.clone()),
        Condition::And(all) => keyed("and", list(all)),
        Condition::Or(any) => keyed("or", list(any)),
    }
}

fn keyed(key: &str, body: Ipld) -> Ipld {
    map([(key, body)])
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Ipld)>) -> Ipld {
    Ipld::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn int(value: u64) -> Ipld {
    Ipld::Integer(value.into())
}

/// Reads from the top down and knows where it is, so that an error can say so.
#[derive(Default)]
struct Reader {
    path: Vec<String>,
    depth: usize,
    /// Recursions around the clause that is being read.
    recursions: usize,
}

type Map = BTreeMap<String, Ipld>;

impl Reader {
    fn selector(&mut self, value: &Ipld) -> Result<Arc<Node>, SelectorError> {
        // The exact caps are checked on the finished tree; this one keeps the reader's own stack small.
        if self.depth > limits::MAX_SELECTOR_DEPTH + 1 {
            return Err(SelectorError::TooDeep { max: limits::MAX_SELECTOR_DEPTH });
        }
        let (key, body) = self.union(value, "a selector")?;
        self.depth += 1;
        let node = self.inside(key, |reader| reader.clause(key, body));
        self.depth -= 1;
        Ok(Arc::new(node?))
    }

    fn clause(&mut self, key: &str, body: &Ipld) -> Result<Node, SelectorError> {
        Ok(match key {
            "." => Node::Matcher(self.matcher(body)?),
            "a" => Node::All(self.next(self.body(body, &[">"])?)?),
            "f" => {
                let fields = self.get(self.body(body, &["f>"])?, "f>")?;
                let Ipld::Map(fields) = fields else { return Err(self.bad("\"f>\" is no map")) };
                let read = fields.iter().map(|(name, next)| {
                    Ok((name.clone(), self.inside("f>", |reader| reader.inside(name, |reader| reader.selector(next)))?))
                });
                Node::Fields(read.collect::<Result<_, SelectorError>>()?)
            }
            "i" => {
                let body = self.body(body, &["i", ">"])?;
                Node::Index(self.int(body, "i")?, self.next(body)?)
            }
            "r" => {
                let body = self.body(body, &["^", "$", ">"])?;
                let (start, end) = (self.int(body, "^")?, self.int(body, "$")?);
                if start >= end {
                    return Err(self.bad("a range whose end is not after its start"));
                }
                Node::Range(start, end, self.next(body)?)
            }
            "R" => self.recursion(body)?,
            "|" => {
                let Ipld::List(members) = body else { return Err(self.bad("a union that is no list")) };
                let read = members
                    .iter()
                    .enumerate()
                    .map(|(index, member)| self.inside(&index.to_string(), |reader| reader.selector(member)));
                Node::Union(read.collect::<Result<_, _>>()?)
            }
            "&" => {
                let body = self.body(body, &["&", ">"])?;
                Node::Conditional(Arc::new(self.condition_of(body, "&")?), self.next(body)?)
            }
            "@" => {
                self.body(body, &[])?;
                if self.recursions == 0 {
                    return Err(self.bad("an edge with no recursion around it"));
                }
                Node::Edge
            }
            other => return Err(self.bad(format!("{other:?} is no clause of a selector"))),
        })
    }

    fn matcher(&mut self, body: &Ipld) -> Result<Matcher, SelectorError> {
        let body = self.body(body, &["onlyIf", "label", "subset"])?;
        let only_if = body.contains_key("onlyIf").then(|| self.condition_of(body, "onlyIf")).transpose()?;
        let label = match body.get("label") {
            None => None,
            Some(Ipld::String(label)) => Some(label.clone()),
            Some(_) => return Err(self.bad("a label that is no text")),
        };
        let subset = match body.get("subset") {
            None => None,
            Some(subset) => Some(self.inside("subset", |reader| {
                let subset = reader.body(subset, &["[", "]"])?;
                let (from, to) = (reader.int(subset, "[")?, reader.int(subset, "]")?);
                if from > to { Err(reader.bad("a subset that ends before it starts")) } else { Ok((from, to)) }
            })?),
        };
        Ok(Matcher { only_if, label, subset })
    }

    fn recursion(&mut self, body: &Ipld) -> Result<Node, SelectorError> {
        let body = self.body(body, &["l", ":>", "!"])?;
        let limit = self.get(body, "l")?;
        let limit = self.inside("l", |reader| match reader.union(limit, "a limit")? {
            ("none", none) => reader.body(none, &[]).map(|_| None),
            ("depth", depth) => reader.as_int(depth, "depth").map(Some),
            (other, _) => Err(reader.bad(format!("{other:?} is no limit of a recursion"))),
        })?;
        let stop = body.contains_key("!").then(|| self.condition_of(body, "!")).transpose()?.map(Arc::new);
        let sequence = self.get(body, ":>")?;
        self.recursions += 1;
        let sequence = self.inside(":>", |reader| reader.selector(sequence));
        self.recursions -= 1;
        let sequence = sequence?;
        if let (Some(1), Some(stop), Node::Union(members)) = (limit, &stop, &*sequence)
            && let [next, idle] = members.as_slice()
            && let Node::Fields(idle) = &**idle
            && idle.len() == 1
            && idle.get("").is_some_and(|edge| **edge == Node::Edge)
            && !next.has_edge()
        {
            return Ok(Node::Until { stop: stop.clone(), next: next.clone() });
        }
        if !sequence.has_edge() {
            return Err(self.bad("a recursion with no edge in its sequence"));
        }
        Ok(Node::Recursive { limit, sequence, stop })
    }

    fn condition_of(&mut self, body: &Map, key: &str) -> Result<Condition, SelectorError> {
        let value = self.get(body, key)?;
        self.inside(key, |reader| reader.condition(value, MAX_CONDITION_DEPTH))
    }

    fn condition(&mut self, value: &Ipld, depth: usize) -> Result<Condition, SelectorError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.bad(format!("a condition nested deeper than {MAX_CONDITION_DEPTH}")));
        };
        let (key, body) = self.union(value, "a condition")?;
        self.inside(key, |reader| {
            Ok(match (key, body) {
                ("hasField", Ipld::String(name)) => Condition::HasField(name.clone()),
                ("=", value) => Condition::Equals(reader.value(value, depth)?),
                ("%", Ipld::String(kind)) => match Kind::parse(kind) {
                    Some(kind) => Condition::Kind(kind),
                    None => return Err(reader.bad(format!("{kind:?} is no kind of the data model"))),
                },
                ("/", Ipld::Link(cid)) => Condition::IsLink(*cid),
                ("greaterThan", value) => Condition::Greater(reader.value(value, depth)?),
                ("lessThan", value) => Condition::Less(reader.value(value, depth)?),
                ("and", Ipld::List(all)) => Condition::And(reader.conditions(all, depth)?),
                ("or", Ipld::List(any)) => Condition::Or(reader.conditions(any, depth)?),
                ("hasField" | "%", _) => return Err(reader.bad("text is wanted here")),
                ("/", _) => return Err(reader.bad("a link is wanted here")),
                ("and" | "or", _) => return Err(reader.bad("a list of conditions is wanted here")),
                (other, _) => return Err(reader.bad(format!("{other:?} is no condition"))),
            })
        })
    }

    fn conditions(&mut self, values: &[Ipld], depth: usize) -> Result<Vec<Condition>, SelectorError> {
        let read = values.iter().enumerate();
        read.map(|(index, value)| self.inside(&index.to_string(), |reader| reader.condition(value, depth))).collect()
    }

    /// A value to compare with: nested no deeper than a condition may be, and one that DAG-CBOR can hold.
    fn value(&self, value: &Ipld, depth: usize) -> Result<Ipld, SelectorError> {
        fn check(value: &Ipld, depth: usize) -> bool {
            match value {
                Ipld::Float(float) => float.is_finite(),
                Ipld::List(items) => depth > 0 && items.iter().all(|item| check(item, depth - 1)),
                Ipld::Map(entries) => depth > 0 && entries.values().all(|item| check(item, depth - 1)),
                _ => true,
            }
        }
        if check(value, depth) { Ok(value.clone()) } else { Err(self.bad("a value nested too deep, or not finite")) }
    }

    fn next(&mut self, body: &Map) -> Result<Arc<Node>, SelectorError> {
        let next = self.get(body, ">")?;
        self.inside(">", |reader| reader.selector(next))
    }

    /// The one key of a keyed union, and what stands under it.
    fn union<'v>(&self, value: &'v Ipld, what: &str) -> Result<(&'v str, &'v Ipld), SelectorError> {
        match value {
            Ipld::Map(map) => match (map.len(), map.iter().next()) {
                (1, Some((key, body))) => Ok((key, body)),
                (len, _) => Err(self.bad(format!("{what} is a map of one key; here are {len}"))),
            },
            other => Err(self.bad(format!("{what} is a map of one key; here is a {}", Kind::of(other).name()))),
        }
    }

    /// A map with none but the given keys.
    fn body<'v>(&self, body: &'v Ipld, keys: &[&str]) -> Result<&'v Map, SelectorError> {
        let Ipld::Map(body) = body else { return Err(self.bad("a map is wanted here")) };
        match body.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(key) => Err(self.bad(format!("{key:?} means nothing here"))),
            None => Ok(body),
        }
    }

    fn get<'v>(&self, body: &'v Map, key: &str) -> Result<&'v Ipld, SelectorError> {
        body.get(key).ok_or_else(|| self.bad(format!("{key:?} is missing")))
    }

    fn int(&self, body: &Map, key: &str) -> Result<u64, SelectorError> {
        self.as_int(self.get(body, key)?, key)
    }

    fn as_int(&self, value: &Ipld, key: &str) -> Result<u64, SelectorError> {
        match value {
            // The data model's integers are those of 64 bits with a sign.
            Ipld::Integer(value) if (0..=i128::from(i64::MAX)).contains(value) => {
                Ok(u64::try_from(*value).unwrap_or(0))
            }
            _ => Err(self.bad(format!("{key:?} is no integer of 0 or more"))),
        }
    }

    fn inside<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let result = read(self);
        self.path.pop();
        result
    }

    fn bad(&self, what: impl Into<String>) -> SelectorError {
        let mut at = String::new();
        for key in &self.path {
            // Writing to a string cannot fail.
            let _ = write!(at, "/{key}");
        }
        SelectorError::Malformed { at: if at.is_empty() { "/".into() } else { at }, what: what.into() }
    }
}
