//! Names over gossip between real nodes on loopback. Everything waits for a state, with a deadline.

use std::path::Path;

use dagmesh_records::{IpnsDraft, IpnsRecord};
use libp2p::identity::Keypair;

use super::*;
use crate::{
    Api, Node,
    config::{Config, Profile, RecordsConfig},
    swarm::{self, AcceptAll, RunningSwarm, SwarmConfig},
    testing::{until, within},
    types::{ConnectRequest, NamePublish},
};

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a dir")
}

async fn start(home: &Path, to: Option<&Node>) -> Node {
    start_with(home, to, true).await
}

async fn start_with(home: &Path, to: Option<&Node>, pubsub: bool) -> Node {
    let mut config = Config::of_profile(Profile::Test);
    config.records = RecordsConfig { pubsub, ..RecordsConfig::default() };
    let mut builder = Node::builder().home(home).config(config);
    if let Some(to) = to {
        builder = builder.bootstrap(tcp(to).await);
    }
    builder.start().await.expect("starts")
}

async fn tcp(node: &Node) -> libp2p::Multiaddr {
    let addrs = node.addrs().await.expect("addresses");
    addrs.into_iter().find(|addr| addr.to_string().contains("/tcp/")).expect("one of TCP")
}

fn pubsub(node: &Node) -> &PubSub {
    node.record_service().pubsub.as_ref().expect("is on")
}

fn name_of_node(node: &Node) -> IpnsName {
    node.peer_id().to_string().parse().expect("a name")
}

/// What the book of a node says of a name: not asked for.
fn held(node: &Node, name: &IpnsName) -> Option<String> {
    let held = node.records().list(false).into_iter().find(|held| held.key == name.key())?;
    Some(value(&IpnsRecord::decode(name, &held.bytes).expect("holds")))
}

fn value(record: &IpnsRecord) -> String {
    String::from_utf8(record.draft().value.clone()).expect("a path")
}

/// Publishes, whoever holds it.
async fn publish(node: &Node, value: &str) {
    let _holders = node.records().publish_name(NamePublish::new(value)).await;
}

fn topics(node: &Node) -> Vec<IpnsName> {
    pubsub(node).inner.topics.lock().of.keys().copied().collect()
}

/// Waits until a node knows of so many others on the topic.
async fn sees(node: &Node, name: &IpnsName, peers: usize) {
    until("peers on the topic", async || {
        let topics = pubsub(node).inner.topics.lock();
        topics.of.get(name).is_some_and(|topic| topic.peers.len() == peers).then_some(())
    })
    .await;
}

/// Someone on a topic who keeps to no rule.
struct Hostile {
    running: RunningSwarm,
}

impl Hostile {
    async fn start(victim: &Node, name: &IpnsName) -> Self {
        let config = SwarmConfig::for_profile(Profile::Test);
        let running = swarm::start(config, Keypair::generate_ed25519(), Box::new(AcceptAll)).await.expect("starts");
        running.handle.subscribe(name.topic()).await.expect("subscribes");
        running.handle.connect(tcp(victim).await).await.expect("connects");
        Self { running }
    }

    fn peer(&self) -> PeerId {
        self.running.handle.local_peer_id()
    }

    /// Says it until somebody is there to hear.
    async fn say(&self, name: &IpnsName, bytes: &[u8]) {
        until("hearer", async || self.running.handle.publish(name.topic(), bytes.to_vec()).await.ok()).await;
    }
}

fn signed(key: &Keypair, value: &str, sequence: u64) -> IpnsRecord {
    IpnsRecord::sign(key, IpnsDraft::new(value, sequence, unix_ms())).expect("signs")
}

#[tokio::test]
async fn who_resolves_a_name_hears_of_its_changes_at_once_and_keeps_them() {
    let homes = [home(), home()];
    let owner = start(homes[0].path(), None).await;
    let name = name_of_node(&owner);
    publish(&owner, "/ipfs/one").await;
    let reader = start(homes[1].path(), Some(&owner)).await;
    let found = until("record", async || reader.records().resolve_name(&name.to_string()).await.ok()).await;
    assert_eq!(found.value, "/ipfs/one");
    sees(&owner, &name, 1).await;
    let mut news = pubsub(&reader).news();
    publish(&owner, "/ipfs/two").await;
    let told = async {
        // The one before may be told of still.
        while held(&reader, &name).as_deref() != Some("/ipfs/two") {
            assert_eq!(news.recv().await.expect("is told"), name);
        }
    };
    within("news", told).await;
    // It is on the disk, and the owner may be gone.
    until("row", async || {
        let rows = reader.context().store.kept_records().expect("reads").rows;
        rows.iter()
            .any(|row| row.key == name.key() && row.bytes.windows(9).any(|part| part == b"/ipfs/two"))
            .then_some(())
    })
    .await;
    owner.shutdown().await.expect("stops");
    assert_eq!(reader.records().resolve_name(&name.to_string()).await.expect("is kept").value, "/ipfs/two");
    reader.shutdown().await.expect("stops");
}

#[tokio::test]
async fn who_joins_a_topic_fetches_the_newest_record_and_an_owner_that_restarts_is_on_it_again() {
    let homes = [home(), home()];
    let owner = start(homes[0].path(), None).await;
    let name = name_of_node(&owner);
    publish(&owner, "/ipfs/old").await;
    publish(&owner, "/ipfs/new").await;
    owner.shutdown().await.expect("stops");
    drop(owner);
    let owner = start(homes[0].path(), None).await;
    until("own topic", async || (topics(&owner) == [name]).then_some(())).await;
    let reader = start(homes[1].path(), None).await;
    let _listening = pubsub(&reader).listen(name).await.expect("there is room");
    assert_eq!(held(&reader, &name), None);
    reader.connect(ConnectRequest { addr: tcp(&owner).await }).await.expect("connects");
    // Nothing is said meanwhile, and the DHT is not asked.
    until("record", async || held(&reader, &name).filter(|value| value == "/ipfs/new")).await;
    for node in [owner, reader] {
        node.shutdown().await.expect("stops");
    }
}

#[tokio::test]
async fn the_protocol_fetch_gives_names_alone_and_what_is_newest() {
    let home = home();
    let owner = start(home.path(), None).await;
    let name = name_of_node(&owner);
    publish(&owner, "/ipfs/one").await;
    let _nobody = owner.records().put(crate::types::RecordPut::new("record", "value")).await;
    let asker = Hostile::start(&owner, &name).await;
    let ask = async |key: &[u8]| {
        fetch::ask(&mut asker.running.handle.streams(), owner.peer_id(), key).await.expect("answers")
    };
    let FetchAnswer::Found(bytes) = ask(&name.key()).await else { panic!("it holds it") };
    assert_eq!(value(&IpnsRecord::verify(&name.key(), &bytes, unix_ms()).expect("holds")), "/ipfs/one");
    let record = owner.records().list(true).into_iter().find(|held| !held.ipns).expect("is held");
    for key in [&record.key[..], b"/ipns/nothing", b"", b"/pk/x"] {
        assert_eq!(ask(key).await, FetchAnswer::NotFound, "{}", key.escape_ascii());
    }
    owner.shutdown().await.expect("stops");
}

#[tokio::test]
async fn what_is_older_is_ignored_what_is_forged_is_rejected_and_its_author_banned() {
    let home = home();
    let victim = start(home.path(), None).await;
    let owner = Keypair::generate_ed25519();
    let name = IpnsName::of(&owner.public());
    let _listening = pubsub(&victim).listen(name).await.expect("there is room");
    let neighbour = Hostile::start(&victim, &name).await;
    let (old, new) = (signed(&owner, "/ipfs/old", 1), signed(&owner, "/ipfs/new", 2));
    neighbour.say(&name, new.encode()).await;
    until("record", async || held(&victim, &name)).await;
    let metrics = || victim.context().swarm.metrics();
    let before = metrics();
    neighbour.say(&name, old.encode()).await;
    neighbour.say(&name, new.encode()).await;
    until("verdicts", async || (metrics().gossip_ignored == before.gossip_ignored + 2).then_some(())).await;
    assert_eq!(held(&victim, &name).as_deref(), Some("/ipfs/new"));
    assert_eq!((metrics().gossip_rejected, metrics().gossip_accepted), (0, 1));

    // Nothing at all, and too much: rejected, and no proof.
    for junk in [&b"junk"[..], &[0; limits::MAX_IPNS_RECORD_BYTES + 1]] {
        neighbour.say(&name, junk).await;
    }
    until("verdicts", async || (metrics().gossip_rejected == 2).then_some(())).await;
    let book = &victim.record_service().book;
    assert!(!book.is_banned(&neighbour.peer()));

    let mut forged = signed(&owner, "/ipfs/forged", 3).encode().to_vec();
    let at = forged.windows(12).position(|part| part == b"/ipfs/forged").expect("its plain value");
    // The signed data, which stands behind the plain fields.
    let at = at + 1 + forged[at + 1..].windows(12).position(|part| part == b"/ipfs/forged").expect("its data");
    forged[at + 11] = b'x';
    // Passed on by one who was deceived: nobody is banned.
    let author =
        swarm::start(SwarmConfig::for_profile(Profile::Test), Keypair::generate_ed25519(), Box::new(AcceptAll));
    let author = Hostile { running: author.await.expect("starts") };
    author.running.handle.subscribe(name.topic()).await.expect("subscribes");
    let deceived = neighbour.running.handle.addrs().await.expect("addresses").remove(0);
    author.running.handle.connect(deceived).await.expect("connects");
    author.say(&name, &forged).await;
    until("verdict", async || (metrics().gossip_rejected == 3).then_some(())).await;
    assert!(!book.is_banned(&neighbour.peer()) && !book.is_banned(&author.peer()));
    // Said by whoever brings it.
    forged[at + 11] = b'y';
    neighbour.say(&name, &forged).await;
    until("ban", async || book.is_banned(&neighbour.peer()).then_some(())).await;
    assert_eq!(held(&victim, &name).as_deref(), Some("/ipfs/new"));
    victim.shutdown().await.expect("stops");
}

#[tokio::test]
async fn a_topic_finds_its_peers_through_the_dht() {
    let homes = [home(), home(), home()];
    let hub = start(homes[0].path(), None).await;
    let owner = start(homes[1].path(), Some(&hub)).await;
    let name = name_of_node(&owner);
    publish(&owner, "/ipfs/one").await;
    let reader = start(homes[2].path(), Some(&hub)).await;
    let _listening = pubsub(&reader).listen(name).await.expect("there is room");
    sees(&reader, &name, 1).await;
    until("record", async || held(&reader, &name)).await;
    for node in [hub, owner, reader] {
        node.shutdown().await.expect("stops");
    }
}

#[tokio::test]
async fn topics_are_bounded_and_the_one_unused_for_longest_makes_room_but_not_an_own_one_or_one_in_use() {
    let home = home();
    let node = start(home.path(), None).await;
    publish(&node, "/ipfs/own").await;
    let own = name_of_node(&node);
    until("own topic", async || (topics(&node) == [own]).then_some(())).await;
    let of_another = || IpnsName::of(&Keypair::generate_ed25519().public());
    let (watched, first) = (of_another(), of_another());
    let in_use = pubsub(&node).listen(watched).await.expect("there is room");
    drop(pubsub(&node).listen(first).await.expect("there is room"));
    let mut others: Vec<_> = (0..MAX_NAME_TOPICS - 3).map(|_| of_another()).collect();
    for name in &others {
        drop(pubsub(&node).listen(*name).await.expect("there is room"));
    }
    // Used again.
    drop(pubsub(&node).listen(first).await.expect("is there"));
    assert_eq!(topics(&node).len(), MAX_NAME_TOPICS);
    let newcomer = of_another();
    let mut listening = vec![pubsub(&node).listen(newcomer).await.expect("makes room")];
    let gone = others.remove(0);
    let left = topics(&node);
    assert_eq!(left.len(), MAX_NAME_TOPICS);
    assert!(!left.contains(&gone));
    assert!([own, watched, first, newcomer].iter().chain(&others).all(|name| left.contains(name)));
    // All in use: a further one goes without gossip.
    for name in others.iter().chain([&first]) {
        listening.push(pubsub(&node).listen(*name).await.expect("is there"));
    }
    assert!(pubsub(&node).listen(of_another()).await.is_none());
    drop(in_use);
    assert!(pubsub(&node).listen(of_another()).await.is_some());
    assert!(!topics(&node).contains(&watched));
    node.shutdown().await.expect("stops");
}

#[tokio::test]
async fn where_it_is_off_nothing_is_subscribed_to_and_names_are_read_over_the_dht() {
    let homes = [home(), home()];
    let owner = start_with(homes[0].path(), None, false).await;
    let name = name_of_node(&owner);
    publish(&owner, "/ipfs/one").await;
    let reader = start_with(homes[1].path(), Some(&owner), false).await;
    until("record", async || reader.records().resolve_name(&name.to_string()).await.ok()).await;
    assert!(owner.record_service().pubsub.is_none());
    let peers = owner.peers().await.expect("lists");
    assert!(
        peers.iter().all(|peer| !peer.protocols.iter().any(|name| *name == *fetch::PROTOCOL.as_ref())),
        "{peers:?}"
    );
    for node in [owner, reader] {
        node.shutdown().await.expect("stops");
    }
}
