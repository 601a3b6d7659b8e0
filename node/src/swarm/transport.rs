use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};

use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::PnetConfig;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, Transport as _, noise, tcp, yamux};

use super::address::{self, Socket};
use super::behaviour::Behaviour;
use super::config::SwarmConfig;
use super::error::{SwarmError, chain};
use super::kad_store::KadStore;
use super::tls;

/// Builds the Swarm: TCP (TLS preferred to Noise, yamux), QUIC, DNS, WebSocket and relayed connections; behind a
/// pre-shared key TCP (Noise, yamux), DNS and relayed ones, since the key wraps a plain byte stream.
pub(super) async fn build(
    config: &SwarmConfig,
    keypair: &Keypair,
    store: KadStore,
) -> Result<(Swarm<Behaviour>, libp2p_stream::Control), SwarmError> {
    // Two providers are compiled in, so a library that asks rustls for its default would panic without this.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tcp_config = tcp::Config::default().nodelay(true);
    let builder = SwarmBuilder::with_existing_identity(keypair.clone()).with_tokio();
    // Lazy: a stream's first message travels with the name of its protocol, which saves each stream a round trip. On
    // the wire it is the same multistream-select 1.
    let swarm_config = |c: libp2p::swarm::Config| {
        c.with_idle_connection_timeout(config.idle_timeout).with_substream_upgrade_protocol_override(Version::V1Lazy)
    };
    let behaviour = |key: &Keypair, relay| Behaviour::new(config, key, relay, store).map_err(Into::into);
    let failed = |what, error: &(dyn std::error::Error + 'static)| SwarmError::Transport { what, reason: chain(error) };
    let resolver = |error: &(dyn std::error::Error + 'static)| SwarmError::Transport {
        what: "name resolution",
        reason: format!("{}; check the system's resolver (/etc/resolv.conf)", chain(error)),
    };

    let swarm = match config.psk {
        Some(psk) => builder
            .with_other_transport(|key| {
                let noise = noise::Config::new(key)?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                    tcp::tokio::Transport::new(tcp_config)
                        .and_then(move |socket, _| PnetConfig::new(psk).handshake(socket))
                        .upgrade(Version::V1Lazy)
                        .authenticate(noise)
                        .multiplex(yamux::Config::default()),
                )
            })
            .map_err(|error| failed("the private network", &error))?
            .with_dns()
            .map_err(|error| resolver(&error))?
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .map_err(|error| failed("relayed connections", &error))?
            .with_behaviour(behaviour)
            .map_err(|error| failed("the protocols", &error))?
            .with_swarm_config(swarm_config)
            .build(),
        None => builder
            .with_tcp(tcp_config, (tls::Config::new, noise::Config::new), yamux::Config::default)
            .map_err(|error| failed("TCP", &error))?
            .with_quic()
            .with_dns()
            .map_err(|error| resolver(&error))?
            .with_websocket((tls::Config::new, noise::Config::new), yamux::Config::default)
            .await
            .map_err(|error| resolver(&error))?
            .with_relay_client((tls::Config::new, noise::Config::new), yamux::Config::default)
            .map_err(|error| failed("relayed connections", &error))?
            .with_behaviour(behaviour)
            .map_err(|error| failed("the protocols", &error))?
            .with_swarm_config(swarm_config)
            .build(),
    };
    let streams = swarm.behaviour().streams.new_control();
    Ok((swarm, streams))
}

/// Tries to bind every fixed port of `listen` once, plainly.
///
/// libp2p-tcp sets SO_REUSEPORT, with which a second node of the same user would share the port in silence and get
/// half of its connections; a plain bind shows that it is taken.
pub(super) fn probe(listen: &[Multiaddr]) -> Result<(), SwarmError> {
    // One family at a time: a plain IPv6 socket may cover IPv4 too and would collide with our own probe.
    for v6 in [false, true] {
        let mut held = Vec::new();
        for addr in listen {
            let Some((ip, socket)) = address::socket_of(addr).filter(|(ip, _)| ip.is_ipv6() == v6) else { continue };
            match bind(ip, socket) {
                Ok(probe) => held.extend(probe),
                Err(error) if is_missing_family(ip, &error) => {}
                Err(error) => return Err(listen_error(addr, &error)),
            }
        }
    }
    Ok(())
}

/// The error for an address that cannot be listened on, with what to do.
pub(super) fn listen_error(addr: &Multiaddr, error: &io::Error) -> SwarmError {
    let (reason, fix) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "the port is taken".to_owned(),
            "stop the program that uses it (is a daemon running already?), or listen on another port: --listen",
        ),
        io::ErrorKind::PermissionDenied => {
            (chain(error), "ports below 1024 need privileges; listen on a higher one: --listen")
        }
        io::ErrorKind::AddrNotAvailable => {
            (chain(error), "the address belongs to no interface of this machine; listen on /ip4/0.0.0.0/...")
        }
        _ => (chain(error), "check the address: --listen"),
    };
    SwarmError::Listen { addr: addr.clone(), reason, fix: fix.to_owned() }
}

/// Whether the machine has no IPv6 and a default listens on all of it: then that listener is left out.
pub(super) fn is_missing_family(ip: IpAddr, error: &io::Error) -> bool {
    const EAFNOSUPPORT: [i32; 3] = [97 /* Linux */, 47 /* BSD, macOS */, 10047 /* Windows */];
    ip.is_ipv6()
        && ip.is_unspecified()
        && (matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
            || error.raw_os_error().is_some_and(|code| EAFNOSUPPORT.contains(&code)))
}

enum Probe {
    Tcp(#[expect(dead_code, reason = "held so that the port stays bound")] TcpListener),
    Udp(#[expect(dead_code, reason = "held so that the port stays bound")] UdpSocket),
}

fn bind(ip: IpAddr, socket: Socket) -> io::Result<Option<Probe>> {
    match socket {
        Socket::Tcp(0) | Socket::Udp(0) => Ok(None),
        Socket::Tcp(port) => TcpListener::bind((ip, port)).map(|it| Some(Probe::Tcp(it))),
        Socket::Udp(port) => UdpSocket::bind((ip, port)).map(|it| Some(Probe::Udp(it))),
    }
}

/// The system's error behind a transport's.
pub(super) fn listen_failure(error: libp2p::TransportError<io::Error>) -> io::Error {
    match error {
        libp2p::TransportError::MultiaddrNotSupported(addr) => {
            io::Error::new(io::ErrorKind::InvalidInput, format!("no transport of this node serves {addr}"))
        }
        libp2p::TransportError::Other(error) => {
            // The transports wrap the system's error several times; its kind decides what to advise.
            let mut kind = error.kind();
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(error) = cause {
                if let Some(inner) = error.downcast_ref::<io::Error>() {
                    kind = if inner.kind() == io::ErrorKind::Other { kind } else { inner.kind() };
                    cause = inner.get_ref().map(|it| it as &(dyn std::error::Error + 'static));
                } else {
                    cause = error.source();
                }
            }
            io::Error::new(kind, chain(&error))
        }
    }
}
