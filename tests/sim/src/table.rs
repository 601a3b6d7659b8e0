//! The models beside each other.

use std::{
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{Burst, Outages, Outcome, Scenario, Span, chronosync::ModelName, run};

/// A row: what happens, and what came of it in each of the models.
#[derive(Debug)]
pub struct Row {
    /// What happens.
    pub case: String,
    /// In the order of the models.
    pub outcomes: Vec<Outcome>,
}

/// For each size: loss of 0, 1, 5, 10 and 20 %; publications at one instant; a cut of 30 s; members that come and go for
/// 30 s. 200 publications each, 50 in groups of more than 100, a quarter of them if `quick`.
pub fn cases(seed: u64, sizes: &[usize], quick: bool) -> Vec<(String, Scenario)> {
    let secs = Duration::from_secs;
    let mut cases = Vec::new();
    for nodes in sizes.iter().copied() {
        let publications = if nodes > 100 { 50 } else { 200 } / if quick { 4 } else { 1 };
        let usual = Scenario { publications, patience: secs(60), ..Scenario::new(seed, nodes) };
        for loss in [0.0, 1.0, 5.0, 10.0, 20.0] {
            cases.push((format!("{loss} % loss"), usual.clone().with_loss(loss)));
        }
        let burst = |after, count| Burst { after: secs(after), count };
        let bursts = vec![burst(0, 10), burst(5, publications - 10)];
        cases.push(("bursts".into(), Scenario { publications: 0, bursts, ..usual.clone() }));
        // What fails does so in the middle.
        let slow = Scenario { rate: publications as f64 / 40.0, ..usual };
        let cut = Span { start: secs(10), end: secs(40) };
        cases.push(("partition".into(), Scenario { partition: Some(cut), ..slow.clone() }));
        cases.push(("churn".into(), Scenario { churn: Some(Outages::usual(nodes, 30)), ..slow }));
    }
    cases
}

/// Runs all of them, on all processors, and says which is done.
///
/// # Errors
/// An invariant that was broken, with its seed.
pub fn rows(
    cases: &[(String, Scenario)],
    models: &[ModelName],
    progress: impl Fn(&str) + Sync,
) -> anyhow::Result<Vec<Row>> {
    let jobs: Vec<_> =
        cases.iter().flat_map(|(case, scenario)| models.iter().map(move |model| (*model, case, scenario))).collect();
    // The longest are last in order and come first.
    let waiting = Mutex::new((0..jobs.len()).collect::<Vec<_>>());
    let work = || {
        let mut done = Vec::new();
        while let Some(job) = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            if let Some((model, case, scenario)) = jobs.get(job) {
                let outcome = run(*model, scenario)?;
                progress(&format!("{} members, {case}, {model}", scenario.nodes));
                done.push((job, outcome));
            }
        }
        anyhow::Ok(done)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow::anyhow!("a run panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    done.sort_by_key(|(job, _)| *job);
    let mut outcomes = done.into_iter().map(|(_, outcome)| outcome);
    let row = |(case, _): &(String, Scenario)| Row {
        case: case.clone(),
        outcomes: outcomes.by_ref().take(models.len()).collect(),
    };
    Ok(cases.iter().map(row).collect())
}

/// The rows in Markdown, a line for each model.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = "| members | case | model | p50 ms | p99 ms | bytes a publication | messages | converged after |\n\
                    | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for (case, run) in each(rows) {
        let [p50, _, p99, _] = run.delays.map(|delay| delay.as_millis());
        let healed = run.healed_after().map_or("never".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()));
        let (bytes, messages) = (run.bytes_per_publication(), run.cost.messages);
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {case} | {} | {p50} | {p99} | {bytes:.0} | {messages} | {healed} |",
            run.nodes, run.model
        );
    }
    text
}

/// The means of each model over all rows, which are the seeds of one case, in Markdown.
pub fn means(rows: &[Row]) -> String {
    let mut text = "| model | p50 ms | p99 ms | longest ms | bytes a publication | messages |\n\
                    | --- | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    let models = rows.first().map_or(0, |row| row.outcomes.len());
    for model in 0..models {
        let runs = || rows.iter().filter_map(|row| row.outcomes.get(model));
        let mean = |of: fn(&Outcome) -> f64| runs().map(of).sum::<f64>() / rows.len() as f64;
        let ms =
            |at: fn(&Outcome) -> Duration| runs().map(at).sum::<Duration>().as_secs_f64() * 1e3 / rows.len() as f64;
        let name = runs().next().map_or("", |run| run.model.as_str());
        let (p50, p99, longest) = (ms(|run| run.delays[0]), ms(|run| run.delays[2]), ms(|run| run.delays[3]));
        let (bytes, messages) = (mean(Outcome::bytes_per_publication), mean(|run| run.cost.messages as f64));
        let _ = writeln!(text, "| {name} | {p50:.1} | {p99:.1} | {longest:.0} | {bytes:.0} | {messages:.0} |");
    }
    text
}

/// The rows as CSV, a line for each model.
pub fn csv(rows: &[Row]) -> String {
    let mut text =
        "members,case,model,seed,publications,p50_ms,p90_ms,p99_ms,max_ms,bytes,bytes_per_publication,messages,\
                    duplicates,requests,healed_after_s,told_twice\r\n"
            .to_owned();
    for (case, run) in each(rows) {
        let delays = run.delays.map(|delay| delay.as_millis().to_string()).join(",");
        let healed = run.healed_after().map_or(String::new(), |after| after.as_secs_f64().to_string());
        let cost = run.cost;
        let _ = writeln!(
            text,
            "{},{case},{},{},{},{delays},{},{:.0},{},{},{},{healed},{}\r",
            run.nodes,
            run.model,
            run.seed,
            run.published,
            cost.bytes,
            run.bytes_per_publication(),
            cost.messages,
            cost.duplicates,
            cost.requests,
            run.told_twice,
        );
    }
    text
}

fn each(rows: &[Row]) -> impl Iterator<Item = (&str, &Outcome)> {
    rows.iter().flat_map(|row| row.outcomes.iter().map(|outcome| (row.case.as_str(), outcome)))
}
