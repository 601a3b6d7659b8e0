//! How a record, a public key and a content path are written.

use std::{fmt, str::FromStr};

use cid::multibase;
use dagmesh_core::limits::{MAX_IPNS_RECORD_BYTES, MAX_KAD_KEY_BYTES, MAX_RECORD_BYTES};
use dagmesh_records::{IpnsName, RECORD_PREFIX, RecordName, record_key};
use data_encoding::BASE32_NOPAD;
use libp2p::identity::PublicKey;

use crate::error::NodeError;

/// What the key of an IPNS record begins with, as text too.
const IPNS: &str = "/ipns/";

/// Which record: its key in the DHT, or its owner's public key and its name.
///
/// As text either `/dagmesh/record/` and the hash behind it in base32 (RFC 4648, lower case, no padding), as `put` prints
/// it; or `PUBLICKEY/NAME`. A public key is written as the peer id or IPNS name where that holds the key (Ed25519,
/// secp256k1), else as libp2p's protobuf in any multibase, as [`public_key_text`](Self::public_key_text) does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordTarget {
    /// Its key in the DHT.
    Key(Vec<u8>),
    /// Its owner and its name.
    Name {
        /// Whose.
        owner: PublicKey,
        /// Which of the owner's names.
        name: RecordName,
    },
}

impl RecordTarget {
    /// Its key in the DHT.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Key(key) => key.clone(),
            Self::Name { owner, name } => record_key(owner, name),
        }
    }

    /// A key in the DHT as text: of a record as above, of IPNS `/ipns/` and the name in base36. One of neither is written
    /// in base32 alone.
    pub fn key_text(key: &[u8]) -> String {
        let base32 = |bytes: &[u8]| BASE32_NOPAD.encode(bytes).to_lowercase();
        match (key.strip_prefix(RECORD_PREFIX), IpnsName::from_key(key)) {
            (Some(hash), _) => format!("{}{}", String::from_utf8_lossy(RECORD_PREFIX), base32(hash)),
            (None, Ok(name)) => format!("{IPNS}{name}"),
            (None, Err(_)) => base32(key),
        }
    }

    /// Reads what [`key_text`](Self::key_text) wrote.
    ///
    /// # Errors
    /// It is no key of a record or of an IPNS name; [`ErrorKind::Usage`](crate::ErrorKind::Usage).
    pub fn key_of_text(text: &str) -> Result<Vec<u8>, NodeError> {
        let shown: String = text.chars().take(MAX_KAD_KEY_BYTES).collect();
        let wrong = |why: &dyn fmt::Display| NodeError::usage(format!("{shown} is no key of a record: {why}"));
        if text.starts_with(IPNS) {
            return text.parse::<IpnsName>().map(|name| name.key()).map_err(|error| wrong(&error));
        }
        let hash = text.strip_prefix(&*String::from_utf8_lossy(RECORD_PREFIX)).filter(|hash| hash.len() == HASH_CHARS);
        let hash =
            hash.ok_or_else(|| wrong(&"it is neither /dagmesh/record/ with 52 letters behind it, nor /ipns/NAME"))?;
        let hash = BASE32_NOPAD.decode(hash.to_uppercase().as_bytes()).map_err(|error| wrong(&error))?;
        Ok([RECORD_PREFIX, &hash].concat())
    }

    /// A public key as text: the peer id where it holds the key, else the protobuf in base64url with the `u` of multibase.
    pub fn public_key_text(key: &PublicKey) -> String {
        let name = IpnsName::of(key);
        match name.public_key() {
            Some(_) => name.peer_id().to_string(),
            None => multibase::encode(multibase::Base::Base64Url, key.encode_protobuf()),
        }
    }

    /// Reads a public key in any of these forms.
    ///
    /// # Errors
    /// It is none, or a peer id that does not hold the key; [`ErrorKind::Usage`](crate::ErrorKind::Usage).
    pub fn public_key_of_text(text: &str) -> Result<PublicKey, NodeError> {
        if let Ok(name) = text.parse::<IpnsName>() {
            return name.public_key().ok_or_else(|| {
                NodeError::usage(format!(
                    "{text} is the hash of a public key, and the records of its owner stand under the key itself; give \
                     the `public_key` that the owner's `dagmesh key ls --json` prints"
                ))
            });
        }
        // No key is longer than what carries it.
        let bytes = Some(text).filter(|text| text.len() <= 2 * MAX_IPNS_RECORD_BYTES.max(MAX_RECORD_BYTES));
        let key = bytes.and_then(|text| multibase::decode(text).ok());
        let key = key.and_then(|(_, bytes)| PublicKey::try_decode_protobuf(&bytes).ok());
        key.ok_or_else(|| {
            let shown: String = text.chars().take(MAX_KAD_KEY_BYTES).collect();
            NodeError::usage(format!("{shown:?} is neither a peer id nor a public key in multibase"))
        })
    }
}

/// Letters of a SHA-256 in base32 without padding.
const HASH_CHARS: usize = 52;

impl fmt::Display for RecordTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(&Self::key_text(key)),
            Self::Name { owner, name } => write!(f, "{}/{name}", Self::public_key_text(owner)),
        }
    }
}

impl FromStr for RecordTarget {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        if text.starts_with(IPNS) {
            let advice = "`dagmesh name resolve` says where it points";
            return Err(NodeError::usage(format!("{text} is an IPNS name and no record; {advice}")));
        }
        if text.starts_with('/') {
            return Self::key_of_text(text).map(Self::Key);
        }
        let (owner, name) = text.split_once('/').ok_or_else(|| {
            NodeError::usage(format!(
                "{text:?} is neither a key, as `dagmesh record put` prints it, nor PUBLICKEY/NAME"
            ))
        })?;
        let name = RecordName::new(name).map_err(|error| NodeError::usage(error.to_string()))?;
        Ok(Self::Name { owner: Self::public_key_of_text(owner)?, name })
    }
}

/// What an IPNS name may point at, as a content path: of a CID `/ipfs/CID`; `/ipfs/CID[/path]` and `/ipns/NAME[/path]` as
/// they are.
///
/// # Errors
/// It is neither; [`ErrorKind::Usage`](crate::ErrorKind::Usage).
pub fn content_path(text: &str) -> Result<String, NodeError> {
    let shown: String = text.chars().take(MAX_KAD_KEY_BYTES).collect();
    let wrong = |why: &dyn fmt::Display| {
        NodeError::usage(format!("{shown:?} is neither a CID nor /ipfs/CID[/path] nor /ipns/NAME[/path]: {why}"))
    };
    if text.contains(char::is_control) {
        return Err(wrong(&"it has control characters"));
    }
    let (space, rest) = match (text.strip_prefix("/ipfs/"), text.strip_prefix(IPNS)) {
        (Some(rest), _) => ("/ipfs/", rest),
        (None, Some(rest)) => (IPNS, rest),
        (None, None) if !text.contains('/') => ("/ipfs/", text),
        (None, None) => return Err(wrong(&"it begins with neither")),
    };
    let root = rest.split('/').next().unwrap_or_default();
    if space == IPNS {
        // A domain has a dot, and no name of a key has one.
        if root.starts_with('.') || !root.contains('.') {
            root.parse::<IpnsName>().map_err(|error| wrong(&error))?;
        }
    } else {
        root.parse::<cid::Cid>().map_err(|error| wrong(&error))?;
    }
    Ok(format!("{space}{rest}"))
}

#[cfg(test)]
mod tests {
    use dagmesh_records::Namespace;
    use libp2p::identity::Keypair;

    use super::*;
    use crate::error::ErrorKind;

    fn name() -> RecordName {
        RecordName::new("a/b c").expect("a name")
    }

    #[test]
    fn a_record_is_named_by_its_key_and_by_its_owner_and_both_ways_lead_to_it() {
        for pair in [Keypair::generate_ed25519(), Keypair::generate_secp256k1(), Keypair::generate_ecdsa()] {
            let owner = pair.public();
            let target = RecordTarget::Name { owner: owner.clone(), name: name() };
            let text = target.to_string();
            assert!(text.ends_with("/a/b c"), "{text}");
            assert_eq!(text.parse::<RecordTarget>().expect("reads"), target);
            let key = RecordTarget::key_text(&target.key());
            let parsed: RecordTarget = key.parse().expect("reads");
            assert_eq!((parsed.key(), parsed.to_string()), (target.key(), key.clone()));
            assert_eq!(key.to_uppercase().replacen("/DAGMESH/RECORD/", "/dagmesh/record/", 1).parse(), Ok(parsed));
            for base in [multibase::Base::Base58Btc, multibase::Base::Base36Lower, multibase::Base::Base64UrlPad] {
                let text = multibase::encode(base, owner.encode_protobuf());
                assert_eq!(RecordTarget::public_key_of_text(&text), Ok(owner.clone()));
            }
        }
        let ipns = IpnsName::of(&Keypair::generate_ecdsa().public());
        let text = RecordTarget::key_text(&ipns.key());
        assert_eq!(text, format!("/ipns/{ipns}"));
        let key = RecordTarget::key_of_text(&text).expect("reads");
        assert_eq!(Namespace::of(&key), Ok(Namespace::Ipns));
    }

    #[test]
    fn what_names_no_record_says_what_would() {
        let hashed = Keypair::generate_ecdsa().public().to_peer_id();
        let own = Keypair::generate_ed25519().public().to_peer_id();
        for (text, part) in [
            ("name", "PUBLICKEY/NAME"),
            ("", "PUBLICKEY/NAME"),
            ("12D3/name", "neither a peer id nor a public key"),
            (&format!("{hashed}/name"), "`public_key`"),
            (&format!("{own}/"), "empty"),
            (&format!("/ipns/{own}"), "dagmesh name resolve"),
            ("/dagmesh/record/abc", "52 letters"),
            (&format!("/dagmesh/record/{}", "1".repeat(52)), "no key of a record"),
            (&format!("{}/name", "u".repeat(100_000)), "neither a peer id"),
        ] {
            let error = text.parse::<RecordTarget>().expect_err("names none");
            assert_eq!(error.kind, ErrorKind::Usage);
            assert!(error.message.contains(part) && error.message.len() < 500, "{error}");
        }
    }

    #[test]
    fn a_name_points_at_a_path_of_content() {
        let cid = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
        let peer = Keypair::generate_ed25519().public().to_peer_id().to_string();
        for (text, path) in [
            (cid.to_owned(), format!("/ipfs/{cid}")),
            (format!("/ipfs/{cid}/a/b"), format!("/ipfs/{cid}/a/b")),
            (format!("/ipns/{peer}"), format!("/ipns/{peer}")),
            ("/ipns/docs.ipfs.tech/x".into(), "/ipns/docs.ipfs.tech/x".into()),
        ] {
            assert_eq!(content_path(&text), Ok(path));
        }
        for text in [
            "",
            "x",
            "/ipfs/",
            "/ipfs/x",
            "/ipns/",
            "/ipns/x",
            "/ipns/..",
            "/other/x",
            &format!("{cid}/a"),
            "/ipns/a.b\n",
        ] {
            let error = content_path(text).expect_err(text);
            assert_eq!(error.kind, ErrorKind::Usage, "{error}");
        }
    }
}
