//! What the tests with other implementations share.

use std::path::PathBuf;

use dagmesh::swarm::SwarmHandle;
use dagmesh_tests::{Daemon, DaemonOptions, foreign::Foreign, wait_for, wait_for_some};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use dagmesh_tests::{foreign::addr_of, peer::SOON};

/// The topic on which our daemons announce heads, and the beginning of their Kademlia protocol: both name the network,
/// which is `test` in the profile `test`.
pub(crate) const HEADS: &str = "/dagmesh/heads/test";
pub(crate) const DHT: &str = "/dagmesh/test";

/// What has to be set for these tests to run.
const SWITCH: &str = "DAGMESH_INTEROP";

/// Whether this run is to build and start peers that others wrote; if not, why.
pub(crate) fn switched_on() -> Result<(), String> {
    if std::env::var_os(SWITCH).is_some_and(|value| value == "1") {
        return Ok(());
    }
    Err(format!("{SWITCH}=1 is not set; `just interop` runs the tests with peers that others wrote"))
}

/// What a test needs; where it cannot be had, the reason is printed, and the test is to return.
pub(crate) fn or_skip<T>(found: &Result<T, String>) -> Option<&T> {
    found.as_ref().inspect_err(|why| println!("skipped: {why}")).ok()
}

/// A daemon with these arguments and this environment, that logs enough to understand a failure.
pub(crate) async fn daemon(args: &[&str], env: &[(&str, &str)]) -> Daemon {
    let mut options = DaemonOptions::default();
    options.args = args.iter().map(|&arg| arg.to_owned()).collect();
    options.env = vec![("DAGMESH_LOG__LEVEL".to_owned(), "debug".to_owned())];
    options.env.extend(env.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())));
    Daemon::start_with(options).await
}

/// Where the daemon can be dialled over a transport: `tcp`, `quic-v1` or `ws`.
pub(crate) fn daemon_addr(daemon: &Daemon, transport: &str) -> String {
    let addr = addr_of(daemon.listen().iter().map(String::as_str), transport);
    if addr.contains("/p2p/") { addr } else { format!("{addr}/p2p/{}", daemon.peer_id()) }
}

/// Waits until the daemon's `peers` shows a peer that `fits`.
pub(crate) async fn daemon_sees(daemon: &Daemon, peer: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_for_some(SOON, &format!("a daemon that sees of {peer}: {what}"), async || {
        let peers = daemon.json(&["peers"]).await;
        let peers = peers.as_array().expect("a list of peers").clone();
        peers.into_iter().find(|seen| seen["peer_id"] == peer && fits(seen))
    })
    .await
}

/// Whether a list of texts has this one.
pub(crate) fn has(list: &Value, text: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|it| it == text))
}

/// A file to publish, and the folder that it goes with.
pub(crate) fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("published");
    std::fs::write(&path, text).expect("a file");
    (folder, path)
}

/// Publishes a file with this text; the head's CID.
pub(crate) async fn publish(daemon: &Daemon, text: &str) -> String {
    let (_folder, path) = file(text);
    let published = daemon.json(&["publish", path.to_str().expect("a path of UTF-8")]).await;
    published["head"].as_str().unwrap_or_else(|| panic!("no head in {published}")).to_owned()
}

/// Bytes as the peers write them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until a peer is in the mesh of a topic with us.
pub(crate) async fn in_mesh(ours: &SwarmHandle, topic: &str, theirs: &Foreign) {
    wait_for(SOON, "a mesh with the peer", async || {
        let mesh = ours.mesh_peers(topic).await.expect("the mesh");
        mesh.iter().any(|peer| peer.to_string() == theirs.peer_id())
    })
    .await;
}

/// Publishes, and asserts that the peer hears it: signed, by us, as it was.
pub(crate) async fn is_heard(ours: &SwarmHandle, topic: &str, theirs: &Foreign) {
    ours.publish(topic, b"from us".to_vec()).await.expect("published");
    let heard = theirs.wait("message", "our message", |_| true).await;
    assert_eq!((&heard["topic"], &heard["from"]), (&topic.into(), &ours.local_peer_id().to_string().into()));
    assert_eq!((&heard["data"], &heard["signed"]), (&hex(b"from us").into(), &true.into()));
}
