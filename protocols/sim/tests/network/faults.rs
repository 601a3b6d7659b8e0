//! Loss, copies, order, cuts, crashes, disks.

use std::time::Duration;

use dagmesh_simnet::{Churn, Config, DiskModel, Latency, Link, NodeId, Simulation, Way};

use crate::toy::*;

const MESSAGES: u32 = 10_000;

/// The second node's messages from the first, over a link like this.
fn sent(change: impl FnOnce(&mut Link)) -> (Vec<u32>, Simulation<Toy>) {
    let mut config = config(1);
    config.link = Link::new(Latency::Fixed(Duration::from_millis(50)));
    change(&mut config.link);
    let mut network = quiet(config, 2);
    network.tell(FIRST, Input::Send(SECOND, MESSAGES));
    network.run_to(secs(100)).expect("no invariant");
    let got = network.host(SECOND).expect("it runs").0.pongs.clone();
    (got, network)
}

fn is_about(got: u64, want: f64) {
    assert!((got as f64 / want - 1.0).abs() < 0.06, "{got} is not about {want}");
}

#[test]
fn a_link_loses_as_many_as_it_should() {
    let (got, network) = sent(|link| link.loss = 0.2);
    is_about(network.counters().kind("ping").lost, 2000.0);
    assert_eq!(got.len() as u64 + network.counters().kind("ping").lost, 10_000);
    assert!(got.is_sorted(), "a link of one latency keeps the order");
    assert!(sent(|link| link.loss = 1.0).0.is_empty() && sent(|link| link.loss = -1.0).0.len() == 10_000);
}

#[test]
fn a_link_doubles_and_reorders_as_many_as_it_should() {
    let (got, network) = sent(|link| link.duplicate = 0.1);
    is_about(network.counters().kind("ping").doubled, 1000.0);
    assert_eq!(got.len() as u64, 10_000 + network.counters().kind("ping").doubled);
    let (got, _) = sent(|link| (link.reorder, link.hold) = (0.1, secs(3)));
    let behind = got.iter().scan(0, |max, n| {
        *max = (*max).max(*n);
        Some(n < max)
    });
    is_about(behind.filter(|late| *late).count() as u64, 1000.0);
    let (got, _) = sent(|link| link.latency = Latency::Uniform(Duration::ZERO, secs(1)));
    assert!(!got.is_sorted() && got.len() == 10_000);
}

#[test]
fn a_link_may_be_one_of_its_own_in_one_direction() {
    let mut network = quiet(config(2), 3);
    network.set_link(FIRST, SECOND, Link::new(Latency::Fixed(secs(9))));
    for (from, to) in [(FIRST, SECOND), (SECOND, FIRST), (FIRST, NodeId(2))] {
        network.tell(from, Input::Send(to, 1));
    }
    let got = |network: &Simulation<Toy>| network.hosts().map(|(_, toy)| toy.0.pongs.len()).collect::<Vec<_>>();
    network.run_to(secs(8)).expect("no invariant");
    assert_eq!(got(&network), [1, 0, 1]);
    network.run_to(secs(9)).expect("no invariant");
    assert_eq!(got(&network), [1, 1, 1]);
}

#[test]
fn a_request_is_answered_or_fails_once() {
    let mut config = config(3);
    config.link.loss = 0.3;
    config.link.duplicate = 0.5;
    let mut network = quiet(config, 3);
    network.crash(NodeId(2));
    for _ in 0..1000 {
        network.tell(FIRST, Input::Ask(SECOND));
    }
    network.run_to(secs(10)).expect("no invariant");
    let failures = network.host(FIRST).expect("it runs").0.failures;
    is_about(u64::from(failures), 1000.0 * (1.0 - 0.7 * 0.7));
    assert_eq!(u64::from(failures) + network.counters().way(Way::Answer).delivered, 1000);
    assert_eq!(network.counters().way(Way::Request).doubled, 0, "streams do not double");

    // Who does not run says so at once; who is cut off says nothing.
    network.set_links(Link::new(Latency::Fixed(Duration::from_millis(50))));
    network.tell(FIRST, Input::Ask(NodeId(2)));
    network.run_for(Duration::from_millis(100)).expect("no invariant");
    assert_eq!(network.host(FIRST).expect("it runs").0.failures, failures + 1);
    network.cut(&[&[FIRST]]);
    network.tell(FIRST, Input::Ask(SECOND));
    network.run_for(TIMEOUT - Duration::from_millis(1)).expect("no invariant");
    assert_eq!(network.host(FIRST).expect("it runs").0.failures, failures + 1);
    network.run_for(Duration::from_millis(1)).expect("no invariant");
    assert_eq!(network.host(FIRST).expect("it runs").0.failures, failures + 2);
}

#[test]
fn a_cut_network_agrees_on_each_side_and_after_it_heals_as_a_whole() {
    let mut network = network(config(4), 40);
    let side = |node: NodeId| node.0 < 15;
    network.cut_during(secs(20)..secs(60), vec![(0..15).map(NodeId).collect()]);
    for n in 0..40 {
        network.at(secs(25), move |network| {
            network.tell(NodeId(n), Input::Count);
        });
    }
    network.run_to(secs(59)).expect("no invariant");
    for ((node, _), spread) in network.events().map(|(event, spread)| (*event, spread.clone())) {
        for (other, _) in network.hosts() {
            assert_eq!(spread.reached(other), side(NodeId(node)) == side(other), "{other} of n{node}");
        }
    }
    assert!(network.counters().total().cut > 0);
    assert_eq!(network.run_until(secs(80), all_know), Ok(true));
    assert!(network.elapsed() > secs(60));
    assert_eq!((network.counters().told_twice, network.counters().strays), (0, 0));
    assert!(network.delays().max() > secs(35));
}

#[test]
fn a_cut_takes_what_is_under_way() {
    let mut network = quiet(config(8), 2);
    network.set_links(Link::new(Latency::Fixed(secs(2))));
    network.tell(FIRST, Input::Send(SECOND, 3));
    network.run_to(secs(1)).expect("no invariant");
    let cut = network.cut(&[&[FIRST]]);
    network.run_to(secs(10)).expect("no invariant");
    network.heal(cut);
    network.run_to(secs(20)).expect("no invariant");
    assert_eq!(network.host(SECOND).expect("it runs").0.pongs, [0_u32; 0]);
    assert_eq!(network.counters().kind("ping").cut, 3);
    network.tell(FIRST, Input::Send(SECOND, 1));
    network.run_to(secs(22)).expect("no invariant");
    assert_eq!(network.host(SECOND).expect("it runs").0.pongs, [0]);
}

#[test]
fn a_crash_keeps_the_disk_and_a_wipe_does_not() {
    let mut network = quiet(config(5), 5);
    let own = |network: &Simulation<Toy>| network.host(FIRST).expect("it runs").0.known.get(&0).copied();
    for n in 1..=3 {
        network.tell(FIRST, Input::Count);
        network.run_to(secs(n)).expect("no invariant");
    }
    network.crash(FIRST);
    assert!(network.host(FIRST).is_none() && !network.tell(FIRST, Input::Count));
    network.run_to(secs(10)).expect("no invariant");
    network.start(FIRST);
    assert_eq!(own(&network), Some(3), "it goes on from its disk");
    network.run_to(secs(11)).expect("no invariant");
    assert!(network.neighbours(FIRST).count() > 0, "it found neighbours again");
    network.tell(FIRST, Input::Count);
    network.run_to(secs(20)).expect("no invariant");
    assert_eq!(network.spread(&(0, 4)).map(dagmesh_simnet::Spread::count), Some(5), "and is heard");
    network.crash(FIRST);
    network.wipe(FIRST);
    network.start(FIRST);
    assert_eq!(own(&network), None, "it knows nothing");
    assert_eq!(network.counters().crashes, 2);
}

#[test]
fn what_was_not_synced_may_be_lost_in_a_crash_and_never_by_a_stop() {
    let mut lost = 0;
    for seed in 0..40 {
        for crash in [false, true] {
            let mut network = careless(config(seed), 2);
            network.tell(FIRST, Input::Count);
            network.run_to(secs(1)).expect("no invariant");
            assert!(network.spread(&(0, 1)).is_some(), "it was told that it is written");
            if crash {
                network.crash(FIRST)
            } else {
                network.stop(FIRST)
            }
            let kept = network.disk(FIRST).expect("a node").get(b"own").is_some();
            assert!(kept || crash);
            lost += u32::from(!kept);
        }
    }
    assert!((5..35).contains(&lost), "{lost} of 40");
}

#[test]
fn a_disk_that_fails_tells_the_machine_and_holds_nothing_of_it() {
    let mut network = quiet(config(6), 2);
    let sound = DiskModel::default();
    network.set_disk(FIRST, DiskModel { failure: 1.0, ..sound });
    network.tell(FIRST, Input::Count);
    network.run_to(secs(1)).expect("no invariant");
    let counts = &network.host(FIRST).expect("it runs").0;
    assert_eq!((counts.disk_errors, counts.pending), (1, None));
    assert_eq!((network.counters().write_errors, network.events().count()), (1, 0));
    network.set_disk(FIRST, sound);
    network.tell(FIRST, Input::Count);
    network.run_to(secs(2)).expect("no invariant");
    assert_eq!(network.spread(&(0, 1)).map(dagmesh_simnet::Spread::count), Some(2));
    assert_eq!(network.disk(FIRST).expect("a node").iter().count(), 1);
}

#[test]
fn nodes_that_come_and_go_keep_their_neighbours_and_learn_all() {
    let mut network = network(config(7), 100);
    network.churn(&Churn {
        during: secs(0)..secs(60),
        nodes: 0..100,
        every: secs(1),
        away: secs(10),
        crash: 0.5,
        wipe: 0.2,
    });
    for n in 0..60 {
        network.at(secs(n), move |network| {
            network.tell(NodeId(n as u32), Input::Count);
        });
    }
    network.at(secs(50), |network| {
        for _ in 0..20 {
            network.add();
        }
    });
    network.run_to(secs(60)).expect("no invariant");
    assert!(network.counters().crashes > 10 && network.hosts().count() < 120);
    network.run_to(secs(200)).expect("no invariant");
    assert_eq!(network.hosts().count(), 120, "all came back");
    for node in (0..120).map(NodeId) {
        let neighbours = network.neighbours(node).count();
        assert!((4..=12).contains(&neighbours), "{node} has {neighbours}");
    }
    let known = known(&network);
    assert!(known[0].len() > 40 && known.iter().all(|other| *other == known[0]));
}

#[test]
fn halves_that_forgot_each_other_in_a_cut_find_each_other_when_it_heals() {
    for seed in 0..20 {
        let mut network = quiet(Config { degree: 2, ..config(seed) }, 8);
        network.cut_during(secs(5)..secs(60), vec![(0..4).map(NodeId).collect()]);
        // Every node that is started again has neighbours of its own half alone.
        for n in 0..8 {
            network.at(secs(10 + 5 * n), move |network| network.stop(NodeId(n as u32)));
            network.at(secs(12 + 5 * n), move |network| network.start(NodeId(n as u32)));
        }
        network.run_to(secs(70)).expect("no invariant");
        network.tell(FIRST, Input::Count);
        network.run_to(secs(80)).expect("no invariant");
        assert_eq!(network.spread(&(0, 1)).map(dagmesh_simnet::Spread::count), Some(8), "seed {seed}");
    }
}
