//! All nodes restart at once, or are killed: what they held and whom they banned is so still.

use std::sync::atomic::{AtomicUsize, Ordering};

use dagmesh::types::NamePublish;
use dagmesh_records::RecordBytes;
use dagmesh_tests::Daemon;

use super::*;
use crate::support::daemon;

/// So many nodes hold every record.
const COUNT: usize = 4;

/// Puts a record whose signature does not hold to a node, which does not talk to the stranger from then on.
async fn forge(stranger: &Stranger, at: &Multiaddr) {
    let record = signed(&Keypair::generate_ed25519(), NAME, 1);
    let mut forged = record.encode().to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    match stranger.put(at, &record.key(), &forged).await {
        Ok(Answer::Error(refusal)) => assert_eq!(refusal.code, Code::Unverifiable),
        Ok(other) => panic!("{other:?}"),
        // The connection may be closed before the answer is read.
        Err(why) => println!("{at}: {why}"),
    }
    assert_banned(stranger, at).await;
}

async fn assert_banned(stranger: &Stranger, at: &Multiaddr) {
    let good = signed(&Keypair::generate_ed25519(), NAME, 1);
    let answer = stranger.put(at, &good.key(), good.encode()).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unexpired_record_and_every_ban_outlives_a_restart_of_all_nodes_at_once() {
    let nodes = mesh(COUNT + 1).await;
    let owners: Vec<_> = nodes.iter().map(public_key).collect();
    for node in &nodes {
        put_at(node, RecordPut { replicas: COUNT, ..RecordPut::new(NAME, "value") }, COUNT).await;
        let name = NamePublish { replicas: COUNT, ..NamePublish::new("/ipfs/value") };
        assert!(node.records().publish_name(name).await.expect("is put").complete);
    }
    let short = RecordPut { lifetime: Duration::from_millis(1500), ..RecordPut::new("short", "value") };
    let short = nodes[0].records().put(short).await.expect("is put");
    let forger = Stranger::start().await;
    for node in &nodes {
        forge(&forger, &node.tcp_addr().await).await;
    }

    stop_all(&nodes).await;
    let before: Vec<_> = nodes.iter().map(|node| node.records().list(false)).collect();
    assert!(before.iter().all(|held| held.len() > 2 * COUNT), "{before:?}");
    let homes: Vec<_> = nodes.into_iter().map(Peer::into_home).collect();
    wait_for(SOON, "homes that nobody uses", async || {
        homes.iter().all(|home| Store::open(home.path().join("store")).is_ok())
    })
    .await;
    wait_for(SOON, "the end of a record", async || unix_ms() >= short.expires_ms).await;
    let nodes = mesh_at(homes).await;

    for (node, before) in nodes.iter().zip(&before) {
        let after = node.records().list(false);
        let kept = before.iter().filter(|held| held.key != short.key);
        for held in kept {
            assert!(after.contains(held), "{held:?} is not among {after:?}");
        }
        assert!(after.iter().all(|held| held.key != short.key), "it has expired");
    }
    let honest = Stranger::start().await;
    for node in &nodes {
        let at = node.tcp_addr().await;
        assert_banned(&forger, &at).await;
        let held = &node.records().list(false)[0];
        let answer = honest.put(&at, &held.key, &held.bytes).await.expect("answers");
        assert_eq!(answer, Answer::Stored { news: false });
    }
    for owner in &owners {
        all_come_to_read(&nodes, owner, b"value").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_are_killed_all_at_once_have_every_record_that_they_acknowledged_and_every_ban() {
    let mut daemons = join_all((0..3).map(|_| daemon(&[]))).await;
    let (honest, forger) = (Stranger::start().await, Stranger::start().await);
    let at = |daemons: &[Daemon]| daemons.iter().map(tcp).collect::<Vec<_>>();
    join_all(at(&daemons).iter().map(|at| forge(&forger, at))).await;

    // Each is given records until it is killed in the middle of one.
    let (mut stored, key) = (vec![Vec::new(); daemons.len()], Keypair::generate_ed25519());
    let (addrs, count) = (at(&daemons), AtomicUsize::new(0));
    let giving = stored.iter_mut().zip(&addrs).map(async |(stored, at)| {
        for n in 0.. {
            let record = signed(&key, &format!("{n}"), 1);
            match honest.put(at, &record.key(), record.encode()).await {
                Ok(answer) => assert_eq!(answer, Answer::Stored { news: true }),
                Err(_) => return,
            }
            stored.push(record);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let killing = async {
        wait_for(SOON, "some records", async || count.load(Ordering::Relaxed) >= 100).await;
        join_all(daemons.iter_mut().map(Daemon::kill9)).await;
    };
    tokio::join!(join_all(giving), killing);
    assert!(stored.iter().all(|stored| !stored.is_empty()), "something was acknowledged");
    join_all(daemons.iter_mut().map(Daemon::restart)).await;

    for (at, stored) in at(&daemons).iter().zip(&stored) {
        assert_banned(&forger, at).await;
        println!("{} records were acknowledged", stored.len());
        for record in stored {
            let answer = honest.get(at, &record.key()).await.expect("answers");
            assert_eq!(answer, Answer::Record(RecordBytes::new(record.encode()).expect("fits")));
        }
    }
}

/// Where a daemon is to be reached, with its peer id.
fn tcp(daemon: &Daemon) -> Multiaddr {
    daemon.addr("tcp").parse().expect("an address")
}
