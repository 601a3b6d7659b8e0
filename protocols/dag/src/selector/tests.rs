//! How selectors are read, written and refused.

use super::*;

fn cid() -> Cid {
    Cid::try_from("bafyreidykglsfhoixmivffc5uwhcgshx4j465xwqntbmu43nb2dzqwfvae").expect("a CID")
}

fn json(text: &str) -> Result<Selector, SelectorError> {
    Selector::from_json(text)
}

/// `clauses` inside one another around a matcher, with nothing to step over.
fn conditionals(clauses: usize) -> Arc<Node> {
    let condition = Arc::new(Condition::HasField("x".into()));
    let wrap = |next, _| Arc::new(Node::Conditional(condition.clone(), next));
    (0..clauses).fold(Selector::matcher().node(), wrap)
}

fn matcher(label: &str) -> Arc<Node> {
    Arc::new(Node::Matcher(Matcher { label: Some(label.to_owned()), ..Matcher::default() }))
}

fn check(node: Arc<Node>) -> Result<(), SelectorError> {
    let selector = Selector::from_node(node);
    let read = Selector::from_cbor(&selector.to_cbor().expect("encodes"))?;
    assert_eq!(read, selector);
    Ok(())
}

#[test]
fn the_keys_are_those_of_the_specification() {
    let cid = cid();
    let cases = [
        (Selector::matcher(), r#"{".":{}}"#.to_owned()),
        (Selector::all(), r#"{"R":{":>":{"a":{">":{"@":{}}}},"l":{"none":{}}}}"#.to_owned()),
        (
            Selector::all_until(Some(7), Some(cid)),
            format!(r#"{{"R":{{"!":{{"/":{{"/":"{cid}"}}}},":>":{{"a":{{">":{{"@":{{}}}}}}}},"l":{{"depth":7}}}}}}"#),
        ),
        (
            Selector::chain("PreviousID", None, None),
            r#"{"R":{":>":{"f":{"f>":{"PreviousID":{"@":{}}}}},"l":{"none":{}}}}"#.to_owned(),
        ),
    ];
    for (selector, text) in cases {
        assert_eq!(json(&text), Ok(selector.clone()), "{text}");
        assert_eq!(selector.to_json(), Ok(text));
    }
}

#[test]
fn every_clause_comes_back_as_it_was_in_both_codecs() {
    let link = format!(r#"{{"/":{{"/":"{}"}}}}"#, cid());
    let texts = [
        r#"{".":{"label":"entry","subset":{"[":0,"]":9},"onlyIf":{"hasField":"x"}}}"#.to_owned(),
        r#"{"i":{"i":3,">":{".":{}}}}"#.to_owned(),
        r#"{"r":{"^":1,"$":3,">":{"a":{">":{".":{}}}}}}"#.to_owned(),
        r#"{"|":[{".":{}},{"f":{"f>":{"a":{".":{}},"b":{"f":{"f>":{}}}}}}]}"#.to_owned(),
        r#"{"&":{"&":{"=":{"k":[1,"two",true,null]}},">":{".":{}}}}"#.to_owned(),
        r#"{"&":{"&":{"and":[{"%":"map"},{"or":[{"greaterThan":1},{"lessThan":-5}]}]},">":{".":{}}}}"#.to_owned(),
        format!(r#"{{"R":{{"l":{{"depth":5}},":>":{{"a":{{">":{{"a":{{">":{{"@":{{}}}}}}}}}}}},"!":{link}}}}}"#),
        r#"{"R":{"l":{"none":{}},":>":{"f":{"f>":{"n":{"@":{}},"e":{"R":{"l":{"none":{}},":>":{"a":{">":{"@":{}}}}}}}}}}}"#
            .to_owned(),
        r#"{"R":{"l":{"none":{}},":>":{"@":{}}}}"#.to_owned(),
    ];
    for text in texts {
        let selector = json(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(Selector::from_cbor(&selector.to_cbor().expect("encodes")), Ok(selector.clone()));
        assert_eq!(json(&selector.to_json().expect("encodes")), Ok(selector.clone()));
        let envelope = format!(r#"{{"selector":{text}}}"#);
        assert_eq!(json(&envelope), Ok(selector.clone()), "the envelope is taken");
        let message = cbor::to_vec(&vec![selector.clone()]).expect("encodes");
        assert_eq!(cbor::from_slice::<Vec<Selector>>(&message), Ok(vec![selector]), "inside a message");
    }
}

#[test]
fn what_is_no_selector_is_refused_at_its_place() {
    let cases = [
        (r#"{}"#, "/: a selector is a map of one key; here are 0"),
        (r#"[]"#, "/: a selector is a map of one key; here is a list"),
        (r#"{"x":{}}"#, "/x: \"x\" is no clause"),
        (r#"{"@":{}}"#, "/@: an edge with no recursion around it"),
        (r#"{"a":{}}"#, "/a: \">\" is missing"),
        (r#"{"a":{">":{".":{}},"?":1}}"#, "/a: \"?\" means nothing here"),
        (r#"{"f":{"f>":{"name":{"a":{">":{"y":{}}}}}}}"#, "/f/f>/name/a/>/y: \"y\" is no clause"),
        (r#"{"|":[{".":{}},{"i":{"i":-1,">":{".":{}}}}]}"#, "/|/1/i: \"i\" is no integer of 0 or more"),
        (r#"{"r":{"^":3,"$":3,">":{".":{}}}}"#, "/r: a range whose end is not after its start"),
        (r#"{"R":{":>":{"a":{">":{"@":{}}}}}}"#, "/R: \"l\" is missing"),
        (r#"{"R":{"l":{"some":1},":>":{"a":{">":{"@":{}}}}}}"#, "/R/l: \"some\" is no limit"),
        (r#"{"R":{"l":{"none":{}},":>":{"a":{">":{".":{}}}}}}"#, "/R: a recursion with no edge in its sequence"),
        (r#"{"R":{"l":{"none":{}},":>":{"a":{">":{"@":{}}}},"!":{"/":1}}}"#, "/R/!//: a link is wanted here"),
        (r#"{"&":{"&":{"%":"tree"},">":{".":{}}}}"#, "/&/&/%: \"tree\" is no kind"),
        (r#"{".":{"subset":{"[":2,"]":1}}}"#, "/./subset: a subset that ends before it starts"),
    ];
    for (text, expected) in cases {
        let error = json(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(matches!(json("{"), Err(SelectorError::Codec(_))));
    assert!(matches!(Selector::from_cbor(&[0xa1]), Err(SelectorError::Codec(_))));
}

#[test]
fn bytes_are_taken_at_the_cap_and_refused_beyond_it() {
    let frame = Selector::from_node(matcher(&"x".repeat(1000))).to_cbor().expect("encodes").len() - 1000;
    let label = limits::MAX_SELECTOR_BYTES - frame;
    assert_eq!(check(matcher(&"x".repeat(label))), Ok(()));
    let (len, max) = (limits::MAX_SELECTOR_BYTES + 1, limits::MAX_SELECTOR_BYTES);
    assert_eq!(check(matcher(&"x".repeat(label + 1))), Err(SelectorError::TooLarge { len, max }));
    assert_eq!(json(&" ".repeat(len)), Err(SelectorError::TooLarge { len, max }));
}

#[test]
fn depth_is_taken_at_the_cap_and_refused_beyond_it() {
    let max = limits::MAX_SELECTOR_DEPTH;
    assert_eq!(check(conditionals(max - 1)), Ok(()));
    assert_eq!(check(conditionals(max)), Err(SelectorError::TooDeep { max }));
    let nested = [r#"{"a":{">":"#.repeat(60), r#"{".":{}}"#.into(), "}}".repeat(60)].concat();
    assert_eq!(json(&nested), Err(SelectorError::TooDeep { max }));
}

#[test]
fn nodes_are_taken_at_the_cap_and_refused_beyond_it() {
    let max = limits::MAX_SELECTOR_NODES;
    let same = |members| Arc::new(Node::Union(vec![matcher("same"); members]));
    assert_eq!(check(same(max - 1)), Ok(()));
    assert_eq!(check(same(max)), Err(SelectorError::TooManyNodes { max }));
}

#[test]
fn recursions_in_recursions_are_taken_at_the_cap_and_refused_beyond_it() {
    let max = limits::MAX_SELECTOR_RECURSIONS;
    let nested = |recursions: usize| {
        let chain = |inner, _| Selector::chain_with("next", None, None, [("entries", inner)]);
        (1..recursions).try_fold(Selector::all(), chain)
    };
    assert_eq!(check(nested(max).expect("within the cap").node()), Ok(()));
    assert_eq!(nested(max + 1), Err(SelectorError::Recursions { max }));
}

#[test]
fn cost_is_taken_at_the_cap_and_refused_beyond_it() {
    // A path of n fields has n + 1 forms, of 1 to n + 1 clauses; a matcher has one.
    let path = Selector::path(["f"; 30], Selector::matcher()).expect("within the cap").node();
    let with = |matchers: usize| {
        let matchers = (0..matchers).map(|label| matcher(&label.to_string()));
        check(Arc::new(Node::Union(std::iter::once(path.clone()).chain(matchers).collect())))
    };
    let max = limits::MAX_SELECTOR_COST;
    assert_eq!(with(max - 496), Ok(()));
    assert_eq!(with(max - 496 + 1), Err(SelectorError::Cost { max }));
}

#[test]
fn bombs_are_refused() {
    let all = |next| Arc::new(Node::All(next));
    // Edges at every depth: without merging, the recursions in hand double with each step.
    let ladder = |rungs: usize| {
        let paths = (1..=rungs).map(|len| (0..len).fold(Arc::new(Node::Edge), |next, _| all(next)));
        let sequence = Arc::new(Node::Union(paths.collect()));
        check(Arc::new(Node::Recursive { limit: None, sequence, stop: None }))
    };
    assert_eq!(ladder(3), Ok(()));
    let max = limits::MAX_SELECTOR_COST;
    assert_eq!(ladder(12), Err(SelectorError::Cost { max }));
    // Recursions of different lengths of step, side by side: together they have as many states as the lengths'
    // product, but each is in hand once.
    let wheel = |len: usize| {
        let sequence = (0..len).fold(Arc::new(Node::Edge), |next, _| all(next));
        Arc::new(Node::Recursive { limit: None, sequence, stop: None })
    };
    let wheels = |lens: std::ops::Range<usize>| check(Arc::new(Node::Union(lens.map(wheel).collect())));
    assert_eq!(wheels(1..5), Ok(()));
    assert_eq!(wheels(1..12), Err(SelectorError::Cost { max }));
}

#[test]
fn a_recursion_s_limit_is_counted_down_to_nothing() {
    let chain = Selector::chain("next", Some(3), None);
    assert_eq!(chain.after(2), Some(Selector::chain("next", Some(1), None)));
    assert_eq!(chain.after(3), None);
    assert_eq!(Selector::all().after(u64::MAX), Some(Selector::all()));
    assert_eq!(chain.print(), Selector::chain("next", None, None).print());
    assert_ne!(chain.print(), Selector::chain("prev", None, None).print());
}
