//! Chains over HTTP that lead in circles, back, elsewhere or on without end, and entries that are bombs.

use cid::Cid;
use dagmesh::dag::{Block, Codec, HashCode};
use dagmesh_core::{cbor, limits};
use dagmesh_ipnisync::NO_ENTRIES;
use dagmesh_tests::{
    hostile::{dag, http::ok},
    ipni::{self, AdChain, signed_head},
    peer::SOON,
    wait_for,
};
use ipld_core::ipld::Ipld;
use serde_json::Value;

use super::{MIB, Prey};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_a_chain_that_is_forged_into_a_loop_ends_at_the_first_lie() {
    let mut prey = Prey::start().await;
    let (head, oldest) = (prey.chain.head(), prey.chain.ads()[0]);
    // The oldest one again, with a link back to the head; and one that would link to itself. No CID can match.
    let back = prey.chain.ad(NO_ENTRIES, Some(head)).encode(Codec::DagJson).expect("an advertisement");
    let itself = prey.chain.ad(NO_ENTRIES, Some(oldest)).encode(Codec::DagJson).expect("an advertisement");
    for lie in [back, itself] {
        let place = oldest.to_string();
        prey.hostile.answer(move |asked| (asked == place).then(|| ok(&lie)));
        prey.daemon.run(&["unfollow", &prey.peer()]).await;
        let before = prey.hostile.count(&head.to_string());
        prey.follow(&[]).await;
        prey.says("do not match").await;
        assert!(prey.hostile.count(&head.to_string()) <= before + 1, "nobody goes in a circle");
    }
    prey.daemon.run(&["ipni", "ad", "get", &oldest.to_string()]).await.assert_code(4);
    prey.is_unharmed(32 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_19_an_old_head_that_is_told_again_moves_nothing() {
    let mut prey = Prey::start().await;
    let (peer, head) = (prey.peer(), prey.chain.head().to_string());
    prey.follow(&["--wait"]).await;
    ipni::in_sync_at(&prey.daemon, &peer, &head).await;
    let old = signed_head(prey.hostile.key(), prey.chain.ads()[0]);
    prey.hostile.answer(move |asked| (asked == "head").then(|| ok(&old)));
    let asked = prey.hostile.count("head");
    let blocks = prey.hostile.asked().len() - asked;
    prey.daemon.restart().await;
    let again = async || prey.hostile.count("head") > asked;
    wait_for(SOON, "a question for the head", again).await;
    let follow = ipni::in_sync_at(&prey.daemon, &peer, &head).await;
    assert_eq!((&follow["latest_seq"], &follow["announced"]), (&3.into(), &follow["latest"]), "{follow}");
    assert_eq!(prey.hostile.asked().len() - prey.hostile.count("head"), blocks, "no block is asked for");

    // What comes after it is taken as before.
    prey.hostile.be_honest();
    prey.goes_on_at(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_a_head_of_another_history_moves_no_latest_and_says_why() {
    let mut prey = Prey::start().await;
    let (peer, head) = (prey.peer(), prey.chain.head().to_string());
    prey.follow(&["--wait"]).await;
    ipni::in_sync_at(&prey.daemon, &peer, &head).await;
    // The same publisher's, from the start.
    let mut other = AdChain::new(prey.hostile.key());
    other.grow(5);
    prey.hostile.serve(&other);
    prey.daemon.restart().await;
    let failed = |follow: &Value| follow["state"] == "failed";
    let follow = ipni::stands(&prey.daemon, &peer, "failed", failed).await;
    let reason = follow["reason"].as_str().expect("a reason");
    assert!(reason.contains("does not lead back") && reason.contains(&head), "{reason}");
    assert_eq!((&follow["latest"], &follow["latest_seq"]), (&Value::from(head.clone()), &3.into()), "{follow}");
    assert_eq!(ipni::ads(&prey.daemon, &peer).await.len(), 3);
    let report = prey.daemon.json(&["repo", "verify"]).await;
    assert_eq!((&report["damaged"], &report["missing"]), (&0.into(), &0.into()), "{report}");

    // A publisher that thinks better of it is followed on.
    prey.goes_on_at(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_a_chain_without_end_is_followed_no_deeper_than_the_depth() {
    let mut prey = Prey::start().await;
    prey.chain.grow(500);
    prey.hostile.serve(&prey.chain);
    let asked = prey.hostile.asked().len();
    prey.follow(&["--depth", "20", "--wait"]).await;
    let follow = ipni::in_sync_at(&prey.daemon, &prey.peer(), &prey.chain.head().to_string()).await;
    assert_eq!(follow["latest_seq"], 20, "{follow}");
    assert_eq!(ipni::ads(&prey.daemon, &prey.peer()).await.len(), 20);
    // The head, advertisements, entries.
    assert!(prey.hostile.asked().len() - asked <= 1 + 20 + 20 + 4, "{:?}", prey.hostile.asked());
    prey.assert_flat(32 * MIB).await;
}

/// An entry chunk with these entries and this next one, in DAG-CBOR: small.
fn chunk(entries: &[Vec<u8>], next: Option<Cid>) -> Block {
    let entries = entries.iter().cloned().map(Ipld::Bytes).collect();
    let mut fields = std::collections::BTreeMap::from([("Entries".to_owned(), Ipld::List(entries))]);
    if let Some(next) = next {
        fields.insert("Next".to_owned(), Ipld::Link(next));
    }
    dag::block(Codec::DagCbor, cbor::to_vec(&Ipld::Map(fields)).expect("encodes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_garbage_are_kept_as_they_are_and_harm_nobody() {
    let mut prey = Prey::start().await;
    let garbage = [
        dag::leaf("no entries at all"),
        dag::block(Codec::DagCbor, dag::map(&[(dag::text("Entries"), dag::head(0, 7))])),
        chunk(&[vec![0xff; 200], Vec::new(), b"no multihash".to_vec()], None),
        dag::node(&[*dag::leaf("no entries at all").cid()]),
    ];
    prey.chain.put(&garbage);
    for block in &garbage {
        prey.chain.append(*block.cid());
    }
    prey.hostile.serve(&prey.chain);
    prey.is_unharmed(32 * MIB).await;
    let ads = ipni::ads(&prey.daemon, &prey.peer()).await;
    assert!(ads.len() == 7 && ads.iter().all(|ad| ad["verified"] == true), "{ads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_entries_that_cannot_be_read_stop_the_chain_and_nothing_else() {
    let mut prey = Prey::start().await;
    let honest = prey.chain.clone();
    let claims = dag::block(Codec::DagCbor, [dag::head(4, 1 << 30), vec![0; 64]].concat());
    let deep = dag::block(Codec::DagCbor, dag::deep(1_000_000));
    let wide = dag::many_inline_links(100_000);
    for (bomb, why) in [(claims, "claims more"), (deep, "nested deeper than"), (wide, "more than 65536 links")] {
        let mut chain = honest.clone();
        chain.put(std::slice::from_ref(&bomb));
        chain.append(*bomb.cid());
        prey.hostile.serve(&chain);
        prey.daemon.run(&["unfollow", &prey.peer()]).await;
        prey.follow(&[]).await;
        let says = |follow: &Value| follow["reason"].as_str().is_some_and(|reason| reason.contains(why));
        let follow = ipni::stands(&prey.daemon, &prey.peer(), &format!("a reason with {why:?}"), says).await;
        assert_ne!(follow["latest"], chain.head().to_string(), "{follow}");
    }
    prey.hostile.serve(&honest);
    prey.is_unharmed(48 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_an_endless_chain_of_tiny_chunks_keeps_memory_flat_and_others_going() {
    let mut prey = Prey::start().await;
    // No more than its beginning is ever asked for: long enough to be without end.
    const CHUNKS: u64 = 20_000;
    let mut next = None;
    for n in 0..CHUNKS {
        let hash = HashCode::Sha2_256.digest(&n.to_be_bytes()).expect("hashes").to_bytes();
        let made = chunk(&[hash], next);
        next = Some(*made.cid());
        prey.chain.put(&[made]);
    }
    prey.chain.append(next.expect("a chunk"));
    prey.hostile.serve(&prey.chain);
    prey.follow(&[]).await;
    let many = async || prey.hostile.asked().len() as u64 >= CHUNKS / 20;
    wait_for(SOON, "many chunks", many).await;
    let (honest, chain) = super::publisher(5).await;
    super::follow(&prey.daemon, &honest, &["--wait"]).await;
    ipni::in_sync_at(&prey.daemon, &honest.peer_id().to_string(), &chain.head().to_string()).await;
    assert!((prey.hostile.asked().len() as u64) < CHUNKS, "while the long one goes on");
    // Whoever has enough of it stops it; what came is collected.
    prey.daemon.json(&["unfollow", &prey.peer()]).await;
    prey.daemon.json(&["gc"]).await;
    let report = prey.daemon.json(&["repo", "verify"]).await;
    assert_eq!((&report["damaged"], &report["missing"]), (&0.into(), &0.into()), "{report}");
    prey.assert_flat(64 * MIB).await;
}

/// A HAMT in the form of the network, a root over `layers` of nodes, each linked to `fanout` times two nodes of the layer
/// below: `fanout^layers` paths.
fn hamt(fanout: usize, layers: usize) -> Vec<Block> {
    let node = |elements: Vec<Ipld>| Ipld::List(vec![Ipld::Bytes(vec![0xff; 32]), Ipld::List(elements)]);
    let block = |ipld: &Ipld| dag::block(Codec::DagCbor, cbor::to_vec(ipld).expect("encodes"));
    let mut blocks = Vec::new();
    let key = |n: u8| Ipld::List(vec![Ipld::List(vec![Ipld::Bytes(vec![n; 34]), Ipld::Bool(true)])]);
    let mut below: Vec<Block> = (0..2).map(|n| block(&node(vec![key(n)]))).collect();
    for layer in 0..layers {
        blocks.extend(below.clone());
        let links: Vec<Ipld> = below.iter().cycle().take(fanout).map(|block| Ipld::Link(*block.cid())).collect();
        below = (0..2).map(|n| block(&node([links.clone(), vec![key(n + 2 * layer as u8)]].concat()))).collect();
    }
    blocks.extend(below.clone());
    let links = below.iter().map(|block| Ipld::Link(*block.cid())).collect();
    let root = [("hashAlg", Ipld::Integer(0x12)), ("bucketSize", Ipld::Integer(3)), ("hamt", node(links))];
    blocks.push(block(&Ipld::Map(root.map(|(key, value)| (key.to_owned(), value)).into())));
    blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_09_a_hamt_of_two_to_the_hundreds_of_paths_costs_no_more_than_its_blocks() {
    let mut prey = Prey::start().await;
    const LAYERS: usize = 30;
    let blocks = hamt(limits::MAX_IPNI_HAMT_FANOUT, LAYERS);
    prey.chain.put(&blocks);
    prey.chain.append(*blocks.last().expect("a root").cid());
    prey.hostile.serve(&prey.chain);
    prey.follow(&["--wait"]).await;
    ipni::in_sync_at(&prey.daemon, &prey.peer(), &prey.chain.head().to_string()).await;
    // Once each, or once more where it was looked at ahead when it was just taken.
    let asked = prey.hostile.asked().len();
    println!("{asked} requests for {} blocks", blocks.len());
    assert!(asked <= 3 * (blocks.len() + 8), "{asked} requests for {} blocks", blocks.len());
    prey.is_unharmed(48 * MIB).await;
}
