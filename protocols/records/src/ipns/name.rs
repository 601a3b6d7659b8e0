//! Names of IPNS, and where they stand.

use std::{fmt, str::FromStr};

use cid::{Cid, multibase::Base};
use dagmesh_core::limits::MAX_IPNS_NAME_BYTES;
use data_encoding::BASE64URL_NOPAD;
use libp2p_identity::{PeerId, PublicKey};

use crate::error::{RecordError, check_len};

/// What an IPNS key in the DHT begins with; the multihash of the name stands behind it.
pub(crate) const IPNS_PREFIX: &[u8] = b"/ipns/";
/// Codec of a CID that names a public key (multicodec table).
const LIBP2P_KEY: u64 = 0x72;
/// Multihash code of a key that stands in its own name.
const IDENTITY: u64 = 0x00;
/// Length of a SHA2-256, in bytes.
const SHA2_256_BYTES: usize = 32;

/// An IPNS name: the multihash of a public key, which is a peer id.
///
/// As text a CIDv1 of libp2p-key in base36, as Kubo writes it. Read are CIDs of libp2p-key in any base, and peer ids in
/// base58, each with or without `/ipns/` before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpnsName(PeerId);

impl IpnsName {
    /// The name of a public key.
    pub fn of(key: &PublicKey) -> Self {
        Self(key.to_peer_id())
    }

    /// The peer id that it is.
    pub fn peer_id(&self) -> PeerId {
        self.0
    }

    /// Its key in the DHT: `/ipns/` and the bytes of the multihash.
    pub fn key(&self) -> Vec<u8> {
        [IPNS_PREFIX, &self.0.to_bytes()].concat()
    }

    /// The name whose key in the DHT this is.
    pub fn from_key(key: &[u8]) -> Result<Self, RecordError> {
        let what = "key of an IPNS name";
        let bytes = key.strip_prefix(IPNS_PREFIX).ok_or_else(|| RecordError::form(what, "it has another prefix"))?;
        let peer = PeerId::from_bytes(bytes).map_err(|error| RecordError::form(what, error))?;
        if peer.to_bytes() != bytes {
            return Err(RecordError::form(what, "the multihash is not in its one form"));
        }
        Self::checked(what, peer)
    }

    /// The topic on which its records travel (`/record/` and the key in base64url without padding).
    ///
    /// Source: <https://specs.ipfs.tech/ipns/ipns-pubsub-router/>.
    pub fn topic(&self) -> String {
        format!("/record/{}", BASE64URL_NOPAD.encode(&self.key()))
    }

    /// The name whose topic this is; `None` where it is none of IPNS.
    pub fn from_topic(topic: &str) -> Option<Self> {
        let key = topic.strip_prefix("/record/")?;
        (key.len() <= MAX_IPNS_NAME_BYTES).then_some(())?;
        Self::from_key(&BASE64URL_NOPAD.decode(key.as_bytes()).ok()?).ok()
    }

    /// The public key, where the name holds it (Ed25519 and secp256k1).
    pub fn public_key(&self) -> Option<PublicKey> {
        let multihash = self.0.as_ref();
        if multihash.code() != IDENTITY {
            return None;
        }
        let key = PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
        (key.to_peer_id() == self.0).then_some(key)
    }

    fn checked(what: &'static str, peer: PeerId) -> Result<Self, RecordError> {
        let multihash = peer.as_ref();
        if multihash.code() != IDENTITY && multihash.digest().len() != SHA2_256_BYTES {
            return Err(RecordError::form(what, "its digest is cut"));
        }
        Ok(Self(peer))
    }
}

impl TryFrom<PeerId> for IpnsName {
    type Error = RecordError;

    /// The name of a peer's key.
    fn try_from(peer: PeerId) -> Result<Self, RecordError> {
        Self::checked("IPNS name", peer)
    }
}

impl fmt::Display for IpnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cid = Cid::new_v1(LIBP2P_KEY, *self.0.as_ref());
        f.write_str(&cid.to_string_of_base(Base::Base36Lower).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for IpnsName {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let what = "IPNS name";
        check_len("an IPNS name", text.len(), MAX_IPNS_NAME_BYTES)?;
        let text = text.strip_prefix("/ipns/").unwrap_or(text);
        // As go-libp2p tells them apart: no CID of a key begins so.
        if text.starts_with("Qm") || text.starts_with('1') {
            let peer = PeerId::from_str(text).map_err(|error| RecordError::form(what, error))?;
            return Self::checked(what, peer);
        }
        let cid = Cid::try_from(text).map_err(|error| RecordError::form(what, error))?;
        if cid.codec() != LIBP2P_KEY {
            return Err(RecordError::form(what, format!("a CID of codec 0x{:x}, not of a key", cid.codec())));
        }
        let multihash = *cid.hash();
        let peer = PeerId::from_multihash(multihash)
            .map_err(|hash| RecordError::form(what, format!("hash 0x{:x} names no key", hash.code())))?;
        Self::checked(what, peer)
    }
}
