//! What a run came to, for a person and for a machine.

use std::fmt;

use serde_json::{Value, json};

use crate::{Machine, Row};

/// A machine and what was measured on it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What.
    pub rows: Vec<Row>,
}

impl Report {
    /// Whether every bar that was judged holds.
    pub fn pass(&self) -> bool {
        self.rows.iter().all(|row| row.pass != Some(false))
    }

    /// `{"version":1,"machine":{..},"rows":[{..}],"pass":bool}`; fields may be added, never renamed.
    pub fn to_json(&self) -> Value {
        json!({ "version": 1, "machine": self.machine, "rows": self.rows, "pass": self.pass() })
    }
}

const HEADS: [&str; 7] = ["name", "workload", "figure", "ceiling", "ratio", "bar", ""];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let lines: Vec<[String; 7]> =
            std::iter::once(HEADS.map(str::to_owned)).chain(self.rows.iter().map(cells)).collect();
        let mut widths = [0; 7];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        for line in &lines {
            let padded: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        for row in &self.rows {
            for note in &row.notes {
                writeln!(f, "{}: {note}", row.name)?;
            }
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 7] {
    let with_unit = |figure: f64| format!("{} {}", short(figure), row.unit);
    let verdict = match row.pass {
        Some(true) => "pass",
        Some(false) => "MISSED",
        None => "",
    };
    [
        row.name.clone(),
        row.workload.clone(),
        with_unit(row.figure),
        row.ceiling.map(with_unit).unwrap_or_default(),
        row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        row.bar.map(|bar| bar.to_string()).unwrap_or_default(),
        verdict.to_owned(),
    ]
}

/// Three digits and more.
fn short(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bar;

    fn report() -> Report {
        let rows = vec![
            Row::new("bulk", "1 GiB", 240.0, "MB/s").ceiling(400.0).bar(Bar::RatioAtLeast(0.6)).note("durable"),
            Row::new("small", "1,000,000 blocks", 59_000.0, "blocks/s").bar(Bar::FigureAtLeast(60_000.0)),
        ];
        Report { machine: Machine::look(), rows }
    }

    #[test]
    fn the_table_shows_each_figure_beside_its_ceiling_and_what_is_missed() {
        let text = report().to_string();
        let bulk = text.lines().find(|line| line.starts_with("bulk ")).expect("a row");
        for part in ["1 GiB", "240 MB/s", "400 MB/s", "0.60", "ratio >= 0.6", "pass"] {
            assert!(bulk.contains(part), "{part} in {bulk}");
        }
        assert!(text.contains("MISSED") && text.contains("bulk: durable"), "{text}");
    }

    #[test]
    fn the_json_has_the_names_that_scripts_rely_on() {
        let json = report().to_json();
        assert_eq!((&json["version"], &json["pass"]), (&json!(1), &json!(false)));
        assert_eq!(json["rows"][0]["ratio"], 0.6);
        assert_eq!(json["rows"][0]["bar"], json!({"ratio_at_least": 0.6}));
        assert_eq!(json["rows"][1]["ceiling"], Value::Null);
        assert!(json["machine"]["cores"].as_u64().expect("a number") > 0);
    }
}
