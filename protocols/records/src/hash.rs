use multihash_codetable::{Code, MultihashDigest};

/// SHA2-256 of the parts, one behind the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let digest = Code::Sha2_256.digest(&parts.concat());
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest.digest()).for_each(|(byte, of)| *byte = *of);
    bytes
}
