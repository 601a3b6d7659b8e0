use std::fmt;

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::error::RecordError;

/// Latest time that can be written: the end of the year 9999, in seconds since the Unix epoch.
const LATEST_SECS: u64 = 253_402_300_799;
/// Longest text of a time: a year of four digits, nanoseconds and an offset; more digits say nothing more.
const MAX_TEXT_BYTES: usize = 64;

/// Until when an IPNS record is valid, to the nanosecond: from the Unix epoch to the end of the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Validity {
    secs: u64,
    nanos: u32,
}

impl Validity {
    /// The time of so many Unix milliseconds; what is too late is the latest one.
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        let nanos = u32::try_from(unix_ms % 1000 * 1_000_000).unwrap_or_default();
        match unix_ms / 1000 {
            secs if secs <= LATEST_SECS => Self { secs, nanos },
            _ => Self { secs: LATEST_SECS, nanos: 999_999_999 },
        }
    }

    /// The same in Unix milliseconds, cut.
    pub fn unix_ms(&self) -> u64 {
        self.secs * 1000 + u64::from(self.nanos / 1_000_000)
    }

    /// Seconds since the Unix epoch, and the rest in nanoseconds.
    pub(crate) fn since_epoch(&self) -> (u64, u32) {
        (self.secs, self.nanos)
    }

    /// Reads the text of RFC 3339, with any offset.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, RecordError> {
        let what = "validity of an IPNS record";
        let none = || RecordError::form(what, "it is not a time by RFC 3339");
        let text = Some(text).filter(|text| text.len() <= MAX_TEXT_BYTES).ok_or_else(none)?;
        let text = std::str::from_utf8(text).map_err(|_| none())?;
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| none())?;
        // A time before the epoch is as long past as the epoch.
        let secs = u64::try_from(time.unix_timestamp());
        Ok(secs.map_or(Self { secs: 0, nanos: 0 }, |secs| Self { secs, nanos: time.nanosecond() }))
    }
}

impl fmt::Display for Validity {
    /// RFC 3339 in UTC, the fraction of a second as long as it needs to be, as Go writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos);
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| fmt::Error)?;
        f.write_str(&time.to_offset(UtcOffset::UTC).format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}
