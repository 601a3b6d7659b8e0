//! The head of a publisher's chain.

use cid::Cid;
use dagmesh_core::limits::{MAX_IPNI_HEAD_BYTES, MAX_TOPIC_BYTES};
use dagmesh_dag::Codec;
use libp2p_identity::{Keypair, PeerId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::{
    IpniError,
    wire::{self, Map, check},
};

const WHAT: &str = "signed head of a chain";

/// A publisher's word that its chain begins with an advertisement. Exists only with a checked signature.
///
/// It has neither number nor time: an old one can be replayed, and whoever follows must not take an ancestor of what it
/// has for news. On the wire: a map `{head, topic, pubkey, sig}`, DAG-JSON, of at most [`MAX_IPNI_HEAD_BYTES`]; `pubkey`
/// is libp2p's protobuf encoding, the signature is over the bytes of the CID and the topic.
///
/// Source: go-libipni 0.7, `dagsync/ipnisync/head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    fields: Fields,
    publisher: PeerId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(with = "wire::link")]
    head: Cid,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::optional_text")]
    topic: Option<String>,
    #[serde(with = "wire::bytes")]
    pubkey: Vec<u8>,
    #[serde(with = "wire::bytes")]
    sig: Vec<u8>,
}

impl Fields {
    fn check(&self) -> Result<(), IpniError> {
        check("bytes of a topic", self.topic.as_ref().map_or(0, String::len), MAX_TOPIC_BYTES)?;
        // As announcements have it: a chain begins with an advertisement, and that is of one of these.
        match Codec::try_from(self.head.codec()) {
            Ok(Codec::DagJson | Codec::DagCbor) => Ok(()),
            _ => Err(IpniError::Head(Box::new(self.head))),
        }
    }

    fn signed_bytes(&self) -> Vec<u8> {
        [&self.head.to_bytes()[..], self.topic.as_deref().unwrap_or_default().as_bytes()].concat()
    }
}

impl SignedHead {
    /// Signs that the chain begins with `head`. The topic is left out where it is empty; readers take
    /// `/indexer/ingest/mainnet` for granted then.
    pub fn sign(key: &Keypair, head: Cid, topic: &str) -> Result<Self, IpniError> {
        let topic = (!topic.is_empty()).then(|| topic.to_owned());
        let mut fields = Fields { head, topic, pubkey: key.public().encode_protobuf(), sig: Vec::new() };
        fields.check()?;
        fields.sig = key.sign(&fields.signed_bytes()).map_err(|error| IpniError::Signing(error.to_string()))?;
        Ok(Self { fields, publisher: key.public().to_peer_id() })
    }

    /// Reads a head and checks its signature. Whether its signer is the peer that was asked for is for the caller to
    /// compare. Over HTTP it is [`Codec::DagJson`].
    pub fn decode(codec: Codec, bytes: &[u8]) -> Result<Self, IpniError> {
        let Map(fields): Map<Fields> = wire::decode(WHAT, codec, bytes, MAX_IPNI_HEAD_BYTES)?;
        fields.check()?;
        let key = PublicKey::try_decode_protobuf(&fields.pubkey)
            .map_err(|error| IpniError::Form { what: WHAT, reason: error.to_string() })?;
        let publisher = key.to_peer_id();
        if !key.verify(&fields.signed_bytes(), &fields.sig) {
            return Err(IpniError::Signature { what: WHAT, signer: publisher });
        }
        Ok(Self { fields, publisher })
    }

    /// Its bytes, canonical.
    pub fn encode(&self, codec: Codec) -> Result<Vec<u8>, IpniError> {
        wire::encode(WHAT, codec, &self.fields, MAX_IPNI_HEAD_BYTES)
    }

    /// Who signed it.
    pub fn publisher(&self) -> PeerId {
        self.publisher
    }

    /// The newest advertisement.
    pub fn head(&self) -> &Cid {
        &self.fields.head
    }

    /// On which topic it is announced; none stands for `/indexer/ingest/mainnet`. CID and topic are signed without a mark
    /// between them, yet a CID says how long it is.
    pub fn topic(&self) -> Option<&str> {
        self.fields.topic.as_deref()
    }
}

#[cfg(test)]
mod tests;
