//! What a multiaddr says: whom it names, and whether strangers can use it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Whether anybody on the internet can be expected to dial this address: every host in it is a global IP address
/// or a public DNS name, and no port is 0. An address without a host (only `/p2p/...`, `/memory/...`) is not.
///
/// Source: the IANA special-purpose registries (RFC 6890 and its updates).
#[must_use]
pub fn is_globally_reachable(addr: &Multiaddr) -> bool {
    let mut hosts = 0;
    for part in addr {
        let global = match part {
            Protocol::Ip4(ip) => is_global_v4(ip),
            Protocol::Ip6(ip) => is_global_v6(ip),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name) => {
                is_public_name(&name)
            }
            Protocol::Tcp(0) | Protocol::Udp(0) => return false,
            _ => continue,
        };
        if !global {
            return false;
        }
        hosts += 1;
    }
    hosts > 0
}

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

/// Whether the address is a loopback one.
pub(super) fn is_loopback(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
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

fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(a == 0
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240)
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return is_global_v4(mapped);
    }
    let [first, second, ..] = ip.segments();
    // Only 2000::/3 is given out; 2001::/23 is for protocols (Teredo among them), 2001:db8::/32 for documents.
    first & 0xe000 == 0x2000
        && !(first == 0x2001 && second < 0x0200)
        && !(first == 0x2001 && second == 0x0db8)
        && !(first == 0x3fff && second < 0x1000)
}

fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let private = ["local", "localhost", "internal", "lan", "home.arpa", "test", "invalid", "example", "onion"];
    name.contains('.') && !private.iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn private_and_special_addresses_are_not_globally_reachable() {
        for text in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.1.2.3/tcp/1",
            "/ip4/172.16.0.1/tcp/1",
            "/ip4/192.168.1.1/udp/1/quic-v1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/198.18.0.1/tcp/1",
            "/ip4/203.0.113.7/tcp/1",
            "/ip4/224.0.0.1/udp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip4/8.8.8.8/tcp/0",
            "/ip6/::1/tcp/1",
            "/ip6/::/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/ff02::1/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/ip6/::ffff:192.168.0.1/tcp/1",
            "/dns4/localhost/tcp/1",
            "/dns4/printer.local/tcp/1",
            "/dns/box/tcp/1",
            "/memory/7",
            "/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
            "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit/ip4/10.0.0.1/tcp/2",
        ] {
            assert!(!is_globally_reachable(&addr(text)), "{text}");
        }
    }

    #[test]
    fn public_addresses_and_names_are_globally_reachable() {
        for text in [
            "/ip4/8.8.8.8/tcp/4101",
            "/ip4/100.128.0.1/tcp/1",
            "/ip4/172.32.0.1/udp/1/quic-v1",
            "/ip6/2606:4700::1/tcp/443/wss",
            "/ip6/::ffff:8.8.8.8/tcp/1",
            "/dns4/node.dagmesh.org/tcp/443/wss",
            "/dnsaddr/bootstrap.libp2p.io",
            "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit",
        ] {
            assert!(is_globally_reachable(&addr(text)), "{text}");
        }
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
