//! Where a node keeps its things.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy;

use crate::error::NodeError;

/// The directories of one node: everything below `--home`, or where the XDG base directory specification says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    config_file: PathBuf,
}

impl Home {
    /// Takes `home` where given, else the user's own directories. Nothing is created.
    pub fn locate(home: Option<&Path>) -> Result<Self, NodeError> {
        if let Some(home) = home {
            let root = std::path::absolute(home).map_err(|error| NodeError::file("use", home, &error))?;
            return Ok(Self { config_file: root.join("config.toml"), root });
        }
        let dirs = etcetera::choose_base_strategy()
            .map_err(|error| NodeError::usage(format!("no home directory is known ({error}); give one with --home")))?;
        Ok(Self {
            root: dirs.data_dir().join("dagmesh"),
            config_file: dirs.config_dir().join("dagmesh").join("config.toml"),
        })
    }

    /// Creates the directory, for its owner alone, where it does not exist.
    pub fn create(&self) -> Result<(), NodeError> {
        create_private_dir(&self.root)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The user's config.
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// The node's key.
    pub fn key_file(&self) -> PathBuf {
        self.root.join("identity.key")
    }

    /// The node's named keys.
    pub fn keys_dir(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The store, where the config names no other place.
    pub fn store_dir(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The token of the local API.
    pub fn token_file(&self) -> PathBuf {
        self.root.join("api.token")
    }

    /// Where a running daemon says how it is reached.
    pub fn api_file(&self) -> PathBuf {
        self.root.join("api.json")
    }
}

/// Creates a directory, for its owner alone, where it does not exist.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), NodeError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| NodeError::file("create", path, &error))
}

/// Writes a file for its owner alone, all or nothing: a temporary file beside it, made durable, then moved. With
/// `replace` unset, an existing file stays, and the error is [`io::ErrorKind::AlreadyExists`].
pub(crate) fn write_private(path: &Path, content: &[u8], replace: bool) -> io::Result<()> {
    use io::Write;

    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // `tempfile` gives mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    if replace {
        file.persist(path)?;
    } else {
        file.persist_noclobber(path)?;
    }
    fs::File::open(folder)?.sync_all()
}

/// Reads a secret of at most `max` bytes, and refuses it where others than its owner may read it too.
pub(crate) fn read_private(path: &Path, max: u64) -> Result<Vec<u8>, NodeError> {
    use io::Read;

    let failed = |error| NodeError::file("read", path, &error);
    let file = fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(NodeError::new(
                crate::error::ErrorKind::Unauthorised,
                format!(
                    "{} can be read by others (mode {mode:03o}); make it private with `chmod 600 {}`",
                    path.display(),
                    path.display()
                ),
            ));
        }
    }
    if metadata.len() > max {
        return Err(NodeError::other(format!("{} has {} bytes and is no key", path.display(), metadata.len())));
    }
    let mut content = Vec::new();
    file.take(max).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}
