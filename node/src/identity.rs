//! The node's key on disk.

use std::{io, path::Path};

use dagmesh_core::limits::MAX_KEY_FILE_BYTES;
use libp2p::identity::Keypair;

use crate::{
    config::{read_private, write_private},
    error::{ErrorKind, NodeError},
};

/// Reads the key pair at `path` (libp2p's protobuf encoding, mode 0600).
///
/// Errors: not found, readable by others, or damaged; each says what to do.
pub fn load(path: &Path) -> Result<Keypair, NodeError> {
    let bytes = read_private(path, MAX_KEY_FILE_BYTES as u64)?;
    Keypair::from_protobuf_encoding(&bytes).map_err(|error| {
        NodeError::verification(format!(
            "{} is damaged and holds no key ({error}); bring it back from a backup, or move it away to start under a \
             new peer id",
            path.display()
        ))
    })
}

/// Reads the key pair at `path`, or makes an Ed25519 one and writes it there, all or nothing. The second value says
/// whether it is new. Of two processes that do this at once, both end up with the same key.
pub fn load_or_create(path: &Path) -> Result<(Keypair, bool), NodeError> {
    match load(path) {
        Err(error) if error.kind == ErrorKind::NotFound => {}
        read => return read.map(|key| (key, false)),
    }
    let key = Keypair::generate_ed25519();
    let bytes = key
        .to_protobuf_encoding()
        .map_err(|error| NodeError::other(format!("a new key cannot be written: {error}")))?;
    match write_private(path, &bytes, false) {
        Ok(()) => Ok((key, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path).map(|key| (key, false)),
        Err(error) => Err(NodeError::file("create", path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_ever_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity.key");
        let (first, new) = load_or_create(&path).expect("a key");
        assert!(new);
        let (second, new) = load_or_create(&path).expect("a key");
        assert!(!new);
        assert_eq!(first.public(), second.public());
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_key_is_an_error_and_is_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity.key");
        write_private(&path, b"no key", false).expect("writes");
        let error = load_or_create(&path).expect_err("damaged");
        assert_eq!(error.kind, ErrorKind::Verification);
        assert!(error.message.contains("is damaged"), "{error}");
        assert_eq!(std::fs::read(&path).expect("reads"), b"no key");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity.key");
        load_or_create(&path).expect("a key");
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("sets");
        let error = load_or_create(&path).expect_err("too open");
        assert!(error.message.contains("chmod 600"), "{error}");
    }
}
