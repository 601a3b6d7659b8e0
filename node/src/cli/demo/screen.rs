//! What the demo shows: bars while it works, a line a step, a table at the end.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::super::output::{Output, duration, size};

/// One row of the table: what one node did in one step.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    pub(super) step: &'static str,
    pub(super) node: &'static str,
    /// Blocks that were stored (publisher), or that travelled (follower).
    pub(super) blocks: u64,
    /// Their bytes; of the export, bytes of files.
    pub(super) bytes: u64,
    pub(super) ms: u64,
    /// Blocks that are new to this follower, counted in the publisher's store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) had_to: Option<u64>,
    /// What a follower fetched over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) via: Option<&'static str>,
    /// The part of `ms` in which the sync itself ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sync_ms: Option<u64>,
}

/// The bars.
pub(super) struct Screen(MultiProgress);

impl Screen {
    /// Draws on stderr, only where that is a terminal and nobody said `--quiet`, `--json` or `--no-progress`.
    pub(super) fn new(output: &Output) -> Self {
        let drawn = output.progress && output.streams.err_is_terminal && !output.quiet && !output.json;
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self(MultiProgress::with_draw_target(target))
    }

    /// A bar that counts blocks.
    pub(super) fn blocks(&self, step: &'static str, node: &'static str, all: u64) -> ProgressBar {
        self.bar("{prefix:24} [{bar:32}] {pos}/{len} blocks  {msg}", format!("{step} {node}"), all)
    }

    /// A bar that counts bytes.
    pub(super) fn bytes(&self, step: &'static str, what: &'static str, all: u64) -> ProgressBar {
        self.bar("{prefix:24} [{bar:32}] {binary_bytes}/{binary_total_bytes}  {msg}", format!("{step} {what}"), all)
    }

    /// A sign of life for what cannot be counted.
    pub(super) fn spinner(&self, what: &'static str) -> ProgressBar {
        let bar = self.bar("{spinner} {prefix}", what.to_owned(), 0);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// Takes all bars away.
    pub(super) fn clear(&self) {
        let _ = self.0.clear();
    }

    fn bar(&self, template: &str, prefix: String, all: u64) -> ProgressBar {
        let bar = self.0.add(ProgressBar::new(all));
        // A template that does not parse leaves indicatif's own.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(prefix);
        bar
    }
}

/// The table: texts to the left, numbers to the right.
pub(super) fn table(steps: &[Step]) -> String {
    let head = ["STEP", "NODE", "BLOCKS", "HAD TO", "BYTES", "TIME"].map(String::from);
    let rows = steps.iter().map(|step| {
        let blocks = if step.step == "export" { "-".to_owned() } else { step.blocks.to_string() };
        let had_to = step.had_to.map_or("-".to_owned(), |blocks| blocks.to_string());
        let time = duration(Duration::from_millis(step.ms));
        [step.step.to_owned(), step.node.to_owned(), blocks, had_to, size(step.bytes), time]
    });
    let rows = std::iter::once(head).chain(rows).collect::<Vec<_>>();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            text += &if column < 2 { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
