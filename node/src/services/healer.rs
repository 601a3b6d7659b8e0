//! Healing: blocks that were found damaged and put aside are fetched again.

use dagmesh_core::limits;
use dagmesh_dag::{Root, Selector};
use dagmesh_dagsync::{Fetch, FetchConfig, feed_sync::Provider};
use libp2p::PeerId;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::Context;
use crate::{error::NodeError, swarm::MeshEvent};

/// Heals at the start, when a block is put aside, and when a peer connects that may hold what is still lacking.
pub(crate) async fn run(context: Context) {
    let mut mesh = context.swarm.events();
    let mut peers = candidates(&context).await;
    loop {
        if let Err(error) = heal(&context, &peers).await {
            tracing::warn!(%error, "damaged blocks could not be fetched again");
        }
        peers = tokio::select! {
            () = context.store.damage().notified() => candidates(&context).await,
            connected = connected(&mut mesh) => match connected {
                Some(peer) => vec![peer],
                None => return,
            },
        };
    }
}

/// Whom to ask: those whose feeds are followed, then whoever is connected.
async fn candidates(context: &Context) -> Vec<PeerId> {
    let follows = context.blocking(|store| Ok(store.follows()?)).await.unwrap_or_default();
    let connected = context.swarm.peers().await.unwrap_or_default();
    let mut peers: Vec<PeerId> = Vec::new();
    for peer in follows.into_iter().map(|(peer, ..)| peer).chain(connected.into_iter().map(|peer| peer.peer)) {
        if peers.len() < limits::MAX_PROVIDERS && !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    peers
}

/// Asks one peer after another for what is lacking, until nothing is.
async fn heal(context: &Context, peers: &[PeerId]) -> Result<(), NodeError> {
    for peer in peers {
        let lacking = context.blocking(|store| Ok(store.damaged()?)).await?;
        if lacking.is_empty() {
            return Ok(());
        }
        let blocks = lacking.len();
        let root = |(index, cid)| (index, Root { cid, selector: Selector::matcher(), held: None });
        let roots = lacking.into_iter().enumerate().map(root).collect();
        let fetch = Fetch::new(context.store.clone(), FetchConfig::default(), roots, ());
        match context.client.provider(*peer).sync(fetch).await.1 {
            Ok(()) => tracing::info!(%peer, blocks, "damaged blocks were fetched again"),
            Err(error) => tracing::debug!(%peer, blocks, %error, "a peer could not give all damaged blocks again"),
        }
    }
    Ok(())
}

/// The next peer that connects; `None` once the mesh has ended.
async fn connected(mesh: &mut Receiver<MeshEvent>) -> Option<PeerId> {
    loop {
        match mesh.recv().await {
            Ok(MeshEvent::PeerConnected { peer, .. }) => return Some(peer),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}
