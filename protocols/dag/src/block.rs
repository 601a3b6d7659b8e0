//! A block, proven.

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits;

use crate::hash::{CidError, Codec, Digests, HashCode, check_cid_with};

/// A block whose bytes are proven to belong to its CID. There is no other way to hold one.
///
/// At most [`limits::MAX_BLOCK_BYTES`]; cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    data: Bytes,
}

/// Why bytes are no block of the given CID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The CID itself is refused.
    #[error("{cid} is refused: {reason}")]
    Cid {
        /// The CID.
        cid: Box<Cid>,
        /// Why.
        reason: CidError,
    },
    /// The bytes hash to something else.
    #[error("{len} bytes do not match their CID {cid}")]
    Mismatch {
        /// The CID that was claimed.
        cid: Box<Cid>,
        /// Length of the bytes.
        len: usize,
    },
    /// More bytes than a block may have.
    #[error("a block of {len} bytes where at most {max} may stand")]
    TooLarge {
        /// Length of the bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
}

impl Block {
    /// Makes the block of `data`: hashes it and names it by a CID of version 1.
    pub fn new(codec: Codec, hash: HashCode, data: impl Into<Bytes>) -> Result<Self, BlockError> {
        let data = data.into();
        check_len(data.len())?;
        let digest =
            hash.digest(&data).ok_or(BlockError::TooLarge { len: data.len(), max: limits::MAX_IDENTITY_BYTES })?;
        Ok(Self { cid: Cid::new_v1(codec as u64, digest), data })
    }

    /// Takes `data` as the block of `cid`, after hashing it.
    pub fn verify(cid: Cid, data: impl Into<Bytes>) -> Result<Self, BlockError> {
        Self::verify_with(cid, data, Digests::Whole)
    }

    /// As [`verify`](Self::verify), where `digests` says how much of a digest has to be there.
    pub fn verify_with(cid: Cid, data: impl Into<Bytes>, digests: Digests) -> Result<Self, BlockError> {
        let data = data.into();
        check_len(data.len())?;
        let checked = check_cid_with(&cid, digests);
        let (_, hash) = checked.map_err(|reason| BlockError::Cid { cid: Box::new(cid), reason })?;
        match hash.digest(&data) {
            // The length was checked: what is left of the digest is enough.
            Some(digest) if digest.digest().starts_with(cid.hash().digest()) => Ok(Self { cid, data }),
            _ => Err(BlockError::Mismatch { cid: Box::new(cid), len: data.len() }),
        }
    }

    /// Takes bytes that a [`Blockstore`](crate::Blockstore) gave for `cid` as its block, without hashing them again.
    ///
    /// A store holds only what was a `Block` when it was put; what rots on the disk is found by re-hashing
    /// (`repo verify`, sampled reads), and by whoever receives it.
    pub fn trusted(cid: Cid, data: Bytes) -> Self {
        Self { cid, data }
    }

    /// The block that an identity CID carries inside itself; `None` for every other CID.
    pub fn inline(cid: &Cid) -> Option<Self> {
        (cid.hash().code() == HashCode::Identity as u64)
            .then(|| Self { cid: *cid, data: Bytes::copy_from_slice(cid.hash().digest()) })
    }

    /// Its CID.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// Its bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Takes it apart.
    pub fn into_parts(self) -> (Cid, Bytes) {
        (self.cid, self.data)
    }
}

fn check_len(len: usize) -> Result<(), BlockError> {
    if len > limits::MAX_BLOCK_BYTES { Err(BlockError::TooLarge { len, max: limits::MAX_BLOCK_BYTES }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_its_cid_under_every_hash_of_the_allow_list() {
        for hash in [HashCode::Identity, HashCode::Sha2_256, HashCode::Sha2_512, HashCode::Blake3, HashCode::Blake2b256]
        {
            let block = Block::new(Codec::Raw, hash, &b"content"[..]).expect("a block");
            assert_eq!(Block::verify(*block.cid(), block.data().clone()), Ok(block.clone()));
            assert!(matches!(Block::verify(*block.cid(), &b"other"[..]), Err(BlockError::Mismatch { .. })));
        }
    }

    #[test]
    fn a_digest_cut_to_16_bytes_proves_a_block_only_where_that_is_asked_for() {
        let whole = HashCode::Sha2_256.digest(b"{}").expect("hashes");
        let cut = |len: usize| {
            Cid::new_v1(0x0129, cid::multihash::Multihash::wrap(0x12, &whole.digest()[..len]).expect("fits"))
        };
        let block = Block::verify_with(cut(16), &b"{}"[..], Digests::OrCut).expect("proven");
        assert_eq!((block.cid(), block.data().as_ref()), (&cut(16), &b"{}"[..]));
        for (cid, data, digests) in
            [(cut(16), &b"{}"[..], Digests::Whole), (cut(16), b"[]", Digests::OrCut), (cut(15), b"{}", Digests::OrCut)]
        {
            assert!(Block::verify_with(cid, data, digests).is_err(), "{cid} {digests:?}");
        }
    }

    #[test]
    fn a_block_is_taken_at_the_cap_and_refused_one_byte_over_it() {
        let max = limits::MAX_BLOCK_BYTES;
        assert!(Block::new(Codec::Raw, HashCode::Blake3, vec![0; max]).is_ok());
        assert_eq!(
            Block::new(Codec::Raw, HashCode::Blake3, vec![0; max + 1]),
            Err(BlockError::TooLarge { len: max + 1, max })
        );
    }
}
