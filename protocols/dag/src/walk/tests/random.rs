//! Random DAGs under random selectors, against a reference that follows the specification's words without memory,
//! without merging and without any of the fast paths.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::selector::{
    At,
    condition::{Condition, Kind},
    node::{Matcher, Node, Step},
};

/// Not in the same order bytewise and by length.
const KEYS: [&str; 3] = ["b", "c", "aa"];

// ---- DAGs ----------------------------------------------------------------------------------------------------------

/// A value whose links are numbers of earlier blocks.
#[derive(Debug, Clone)]
enum Value {
    Int(i8),
    Link(usize),
    List(Vec<Value>),
    Map(Vec<(usize, Value)>),
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![1 => (0..3i8).prop_map(Value::Int), 6 => any::<usize>().prop_map(Value::Link)];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Value::List),
            prop::collection::vec((0..KEYS.len(), inner), 1..4).prop_map(Value::Map),
        ]
    })
}

/// The kind of a block, and the value of each of its keys.
type Spec = (u8, [Value; 3]);

fn spec() -> impl Strategy<Value = Spec> {
    (0..6u8, [value(), value(), value()])
}

fn dag() -> impl Strategy<Value = Vec<Spec>> {
    prop::collection::vec(spec(), 1..9)
}

/// The blocks as values, in the order of their making.
struct Dag {
    store: MemoryBlockstore,
    values: HashMap<Cid, Ipld>,
    cids: Vec<Cid>,
}

impl Dag {
    fn new(specs: &[Spec]) -> Self {
        let mut dag = Self { store: MemoryBlockstore::new(), values: HashMap::new(), cids: Vec::new() };
        for (number, (kind, values)) in specs.iter().enumerate() {
            let entries = KEYS.into_iter().zip(values.iter().map(|value| dag.ipld(value)));
            let value = map(entries.chain([("n", Ipld::Integer(number as i128))]));
            let (block, value) = match kind {
                0 => {
                    let json = serde_ipld_dagjson::to_vec(&value).expect("encodes");
                    (Block::new(Codec::DagJson, HashCode::Sha2_256, json).expect("a block"), value)
                }
                1 => pb(&value),
                _ => (dag_cbor(&value), value),
            };
            dag.cids.push(put(&dag.store, block));
            dag.values.insert(*dag.cids.last().expect("just pushed"), value);
        }
        dag
    }

    fn ipld(&self, value: &Value) -> Ipld {
        match value {
            Value::Int(int) => Ipld::Integer(i128::from(*int)),
            Value::Link(_) if self.cids.is_empty() => Ipld::Null,
            // Mostly to the blocks made last, so that DAGs are deep.
            Value::Link(link) => {
                let back = 1 + link % 8 % self.cids.len().min(if link % 3 == 0 { usize::MAX } else { 2 });
                Ipld::Link(self.cids[self.cids.len() - back])
            }
            Value::List(items) => Ipld::List(items.iter().map(|item| self.ipld(item)).collect()),
            Value::Map(entries) => {
                Ipld::Map(entries.iter().map(|(key, value)| (KEYS[*key].to_owned(), self.ipld(value))).collect())
            }
        }
    }

    fn top(&self) -> Cid {
        *self.cids.last().expect("at least one block")
    }
}

/// A DAG-PB block with all links of the value, by number.
fn pb(value: &Ipld) -> (Block, Ipld) {
    fn links(value: &Ipld, found: &mut Vec<Cid>) {
        match value {
            Ipld::Link(cid) => found.push(*cid),
            Ipld::List(items) => items.iter().for_each(|item| links(item, found)),
            Ipld::Map(entries) => entries.values().for_each(|item| links(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    links(value, &mut found);
    let named = found.iter().enumerate().map(|(number, cid)| (format!("{number:02}"), *cid));
    let link = |(name, cid)| ipld_dagpb::PbLink { cid, name: Some(name), size: Some(1) };
    let node = ipld_dagpb::PbNode { links: named.clone().map(link).collect(), data: None };
    let block = Block::new(Codec::DagPb, HashCode::Sha2_256, node.into_bytes()).expect("a block");
    let entry =
        |(name, cid)| map([("Hash", Ipld::Link(cid)), ("Name", Ipld::String(name)), ("Tsize", Ipld::Integer(1))]);
    (block, map([("Links", Ipld::List(named.map(entry).collect()))]))
}

// ---- Selectors -----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Clause {
    Matcher,
    Edge,
    All(Box<Clause>),
    Fields(Vec<(usize, Clause)>),
    Index(u64, Box<Clause>),
    Range(u64, Box<Clause>),
    Union(Vec<Clause>),
    If(Test, Box<Clause>),
    Recursive(Option<u64>, Box<Clause>, Option<Test>),
}

#[derive(Debug, Clone)]
enum Test {
    Link(usize),
    NotLess(i8),
    Has(usize),
    Kind(bool),
    Either(Box<Test>, Box<Test>),
    Both(Box<Test>, Box<Test>),
}

fn test() -> impl Strategy<Value = Test> {
    let leaf = prop_oneof![
        any::<usize>().prop_map(Test::Link),
        (0..3i8).prop_map(Test::NotLess),
        (0..KEYS.len()).prop_map(Test::Has),
        any::<bool>().prop_map(Test::Kind),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        let two = (inner.clone(), inner).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        (any::<bool>(), two).prop_map(|(both, (a, b))| if both { Test::Both(a, b) } else { Test::Either(a, b) })
    })
}

fn clause() -> impl Strategy<Value = Clause> {
    let leaf = prop_oneof![1 => Just(Clause::Matcher), 4 => Just(Clause::Edge)];
    let tree = leaf.prop_recursive(4, 12, 3, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        prop_oneof![
            3 => boxed.clone().prop_map(Clause::All),
            3 => prop::collection::vec((0..KEYS.len(), inner.clone()), 0..4).prop_map(Clause::Fields),
            1 => (0..3u64, boxed.clone()).prop_map(|(index, next)| Clause::Index(index, next)),
            1 => (0..3u64, boxed.clone()).prop_map(|(start, next)| Clause::Range(start, next)),
            4 => prop::collection::vec(inner.clone(), 1..4).prop_map(Clause::Union),
            1 => (test(), boxed).prop_map(|(test, next)| Clause::If(test, next)),
            2 => recursive(inner),
        ]
    });
    prop_oneof![1 => tree.clone(), 4 => recursive(tree)]
}

fn recursive(sequence: impl Strategy<Value = Clause>) -> impl Strategy<Value = Clause> {
    // Something that goes on, or most recursions would end where they start.
    let step = (sequence, 0..6usize).prop_map(|(next, kind)| match kind {
        0..3 => Clause::All(Box::new(next)),
        3 | 4 => Clause::Fields((0..KEYS.len()).map(|key| (key, next.clone())).collect()),
        _ => next,
    });
    let sequence = prop::collection::vec(step, 1..4).prop_map(Clause::Union);
    let limit = prop::option::of(1..12u64);
    let stop = prop::option::weighted(0.4, test());
    (limit, sequence, stop).prop_map(|(limit, sequence, stop)| Clause::Recursive(limit, Box::new(sequence), stop))
}

/// The node of a clause; edges and recursions that the specification does not allow are made such as it does.
fn node(clause: &Clause, cids: &[Cid], in_recursion: bool) -> Arc<Node> {
    let below = |clause: &Clause| node(clause, cids, in_recursion);
    Arc::new(match clause {
        Clause::Edge if in_recursion => Node::Edge,
        Clause::Matcher | Clause::Edge => Node::Matcher(Matcher::default()),
        Clause::All(next) => Node::All(below(next)),
        Clause::Fields(fields) => {
            Node::Fields(fields.iter().map(|(key, next)| (KEYS[*key].to_owned(), below(next))).collect())
        }
        Clause::Index(index, next) => Node::Index(*index, below(next)),
        Clause::Range(start, next) => Node::Range(*start, start + 2, below(next)),
        Clause::Union(members) => Node::Union(members.iter().map(below).collect()),
        Clause::If(test, next) => Node::Conditional(Arc::new(condition(test, cids)), below(next)),
        Clause::Recursive(limit, sequence, stop) => {
            let mut sequence = node(sequence, cids, true);
            if !sequence.has_edge() {
                sequence = Arc::new(Node::Union(vec![sequence, Arc::new(Node::All(Arc::new(Node::Edge)))]));
            }
            let stop = stop.as_ref().map(|stop| Arc::new(condition(stop, cids)));
            Node::Recursive { limit: *limit, sequence, stop }
        }
    })
}

fn condition(test: &Test, cids: &[Cid]) -> Condition {
    match test {
        Test::Link(link) => Condition::IsLink(cids[link % cids.len()]),
        Test::NotLess(int) => Condition::Greater(Ipld::Integer(i128::from(*int) - 1)),
        Test::Has(key) => Condition::HasField(KEYS[*key].to_owned()),
        Test::Kind(list) => Condition::Kind(if *list { Kind::List } else { Kind::Link }),
        Test::Either(a, b) => Condition::Or(vec![condition(a, cids), condition(b, cids)]),
        Test::Both(a, b) => Condition::And(vec![condition(a, cids), condition(b, cids)]),
    }
}

// ---- The reference -------------------------------------------------------------------------------------------------

/// Where one reading of the selector stands: a clause, the recursions around it, conditions that must hold.
#[derive(Debug, Clone, PartialEq)]
struct State {
    clause: Arc<Node>,
    around: Vec<Recursion>,
    conditions: Vec<Arc<Condition>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Recursion {
    limit: Option<u64>,
    sequence: Arc<Node>,
    stop: Option<Arc<Condition>>,
}

/// A clause that a step has led to; an edge becomes its recursion.
fn arrive(clause: &Arc<Node>, around: &[Recursion], conditions: &[Arc<Condition>]) -> Vec<State> {
    match &**clause {
        Node::Edge => {
            let (nearest, around) = around.split_last().expect("an edge stands in a recursion");
            if nearest.limit.is_some_and(|limit| limit < 2) {
                return Vec::new();
            }
            let clause = Arc::new(Node::Recursive {
                limit: nearest.limit.map(|limit| limit - 1),
                sequence: nearest.sequence.clone(),
                stop: nearest.stop.clone(),
            });
            vec![State { clause, around: around.to_vec(), conditions: conditions.to_vec() }]
        }
        Node::Union(members) => members.iter().flat_map(|member| arrive(member, around, conditions)).collect(),
        Node::Conditional(condition, next) => {
            arrive(next, around, &[conditions, std::slice::from_ref(condition)].concat())
        }
        _ => vec![State { clause: clause.clone(), around: around.to_vec(), conditions: conditions.to_vec() }],
    }
}

fn explore(clause: &Arc<Node>, around: &[Recursion], at: At<'_>, step: Step<'_>) -> Vec<State> {
    let arrive = |next: &Arc<Node>| arrive(next, around, &[]);
    match (&**clause, step) {
        (Node::All(next), _) => arrive(next),
        (Node::Fields(fields), Step::Key(key)) => fields.get(key).map_or_else(Vec::new, arrive),
        (Node::Index(wanted, next), Step::Index(index)) if *wanted == index => arrive(next),
        (Node::Range(start, end, next), Step::Index(index)) if *start <= index && index < *end => arrive(next),
        (Node::Union(members), _) => members.iter().flat_map(|member| explore(member, around, at, step)).collect(),
        (Node::Conditional(condition, next), _) if condition.holds(at) == Some(true) => explore(next, around, at, step),
        (Node::Recursive { limit, sequence, stop }, _) => {
            if stop.as_ref().is_some_and(|stop| stop.holds(at) == Some(true)) {
                return Vec::new();
            }
            let recursion = Recursion { limit: *limit, sequence: sequence.clone(), stop: stop.clone() };
            explore(sequence, &[around, &[recursion]].concat(), at, step)
        }
        _ => Vec::new(),
    }
}

struct Reference<'a> {
    dag: &'a Dag,
    depth: Option<u64>,
    visited: Vec<Cid>,
}

impl Reference<'_> {
    fn visits(dag: &Dag, selector: &Arc<Node>, depth: Option<u64>) -> Vec<Cid> {
        let mut reference = Reference { dag, depth, visited: Vec::new() };
        reference.link(&dag.top(), &arrive(selector, &[], &[]), 0);
        reference.visited
    }

    fn link(&mut self, cid: &Cid, states: &[State], depth: u64) {
        let at = At { value: None, link: Some(cid) };
        let is_open = |state: &State| {
            state.conditions.iter().all(|condition| condition.holds(at) != Some(false))
                && !Self::is_stopped(state, at)
                && state.clause.reaches(cid)
        };
        if self.depth.is_some_and(|max| depth >= max) || !states.iter().any(is_open) {
            return;
        }
        if !self.visited.contains(cid) {
            self.visited.push(*cid);
        }
        let value = &self.dag.values[cid];
        let states: Vec<_> = states.iter().filter(|state| is_open(state)).cloned().collect();
        self.below(At { value: Some(value), link: Some(cid) }, value, &states, depth + 1, cid.codec());
    }

    fn below(&mut self, at: At<'_>, value: &Ipld, states: &[State], depth: u64, codec: u64) {
        let mut children: Vec<(Step<'_>, &Ipld)> = match value {
            Ipld::List(items) => {
                items.iter().enumerate().map(|(index, item)| (Step::Index(index as u64), item)).collect()
            }
            Ipld::Map(entries) => entries.iter().map(|(key, item)| (Step::Key(key), item)).collect(),
            _ => return,
        };
        if codec == Codec::DagCbor as u64 {
            children.sort_by_key(|(step, _)| if let Step::Key(key) = step { key.len() } else { 0 });
        }
        for (step, child) in children {
            let mut next: Vec<State> = Vec::new();
            for state in states {
                let holds = state.conditions.iter().all(|condition| condition.holds(at) == Some(true));
                if !holds || Self::is_stopped(state, at) {
                    continue;
                }
                for state in explore(&state.clause, &state.around, at, step) {
                    if !next.contains(&state) {
                        next.push(state);
                    }
                }
            }
            match child {
                Ipld::Link(cid) => self.link(cid, &next, depth),
                _ => self.below(At { value: Some(child), link: None }, child, &next, depth, codec),
            }
        }
    }

    fn is_stopped(state: &State, at: At<'_>) -> bool {
        state.around.iter().filter_map(|around| around.stop.as_ref()).any(|stop| stop.holds(at) == Some(true))
    }
}

// ---- The rules -----------------------------------------------------------------------------------------------------

fn first_visits(visits: impl IntoIterator<Item = Cid>) -> Vec<Cid> {
    let mut seen = HashSet::new();
    visits.into_iter().filter(|cid| seen.insert(*cid)).collect()
}

/// The root and selector after a trip over the wire.
fn sent(root: &Root) -> Root {
    let bytes = root.selector.to_cbor().expect("encodes");
    let selector = Selector::from_cbor(&bytes).expect("what is left of a selector is one");
    assert_eq!(selector, root.selector);
    Root { selector, ..root.clone() }
}

fn config(depth: Option<u64>) -> WalkConfig {
    WalkConfig { depth, ..WalkConfig::default() }
}

/// The same walk in segments of the given numbers of visits, each one a new walk over the last one's frontier.
fn in_segments(dag: &Dag, walk: Walk, depth: Option<u64>, segments: &[usize]) -> Vec<Cid> {
    let (mut walk, mut found) = (walk, Vec::new());
    for segment in segments {
        found.extend((0..*segment).map_while(|_| step(&dag.store, &mut walk)).map(|visit| visit.cid));
        walk = match depth {
            None => Walk::new(config(None), walk.frontier().iter().map(sent).collect()),
            Some(_) => {
                let sent = |entry: FrontierEntry| FrontierEntry { root: sent(&entry.root), ..entry };
                Walk::resume(config(depth), walk.frontier_entries().into_iter().map(sent).collect())
            }
        };
    }
    found.extend(visits(&dag.store, walk).into_iter().map(|visit| visit.cid));
    first_visits(found)
}

/// The same walk with its last half taken off after so many visits, and walked afterwards as one of its own.
fn in_halves(dag: &Dag, mut walk: Walk, depth: Option<u64>, before: usize) -> Vec<Cid> {
    let mut found: Vec<_> = (0..before).map_while(|_| step(&dag.store, &mut walk)).map(|visit| visit.cid).collect();
    let given = walk.split_off(walk.waiting().div_ceil(2));
    found.extend(visits(&dag.store, walk).into_iter().map(|visit| visit.cid));
    found.extend(visits(&dag.store, Walk::resume(config(depth), given)).into_iter().map(|visit| visit.cid));
    first_visits(found)
}

fn agree(
    specs: &[Spec],
    node: impl Fn(&[Cid]) -> Arc<Node>,
    depth: Option<u64>,
    segments: &[usize],
) -> Result<(), TestCaseError> {
    let dag = Dag::new(specs);
    let node = node(&dag.cids);
    let selector = Selector::from_node(node.clone());
    match Selector::from_ipld(&selector.to_ipld()) {
        Ok(read) => prop_assert_eq!(&read, &selector),
        Err(SelectorError::Malformed { .. }) => return Err(TestCaseError::fail(format!("{selector:?} is none"))),
        Err(_) => return Ok(()),
    }
    let expected = Reference::visits(&dag, &node, depth);
    let walk = || Walk::new(config(depth), vec![root(dag.top(), selector.clone())]);
    let found = first_visits(visits(&dag.store, walk()).into_iter().map(|visit| visit.cid));
    prop_assert_eq!(&found, &expected, "{:?}", selector);
    prop_assert_eq!(&in_segments(&dag, walk(), depth, segments), &expected, "in segments, {:?}", selector);
    for before in segments {
        prop_assert_eq!(&in_halves(&dag, walk(), depth, *before), &expected, "in halves, {:?}", selector);
    }
    Ok(())
}

fn segments() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..5usize, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_selector_visits_what_the_specification_says_in_one_piece_and_in_segments(
        specs in dag(), clause in clause(), depth in prop::option::weighted(0.3, 1..6u64), segments in segments(),
    ) {
        agree(&specs, |cids| node(&clause, cids, false), depth, &segments)?;
    }

    #[test]
    fn the_fast_paths_visit_what_the_specification_says_in_one_piece_and_in_segments(
        specs in dag(), is_chain in any::<bool>(), limit in prop::option::of(1..8u64),
        stop in prop::option::of(any::<usize>()), depth in prop::option::weighted(0.3, 1..6u64), segments in segments(),
    ) {
        let selector = |cids: &[Cid]| {
            let stop = stop.map(|stop| cids[stop % cids.len()]);
            if is_chain { Selector::chain("b", limit, stop) } else { Selector::all_until(limit, stop) }.node()
        };
        agree(&specs, selector, depth, &segments)?;
    }

    #[test]
    fn each_block_is_visited_once_where_everything_is_selected(specs in dag(), segments in segments()) {
        agree(&specs, |_| Selector::all().node(), None, &segments)?;
        let dag = Dag::new(&specs);
        let found = cids(&dag.store, [root(dag.top(), Selector::all())]);
        prop_assert_eq!(first_visits(found.clone()), found);
    }

    #[test]
    fn pruning_leaves_out_nothing_that_is_new_and_sends_nothing_but_what_is_not_held_beside_it(
        old in dag(), changes in prop::collection::vec((any::<usize>(), spec()), 1..3),
    ) {
        let mut new = old.clone();
        for (at, spec) in changes {
            let at = at % new.len();
            new[at] = spec;
        }
        let (old, new) = (Dag::new(&old), Dag::new(&new));
        old.store.put_many(&closure(&new.store, [new.top()]).map(|found| match found {
            Ok(Found::Block(block)) => block,
            other => panic!("{other:?}"),
        }).collect::<Vec<_>>()).expect("puts");
        let held: HashSet<_> = cids(&old.store, [root(old.top(), Selector::all())]).into_iter().collect();
        let all = cids(&new.store, [root(new.top(), Selector::all())]);
        let beside = Root { cid: new.top(), selector: Selector::all(), held: Some(old.top()) };
        let sent = cids(&old.store, [beside]);
        let missing: Vec<_> = all.iter().filter(|cid| !held.contains(cid)).collect();
        prop_assert!(missing.iter().all(|cid| sent.contains(cid)), "{missing:?} of {sent:?}");
        prop_assert!(sent.len() <= all.len());
    }
}
