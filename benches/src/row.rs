//! One line of the table.

use std::fmt;

use serde::Serialize;

/// A figure, beside its ceiling and its bar.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// The measurement and, where it has several lines, which one: `chain 1000, 50 ms`.
    pub name: String,
    /// What was done.
    pub workload: String,
    /// What was measured.
    pub figure: f64,
    /// The unit of the figure and of the ceiling.
    pub unit: String,
    /// The best that can be, measured in the same run; or the least that has to be, where less is better.
    pub ceiling: Option<f64>,
    /// Figure over ceiling.
    pub ratio: Option<f64>,
    /// What is asked for.
    pub bar: Option<Bar>,
    /// Whether the bar holds; `None` without a bar, or where the workload was not the whole one.
    pub pass: Option<bool>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// What is asked of a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Bar {
    /// Figure over ceiling is this or more.
    RatioAtLeast(f64),
    /// Figure over ceiling is this or less.
    RatioAtMost(f64),
    /// The figure is this or more.
    FigureAtLeast(f64),
    /// The figure is this or less.
    FigureAtMost(f64),
}

impl Row {
    /// A row with a figure alone.
    pub fn new(name: impl Into<String>, workload: impl Into<String>, figure: f64, unit: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            workload: workload.into(),
            figure,
            unit: unit.into(),
            ceiling: None,
            ratio: None,
            bar: None,
            pass: None,
            notes: Vec::new(),
        }
    }

    /// Sets the ceiling, in the figure's unit. To be called before [`bar`](Self::bar).
    pub fn ceiling(mut self, ceiling: f64) -> Self {
        self.ceiling = Some(ceiling);
        self.ratio = Some(self.figure / ceiling);
        self
    }

    /// Sets the bar, and judges. A bar on a ratio that does not exist is missed.
    pub fn bar(mut self, bar: Bar) -> Self {
        let ratio = self.ratio.unwrap_or(f64::NAN);
        self.pass = Some(match bar {
            Bar::RatioAtLeast(least) => ratio >= least,
            Bar::RatioAtMost(most) => ratio <= most,
            Bar::FigureAtLeast(least) => self.figure >= least,
            Bar::FigureAtMost(most) => self.figure <= most,
        });
        self.bar = Some(bar);
        self
    }

    /// Adds a note.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Takes the judgement back, as the workload was not the whole one.
    pub(crate) fn unjudge(&mut self) {
        if self.pass.take().is_some() {
            self.notes.push("not judged: the workload was scaled".to_owned());
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtLeast(least) => write!(f, "ratio >= {least}"),
            Self::RatioAtMost(most) => write!(f, "ratio <= {most}"),
            Self::FigureAtLeast(least) => write!(f, ">= {least}"),
            Self::FigureAtMost(most) => write!(f, "<= {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(figure: f64, ceiling: f64, bar: Bar) -> Option<bool> {
        Row::new("a", "b", figure, "MB/s").ceiling(ceiling).bar(bar).pass
    }

    #[test]
    fn a_bar_holds_at_its_figure_and_not_beyond_it() {
        assert_eq!(judged(60.0, 100.0, Bar::RatioAtLeast(0.6)), Some(true));
        assert_eq!(judged(59.9, 100.0, Bar::RatioAtLeast(0.6)), Some(false));
        assert_eq!(judged(120.0, 100.0, Bar::RatioAtMost(1.2)), Some(true));
        assert_eq!(judged(120.1, 100.0, Bar::RatioAtMost(1.2)), Some(false));
        assert_eq!(judged(5.0, 1.0, Bar::FigureAtMost(5.0)), Some(true));
        assert_eq!(judged(5.1, 1.0, Bar::FigureAtMost(5.0)), Some(false));
        assert_eq!(judged(60_000.0, 1.0, Bar::FigureAtLeast(60_000.0)), Some(true));
        assert_eq!(judged(59_999.0, 1.0, Bar::FigureAtLeast(60_000.0)), Some(false));
    }

    #[test]
    fn a_bar_on_a_ratio_without_a_ceiling_is_missed() {
        assert_eq!(Row::new("a", "b", 1.0, "s").bar(Bar::RatioAtMost(9.0)).pass, Some(false));
        assert_eq!(judged(1.0, f64::NAN, Bar::RatioAtLeast(0.0)), Some(false));
    }
}
