//! Where a file is cut.

use std::io::{self, Read};

use dagmesh_core::limits;
use fastcdc::v2020::{self, FastCDC};

use super::UnixfsError;

/// How much is read from a file at once, at the least.
const READ_BYTES: usize = 256 * 1024;

/// How a file is cut into chunks. The same bytes under the same chunker give the same CID; no chunk is over
/// [`limits::MAX_CHUNK_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunker {
    /// Every chunk has this many bytes, but the last.
    Fixed(usize),
    /// Cut where the content says so (FastCDC, 2020), so that an insertion changes the chunks around it alone. Lengths
    /// in bytes, all even.
    ContentDefined {
        /// Shortest chunk; at least 64.
        min: usize,
        /// What most chunks are near to; at least 256.
        average: usize,
        /// Longest chunk; at least 1,024.
        max: usize,
    },
}

impl Chunker {
    /// Content-defined chunks of about [`limits::DEFAULT_CHUNK_BYTES`].
    pub fn content_defined() -> Self {
        let average = limits::DEFAULT_CHUNK_BYTES;
        Self::ContentDefined { min: average / 4, average, max: average * 4 }
    }

    fn longest(&self) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::ContentDefined { max, .. } => *max,
        }
    }

    fn check(&self) -> Result<(), UnixfsError> {
        let cap = limits::MAX_CHUNK_BYTES;
        let (sound, rule) = match *self {
            Self::Fixed(size) => ((1..=cap).contains(&size), "1"),
            Self::ContentDefined { min, average, max } => {
                let lowest = min >= v2020::MINIMUM_MIN && average >= v2020::AVERAGE_MIN && max >= v2020::MAXIMUM_MIN;
                let even = (min | average | max).is_multiple_of(2);
                (lowest && even && min <= average && average <= max && max <= cap, "64 <= min <= average <= max")
            }
        };
        if sound {
            Ok(())
        } else {
            Err(UnixfsError::Options(format!("{self:?}: chunks run from {rule} to {cap} bytes")))
        }
    }
}

impl Default for Chunker {
    fn default() -> Self {
        Self::Fixed(limits::DEFAULT_CHUNK_BYTES)
    }
}

/// Cuts one file after the other, over one buffer.
pub(super) struct Chunks {
    chunker: Chunker,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
}

impl Chunks {
    pub(super) fn new(chunker: Chunker) -> Result<Self, UnixfsError> {
        chunker.check()?;
        let buffer = match chunker {
            // A whole number of chunks, so that nothing is moved inside the buffer.
            Chunker::Fixed(size) => size * (READ_BYTES / size).max(1),
            Chunker::ContentDefined { max, .. } => (4 * max).max(READ_BYTES),
        };
        Ok(Self { chunker, buffer: vec![0; buffer], start: 0, end: 0, at_end: false })
    }

    /// Forgets the last file.
    pub(super) fn reset(&mut self) {
        (self.start, self.end, self.at_end) = (0, 0, false);
    }

    /// The next chunk of `file`; `None` at its end.
    pub(super) fn next(&mut self, file: &mut impl Read) -> io::Result<Option<&[u8]>> {
        if self.end - self.start < self.chunker.longest() && !self.at_end {
            self.fill(file)?;
        }
        let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let len = match self.chunker {
            Chunker::Fixed(size) => size.min(rest.len()),
            Chunker::ContentDefined { min, average, max } => {
                FastCDC::new(rest, min, average, max).next().map_or(rest.len(), |chunk| chunk.length)
            }
        };
        self.start += len;
        Ok(rest.get(..len))
    }

    fn fill(&mut self, file: &mut impl Read) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while let Some(free) = self.buffer.get_mut(self.end..).filter(|free| !free.is_empty()) {
            match file.read(free) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(len) => self.end += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
