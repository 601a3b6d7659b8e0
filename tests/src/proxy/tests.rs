use super::*;
use crate::wait_for;

const PATIENCE: Duration = Duration::from_secs(30);

/// A server that sends back what it is sent, until it is dropped.
struct Echo(SocketAddr, JoinHandle<()>);

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Self(addr, task)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.1.abort();
    }
}

async fn round_trip(stream: &mut TcpStream) -> io::Result<Duration> {
    let begun = Instant::now();
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"ping");
    Ok(begun.elapsed())
}

/// Sends `bytes` patterned bytes through `stream` to an echo, checks each on its return, and ends the connection.
async fn exchange(stream: TcpStream, bytes: usize) -> Duration {
    let begun = Instant::now();
    let (mut read, mut write) = stream.into_split();
    let block: Vec<u8> = (0..=250).cycle().take(251 * 4096).collect();
    let sent = block.clone();
    let sending = tokio::spawn(async move {
        let mut left = bytes;
        while left > 0 {
            let len = left.min(sent.len());
            write.write_all(&sent[..len]).await.expect("sent");
            left -= len;
        }
        write.shutdown().await.expect("ended");
    });
    let mut seen = 0;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let len = read.read(&mut buffer).await.expect("read");
        if len == 0 {
            break;
        }
        let mut checked = 0;
        while checked < len {
            let at = (seen + checked) % block.len();
            let run = (len - checked).min(block.len() - at);
            assert!(buffer[checked..checked + run] == block[at..at + run], "other bytes from {} on", seen + checked);
            checked += run;
        }
        seen += len;
    }
    sending.await.expect("the sender");
    assert_eq!(seen, bytes);
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_trip_takes_twice_the_delay() {
    let echo = Echo::start().await;
    let one_way = Duration::from_millis(40);
    let proxy = DelayProxy::start(echo.0, one_way).await.expect("a proxy");
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("a connection");
    // The least of several: other tests run at the same time.
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let took = round_trip(&mut stream).await.expect("an answer");
        assert!(took >= 2 * one_way, "{took:?}");
        least = least.min(took);
    }
    assert!(least < 2 * one_way + Duration::from_millis(30), "{least:?}");
    assert_eq!((proxy.bytes_to_target(), proxy.bytes_from_target()), (20, 20));
    assert_eq!((proxy.connections(), proxy.open_connections()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_passes_intact_and_fast_without_a_delay() {
    let echo = Echo::start().await;
    let proxy = DelayProxy::start(echo.0, Duration::ZERO).await.expect("a proxy");
    let bytes = 256 << 20;
    let took = exchange(TcpStream::connect(proxy.addr()).await.expect("a connection"), bytes).await;
    assert_eq!((proxy.bytes_to_target(), proxy.bytes_from_target()), (bytes as u64, bytes as u64));
    let rate = bytes as f64 / took.as_secs_f64() / 1e6;
    let floor = if cfg!(debug_assertions) { 40.0 } else { 200.0 };
    assert!(rate > floor, "{rate:.0} MB/s");
    wait_for(PATIENCE, "the connection's end", async || proxy.open_connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_costs_its_round_trip_once_and_not_once_a_chunk() {
    let echo = Echo::start().await;
    let one_way = Duration::from_millis(100);
    let proxy = DelayProxy::start(echo.0, one_way).await.expect("a proxy");
    // 64 MiB are 256 chunks: one at a time they would take 25 s each way.
    let took = exchange(TcpStream::connect(proxy.addr()).await.expect("a connection"), 64 << 20).await;
    assert!(took >= 2 * one_way, "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_kept_by_all_connections_together() {
    let echo = Echo::start().await;
    let line = Line { one_way: Duration::ZERO, rate: Some(4_000_000) };
    let proxy = DelayProxy::with_line(echo.0, line).await.expect("a proxy");
    let (a, b) = (TcpStream::connect(proxy.addr()), TcpStream::connect(proxy.addr()));
    let (a, b) = (a.await.expect("a connection"), b.await.expect("a connection"));
    let begun = Instant::now();
    futures::future::join(exchange(a, 1_000_000), exchange(b, 1_000_000)).await;
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    proxy.set_rate(None);
    let free = exchange(TcpStream::connect(proxy.addr()).await.expect("a connection"), 20_000_000).await;
    assert!(free < Duration::from_secs(5), "{free:?}, at the old rate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_every_connection_and_refuses_new_ones_until_it_is_healed() {
    let echo = Echo::start().await;
    let proxy = DelayProxy::start(echo.0, Duration::from_millis(1)).await.expect("a proxy");
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("a connection");
    round_trip(&mut stream).await.expect("an answer");

    proxy.cut();
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("not left hanging");
    assert!(matches!(ended, Ok(0) | Err(_)));
    wait_for(PATIENCE, "no connection", async || proxy.open_connections() == 0).await;
    // The reset comes with the connection or right behind it.
    if let Ok(mut refused) = TcpStream::connect(proxy.addr()).await {
        let refused = tokio::time::timeout(PATIENCE, round_trip(&mut refused)).await.expect("not left hanging");
        assert!(refused.is_err());
    }

    proxy.heal();
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("a connection");
    round_trip(&mut stream).await.expect("an answer");
    assert_eq!(proxy.connections(), 2);

    // Healed at once: the connection has ended all the same.
    proxy.cut();
    proxy.heal();
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("not left hanging");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_led_elsewhere_takes_new_connections_there() {
    let (first, second) = (Echo::start().await, Echo::start().await);
    let proxy = DelayProxy::start(first.0, Duration::ZERO).await.expect("a proxy");
    let mut old = TcpStream::connect(proxy.addr()).await.expect("a connection");
    round_trip(&mut old).await.expect("an answer");
    proxy.set_target(second.0);
    let mut new = TcpStream::connect(proxy.addr()).await.expect("a connection");
    drop(first);
    let ended = tokio::time::timeout(PATIENCE, old.read(&mut [0; 1])).await.expect("not left hanging");
    assert!(matches!(ended, Ok(0) | Err(_)));
    round_trip(&mut new).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_line_delivers_nothing_until_it_is_healed_and_then_all() {
    let echo = Echo::start().await;
    let proxy = DelayProxy::start(echo.0, Duration::ZERO).await.expect("a proxy");
    let mut stream = TcpStream::connect(proxy.addr()).await.expect("a connection");
    round_trip(&mut stream).await.expect("an answer");
    proxy.stall();
    assert!(tokio::time::timeout(Duration::from_millis(200), round_trip(&mut stream)).await.is_err());
    assert_eq!(proxy.bytes_to_target(), 4);
    proxy.heal();
    let mut answer = [0; 4];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(&answer, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_proxy_ends_its_connections_and_frees_its_port() {
    let echo = Echo::start().await;
    let proxy = DelayProxy::start(echo.0, Duration::ZERO).await.expect("a proxy");
    let addr = proxy.addr();
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    round_trip(&mut stream).await.expect("an answer");
    drop(proxy);
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("not left hanging");
    assert!(matches!(ended, Ok(0) | Err(_)));
    wait_for(PATIENCE, "the port's end", async || TcpStream::connect(addr).await.is_err()).await;
}
