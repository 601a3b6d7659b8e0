//! Advertisements.

use cid::{Cid, multihash::Multihash};
use dagmesh_core::limits::{
    MAX_IPNI_AD_BYTES, MAX_IPNI_ADDR_BYTES, MAX_IPNI_ADDRS, MAX_IPNI_CONTEXT_ID_BYTES, MAX_IPNI_METADATA_BYTES,
    MAX_IPNI_PEER_ID_BYTES, MAX_IPNI_PROVIDERS, MAX_IPNI_SIGNATURE_BYTES,
};
use dagmesh_dag::{Block, Codec, HashCode};
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use crate::{
    IpniError,
    wire::{self, Map, check, codec_of},
};

/// What [`Advertisement::entries`] names where there are none: the SHA2-256 of nothing, cut to 16 bytes,
/// `bafkreehdwdcefgh4dqkjv67uzcmw7oje`. An advertisement with it changes metadata or addresses, or removes.
pub const NO_ENTRIES: Cid = {
    let digest = [0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24];
    let hash = Multihash::wrap(HashCode::Sha2_256 as u64, &digest);
    let cid = match &hash {
        Ok(hash) => Cid::new_v1(Codec::Raw as u64, *hash),
        Err(_) => panic!("16 bytes fit"),
    };
    // A constant cannot drop what may hold an error.
    std::mem::forget(hash);
    cid
};

const WHAT: &str = "advertisement";

/// One link of a publisher's chain: that a provider has (or has no more) the content that some multihashes name.
///
/// On the wire: a map of at most [`MAX_IPNI_AD_BYTES`] with the fields of the schema below, DAG-JSON or DAG-CBOR, what
/// is absent left out. Its signature is checked by [`Advertisement::verify`], not on decoding.
///
/// Source: go-libipni 0.7, `ingest/schema/schema.ipldsch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct Advertisement {
    /// The advertisement before this one; none in the first.
    #[serde(rename = "PreviousID", default, skip_serializing_if = "Option::is_none", with = "wire::optional_link")]
    pub previous_id: Option<Cid>,
    /// The peer that has the content, as text; see [`Advertisement::provider_id`].
    pub provider: String,
    /// Where it can be reached: multiaddrs as text, at most [`MAX_IPNI_ADDRS`] of at most [`MAX_IPNI_ADDR_BYTES`].
    /// They are not parsed here: readers skip those that they do not know.
    #[serde(deserialize_with = "wire::at_most::<_, _, MAX_IPNI_ADDRS>")]
    pub addresses: Vec<String>,
    /// The signed envelope; [`Advertisement::sign`] fills it in. At most [`MAX_IPNI_SIGNATURE_BYTES`].
    #[serde(with = "wire::bytes")]
    pub signature: Vec<u8>,
    /// The newest of its entry chunks, the root of a HAMT, or [`NO_ENTRIES`].
    #[serde(with = "wire::link")]
    pub entries: Cid,
    /// What the provider calls these entries, at most [`MAX_IPNI_CONTEXT_ID_BYTES`]. The signature of the advertisement
    /// does not cover it, those of extended providers do.
    #[serde(rename = "ContextID", with = "wire::bytes")]
    pub context_id: Vec<u8>,
    /// How the content is fetched, in the form of the protocol that it names, at most [`MAX_IPNI_METADATA_BYTES`].
    #[serde(with = "wire::bytes")]
    pub metadata: Vec<u8>,
    /// Whether the provider has it no more.
    pub is_rm: bool,
    /// Others who have it too. The signature of the advertisement does not cover them: they sign for themselves.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "wire::optional_map")]
    pub extended_provider: Option<ExtendedProvider>,
}

/// Who else has what an advertisement is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct ExtendedProvider {
    /// They, at most [`MAX_IPNI_PROVIDERS`]. The provider of the advertisement must be among them, unless there are none.
    #[serde(deserialize_with = "wire::maps::<_, _, MAX_IPNI_PROVIDERS>")]
    pub providers: Vec<Provider>,
    /// Whether they replace those named for the whole chain, instead of joining them. Indexers take no advertisement
    /// that says so without a context id.
    #[serde(rename = "Override")]
    pub overrides: bool,
}

/// One extended provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct Provider {
    /// The peer, as text.
    #[serde(rename = "ID")]
    pub id: String,
    /// Where it can be reached; bounded as those of the advertisement.
    #[serde(deserialize_with = "wire::at_most::<_, _, MAX_IPNI_ADDRS>")]
    pub addresses: Vec<String>,
    /// How the content is fetched from it; bounded as that of the advertisement.
    #[serde(with = "wire::bytes")]
    pub metadata: Vec<u8>,
    /// Its signed envelope; [`Advertisement::sign_with_extended`] fills it in.
    #[serde(with = "wire::bytes")]
    pub signature: Vec<u8>,
}

impl Advertisement {
    /// Reads an advertisement. Total and bounded; nothing is checked but form and caps.
    pub fn decode(codec: Codec, bytes: &[u8]) -> Result<Self, IpniError> {
        let Map(ad): Map<Self> = wire::decode(WHAT, codec, bytes, MAX_IPNI_AD_BYTES)?;
        ad.check().map(|()| ad)
    }

    /// Its bytes, canonical. Fails where a cap is passed, so that nobody is sent what nobody takes.
    pub fn encode(&self, codec: Codec) -> Result<Vec<u8>, IpniError> {
        self.check()?;
        wire::encode(WHAT, codec, self, MAX_IPNI_AD_BYTES)
    }

    /// Reads an advertisement from its block, in the codec that the CID names.
    pub fn from_block(block: &Block) -> Result<Self, IpniError> {
        Self::decode(codec_of(block)?, block.data())
    }

    /// The advertisement as a block, under SHA2-256.
    pub fn to_block(&self, codec: Codec) -> Result<Block, IpniError> {
        Ok(Block::new(codec, HashCode::Sha2_256, self.encode(codec)?)?)
    }

    /// The provider, if its text is a peer id in one of its two forms.
    pub fn provider_id(&self) -> Option<PeerId> {
        parse_peer(&self.provider)
    }

    fn check(&self) -> Result<(), IpniError> {
        check("bytes of a context id", self.context_id.len(), MAX_IPNI_CONTEXT_ID_BYTES)?;
        check_provider(&self.provider, &self.addresses, &self.metadata, &self.signature)?;
        let extended = self.extended_provider.as_ref().map(|extended| &extended.providers[..]).unwrap_or_default();
        check("extended providers", extended.len(), MAX_IPNI_PROVIDERS)?;
        extended
            .iter()
            .try_for_each(|entry| check_provider(&entry.id, &entry.addresses, &entry.metadata, &entry.signature))
    }
}

impl Provider {
    /// The peer, if its text is a peer id in one of its two forms.
    pub fn peer_id(&self) -> Option<PeerId> {
        parse_peer(&self.id)
    }
}

fn check_provider(id: &str, addresses: &[String], metadata: &[u8], signature: &[u8]) -> Result<(), IpniError> {
    check("bytes of a provider's id", id.len(), MAX_IPNI_PEER_ID_BYTES)?;
    check("addresses of a provider", addresses.len(), MAX_IPNI_ADDRS)?;
    for address in addresses {
        check("bytes of an address", address.len(), MAX_IPNI_ADDR_BYTES)?;
    }
    check("bytes of metadata", metadata.len(), MAX_IPNI_METADATA_BYTES)?;
    check("bytes of a signature", signature.len(), MAX_IPNI_SIGNATURE_BYTES)
}

/// A peer id as text: base58, or a CID of the codec `libp2p-key`.
///
/// Source: <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md> ("String representation").
fn parse_peer(text: &str) -> Option<PeerId> {
    const LIBP2P_KEY: u64 = 0x72;
    text.parse().ok().or_else(|| {
        let cid = wire::parse_link(text).ok().filter(|cid| cid.codec() == LIBP2P_KEY)?;
        PeerId::from_multihash(*cid.hash()).ok()
    })
}

#[cfg(test)]
mod tests;
