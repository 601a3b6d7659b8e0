//! Finds other members: those that a ticket named, and those who provide the group's key in the DHT.

use std::{sync::Arc, time::Duration};

use dagmesh_chronosync::GroupId;
use dagmesh_core::limits;
use futures::{StreamExt, stream};
use libp2p::PeerId;

use super::member::Member;
use crate::{services::rendezvous, store::GroupPeer, swarm::without_peer};

/// Members dialled at once.
const DIALLED_AT_ONCE: usize = 4;

/// The key under which a group's members are found.
pub(super) fn key(group: &GroupId) -> Option<Vec<u8>> {
    rendezvous::label(b"dagmesh group\0", &[group.as_bytes()])
}

/// Keeps the group's neighbours, as far as there are any, for as long as it is taken part in.
pub(super) async fn run(member: Arc<Member>) {
    let (swarm, own) = (&member.context.swarm, member.producer());
    if let Some(key) = key(&member.group) {
        let swarm = swarm.clone();
        member.context.spawn(async move {
            if let Err(error) = swarm.provide(key).await {
                tracing::debug!(%error, "a group is not provided in the DHT yet");
            }
        });
    }
    loop {
        let before = member.peers().len();
        if before < limits::GROUP_PEERS_LOW {
            // Whoever a ticket named, or was there, comes first: its addresses are known, and were good.
            let mut told = Vec::new();
            let known = member.known.lock().clone();
            for known in known.iter().rev() {
                let Some(peer) = known.id().filter(|peer| *peer != own) else { continue };
                for addr in &known.addrs {
                    let _stopping = swarm.add_address(peer, addr.clone()).await;
                }
                told.push(peer);
            }
            dial(&member, told).await;
            if member.peers().len() < limits::GROUP_PEERS_LOW
                && let Some(key) = key(&member.group)
            {
                let found = swarm.find_providers(key, limits::MAX_PROVIDERS).await.unwrap_or_default();
                dial(&member, found).await;
            }
        }
        let pause = match member.peers().len() {
            0 => limits::GROUP_FIND_SECS / 10,
            _ => limits::GROUP_FIND_SECS,
        };
        let pause = tokio::time::sleep(Duration::from_secs(pause));
        tokio::pin!(pause);
        loop {
            let left = async {
                member.neighbours.notified().await;
                // The last one has gone: look at once.
                member.peers().is_empty()
            };
            tokio::select! {
                () = &mut pause => break,
                alone = left => if alone && before > 0 { break },
                () = member.seek.notified() => break,
            }
        }
    }
}

/// Keeps where neighbours can be dialled, so that a restart finds them without anybody's help.
pub(super) async fn remember(member: Arc<Member>) {
    loop {
        member.met.notified().await;
        for peer in member.peers().into_iter().take(limits::MAX_GROUP_KNOWN_PEERS) {
            // Known once it has said who it is; then we are woken again.
            let addrs = member.context.swarm.find_peer(peer).await.unwrap_or_default();
            let addrs: Vec<_> = addrs.iter().map(without_peer).take(limits::MAX_ADDRS_PER_PEER).collect();
            if addrs.is_empty() {
                continue;
            }
            if let Err(error) = member.remember(vec![GroupPeer::new(&peer, addrs)]).await {
                tracing::debug!(group = member.name, %peer, %error, "where a member is was not kept");
            }
        }
    }
}

/// Dials members until there are enough neighbours.
async fn dial(member: &Member, peers: Vec<PeerId>) {
    let connected = member.peers();
    let wanted = limits::GROUP_PEERS_LOW.saturating_sub(connected.len());
    let others = peers.into_iter().filter(|peer| !connected.contains(peer) && *peer != member.producer()).take(wanted);
    let dialled = stream::iter(others).map(|peer| async move {
        if let Err(error) = member.context.swarm.dial_peer(peer).await {
            tracing::debug!(group = member.name, %peer, %error, "a member of a group was not reached");
        }
    });
    dialled.buffer_unordered(DIALLED_AT_ONCE).collect::<Vec<()>>().await;
}
