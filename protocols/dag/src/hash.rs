//! Which CIDs we take: the allow-list of codecs and hashes, and the bounds on digests.

use cid::Cid;
use dagmesh_core::limits;
use multihash_codetable::{Code, MultihashDigest};

/// Codecs whose links we read (multicodec table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u64)]
#[non_exhaustive]
pub enum Codec {
    /// Bytes without links.
    Raw = 0x55,
    /// DAG-PB, the codec of UnixFS.
    DagPb = 0x70,
    /// DAG-CBOR.
    DagCbor = 0x71,
    /// DAG-JSON.
    DagJson = 0x0129,
}

impl TryFrom<u64> for Codec {
    type Error = CidError;

    fn try_from(code: u64) -> Result<Self, CidError> {
        match code {
            0x55 => Ok(Self::Raw),
            0x70 => Ok(Self::DagPb),
            0x71 => Ok(Self::DagCbor),
            0x0129 => Ok(Self::DagJson),
            _ => Err(CidError::Codec(code)),
        }
    }
}

/// Hashes that prove a block (multicodec table). Whatever is not here is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u64)]
#[non_exhaustive]
pub enum HashCode {
    /// The content itself, at most [`limits::MAX_IDENTITY_BYTES`].
    Identity = 0x00,
    /// SHA2-256, the default.
    Sha2_256 = 0x12,
    /// SHA2-512.
    Sha2_512 = 0x13,
    /// BLAKE3 with 32 bytes.
    Blake3 = 0x1e,
    /// BLAKE2b with 32 bytes.
    Blake2b256 = 0xb220,
}

impl HashCode {
    /// Hashes `data`. For [`HashCode::Identity`], `None` where `data` is over its cap.
    pub fn digest(self, data: &[u8]) -> Option<cid::multihash::Multihash<64>> {
        let code = match self {
            Self::Identity => return cid::multihash::Multihash::wrap(0x00, data).ok(),
            Self::Sha2_256 => Code::Sha2_256,
            Self::Sha2_512 => Code::Sha2_512,
            Self::Blake3 => Code::Blake3_256,
            Self::Blake2b256 => Code::Blake2b256,
        };
        Some(code.digest(data))
    }
}

impl TryFrom<u64> for HashCode {
    type Error = CidError;

    fn try_from(code: u64) -> Result<Self, CidError> {
        match code {
            0x00 => Ok(Self::Identity),
            0x12 => Ok(Self::Sha2_256),
            0x13 => Ok(Self::Sha2_512),
            0x1e => Ok(Self::Blake3),
            0xb220 => Ok(Self::Blake2b256),
            _ => Err(CidError::Hash(code)),
        }
    }
}

/// Why a CID is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidError {
    /// No CID at all.
    #[error("{text:?} is no CID: {reason}")]
    Parse {
        /// What was given, cut to a bounded length.
        text: String,
        /// What was wrong.
        reason: String,
    },
    /// A codec whose links we cannot read.
    #[error("codec 0x{0:x} is none of raw, dag-pb, dag-cbor, dag-json")]
    Codec(u64),
    /// A hash that proves too little, or that we do not know.
    #[error("hash 0x{0:x} is none of sha2-256, sha2-512, blake3, blake2b-256, identity")]
    Hash(u64),
    /// A digest whose length is not the hash's own.
    #[error("a digest of {len} bytes where the hash gives {expected}")]
    Digest {
        /// Length found, in bytes.
        len: usize,
        /// Length expected, in bytes.
        expected: usize,
    },
    /// Inline content over its cap.
    #[error("{len} bytes inside an identity CID where at most {max} may stand")]
    Identity {
        /// Length found, in bytes.
        len: usize,
        /// The cap.
        max: usize,
    },
}

/// How much of a digest has to be there to prove a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Digests {
    /// All of it.
    #[default]
    Whole,
    /// All of it; or 16 bytes of a SHA2-256, for DAG-JSON, DAG-CBOR and raw bytes: the IPNI network names its blocks so.
    ///
    /// Whoever makes both blocks finds two with the same 16 bytes, so such a name must only stand for what its publisher
    /// has made itself.
    OrCut,
}

/// What the IPNI network leaves of a SHA2-256, in bytes.
const CUT_DIGEST_BYTES: usize = 16;

/// Refuses a CID whose codec or hash is not on the allow-list, or whose digest has not the length of its hash.
pub fn check_cid(cid: &Cid) -> Result<(Codec, HashCode), CidError> {
    check_cid_with(cid, Digests::Whole)
}

/// As [`check_cid`], where `digests` says how much of a digest has to be there.
pub fn check_cid_with(cid: &Cid, digests: Digests) -> Result<(Codec, HashCode), CidError> {
    let codec = Codec::try_from(cid.codec())?;
    let hash = HashCode::try_from(cid.hash().code())?;
    let len = cid.hash().digest().len();
    let expected = match hash {
        HashCode::Identity if len > limits::MAX_IDENTITY_BYTES => {
            return Err(CidError::Identity { len, max: limits::MAX_IDENTITY_BYTES });
        }
        HashCode::Identity => len,
        HashCode::Sha2_512 => 64,
        HashCode::Sha2_256 if len == CUT_DIGEST_BYTES && digests == Digests::OrCut && codec != Codec::DagPb => len,
        HashCode::Sha2_256 | HashCode::Blake3 | HashCode::Blake2b256 => 32,
    };
    if len == expected { Ok((codec, hash)) } else { Err(CidError::Digest { len, expected }) }
}

/// Reads a CID that a person typed, in any multibase, and checks it. Digests may be cut: they name what is held, and
/// whoever fetches decides again.
pub fn parse_cid(text: &str) -> Result<Cid, CidError> {
    let cid = Cid::try_from(text.strip_prefix("/ipfs/").unwrap_or(text))
        .map_err(|error| CidError::Parse { text: text.chars().take(80).collect(), reason: error.to_string() })?;
    check_cid_with(&cid, Digests::OrCut)?;
    Ok(cid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(codec: u64, hash: u64, digest: &[u8]) -> Cid {
        Cid::new_v1(codec, cid::multihash::Multihash::wrap(hash, digest).expect("fits"))
    }

    #[test]
    fn what_is_not_on_the_allow_list_is_refused() {
        assert!(check_cid(&cid(0x55, 0x12, &[1; 32])).is_ok());
        assert_eq!(check_cid(&cid(0x72, 0x12, &[1; 32])), Err(CidError::Codec(0x72)));
        assert_eq!(check_cid(&cid(0x55, 0x11, &[1; 20])), Err(CidError::Hash(0x11)), "sha1");
        assert_eq!(check_cid(&cid(0x55, 0xd5, &[1; 16])), Err(CidError::Hash(0xd5)), "md5");
        assert_eq!(check_cid(&cid(0x55, 0x12, &[1; 16])), Err(CidError::Digest { len: 16, expected: 32 }));
    }

    #[test]
    fn a_sha2_256_may_be_cut_to_16_bytes_where_that_is_asked_for_and_nothing_else_may() {
        for codec in [0x55, 0x71, 0x0129] {
            assert!(check_cid_with(&cid(codec, 0x12, &[1; 16]), Digests::OrCut).is_ok());
            for len in [0, 15, 17, 31] {
                let refused = Err(CidError::Digest { len, expected: 32 });
                assert_eq!(check_cid_with(&cid(codec, 0x12, &[1; 64][..len]), Digests::OrCut), refused);
            }
            for hash in [0x1e, 0xb220] {
                assert!(check_cid_with(&cid(codec, hash, &[1; 16]), Digests::OrCut).is_err());
            }
        }
        assert!(check_cid_with(&cid(0x70, 0x12, &[1; 16]), Digests::OrCut).is_err());
    }

    #[test]
    fn a_typo_in_a_cid_is_named() {
        let error = parse_cid("bafyreidykglsfhoixmivffc5uwhcgshx4j465xwqntbmu43nb2dzqwfva1").expect_err("a typo");
        assert!(error.to_string().contains("is no CID"), "{error}");
    }
}
