//! Many peers in one DHT.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dagmesh_core::limits::DEFAULT_RECORD_REPLICAS;
use dagmesh_records::{
    Answer, Draft, Get, GetConfig, GetResult, Put, PutConfig, PutResult, Record, RecordName, Verified,
};
use futures::{StreamExt, TryStreamExt, stream};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use rand::{RngExt, seq::IndexedRandom, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    peer::{Peer, unix_ms},
    trace::Trace,
};

/// Peers that join at once, and puts that run at once: of few peers a quarter.
const AT_ONCE: usize = 16;
/// Peers that a newcomer knows.
const KNOWN: usize = 3;
/// How long the records live: longer than any measurement.
const LIFE_MS: u64 = 24 * 60 * 60 * 1000;

/// What came of a get.
#[derive(Debug, Clone)]
pub(super) struct Got {
    /// How many hops away the first was that had the record; `None` where it was not found.
    pub(super) hops: Option<usize>,
    /// FIND_NODE requests that were answered.
    pub(super) find_node: usize,
    /// Peers that were asked for the record.
    pub(super) asked: usize,
    pub(super) elapsed: Duration,
}

/// Peers, and what they note down.
pub(super) struct Mesh {
    peers: Vec<Peer>,
    trace: Arc<Trace>,
}

impl Mesh {
    /// Grows a mesh from one peer: each newcomer walks the DHT, and whoever is met on the way knows it from then on.
    pub(super) async fn grow(count: usize, rng: &mut ChaCha8Rng) -> Result<Self> {
        let (mut mesh, begun) = (Self { peers: Vec::new(), trace: Arc::default() }, Instant::now());
        let key = |rng: &mut ChaCha8Rng| Keypair::ed25519_from_bytes(rng.random::<[u8; 32]>());
        while mesh.peers.len() < count {
            let places: Vec<(PeerId, Multiaddr)> = mesh.peers.iter().map(|peer| (peer.id, peer.addr.clone())).collect();
            // A mesh of one is joined by one.
            let wave = mesh.peers.len().clamp(1, AT_ONCE).min(count - mesh.peers.len());
            let mut newcomers = Vec::new();
            for _ in 0..wave {
                let peer = Peer::start(key(rng)?, rng.random(), mesh.trace.clone()).await?;
                newcomers.push((peer, places.sample(rng, KNOWN).cloned().collect::<Vec<_>>()));
            }
            futures::future::try_join_all(newcomers.iter().map(|(peer, known)| peer.join(known.clone()))).await?;
            mesh.peers.extend(newcomers.into_iter().map(|(peer, _)| peer));
            if mesh.peers.len() / 100 > places.len() / 100 {
                eprintln!("{} of {count} peers after {:.0} s", mesh.peers.len(), begun.elapsed().as_secs_f64());
            }
        }
        mesh.trace.freeze();
        Ok(mesh)
    }

    /// Random peers put so many records, each at as many of the closest as there are, up to the usual number.
    pub(super) async fn put_records(&self, count: usize, rng: &mut ChaCha8Rng) -> Result<Vec<Verified>> {
        let owners: Vec<&Peer> = (0..count).filter_map(|_| self.peers.choose(rng)).collect();
        let puts = owners.into_iter().enumerate().map(|(n, owner)| async move {
            let timestamp_ms = unix_ms();
            let draft = Draft {
                name: RecordName::new(format!("record {n}"))?,
                value: format!("value {n}").into_bytes(),
                sequence: 1,
                timestamp_ms,
                expires_ms: timestamp_ms + LIFE_MS,
                meta: Default::default(),
            };
            let record = Verified::from(&Record::sign(&owner.key, draft)?);
            let put = Put::new(Instant::now(), PutConfig::new(record.clone(), timestamp_ms))?;
            let result: PutResult = owner.drive(put, |_, _| {}).await?;
            // A stream may be dropped too often where many put at once.
            let (holders, all) = (result.holders.len(), DEFAULT_RECORD_REPLICAS.min(self.peers.len() - 1));
            ensure!(holders > 0 && holders + all / 10 >= all, "a put reached {holders} of {all} peers: {result:?}");
            Ok(record)
        });
        let at_once = AT_ONCE.min(self.peers.len() / 4).max(1);
        stream::iter(puts).buffered(at_once).try_collect().await
    }

    /// So many random peers are gone, at once and without a word: as when their process is killed.
    pub(super) fn kill(&mut self, count: usize, rng: &mut ChaCha8Rng) {
        self.peers.shuffle(rng);
        self.peers.truncate(self.peers.len().saturating_sub(count));
    }

    /// Each of the records is read by a random peer, one after the other.
    pub(super) async fn get_all(&self, records: &[Verified], rng: &mut ChaCha8Rng) -> Result<Vec<Got>> {
        let mut got = Vec::new();
        for record in records {
            got.push(self.get(record, rng).await?);
        }
        Ok(got)
    }

    /// A random peer gets a record; a copy of its own does not count.
    async fn get(&self, record: &Verified, rng: &mut ChaCha8Rng) -> Result<Got> {
        let reader = self.peers.choose(rng).context("nobody is left")?;
        let (key, begun) = (record.key().to_vec(), Instant::now());
        self.trace.begin(reader.id, key.clone());
        let mut first = None;
        let get = Get::new(begun, GetConfig::new(key, unix_ms()))?;
        let seen = |peer: &PeerId, answer: &Answer| {
            if matches!(answer, Answer::Record(_)) {
                first.get_or_insert(*peer);
            }
        };
        let result: GetResult = reader.drive(get, seen).await?;
        let elapsed = begun.elapsed();
        let lookup = self.trace.end().context("no get ran")?;
        let found = result.record.as_ref().is_some_and(|found| found.bytes() == record.bytes());
        let hops = match first.filter(|_| found) {
            Some(first) => Some(lookup.hops(&first).context("the walk found somebody of whom nobody told")?),
            None => None,
        };
        Ok(Got { hops, find_node: lookup.answered, asked: result.asked, elapsed })
    }
}
