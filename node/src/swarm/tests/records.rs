//! Records over the DHT, put and got by a plain Kademlia peer that knows nothing of dagmesh.

use std::collections::BTreeMap;

use dagmesh_records::{Draft, IpnsDraft, IpnsRecord, Record, RecordName, Source, StoreConfig, Verified};
use futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, GetRecordOk, QueryResult, Quorum};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{StreamProtocol, Swarm, identify, noise, tcp, yamux};

use super::*;
use crate::services::unix_ms;

const HOUR_MS: u64 = 60 * 60 * 1000;

#[derive(NetworkBehaviour)]
struct PlainBehaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

/// Kademlia as libp2p has it.
struct Plain {
    swarm: Swarm<PlainBehaviour>,
}

impl Plain {
    async fn start(target: &Node) -> Self {
        let behaviour = |key: &Keypair| {
            let peer = key.public().to_peer_id();
            let mut kad = kad::Config::new(StreamProtocol::new("/dagmesh/test/kad/1.0.0"));
            // A refusal is answered, and does not show as a time-out.
            kad.set_substreams_timeout(Duration::from_secs(120));
            PlainBehaviour {
                identify: identify::Behaviour::new(identify::Config::new("/test".to_owned(), key.public())),
                kad: kad::Behaviour::with_config(peer, MemoryStore::new(peer), kad),
            }
        };
        let swarm = libp2p::SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(behaviour)
            .unwrap()
            .build();
        let mut this = Self { swarm };
        this.swarm.behaviour_mut().kad.set_mode(Some(kad::Mode::Server));
        this.swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        this.event("listener", |event| matches!(event, SwarmEvent::NewListenAddr { .. }).then_some(())).await;
        this.connect(target).await;
        this
    }

    async fn connect(&mut self, target: &Node) {
        let addr = target.tcp().await;
        self.swarm.behaviour_mut().kad.add_address(&target.peer(), addr.clone());
        self.swarm.dial(addr).unwrap();
        self.event("connection", |event| matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())).await;
    }

    async fn event<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(SwarmEvent<PlainBehaviourEvent>) -> Option<T>,
    ) -> T {
        within(what, async {
            loop {
                if let Some(found) = wanted(self.swarm.select_next_some().await) {
                    return found;
                }
            }
        })
        .await
    }

    /// Puts it to one peer; gives whether that took it.
    async fn put(&mut self, target: PeerId, key: &[u8], value: &[u8]) -> bool {
        let record = kad::Record::new(key.to_vec(), value.to_vec());
        self.swarm.behaviour_mut().kad.put_record_to(record, [target].into_iter(), Quorum::One);
        self.event("answer to a PUT", |event| match event {
            SwarmEvent::Behaviour(PlainBehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: QueryResult::PutRecord(result),
                ..
            })) => Some(result.is_ok()),
            _ => None,
        })
        .await
    }

    /// What the mesh has under a key.
    async fn get(&mut self, key: &[u8]) -> Vec<Vec<u8>> {
        self.swarm.behaviour_mut().kad.get_record(kad::RecordKey::from(key.to_vec()));
        let mut found = Vec::new();
        self.event("answer to a GET", |event| match event {
            SwarmEvent::Behaviour(PlainBehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: QueryResult::GetRecord(result),
                step,
                ..
            })) => {
                if let Ok(GetRecordOk::FoundRecord(record)) = result {
                    found.push(record.record.value);
                }
                step.last.then_some(())
            }
            _ => None,
        })
        .await;
        found
    }
}

/// Signed `ago_ms` ago for an hour.
fn record(owner: &Keypair, name: &str, sequence: u64, ago_ms: i64) -> Record {
    let timestamp_ms = unix_ms().saturating_add_signed(-ago_ms);
    let draft = Draft {
        name: RecordName::new(name).unwrap(),
        value: sequence.to_be_bytes().to_vec(),
        sequence,
        timestamp_ms,
        expires_ms: timestamp_ms + HOUR_MS,
        meta: BTreeMap::new(),
    };
    Record::sign(owner, draft).unwrap()
}

fn small_book(own: &Keypair) -> RecordBook {
    let own = own.public().to_peer_id();
    let config = StoreConfig { max_records: 16, max_per_source: 4, ..StoreConfig::new(own, 1) };
    RecordBook::restore(config, Arc::new(unix_ms), Vec::new(), Vec::new(), Vec::new())
}

#[tokio::test]
async fn what_is_no_record_is_refused_over_the_dht_and_plain_peers_put_and_get_what_is() {
    let node = Node::start().await;
    let mut plain = Plain::start(&node).await;
    let (owner, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (old, held) = (record(&owner, "name", 1, 0), record(&owner, "name", 2, 0));
    assert!(plain.put(node.peer(), &held.key(), held.encode()).await);
    assert!(plain.put(node.peer(), &held.key(), held.encode()).await, "once more");
    assert_eq!(plain.get(&held.key()).await, [held.encode()]);
    let ipns = IpnsRecord::sign(&owner, IpnsDraft::new("/ipfs/x", 1, unix_ms())).unwrap();
    assert!(plain.put(node.peer(), &ipns.name().key(), ipns.encode()).await);
    assert_eq!(plain.get(&ipns.name().key()).await, [ipns.encode()]);

    let foreign = record(&other, "name", 3, 0);
    let expired = record(&other, "name", 3, 2 * HOUR_MS as i64);
    let future = record(&other, "name", 3, -(HOUR_MS as i64));
    for (what, key, value) in [
        ("an older sequence", held.key(), old.encode()),
        ("the key of another", held.key(), foreign.encode()),
        ("expired", expired.key(), expired.encode()),
        ("from the future", future.key(), future.encode()),
        ("an unknown namespace", b"/pk/name".to_vec(), foreign.encode()),
        ("no record", foreign.key(), b"junk"),
        ("too big", ipns.name().key(), &vec![0; limits::MAX_IPNS_RECORD_BYTES + 1]),
    ] {
        assert!(!plain.put(node.peer(), &key, value).await, "{what} was taken");
    }
    assert_eq!(node.handle.records().counts(), (2, 0));
    assert_eq!(node.handle.metrics().kad_refused, 7);
    assert!(!node.handle.records().is_banned(plain.swarm.local_peer_id()), "none of it proves a fault");
}

#[tokio::test]
async fn who_puts_a_forged_record_is_banned_and_what_it_puts_then_is_refused() {
    let node = Node::start().await;
    let mut forger = Plain::start(&node).await;
    let owner = Keypair::generate_ed25519();
    let good = record(&owner, "name", 1, 0);
    let mut forged = good.encode().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(!forger.put(node.peer(), &good.key(), &forged).await);
    assert!(node.handle.records().is_banned(forger.swarm.local_peer_id()));
    assert!(!forger.put(node.peer(), &good.key(), good.encode()).await);
    let mut honest = Plain::start(&node).await;
    assert!(honest.put(node.peer(), &good.key(), good.encode()).await);
}

#[tokio::test]
async fn row_28_a_flood_of_one_peer_leaves_room_for_the_others() {
    let key = Keypair::generate_ed25519();
    let mut config = SwarmConfig::for_profile(Profile::Test);
    config.records = Some(small_book(&key));
    let RunningSwarm { handle, gossip } = start(config, key, Box::new(AcceptAll)).await.unwrap();
    let node = Node { events: handle.events(), handle, gossip };
    let mut flooder = Plain::start(&node).await;
    let mut taken = 0;
    for _ in 0..12 {
        let record = record(&Keypair::generate_ed25519(), "flood", 1, 0);
        taken += usize::from(flooder.put(node.peer(), &record.key(), record.encode()).await);
    }
    assert!(taken >= 4, "it has its share");
    let peer = *flooder.swarm.local_peer_id();
    let of = |peer: PeerId| {
        let all = node.handle.records().list(false);
        all.into_iter().filter(|(_, source)| *source == Source::Peer(peer)).count()
    };
    assert_eq!(of(peer), 4);
    let mut honest = Plain::start(&node).await;
    let record = record(&Keypair::generate_ed25519(), "name", 1, 0);
    assert!(honest.put(node.peer(), &record.key(), record.encode()).await);
    assert_eq!((of(peer), of(*honest.swarm.local_peer_id())), (4, 1));
}

#[tokio::test]
async fn while_the_disk_does_not_keep_up_records_of_peers_are_refused_and_a_write_that_failed_comes_again() {
    let own = Keypair::generate_ed25519();
    let peer = own.public().to_peer_id();
    let book = RecordBook::restore(StoreConfig::new(peer, 1), Arc::new(unix_ms), Vec::new(), Vec::new(), Vec::new());
    let record = |n: usize| Verified::from(&record(&own, &n.to_string(), 1, 0));
    let from = || Source::Peer(PeerId::random());
    let mut last = None;
    for n in 0..limits::MAX_RECORD_WRITES {
        last = Some(book.put(from(), record(n)).unwrap().1);
    }
    let full = book.put(from(), record(limits::MAX_RECORD_WRITES)).unwrap_err();
    assert!(matches!(full, dagmesh_records::RecordError::Full(_)), "{full}");
    book.put(Source::Own, record(limits::MAX_RECORD_WRITES)).expect("our own is");
    let (work, _) = book.take();
    assert_eq!(work.changes.len(), limits::MAX_RECORD_WRITES + 1);
    let (number, all) = (work.number, work.changes.clone());
    book.written(number, Some(work.changes));
    assert!(!book.durable(last.unwrap()).await, "it is told");
    let (work, _) = book.take();
    assert_eq!(work.changes, all, "and written again");
    book.written(work.number, None);
    assert!(book.durable(last.unwrap()).await);
    book.put(from(), record(limits::MAX_RECORD_WRITES + 1)).expect("there is room again");
}

#[tokio::test]
async fn records_are_put_to_and_found_at_plain_peers() {
    let node = Node::start().await;
    let mut plain = Plain::start(&node).await;
    let peer = *plain.swarm.local_peer_id();
    let running = tokio::spawn(async move {
        loop {
            plain.swarm.select_next_some().await;
        }
    });
    let record = record(&Keypair::generate_ed25519(), "name", 1, 0);
    let (key, value) = (record.key(), record.encode().to_vec());
    until("peer in the routing table", async || {
        let closest = node.handle.closest_peers(key.clone(), 4).await.unwrap();
        (closest == [peer]).then_some(())
    })
    .await;
    assert_eq!(node.handle.closest_peers(key.clone(), 0).await.unwrap(), []);
    let none = node.handle.find_records(key.clone()).await.unwrap();
    assert_eq!(none, FoundRecords { found: Vec::new(), without: vec![peer] });
    assert!(node.handle.put_record_to(peer, key.clone(), value.clone()).await.unwrap());
    let found = node.handle.find_records(key.clone()).await.unwrap();
    assert_eq!(found, FoundRecords { found: vec![(peer, value.clone())], without: Vec::new() });
    assert_eq!(node.handle.records().counts(), (0, 0), "nothing of it is kept here");
    running.abort();
    assert!(!node.handle.put_record_to(PeerId::random(), key, value).await.unwrap(), "nobody is there");
}

#[tokio::test]
async fn who_waits_for_the_disk_is_told_at_once_when_nobody_writes_any_more() {
    let own = Keypair::generate_ed25519();
    let book = small_book(&own);
    let (_, number) = book.put(Source::Own, Verified::from(&record(&own, "name", 1, 0))).unwrap();
    let waiting = {
        let book = book.clone();
        tokio::spawn(async move { book.durable(number).await })
    };
    book.stopped();
    assert!(!within("end of the wait", waiting).await.unwrap());
    let (_, number) = book.put(Source::Own, Verified::from(&record(&own, "name", 2, 0))).unwrap();
    assert!(!within("end of a later wait", book.durable(number)).await);
}
