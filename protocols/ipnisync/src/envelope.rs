//! Signed envelopes: a payload, of what type it is, and who says so.
//!
//! Source: <https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md>. `libp2p-core` has them as well, but
//! brings the whole network with it; beside its protobuf there is little to them.

use dagmesh_core::frame;
use libp2p_identity::{Keypair, PeerId, PublicKey};
use prost::Message;

use crate::IpniError;

/// The domain of every envelope of the network.
const DOMAIN: &[u8] = b"indexer";

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    /// The key in libp2p's protobuf: a message there, the same bytes.
    #[prost(bytes = "vec", tag = "1")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    payload_type: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    signature: Vec<u8>,
}

/// Signs `payload`; gives the envelope's bytes.
pub(crate) fn seal(key: &Keypair, payload_type: &str, payload: Vec<u8>) -> Result<Vec<u8>, IpniError> {
    let signature = key
        .sign(&signed_bytes(payload_type.as_bytes(), &payload))
        .map_err(|error| IpniError::Signing(error.to_string()))?;
    let public_key = key.public().encode_protobuf();
    Ok(Envelope { public_key, payload_type: payload_type.into(), payload, signature }.encode_to_vec())
}

/// Who has signed the envelope, and what stands in it. Checks the signature and the type, which the original does not.
pub(crate) fn open(what: &'static str, payload_type: &str, bytes: &[u8]) -> Result<(PeerId, Vec<u8>), IpniError> {
    let form = |reason: String| IpniError::Form { what, reason };
    let envelope = Envelope::decode(bytes).map_err(|error| form(error.to_string()))?;
    let key = PublicKey::try_decode_protobuf(&envelope.public_key).map_err(|error| form(error.to_string()))?;
    if envelope.payload_type != payload_type.as_bytes() {
        return Err(form(format!("the type of the envelope is not {payload_type}")));
    }
    let signer = key.to_peer_id();
    if !key.verify(&signed_bytes(&envelope.payload_type, &envelope.payload), &envelope.signature) {
        return Err(IpniError::Signature { what, signer });
    }
    Ok((signer, envelope.payload))
}

/// Domain, type and payload, each behind its length.
fn signed_bytes(payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DOMAIN.len() + payload_type.len() + payload.len() + 16);
    for part in [DOMAIN, payload_type, payload] {
        frame::append(&mut bytes, &[part]);
    }
    bytes
}
