//! Signed records and IPNS names: put to the nodes closest to their key, read from a quorum of them, put again while they
//! are valid.
//!
//! - [`keep`]: what the DHT and the exchange take is written to the disk; bans are carried out; records are put again.
//! - [`pubsub`]: names over gossip, beside the DHT.
//! - [`drive`]: one put or get, over `/dagmesh/records/1.0.0`, or by plain Kademlia where a peer knows no other.
//! - [`watch`]: where an IPNS name points, from now on.

mod drive;
mod keep;
pub(crate) mod pubsub;
#[cfg(test)]
mod tests;
mod watch;

use std::{sync::Arc, time::Duration};

use dagmesh_core::limits;
use dagmesh_records::{
    Get, GetConfig, GetResult, IpnsDraft, IpnsName, IpnsRecord, Namespace, Put, PutConfig, PutEnd, PutResult, Record,
    RecordError, Source, StoreConfig, Validity, Verified, net, record_key,
};
use libp2p::{PeerId, identity::Keypair};

use self::pubsub::{Listening, PubSub};
use super::{Context, unix_ms};
use crate::{
    config::RecordsConfig,
    error::{ErrorKind, NodeError},
    keys::Keyring,
    store::{KeptRecords, Store},
    swarm::RecordBook,
    types::{NamePublish, NameResolved, RecordFound, RecordHeld, RecordPut, RecordPutDone, RecordTarget},
};

/// How often a put that is superseded is signed again with a higher number, before the other writer has its way.
const RESIGNS: usize = 3;

/// The records of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Records {
    context: Context,
    book: RecordBook,
    /// Names over gossip, where that is wanted.
    pubsub: Option<PubSub>,
    /// Names are signed anew with these.
    keys: Keyring,
    /// One record at a time gets its number.
    signing: Arc<tokio::sync::Mutex<()>>,
}

/// What was written in the last run. Before the swarm starts, so that nothing older is taken meanwhile.
pub(crate) fn book(store: &Store, own: PeerId, config: &RecordsConfig) -> Result<RecordBook, NodeError> {
    let KeptRecords { rows, marks, bans } = store.kept_records()?;
    let republish = Duration::from_secs(config.republish_secs);
    let config = StoreConfig { republish, ..StoreConfig::new(own, rand::random()) };
    Ok(RecordBook::restore(config, Arc::new(unix_ms), rows, marks, bans))
}

impl Records {
    /// Answers what peers ask, and keeps the book; with `pubsub` names go over gossip too.
    pub(crate) fn start(context: &Context, keys: Keyring, pubsub: bool) -> Result<Self, NodeError> {
        let book = context.swarm.records().clone();
        let pubsub = if pubsub { Some(PubSub::start(context, &book)?) } else { None };
        let this = Self { context: context.clone(), book, pubsub, keys, signing: Arc::default() };
        let incoming = context.swarm.streams().accept(net::PROTOCOL);
        let incoming = incoming.map_err(|error| NodeError::other(format!("a protocol is served twice: {error}")))?;
        let book = this.book.clone();
        context.spawn(net::serve_on(incoming, move |peer, request| {
            let book = book.clone();
            async move {
                let (answer, number) = book.serve(peer, &request)?;
                // Whoever is told that it is stored may count on it.
                let durable = book.durable(number).await;
                Some(if durable { answer } else { keep::not_written(answer) })
            }
        }));
        let keeper = this.clone();
        context.spawn(async move { keeper.keep().await });
        Ok(this)
    }

    /// Signs a record, keeps it, and puts it to the closest nodes.
    pub(crate) async fn put(&self, key: Option<Keypair>, request: RecordPut) -> Result<RecordPutDone, NodeError> {
        let key = key.unwrap_or_else(|| Keypair::clone(&self.context.key));
        let RecordPut { name, value, lifetime, replicas, meta } = request;
        let name = dagmesh_records::RecordName::new(name).map_err(usage)?;
        check_lifetime("record", lifetime, Duration::from_millis(limits::MAX_RECORD_LIFETIME_MS))?;
        let lifetime_ms = millis(lifetime);
        let at = record_key(&key.public(), &name);
        let sign = |sequence| {
            let timestamp_ms = unix_ms();
            let expires_ms = timestamp_ms.saturating_add(lifetime_ms);
            let (name, value, meta) = (name.clone(), value.clone(), meta.clone());
            let draft = dagmesh_records::Draft { name, value, sequence, timestamp_ms, expires_ms, meta };
            Record::sign(&key, draft).map(|record| Verified::from(&record))
        };
        self.put_own(&at, replicas, |held| number_after(held, 0), sign).await
    }

    /// The newest record.
    pub(crate) async fn get(&self, target: &RecordTarget, quorum: usize) -> Result<RecordFound, NodeError> {
        let result = self.read(target.key(), quorum).await?;
        let found = match &result.record {
            Some(found) => Record::decode(found.bytes()).map_err(|error| NodeError::verification(error.to_string()))?,
            None => return Err(not_found(format!("record {target}"), &result)),
        };
        Ok(RecordFound::new(&found, &result))
    }

    /// All that are held here; those of this node alone with `own`.
    pub(crate) fn list(&self, own: bool) -> Vec<RecordHeld> {
        self.book.list(own).iter().map(|(record, source)| RecordHeld::new(record, *source)).collect()
    }

    /// Points an IPNS name.
    pub(crate) async fn publish(&self, key: Option<Keypair>, request: NamePublish) -> Result<RecordPutDone, NodeError> {
        let key = key.unwrap_or_else(|| Keypair::clone(&self.context.key));
        let NamePublish { value, lifetime, ttl, replicas } = request;
        let max = Duration::from_secs(limits::MAX_IPNS_LIFETIME_SECS);
        check_lifetime("name", lifetime, max)?;
        if ttl > max {
            return Err(NodeError::usage(format!("a name may be cached for {} days at most", days(max))));
        }
        let at = IpnsName::of(&key.public()).key();
        // A key may have been used elsewhere, and peers of plain Kademlia refuse a lower number without a word.
        let known = match self.book.get(&at) {
            Some(_) => None,
            None => self.read(at.clone(), limits::RECORD_QUORUM).await?.record,
        };
        let known = known.map_or(0, |record| record.order().sequence);
        let ttl_ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let sign = |sequence| {
            let validity = Validity::from_unix_ms(unix_ms().saturating_add(millis(lifetime)));
            let draft = IpnsDraft { value: value.clone().into_bytes(), sequence, validity, ttl_ns };
            IpnsRecord::sign(&key, draft).map(|record| Verified::from(&record))
        };
        let first = |held: Option<&Verified>| match held {
            // What points there already is made valid for longer: its number grows with the value alone.
            Some(held) if value_of(held).is_some_and(|held| held == value.as_bytes()) => held.order().sequence,
            _ => number_after(held, known),
        };
        self.put_own(&at, replicas, first, sign).await
    }

    /// Where an IPNS name points.
    pub(crate) async fn resolve(&self, name: &IpnsName, quorum: usize) -> Result<NameResolved, NodeError> {
        let (found, result) = self.find(name, quorum).await?;
        Ok(NameResolved::new(&found, Some(&result)))
    }

    async fn find(&self, name: &IpnsName, quorum: usize) -> Result<(IpnsRecord, GetResult), NodeError> {
        let result = self.read_name(name, quorum).await?;
        let found = match &result.record {
            Some(found) => {
                IpnsRecord::decode(name, found.bytes()).map_err(|error| NodeError::verification(error.to_string()))?
            }
            None => return Err(not_found(format!("record of /ipns/{name}"), &result)),
        };
        Ok((found, result))
    }

    /// Signs with the `first` number that fits after what is held, makes it durable, and puts it.
    async fn put_own(
        &self,
        key: &[u8],
        replicas: usize,
        first: impl Fn(Option<&Verified>) -> u64,
        sign: impl Fn(u64) -> Result<Verified, RecordError>,
    ) -> Result<RecordPutDone, NodeError> {
        // Before a number is spent on it.
        if !(1..=limits::MAX_RECORD_PEERS).contains(&replicas) {
            let max = limits::MAX_RECORD_PEERS;
            return Err(NodeError::usage(format!("{replicas} replicas where 1 to {max} may be asked for")));
        }
        let mut last = None;
        for _ in 0..=RESIGNS {
            let record = self.sign_next(key, &first, &sign).await?;
            self.pubsub.iter().for_each(|pubsub| pubsub.announce(&record));
            let result = self.replicate(record.clone(), replicas).await?;
            match result.end {
                PutEnd::Superseded(_) => last = Some(record),
                PutEnd::Nowhere => {
                    let (asked, wanted) = (result.asked, result.wanted);
                    let text = format!("the record is kept here and put again later: 0 of {wanted} nodes hold it");
                    let why = result.refused.first().map(|(peer, why)| format!("; {peer}: {why}")).unwrap_or_default();
                    return Err(NodeError::no_peers(format!("{text}, {asked} were asked{why}")));
                }
                PutEnd::Complete | PutEnd::Partial => return Ok(RecordPutDone::new(&record, &result)),
            }
        }
        let sequence = last.map_or(0, |record| record.order().sequence);
        let text = format!("another writer with this key goes on putting newer records (ours is number {sequence})");
        Err(NodeError::new(ErrorKind::Error, text))
    }

    async fn sign_next(
        &self,
        key: &[u8],
        first: impl Fn(Option<&Verified>) -> u64,
        sign: impl Fn(u64) -> Result<Verified, RecordError>,
    ) -> Result<Verified, NodeError> {
        let _one_at_a_time = self.signing.lock().await;
        let mut sequence = first(self.book.get(key).as_ref());
        loop {
            let record = sign(sequence).map_err(usage)?;
            match self.book.put(Source::Own, record.clone()) {
                Ok((_, number)) => {
                    let written = tokio::time::timeout(WRITE, self.book.durable(number)).await;
                    return match written {
                        Ok(true) => Ok(record),
                        _ => Err(NodeError::new(ErrorKind::Storage, "the record could not be written to the disk")),
                    };
                }
                Err(RecordError::Outlived { sequence: known }) if known >= sequence => {
                    sequence = known.saturating_add(1)
                }
                Err(RecordError::Superseded { newer }) if newer.order().sequence >= sequence => {
                    sequence = newer.order().sequence.saturating_add(1);
                }
                Err(error) => return Err(usage(error)),
            }
        }
    }

    /// Puts a record to so many of the closest nodes; where too few take it, it is put again soon.
    async fn replicate(&self, record: Verified, replicas: usize) -> Result<PutResult, NodeError> {
        let key = record.key().to_vec();
        let config = PutConfig { replicas, ..PutConfig::new(record, unix_ms()) };
        let put = Put::new(std::time::Instant::now(), config).map_err(usage)?;
        let result: PutResult = self.drive(put).await.ok_or_else(NodeError::stopping)?;
        self.book.put_ended(&key, matches!(result.end, PutEnd::Complete | PutEnd::Superseded(_)));
        Ok(result)
    }

    /// The value of what is held under a key, where it is ours to put and valid for longer than until then (Unix
    /// milliseconds).
    pub(crate) fn held_value(&self, key: &[u8], until_ms: u64) -> Option<Vec<u8>> {
        let held = self.book.get(key).filter(|held| held.expires_ms() > until_ms)?;
        match held.namespace() {
            Namespace::Record => Record::decode(held.bytes()).ok().map(|record| record.draft().value.clone()),
            Namespace::Ipns => {
                let record = IpnsRecord::decode(&IpnsName::from_key(key).ok()?, held.bytes()).ok()?;
                Some(record.draft().value.clone())
            }
        }
    }

    /// Puts what is held under a key to the closest nodes once more.
    ///
    /// # Errors
    /// [`ErrorKind::NoPeers`] where nobody takes it.
    pub(crate) async fn put_held(&self, key: &[u8]) -> Result<(), NodeError> {
        let Some(held) = self.book.get(key) else { return Ok(()) };
        self.pubsub.iter().for_each(|pubsub| pubsub.announce(&held));
        match self.replicate(held, limits::DEFAULT_RECORD_REPLICAS).await? {
            PutResult { end: PutEnd::Nowhere, asked, .. } => {
                Err(NodeError::no_peers(format!("nobody holds the record; {asked} were asked")))
            }
            _ => Ok(()),
        }
    }

    /// Hears of a name over gossip, for as long as what is given is held.
    pub(crate) async fn listen(&self, name: IpnsName) -> Option<Listening> {
        self.pubsub.as_ref()?.listen(name).await
    }

    /// The names of which gossip brings a newer record; `None` where they do not go over gossip.
    pub(crate) fn name_news(&self) -> Option<tokio::sync::broadcast::Receiver<IpnsName>> {
        self.pubsub.as_ref().map(PubSub::news)
    }

    /// What the DHT has of a name, and what gossip brings, whichever is newer.
    async fn read_name(&self, name: &IpnsName, quorum: usize) -> Result<GetResult, NodeError> {
        let heard = self.pubsub.as_ref().map(|pubsub| pubsub.catch_up(*name));
        let mut result = self.read(name.key(), quorum).await?;
        if let (None, Some(heard)) = (&result.record, heard) {
            heard.await;
        }
        let held = self.book.get(&name.key());
        let found = result.record.as_ref().map(Verified::order);
        if let Some(held) = held.filter(|held| found.is_none_or(|found| found < held.order())) {
            result.record = Some(held);
        }
        Ok(result)
    }

    async fn read(&self, key: Vec<u8>, quorum: usize) -> Result<GetResult, NodeError> {
        let local = self.book.get(&key);
        let config = GetConfig { quorum, local, ..GetConfig::new(key, unix_ms()) };
        let get = Get::new(std::time::Instant::now(), config).map_err(usage)?;
        self.drive(get).await.ok_or_else(NodeError::stopping)
    }
}

const WRITE: Duration = Duration::from_secs(limits::CALL_TIMEOUT_SECS);

fn usage(error: RecordError) -> NodeError {
    NodeError::usage(error.to_string())
}

fn not_found(what: String, result: &GetResult) -> NodeError {
    let GetResult { asked, absent, invalid, .. } = result;
    NodeError::not_found(format!("no {what}: {asked} nodes were asked, {absent} had none, {invalid} none that holds"))
}

/// The number after the one that is held and the one that is `known`.
fn number_after(held: Option<&Verified>, known: u64) -> u64 {
    held.map_or(known, |held| held.order().sequence.max(known)).saturating_add(1)
}

/// Where an IPNS record points.
fn value_of(record: &Verified) -> Option<Vec<u8>> {
    let name = IpnsName::from_key(record.key()).ok()?;
    Some(IpnsRecord::decode(&name, record.bytes()).ok()?.draft().value.clone())
}

fn check_lifetime(what: &str, lifetime: Duration, max: Duration) -> Result<(), NodeError> {
    if (Duration::from_millis(1)..=max).contains(&lifetime) {
        return Ok(());
    }
    Err(NodeError::usage(format!(
        "a {what} cannot be valid for {} s: more than nothing and at most {} days",
        lifetime.as_secs_f64(),
        days(max)
    )))
}

fn days(time: Duration) -> u64 {
    time.as_secs() / (24 * 60 * 60)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
