//! Others on the topic of a name: whoever is on it provides a key in the DHT, as go-libp2p-pubsub's discovery does.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use dagmesh_core::limits::{MAX_PROVIDERS, NAME_FIND_SECS, NAME_PEERS_LOW};
use dagmesh_records::IpnsName;
use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use libp2p::PeerId;

use super::PubSub;
use crate::services::rendezvous;

/// Topics for which others are sought at once.
const SOUGHT_AT_ONCE: usize = 4;
const FIND: Duration = Duration::from_secs(NAME_FIND_SECS);
/// How soon a search that found nobody is repeated at first; it doubles up to [`FIND`].
const FIRST: Duration = Duration::from_secs(2);

/// How others were sought for one topic.
#[derive(Debug, Default)]
pub(super) struct Sought {
    at: Option<Instant>,
    in_vain: u32,
}

impl Sought {
    /// When others are to be sought, with so many there; `None` where they are enough.
    fn due(&self, peers: usize, now: Instant) -> Option<Instant> {
        let Some(at) = self.at else { return Some(now) };
        match peers {
            0 => Some(at + FIRST.saturating_mul(1 << self.in_vain.min(16)).min(FIND)),
            few if few < NAME_PEERS_LOW => Some(at + FIND * 10),
            _ => None,
        }
    }

    fn begin(&mut self, peers: usize, now: Instant) {
        self.in_vain = if self.at.is_some() && peers == 0 { self.in_vain.saturating_add(1) } else { 0 };
        self.at = Some(now);
    }
}

/// The key in the DHT of those who are on the topic of a name: that of go-libp2p's routing discovery, the hash of the
/// namespace, which go-libp2p-pubsub makes of the topic.
pub(super) fn key(name: &IpnsName) -> Option<Vec<u8>> {
    rendezvous::label(b"floodsub:", &[name.topic().as_bytes()])
}

impl PubSub {
    /// Keeps somebody on each topic, as far as there is anybody, for as long as it runs.
    pub(super) async fn find(&self) {
        let mut running = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            let mut next = now + FIND;
            {
                let mut topics = self.inner.topics.lock();
                for (name, topic) in &mut topics.of {
                    match topic.sought.due(topic.peers.len(), now) {
                        Some(at) if at <= now && running.len() < SOUGHT_AT_ONCE => {
                            let first = topic.sought.at.is_none();
                            topic.sought.begin(topic.peers.len(), now);
                            running.push(self.seek(*name, first, topic.peers.clone()));
                        }
                        // Once a place is free.
                        Some(at) if at <= now => {}
                        Some(at) => next = next.min(at),
                        None => {}
                    }
                }
            }
            tokio::select! {
                Some(()) = running.next() => {}
                () = self.inner.seek.notified() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    async fn seek(&self, name: IpnsName, first: bool, connected: BTreeSet<PeerId>) {
        let (swarm, Some(key)) = (&self.inner.context.swarm, key(&name)) else { return };
        if first {
            let (swarm, key) = (swarm.clone(), key.clone());
            self.inner.context.spawn(async move {
                if let Err(error) = swarm.provide(key).await {
                    tracing::debug!(%error, "the topic of a name is not provided in the DHT yet");
                }
            });
        }
        let found = swarm.find_providers(key, MAX_PROVIDERS).await.unwrap_or_default();
        let others = found.into_iter().filter(|peer| !connected.contains(peer));
        let dialled = others.take(NAME_PEERS_LOW.saturating_sub(connected.len())).map(|peer| async move {
            if let Err(error) = swarm.dial_peer(peer).await {
                tracing::debug!(%name, %peer, %error, "a peer on the topic of a name was not reached");
            }
        });
        stream::iter(dialled).buffer_unordered(NAME_PEERS_LOW).collect::<Vec<()>>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_topic_is_that_of_routing_discovery() {
        let name: IpnsName = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8".parse().expect("a name");
        let topic = name.topic();
        assert!(topic.starts_with("/record/L2lwbnMv"), "{topic}");
        let digest = dagmesh_dag::HashCode::Sha2_256.digest(format!("floodsub:{topic}").as_bytes()).expect("hashes");
        assert_eq!(key(&name), Some(digest.to_bytes()));
    }

    #[test]
    fn a_topic_without_peers_is_sought_for_ever_more_rarely_and_one_with_enough_not_at_all() {
        let now = Instant::now();
        let mut sought = Sought::default();
        assert_eq!(sought.due(NAME_PEERS_LOW, now), Some(now), "the first time, to be found");
        let mut waits = Vec::new();
        for _ in 0..8 {
            sought.begin(0, now);
            waits.push((sought.due(0, now).expect("is due") - now).as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(sought.due(1, now), Some(now + FIND * 10));
        assert_eq!(sought.due(NAME_PEERS_LOW, now), None);
        sought.begin(1, now);
        assert_eq!(sought.due(0, now), Some(now + FIRST));
    }
}
