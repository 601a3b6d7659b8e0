//! Where those meet who hold a feed: what this node says in Kademlia that it has of it, and whom it asks when the
//! publisher itself does not answer.

use std::collections::HashSet;

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{FeedName, HashCode, SignedHead};
use dagmesh_dagsync::{
    follower::FollowKey,
    head::{self, HeadQuery},
};
use futures::{StreamExt, stream};
use libp2p::PeerId;

use super::Context;

/// Peers asked for somebody else's head at once.
const ASKED_AT_ONCE: usize = 8;

/// Provides a feed and its head, and the head before it no longer.
pub(crate) fn provide(context: &Context, key: &FollowKey, head: &Cid, before: Option<Vec<u8>>) {
    let new = head_key(head);
    let keys = [Some(new.clone()), feed_key(&key.publisher, &key.feed)];
    let swarm = context.swarm.clone();
    context.spawn(async move {
        if let Some(old) = before.filter(|old| *old != new) {
            let _ = swarm.stop_providing(old).await;
        }
        for key in keys.into_iter().flatten() {
            if let Err(error) = swarm.provide(key).await {
                tracing::debug!(%error, "a head is not provided in the DHT yet");
            }
        }
    });
}

/// Provides a feed no longer, nor its head.
pub(crate) fn withdraw(context: &Context, key: &FollowKey, head: Option<Vec<u8>>) {
    let keys = [head, feed_key(&key.publisher, &key.feed)];
    let swarm = context.swarm.clone();
    context.spawn(async move {
        for key in keys.into_iter().flatten() {
            let _ = swarm.stop_providing(key).await;
        }
    });
}

/// The key under which whoever holds a head is found: the multihash of its CID, as for any block.
pub(crate) fn head_key(head: &Cid) -> Vec<u8> {
    head.hash().to_bytes()
}

/// The key under which whoever holds a feed is found though its head is not known.
fn feed_key(publisher: &PeerId, feed: &FeedName) -> Option<Vec<u8>> {
    // The peer id says its own length, so that no two feeds make the same bytes.
    label(b"dagmesh feed\0", &[&publisher.to_bytes(), feed.as_str().as_bytes()])
}

/// The key under which those are found who have to do with what `parts` name, under a label that says what that is.
pub(crate) fn label(label: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
    HashCode::Sha2_256.digest(&[label, &parts.concat()].concat()).map(|hash| hash.to_bytes())
}

/// The heads of a feed that others than its publisher know: those who provide it, and those we are connected with.
/// Each proves itself. Ends within the time-outs of a search and of two questions.
pub(crate) async fn ask_around(context: &Context, key: &FollowKey) -> Vec<SignedHead> {
    let own = context.key.public().to_peer_id();
    let connected = context.swarm.peers().await.unwrap_or_default().into_iter();
    let able = connected.filter(|peer| peer.protocols.iter().any(|name| *name == head::PROTOCOL));
    let mut peers: Vec<PeerId> = able.map(|peer| peer.peer).take(limits::MAX_PROVIDERS).collect();
    if let Some(feed) = feed_key(&key.publisher, &key.feed) {
        peers.extend(context.swarm.find_providers(feed, limits::MAX_PROVIDERS).await.unwrap_or_default());
    }
    let mut seen = HashSet::from([own, key.publisher]);
    peers.retain(|peer| seen.insert(*peer));
    let query = HeadQuery { publisher: Some(key.publisher), feed: Some(key.feed.clone()) };
    let ask = |peer: PeerId| {
        let (client, query) = (context.client.clone(), query.clone());
        async move { client.heads(peer, &query).await.unwrap_or_default() }
    };
    let answers: Vec<Vec<SignedHead>> = stream::iter(peers).map(ask).buffer_unordered(ASKED_AT_ONCE).collect().await;
    answers.into_iter().flatten().collect()
}
