//! A line between two nodes, in user space: long, slow or broken as a test or a measurement wants it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

/// What is read at once, where the rate allows it.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that travel at once in one direction of a connection. Their bytes are bounded too, by [`buffer_bytes`].
const MAX_CHUNKS: usize = 65_536;
/// The bandwidth whose product with the delay a direction holds in flight: more than a libp2p stream reaches.
const BANDWIDTH_BYTES_PER_SEC: u64 = 1 << 30;
/// Least and most bytes in flight in one direction of a connection.
const BUFFER_BYTES: (u64, u64) = (4 << 20, 256 << 20);

/// How a line behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Line {
    /// How long each byte travels, in each direction: half a round trip.
    pub one_way: Duration,
    /// Bytes a second that pass in each direction, all connections together; `None` for as fast as the machine goes.
    pub rate: Option<u64>,
}

/// A TCP proxy on loopback that stands in for a long line to `target`.
///
/// Each byte arrives [`Line::one_way`] after it was sent, however many are under way: a line with delay and full
/// bandwidth, not a slow one. Timers have a grain of 1 ms, so a delay may come out up to 2 ms longer. What is in
/// flight is bounded by 1 GiB/s times the delay (4 MiB to 256 MiB a direction and connection); then the sender waits.
/// An end of stream and half-closed connections travel like bytes.
///
/// The kernel answers a TCP handshake at once, so setting a connection up costs no round trip here. QUIC does not
/// pass. Dropping the proxy closes its port and every connection.
#[derive(Debug)]
pub struct DelayProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl DelayProxy {
    /// Opens a line to `target`, with a delay of `one_way` in each direction, on a free port of loopback.
    ///
    /// Needs a tokio runtime, which also carries the bytes: do not block it.
    pub async fn start(target: SocketAddr, one_way: Duration) -> io::Result<Self> {
        Self::with_line(target, Line { one_way, rate: None }).await
    }

    /// Opens a line to `target` that behaves as `line` says; else as [`start`](Self::start).
    pub async fn with_line(target: SocketAddr, line: Line) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::new(target, line));
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, task })
    }

    /// Where to connect instead of the target.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same as a multiaddr, without a peer id.
    pub fn multiaddr(&self) -> String {
        format!("/ip4/{}/tcp/{}", self.addr.ip(), self.addr.port())
    }

    /// Leads new connections to `target`; those that are open stay where they are.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Bytes delivered to the target so far.
    pub fn bytes_to_target(&self) -> u64 {
        self.shared.to_target.delivered.load(Ordering::Relaxed)
    }

    /// Bytes delivered from the target so far.
    pub fn bytes_from_target(&self) -> u64 {
        self.shared.from_target.delivered.load(Ordering::Relaxed)
    }

    /// Connections carried so far, ended ones included, refused ones not.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections carried now.
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Limits, or frees, the rate in bytes a second and direction, from the next chunk on.
    ///
    /// # Panics
    /// When `rate` is 0; see [`stall`](Self::stall).
    pub fn set_rate(&self, rate: Option<u64>) {
        assert_ne!(rate, Some(0), "a rate of 0 bytes a second is a stalled line");
        self.shared.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    /// Cuts the line: every connection is reset, what is in flight is lost, and new connections are reset as soon as
    /// they are made, until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| {
            state.passing = Passing::Cut;
            state.cuts += 1;
        });
    }

    /// Lets the line fall silent: connections stay, and new ones are taken, but nothing more is delivered until
    /// [`heal`](Self::heal). What was sent meanwhile then arrives.
    pub fn stall(&self) {
        self.shared.state.send_modify(|state| state.passing = Passing::Stalled);
    }

    /// Ends a [`cut`](Self::cut) or a [`stall`](Self::stall).
    pub fn heal(&self) {
        self.shared.state.send_modify(|state| state.passing = Passing::Open);
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        // The task owns the listener and, in a JoinSet, every connection.
        self.task.abort();
    }
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    one_way: Duration,
    /// 0 for no limit.
    rate: AtomicU64,
    state: watch::Sender<State>,
    to_target: Direction,
    from_target: Direction,
    connections: AtomicU64,
    open: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct State {
    passing: Passing,
    /// Counted, so that a connection notices a cut that was healed before it looked.
    cuts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Open,
    Stalled,
    Cut,
}

/// One direction of the line, shared by all connections.
#[derive(Debug)]
struct Direction {
    delivered: AtomicU64,
    /// When the line can take the next byte, at the rate it has.
    free: Mutex<Instant>,
}

impl Direction {
    fn new() -> Self {
        Self { delivered: AtomicU64::new(0), free: Mutex::new(Instant::now()) }
    }

    /// When `len` bytes that are sent now have left, at `rate` bytes a second (0: at once).
    fn departure(&self, len: usize, rate: u64) -> Instant {
        let now = Instant::now();
        if rate == 0 {
            return now;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = now.max(*free) + Duration::from_secs_f64(len as f64 / rate as f64);
        *free
    }
}

impl Shared {
    fn new(target: SocketAddr, line: Line) -> Self {
        Self {
            target: Mutex::new(target),
            one_way: line.one_way,
            rate: AtomicU64::new(line.rate.unwrap_or(0)),
            state: watch::Sender::new(State { passing: Passing::Open, cuts: 0 }),
            to_target: Direction::new(),
            from_target: Direction::new(),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else {
                    // The client went before we looked, or descriptors are short until others are closed.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let state = shared.state.subscribe();
                if state.borrow().passing == Passing::Cut {
                    reset(&client);
                } else {
                    connections.spawn(carry(client, Arc::clone(&shared), state));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until both sides have ended, one fails, or the line is cut.
async fn carry(mut client: TcpStream, shared: Arc<Shared>, mut state: watch::Receiver<State>) {
    let cuts = state.borrow_and_update().cuts;
    let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _open = Open::new(&shared);
    let ended = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let up = pump(client_read, server_write, &shared, &shared.to_target);
        let down = pump(server_read, client_write, &shared, &shared.from_target);
        tokio::select! {
            done = futures::future::try_join(up, down) => done.is_ok(),
            _ = state.wait_for(|state| state.cuts != cuts) => false,
        }
    };
    if !ended {
        reset(&client);
        reset(&server);
    }
}

/// Counts a connection, and that it is open for as long as this lives.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes under way; none at the end of the stream. They hold their share of the buffer until they are delivered.
struct Chunk {
    arrival: Instant,
    data: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// Carries one direction to its end.
async fn pump(read: ReadHalf<'_>, write: WriteHalf<'_>, shared: &Shared, way: &Direction) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(MAX_CHUNKS);
    futures::future::try_join(take_in(read, sender, shared, way), deliver(write, receiver, shared, way)).await?;
    Ok(())
}

async fn take_in(
    mut read: ReadHalf<'_>,
    queue: mpsc::Sender<Chunk>,
    shared: &Shared,
    way: &Direction,
) -> io::Result<()> {
    let buffer = buffer_bytes(shared.one_way);
    let room = Arc::new(Semaphore::new(buffer));
    let mut scratch = vec![0; CHUNK_BYTES];
    loop {
        let rate = shared.rate.load(Ordering::Relaxed);
        let most = chunk_bytes(rate);
        // The sender waits here while its bytes in flight fill the buffer.
        let mut permit = Arc::clone(&room).acquire_many_owned(most as u32).await.map_err(io::Error::other)?;
        let len = read.read(scratch.get_mut(..most).unwrap_or_default()).await?;
        let arrival = way.departure(len, rate) + shared.one_way;
        let data = scratch.get(..len).unwrap_or_default().to_vec();
        drop(permit.split(most - len));
        // A closed queue: the other half has failed and says why.
        if queue.send(Chunk { arrival, data, _room: permit }).await.is_err() || len == 0 {
            return Ok(());
        }
    }
}

async fn deliver(
    mut write: WriteHalf<'_>,
    mut queue: mpsc::Receiver<Chunk>,
    shared: &Shared,
    way: &Direction,
) -> io::Result<()> {
    let mut state = shared.state.subscribe();
    while let Some(chunk) = queue.recv().await {
        // A timer that is due costs a trip through the runtime, and rounds up to its grain.
        if chunk.arrival > Instant::now() {
            tokio::time::sleep_until(chunk.arrival).await;
        }
        state.wait_for(|state| state.passing != Passing::Stalled).await.map_err(io::Error::other)?;
        if chunk.data.is_empty() {
            return write.shutdown().await;
        }
        write.write_all(&chunk.data).await?;
        way.delivered.fetch_add(chunk.data.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// What may be in flight in one direction of a connection.
fn buffer_bytes(one_way: Duration) -> usize {
    let product = one_way.as_millis() as u64 * BANDWIDTH_BYTES_PER_SEC / 1000;
    product.clamp(BUFFER_BYTES.0, BUFFER_BYTES.1) as usize
}

/// What is read at once: at a low rate, no more than passes in 10 ms, so that bytes arrive evenly.
fn chunk_bytes(rate: u64) -> usize {
    if rate == 0 { CHUNK_BYTES } else { (rate / 100).clamp(1, CHUNK_BYTES as u64) as usize }
}

/// Has the stream close with a reset when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests;
