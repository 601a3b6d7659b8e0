//! CAR: a DAG, or any blocks, in one stream of bytes.
//!
//! [`CarReader`] reads version 1 and version 2 (whose index it does not need) and gives verified blocks;
//! [`CarWriter`] writes version 1; [`import`] puts a whole CAR into a store. Everything streams over `std::io`, in
//! memory for one block; async code runs it on a thread that may block.
//!
//! What the specifications leave open is settled so:
//! - A section of length zero ends the blocks, if nothing but zeros follows: CARs are padded so for Filecoin.
//! - A header must be canonical DAG-CBOR with no keys but its own, as both specifications say and the Go and JavaScript
//!   implementations write it; any other is an error that says what is wrong with it.
//! - No root needs to be in the CAR, and a CAR may have none.
//!
//! Source: <https://ipld.io/specs/transport/car/carv1/>, <https://ipld.io/specs/transport/car/carv2/>.

mod header;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io::{self, Read};

use cid::Cid;

pub use self::{reader::CarReader, writer::CarWriter};
use crate::{BlockError, Blockstore, StoreError, batch::store_batched};

/// What [`import`] put into the store; durable when it is returned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// The roots that the header names, whether their blocks were in the CAR or not.
    pub roots: Vec<Cid>,
    /// Blocks in the CAR, repeated ones too.
    pub blocks: u64,
    /// Those that the store did not hold before.
    pub new_blocks: u64,
    /// Bytes of the blocks, without CIDs and prefixes.
    pub bytes: u64,
}

/// Puts every block of a CAR into `store`, in batches, and syncs it.
///
/// # Errors
/// Where the CAR is malformed or cut short, or the store fails, nothing is claimed: batches before that point may be
/// in the store, each block of them verified.
pub fn import(store: &dyn Blockstore, read: impl Read) -> Result<ImportReport, CarError> {
    let mut car = CarReader::new(read)?;
    let roots = car.roots().to_vec();
    let ((), stored) = store_batched(store, |sink| {
        for block in &mut car {
            sink.put(block?)?;
        }
        Ok::<(), CarError>(())
    })?;
    Ok(ImportReport { roots, blocks: stored.blocks, new_blocks: stored.new_blocks, bytes: stored.bytes })
}

/// Why a CAR could not be read, written or imported. `at` is an offset into the CAR in bytes, `blocks` counts the
/// blocks that came whole before it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarError {
    /// The source failed.
    #[error("the CAR could not be read at byte {at}, after {blocks} blocks: {source}")]
    Read {
        /// Where.
        at: u64,
        /// Whole blocks before.
        blocks: u64,
        /// What the source said.
        source: io::Error,
    },
    /// The target failed.
    #[error("the CAR could not be written: {0}")]
    Write(#[source] io::Error),
    /// The bytes end inside a header or a section.
    #[error("the CAR is cut short at byte {at}, after {blocks} whole blocks")]
    CutShort {
        /// Where the bytes end.
        at: u64,
        /// Whole blocks before.
        blocks: u64,
    },
    /// No header of a CAR.
    #[error("no CAR: the header that ends at byte {at} is malformed: {what}")]
    Header {
        /// Where the header ends.
        at: u64,
        /// What was wrong.
        what: String,
    },
    /// A header over its cap.
    #[error("a CAR header of {len} bytes where at most {max} may stand")]
    HeaderTooLong {
        /// Length in bytes.
        len: u64,
        /// The cap.
        max: usize,
    },
    /// More roots than a CAR may have.
    #[error("{len} roots of a CAR where at most {max} may stand")]
    TooManyRoots {
        /// How many.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// A version that we do not read.
    #[error("CAR version {0} is neither 1 nor 2")]
    Version(u64),
    /// A section whose prefix claims more than a block and its CID may have.
    #[error("a section of {len} bytes at byte {at} where at most {max} may stand, after {blocks} blocks")]
    SectionTooLong {
        /// Where the section begins.
        at: u64,
        /// Whole blocks before.
        blocks: u64,
        /// What the prefix claims.
        len: u64,
        /// The cap.
        max: usize,
    },
    /// A section that is no CID and block.
    #[error("the section at byte {at} is malformed, after {blocks} blocks: {what}")]
    Section {
        /// Where the section begins.
        at: u64,
        /// Whole blocks before.
        blocks: u64,
        /// What was wrong.
        what: String,
    },
    /// A block that is refused.
    #[error("the block at byte {at} is refused, after {blocks} others: {source}")]
    Block {
        /// Where its section begins.
        at: u64,
        /// Whole blocks before.
        blocks: u64,
        /// Why.
        source: BlockError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
