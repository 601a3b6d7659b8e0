//! Blocks of the network, with the one hash more that it uses.

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::limits::MAX_BLOCK_BYTES;
use dagmesh_dag::{Block, BlockError, Codec, HashCode};

/// Digests of this length are what SHA2-256 was cut to by old publishers.
const CUT_DIGEST_BYTES: usize = 16;

/// Takes `data` as the block of `cid`, after hashing it.
///
/// Beside what [`Block::verify`] takes, a SHA2-256 digest cut to 16 bytes proves a block of DAG-JSON, DAG-CBOR or raw
/// bytes: old publishers of the network name theirs so. Nowhere else is so short a digest enough: whoever makes both
/// blocks finds two with the same one, so this must only name what its publisher has made itself.
pub fn verify_block(cid: Cid, data: impl Into<Bytes>) -> Result<Block, BlockError> {
    let data = data.into();
    let hash = cid.hash();
    let of_the_network = matches!(Codec::try_from(cid.codec()), Ok(Codec::DagJson | Codec::DagCbor | Codec::Raw));
    if hash.code() != HashCode::Sha2_256 as u64 || hash.digest().len() != CUT_DIGEST_BYTES || !of_the_network {
        return Block::verify(cid, data);
    }
    if data.len() > MAX_BLOCK_BYTES {
        return Err(BlockError::TooLarge { len: data.len(), max: MAX_BLOCK_BYTES });
    }
    match HashCode::Sha2_256.digest(&data) {
        // Proven just now, by a rule that `Block::verify` does not have.
        Some(whole) if whole.digest().starts_with(hash.digest()) => Ok(Block::trusted(cid, data)),
        _ => Err(BlockError::Mismatch { cid: Box::new(cid), len: data.len() }),
    }
}

#[cfg(test)]
mod tests {
    use cid::multihash::Multihash;

    use super::*;
    use crate::NO_ENTRIES;

    fn cut(codec: u64, data: &[u8], len: usize) -> Cid {
        let whole = HashCode::Sha2_256.digest(data).expect("hashes");
        Cid::new_v1(codec, Multihash::wrap(0x12, &whole.digest()[..len]).expect("fits"))
    }

    #[test]
    fn a_digest_cut_to_16_bytes_proves_a_block_of_the_network_and_no_other_does() {
        let block = verify_block(cut(0x0129, b"{}", 16), &b"{}"[..]).expect("proven");
        assert_eq!(block.data().as_ref(), b"{}");
        assert!(verify_block(NO_ENTRIES, Bytes::new()).is_ok());
        for (codec, len) in [(0x0129, 15), (0x0129, 17), (0x0129, 0), (0x70, 16), (0x90, 16)] {
            assert!(matches!(verify_block(cut(codec, b"{}", len), &b"{}"[..]), Err(BlockError::Cid { .. })), "{len}");
        }
        assert!(matches!(verify_block(cut(0x0129, b"{}", 16), &b"[]"[..]), Err(BlockError::Mismatch { .. })));
        assert!(Block::verify(cut(0x0129, b"{}", 16), &b"{}"[..]).is_err(), "elsewhere it is refused");
    }

    #[test]
    fn a_whole_digest_proves_as_everywhere() {
        let whole = cut(0x71, b"\xa0", 32);
        assert!(verify_block(whole, &b"\xa0"[..]).is_ok());
        assert!(matches!(verify_block(whole, &b"\xa1"[..]), Err(BlockError::Mismatch { .. })));
    }

    #[test]
    fn a_block_under_a_cut_digest_is_taken_at_the_cap_and_refused_one_byte_over_it() {
        let data = vec![0; MAX_BLOCK_BYTES + 1];
        assert!(verify_block(cut(0x55, &data[1..], 16), data[1..].to_vec()).is_ok());
        assert!(matches!(verify_block(cut(0x55, &data, 16), data.clone()), Err(BlockError::TooLarge { .. })));
    }
}
