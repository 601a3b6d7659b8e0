//! Many seeds, and what a seed decides.

use std::{rc::Rc, time::Duration};

use dagmesh_sim::{
    Burst, Scenario, Span,
    chronosync::{Member, ModelName, World},
    prepare, run,
    sweep::{sweep, wild},
};

#[test]
fn a_thousand_wild_groups_converge_and_every_invariant_holds() {
    let swept = sweep(0..1000).expect("no seed breaks anything");
    assert_eq!(swept.healed.len(), 1000);
    // They were wild: much was published, and some took their time.
    assert!(swept.published > 10_000 && swept.messages > 200_000, "{swept}");
    assert!(swept.healed.last().is_some_and(|(slowest, _)| *slowest > Duration::from_secs(2)), "{swept}");
}

#[test]
fn wild_groups_have_every_fault_there_is() {
    let all: Vec<_> = (0..100).map(wild).collect();
    let share = |holds: fn(&Scenario) -> bool| all.iter().filter(|scenario| holds(scenario)).count();
    let faults: [fn(&Scenario) -> bool; 7] = [
        |wild| wild.link.loss > 0.1,
        |wild| wild.link.duplicate > 0.05 && wild.link.reorder > 0.05,
        |wild| wild.disk.failure > 0.05,
        |wild| !wild.bursts.is_empty(),
        |wild| wild.partition.is_some(),
        |wild| wild.churn.is_some_and(|churn| churn.crash > 0.5 && churn.wipe > 0.1),
        |wild| wild.leaves == 0,
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        assert!((10..=90).contains(&share(fault)), "fault {n}: {}", share(fault));
    }
}

#[test]
fn crashes_disk_errors_and_emptied_disks_did_happen() {
    let (mut crashes, mut errors, mut wiped) = (0, 0, 0);
    for seed in 0..30 {
        let scenario = wild(seed);
        let world = Rc::new(World::new(scenario.nodes, 0, scenario.leaves).expect("keys"));
        let mut network = prepare::<Member>(&scenario, world.clone()).expect("within bounds");
        network.run_to(Duration::from_secs(40)).expect("no invariant");
        crashes += network.counters().crashes;
        errors += network.counters().write_errors;
        wiped += (0..scenario.nodes as u32).map(|node| world.ledger().wipes(node)).sum::<u32>();
    }
    assert!(crashes > 10 && errors > 50 && wiped > 3, "{crashes} crashes, {errors} write errors, {wiped} wiped");
}

#[test]
fn the_same_seed_gives_the_same_run_of_every_model_and_another_another() {
    for model in ModelName::ALL {
        let trace = |seed| run(model, &wild(seed)).expect("no invariant").trace;
        assert_eq!(trace(11), trace(11), "{model}");
        assert_ne!(trace(11), trace(12), "{model}");
    }
}

#[test]
fn a_cut_and_a_burst_in_it_are_healed_from_both_sides() {
    let scenario = Scenario {
        publications: 40,
        bursts: vec![Burst { after: Duration::from_secs(4), count: 12 }],
        partition: Some(Span { start: Duration::from_secs(7), end: Duration::from_secs(15) }),
        tail: Duration::ZERO,
        ..Scenario::new(3, 12)
    };
    let ours = run(ModelName::Ours, &scenario).expect("no invariant");
    assert_eq!((ours.published, ours.told_twice), (52, 0));
    // Both ends notice after 2 s that there is a connection again.
    let healed = ours.healed_after().expect("it converges");
    assert!(healed < Duration::from_secs(4), "{healed:?}");
    assert!(ours.cost.requests > 0);
}
