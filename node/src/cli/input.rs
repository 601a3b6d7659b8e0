//! What commands read beside words: a value that may stand in a file, a time, a number within its bounds.

use std::{io::Read, ops::RangeInclusive, path::Path, time::Duration};

use crate::{api::Result, error::NodeError};

/// Standard input, where a file is named.
const STDIN: &str = "-";

/// Units of a time, in seconds.
const UNITS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60), ("w", 7 * 24 * 60 * 60)];

/// Reads a file, or standard input where it is `-`, up to its end, which must come within `max` bytes.
///
/// # Errors
/// It cannot be read; it has more bytes than `what` it should be may have.
pub(super) async fn read(file: &str, max: usize, what: &str) -> Result<Vec<u8>> {
    // A byte over the cap shows that there is more.
    let bytes = read_up_to(file, max + 1).await?;
    if bytes.len() > max { Err(NodeError::usage(format!("{what} has more than {max} bytes"))) } else { Ok(bytes) }
}

/// As [`read`], so many bytes and no more. On a thread of its own: a read that waits for a person must not keep us from an
/// interrupt.
pub(super) async fn read_up_to(file: &str, most: usize) -> Result<Vec<u8>> {
    let file = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let (mut bytes, most) = (Vec::new(), most as u64);
        let read = match file.as_str() {
            STDIN => std::io::stdin().lock().take(most).read_to_end(&mut bytes),
            file => std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes)),
        };
        read.map_err(|error| match file.as_str() {
            STDIN => NodeError::other(format!("cannot read standard input: {error}")),
            file => NodeError::file("read", Path::new(file), &error),
        })?;
        Ok(bytes)
    });
    reading.await.map_err(|error| NodeError::other(error.to_string()))?
}

/// Reads a time off the command line: a number and its unit (`90s`, `30m`, `12h`, `7d`, `2w`), within bounds.
pub(super) fn time(text: &str, bounds: RangeInclusive<Duration>) -> std::result::Result<Duration, String> {
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
    let seconds = unit.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    let time = seconds.map(Duration::from_secs).filter(|time| bounds.contains(time));
    time.ok_or_else(|| {
        let (least, most) = (written(*bounds.start()), written(*bounds.end()));
        format!("a time from {least} to {most} is wanted: a number and s, m, h, d or w behind it, as 7d")
    })
}

/// A time as [`time`] reads it.
pub(super) fn written(time: Duration) -> String {
    let seconds = time.as_secs();
    // Nobody thinks of 30 days as of weeks.
    let units = UNITS.iter().rev().filter(|(name, _)| *name != "w");
    let (unit, each) = units.copied().find(|(_, each)| seconds > 0 && seconds % each == 0).unwrap_or(("s", 1));
    format!("{}{unit}", seconds / each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_its_unit_within_its_bounds() {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
        for (text, seconds) in
            [("1s", 1), ("90s", 90), ("2m", 120), ("12h", 43_200), ("30d", 2_592_000), ("1w", 604_800)]
        {
            let read = time(text, bounds.clone()).expect(text);
            assert_eq!(read, Duration::from_secs(seconds));
            assert_eq!(time(&written(read), bounds.clone()), Ok(read));
        }
        let huge = format!("{}w", u64::MAX);
        for text in ["", "7", "d", "7 d", "-1d", "1.5h", "7D", "0s", "31d", "ä", &huge] {
            let error = time(text, bounds.clone()).expect_err(text);
            assert!(error.contains("from 1s to 30d"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_up_to_its_cap_and_not_beyond() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("value");
        let file = path.to_str().expect("UTF-8");
        for (len, fits) in [(0, true), (10, true), (11, false)] {
            std::fs::write(&path, vec![7; len]).expect("writes");
            assert_eq!(read(file, 10, "the value").await.is_ok_and(|bytes| bytes.len() == len), fits);
        }
        // It has no end.
        let error = read("/dev/zero", 10, "the value").await.expect_err("too much");
        assert!(error.message.contains("the value has more than 10 bytes"), "{error}");
    }
}
