//! Which addresses make sense to strangers.

use std::net::IpAddr;

use dagmesh_core::is_global;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

/// Whether a stranger anywhere on the internet could dial `addr`.
///
/// It must begin with an IP address or a DNS name. An address that is private, shared, loopback, link-local,
/// multicast, reserved or for documentation is not reachable, wherever it stands in `addr`; neither is a name that
/// only a local network resolves. Nothing is looked up: a public name may still point to a private address.
///
/// Source: [`is_global`] for IP addresses; RFC 6761, 6762, 8375 for names.
pub fn is_globally_reachable(addr: &Multiaddr) -> bool {
    let mut parts = addr.iter().peekable();
    let dialable = matches!(
        parts.peek(),
        Some(
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
                | Protocol::Dnsaddr(_)
        )
    );
    dialable
        && parts.all(|part| match part {
            Protocol::Ip4(ip) => is_global(ip.into()),
            Protocol::Ip6(ip) => is_global(ip.into()),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name) => {
                is_global_name(&name)
            }
            Protocol::Ip6zone(_) | Protocol::Memory(_) | Protocol::Unix(_) => false,
            _ => true,
        })
}

/// Whether `addr` can lead to `peer`: it names no peer at its end, or this one.
pub(crate) fn leads_to(addr: &Multiaddr, peer: &PeerId) -> bool {
    let mut named = None;
    for part in addr.iter() {
        match part {
            Protocol::P2p(peer) => named = Some(peer),
            // The peer named so far was the relay.
            Protocol::P2pCircuit => named = None,
            _ => {}
        }
    }
    named.is_none_or(|named| named == *peer)
}

fn is_global_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if let Ok(ip) = name.parse::<IpAddr>() {
        return is_global(ip);
    }
    let local = ["localhost", "local", "internal", "home.arpa", "lan", "test", "invalid"];
    // A name without a dot is found in a local search domain at best.
    name.contains('.')
        && !local.iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_of_the_internet_are_reachable() {
        for text in [
            "/ip4/8.8.8.8/tcp/4101",
            "/ip4/172.32.0.1/udp/4101/quic-v1",
            "/ip4/100.128.0.1/tcp/1",
            "/ip6/2a00:1450:4001::1/tcp/4101",
            "/ip6/::ffff:8.8.8.8/tcp/4101",
            "/ip6/64:ff9b::8.8.8.8/tcp/4101",
            "/dns4/example.com/tcp/443/wss",
            "/dnsaddr/bootstrap.libp2p.io",
            "/dns/local.example.org/tcp/1",
            "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit",
        ] {
            assert!(is_globally_reachable(&addr(text)), "{text}");
        }
    }

    #[test]
    fn private_and_special_addresses_are_not_reachable() {
        for text in [
            "/ip4/127.0.0.1/tcp/4101",
            "/ip4/10.1.2.3/tcp/4101",
            "/ip4/172.16.0.1/tcp/4101",
            "/ip4/172.31.255.255/tcp/4101",
            "/ip4/192.168.1.1/tcp/4101",
            "/ip4/169.254.1.1/tcp/4101",
            "/ip4/100.64.0.1/tcp/4101",
            "/ip4/198.18.0.1/tcp/4101",
            "/ip4/203.0.113.1/tcp/4101",
            "/ip4/224.0.0.1/tcp/4101",
            "/ip4/255.255.255.255/tcp/4101",
            "/ip4/0.0.0.0/tcp/4101",
            "/ip6/::/tcp/4101",
            "/ip6/::1/tcp/4101",
            "/ip6/fe80::1/tcp/4101",
            "/ip6/fd00::1/tcp/4101",
            "/ip6/ff02::1/tcp/4101",
            "/ip6/2001:db8::1/tcp/4101",
            "/ip6/::ffff:192.168.1.1/tcp/4101",
            "/ip6/64:ff9b::10.0.0.1/tcp/4101",
            "/ip6/2002:0a00:0001::1/tcp/4101",
            "/ip6zone/eth0/ip6/2a00::1/tcp/4101",
            "/dns4/localhost/tcp/4101",
            "/dns4/LOCALHOST./tcp/4101",
            "/dns4/printer/tcp/4101",
            "/dns4/printer.local/tcp/4101",
            "/dns4/127.0.0.1/tcp/4101",
            "/dns6/::1/tcp/4101",
            "/memory/7",
            "/unix/socket",
            "/tcp/4101",
            "/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8/p2p-circuit",
        ] {
            assert!(!is_globally_reachable(&addr(text)), "{text}");
        }
        assert!(!is_globally_reachable(&Multiaddr::empty()));
    }

    #[test]
    fn an_address_leads_to_the_peer_at_its_end_and_not_to_the_relay() {
        let peer = |_| libp2p_identity::Keypair::generate_ed25519().public().to_peer_id();
        let [a, b]: [PeerId; 2] = [0, 1].map(peer);
        assert!(leads_to(&addr("/ip4/8.8.8.8/tcp/1"), &a));
        assert!(leads_to(&addr(&format!("/ip4/8.8.8.8/tcp/1/p2p/{a}")), &a));
        assert!(!leads_to(&addr(&format!("/ip4/8.8.8.8/tcp/1/p2p/{b}")), &a));
        assert!(leads_to(&addr(&format!("/ip4/8.8.8.8/tcp/1/p2p/{b}/p2p-circuit/p2p/{a}")), &a));
        assert!(!leads_to(&addr(&format!("/ip4/8.8.8.8/tcp/1/p2p/{a}/p2p-circuit/p2p/{b}")), &a));
    }
}
