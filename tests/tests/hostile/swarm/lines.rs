use std::collections::VecDeque;

use dagmesh_tests::hostile::{
    gossip::Gossiper,
    raw::{self, DATA, End, FIN, GO_AWAY, PING, RST, RawLine, SYN, WINDOW, frame},
};

use super::*;

/// The stream protocol of the question for heads.
const HEAD: &str = "/dagmesh/head/1.0.0";
/// Connections over which streams are opened at once.
const FLOODERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_25_false_multiplexing_ends_its_connection_and_no_other() {
    const CREDIT: u32 = 256 * 1024;
    let (mut daemon, head) = publisher().await;
    let at = raw::socket_addr(&addr_of(&daemon));
    let before = peak(&daemon);
    let stuffed = |len: u32| vec![7; len as usize];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a new stream with 4 GiB", frame(DATA, SYN, 1, u32::MAX, &stuffed(CREDIT))),
        ("a new stream with 16 MiB", frame(DATA, SYN, 1, 16 << 20, &stuffed(CREDIT))),
        ("a new stream with a byte over its credit", frame(DATA, SYN, 1, CREDIT + 1, &stuffed(CREDIT + 1))),
        ("data over the credit of a stream", {
            [frame(DATA, SYN, 1, 0, &[]), frame(DATA, 0, 1, CREDIT + 1, &stuffed(CREDIT + 1))].concat()
        }),
        ("credit without end", {
            let more = frame(WINDOW, 0, 1, u32::MAX, &[]);
            [frame(WINDOW, SYN, 1, u32::MAX, &[]), more.clone(), more.clone(), more].concat()
        }),
        ("a new stream on the stream of the session", frame(DATA, SYN, 0, 0, &[])),
        ("a new stream with a number of the other side", frame(DATA, SYN, 2, 0, &[])),
        ("a stream that is opened twice", [frame(DATA, SYN, 1, 0, &[]), frame(DATA, SYN, 1, 0, &[])].concat()),
        ("an unknown kind", frame(9, SYN, 1, 0, &[])),
        ("an unknown version", vec![7; 12]),
        ("no frames", stuffed(1 << 20)),
        ("the end of the session", frame(GO_AWAY, 0, 0, 0, &[])),
    ];
    let honest = Peer::start().await;
    connect(&honest, &daemon).await;
    let mut ends = Vec::new();
    for (name, bytes) in &cases {
        let mut line = RawLine::connect(1, at).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let _cut_off_on_the_way = line.write(bytes).await;
        let end = line.end(SOON).await;
        println!("{name}: {end:?}");
        ends.push((*name, end));
        ask(&honest, &daemon, head).await;
    }
    for (name, end) in ends {
        assert!(end != End::Open, "{name}: the session lives on");
    }
    // Questions for a sign of life without end: each has an answer, one at a time.
    let mut line = RawLine::connect(1, at).await.expect("a connection");
    for n in 0..200u32 {
        let pings: Vec<u8> = (0..500).flat_map(|m| frame(PING, SYN, 0, n * 500 + m, &[])).collect();
        if line.write(&pings).await.is_err() {
            break;
        }
        let _pong = tokio::time::timeout(Duration::from_millis(5), line.read()).await;
    }
    assert!(daemon.is_running());
    is_served(&daemon, head).await;
    assert_memory(&daemon, before, 48 * MIB);
}

/// Opens `count` streams as fast as it can, each with a question that is never heard to its end; how many the daemon
/// took before it cut the connections off.
async fn flood_streams(at: std::net::SocketAddr, count: u32) -> u32 {
    let begin = [raw::choose(HEAD), vec![200, 1]].concat();
    let (mut opened, mut lines) = (0, 0);
    while opened < count && lines < count {
        lines += 1;
        let Ok(mut line) = RawLine::connect(3, at).await else { continue };
        let mut id = 1;
        while opened < count {
            let mut burst = Vec::new();
            for _ in 0..50 {
                burst.extend(raw::open(id, &begin));
                // Half of them are left hanging.
                if id % 4 == 1 {
                    burst.extend(frame(DATA, if id % 8 == 1 { RST } else { FIN }, id, 0, &[]));
                }
                id += 2;
            }
            if line.write(&burst).await.is_err() {
                break;
            }
            opened += 50;
            // What comes back is read, or the daemon could not go on.
            let drained = async {
                while let Ok((kind, ..)) = line.read().await {
                    if kind == GO_AWAY {
                        return true;
                    }
                }
                true
            };
            if tokio::time::timeout(Duration::from_millis(1), drained).await.unwrap_or(false) {
                break;
            }
        }
    }
    println!("{opened} streams over {lines} connections");
    opened
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_26_ten_thousand_streams_of_one_peer_starve_nobody() {
    let (mut daemon, head) = publisher().await;
    let at = raw::socket_addr(&addr_of(&daemon));
    let before = peak(&daemon);
    let honest = Peer::start().await;
    connect(&honest, &daemon).await;
    let floods: Vec<_> = (0..FLOODERS).map(|_| tokio::spawn(flood_streams(at, 10_000))).collect();
    let (mut slowest, mut asked) = (Duration::ZERO, 0);
    while !floods.iter().all(|flood| flood.is_finished()) || asked < 5 {
        slowest = slowest.max(ask(&honest, &daemon, head).await);
        asked += 1;
    }
    for flood in floods {
        assert!(flood.await.expect("no panic") >= 10_000);
    }
    println!("{asked} questions meanwhile, the slowest answer took {slowest:?}");
    assert!(slowest < AT_ONCE, "{slowest:?}");
    is_served(&daemon, head).await;
    assert!(daemon.is_running());
    assert_memory(&daemon, before, 64 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_26_ten_thousand_connections_from_one_machine_keep_nobody_out() {
    let (mut daemon, head) = publisher().await;
    let addr = addr_of(&daemon);
    let at = raw::socket_addr(&addr);
    let before = peak(&daemon);
    // Silent ones: each waits for a handshake that does not come. As many as may be set up at once are held open.
    let flood = tokio::spawn(async move {
        let mut held = VecDeque::new();
        let mut refused = 0;
        for _ in 0..10_000 {
            match raw::connect_from(2, at).await {
                Ok(stream) => held.push_back(stream),
                Err(_) => refused += 1,
            }
            if held.len() > 400 {
                held.pop_front();
            }
        }
        (held, refused)
    });
    let (mut slowest, mut served) = (Duration::ZERO, 0);
    while !flood.is_finished() || served < 3 {
        let begun = Instant::now();
        let honest = Gossiper::try_connect(Keypair::generate_ed25519(), &addr).await;
        honest.unwrap_or_else(|why| panic!("an honest peer is kept out: {why}"));
        slowest = slowest.max(begun.elapsed());
        served += 1;
    }
    let (held, refused) = flood.await.expect("no panic");
    println!("{served} honest peers meanwhile, the slowest took {slowest:?}; {} held, {refused} refused", held.len());
    assert!(slowest < AT_ONCE, "{slowest:?}");
    is_served(&daemon, head).await;
    assert!(daemon.is_running());
    assert_memory(&daemon, before, 64 * MIB);
}
