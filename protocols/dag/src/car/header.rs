//! The header of a CAR: DAG-CBOR of version and roots.

use cid::Cid;
use dagmesh_core::{bounded::BoundedVec, cbor, limits};
use serde::{Deserialize, Serialize};

use super::CarError;

/// The first bytes of every CARv2: the length 10, then DAG-CBOR of `{"version": 2}`. They read as a CARv1 header.
pub(super) const V2_PRAGMA_BYTES: u64 = 11;
/// Length of what follows the pragma.
pub(super) const V2_HEADER_BYTES: usize = 40;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) roots: Option<BoundedVec<Cid, { limits::MAX_CAR_ROOTS }>>,
    pub(super) version: u64,
}

impl Header {
    /// Decodes what stands before byte `at`; bounded and strict, as every DAG-CBOR message.
    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Self, CarError> {
        cbor::from_slice(bytes).map_err(|error| CarError::Header { at, what: error.to_string() })
    }

    pub(super) fn encode(roots: &[Cid]) -> Result<Vec<u8>, CarError> {
        let max = limits::MAX_CAR_ROOTS;
        let roots = BoundedVec::new(roots.to_vec()).map_err(|_| CarError::TooManyRoots { len: roots.len(), max })?;
        let bytes = cbor::to_vec(&Self { roots: Some(roots), version: 1 })
            .map_err(|error| CarError::Header { at: 0, what: error.to_string() })?;
        let max = limits::MAX_CAR_HEADER_BYTES;
        if bytes.len() > max { Err(CarError::HeaderTooLong { len: bytes.len() as u64, max }) } else { Ok(bytes) }
    }
}

/// Where in a CARv2 its CARv1 stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct V2Header {
    pub(super) data_offset: u64,
    pub(super) data_size: u64,
}

impl V2Header {
    /// Decodes 16 bytes of characteristics, then data offset, data size and index offset, each a little-endian u64.
    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Self, CarError> {
        let field = |from: usize| bytes.get(from..from + 8)?.try_into().ok().map(u64::from_le_bytes);
        let malformed = |what: &str| CarError::Header { at, what: what.into() };
        let (Some(data_offset), Some(data_size)) = (field(16), field(24)) else {
            return Err(malformed("too short"));
        };
        if data_offset < V2_PRAGMA_BYTES + V2_HEADER_BYTES as u64 {
            return Err(malformed("its data begins inside the header"));
        }
        if data_size == 0 || data_offset.checked_add(data_size).is_none() {
            return Err(malformed("its data has an impossible size"));
        }
        Ok(Self { data_offset, data_size })
    }
}
