//! A connection whose multiplexing is written by hand: real TCP and Noise below, yamux frames of any kind above.
//!
//! Source: the yamux specification, <https://github.com/hashicorp/yamux/blob/master/spec.md>.

use std::{io, net::SocketAddr, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Multiaddr, core::upgrade::OutboundConnectionUpgrade, identity::Keypair, multiaddr::Protocol, noise};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// A frame that carries data of a stream.
pub const DATA: u8 = 0;
/// A frame that gives a stream credit.
pub const WINDOW: u8 = 1;
/// A question for a sign of life, or its answer.
pub const PING: u8 = 2;
/// The end of a session.
pub const GO_AWAY: u8 = 3;
/// Flag: a new stream.
pub const SYN: u16 = 1;
/// Flag: no more data will come.
pub const FIN: u16 = 4;
/// Flag: the stream is gone.
pub const RST: u16 = 8;

const HEADER_BYTES: usize = 12;

/// An authenticated connection on which frames are written and read by hand.
pub struct RawLine {
    io: noise::Output<Compat<TcpStream>>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side said that it is over.
    GoAway,
    /// It closed or reset the connection.
    Closed,
    /// Neither, in the time given.
    Open,
}

/// The socket address of a multiaddr over plain TCP.
///
/// # Panics
/// Where it is none.
pub fn socket_addr(addr: &Multiaddr) -> SocketAddr {
    let mut parts = addr.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => (ip, port).into(),
        _ => panic!("{addr} is no address over TCP and IPv4"),
    }
}

/// Opens a TCP connection from another address of loopback: as if it came from another machine.
pub async fn connect_from(last: u8, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, last], 0).into())?;
    // Reset when dropped: thousands that wait for their end would take the ports of honest nodes.
    socket.set_zero_linger()?;
    socket.connect(to).await
}

impl RawLine {
    /// Connects with a new key, from `127.0.0.last`; an error where it is refused, or cut off before.
    pub async fn connect(last: u8, to: SocketAddr) -> io::Result<Self> {
        let mut io = connect_from(last, to).await?.compat();
        negotiate(&mut io, "/noise").await?;
        let noise = noise::Config::new(&Keypair::generate_ed25519()).map_err(io::Error::other)?;
        let (_, mut io) = noise.upgrade_outbound(io, "/noise").await.map_err(io::Error::other)?;
        negotiate(&mut io, "/yamux/1.0.0").await?;
        Ok(Self { io })
    }

    /// Writes bytes as they are; an error where the connection is gone.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Reads one frame: its kind, flags, stream and body.
    pub async fn read(&mut self) -> io::Result<(u8, u16, u32, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.io.read_exact(&mut header).await?;
        let [_, kind, f1, f0, s3, s2, s1, s0, l3, l2, l1, l0] = header;
        let len = u32::from_be_bytes([l3, l2, l1, l0]);
        let mut body = vec![0; if kind == DATA { len as usize } else { 0 }];
        self.io.read_exact(&mut body).await?;
        Ok((kind, u16::from_be_bytes([f1, f0]), u32::from_be_bytes([s3, s2, s1, s0]), body))
    }

    /// Reads on, for at most `wait`, until the other side ends the session or the connection.
    pub async fn end(&mut self, wait: Duration) -> End {
        let reading = async {
            loop {
                match self.read().await {
                    Ok((GO_AWAY, ..)) => return End::GoAway,
                    Ok(_) => {}
                    Err(_) => return End::Closed,
                }
            }
        };
        tokio::time::timeout(wait, reading).await.unwrap_or(End::Open)
    }
}

/// A frame with a length that its body may belie.
pub fn frame(kind: u8, flags: u16, stream: u32, length: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, kind];
    frame.extend_from_slice(&flags.to_be_bytes());
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A new stream that begins with these bytes.
pub fn open(stream: u32, body: &[u8]) -> Vec<u8> {
    frame(DATA, SYN, stream, body.len() as u32, body)
}

/// The choice of a protocol, as it stands on the wire (multistream-select 1).
pub fn choose(protocol: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in ["/multistream/1.0.0", protocol] {
        bytes.push(line.len() as u8 + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

async fn negotiate<S: futures::AsyncRead + futures::AsyncWrite + Unpin>(io: &mut S, protocol: &str) -> io::Result<()> {
    let chosen = choose(protocol);
    io.write_all(&chosen).await?;
    io.flush().await?;
    let mut answer = vec![0; chosen.len()];
    io.read_exact(&mut answer).await?;
    if answer == chosen { Ok(()) } else { Err(io::Error::other(format!("{protocol} is refused"))) }
}
