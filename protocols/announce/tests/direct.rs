//! Direct announcements between two real swarms.

use std::time::Duration;

use dagmesh_announce::{Announcement, Answer, Multiaddr, net};
use dagmesh_dag::{Block, Codec, FeedName, HashCode, SignedHead};
use futures::{AsyncReadExt, StreamExt};
use libp2p::{
    PeerId, Swarm, SwarmBuilder, Transport,
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

fn announcement() -> Announcement {
    let entry = Block::new(Codec::Raw, HashCode::Sha2_256, &b"entry"[..]).expect("a block");
    let key = Keypair::generate_ed25519();
    let head = SignedHead::sign(&key, &FeedName::default(), *entry.cid(), 1, 1_700_000_000_000).expect("signs");
    Announcement::new(&head, ["/ip4/127.0.0.1/tcp/4101".parse().expect("an address")])
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("ends before the deadline")
}

#[tokio::test]
async fn an_announcement_arrives_whole_and_its_answer_comes_back() {
    in_time(async {
        let (mut first, mut second, peer) = pair().await;
        let incoming = second.accept(net::PROTOCOL).expect("registers");
        let sent = announcement();
        let expected = sent.clone();
        let server = tokio::spawn(net::serve_on(incoming, move |_, bytes| {
            let read = Announcement::decode(&bytes);
            let answer =
                if read.as_ref() == Ok(&expected) { Answer::Accepted } else { Answer::Refused("other".into()) };
            async { answer }
        }));
        assert_eq!(net::announce_to(&mut first, peer, &sent).await.expect("answers"), Answer::Accepted);
        let mut other = sent;
        other.addrs.clear();
        assert_eq!(net::announce_to(&mut first, peer, &other).await.expect("answers"), Answer::Refused("other".into()));
        server.abort();
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_does_not_serve_the_protocol_is_told_by_name() {
    in_time(async {
        let (mut first, _second, peer) = pair().await;
        let error = net::announce_to(&mut first, peer, &announcement()).await.expect_err("nobody serves it");
        assert!(error.to_string().contains("does not support /dagmesh/announce/1.0.0"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_holds_streams_open_does_not_keep_others_out() {
    use dagmesh_core::limits::MAX_DIRECT_ANNOUNCEMENTS_PER_PEER as MAX;
    in_time(async {
        let (mut first, mut second, peer) = pair().await;
        let incoming = second.accept(net::PROTOCOL).expect("registers");
        tokio::spawn(net::serve_on(incoming, |_, _| async { Answer::Accepted }));
        let mut held = Vec::new();
        for _ in 0..MAX {
            let mut stream = first.open_stream(peer, net::PROTOCOL).await.expect("opens");
            // One byte, so that the stream really reaches the server before the next one.
            futures::AsyncWriteExt::write_all(&mut stream, &[0x40]).await.expect("writes");
            futures::AsyncWriteExt::flush(&mut stream).await.expect("flushes");
            held.push(stream);
        }
        // The streams at the cap stay open; the next one is closed by the server at once.
        let mut over = first.open_stream(peer, net::PROTOCOL).await.expect("opens");
        let mut byte = [0];
        assert!(matches!(over.read(&mut byte).await, Ok(0) | Err(_)), "the stream over the cap is dropped");
        drop(held);
        // Their slots are free again.
        loop {
            if let Ok(answer) = net::announce_to(&mut first, peer, &announcement()).await {
                assert_eq!(answer, Answer::Accepted);
                break;
            }
        }
    })
    .await;
}
