//! Where the `dagmesh` binary under test is.

use std::{
    env,
    path::{Path, PathBuf},
};

use tokio::{process::Command, sync::OnceCell};

static BINARY: OnceCell<PathBuf> = OnceCell::const_new();

/// The `dagmesh` binary of the profile that this program was built with, up to date.
///
/// Cargo hands a binary's path only to tests of the same package, and builds it only for those. So this asks cargo for
/// it once a process: nothing is done where it is fresh, and no test runs against an old one. `DAGMESH_BIN` names
/// another binary, which is taken as it is.
///
/// # Panics
/// When it cannot be built.
pub async fn dagmesh_binary() -> PathBuf {
    BINARY.get_or_init(find).await.clone()
}

async fn find() -> PathBuf {
    if let Some(path) = env::var_os("DAGMESH_BIN") {
        return PathBuf::from(path);
    }
    let own = env::current_exe().expect("the path of this program");
    let folder = profile_folder(&own).unwrap_or_else(|| panic!("{} lies in no target folder", own.display()));
    let built = folder.join(format!("dagmesh{}", env::consts::EXE_SUFFIX));
    build(folder).await;
    assert!(built.is_file(), "cargo built no {}", built.display());
    built
}

/// `target/PROFILE` of a program at `target/PROFILE/NAME`, or in `deps` or `examples` there.
fn profile_folder(program: &Path) -> Option<&Path> {
    let folder = program.parent()?;
    match folder.file_name()?.to_str() {
        Some("deps" | "examples") => folder.parent(),
        _ => Some(folder),
    }
}

async fn build(folder: &Path) {
    // The folder of the profile `dev` alone is not called after it.
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let target = folder.parent().unwrap_or(folder);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Of the whole workspace: alone the package has other features, and the libraries would be built once more.
    command.args(["build", "--quiet", "--workspace", "--bin", "dagmesh", "--profile", profile]);
    for (key, _) in env::vars_os().filter(|(key, _)| names_our_package(&key.to_string_lossy())) {
        command.env_remove(key);
    }
    command.arg("--target-dir").arg(target).current_dir(root).kill_on_drop(true);
    let built = super::describe("cargo build --workspace --bin dagmesh", command.status().await);
    built.unwrap_or_else(|why| panic!("no dagmesh binary to test: {why}"));
}

/// Whether cargo set this variable to tell us about our own package. Build scripts watch such variables (ring's does),
/// so a cargo that inherits them builds half of the tree again.
fn names_our_package(key: &str) -> bool {
    key.starts_with("CARGO_PKG_")
        || key.starts_with("CARGO_MANIFEST_")
        || key.starts_with("CARGO_BIN_")
        || matches!(key, "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "CARGO_TARGET_TMPDIR" | "OUT_DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_binary_is_built_beside_the_program_that_asks_for_it() {
        let binary = dagmesh_binary().await;
        assert!(binary.is_file(), "{}", binary.display());
    }

    #[test]
    fn the_folder_of_the_profile_is_found_from_every_kind_of_program() {
        for program in ["/t/debug/deps/mesh-1234", "/t/debug/examples/publish", "/t/debug/dagmesh-benches"] {
            assert_eq!(profile_folder(Path::new(program)), Some(Path::new("/t/debug")), "{program}");
        }
    }
}
