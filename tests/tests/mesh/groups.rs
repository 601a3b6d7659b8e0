//! Groups of real daemons: whatever happens to the lines between them or to one of them, each publication is told to
//! each member once, in its producer's order, and all come to the same state.

mod closed;
mod content;
mod cuts;
mod idle;
mod members;
mod together;

use std::collections::BTreeMap;

use dagmesh_tests::{
    Daemon, DelayProxy,
    group::{self, GroupWatch},
};
use futures::future::join_all;
use libp2p::PeerId;

use crate::support::{daemon, options};

/// The name of the group.
const GROUP: &str = "chess";

/// What each producer has said, in order.
type Said = BTreeMap<PeerId, Vec<String>>;

/// Whether there is time for what takes minutes.
fn is_long() -> bool {
    std::env::var_os("DAGMESH_LONG").is_some()
}

/// Daemons that take part in a group.
async fn members(count: usize) -> Vec<Daemon> {
    let daemons = join_all((0..count).map(|_| daemon(&[]))).await;
    meet(&daemons, GROUP).await;
    daemons
}

/// Has the first daemon make a group, and the others join it with its ticket; returns once each knows another.
async fn meet(daemons: &[Daemon], name: &str) {
    let ticket = group::create(&daemons[0], name).await.ticket;
    join_all(daemons[1..].iter().map(|daemon| group::join(daemon, &ticket))).await;
    join_all(daemons.iter().map(|daemon| group::has_peers(daemon, name, 1))).await;
}

/// A daemon whom others reach only at the addresses that they are given: what they tell each other of loopback they do
/// not use. It listens on TCP alone.
async fn island() -> Daemon {
    let mut options = options(&["--listen", "/ip4/127.0.0.1/tcp/0"]);
    options.profile = Some("public");
    let off =
        ["MDNS", "UPNP", "AUTONAT", "HOLE_PUNCHING"].map(|key| (format!("DAGMESH_SWARM__{key}"), "false".to_owned()));
    options.env.extend(off);
    options.env.push(("DAGMESH_SWARM__NETWORK".to_owned(), "test".to_owned()));
    options.env.push(("DAGMESH_SWARM__BOOTSTRAP".to_owned(), "[]".to_owned()));
    Daemon::start_with(options).await
}

/// A line to a daemon, and a ticket that leads over it.
async fn line_to(daemon: &Daemon, name: &str) -> (DelayProxy, String) {
    use dagmesh::ticket::GroupTicket;
    let addr = dagmesh_tests::hostile::raw::socket_addr(&daemon.addr("tcp").parse().expect("an address"));
    let line = DelayProxy::start(addr, std::time::Duration::ZERO).await.expect("a line");
    let over = line.multiaddr().parse().expect("an address");
    let ticket = GroupTicket::new(name, None, group::peer(daemon), &[over]).expect("a ticket");
    (line, ticket.to_string())
}

/// Asserts that each member's log, and what a watch of it has told, is what was said.
async fn assert_all_told(daemons: &[&Daemon], watches: &[GroupWatch], said: &Said) {
    for (daemon, watch) in daemons.iter().zip(watches) {
        let log = group::log(daemon, GROUP).await;
        group::assert_holds(&log, said);
        assert!(watch.told(log.len()).await == log, "what is watched is the log");
    }
}

fn total(said: &Said) -> u64 {
    said.values().map(|texts| texts.len() as u64).sum()
}
