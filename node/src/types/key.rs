//! Named keys.

use std::{fmt, str::FromStr};

use dagmesh_core::limits::MAX_KEY_NAME_BYTES;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::text;
use crate::error::NodeError;

/// The name of a key: 1 to 128 of the letters `A-Z a-z 0-9 . _ -`, the first neither a dot nor a dash. `self` is the
/// node's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

impl KeyName {
    /// The name of the node's own key.
    pub const OWN: &str = "self";

    /// Takes a name.
    ///
    /// # Errors
    /// It is none; [`ErrorKind::Usage`](crate::ErrorKind::Usage).
    pub fn new(name: impl Into<String>) -> Result<Self, NodeError> {
        let name = name.into();
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let fits = (1..=MAX_KEY_NAME_BYTES).contains(&name.len()) && name.bytes().all(letter);
        if !fits || name.starts_with(['.', '-']) {
            let shown: String = name.chars().take(MAX_KEY_NAME_BYTES).collect();
            return Err(NodeError::usage(format!(
                "{shown:?} is no name of a key: it has 1 to {MAX_KEY_NAME_BYTES} of the letters A-Z a-z 0-9 . _ - and \
                 begins with neither a dot nor a dash"
            )));
        }
        Ok(Self(name))
    }

    /// The name of the node's own key.
    pub fn own() -> Self {
        Self(Self::OWN.to_owned())
    }

    /// Whether it is the node's own.
    pub fn is_own(&self) -> bool {
        self.0 == Self::OWN
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeyName {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        Self::new(text)
    }
}

impl TryFrom<String> for KeyName {
    type Error = NodeError;

    fn try_from(text: String) -> Result<Self, NodeError> {
        Self::new(text)
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> Self {
        name.0
    }
}

/// A private key: libp2p's protobuf encoding, as `ipfs key export` writes it. What prints it for debugging shows nothing
/// of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateKey(#[serde(with = "text::base64")] pub Vec<u8>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({} bytes)", self.0.len())
    }
}

/// `key gen`, `key export`: one key, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// Which.
    pub name: KeyName,
}

/// `key import`: a key that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyImportRequest {
    /// How it is called here.
    pub name: KeyName,
    /// The key.
    pub key: PrivateKey,
}

/// A key of a node: `key gen`, `key ls`, `key import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyInfo {
    /// How it is called.
    pub name: KeyName,
    /// Whose records and names are signed with it.
    pub peer_id: PeerId,
    /// Its IPNS name, in base36.
    pub ipns: String,
    /// Its kind: `ed25519`, `secp256k1`, `ecdsa`, `rsa`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The public key, as `record get` reads it.
    pub public_key: String,
    /// Whether it is the node's own.
    pub own: bool,
}

/// `key export`: a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyExported {
    /// How it is called.
    pub name: KeyName,
    /// The key.
    pub key: PrivateKey,
}

impl KeyExported {
    pub(crate) fn new(name: KeyName, key: PrivateKey) -> Self {
        Self { name, key }
    }
}
