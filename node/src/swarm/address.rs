//! What a multiaddr says: whom it names, and whether strangers can use it.

use std::net::IpAddr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// The peer that the address leads to: its last component, if that is `/p2p/<peer>`.
#[must_use]
pub fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last()? {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

/// The address with `/p2p/<peer>` at its end; `None` where it names another peer.
#[must_use]
pub fn with_peer(addr: Multiaddr, peer: PeerId) -> Option<Multiaddr> {
    addr.with_p2p(peer).ok()
}

/// The address without a trailing `/p2p/<peer>`.
#[must_use]
pub fn without_peer(addr: &Multiaddr) -> Multiaddr {
    let mut addr = addr.clone();
    if peer_of(&addr).is_some() {
        addr.pop();
    }
    addr
}

/// Whether the address goes through a relay.
pub(super) fn is_relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The relay that the address goes through.
pub(super) fn relay_of(addr: &Multiaddr) -> Option<PeerId> {
    let mut relay = None;
    for part in addr {
        match part {
            Protocol::P2p(peer) => relay = Some(peer),
            Protocol::P2pCircuit => return relay,
            _ => {}
        }
    }
    None
}

/// Whether the address is a loopback one.
pub(super) fn is_loopback(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

/// Whether the address is valid on one link alone, so that it says nothing without naming an interface.
pub(super) fn is_link_local(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_link_local(),
        Protocol::Ip6(ip) => ip.is_unicast_link_local(),
        _ => false,
    })
}

/// Whether the address is TCP and nothing on top of it but a peer or a relay.
pub(super) fn is_plain_tcp(addr: &Multiaddr) -> bool {
    let mut tcp = false;
    for part in addr {
        match part {
            Protocol::Tcp(_) => tcp = true,
            Protocol::Ip4(_)
            | Protocol::Ip6(_)
            | Protocol::Dns(_)
            | Protocol::Dns4(_)
            | Protocol::Dns6(_)
            | Protocol::Dnsaddr(_)
            | Protocol::P2p(_)
            | Protocol::P2pCircuit => {}
            _ => return false,
        }
    }
    tcp
}

/// The socket that a listen address binds; none at a relay.
pub(super) fn socket_of(addr: &Multiaddr) -> Option<(IpAddr, Socket)> {
    if is_relayed(addr) {
        return None;
    }
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((ip, Socket::Tcp(port))),
        Protocol::Udp(port) => Some((ip, Socket::Udp(port))),
        _ => None,
    }
}

/// A port of one of the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Socket {
    Tcp(u16),
    Udp(u16),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_is_taken_from_the_end_of_an_address_alone() {
        let peer: PeerId = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8".parse().unwrap();
        let plain = addr("/ip4/8.8.8.8/tcp/1");
        let full = with_peer(plain.clone(), peer).unwrap();
        assert_eq!(peer_of(&full), Some(peer));
        assert_eq!(without_peer(&full), plain);
        assert_eq!(with_peer(full.clone(), peer), Some(full.clone()));
        assert_eq!(with_peer(full.clone(), PeerId::random()), None);
        assert_eq!(peer_of(&addr(&format!("{full}/p2p-circuit"))), None);
    }

    #[test]
    fn only_tcp_without_a_layer_on_top_is_plain() {
        assert!(is_plain_tcp(&addr("/ip4/0.0.0.0/tcp/4101")));
        assert!(!is_plain_tcp(&addr("/ip4/0.0.0.0/tcp/4101/ws")));
        assert!(!is_plain_tcp(&addr("/ip4/0.0.0.0/udp/4101/quic-v1")));
    }
}
