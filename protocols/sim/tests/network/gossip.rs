//! Publications on the overlay.

use std::time::Duration;

use dagmesh_simnet::{Config, Delivery, Host, Latency, Link, NodeId, Outbox, Packet, Simulation, Topic, Verdict, Way};

use crate::toy::*;

/// Links that all take the same time, so that a publication takes the shortest way.
fn even(seed: u64, degree: usize) -> Config {
    Config { degree, link: Link::new(Latency::Fixed(Duration::from_millis(50))), ..config(seed) }
}

fn links(network: &Simulation<Toy>) -> u64 {
    (0..network.nodes() as u32).map(|node| network.neighbours(NodeId(node)).count() as u64).sum::<u64>() / 2
}

#[test]
fn a_publication_reaches_a_thousand_nodes_in_about_the_logarithm_of_hops() {
    for (seed, degree) in [(1, 6), (2, 8), (3, 12)] {
        let mut network = quiet(even(seed, degree), 1000);
        network.tell(FIRST, Input::Count);
        network.run_to(secs(10)).expect("no invariant");
        assert!(all_know(&network));
        let tally = network.counters().way(Way::Gossip);
        assert_eq!((tally.delivered, network.delays().count()), (999, 999));
        let bound = (1000_f64.ln() / (degree as f64).ln()).ceil() as u32 + 1;
        let soon: u64 = network.counters().hops.range(..=bound).map(|(_, count)| count).sum();
        assert!(soon >= 990, "degree {degree}: {soon} within {bound} hops of {:?}", network.counters().hops);
    }
}

#[test]
fn duplicates_are_as_many_as_there_are_links_to_spare() {
    for (seed, degree) in [(1, 2), (2, 6), (3, 9)] {
        let mut network = quiet(Config { degree, ..config(seed) }, 300);
        network.run_to(secs(1)).expect("no invariant");
        let links = links(&network);
        let wanted = 300 * degree as u64 / 2;
        assert!(links <= wanted && links * 100 >= wanted * 98, "{links} links of degree {degree}");
        for _ in 0..10 {
            network.tell(FIRST, Input::Count);
        }
        network.run_to(secs(30)).expect("no invariant");
        // A node sends to all its neighbours but the one it heard of it from, and never back to its origin. So each
        // link but those of the tree of first hearings carries the message both ways, the origin's own only once.
        let tally = network.counters().way(Way::Gossip);
        let own = network.neighbours(FIRST).count() as u64;
        let most = 2 * links - 299;
        assert_eq!(tally.delivered, 10 * 299);
        assert!(tally.sent <= 10 * most && tally.sent >= 10 * (most - own), "{} of {most}", tally.sent);
        assert_eq!(tally.duplicates, tally.sent - tally.delivered);
    }
}

#[test]
fn the_spare_links_make_up_for_loss() {
    let mut config = config(4);
    config.link.loss = 0.2;
    config.degree = 8;
    let mut network = quiet(config, 200);
    for n in 0..50 {
        network.at(secs(n), move |network| {
            network.tell(NodeId(n as u32), Input::Count);
        });
    }
    network.run_to(secs(70)).expect("no invariant");
    let reached = network.delays().count();
    assert!(reached >= 50 * 199 * 999 / 1000, "{reached} of {}", 50 * 199);
}

#[test]
fn the_same_message_is_refused_for_the_time_of_the_cache() {
    let mut network: Simulation<Same> = Simulation::new(even(5, 2), 3, |_| Same::default());
    for at in [1, 60, 122] {
        network.at(secs(at), |network| {
            network.tell(FIRST, ());
        });
    }
    network.run_to(secs(200)).expect("no invariant");
    let heard: Vec<_> = network.hosts().map(|(_, same)| (same.heard, same.refused)).collect();
    assert_eq!(heard, [(0, 1), (2, 0), (2, 0)]);
    assert_eq!(network.counters().not_published, 1);
}

#[test]
fn what_a_node_ignores_it_does_not_pass_on() {
    let mut network: Simulation<Same> = Simulation::new(even(6, 2), 50, |_| Same { ignores: true, ..Same::default() });
    network.at(secs(1), |network| {
        network.tell(FIRST, ());
    });
    network.run_to(secs(10)).expect("no invariant");
    let tally = network.counters().way(Way::Gossip);
    assert_eq!((tally.sent, tally.ignored, tally.delivered), (2, 2, 0), "to the two neighbours");
}

#[test]
fn who_is_alone_is_told_that_nothing_was_published() {
    let mut network: Simulation<Same> = Simulation::new(even(7, 6), 1, |_| Same::default());
    network.tell(FIRST, ());
    network.run_to(secs(1)).expect("no invariant");
    assert_eq!(network.host(FIRST).map(|same| (same.heard, same.refused)), Some((0, 1)));
}

/// A machine that publishes the same again and again.
#[derive(Debug, Default)]
struct Same {
    machine: Echo,
    heard: u32,
    refused: u32,
    ignores: bool,
}

impl Host for Same {
    type Machine = Echo;
    type Event = ();

    fn machine(&self) -> &Echo {
        &self.machine
    }

    fn machine_mut(&mut self) -> &mut Echo {
        &mut self.machine
    }

    fn carry_out(&mut self, (): (), out: &mut Outbox<()>) {
        out.publish(Topic(0), Packet::new("same", &b"same"[..]));
    }

    fn arrive(&mut self, delivery: Delivery, _: &mut Outbox<()>) -> Option<()> {
        self.heard += u32::from(matches!(delivery, Delivery::Gossip { .. }));
        self.refused += u32::from(matches!(delivery, Delivery::NotPublished { .. }));
        None
    }

    fn validate(&mut self, _: NodeId, _: Topic, _: &Packet) -> Verdict {
        if self.ignores { Verdict::Ignore } else { Verdict::Accept }
    }
}
