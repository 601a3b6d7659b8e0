use std::collections::{BTreeMap, BTreeSet};

use dagmesh_core::{Machine, limits::MAX_RECORD_PEERS};
use proptest::prelude::*;

use super::*;
use crate::{
    error::Code,
    message::RecordBytes,
    testing::{NOW_MS, peer, record, start},
};

fn verified(sequence: u64) -> Verified {
    Verified::from(&record(1, "name", sequence, &format!("value {sequence}")))
}

fn bytes(record: &Verified) -> RecordBytes {
    RecordBytes::new(record.bytes()).expect("fits")
}

/// What a node does with a request.
#[derive(Clone)]
enum Node {
    Holds(Verified),
    Empty,
    Silent,
    Fails,
    Says(Answer),
}

/// Nodes by distance, and what a machine made of them.
struct Net {
    now: Instant,
    nodes: Vec<(PeerId, Node)>,
    /// Requests in the order in which they were sent.
    asked: Vec<PeerId>,
    most_at_once: usize,
}

impl Net {
    fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let nodes = nodes.into_iter().enumerate().map(|(n, node)| (peer(n as u16), node)).collect();
        Self { now: start(), nodes, asked: Vec::new(), most_at_once: 0 }
    }

    fn answer(&mut self, peer: &PeerId, request: &Request) -> Option<Input> {
        let (peer, node) = self.nodes.iter_mut().find(|(id, _)| id == peer).expect("is one of the nodes");
        let answered = |answer| Some(Input::Answered { peer: *peer, answer });
        match (&mut *node, request) {
            (Node::Silent, _) => None,
            (Node::Fails, _) => Some(Input::Failed(*peer)),
            (Node::Says(answer), _) => answered(answer.clone()),
            (Node::Holds(held), Request::Get { .. }) => answered(Answer::Record(bytes(held))),
            (Node::Empty, Request::Get { .. }) => answered(Answer::Absent),
            (node, Request::Put { key, record }) => {
                let new = crate::verify(key, record, NOW_MS).expect("a machine puts only what holds");
                if let Node::Holds(held) = node
                    && held.order() > new.order()
                {
                    return answered(Answer::Superseded { record: bytes(held), timestamp_ms: 0 });
                }
                *node = Node::Holds(new);
                answered(Answer::Stored { news: true })
            }
        }
    }

    /// Runs a machine to its end; gives all its effects but those that the driver carries out.
    fn run<M: Machine<Input = Input, Effect = Effect<T>>, T: std::fmt::Debug>(
        &mut self,
        mut machine: M,
    ) -> Vec<Effect<T>> {
        let (mut told, mut on_way, begun) = (Vec::new(), std::collections::VecDeque::new(), self.now);
        loop {
            while let Some(effect) = machine.poll_effect() {
                match effect {
                    Effect::FindClosest(_) => {
                        on_way.push_back(Input::Closest(self.nodes.iter().map(|(peer, _)| *peer).collect()));
                    }
                    Effect::Send { peer, request } => {
                        self.asked.push(peer);
                        on_way.extend(self.answer(&peer, &request));
                        self.most_at_once = self.most_at_once.max(on_way.len());
                    }
                    Effect::Done => {
                        assert!(machine.poll_effect().is_none() && machine.poll_timeout().is_none(), "it is over");
                        assert!(on_way.is_empty() || !told.is_empty());
                        return told;
                    }
                    other => told.push(other),
                }
            }
            match on_way.pop_front() {
                Some(input) => machine.handle(self.now, input),
                None => {
                    self.now = machine.poll_timeout().expect("it ends by itself").max(self.now);
                    assert!(self.now - begun <= Duration::from_secs(RECORD_CALL_SECS), "in bounded time");
                    machine.handle_timeout(self.now);
                }
            }
        }
    }

    fn put(&mut self, sequence: u64, replicas: usize) -> PutResult {
        let config = PutConfig { replicas, ..PutConfig::new(verified(sequence), NOW_MS) };
        let told = self.run(Put::new(self.now, config).expect("begins"));
        let Some(Effect::Result(result)) = told.last() else { panic!("{told:?}") };
        result.clone()
    }

    fn get_with(&mut self, config: GetConfig) -> (GetResult, Vec<Effect<GetResult>>) {
        let mut told = self.run(Get::new(self.now, config).expect("begins"));
        let at = told.iter().position(|effect| matches!(effect, Effect::Result(_))).expect("has a result");
        let Effect::Result(result) = told.remove(at) else { unreachable!() };
        (result, told)
    }

    fn get(&mut self, quorum: usize) -> GetResult {
        let config = GetConfig { quorum, thorough: false, ..GetConfig::new(verified(1).key().to_vec(), NOW_MS) };
        self.get_with(config).0
    }

    fn holders(&self, record: &Verified) -> BTreeSet<PeerId> {
        let holds = |(peer, node): &(PeerId, Node)| match node {
            Node::Holds(held) if held.order() == record.order() => Some(*peer),
            _ => None,
        };
        self.nodes.iter().filter_map(holds).collect()
    }
}

fn some(n: usize, node: Node) -> Vec<Node> {
    vec![node; n]
}

#[test]
fn a_put_stores_at_exactly_the_closest_nodes_that_were_asked_for() {
    for replicas in [1, 3, 20] {
        let mut net = Net::new(some(30, Node::Empty));
        let result = net.put(1, replicas);
        assert_eq!((result.end, result.holders.len(), result.wanted), (PutEnd::Complete, replicas, replicas));
        let closest: BTreeSet<_> = net.nodes[..replicas].iter().map(|(peer, _)| *peer).collect();
        assert_eq!(net.holders(&verified(1)), closest);
        assert!(net.most_at_once <= 10);
    }
}

#[test]
fn the_next_node_takes_the_place_of_one_that_fails_refuses_or_is_silent() {
    let refuses = Node::Says(Answer::error(Code::Internal, "full"));
    let bad = [Node::Fails, Node::Silent, refuses, Node::Says(Answer::Absent)];
    let mut net = Net::new(bad.into_iter().chain(some(6, Node::Empty)));
    let result = net.put(1, 4);
    assert_eq!((result.end, result.holders.len(), result.asked), (PutEnd::Complete, 4, 8));
    assert_eq!(net.holders(&verified(1)).len(), 4);
    let refused: Vec<_> = result.refused.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(refused, ["internal error: full", "the answer is none to a put"]);
}

#[test]
fn a_put_says_how_many_of_how_many_it_found() {
    let mut net = Net::new(some(3, Node::Empty).into_iter().chain(some(3, Node::Silent)));
    let result = net.put(1, 5);
    assert_eq!((result.end.clone(), result.holders.len(), result.asked), (PutEnd::Partial, 3, 6));
    assert!(result.is_stored());
    for nodes in [Vec::new(), some(5, Node::Fails), some(40, Node::Silent)] {
        let result = Net::new(nodes).put(1, 5);
        assert!(result.end == PutEnd::Nowhere && !result.is_stored(), "{result:?}");
    }
    let none = |replicas| Put::new(start(), PutConfig { replicas, ..PutConfig::new(verified(1), NOW_MS) });
    assert!(none(0).is_err() && none(MAX_RECORD_PEERS + 1).is_err() && none(MAX_RECORD_PEERS).is_ok());
}

#[test]
fn a_put_of_an_older_record_ends_with_the_newer_one() {
    let mut net = Net::new(vec![Node::Empty, Node::Empty, Node::Holds(verified(7)), Node::Empty]);
    let result = net.put(3, 4);
    assert_eq!(result.end, PutEnd::Superseded(Box::new(verified(7))));
    assert!(!result.is_stored());
}

#[test]
fn a_peer_that_lies_about_a_newer_record_stops_no_put() {
    let older = Answer::Superseded { record: bytes(&verified(1)), timestamp_ms: u64::MAX };
    let mut forged = verified(9).bytes().to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    let forged = Answer::Superseded { record: RecordBytes::new(forged).expect("fits"), timestamp_ms: 0 };
    let lies = [Node::Says(older), Node::Says(forged)];
    let mut net = Net::new(lies.into_iter().chain(some(4, Node::Empty)));
    let told =
        net.run(Put::new(net.now, PutConfig { replicas: 3, ..PutConfig::new(verified(3), NOW_MS) }).expect("begins"));
    let faults: Vec<_> =
        told.iter().filter_map(|effect| if let Effect::Fault(fault) = effect { Some(fault) } else { None }).collect();
    assert_eq!(faults.len(), 1, "being mistaken is no fault");
    assert!(faults[0].peer == peer(1) && faults[0].why.is_proof());
    let Some(Effect::Result(result)) = told.last() else { panic!("{told:?}") };
    assert_eq!((&result.end, result.holders.len()), (&PutEnd::Complete, 3));
}

#[test]
fn a_get_finds_the_newest_and_gives_it_to_those_that_lack_it() {
    let mut nodes = some(30, Node::Empty);
    nodes[2] = Node::Holds(verified(5));
    nodes[4] = Node::Holds(verified(6));
    nodes[7] = Node::Holds(verified(5));
    nodes[25] = Node::Holds(verified(4));
    nodes[9] = Node::Silent;
    let mut net = Net::new(nodes);
    let result = net.get(16);
    assert_eq!(result.record, Some(verified(6)));
    assert_eq!((result.holders, result.stale, result.absent, result.asked), (1, 3, 25, 30));
    let why = |n: u16| result.corrected.iter().find(|(id, _)| *id == peer(n)).map(|(_, why)| *why);
    assert_eq!(why(2), Some(Correction::Stale));
    assert_eq!(why(25), Some(Correction::Stale), "however far");
    assert_eq!(why(0), Some(Correction::Missing));
    assert_eq!(
        (why(4), why(9), why(22)),
        (None, None, None),
        "it has it, it did not answer, it is not among the closest"
    );
    // The 20 closest without the silent one, and the stale one further off.
    assert_eq!(net.holders(&verified(6)).len(), 20);
}

#[test]
fn of_nodes_beyond_the_closest_the_one_closest_that_lacks_it_caches_it() {
    let mut nodes = some(3, Node::Holds(verified(2)));
    nodes.extend(some(5, Node::Empty));
    nodes.push(Node::Holds(verified(2)));
    let mut net = Net::new(nodes);
    let config = GetConfig { quorum: 4, replicas: 3, ..GetConfig::new(verified(1).key().to_vec(), NOW_MS) };
    let (result, _) = net.get_with(config);
    assert_eq!(result.corrected, [(peer(3), Correction::Cache)]);
    assert_eq!(net.holders(&verified(2)).len(), 5);
}

#[test]
fn a_get_ends_with_its_quorum_and_asks_few_for_a_small_one() {
    let mut net = Net::new(some(40, Node::Holds(verified(1))));
    let result = net.get(1);
    assert_eq!((result.holders, result.wanted), (1, 1));
    assert!(net.asked.len() <= 3, "{} were asked", net.asked.len());
    let mut net = Net::new(some(40, Node::Holds(verified(1))));
    let result = net.get(16);
    assert_eq!(result.holders, 16);
    assert!(net.asked.len() <= 18, "{} were asked", net.asked.len());
}

#[test]
fn those_of_the_closest_that_the_quorum_made_needless_are_given_it_after_the_result() {
    let nodes = || some(17, Node::Holds(verified(1))).into_iter().chain(some(13, Node::Empty));
    let config = || GetConfig::new(verified(1).key().to_vec(), NOW_MS);
    let mut net = Net::new(nodes());
    let (result, _) = net.get_with(config());
    assert_eq!((result.holders, result.corrected.len()), (16, 0), "the result does not wait for them");
    assert_eq!((net.holders(&verified(1)).len(), net.asked.len()), (20, 23), "20 were asked, 3 of them twice");
    let mut net = Net::new(nodes());
    net.get_with(GetConfig { quorum: 2, ..config() });
    assert_eq!(net.holders(&verified(1)).len(), 20, "for a small quorum too");

    // One of them has a newer one: it is told, and given to all.
    let mut net = Net::new(nodes());
    net.nodes[19].1 = Node::Holds(verified(2));
    let (result, told) = net.get_with(GetConfig { quorum: 16, ..config() });
    assert_eq!(result.record, Some(verified(1)));
    assert!(told.iter().any(|effect| *effect == Effect::Newer(Box::new(verified(2)))), "{told:?}");
    assert_eq!(net.holders(&verified(2)).len(), 20);
}

#[test]
fn a_get_of_what_nobody_has_ends_with_nothing_and_corrects_nobody() {
    for nodes in [Vec::new(), some(20, Node::Empty), some(20, Node::Fails), some(64, Node::Silent)] {
        let mut net = Net::new(nodes);
        let result = net.get(16);
        assert_eq!((result.record, result.corrected.len(), result.holders), (None, 0, 0));
    }
    let key = |key: &[u8]| Get::new(start(), GetConfig::new(key.to_vec(), NOW_MS));
    assert!(key(b"/unknown/namespace").is_err());
    let config = || GetConfig::new(verified(1).key().to_vec(), NOW_MS);
    assert!(Get::new(start(), GetConfig { quorum: 0, ..config() }).is_err());
    assert!(Get::new(start(), GetConfig { quorum: MAX_RECORD_PEERS + 1, ..config() }).is_err());
}

#[test]
fn what_is_not_valid_does_not_count_and_is_told_apart_and_replaced() {
    let other = Verified::from(&record(2, "name", 99, "another's"));
    let mut forged = verified(99).bytes().to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    let says = |bytes: &[u8]| Node::Says(Answer::Record(RecordBytes::new(bytes).expect("fits")));
    let mut net = Net::new(vec![says(&forged), says(other.bytes()), says(b"junk"), Node::Holds(verified(1))]);
    let (result, told) = net.get_with(GetConfig::new(verified(1).key().to_vec(), NOW_MS));
    assert_eq!(result.record, Some(verified(1)));
    assert_eq!((result.holders, result.invalid), (1, 3));
    let proofs: BTreeMap<_, _> = told
        .iter()
        .filter_map(
            |effect| if let Effect::Fault(Fault { peer, why }) = effect { Some((*peer, why.is_proof())) } else { None },
        )
        .collect();
    assert_eq!(proofs, BTreeMap::from([(peer(0), true), (peer(1), false), (peer(2), false)]));
    assert_eq!(result.corrected.len(), 3);
}

#[test]
fn what_this_node_holds_counts_and_heals_the_others() {
    let mut net = Net::new(some(5, Node::Holds(verified(3))));
    let config = || GetConfig::new(verified(1).key().to_vec(), NOW_MS);
    let (result, _) = net.get_with(GetConfig { local: Some(verified(4)), ..config() });
    assert_eq!((result.record, result.holders, result.stale), (Some(verified(4)), 0, 5));
    assert_eq!(net.holders(&verified(4)).len(), 5);
    // Without anybody else it is all there is; one that has expired is none.
    let (result, _) = Net::new(Vec::new()).get_with(GetConfig { local: Some(verified(4)), ..config() });
    assert_eq!(result.record, Some(verified(4)));
    let late = GetConfig { local: Some(verified(4)), unix_ms: verified(4).expires_ms(), ..config() };
    assert_eq!(Net::new(Vec::new()).get_with(late).0.record, None);
}

#[test]
fn a_better_record_is_told_at_once_and_the_last_one_is_the_result() {
    let mut net = Net::new([3, 1, 5, 4, 7].map(|sequence| Node::Holds(verified(sequence))));
    let (result, told) = net.get_with(GetConfig::new(verified(1).key().to_vec(), NOW_MS));
    let newer: Vec<_> = told
        .iter()
        .filter_map(|effect| if let Effect::Newer(record) = effect { Some(record.order().sequence) } else { None })
        .collect();
    assert_eq!(newer, [3, 5, 7]);
    assert_eq!(result.record, Some(verified(7)));
}

#[test]
fn a_late_or_unasked_answer_is_not_taken() {
    let now = start();
    let mut get = Get::new(now, GetConfig::new(verified(1).key().to_vec(), NOW_MS)).expect("begins");
    let answer = |n: u16| Input::Answered { peer: peer(n), answer: Answer::Record(bytes(&verified(9))) };
    get.handle(now, answer(0));
    get.handle(now, Input::Closest(vec![peer(1), peer(2)]));
    get.handle(now, Input::Closest(vec![peer(3)]));
    get.handle(now, answer(3));
    let mut sent = Vec::new();
    while let Some(effect) = get.poll_effect() {
        match effect {
            Effect::Send { peer, .. } => sent.push(peer),
            Effect::FindClosest(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, [peer(1), peer(2)]);
    let late = now + Duration::from_secs(CALL_TIMEOUT_SECS);
    assert_eq!(get.poll_timeout(), Some(late));
    get.handle_timeout(late - Duration::from_millis(1));
    assert_eq!(get.poll_effect(), None);
    get.handle_timeout(late);
    assert!(matches!(get.poll_effect(), Some(Effect::Result(GetResult { record: None, asked: 2, .. }))));
    assert_eq!(get.poll_effect(), Some(Effect::Done));
    get.handle(late, answer(1));
    assert_eq!((get.poll_effect(), get.poll_timeout()), (None, None));
}

#[test]
fn without_an_answer_to_where_the_closest_are_both_end_at_their_deadline() {
    let now = start();
    let deadline = now + Duration::from_secs(RECORD_CALL_SECS);
    let mut get = Get::new(now, GetConfig::new(verified(1).key().to_vec(), NOW_MS)).expect("begins");
    let mut put = Put::new(now, PutConfig::new(verified(1), NOW_MS)).expect("begins");
    assert_eq!((get.poll_timeout(), put.poll_timeout()), (Some(deadline), Some(deadline)));
    get.handle_timeout(deadline);
    put.handle_timeout(deadline);
    let ends = |mut last: Vec<bool>| last.pop();
    assert_eq!(
        ends(std::iter::from_fn(|| get.poll_effect()).map(|effect| effect == Effect::Done).collect()),
        Some(true)
    );
    assert_eq!(
        ends(std::iter::from_fn(|| put.poll_effect()).map(|effect| effect == Effect::Done).collect()),
        Some(true)
    );
}

/// Tells a machine what comes, whoever it is from; gives what it wanted and whether it ended.
fn tell<T, M: Machine<Input = Input, Effect = Effect<T>>>(mut machine: M, steps: &[(u8, u16, u64)]) -> usize {
    let begun = start();
    let deadline = begun + Duration::from_secs(RECORD_CALL_SECS);
    let (mut now, mut running, mut sent, mut results, mut done) = (begun, BTreeSet::new(), 0, 0, false);
    let record = |n: u64| Answer::Record(bytes(&verified(n % 8)));
    let mut inputs = steps.iter().map(Some).chain([None]);
    loop {
        while let Some(effect) = machine.poll_effect() {
            assert!(!done, "it is over");
            match effect {
                Effect::Send { peer, .. } => {
                    assert!(running.insert(peer), "{peer} is being asked");
                    sent += 1;
                }
                Effect::Result(_) => results += 1,
                Effect::Done => done = true,
                Effect::FindClosest(_) | Effect::Newer(_) | Effect::Fault(_) => {}
            }
        }
        assert!(done || machine.poll_timeout().is_some_and(|at| at <= deadline), "it ends by itself");
        let Some(step) = inputs.next() else { break };
        let Some((kind, n, value)) = step else {
            machine.handle_timeout(deadline);
            continue;
        };
        let peer = peer(*n);
        let answers =
            [record(*value), Answer::Absent, Answer::Stored { news: true }, Answer::error(Code::Internal, "")];
        match kind {
            0 => machine.handle(now, Input::Closest((0..*n).map(crate::testing::peer).collect())),
            1 => machine.handle(now, Input::Failed(peer)),
            2 => {
                now = (now + Duration::from_millis(*value)).min(deadline);
                machine.handle_timeout(now);
                // Whose time is over may be asked again, as one that is corrected.
                running.clear();
            }
            3 => {
                let answer = Answer::Superseded { record: bytes(&verified(*value % 8)), timestamp_ms: *value };
                machine.handle(now, Input::Answered { peer, answer });
            }
            kind => {
                let answer = answers[usize::from(*kind) % answers.len()].clone();
                machine.handle(now, Input::Answered { peer, answer });
            }
        }
        if *kind != 0 {
            running.remove(&peer);
        }
    }
    assert!(done && results == 1, "one result, and an end");
    sent
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_both_end_once_with_one_result_and_ask_nobody_twice(
        steps in prop::collection::vec((0u8..9, 0u16..24, 0u64..20_000), 0..80),
        wanted in 1usize..24,
    ) {
        let put = PutConfig { replicas: wanted, ..PutConfig::new(verified(3), NOW_MS) };
        prop_assert!(tell(Put::new(start(), put).expect("begins"), &steps) <= 24);
        let get = GetConfig { quorum: wanted, ..GetConfig::new(verified(3).key().to_vec(), NOW_MS) };
        // Asked once, and perhaps corrected.
        prop_assert!(tell(Get::new(start(), get).expect("begins"), &steps) <= 48);
    }
}
