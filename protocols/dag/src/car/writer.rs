use std::io::{BufWriter, Write};

use cid::Cid;

use super::{CarError, header::Header};
use crate::Block;

/// How much is given to the target at once.
const WRITE_BYTES: usize = 256 * 1024;

/// Writes a CAR of version 1, block by block, in the order given; it neither orders nor drops repeated blocks.
#[derive(Debug)]
pub struct CarWriter<W: Write> {
    target: BufWriter<W>,
    blocks: u64,
    bytes: u64,
}

impl<W: Write> CarWriter<W> {
    /// Writes the header. At most [`MAX_CAR_ROOTS`](dagmesh_core::limits::MAX_CAR_ROOTS) roots; one more is an error.
    pub fn new(write: W, roots: &[Cid]) -> Result<Self, CarError> {
        let header = Header::encode(roots)?;
        let mut writer = Self { target: BufWriter::with_capacity(WRITE_BYTES, write), blocks: 0, bytes: 0 };
        writer.put(&[unsigned_varint::encode::usize(header.len(), &mut Default::default()), &header])?;
        Ok(writer)
    }

    /// Writes one block.
    pub fn write(&mut self, block: &Block) -> Result<(), CarError> {
        let cid = block.cid().to_bytes();
        let len = cid.len() + block.data().len();
        self.put(&[unsigned_varint::encode::usize(len, &mut Default::default()), &cid, block.data()])?;
        self.blocks += 1;
        Ok(())
    }

    /// Flushes and gives the target back. A CAR that was not finished may lack its last blocks.
    pub fn finish(mut self) -> Result<W, CarError> {
        self.target.flush().map_err(CarError::Write)?;
        self.target.into_inner().map_err(|error| CarError::Write(error.into_error()))
    }

    /// Blocks written so far.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Length of the CAR so far, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn put(&mut self, parts: &[&[u8]]) -> Result<(), CarError> {
        for part in parts {
            self.target.write_all(part).map_err(CarError::Write)?;
            self.bytes += part.len() as u64;
        }
        Ok(())
    }
}
