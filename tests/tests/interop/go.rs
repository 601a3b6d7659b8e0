//! A peer of go-libp2p: its program, built once a run, and processes of it.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tokio::{process::Command, sync::OnceCell};

use crate::support::{or_skip, switched_on};
pub(crate) use dagmesh_tests::foreign::Foreign as GoPeer;

/// How the peers name themselves to others.
pub(crate) const AGENT: &str = "dagmesh-interop-go";

static PROGRAM: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();

/// The program of the Go peers, up to date; `None` where this run is to do without, which is printed with the reason.
///
/// # Panics
/// When its modules are there and it does not build.
pub(crate) async fn program() -> Option<GoProgram> {
    or_skip(PROGRAM.get_or_init(async || build("go", ".", "interop-go").await).await).map(|path| GoProgram(path))
}

/// Builds a package of a module of `tests/interop` into the target folder; what keeps it from being built here.
///
/// # Panics
/// When its modules are there and it does not build.
pub(crate) async fn build(module: &str, package: &str, name: &str) -> Result<PathBuf, String> {
    switched_on()?;
    let downloaded =
        go(module, &["mod", "download"]).await.map_err(|error| format!("there is no `go` here: {error}"))?;
    if !downloaded.status.success() {
        return Err(format!("the Go modules cannot be had: {}", String::from_utf8_lossy(&downloaded.stderr).trim()));
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}{}", env::consts::EXE_SUFFIX));
    let to = program.to_str().expect("a path of UTF-8");
    let built = go(module, &["build", "-o", to, package]).await.expect("it was there a moment ago");
    assert!(built.status.success(), "`go build` failed:\n{}", String::from_utf8_lossy(&built.stderr));
    Ok(program)
}

async fn go(module: &str, args: &[&str]) -> std::io::Result<Output> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(module);
    Command::new("go").args(args).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output().await
}

/// The built program.
#[derive(Clone, Copy)]
pub(crate) struct GoProgram(&'static Path);

impl GoProgram {
    /// Starts a peer: a subcommand (`host`, `gossip`, `dht`, `relay`, `autonat`, `autonat-v1`, `ipni-publisher`,
    /// `ipni-subscriber`) and its flags. Returns once it listens.
    pub(crate) async fn start(self, args: &[&str]) -> GoPeer {
        Self::start_as(self.0, args).await
    }

    /// Where it is.
    pub(crate) fn path(self) -> &'static Path {
        self.0
    }

    /// Starts a peer by another program that runs this one.
    pub(crate) async fn start_as(program: &Path, args: &[&str]) -> GoPeer {
        let mut command = Command::new(program);
        command.args(args);
        GoPeer::start(format!("the Go peer `{}`", args.join(" ")), command).await
    }
}
