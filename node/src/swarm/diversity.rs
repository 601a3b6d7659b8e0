//! How many peers of one part of the internet the DHT relies on: identities are free, addresses in many networks are not.
//!
//! Source: the peer diversity filter of go-libp2p-kad-dht, whose groups and figures for the routing table these are, but
//! for IPv6, which it groups by autonomous system where it knows that. Limiting what one query is told is dagmesh's own:
//! without it, whoever has three places in the table fills the end of a lookup with its fellows.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use dagmesh_core::{is_global, limits};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Of which peers only so many of one part of the internet are relied on in the DHT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Diversity {
    /// Of none.
    #[default]
    Off,
    /// Of those at global addresses: by /16 of IPv4 (/8 where that belongs to one owner) and by /32 of IPv6.
    Global,
    /// Of all: those at other addresses by /24 and by /64.
    All,
}

/// A part of the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Group {
    /// The first so many bits of an IPv4 address.
    V4(u32, u8),
    /// The first so many bits of an IPv6 address.
    V6(u128, u8),
    /// Wherever a name leads to.
    Named,
}

/// Blocks of IPv4 that were given away whole.
const WHOLE_EIGHTS: [u8; 8] = [12, 17, 19, 38, 48, 53, 56, 73];

impl Diversity {
    /// The part of the internet that an IP address belongs to; `None` where it is not limited.
    pub(super) fn group(self, ip: IpAddr) -> Option<Group> {
        let ip = ip.to_canonical();
        let global = match (self, is_global(ip)) {
            (Self::Off, _) | (Self::Global, false) => return None,
            (_, global) => global,
        };
        Some(match ip {
            IpAddr::V4(ip) => {
                let len = match ip.octets() {
                    _ if !global => 24,
                    [first, ..] if WHOLE_EIGHTS.contains(&first) => 8,
                    _ => 16,
                };
                Group::V4(ip.to_bits() >> (32 - len), len)
            }
            IpAddr::V6(ip) => {
                let len = if global { 32 } else { 64 };
                Group::V6(ip.to_bits() >> (128 - len), len)
            }
        })
    }

    /// Those of a peer at these addresses. A name may lead anywhere: it counts where there is no address beside it.
    pub(super) fn groups<'a>(self, addrs: impl IntoIterator<Item = &'a Multiaddr>) -> BTreeSet<Group> {
        let (mut groups, mut named, mut numbered) = (BTreeSet::new(), false, false);
        for addr in addrs {
            match ip_of(addr) {
                Some(ip) => {
                    numbered = true;
                    groups.extend(self.group(ip));
                }
                None => named = true,
            }
        }
        if named && !numbered && self != Self::Off {
            groups.insert(Group::Named);
        }
        groups
    }
}

/// The IP address that an address begins with: of the peer, or of the relay before it.
pub(super) fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// A peer in the routing table.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pub(super) peer: PeerId,
    pub(super) bucket: u32,
    pub(super) groups: &'a BTreeSet<Group>,
}

/// Whether there is room in the table for one more peer of these groups, in this bucket; else who stands in its way.
pub(super) fn check_table<'a>(
    table: impl IntoIterator<Item = Placed<'a>>,
    bucket: u32,
    groups: &BTreeSet<Group>,
) -> Result<(), Vec<PeerId>> {
    let mut like: HashMap<Group, (Vec<PeerId>, Vec<PeerId>)> = HashMap::new();
    for placed in table {
        for group in placed.groups.intersection(groups) {
            let (all, near) = like.entry(*group).or_default();
            all.push(placed.peer);
            near.extend((placed.bucket == bucket).then_some(placed.peer));
        }
    }
    for (all, near) in like.into_values() {
        if near.len() >= limits::MAX_DHT_GROUP_PER_BUCKET {
            return Err(near);
        }
        if all.len() >= limits::MAX_DHT_GROUP_IN_TABLE {
            return Err(all);
        }
    }
    Ok(())
}

/// What one query has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    taken: HashMap<PeerId, BTreeSet<Group>>,
    counts: HashMap<Group, usize>,
}

impl Told {
    /// Whether a query goes to this peer, which somebody says is at these addresses: the same one again, and at most
    /// [`limits::MAX_DHT_GROUP_PER_QUERY`] of each group. At addresses that are not its own nobody finds it, so whoever
    /// wants to be found names one that counts.
    pub(super) fn takes(&mut self, diversity: Diversity, peer: PeerId, addrs: &[Multiaddr]) -> bool {
        let mut news = diversity.groups(addrs);
        if let Some(taken) = self.taken.get(&peer) {
            news.retain(|group| !taken.contains(group));
        }
        let full = |group: &Group| self.counts.get(group).is_some_and(|n| *n >= limits::MAX_DHT_GROUP_PER_QUERY);
        if news.iter().any(full) {
            return false;
        }
        for group in &news {
            *self.counts.entry(*group).or_default() += 1;
        }
        if !news.is_empty() {
            self.taken.entry(peer).or_default().extend(news);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn groups(diversity: Diversity, addrs: &[&str]) -> BTreeSet<Group> {
        diversity.groups(&addrs.iter().map(|text| addr(text)).collect::<Vec<_>>())
    }

    #[test]
    fn addresses_are_grouped_by_the_network_that_they_are_in() {
        let of = |text: &str| Diversity::Global.group(text.parse().unwrap());
        assert_eq!(of("8.8.1.1"), of("8.8.250.9"));
        assert_ne!(of("8.8.1.1"), of("8.9.1.1"));
        assert_eq!(of("12.1.1.1"), of("12.200.1.1"), "the whole /8 is one owner's");
        assert_eq!(of("::ffff:8.8.1.1"), of("8.8.1.1"));
        assert_eq!(of("2a00:1450:1::1"), of("2a00:1450:ffff::1"));
        assert_ne!(of("2a00:1450::1"), of("2a00:1451::1"));
        for local in ["127.0.0.1", "192.168.1.1", "10.0.0.1", "::1", "fd00::1"] {
            assert_eq!(of(local), None, "{local}");
            assert_eq!(Diversity::Off.group(local.parse().unwrap()), None);
            assert!(Diversity::All.group(local.parse().unwrap()).is_some());
        }
        assert_eq!(Diversity::Off.group("8.8.1.1".parse().unwrap()), None);
        let local = |text: &str| Diversity::All.group(text.parse().unwrap());
        assert_eq!(local("127.0.5.1"), local("127.0.5.9"));
        assert_ne!(local("127.0.5.1"), local("127.0.6.1"));
        assert_ne!(local("10.0.0.1"), local("11.0.0.1"), "of another length");
    }

    #[test]
    fn a_name_counts_where_no_address_stands_beside_it() {
        let named = groups(Diversity::Global, &["/dns4/a.example.org/tcp/1"]);
        assert_eq!(named, groups(Diversity::Global, &["/dns4/b.example.com/tcp/1", "/dnsaddr/c.example.net"]));
        assert_eq!(named, BTreeSet::from([Group::Named]));
        let both = groups(Diversity::Global, &["/dns4/a.example.org/tcp/1", "/ip4/8.8.8.8/tcp/1"]);
        assert_eq!(both, groups(Diversity::Global, &["/ip4/8.8.8.8/tcp/1"]));
        assert_eq!(groups(Diversity::Off, &["/dns4/a.example.org/tcp/1"]), BTreeSet::new());
        assert_eq!(groups(Diversity::Global, &["/dns4/a.example.org/tcp/1", "/ip4/10.0.0.1/tcp/1"]), BTreeSet::new());
    }

    fn table(places: &[(u32, &[&str])]) -> Vec<(PeerId, u32, BTreeSet<Group>)> {
        let placed = |&(bucket, addrs): &(u32, &[&str])| (PeerId::random(), bucket, groups(Diversity::Global, addrs));
        places.iter().map(placed).collect()
    }

    fn check(table: &[(PeerId, u32, BTreeSet<Group>)], bucket: u32, addrs: &[&str]) -> Result<(), Vec<PeerId>> {
        let placed = table.iter().map(|(peer, bucket, groups)| Placed { peer: *peer, bucket: *bucket, groups });
        check_table(placed, bucket, &groups(Diversity::Global, addrs))
    }

    #[test]
    fn a_bucket_takes_two_of_a_group_and_the_table_three() {
        let (one, other) = (&["/ip4/8.8.1.1/tcp/1"][..], &["/ip4/9.9.1.1/tcp/1"][..]);
        let held = table(&[(7, one), (7, other)]);
        assert_eq!(check(&held, 7, one), Ok(()), "the second");
        let held = table(&[(7, one), (7, other), (7, one)]);
        assert_eq!(check(&held, 7, one), Err(vec![held[0].0, held[2].0]), "the third");
        assert_eq!(check(&held, 8, one), Ok(()), "the third of the table");
        assert_eq!(check(&held, 7, other), Ok(()));
        let held = table(&[(7, one), (8, one), (9, one)]);
        assert_eq!(check(&held, 1, one).map_err(|who| who.len()), Err(3), "the fourth of the table");
        // Who is in several networks needs room in each.
        assert!(check(&held, 1, &[other[0], one[0]]).is_err());
        assert_eq!(check(&held, 1, &["/ip4/192.168.1.1/tcp/1"]), Ok(()), "not limited");
    }

    #[test]
    fn a_query_takes_so_many_of_a_group_and_each_of_them_again() {
        let mut told = Told::default();
        let most = limits::MAX_DHT_GROUP_PER_QUERY;
        let peers: Vec<_> = (0..=most).map(|_| PeerId::random()).collect();
        let at = |n: usize| [addr(&format!("/ip4/8.8.{n}.1/tcp/1"))];
        for (n, peer) in peers.iter().take(most).enumerate() {
            assert!(told.takes(Diversity::Global, *peer, &at(n)));
        }
        assert!(told.takes(Diversity::Global, peers[0], &at(200)), "known");
        assert!(!told.takes(Diversity::Global, peers[most], &at(most)));
        let both = [at(most)[0].clone(), addr("/ip4/9.9.9.9/tcp/1")];
        assert!(!told.takes(Diversity::Global, peers[most], &both), "an address elsewhere does not help");
        assert!(told.takes(Diversity::Global, peers[most], &[addr("/ip4/9.9.9.9/tcp/1")]));
        assert!(told.takes(Diversity::Off, PeerId::random(), &at(1)));
        assert!(told.takes(Diversity::Global, PeerId::random(), &[addr("/ip4/192.168.1.1/tcp/1")]));
    }
}
