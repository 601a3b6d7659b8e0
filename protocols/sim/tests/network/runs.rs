//! Seeds, invariants and limits of a run.

use std::{cell::RefCell, rc::Rc, time::Duration};

use dagmesh_core::limits::{
    MAX_SIM_CALLS, MAX_SIM_EFFECTS, MAX_SIM_EVENTS, MAX_SIM_NODES, MAX_SIM_PACKET_BYTES, MAX_SIM_PARTITIONS,
    SIM_TRACE_LINES,
};
use dagmesh_simnet::{Churn, Delivery, Host, Latency, Link, NodeId, Outbox, Packet, Simulation, TraceHash, plot};

use crate::toy::*;

/// A run with everything in it.
fn wild(seed: u64) -> Simulation<Toy> {
    let mut config = config(seed);
    config.link.loss = 0.1;
    config.link.duplicate = 0.05;
    config.link.reorder = 0.1;
    config.disk.failure = 0.1;
    let mut network = network(config, 30);
    network.churn(&Churn {
        during: secs(0)..secs(60),
        nodes: 5..30,
        every: secs(3),
        away: secs(8),
        crash: 0.7,
        wipe: 0.3,
    });
    network.cut_during(secs(20)..secs(40), vec![(0..10).map(NodeId).collect()]);
    for n in 0..100 {
        network.at(Duration::from_millis(n * 600), move |network| {
            network.tell(NodeId(n as u32 % 30), Input::Count);
        });
    }
    network
}

fn hash_of(seed: u64) -> TraceHash {
    let mut network = wild(seed);
    network.run_to(secs(90)).expect("no invariant");
    assert!(network.counters().crashes > 5 && network.counters().write_errors > 0, "it was wild");
    network.trace_hash()
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let hash = hash_of(1);
    assert_eq!(hash_of(1), hash);
    assert_ne!(hash_of(2), hash);
    assert_eq!(hash.to_string().len(), 64);
}

#[test]
fn the_trace_tells_runs_apart_by_content_place_and_time() {
    let hash = |to: NodeId, text: &'static str, latency_ms: u64| {
        let mut config = config(1);
        config.link = Link::new(Latency::Fixed(Duration::from_millis(latency_ms)));
        let action = move |_: u32, out: &mut Outbox<u32>| out.send(to, Packet::new("text", text));
        let mut network = Simulation::new(config, 3, move |_| Loud { machine: Echo::default(), round: 0, action });
        network.run_to(secs(1)).expect("no invariant");
        network.tell(FIRST, ());
        network.run_to(secs(2)).expect("no invariant");
        assert_eq!(network.counters().kind("text").delivered, 1);
        network.trace_hash()
    };
    let first = hash(SECOND, "abc", 50);
    assert_eq!(hash(SECOND, "abc", 50), first);
    for (other, what) in [
        (hash(SECOND, "abd", 50), "another text"),
        (hash(NodeId(2), "abc", 50), "another receiver"),
        (hash(SECOND, "abc", 51), "another time"),
    ] {
        assert_ne!(other, first, "{what}");
    }
}

#[test]
fn how_often_a_run_is_halted_does_not_change_it() {
    let mut whole = wild(3);
    whole.run_to(secs(30)).expect("no invariant");
    let mut parts = wild(3);
    for _ in 0..300 {
        parts.run_for(Duration::from_millis(100)).expect("no invariant");
    }
    assert_eq!((parts.trace_hash(), parts.elapsed()), (whole.trace_hash(), whole.elapsed()));
}

#[test]
fn every_message_is_accounted_for_once_all_is_quiet() {
    let mut config = config(4);
    config.link.loss = 0.2;
    config.link.duplicate = 0.1;
    let mut network = quiet(config, 50);
    for n in 0..20 {
        network.at(secs(n), move |network| {
            network.tell(NodeId(n as u32), Input::Count);
            network.tell(NodeId(n as u32), Input::Send(NodeId(49), 50));
            network.tell(NodeId(n as u32), Input::Ask(NodeId(48)));
        });
    }
    network.cut_during(secs(5)..secs(10), vec![(0..25).map(NodeId).collect()]);
    network.at(secs(12), |network| network.crash(NodeId(49)));
    network.run_to(secs(60)).expect("no invariant");
    let total = network.counters().total();
    assert_eq!(total.settled(), total.sent + total.doubled);
    for (count, name) in [(total.lost, "lost"), (total.cut, "cut"), (total.away, "away"), (total.doubled, "doubled")] {
        assert!(count > 10, "{count} {name}");
    }
    let kinds: Vec<_> = network.counters().kinds().map(|(_, kind, _)| kind).collect();
    assert_eq!(kinds, ["ping", "count", "ask", "all"]);
}

#[test]
fn a_broken_invariant_tells_the_seed_the_time_and_the_last_events() {
    let mut network = network(config(77), 10);
    network.always("nobody counts to three", 1, |network| {
        let three = |(node, toy): (NodeId, &Toy)| toy.0.known.values().any(|n| *n > 2).then_some(node);
        network.hosts().find_map(three).map_or(Ok(()), |node| Err(format!("{node} did")))
    });
    for n in 1..=5 {
        network.at(secs(n * 10), |network| {
            network.tell(SECOND, Input::Count);
        });
    }
    let broken = network.run_to(secs(100)).expect_err("it counts to five");
    assert_eq!((broken.seed, broken.why.as_str()), (77, "n1 did"));
    assert!(broken.at > secs(30) && broken.at < secs(31), "at once: {broken}");
    let text = broken.to_string();
    assert!(text.starts_with("seed 77: `nobody counts to three` does not hold at 30.0"), "{text}");
    assert!(text.ends_with("n1       written #3"), "{text}");
    assert_eq!(broken.last.len(), SIM_TRACE_LINES);
    let (step, hash) = (network.steps(), network.trace_hash());
    assert_eq!(network.run_to(secs(200)), Err(broken.clone()), "the run has ended");
    assert_eq!(network.finish(), Err(broken));
    assert_eq!((network.steps(), network.trace_hash()), (step, hash));
}

#[test]
fn invariants_are_checked_as_often_as_wanted_and_in_the_end() {
    let mut network = network(config(5), 5);
    let counts = Rc::new(RefCell::new([0_u64; 3]));
    for (n, every) in [(0, 1), (1, 10)] {
        let counts = counts.clone();
        network.always("counts", every, move |_| {
            counts.borrow_mut()[n] += 1;
            Ok(())
        });
    }
    let last = counts.clone();
    network.finally("all is well", move |_| {
        last.borrow_mut()[2] += 1;
        Err("it is not".to_owned())
    });
    network.run_to(secs(60)).expect("nothing is broken yet");
    let steps = network.steps();
    assert!(steps > 100);
    assert_eq!(*counts.borrow(), [steps, steps / 10, 0]);
    let broken = network.finish().expect_err("it says so");
    assert_eq!((broken.invariant.as_str(), broken.why.as_str()), ("all is well", "it is not"));
    assert_eq!(*counts.borrow(), [steps + 1, steps / 10 + 1, 1]);
}

#[test]
fn a_run_can_wait_for_what_it_wants() {
    let mut network = network(config(6), 20);
    network.at(secs(3), |network| {
        network.tell(FIRST, Input::Count);
    });
    let spread = |network: &Simulation<Toy>| network.events().any(|(_, spread)| spread.count() == 20);
    assert_eq!(network.run_until(secs(60), spread), Ok(true));
    assert!(network.elapsed() > secs(3) && network.elapsed() < secs(5), "{network:?}");
    let [p50, p90, p99, max] = network.delays().summary();
    assert!(Duration::from_millis(20) <= p50 && p50 <= p90 && p90 <= p99 && p99 <= max && max < secs(2));
    assert_eq!(network.run_until(secs(7), |_| false), Ok(false));
    assert_eq!(network.elapsed(), secs(7));
}

#[test]
fn limits_end_a_run_and_say_so() {
    let end = |mut network: Simulation<Toy>| network.run_to(secs(1)).expect_err("a limit").why;
    assert!(end(quiet(config(1), MAX_SIM_NODES + 1)).contains("16385 nodes"));
    let mut network = quiet(config(1), 2);
    for _ in 0..MAX_SIM_PARTITIONS {
        network.cut(&[&[FIRST]]);
    }
    network.run_to(secs(1)).expect("as many as there may be");
    network.cut(&[&[FIRST]]);
    assert!(end(network).contains("more than 64 cuts"));
    for (count, rests) in [(MAX_SIM_EFFECTS as u32, true), (MAX_SIM_EFFECTS as u32 + 1, false)] {
        let mut network = quiet(config(1), 1);
        network.tell(FIRST, Input::Send(FIRST, count));
        let broken = network.run_to(secs(1)).err().map(|broken| broken.invariant);
        assert_eq!(broken, (!rests).then(|| "comes to rest".to_owned()));
    }
}

#[test]
fn messages_and_events_have_their_limits() {
    let end = |rounds: u32, action: fn(u32, &mut Outbox<u32>)| {
        let mut network = Simulation::new(config(1), 1, move |_| Loud { machine: Echo::default(), round: 0, action });
        for _ in 0..rounds {
            network.tell(FIRST, ());
        }
        network.run_to(secs(1)).map_err(|broken| broken.why)
    };
    assert_eq!(end(1, |_, out| out.send(FIRST, Packet::new("big", vec![0; MAX_SIM_PACKET_BYTES]))), Ok(()));
    let larger = end(1, |_, out| out.send(FIRST, Packet::new("big", vec![0; MAX_SIM_PACKET_BYTES + 1])));
    assert_eq!(larger, Err("n0 sends big of 4194305 bytes".to_owned()));

    // A thousand at a time.
    let publish = |round: u32, out: &mut Outbox<u32>| (0..1024).for_each(|n| out.published(round * 1024 + n));
    assert_eq!(end(MAX_SIM_EVENTS as u32 / 1024, publish), Ok(()));
    assert!(end(MAX_SIM_EVENTS as u32 / 1024 + 1, publish).is_err());
}

#[test]
fn one_question_too_many_fails_at_once() {
    let ask = |_: u32, out: &mut Outbox<u32>| {
        (0..1024).for_each(|n: u64| out.request(SECOND, n, Packet::new("ask", Vec::new()), secs(60)));
    };
    let make = move |_: dagmesh_simnet::Boot<'_>| Loud { machine: Echo::default(), round: 0, action: ask };
    let mut network = Simulation::new(config(1), 2, make);
    for _ in 0..MAX_SIM_CALLS / 1024 {
        network.tell(FIRST, ());
    }
    assert_eq!(network.counters().total().sent, MAX_SIM_CALLS as u64);
    network.tell(FIRST, ());
    assert_eq!(network.counters().total().sent, MAX_SIM_CALLS as u64, "they are not sent");
}

#[test]
fn a_run_is_written_as_a_table_and_drawn() {
    let mut network = network(config(8), 50);
    network.tell(FIRST, Input::Count);
    let mut table = plot::Table::new(["time_s", "nodes that know", "messages"]);
    for _ in 0..20 {
        network.run_for(Duration::from_millis(50)).expect("no invariant");
        let count = network.events().map(|(_, spread)| spread.count()).sum::<usize>();
        let sent = network.counters().kind("count").sent;
        table.row([network.elapsed().as_secs_f64(), count as f64, sent as f64]);
    }
    let csv = table.to_csv();
    assert!(csv.starts_with("time_s,nodes that know,messages\r\n0.05,"), "{csv}");
    assert!(csv.ends_with(&format!("\r\n1,50,{}\r\n", network.counters().kind("count").sent)), "{csv}");
    assert!(plot::svg("Spread", "seconds", "nodes", &table.curves()).contains(">nodes that know</text>"));
}

/// A host that does this at each input.
struct Loud<F> {
    machine: Echo,
    round: u32,
    action: F,
}

impl<F: FnMut(u32, &mut Outbox<u32>)> Host for Loud<F> {
    type Machine = Echo;
    type Event = u32;

    fn machine(&self) -> &Echo {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Echo {
        &mut self.machine
    }

    fn carry_out(&mut self, (): (), out: &mut Outbox<u32>) {
        (self.action)(self.round, out);
        self.round += 1;
    }

    fn arrive(&mut self, _: Delivery, _: &mut Outbox<u32>) -> Option<()> {
        None
    }
}
