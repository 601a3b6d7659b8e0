//! The best that can be on this machine, for others to be measured against.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use dagmesh_dag::HashCode;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    tcp, tls, yamux,
};
use libp2p_stream::Behaviour;
use tokio::{task::JoinHandle, time::timeout};

use crate::{Args, Row, Sample, runtime};

/// What is written at once: a block of the default size, as our own streams do.
const CHUNK_BYTES: usize = 256 * 1024;
const PROTOCOL: StreamProtocol = StreamProtocol::new("/dagmesh/bench/plain/1");
/// How long setting up a connection may take; the transfer itself takes what it takes.
const SETUP: Duration = Duration::from_secs(30);

/// The rows of `ceilings`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let bytes = args.scaled(1 << 30);
    let workload = format!("{} MiB", bytes >> 20);
    let tcp = args.best(|| loopback_tcp(bytes))?;
    let hash = args.best(|| sha256(bytes))?;
    let runtime = runtime()?;
    let stream = args.best(|| runtime.block_on(plain_stream(bytes)))?;
    Ok(vec![
        Row::new("loopback tcp", &workload, tcp.mb_per_second(), "MB/s")
            .note("one connection, a blocking thread each end"),
        Row::new("sha2-256", &workload, hash.mb_per_second(), "MB/s").note("one core, blocks of 256 KiB"),
        Row::new("plain stream", &workload, stream.mb_per_second(), "MB/s")
            .ceiling(tcp.mb_per_second())
            .note("one libp2p stream, TCP, TLS, yamux, both ends in one process"),
    ])
}

/// Moves `bytes` over one libp2p stream between two swarms of this process, over TCP on loopback with TLS and yamux.
///
/// The time runs from the first byte written until the receiver has confirmed the last; connecting does not count.
/// Needs a tokio runtime. The ceiling of `bulk`.
pub async fn plain_stream(bytes: u64) -> Result<Sample> {
    let (mut server, addr) = listening_swarm().await?;
    let peer = *server.local_peer_id();
    let mut incoming = server.behaviour_mut().new_control().accept(PROTOCOL).context("registering a protocol")?;
    let _server = Task::spawn(drive(server));
    let client = connected_swarm(peer, addr).await?;
    let mut control = client.behaviour().new_control();
    let _client = Task::spawn(drive(client));

    let receiver = Task::spawn(async move {
        let (_, mut stream) = incoming.next().await.context("no stream came in")?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut received: u64 = 0;
        while received < bytes {
            match stream.read(&mut buffer).await? {
                0 => bail!("the stream ended after {received} of {bytes} bytes"),
                len => received += len as u64,
            }
        }
        stream.write_all(&received.to_be_bytes()).await?;
        stream.close().await?;
        Ok(())
    });

    let mut stream = timeout(SETUP, control.open_stream(peer, PROTOCOL))
        .await
        .context("opening a stream took too long")?
        .context("opening a stream")?;
    let chunk = vec![0xa5; CHUNK_BYTES];
    let begun = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let len = left.min(CHUNK_BYTES as u64) as usize;
        stream.write_all(chunk.get(..len).unwrap_or_default()).await.context("writing")?;
        left -= len as u64;
    }
    stream.flush().await.context("writing")?;
    let mut received = [0; 8];
    stream.read_exact(&mut received).await.context("waiting for the receiver")?;
    let elapsed = begun.elapsed();
    receiver.join().await?;
    ensure!(u64::from_be_bytes(received) == bytes, "{} of {bytes} bytes arrived", u64::from_be_bytes(received));
    Ok(Sample { amount: bytes, elapsed })
}

/// Hashes `bytes` in blocks of 256 KiB with SHA2-256, on one core, with the implementation that verifies our blocks.
pub fn sha256(bytes: u64) -> Result<Sample> {
    let block = vec![0xa5; CHUNK_BYTES];
    let begun = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let len = left.min(CHUNK_BYTES as u64) as usize;
        let digest = HashCode::Sha2_256.digest(std::hint::black_box(block.get(..len).unwrap_or_default()));
        ensure!(std::hint::black_box(digest).is_some(), "no digest of {len} bytes");
        left -= len as u64;
    }
    Ok(Sample { amount: bytes, elapsed: begun.elapsed() })
}

/// Moves `bytes` over one TCP connection on loopback, with a blocking thread at each end.
pub fn loopback_tcp(bytes: u64) -> Result<Sample> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")?;
    let addr = listener.local_addr()?;
    let receiver = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept().context("accepting")?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut received: u64 = 0;
        while received < bytes {
            match stream.read(&mut buffer)? {
                0 => bail!("the connection ended after {received} of {bytes} bytes"),
                len => received += len as u64,
            }
        }
        stream.write_all(&[1]).context("confirming")
    });
    let mut stream = TcpStream::connect(addr).context("connecting to loopback")?;
    let chunk = vec![0xa5; CHUNK_BYTES];
    let begun = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let len = left.min(CHUNK_BYTES as u64) as usize;
        stream.write_all(chunk.get(..len).unwrap_or_default()).context("writing")?;
        left -= len as u64;
    }
    stream.read_exact(&mut [0]).context("waiting for the receiver")?;
    let elapsed = begun.elapsed();
    match receiver.join() {
        Ok(received) => received?,
        Err(_) => bail!("the receiving thread panicked"),
    }
    Ok(Sample { amount: bytes, elapsed })
}

fn swarm() -> Result<Swarm<Behaviour>> {
    let builder = SwarmBuilder::with_new_identity().with_tokio().with_tcp(
        tcp::Config::default(),
        (tls::Config::new, noise::Config::new),
        yamux::Config::default,
    )?;
    Ok(builder
        .with_behaviour(|_| Behaviour::new())?
        .with_swarm_config(|config| config.with_idle_connection_timeout(SETUP))
        .build())
}

async fn listening_swarm() -> Result<(Swarm<Behaviour>, Multiaddr)> {
    let mut swarm = swarm()?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let addr = async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    };
    let addr = timeout(SETUP, addr).await.context("no address to listen on")?;
    Ok((swarm, addr))
}

async fn connected_swarm(peer: PeerId, addr: Multiaddr) -> Result<Swarm<Behaviour>> {
    let mut swarm = swarm()?;
    swarm.dial(DialOpts::peer_id(peer).addresses(vec![addr]).build()).context("dialling loopback")?;
    let connected = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => return Ok(()),
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error),
                _ => {}
            }
        }
    };
    timeout(SETUP, connected).await.context("connecting took too long")?.context("connecting")?;
    Ok(swarm)
}

async fn drive(mut swarm: Swarm<Behaviour>) -> Result<()> {
    loop {
        swarm.select_next_some().await;
    }
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<Result<()>>);

impl Task {
    fn spawn(task: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    async fn join(mut self) -> Result<()> {
        (&mut self.0).await.context("the task panicked")?
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ceiling_moves_what_it_says() {
        // Neither a multiple of the chunk nor less than one.
        let bytes = 3 * CHUNK_BYTES as u64 + 17;
        let samples = [
            loopback_tcp(bytes).expect("tcp"),
            sha256(bytes).expect("hash"),
            runtime().expect("a runtime").block_on(plain_stream(bytes)).expect("stream"),
        ];
        for sample in samples {
            assert_eq!(sample.amount, bytes);
            assert!(sample.elapsed > Duration::ZERO);
        }
    }
}
