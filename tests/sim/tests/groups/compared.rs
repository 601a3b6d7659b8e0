//! The models beside each other.

use std::time::Duration;

use dagmesh_sim::{
    Burst, Outages, Outcome, Scenario, Span,
    chronosync::ModelName::{self, Original, Ours, Vector},
    run, table,
};

fn outcomes(scenario: &Scenario) -> [Outcome; 2] {
    [Ours, Vector].map(|model| run(model, scenario).expect("no invariant"))
}

/// Whether one delay is no longer than another, but for what chance makes of two runs with other draws: both are a few
/// hops of the same overlay.
fn no_worse(ours: Duration, theirs: Duration) -> bool {
    ours.as_secs_f64() <= theirs.as_secs_f64() * 1.05
}

#[test]
fn ours_is_as_fast_as_whole_vectors_and_sends_fewer_bytes() {
    for (nodes, loss) in [(50, 0.0), (50, 10.0), (100, 0.0), (100, 20.0)] {
        let scenario = Scenario { publications: 40, tail: Duration::from_secs(5), ..Scenario::new(1, nodes) };
        let [ours, vector] = outcomes(&scenario.with_loss(loss));
        let [(p50, p99), (vector_p50, vector_p99)] = [&ours, &vector].map(|run| (run.delays[0], run.delays[2]));
        assert!(no_worse(p50, vector_p50) && no_worse(p99, vector_p99), "{loss} % loss\n{ours}{vector}");
        assert!(ours.cost.bytes * 3 < vector.cost.bytes, "{loss} % loss\n{ours}{vector}");
        assert_eq!((ours.published, vector.published), (40, 40));
        assert!(ours.converged.is_some());
    }
}

#[test]
fn ours_is_as_fast_as_vectors_over_a_cut_and_churn() {
    let secs = Duration::from_secs;
    let usual = Scenario { publications: 40, rate: 2.0, ..Scenario::new(2, 50) };
    let cut = Scenario { partition: Some(Span { start: secs(8), end: secs(20) }), ..usual.clone() };
    let churn = Scenario { churn: Some(Outages::usual(50, 10)), ..usual };
    for scenario in [cut, churn] {
        let [ours, vector] = outcomes(&scenario);
        assert!(no_worse(ours.delays[2], vector.delays[2]) && ours.cost.bytes < vector.cost.bytes, "{ours}{vector}");
    }
}

#[test]
fn a_busy_group_with_loss_is_whole_after_a_cut_as_soon_as_one_with_vectors() {
    let secs = Duration::from_secs;
    let cut = Some(Span { start: secs(8), end: secs(20) });
    for loss in [10.0, 20.0] {
        let usual = Scenario { publications: 40, rate: 2.0, partition: cut, ..Scenario::new(1, 50) }.with_loss(loss);
        let cases: Vec<_> = (1..=4).map(|seed| (seed.to_string(), Scenario { seed, ..usual.clone() })).collect();
        let rows = table::rows(&cases, &[Ours, Vector], |_| {}).expect("no invariant");
        // Of single runs one is ahead or the other.
        let mean =
            |model: usize, at: usize| rows.iter().map(|row| row.outcomes[model].delays[at]).sum::<Duration>() / 4;
        let bytes = |model: usize| rows.iter().map(|row| row.outcomes[model].cost.bytes).sum::<u64>();
        for at in [0, 2] {
            assert!(no_worse(mean(0, at), mean(1, at)), "{loss} % loss\n{}", table::markdown(&rows));
        }
        assert!(bytes(0) * 4 < bytes(1), "{loss} % loss\n{}", table::markdown(&rows));
    }
}

#[test]
fn a_quiet_group_is_whole_sooner_after_a_cut_than_one_with_vectors() {
    let secs = Duration::from_secs;
    // The last number is published in the middle of the cut: nothing but the protocol tells of it afterwards.
    let cut = Span { start: secs(7), end: secs(20) };
    let scenario = Scenario { publications: 20, partition: Some(cut), ..Scenario::new(3, 50) };
    let [ours, vector] = outcomes(&scenario.with_loss(5.0)).map(|run| run.healed_after().expect("it converges"));
    // Of these, both ends need 2 s to notice.
    assert!(ours < secs(8) && ours * 2 < vector, "{ours:?}, and {vector:?} with vectors");
}

/// Two members publish at the same instant, once all have found one another.
fn two_at_once(model: ModelName) -> Outcome {
    let bursts = vec![Burst { after: Duration::ZERO, count: 2 }];
    let scenario = Scenario { publications: 0, bursts, leaves: 0, ..Scenario::new(4, 20) };
    run(model, &scenario).expect("no invariant")
}

#[test]
fn two_publications_at_once_split_the_original_until_it_recovers_and_never_ours() {
    let recoveries = |run: &Outcome| {
        let kinds = run.kinds.iter().filter(|(_, kind, ..)| kind.starts_with("recover"));
        kinds.map(|(_, _, messages, _)| messages).sum::<u64>()
    };
    let (ours, original) = (two_at_once(Ours), two_at_once(Original));
    // Each of the two answers the same pending interests, and every member gets one of the answers.
    assert!(recoveries(&original) > 0 && recoveries(&ours) == 0, "{ours}{original}");
    assert!(original.delays[2] > 3 * ours.delays[3], "{ours}{original}");
    assert_eq!(ours.told_twice, 0);
    // One alone reaches everybody by the interests that wait for it.
    let bursts = vec![Burst { after: Duration::ZERO, count: 1 }];
    let alone = Scenario { publications: 0, bursts, leaves: 0, ..Scenario::new(4, 20) };
    assert_eq!(recoveries(&run(Original, &alone).expect("within bounds")), 0);
}

#[test]
fn a_member_that_starts_resets_the_original_and_is_told_again_what_was_told() {
    let secs = Duration::from_secs;
    let outages = Outages { during: Span { start: secs(15), end: secs(30) }, ..Outages::usual(20, 15) };
    let scenario = Scenario { publications: 60, churn: Some(outages), ..Scenario::new(6, 20) };
    let (ours, original) = (run(Ours, &scenario), run(Original, &scenario));
    let (ours, original) = (ours.expect("no invariant"), original.expect("within bounds"));
    assert!(original.told_twice > 100 && ours.told_twice == 0, "{original}");
}

#[test]
fn a_table_has_a_line_for_each_model_and_case() {
    let cases: Vec<_> = table::cases(1, &[5], true).into_iter().filter(|(case, _)| case.contains("loss")).collect();
    let rows = table::rows(&cases, &ModelName::ALL, |_| {}).expect("no invariant");
    let (markdown, csv) = (table::markdown(&rows), table::csv(&rows));
    assert_eq!((markdown.lines().count(), csv.lines().count()), (2 + 15, 1 + 15));
    assert!(csv.lines().all(|line| line.matches(',').count() == 15), "{csv}");
    assert!(markdown.contains("| 5 | 20 % loss | vector |"), "{markdown}");
}
