//! The named keys of a node: one file a key, in its home.
//!
//! A file holds libp2p's protobuf encoding of the private key, for its owner alone, and is written all or nothing and never
//! over another. So a daemon and any number of commands may use the folder at once, with no lock. Calls block on the disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dagmesh_core::limits::{MAX_KEY_FILE_BYTES, MAX_NAMED_KEYS};
use dagmesh_records::IpnsName;
use libp2p::{
    PeerId,
    identity::{KeyType, Keypair},
};

use crate::{
    config::{Home, create_private_dir, read_private, write_private},
    error::{ErrorKind, NodeError},
    identity,
    types::{KeyInfo, KeyName, PrivateKey, RecordTarget},
};

/// What the name of a key's file ends with.
const SUFFIX: &str = ".key";
/// What a key has to sign before it is taken.
const TRIAL: &[u8] = b"dagmesh-key-trial";

/// The named keys of one node, its own among them as `self`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keyring {
    folder: PathBuf,
    own: Option<Keypair>,
}

impl Keyring {
    /// The keys of a node in this home, with its own.
    pub fn new(home: &Home, own: Keypair) -> Self {
        Self { folder: home.keys_dir(), own: Some(own) }
    }

    /// The keys of this home; its own is there once it was made.
    ///
    /// # Errors
    /// The node's own key is damaged, or others can read it.
    pub fn of_home(home: &Home) -> Result<Self, NodeError> {
        let own = match identity::load(&home.key_file()) {
            Ok(own) => Some(own),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { folder: home.keys_dir(), own })
    }

    /// The key of this name.
    ///
    /// # Errors
    /// There is none; it is damaged; others can read it.
    pub fn get(&self, name: &KeyName) -> Result<Keypair, NodeError> {
        if name.is_own() {
            let none = || NodeError::not_found("the node has no key yet; make one with `dagmesh init`");
            return self.own.clone().ok_or_else(none);
        }
        let (path, bytes) = self.read(name)?;
        Keypair::from_protobuf_encoding(&bytes).map_err(|error| {
            NodeError::verification(format!(
                "{} is damaged and holds no key ({error}); bring it back from a backup, or move it away",
                path.display()
            ))
        })
    }

    /// The key with this id, where it is here and can be read.
    pub fn of(&self, peer: &PeerId) -> Option<Keypair> {
        let fits = |key: &Keypair| key.public().to_peer_id() == *peer;
        if let Some(own) = self.own.as_ref().filter(|own| fits(own)) {
            return Some(own.clone());
        }
        self.names().ok()?.into_iter().filter_map(|name| self.get(&name).ok()).find(fits)
    }

    /// All of them, the node's own first, then by name.
    ///
    /// # Errors
    /// As [`get`](Self::get): a damaged key is told, not left out.
    pub fn list(&self) -> Result<Vec<KeyInfo>, NodeError> {
        let own = self.own.iter().map(|own| info(KeyName::own(), own));
        let named = self.names()?.into_iter().map(|name| self.get(&name).map(|key| info(name, &key)));
        own.map(Ok).chain(named).collect()
    }

    /// Makes an Ed25519 key.
    ///
    /// # Errors
    /// The name is taken; there are [`MAX_NAMED_KEYS`]; the disk fails.
    pub fn generate(&self, name: &KeyName) -> Result<KeyInfo, NodeError> {
        let key = Keypair::generate_ed25519();
        let bytes = encode(&key)?;
        self.write(name, &bytes)?;
        Ok(info(name.clone(), &key))
    }

    /// The private key of this name, byte for byte as it came where it was imported.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn export(&self, name: &KeyName) -> Result<PrivateKey, NodeError> {
        let key = self.get(name)?;
        if name.is_own() { encode(&key) } else { self.read(name).map(|(_, bytes)| bytes) }.map(PrivateKey)
    }

    /// Takes a key that was made elsewhere: Ed25519, secp256k1, ECDSA (P-256), RSA (2048 to 4096 bits).
    ///
    /// # Errors
    /// It is no key, or one of another kind; the name is taken; there are [`MAX_NAMED_KEYS`]; the disk fails.
    pub fn import(&self, name: &KeyName, key: &PrivateKey) -> Result<KeyInfo, NodeError> {
        let PrivateKey(bytes) = key;
        let wrong = |why: &dyn std::fmt::Display| {
            NodeError::usage(format!(
                "this is no private key in libp2p's protobuf encoding (as `dagmesh key export` and `ipfs key export` \
                 write it): {why}"
            ))
        };
        if bytes.len() > MAX_KEY_FILE_BYTES {
            return Err(wrong(&format_args!("it has more than {MAX_KEY_FILE_BYTES} bytes")));
        }
        let pair = Keypair::from_protobuf_encoding(bytes).map_err(|error| wrong(&error))?;
        // What cannot sign, or signs for somebody else, would be found out only when it is needed.
        let signature = pair.sign(TRIAL).map_err(|error| wrong(&error))?;
        if !pair.public().verify(TRIAL, &signature) {
            return Err(wrong(&"its halves do not belong together"));
        }
        self.write(name, bytes)?;
        Ok(info(name.clone(), &pair))
    }

    fn read(&self, name: &KeyName) -> Result<(PathBuf, Vec<u8>), NodeError> {
        let path = self.path(name);
        let bytes = read_private(&path, MAX_KEY_FILE_BYTES as u64).map_err(|error| match error.kind {
            ErrorKind::NotFound => {
                NodeError::not_found(format!("there is no key {name}; `dagmesh key ls` lists those there are"))
            }
            _ => error,
        })?;
        Ok((path, bytes))
    }

    fn write(&self, name: &KeyName, bytes: &[u8]) -> Result<(), NodeError> {
        if name.is_own() {
            return Err(NodeError::usage(format!("{name} is the node's own key and stays; take another name")));
        }
        // Two commands at once may both find room; a few more do no harm.
        if self.names()?.len() >= MAX_NAMED_KEYS {
            let text = format!("there are {MAX_NAMED_KEYS} keys, and no more may be; remove one from");
            return Err(NodeError::usage(format!("{text} {}", self.folder.display())));
        }
        create_private_dir(&self.folder)?;
        let path = self.path(name);
        write_private(&path, bytes, false).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                NodeError::usage(format!("there is a key {name} already, and it stays; take another name"))
            }
            _ => NodeError::file("create", &path, &error),
        })
    }

    /// The names of all but the node's own, in order. What else lies in the folder is left alone.
    fn names(&self) -> Result<Vec<KeyName>, NodeError> {
        let failed = |error| NodeError::file("read", &self.folder, &error);
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for file in files {
            names.extend(name_of(&file.map_err(failed)?.path()));
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &KeyName) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }
}

fn name_of(path: &Path) -> Option<KeyName> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    KeyName::new(name).ok().filter(|name| !name.is_own())
}

fn encode(key: &Keypair) -> Result<Vec<u8>, NodeError> {
    key.to_protobuf_encoding().map_err(|error| NodeError::other(format!("the key cannot be written: {error}")))
}

fn info(name: KeyName, key: &Keypair) -> KeyInfo {
    let public = key.public();
    let kind = match key.key_type() {
        KeyType::Ed25519 => "ed25519",
        KeyType::RSA => "rsa",
        KeyType::Secp256k1 => "secp256k1",
        KeyType::Ecdsa => "ecdsa",
    };
    let ipns = IpnsName::of(&public);
    KeyInfo {
        own: name.is_own(),
        name,
        peer_id: ipns.peer_id(),
        ipns: ipns.to_string(),
        kind: kind.to_owned(),
        public_key: RecordTarget::public_key_text(&public),
    }
}

#[cfg(test)]
mod tests;
