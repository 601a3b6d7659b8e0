//! What each clause of a selector leads to, on one small DAG.

use super::*;

struct Example {
    store: MemoryBlockstore,
    top: Cid,
    names: HashMap<Cid, &'static str>,
}

/// `top` links to `a`, `b` and `c` in a list `items`, to `d` in a map, and to an older `top` in `next`, which is such
/// a block too and links to the oldest; `d` links on to `e`.
fn example() -> Example {
    let store = MemoryBlockstore::new();
    let mut names = HashMap::new();
    let mut put = |name, block| {
        let cid = put(&store, block);
        names.insert(cid, name);
        cid
    };
    let e = put("e", raw("e"));
    let d = put("d", dag_cbor(&map([("below", Ipld::Link(e))])));
    let [a, b, c] = ["a", "b", "c"].map(|name| put(name, raw(name)));
    let oldest = put("oldest", dag_cbor(&map([("kind", Ipld::String("first".into()))])));
    let older = put("older", dag_cbor(&map([("next", Ipld::Link(oldest)), ("items", list([a]))])));
    let top = put(
        "top",
        dag_cbor(&map([
            ("items", list([a, b, c])),
            ("map", map([("d", Ipld::Link(d)), ("n", Ipld::Integer(7))])),
            ("next", Ipld::Link(older)),
        ])),
    );
    Example { store, top, names }
}

fn names(example: &Example, selector: &str) -> Vec<&'static str> {
    let selector = Selector::from_json(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    cids(&example.store, [root(example.top, selector)]).iter().map(|cid| example.names[cid]).collect()
}

#[test]
fn each_clause_leads_where_the_specification_says() {
    let example = example();
    let named = |name: &str| example.names.iter().find(|(_, known)| **known == name).expect("named").0.to_string();
    let (d, older) = (named("d"), named("older"));
    let cases: &[(&str, &[&str])] = &[
        (r#"{".":{}}"#, &["top"]),
        (r#"{"a":{">":{".":{}}}}"#, &["top", "older"]),
        (r#"{"a":{">":{"a":{">":{".":{}}}}}}"#, &["top", "d", "older", "oldest", "a", "b", "c"]),
        (r#"{"f":{"f>":{"map":{"f":{"f>":{"d":{".":{}}}}}}}}"#, &["top", "d"]),
        (r#"{"f":{"f>":{"items":{"i":{"i":1,">":{".":{}}}}}}}"#, &["top", "b"]),
        (r#"{"f":{"f>":{"items":{"r":{"^":1,"$":9,">":{".":{}}}}}}}"#, &["top", "b", "c"]),
        (r#"{"f":{"f>":{"items":{"f":{"f>":{"2":{".":{}}}}}}}}"#, &["top", "c"]),
        (
            r#"{"|":[{"f":{"f>":{"items":{"i":{"i":0,">":{".":{}}}}}}},{"f":{"f>":{"next":{".":{}}}}}]}"#,
            &["top", "older", "a"],
        ),
        (r#"{"R":{"l":{"depth":2},":>":{"f":{"f>":{"next":{"@":{}}}}}}}"#, &["top", "older"]),
        (
            r#"{"R":{"l":{"none":{}},":>":{"f":{"f>":{"next":{"@":{}},"items":{"a":{">":{".":{}}}}}}}}}"#,
            &["top", "older", "oldest", "a", "b", "c"],
        ),
        (r#"{"R":{"l":{"depth":2},":>":{"a":{">":{"@":{}}}}}}"#, &["top", "older"]),
        (r#"{"R":{"l":{"depth":3},":>":{"a":{">":{"@":{}}}}}}"#, &["top", "d", "older", "oldest", "a", "b", "c"]),
        (r#"{"R":{"l":{"none":{}},":>":{"@":{}}}}"#, &["top"]),
        (
            &format!(
                r#"{{"R":{{"l":{{"none":{{}}}},":>":{{"f":{{"f>":{{"next":{{"@":{{}}}}}}}}}},"!":{{"/":{{"/":"{older}"}}}}}}}}"#
            ),
            &["top"],
        ),
        // A recursion of two steps is stopped between them as well.
        (
            &format!(
                r#"{{"R":{{"l":{{"none":{{}}}},":>":{{"a":{{">":{{"a":{{">":{{"@":{{}}}}}}}}}}}},"!":{{"/":{{"/":"{d}"}}}}}}}}"#
            ),
            &["top", "older", "oldest", "a", "b", "c"],
        ),
        // A condition about content is decided when the block is there.
        (
            r#"{"R":{"l":{"none":{}},":>":{"a":{">":{"@":{}}}},"!":{"hasField":"below"}}}"#,
            &["top", "d", "older", "oldest", "a", "b", "c"],
        ),
        (r#"{"&":{"&":{"hasField":"items"},">":{"f":{"f>":{"next":{".":{}}}}}}}"#, &["top", "older"]),
        (r#"{"&":{"&":{"hasField":"nothing"},">":{"f":{"f>":{"next":{".":{}}}}}}}"#, &["top"]),
        (r#"{"a":{">":{"&":{"&":{"%":"link"},">":{".":{}}}}}}"#, &["top", "older"]),
        (r#"{"a":{">":{"&":{"&":{"%":"list"},">":{"a":{">":{".":{}}}}}}}}"#, &["top", "older", "a", "b", "c"]),
    ];
    for (selector, expected) in cases {
        assert_eq!(names(&example, selector), *expected, "{selector}");
    }
}

#[test]
fn other_codecs_are_selected_by_their_data_model() {
    let store = MemoryBlockstore::new();
    let [a, b] = ["a", "b"].map(|text| put(&store, raw(text)));
    let json = format!(r#"{{"next":{{"/":"{a}"}},"other":{{"/":"{b}"}}}}"#);
    let json = put(&store, Block::new(Codec::DagJson, HashCode::Sha2_256, json.into_bytes()).expect("a block"));
    assert_eq!(cids(&store, [root(json, Selector::chain("next", None, None))]), [json, a]);
    assert_eq!(cids(&store, [root(json, Selector::all_until(Some(1), None))]), [json]);

    let link = |cid, name: &str| ipld_dagpb::PbLink { cid, name: Some(name.into()), size: Some(1) };
    let node = ipld_dagpb::PbNode { links: vec![link(a, "a"), link(b, "b")], data: None };
    let pb = put(&store, Block::new(Codec::DagPb, HashCode::Sha2_256, node.into_bytes()).expect("a block"));
    let hash = Selector::fields([("Hash", Selector::matcher())]).expect("small");
    let second = Selector::fields([("Links", Selector::range(1..2, hash).expect("small"))]).expect("small");
    assert_eq!(cids(&store, [root(pb, second)]), [pb, b]);
    assert_eq!(cids(&store, [root(pb, Selector::all_until(Some(3), None))]), [pb]);
    assert_eq!(cids(&store, [root(pb, Selector::all_until(Some(4), None))]), [pb, a, b]);
}

#[test]
fn combinators_make_what_they_say() {
    let example = example();
    let (store, top) = (&example.store, example.top);
    let named =
        |selector| -> Vec<_> { cids(store, [root(top, selector)]).iter().map(|cid| example.names[cid]).collect() };
    let path = Selector::path(["map", "d"], Selector::all()).expect("small");
    assert_eq!(named(path.clone()), ["top", "d", "e"]);
    let each = Selector::each(Selector::matcher()).expect("small");
    assert_eq!(named(Selector::union([path, each]).expect("small")), ["top", "d", "e", "older"]);
    let items = [("items", Selector::all())];
    let ipni = Selector::chain_with("next", Some(2), None, items).expect("small");
    assert_eq!(named(ipni), ["top", "older", "a", "b", "c"]);
}

#[test]
fn one_link_under_two_selectors_is_walked_under_both() {
    let example = example();
    let roots = [Selector::matcher(), Selector::chain("next", None, None)].map(|it| root(example.top, it));
    let found: Vec<_> = cids(&example.store, roots).iter().map(|cid| example.names[cid]).collect();
    assert_eq!(found, ["top", "top", "older", "oldest"]);
}

#[test]
fn the_work_on_one_block_is_taken_at_the_cap_and_refused_beyond_it() {
    // Ranges that never apply, tried against each entry: 3 clauses, and a union around them.
    let selector = r#"{"|":[{"r":{"^":9999998,"$":9999999,">":{".":{}}}},{".":{}}]}"#;
    let selector = Selector::from_json(selector).expect("a selector");
    let tried = 4;
    for (entries, taken) in [(limits::MAX_SELECT_WORK / tried, true), (limits::MAX_SELECT_WORK / tried + 1, false)] {
        let mut bytes = vec![0x9a];
        bytes.extend(u32::try_from(entries).expect("fits").to_be_bytes());
        bytes.resize(5 + entries, 0x80);
        let block = Block::new(Codec::DagCbor, HashCode::Blake3, bytes).expect("a block");
        let mut walk = Walk::new(WalkConfig::default(), vec![root(*block.cid(), selector.clone())]);
        let visit = walk.next_visit().expect("the root");
        let refused = WalkError::Work { cid: Box::new(visit.cid), max: limits::MAX_SELECT_WORK };
        assert_eq!(walk.enter(&visit, &block, None), if taken { Ok(()) } else { Err(refused) });
    }
}
