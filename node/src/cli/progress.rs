//! The progress line of a long command: known against held, rate, and stalls.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    client::Watcher,
    output::{Output, duration, size},
};
use crate::types::{Phase, Progress};

/// A transfer that has moved nothing for so long is called stalled.
const STALL: Duration = Duration::from_secs(3);

/// Draws on stderr, only where that is a terminal and nobody said `--quiet`, `--json` or `--no-progress`.
pub(crate) struct Bar {
    bar: ProgressBar,
    last: Progress,
    moved: Instant,
}

impl Bar {
    pub(crate) fn new(output: &Output) -> Self {
        let drawn = output.progress && output.streams.err_is_terminal && !output.quiet && !output.json;
        let bar = if drawn { ProgressBar::new(0) } else { ProgressBar::hidden() };
        // A template that does not parse leaves indicatif's own.
        if let Ok(style) = ProgressStyle::with_template("{prefix:10} {wide_bar} {pos}/{len} blocks  {msg}") {
            bar.set_style(style);
        }
        Self { bar, last: Progress::default(), moved: Instant::now() }
    }

    fn draw(&mut self) {
        let waited = self.moved.elapsed();
        let seconds = self.bar.elapsed().as_secs_f64().max(0.1);
        let rate = size((self.last.bytes as f64 / seconds) as u64);
        let mut message = match self.last.known_bytes {
            Some(known) => format!("{} of {}, {rate}/s", size(self.last.bytes), size(known)),
            None => format!("{}, {rate}/s", size(self.last.bytes)),
        };
        if waited >= STALL {
            message.push_str(&format!(", nothing for {}", duration(Duration::from_secs(waited.as_secs()))));
        }
        if let Some(note) = &self.last.note {
            message.push_str(&format!(" ({note})"));
        }
        self.bar.set_prefix(phase(self.last.phase));
        self.bar.set_message(message);
    }
}

impl Watcher for Bar {
    fn progress(&mut self, progress: Progress) {
        let key = |progress: &Progress| (progress.phase, progress.done_blocks, progress.bytes, progress.files);
        if key(&progress) != key(&self.last) {
            self.moved = Instant::now();
        }
        self.last = progress;
        self.bar.set_length(self.last.known_blocks.max(self.last.done_blocks));
        self.bar.set_position(self.last.done_blocks);
        self.draw();
    }

    fn tick(&mut self) {
        self.draw();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Connecting => "connecting",
        Phase::Importing => "importing",
        Phase::Chain => "chain",
        Phase::Content => "content",
        Phase::Exporting => "writing",
        Phase::Walking => "walking",
        Phase::Verifying => "verifying",
        Phase::Removing => "removing",
        Phase::Stalled => "stalled",
    }
}
