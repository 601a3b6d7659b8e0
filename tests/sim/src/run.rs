//! One model in one scenario.

use std::{rc::Rc, time::Duration};

use anyhow::Context;
use dagmesh_simnet::{NodeId, Simulation, Spread};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    Outcome, Scenario,
    chronosync::{Member, Model, ModelName, Original, Vector, World},
    outcome::Cost,
};

/// How often a run is looked at: for the curve, and for whether it has converged.
const LOOK: Duration = Duration::from_millis(100);

/// Runs a model in a scenario, to the end of what is measured and until it has converged or its patience is over.
///
/// # Errors
/// A [`Violation`](dagmesh_simnet::Violation): what must hold did not, for a model that promises it (with the seed); or a
/// [`ScenarioError`](crate::ScenarioError).
pub fn run(model: ModelName, scenario: &Scenario) -> anyhow::Result<Outcome> {
    match model {
        ModelName::Ours => run_model::<Member>(model, scenario),
        ModelName::Vector => run_model::<Vector>(model, scenario),
        ModelName::Original => run_model::<Original>(model, scenario),
    }
}

fn run_model<M: Model>(model: ModelName, scenario: &Scenario) -> anyhow::Result<Outcome> {
    let world = World::new(scenario.nodes, 0, scenario.leaves)?;
    let mut network = prepare::<M>(scenario, Rc::new(world))?;
    network.run_to(scenario.start)?;
    let before = Cost::of(network.counters());
    let quiet = scenario.quiet();
    let (measured, end) = (quiet + scenario.tail, quiet + scenario.tail.max(scenario.patience));
    let (mut curve, mut healed, mut converged, mut cost) = (Vec::new(), None, None, None);
    loop {
        let now = network.elapsed();
        let so_far = Cost::of(network.counters()).since(before);
        curve.push((now, network.delays().count(), so_far));
        if now >= quiet && network.hosts().count() == network.nodes() {
            healed.get_or_insert(now);
            if converged.is_none() && has_converged(&network) {
                converged = Some(now);
            }
        }
        if now >= measured {
            cost.get_or_insert(so_far);
            if converged.is_some() || now >= end {
                break;
            }
        }
        network.run_for(LOOK)?;
    }
    network.finish()?;
    let cost = cost.context("a run that was never measured")?;
    Ok(Outcome::new(model, scenario, &network, curve, healed.unwrap_or(end), converged, cost))
}

/// A network of this model, its faults and publications in place, and its invariants: at every step that nothing is told
/// twice or out of order, no number used twice, no state falls and no queue is over its bound; in the end that all know
/// the same and were told all. Those of a model that promises nothing are left out.
///
/// # Errors
/// What of the scenario is out of bounds.
pub fn prepare<M: Model>(scenario: &Scenario, world: Rc<World>) -> anyhow::Result<Simulation<M>> {
    scenario.check()?;
    let host_world = world.clone();
    let mut network = Simulation::new(scenario.network(), scenario.nodes, move |boot| M::boot(boot, &host_world));
    if let Some(cut) = scenario.partition {
        network.cut_during(cut.start..cut.end, vec![scenario.half()]);
    }
    scenario.outages().iter().for_each(|churn| network.churn(churn));
    publish(&mut network, scenario, &world);
    if M::STRICT {
        invariants(&mut network, scenario, world);
    }
    Ok(network)
}

fn publish<M: Model>(network: &mut Simulation<M>, scenario: &Scenario, world: &Rc<World>) {
    // A stream of its own, so that every model has the same publications.
    let mut rng = ChaCha8Rng::seed_from_u64(scenario.seed);
    rng.set_stream(u64::MAX);
    let nodes = scenario.nodes as u32;
    let mut plan: Vec<_> =
        (0..scenario.publications).map(|n| (scenario.publication(n), rng.random_range(0..nodes))).collect();
    for burst in &scenario.bursts {
        let mut members: Vec<_> = (0..nodes).collect();
        members.shuffle(&mut rng);
        plan.extend(members.iter().cycle().take(burst.count).map(|node| (scenario.start + burst.after, *node)));
    }
    for ((at, node), count) in plan.into_iter().zip(0..) {
        let world = world.clone();
        network.at(at, move |network| {
            // In the place of a member that is away, the next one.
            let running = (0..nodes).map(|n| NodeId((node + n) % nodes)).find(|node| network.host(*node).is_some());
            if let Some(node) = running {
                network.tell(node, M::publication(&world, node.0, count));
            }
        });
    }
}

fn invariants<M: Model>(network: &mut Simulation<M>, scenario: &Scenario, world: Rc<World>) {
    let ledger = world.clone();
    network.always("once, in order, and no number twice", 1, move |_| ledger.ledger().check());
    network.always("nothing is told that was told or never published", 1, |network| {
        let counters = network.counters();
        match (counters.told_twice, counters.strays) {
            (0, 0) => Ok(()),
            (twice, strays) => Err(format!("{twice} told twice, {strays} that nobody published")),
        }
    });
    let every = scenario.nodes as u64 / 4;
    network
        .always("no queue is over its bound", every, |network| network.hosts().try_for_each(|(_, host)| host.check()));
    network.finally("all know the same and were told all", move |network| {
        let root = network.hosts().next().map(|(_, host)| host.root());
        let other = network.hosts().filter(|(_, host)| Some(host.root()) != root).count();
        let untold = network.events().find(|(number, spread)| {
            let lost = is_lost(network, spread);
            (lost && world.ledger().wipes(number.producer) == 0) || (!lost && !all_told(network, spread))
        });
        match (other, untold) {
            (0, None) => Ok(()),
            (0, Some((number, spread))) => Err(format!("{number:?} came to {} members", spread.count())),
            (other, _) => Err(format!("{other} members differ from the first")),
        }
    });
}

fn has_converged<M: Model>(network: &Simulation<M>) -> bool {
    let told = || network.events().all(|(_, spread)| all_told(network, spread) || is_lost(network, spread));
    let same = || {
        let mut roots = network.hosts().map(|(_, host)| host.root());
        roots.next().is_none_or(|first| roots.all(|root| root == first))
    };
    told() && same()
}

fn all_told<M: Model>(network: &Simulation<M>, spread: &Spread) -> bool {
    spread.count() >= network.nodes() || network.hosts().all(|(node, _)| spread.reached(node))
}

/// Whether nobody knows it any more: its producer's disk was emptied before anybody heard of it.
fn is_lost<M: Model>(network: &Simulation<M>, spread: &Spread) -> bool {
    !network.hosts().any(|(node, _)| spread.reached(node))
}
