//! Where a publisher can be asked.

use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use url::{Host, Url};

/// A place at which a publisher can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Over TCP.
    Http(HttpPlace),
    /// Over streams of libp2p, by whatever connection there is.
    Streams,
}

/// A place at which HTTP is spoken over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HttpPlace {
    /// Its path, without a slash at the end, is what all requests there begin with.
    pub(crate) url: Url,
    /// The host to connect with, where the one in the URL is for TLS and the `Host` header alone (`/tls/sni/...`).
    pub(crate) dial: Option<String>,
    /// Which addresses of the name are meant.
    pub(crate) family: Family,
}

/// Which addresses of a name are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    pub(crate) fn takes(self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}

impl Place {
    /// The place that `addr` names.
    ///
    /// HTTP where `/http`, `/https` or `/tls/http` stands in it, with the path of `/http-path`; else streams. An address
    /// that names another peer at its end is refused, and so are parts that HTTP cannot go over.
    ///
    /// Source: go-libipni 0.7 `maurl`, go-libp2p 0.48 `p2p/http`, <https://github.com/libp2p/specs/tree/master/http>.
    pub(crate) fn of(addr: &Multiaddr, publisher: &PeerId) -> Result<Self, String> {
        let named = addr.iter().last().and_then(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None });
        if let Some(named) = named.filter(|named| named != publisher) {
            return Err(format!("it leads to {named}"));
        }
        if addr.iter().any(|part| matches!(part, Protocol::Http | Protocol::Https)) {
            return http(addr).map(Self::Http);
        }
        match addr.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(Self::Streams),
        }
    }
}

fn http(addr: &Multiaddr) -> Result<HttpPlace, String> {
    let (mut host, mut family, mut port, mut tls, mut sni, mut path) = (None, Family::Any, None, false, None, None);
    for part in addr.iter() {
        match part {
            Protocol::Ip4(ip) if host.is_none() => host = Some(Host::Ipv4(ip)),
            Protocol::Ip6(ip) if host.is_none() => host = Some(Host::Ipv6(ip)),
            Protocol::Dns(name) if host.is_none() => host = Some(Host::Domain(name.into_owned())),
            Protocol::Dns4(name) if host.is_none() => {
                (host, family) = (Some(Host::Domain(name.into_owned())), Family::V4)
            }
            Protocol::Dns6(name) if host.is_none() => {
                (host, family) = (Some(Host::Domain(name.into_owned())), Family::V6)
            }
            Protocol::Tcp(number) if port.is_none() => port = Some(number),
            Protocol::Tls | Protocol::Https => tls = true,
            Protocol::Sni(name) => sni = Some(name.into_owned()),
            Protocol::HttpPath(text) if path.is_none() => path = Some(text.into_owned()),
            Protocol::Http | Protocol::P2p(_) => {}
            other => return Err(format!("HTTP does not go over {other}")),
        }
    }
    let host = host.ok_or("it names no host")?;
    let dial = sni.is_some().then(|| host.to_string());
    let host = sni.unwrap_or_else(|| host.to_string());
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let scheme = if tls { "https" } else { "http" };
    let mut url = Url::parse(&format!("{scheme}://{host}{port}")).map_err(|error| error.to_string())?;
    // A name could carry more than a name: a user, a path, a question.
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(format!("{host:?} is no name of a host"));
    }
    url.set_path(path.unwrap_or_default().trim_end_matches('/'));
    Ok(HttpPlace { url, dial, family })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place, String> {
        let peer = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8".parse().expect("a peer id");
        Place::of(&text.parse().expect("an address"), &peer)
    }

    #[test]
    fn urls_are_made_as_the_original_makes_them() {
        for (addr, url) in [
            ("/ip4/192.168.0.1/tcp/8080/http", "http://192.168.0.1:8080/"),
            ("/ip4/192.169.0.1/http", "http://192.169.0.1/"),
            ("/ip4/192.169.0.1/https", "https://192.169.0.1/"),
            ("/ip4/192.169.0.1/tls/http", "https://192.169.0.1/"),
            ("/ip6/2a00:1450:400e:80d::200e/tcp/8443/https", "https://[2a00:1450:400e:80d::200e]:8443/"),
            ("/dns4/example.com/tcp/443/https", "https://example.com/"),
            ("/dns/example.com/tcp/80/http/http-path/path%2Fto%2Frsrc", "http://example.com/path/to/rsrc"),
            ("/dns/example.com/https/http-path/%2Fa%20b%3Fc%23d", "https://example.com/a%20b%3Fc%23d"),
            ("/dns/example.com/https/http-path/a%2F..%2F..%2Fb%2F", "https://example.com/b"),
            ("/dns/example.com/https/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8", "https://example.com/"),
            ("/ip4/1.2.3.4/tcp/443/tls/sni/example.com/http", "https://example.com/"),
        ] {
            match place(addr) {
                Ok(Place::Http(place)) => assert_eq!(place.url.as_str(), url, "{addr}"),
                other => panic!("{addr}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_name_for_tls_keeps_the_address_beside_it() {
        let Ok(Place::Http(place)) = place("/ip4/1.2.3.4/tcp/443/tls/sni/example.com/http") else { panic!("HTTP") };
        assert_eq!(place.dial.as_deref(), Some("1.2.3.4"));
    }

    #[test]
    fn what_is_no_http_address_is_one_of_streams_and_what_is_neither_is_refused() {
        for text in ["/ip4/1.2.3.4/tcp/4001", "/ip4/1.2.3.4/udp/4001/quic-v1", "/dns4/example.com/tcp/443/wss"] {
            assert_eq!(place(text), Ok(Place::Streams), "{text}");
        }
        for text in [
            "/http",
            "/tcp/80/http",
            "/ip4/1.2.3.4/udp/80/http",
            "/ip4/1.2.3.4/tcp/80/ws/http",
            "/dnsaddr/example.com/http",
            "/dns/user@example.com/tcp/80/http",
            "/dns/example.com?/tcp/80/http",
            "/dns/a b/tcp/80/http",
            "/unix/socket/http",
            "/ip4/1.2.3.4/tcp/80/http/p2p/12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE",
        ] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
