//! Heads by name: where the newest head of a feed stands in the DHT, for those whom no announcement reached.
//!
//! Under one key stand two records: the record `head/<feed>`, whose value is the signed head as an announcement brings it, and
//! the IPNS record, whose value is `/ipfs/<head>` as the rest of IPFS reads it. The key is the publisher's own, or any other,
//! whose owner then says whose feed it is: the head proves its publisher by itself.
//!
//! - here: from a name to a head.
//! - [`publish`]: from a head to its name, at each publication.

pub(crate) mod publish;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use cid::Cid;
use dagmesh_core::limits;
use dagmesh_dag::{FeedName, SignedHead};
use dagmesh_dagsync::head::{self, HeadQuery};
use dagmesh_records::{IpnsName, RecordName};
use futures::{StreamExt, stream};

use super::{Context, records::Records, rendezvous};
use crate::{
    error::{ErrorKind, NodeError},
    types::RecordTarget,
};

/// Peers asked for a head at once.
const ASKED_AT_ONCE: usize = 8;

/// The name of the record that holds the head of a feed.
pub(crate) fn record_name(feed: &FeedName) -> String {
    format!("head/{feed}")
}

/// The head of a feed that a name leads to.
///
/// # Errors
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where nobody has a record of it, or where it points at what is no head
/// of such a feed.
pub(crate) async fn head_of(
    context: &Context,
    records: &Records,
    name: &IpnsName,
    feed: &FeedName,
) -> Result<SignedHead, NodeError> {
    match by_record(records, name, feed).await {
        Err(error) if error.kind == ErrorKind::NotFound => tracing::debug!(%name, %feed, %error, "no head by record"),
        other => return other,
    }
    let (value, heads) = by_entry(context, records, name, feed, None).await?;
    // Its owner's own word is worth more than what a stranger calls its feed.
    let best = heads.into_iter().max_by_key(|head| (head.publisher() == name.peer_id(), head.seq()));
    best.ok_or_else(|| {
        NodeError::not_found(format!(
            "/ipns/{name} points at {value}, and nobody that is reached knows that as the head of a feed {feed}"
        ))
    })
}

/// What the record `head/<feed>` of a name says.
pub(crate) async fn by_record(records: &Records, name: &IpnsName, feed: &FeedName) -> Result<SignedHead, NodeError> {
    let Some(owner) = name.public_key() else {
        return Err(NodeError::not_found(format!("/ipns/{name} does not hold its key, which a record is found by")));
    };
    let record = RecordName::new(record_name(feed)).map_err(|error| NodeError::usage(error.to_string()))?;
    let target = RecordTarget::Name { owner, name: record.clone() };
    let found = records.get(&target, limits::RECORD_QUORUM).await?;
    let no_head =
        |why: String| NodeError::verification(format!("the record {record} of /ipns/{name} is no head: {why}"));
    let head = SignedHead::decode(&found.value).map_err(|error| no_head(error.to_string()))?;
    if head.feed() != feed {
        return Err(no_head(format!("it is of feed {}", head.feed())));
    }
    Ok(head)
}

/// Where the IPNS record of a name points, and the heads that this leads to: those who provide the entry are asked for signed
/// ones, of the owner's feed, or of their own where it is that entry. Whoever holds a feed provides its head. Nobody is asked
/// where the entry is that of a head that is `known`.
pub(crate) async fn by_entry(
    context: &Context,
    records: &Records,
    name: &IpnsName,
    feed: &FeedName,
    known: Option<&SignedHead>,
) -> Result<(String, Vec<SignedHead>), NodeError> {
    let value = records.resolve(name, limits::RECORD_QUORUM).await?.value;
    let Some(entry) = value.strip_prefix("/ipfs/").and_then(|path| Cid::try_from(path.trim_end_matches('/')).ok())
    else {
        return Ok((value, Vec::new()));
    };
    if known.is_some_and(|known| *known.head() == entry) {
        return Ok((value, Vec::new()));
    }
    let (owner, own) = (name.peer_id(), context.key.public().to_peer_id());
    let providers = context.swarm.find_providers(rendezvous::head_key(&entry), limits::MAX_PROVIDERS).await;
    let connected = context.swarm.peers().await.unwrap_or_default().into_iter();
    let able = connected.filter(|peer| peer.protocols.iter().any(|name| *name == head::PROTOCOL));
    let mut peers = providers.unwrap_or_default();
    peers.extend(able.map(|peer| peer.peer).take(limits::MAX_PROVIDERS));
    peers.push(owner);
    let mut seen = HashSet::from([own]);
    peers.retain(|peer| seen.insert(*peer));
    let ask = |peer| {
        let client = context.client.clone();
        async move {
            let of = |publisher| HeadQuery { publisher, feed: Some(feed.clone()) };
            let mut heads = client.heads(peer, &of(Some(owner))).await.unwrap_or_default();
            if peer != owner && heads.is_empty() {
                heads = client.heads(peer, &of(None)).await.unwrap_or_default();
            }
            heads
        }
    };
    let answers: Vec<Vec<SignedHead>> = stream::iter(peers).map(ask).buffer_unordered(ASKED_AT_ONCE).collect().await;
    let told = answers.into_iter().flatten();
    let heads = told.filter(|head| head.publisher() == owner || *head.head() == entry).collect();
    Ok((value, heads))
}
