//! Requests about records between two real swarms.

use std::{sync::Arc, time::Duration};

use dagmesh_core::limits::{MAX_RECORD_BYTES, MAX_RECORD_SERVED, MAX_RECORD_SERVED_PER_PEER};
use dagmesh_records::{
    Answer, Request,
    net::{self, CallError},
};
use futures::{StreamExt, future::join_all};
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
use tokio::sync::watch;

const DEADLINE: Duration = Duration::from_secs(30);

fn swarm() -> Swarm<Behaviour> {
    SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
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
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build()
}

/// A running swarm that listens: its control, its id, its address.
async fn server() -> (Control, PeerId, Multiaddr) {
    let mut swarm = swarm();
    let (control, peer) = (swarm.behaviour().new_control(), *swarm.local_peer_id());
    swarm.listen_on(Multiaddr::empty().with(Protocol::Memory(0))).expect("listens");
    let addr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    (control, peer, addr)
}

/// The control of a running swarm that is connected.
async fn client(addr: &Multiaddr) -> Control {
    let mut swarm = swarm();
    let control = swarm.behaviour().new_control();
    swarm.dial(addr.clone()).expect("dials");
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
    control
}

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("ends before the deadline")
}

fn get() -> Request {
    Request::get(b"/ipns/name").expect("fits")
}

#[tokio::test]
async fn a_request_arrives_and_its_answer_comes_back() {
    in_time(async {
        let (mut control, peer, addr) = server().await;
        let incoming = control.accept(net::PROTOCOL).expect("registers");
        tokio::spawn(net::serve_on(incoming, |_, request| async move {
            match Request::decode(&request).expect("a request") {
                Request::Put { record, .. } => Some(Answer::Record(record)),
                Request::Get { .. } => None,
            }
        }));
        let mut client = client(&addr).await;
        let record: Vec<u8> = (0..MAX_RECORD_BYTES).map(|byte| byte as u8).collect();
        let put = Request::put(b"/ipns/name", &record).expect("the largest that fits");
        match net::ask(&mut client, peer, &put).await.expect("answers") {
            Answer::Record(back) => assert_eq!(*back, *record),
            other => panic!("{other:?}"),
        }
        let refused = net::ask(&mut client, peer, &get()).await;
        assert!(matches!(refused, Err(CallError::Exchange(_))), "{refused:?}");
        assert!(!refused.expect_err("is dropped").is_unsupported());
    })
    .await;
}

#[tokio::test]
async fn who_does_not_know_the_protocol_is_told_apart_from_who_does_not_answer() {
    in_time(async {
        let (_control, peer, addr) = server().await;
        let error = net::ask(&mut client(&addr).await, peer, &get()).await.expect_err("nobody serves it");
        assert!(error.is_unsupported(), "{error}");
        let error = net::ask(&mut client(&addr).await, PeerId::random(), &get()).await.expect_err("nobody is there");
        assert!(!error.is_unsupported(), "{error}");
    })
    .await;
}

/// A server that answers nobody before it is told to, and how many requests it has taken.
struct Waiting {
    peer: PeerId,
    addr: Multiaddr,
    open: watch::Sender<bool>,
    running: watch::Receiver<usize>,
}

impl Waiting {
    async fn start() -> Self {
        let (mut control, peer, addr) = server().await;
        let incoming = control.accept(net::PROTOCOL).expect("registers");
        let (open, gate) = watch::channel(false);
        let (count, running) = watch::channel(0);
        let count = Arc::new(count);
        tokio::spawn(net::serve_on(incoming, move |_, _| {
            let (count, mut gate) = (Arc::clone(&count), gate.clone());
            async move {
                count.send_modify(|count| *count += 1);
                let _ = gate.wait_for(|open| *open).await;
                Some(Answer::Absent)
            }
        }));
        Self { peer, addr, open, running }
    }

    /// Each client takes so many places, one after the other, and one more is dropped; then all that have one are answered.
    async fn fill(mut self, clients: usize, each: usize) {
        let mut asks = Vec::new();
        let mut last = client(&self.addr).await;
        for n in 0..clients * each {
            if n % each == 0 {
                last = client(&self.addr).await;
            }
            let (mut control, peer) = (last.clone(), self.peer);
            asks.push(tokio::spawn(async move { net::ask(&mut control, peer, &get()).await }));
            self.running.wait_for(|running| *running > n).await.expect("a server");
        }
        if clients > 1 {
            last = client(&self.addr).await;
        }
        let over = net::ask(&mut last, self.peer, &get()).await;
        assert!(matches!(over, Err(CallError::Exchange(_))), "{over:?}");
        assert_eq!(*self.running.borrow(), clients * each);
        self.open.send(true).expect("somebody waits");
        for answer in join_all(asks).await {
            assert_eq!(answer.expect("ends").expect("answers"), Answer::Absent);
        }
        assert_eq!(net::ask(&mut last, self.peer, &get()).await.expect("there is room again"), Answer::Absent);
    }
}

#[tokio::test]
async fn a_peer_has_its_share_of_places_and_no_more() {
    in_time(async { Waiting::start().await.fill(1, MAX_RECORD_SERVED_PER_PEER).await }).await;
}

#[tokio::test]
async fn there_are_so_many_places_for_all_and_no_more() {
    let (all, each) = (MAX_RECORD_SERVED, MAX_RECORD_SERVED_PER_PEER);
    in_time(async { Waiting::start().await.fill(all / each, each).await }).await;
}
