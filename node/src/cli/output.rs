//! What a command prints: for a person, or one JSON object.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use serde::Serialize;

use crate::error::{ErrorKind, NodeError};

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// With an error to be told.
    Error(NodeError),
    /// Nobody reads our output any more (`| head`): quietly.
    BrokenPipe,
}

/// What a command ends with.
pub type Outcome = Result<(), Failure>;

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::Error(NodeError::other(format!("cannot write the output: {error}")))
        }
    }
}

/// Where output goes.
pub struct Streams {
    /// Results.
    pub out: Box<dyn Write + Send + Sync>,
    /// Errors and progress.
    pub err: Box<dyn Write + Send + Sync>,
    /// Whether a person sees `out`.
    pub out_is_terminal: bool,
    /// Whether a person sees `err`: only then is progress drawn.
    pub err_is_terminal: bool,
}

impl Streams {
    /// Those of this process.
    pub fn standard() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            out_is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
        }
    }
}

/// How a command speaks.
pub(crate) struct Output {
    pub(crate) streams: Streams,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) progress: bool,
}

impl Output {
    /// Prints a result: as JSON, or what `text` makes of it for a person, with `--quiet` nothing.
    pub(crate) fn result<T: Serialize>(&mut self, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        if self.json {
            return self.object(value);
        }
        if self.quiet { Ok(()) } else { self.line(text(value)) }
    }

    /// As [`result`](Self::result), for what a script wants even with `--quiet`: a CID, a ticket.
    pub(crate) fn essential<T: Serialize>(
        &mut self,
        value: &T,
        essence: impl FnOnce(&T) -> String,
        text: impl FnOnce(&T) -> String,
    ) -> Outcome {
        if self.json {
            return self.object(value);
        }
        let text = if self.quiet { essence(value) } else { text(value) };
        self.line(text)
    }

    /// Prints one JSON object.
    pub(crate) fn object<T: Serialize>(&mut self, value: &T) -> Outcome {
        let text = serde_json::to_string(value).map_err(|error| NodeError::other(error.to_string()))?;
        self.line(text)
    }

    /// Prints text and ends the line.
    pub(crate) fn line(&mut self, text: impl Display) -> Outcome {
        let text = text.to_string();
        self.bytes(if text.is_empty() { String::new() } else { format!("{}\n", text.trim_end()) }.as_bytes())?;
        Ok(self.streams.out.flush()?)
    }

    /// Prints bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        Ok(self.streams.out.write_all(bytes)?)
    }

    /// Tells a person something beside the result.
    pub(crate) fn note(&mut self, text: impl Display) {
        if !self.quiet && !self.json {
            let _ = writeln!(self.streams.err, "{text}");
        }
    }

    /// Tells how it ended, and gives the exit code.
    pub(crate) fn end(&mut self, outcome: Outcome) -> u8 {
        let _ = self.streams.out.flush();
        match outcome {
            Ok(()) | Err(Failure::BrokenPipe) => 0,
            Err(Failure::Error(error)) => {
                let err = &mut self.streams.err;
                let _ = if self.json {
                    writeln!(err, "{}", serde_json::json!({ "error": error }))
                } else if error.kind == ErrorKind::Interrupted {
                    writeln!(err, "{error}")
                } else {
                    writeln!(err, "error: {error}")
                };
                error.exit_code()
            }
        }
    }
}

/// Rows as columns, the first row a head; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths = (0..columns).map(|column| width(column).unwrap_or(0)).collect::<Vec<_>>();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, one a line, the values under each other.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    table(&fields.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect::<Vec<_>>())
}

/// A size as a person says it: `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut units = UNITS.iter().peekable();
    while let Some(unit) = units.next() {
        // 1023.95 would be shown as 1024.0.
        if value < 1023.95 || units.peek().is_none() {
            return if *unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{bytes} B")
}

/// A count with its noun: `1 block`, `2 blocks`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A time as a person says it: `2 h 5 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How long ago a unix time in milliseconds was.
pub(crate) fn ago(unix_ms: u64) -> String {
    let then = std::time::UNIX_EPOCH + Duration::from_millis(unix_ms);
    match then.elapsed() {
        Ok(elapsed) => format!("{} ago", duration(elapsed)),
        Err(_) => "just now".into(),
    }
}

/// A unix time in milliseconds as date and time of day, in UTC: `2026-01-31 23:59:59`.
pub(crate) fn clock(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => {
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, second) = at.to_hms();
            format!("{year}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02}", u8::from(month))
        }
        // A stranger's clock.
        Err(_) => "????-??-?? ??:??:??".into(),
    }
}

/// Somebody else's text, without what could steer a terminal or turn the order of letters around.
pub(crate) fn visible(text: &str) -> String {
    let steers = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    text.chars().map(|letter| if steers(letter) { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_say_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["a".into(), "bbb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "a    bbb\nccc  d\n");
    }

    #[test]
    fn times_read_as_a_clock_shows_them() {
        assert_eq!(clock(0), "1970-01-01 00:00:00");
        assert_eq!(clock(1_709_251_199_999), "2024-02-29 23:59:59");
        assert_eq!(clock(u64::MAX).len(), clock(0).len());
    }

    #[test]
    fn what_steers_a_terminal_is_not_shown() {
        assert_eq!(visible("a\u{1b}[2J\n\u{202e}b ä\u{2067}"), "a?[2J??b ä?");
    }
}
