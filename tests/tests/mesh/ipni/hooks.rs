//! What a program sees of a chain that its node follows.

use std::sync::{Arc, Mutex};

use cid::Cid;
use dagmesh::{
    Api, Node, NodeError, SyncedEntry,
    api::ProgressSink,
    config::Profile,
    dag::{Block, Blockstore},
    dagsync::Flow,
    types::IpniFollowRequest,
};
use dagmesh_ipnisync::{Advertisement, NO_ENTRIES};
use dagmesh_tests::{
    hostile::http::HttpPublisher,
    ipni::{AdChain, StreamPublisher},
    peer::SOON,
    wait_for,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_see_a_chain_from_its_head_then_the_entries_from_the_oldest_on() {
    let http = HttpPublisher::start().await;
    let mut chain = AdChain::new(http.key());
    chain.grow(12);
    http.serve(&chain);
    let streams = StreamPublisher::start(&chain).await;
    for addr in [http.addr(), streams.addr().parse().expect("an address")] {
        let (blocks, entries) = (Arc::<Mutex<Vec<Cid>>>::default(), Arc::<Mutex<Vec<SyncedEntry>>>::default());
        let (seen, told) = (Arc::clone(&blocks), Arc::clone(&entries));
        let home = tempfile::tempdir().expect("a home");
        let node = Node::builder()
            .home(home.path())
            .profile(Profile::Test)
            .block_hook(move |block: &Block, received: bool| {
                assert!(received, "nothing was held");
                seen.lock().expect("the blocks").push(*block.cid());
                Flow::Continue
            })
            .entry_hook(move |entry: SyncedEntry| {
                told.lock().expect("the entries").push(entry);
                std::future::ready(Ok::<_, NodeError>(()))
            });
        let node = node.start().await.expect("a node");
        let target = addr.to_string().parse().expect("a target");
        let request = IpniFollowRequest { target, network: None, depth: None, keep: None, wait: true };
        let follow = node.ipni_follow(request, ProgressSink::none());
        let follow = tokio::time::timeout(SOON, follow).await.expect("in sync in time").expect("in sync");
        assert_eq!(follow.latest, Some(chain.head()));

        let entries_of = |ad: &Cid| {
            let block = chain.store().block(ad).expect("a store in memory").expect("an advertisement");
            Advertisement::from_block(&block).expect("an advertisement").entries
        };
        assert!(chain.ads().iter().all(|ad| entries_of(ad) != NO_ENTRIES));
        let in_order: Vec<Cid> = chain.ads().iter().rev().copied().chain(chain.ads().iter().map(entries_of)).collect();
        assert_eq!(*blocks.lock().expect("the blocks"), in_order, "over {addr}");
        wait_for(SOON, "all entries", async || entries.lock().expect("the entries").len() >= 12).await;
        for (entry, (seq, ad)) in entries.lock().expect("the entries").iter().zip((1..).zip(chain.ads())) {
            assert_eq!((entry.seq, entry.entry, entry.content), (seq, *ad, entries_of(ad)));
            assert_eq!((entry.publisher, entry.feed.as_str()), (http.peer_id(), "ipni:mainnet"));
        }
        node.shutdown().await.expect("stopped");
    }
}
