//! What a newcomer waits for, and what an idle group costs.

use std::{rc::Rc, time::Duration};

use dagmesh_sim::{
    Scenario,
    chronosync::{Member, Model, World},
    prepare,
};
use dagmesh_simnet::{Latency, Link, Simulation};

/// A group that publishes nothing until long after it is looked at.
fn idle(nodes: usize, leaves: usize, latency: Latency, guests: usize) -> Simulation<Member> {
    let world = Rc::new(World::new(nodes, guests, leaves).expect("keys"));
    let (start, link) = (Duration::from_secs(3600), Link::new(latency));
    let scenario = Scenario { publications: 1, start, link, ..Scenario::new(5, nodes) };
    prepare(&scenario, world).expect("within bounds")
}

#[test]
fn a_newcomer_to_a_thousand_leaves_is_whole_after_two_round_trips_and_told_that_it_is_recovery() {
    let half_trip = Duration::from_millis(50);
    let mut network = idle(20, 1000, Latency::Fixed(half_trip), 1);
    network.run_to(Duration::from_secs(60)).expect("no invariant");
    let whole = network.hosts().next().expect("a member").1.root();
    let requests = network.counters().kind("recover").sent;
    let newcomer = network.add();
    let found = |network: &Simulation<Member>| network.neighbours(newcomer).next().is_some();
    assert_eq!(network.run_until(Duration::from_secs(70), found), Ok(true));
    let met = network.elapsed();
    let knows = |network: &Simulation<Member>| network.host(newcomer).is_some_and(|host| host.root() == whole);
    assert_eq!(network.run_until(Duration::from_secs(70), knows), Ok(true));
    let took = network.elapsed() - met;
    assert!(took <= 4 * half_trip, "{took:?} is more than two round trips");
    assert_eq!(network.counters().kind("recover").sent - requests, 1, "one page from one member");
    let host = network.host(newcomer).expect("it runs");
    assert_eq!(host.recovered(), 1000, "all of it is told as recovery");
    assert!(host.group().is_initialized());
    network.run_for(Duration::from_secs(1)).expect("no invariant");
    assert_eq!(network.delays().count(), 1000, "and is told to the application once");
}

/// Bytes a minute that a member of an idle group of 100 sends.
fn idle_bytes(leaves: usize) -> f64 {
    let mut network = idle(100, leaves, Link::default().latency, 0);
    // By then the heartbeat is at its slowest.
    network.run_to(Duration::from_secs(120)).expect("no invariant");
    let before = network.counters().total().bytes;
    network.run_for(Duration::from_secs(600)).expect("no invariant");
    (network.counters().total().bytes - before) as f64 / 100.0 / 10.0
}

#[test]
fn an_idle_group_says_little_and_no_more_with_a_hundred_times_the_leaves() {
    let (few, many) = (idle_bytes(10), idle_bytes(1000));
    println!("an idle group of 100: {few:.0} bytes a minute a member with 10 leaves, {many:.0} with 1,000");
    assert!((0.9..1.1).contains(&(many / few)), "{few} with 10 leaves, {many} with 1,000");
    assert!((100.0..5000.0).contains(&few), "{few} bytes a minute");
}
