use std::{
    fmt,
    io::{self, BufRead, BufReader, Read},
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::{limits, take_cid};

use super::{
    CarError,
    header::{Header, V2_HEADER_BYTES, V2Header},
};
use crate::Block;

/// How much is asked of the source at once.
const READ_BYTES: usize = 64 * 1024;
/// Longest length prefix: nine bytes carry 63 bits (multiformats unsigned-varint).
const MAX_PREFIX_BYTES: usize = 9;
/// Longest section: a block and its CID.
const MAX_SECTION_BYTES: usize = limits::MAX_CID_BYTES + limits::MAX_BLOCK_BYTES;

/// Reads a CAR of version 1 or 2: the header at once, then one verified [`Block`] after the other, as an iterator that
/// ends after its first error.
///
/// Memory: one block and a buffer of 64 KiB. Every length is checked before memory is taken for it
/// ([`limits::MAX_CAR_HEADER_BYTES`], [`limits::MAX_CAR_ROOTS`], [`limits::MAX_BLOCK_BYTES`]).
pub struct CarReader<R> {
    source: BufReader<R>,
    /// Bytes read so far.
    at: u64,
    /// Where the data of a CARv2 ends.
    end: Option<u64>,
    version: u64,
    roots: Vec<Cid>,
    blocks: u64,
    done: bool,
}

impl<R: Read> CarReader<R> {
    /// Reads the header.
    pub fn new(read: R) -> Result<Self, CarError> {
        let mut reader = Self {
            source: BufReader::with_capacity(READ_BYTES, read),
            at: 0,
            end: None,
            version: 1,
            roots: Vec::new(),
            blocks: 0,
            done: false,
        };
        let mut header = reader.header()?;
        if header.version == 2 && header.roots.is_none() {
            reader.version = 2;
            let bytes = reader.exact(V2_HEADER_BYTES)?;
            let v2 = V2Header::decode(&bytes, reader.at)?;
            reader.skip_bytes(v2.data_offset - reader.at)?;
            reader.end = Some(v2.data_offset + v2.data_size);
            header = reader.header()?;
        }
        if header.version != 1 {
            return Err(CarError::Version(header.version));
        }
        let Some(roots) = header.roots else {
            return Err(CarError::Header { at: reader.at, what: "it names no list of roots".into() });
        };
        reader.roots = roots.into_inner();
        Ok(reader)
    }

    /// The version: 1 or 2.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The roots that the header names.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.at
    }

    fn header(&mut self) -> Result<Header, CarError> {
        let max = limits::MAX_CAR_HEADER_BYTES;
        let Some(len) = self.varint()? else { return Err(self.cut_short()) };
        if len > max as u64 {
            return Err(CarError::HeaderTooLong { len, max });
        }
        let bytes = self.exact(len as usize)?;
        Header::decode(&bytes, self.at)
    }

    fn section(&mut self) -> Result<Option<Block>, CarError> {
        let (at, blocks) = (self.at, self.blocks);
        let len = match self.varint()? {
            None => return Ok(None),
            Some(0) => return self.padding().map(|()| None),
            Some(len) => len,
        };
        if len > MAX_SECTION_BYTES as u64 {
            return Err(CarError::SectionTooLong { at, blocks, len, max: MAX_SECTION_BYTES });
        }
        let bytes = Bytes::from(self.exact(len as usize)?);
        let mut rest = bytes.as_ref();
        let cid = take_cid(&mut rest).map_err(|error| CarError::Section {
            at,
            blocks,
            what: format!("it begins with {error}"),
        })?;
        let data = bytes.slice(bytes.len() - rest.len()..);
        let block = Block::verify(cid, data).map_err(|source| CarError::Block { at, blocks, source })?;
        self.blocks += 1;
        Ok(Some(block))
    }

    /// Reads the zeros that may follow the last section.
    fn padding(&mut self) -> Result<(), CarError> {
        loop {
            let (at, blocks) = (self.at, self.blocks);
            let left = self.left();
            let buffer = fill(&mut self.source, at, blocks)?;
            let buffer = buffer.get(..left.min(buffer.len() as u64) as usize).unwrap_or(buffer);
            if buffer.is_empty() {
                return Ok(());
            }
            if let Some(position) = buffer.iter().position(|byte| *byte != 0) {
                let at = at + position as u64;
                return Err(CarError::Section { at, blocks, what: "it follows a section of length zero".into() });
            }
            let len = buffer.len();
            self.source.consume(len);
            self.at += len as u64;
        }
    }

    /// A length prefix; `None` where the data ends before it.
    fn varint(&mut self) -> Result<Option<u64>, CarError> {
        let start = self.at;
        let mut value = 0;
        for index in 0..MAX_PREFIX_BYTES {
            let Some(byte) = self.byte()? else {
                return if index == 0 { Ok(None) } else { Err(self.cut_short()) };
            };
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    break;
                }
                return Ok(Some(value));
            }
        }
        let what = "its length prefix is not a canonical varint".into();
        Err(CarError::Section { at: start, blocks: self.blocks, what })
    }

    fn byte(&mut self) -> Result<Option<u8>, CarError> {
        if self.left() == 0 {
            return Ok(None);
        }
        let byte = fill(&mut self.source, self.at, self.blocks)?.first().copied();
        if byte.is_some() {
            self.source.consume(1);
            self.at += 1;
        }
        Ok(byte)
    }

    /// The next `len` bytes; the caller has checked `len` against its cap.
    fn exact(&mut self, len: usize) -> Result<Vec<u8>, CarError> {
        let (at, blocks) = (self.at, self.blocks);
        let wanted = self.left().min(len as u64);
        let mut bytes = Vec::with_capacity(wanted as usize);
        let read = (&mut self.source).take(wanted).read_to_end(&mut bytes);
        self.at += bytes.len() as u64;
        read.map_err(|source| CarError::Read { at, blocks, source })?;
        if bytes.len() < len { Err(self.cut_short()) } else { Ok(bytes) }
    }

    fn skip_bytes(&mut self, len: u64) -> Result<(), CarError> {
        let (at, blocks) = (self.at, self.blocks);
        let skipped = io::copy(&mut (&mut self.source).take(len), &mut io::sink())
            .map_err(|source| CarError::Read { at, blocks, source })?;
        self.at += skipped;
        if skipped < len { Err(self.cut_short()) } else { Ok(()) }
    }

    /// Bytes until the data ends, as far as the header tells.
    fn left(&self) -> u64 {
        self.end.map_or(u64::MAX, |end| end.saturating_sub(self.at))
    }

    fn cut_short(&self) -> CarError {
        CarError::CutShort { at: self.at, blocks: self.blocks }
    }

    /// Whether a CARv2 ends before the size that its header claims.
    fn ends_early(&self) -> bool {
        self.end.is_some_and(|end| self.at < end)
    }
}

impl<R: Read> Iterator for CarReader<R> {
    type Item = Result<Block, CarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let section = match self.section() {
            Ok(None) if self.ends_early() => Err(self.cut_short()),
            section => section,
        };
        self.done = !matches!(section, Ok(Some(_)));
        section.transpose()
    }
}

impl<R> fmt::Debug for CarReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, version, roots, blocks, .. } = self;
        f.debug_struct("CarReader")
            .field("version", version)
            .field("roots", roots)
            .field("at", at)
            .field("blocks", blocks)
            .finish_non_exhaustive()
    }
}

fn fill<R: Read>(source: &mut BufReader<R>, at: u64, blocks: u64) -> Result<&[u8], CarError> {
    // `fill_buf` retries nothing by itself, and its borrow forbids a loop that returns it.
    while let Err(error) = source.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(CarError::Read { at, blocks, source: error });
        }
    }
    Ok(source.buffer())
}
