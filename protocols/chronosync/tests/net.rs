//! Requests of a group between two real swarms.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dagmesh_chronosync::{
    GroupId,
    net::{self, CallError},
};
use dagmesh_core::limits::{MAX_GROUP_MESSAGE_BYTES, MAX_GROUP_REQUESTS_PER_PEER};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, Transport,
    core::{transport::MemoryTransport, upgrade},
    identity::Keypair,
    multiaddr::Protocol,
    noise,
    swarm::SwarmEvent,
    yamux,
};
use libp2p_stream::{Behaviour, Control};

const DEADLINE: Duration = Duration::from_secs(20);

fn swarm(key: &Keypair) -> Swarm<Behaviour> {
    SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_other_transport(|key| {
            MemoryTransport::new()
                .upgrade(upgrade::Version::V1)
                .authenticate(noise::Config::new(key).expect("noise"))
                .multiplex(yamux::Config::default())
                .boxed()
        })
        .expect("a transport")
        .with_behaviour(|_| Behaviour::new())
        .expect("a behaviour")
        .build()
}

/// Two connected swarms, running: the control of the first, the control and the id of the second.
async fn pair() -> (Control, Control, PeerId) {
    let (a, b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (mut first, mut second) = (swarm(&a), swarm(&b));
    let controls = (first.behaviour().new_control(), second.behaviour().new_control());
    second.listen_on(Multiaddr::empty().with(Protocol::Memory(0))).expect("listens");
    let addr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = second.select_next_some().await {
            break address;
        }
    };
    tokio::spawn(async move { while second.next().await.is_some() {} });
    first.dial(addr).expect("dials");
    while !matches!(first.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move { while first.next().await.is_some() {} });
    (controls.0, controls.1, b.public().to_peer_id())
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("ends before the deadline")
}

#[tokio::test]
async fn a_request_arrives_with_its_group_and_the_answer_comes_back() {
    in_time(async {
        let (mut first, mut second, peer) = pair().await;
        let incoming = second.accept(net::PROTOCOL).expect("registers");
        let member = GroupId::open("chess").expect("a name");
        tokio::spawn(net::serve_on(incoming, move |_, group, request| async move {
            (group == member).then(|| request.iter().rev().copied().collect())
        }));
        let request: Vec<u8> = (0..MAX_GROUP_MESSAGE_BYTES).map(|byte| byte as u8).collect();
        let answer = net::ask(&mut first, peer, &member, &request).await.expect("answers");
        assert!(answer.iter().eq(request.iter().rev()));
        let other = GroupId::open("go").expect("a name");
        let refused = net::ask(&mut first, peer, &other, b"hello").await;
        assert!(matches!(refused, Err(CallError::Dropped { .. })), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn a_peer_has_its_share_of_places_and_no_more() {
    in_time(async {
        let (first, mut second, peer) = pair().await;
        let incoming = second.accept(net::PROTOCOL).expect("registers");
        let group = GroupId::open("chess").expect("a name");
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        let (open, gate) = tokio::sync::watch::channel(false);
        tokio::spawn(net::serve_on(incoming, move |_, _, _| {
            let (running, seen, mut gate) = (Arc::clone(&running), Arc::clone(&seen), gate.clone());
            async move {
                seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let _ = gate.wait_for(|open| *open).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Some(b"answer".to_vec())
            }
        }));
        let asks = (0..3 * MAX_GROUP_REQUESTS_PER_PEER).map(|_| {
            let mut control = first.clone();
            async move { net::ask(&mut control, peer, &group, b"request").await }
        });
        let mut asks: futures::stream::FuturesUnordered<_> = asks.collect();
        // Those beyond the share are dropped, and dropped again, while the others hold their places.
        for _ in 0..2 * MAX_GROUP_REQUESTS_PER_PEER {
            assert!(matches!(asks.next().await, Some(Err(CallError::Dropped { .. }))));
        }
        open.send(true).expect("somebody waits");
        while let Some(answer) = asks.next().await {
            assert_eq!(answer.expect("answers").as_ref(), b"answer");
        }
        assert_eq!(most.load(Ordering::SeqCst), MAX_GROUP_REQUESTS_PER_PEER);
    })
    .await;
}
