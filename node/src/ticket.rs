//! How a publisher is named on the command line: by a ticket, a peer id, a multiaddr or an IPNS name.

mod group;

use std::{fmt, str::FromStr};

use dagmesh_core::{
    bounded::{BoundedBytes, BoundedVec},
    cbor, limits,
};
use dagmesh_dag::{FeedName, HashCode};
use dagmesh_records::IpnsName;
use data_encoding::{Encoding, Specification};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Serialize};

pub use self::group::{GroupTarget, GroupTicket};
use crate::error::NodeError;

/// What every ticket starts with; the digit is its version.
const PREFIX: &str = "dagmesh1";
/// Bytes of SHA2-256 over prefix and payload that end a ticket: a slip goes unseen once in 2^32.
const CHECKSUM_BYTES: usize = 4;

/// One string that leads to a feed: the publisher's peer id, its addresses and the feed's name.
///
/// As text: `dagmesh1`, then lowercase base32 without padding of DAG-CBOR `{peer, addrs, feed}` and 4 bytes of
/// checksum. At most [`limits::MAX_TICKET_CHARS`] characters and [`limits::MAX_ANNOUNCEMENT_ADDRS`] addresses. It is
/// a hint where to look, not a secret and not a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    feed: FeedName,
}

/// Why a text names no publisher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Letters are wrong or missing.
    #[error("the ticket has a typo: its checksum does not match; copy it again from where it was printed")]
    Checksum,
    /// No base32.
    #[error("the ticket has a typo: {0} is no letter of it; copy it again from where it was printed")]
    Letter(String),
    /// Not a name of a group.
    #[error("{0:?} is no name of a group: it has 1 to 128 bytes and no control characters")]
    GroupName(String),
    /// Intact, but not what we read.
    #[error("the ticket cannot be read ({0}); it may be of a newer dagmesh")]
    Content(String),
    /// Over a cap.
    #[error("a ticket of {len} {unit} where at most {max} may stand")]
    TooLong {
        /// How many there are.
        len: usize,
        /// Of what.
        unit: &'static str,
        /// The cap.
        max: usize,
    },
    /// An address of somebody else.
    #[error("the address {addr} belongs to another peer than {peer}")]
    OtherPeer {
        /// The address.
        addr: Box<Multiaddr>,
        /// Whose it should be.
        peer: Box<PeerId>,
    },
    /// None of the four.
    #[error(
        "{0:?} names no publisher: it is no ticket (dagmesh1...), no peer id (12D3Koo...), no multiaddr (/ip4/...) and no \
         name (/ipns/k51...)"
    )]
    Unknown(String),
    /// A name that does not parse.
    #[error("{text:?} is no IPNS name: {reason}")]
    Name {
        /// What was given, cut to a bounded length.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A multiaddr that does not parse.
    #[error("{text:?} is no multiaddr: {reason}")]
    Multiaddr {
        /// What was given, cut to a bounded length.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A multiaddr that does not say who is there.
    #[error("the address {0} does not say who is there: append /p2p/ and the peer id")]
    NoPeer(Box<Multiaddr>),
}

impl From<TargetError> for NodeError {
    fn from(error: TargetError) -> Self {
        Self::usage(error.to_string())
    }
}

/// The payload of a ticket.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    peer: BoundedBytes<{ limits::MAX_CID_BYTES }>,
    addrs: BoundedVec<BoundedBytes<{ limits::MAX_ADDR_BYTES }>, { limits::MAX_ANNOUNCEMENT_ADDRS }>,
    feed: FeedName,
}

impl Ticket {
    /// Makes a ticket. A `/p2p/<peer>` at the end of an address is left out: the peer stands in the ticket.
    pub fn new(peer: PeerId, addrs: &[Multiaddr], feed: FeedName) -> Result<Self, TargetError> {
        let max = limits::MAX_ANNOUNCEMENT_ADDRS;
        if addrs.len() > max {
            return Err(TargetError::TooLong { len: addrs.len(), unit: "addresses", max });
        }
        let addrs = addrs.iter().map(|addr| without_peer(addr, &peer)).collect::<Result<_, _>>()?;
        let ticket = Self { peer, addrs, feed };
        match ticket.to_string().len() {
            len if len > limits::MAX_TICKET_CHARS => {
                Err(TargetError::TooLong { len, unit: "characters", max: limits::MAX_TICKET_CHARS })
            }
            _ => Ok(ticket),
        }
    }

    /// Whom it leads to.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where, without `/p2p/<peer>` at the end.
    pub fn addrs(&self) -> &[Multiaddr] {
        &self.addrs
    }

    /// Which feed.
    pub fn feed(&self) -> &FeedName {
        &self.feed
    }

    fn payload(&self) -> Result<Vec<u8>, TargetError> {
        let addrs = self.addrs.iter().map(|addr| BoundedBytes::new(addr.to_vec()).map_err(content));
        let payload = Payload {
            peer: BoundedBytes::new(self.peer.to_bytes()).map_err(content)?,
            addrs: BoundedVec::new(addrs.collect::<Result<Vec<_>, _>>()?).map_err(content)?,
            feed: self.feed.clone(),
        };
        cbor::to_vec(&payload).map_err(content)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&armour(PREFIX, self.payload().map_err(|_| fmt::Error)?))
    }
}

impl FromStr for Ticket {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let Payload { peer, addrs, feed } = cbor::from_slice(&disarm(PREFIX, text)?).map_err(content)?;
        let peer = PeerId::from_bytes(&peer).map_err(|error| content(format!("its peer id: {error}")))?;
        // An address of a kind that we do not know is no reason to refuse those that we do.
        let addrs = addrs.iter().filter_map(|addr| Multiaddr::try_from(addr.to_vec()).ok()).collect::<Vec<_>>();
        Self::new(peer, &addrs, feed)
    }
}

/// Whom a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By a ticket, which names the feed too.
    Ticket(Ticket),
    /// By peer id: its addresses must be known, or found in the DHT.
    Peer(PeerId),
    /// By an address that ends with `/p2p/<peer>`.
    Address {
        /// The whole address.
        addr: Multiaddr,
        /// The peer at its end.
        peer: PeerId,
    },
    /// By an IPNS name, whose owner says where the head is: `/ipns/NAME`, `/ipns/NAME/FEED`, or the name alone in base36. As a
    /// peer it is the one whose key it is.
    Name {
        /// The name.
        name: IpnsName,
        /// The feed behind it.
        feed: Option<FeedName>,
    },
}

impl Target {
    /// Who it is.
    pub fn peer(&self) -> PeerId {
        match self {
            Self::Ticket(ticket) => ticket.peer(),
            Self::Peer(peer) | Self::Address { peer, .. } => *peer,
            Self::Name { name, .. } => name.peer_id(),
        }
    }

    /// Where it can be dialled, as far as the target itself says; with or without `/p2p/<peer>` at the end.
    pub fn addrs(&self) -> &[Multiaddr] {
        match self {
            Self::Ticket(ticket) => ticket.addrs(),
            Self::Peer(_) | Self::Name { .. } => &[],
            Self::Address { addr, .. } => std::slice::from_ref(addr),
        }
    }

    /// The feed that it names, if it does.
    pub fn feed(&self) -> Option<&FeedName> {
        match self {
            Self::Ticket(ticket) => Some(ticket.feed()),
            Self::Name { feed, .. } => feed.as_ref(),
            Self::Peer(_) | Self::Address { .. } => None,
        }
    }

    /// The feed that is meant: `asked`, else the one that the target names, else the default one.
    pub fn feed_or(&self, asked: Option<FeedName>) -> FeedName {
        asked.or_else(|| self.feed().cloned()).unwrap_or_default()
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.starts_with(PREFIX) {
            return text.parse().map(Self::Ticket);
        }
        if let Some(name) = text.strip_prefix("/ipns/").or_else(|| text.strip_prefix("ipns://")) {
            return parse_name(name);
        }
        if text.starts_with('/') {
            let addr: Multiaddr = text.parse().map_err(|error: libp2p::multiaddr::Error| TargetError::Multiaddr {
                text: cut(text),
                reason: error.to_string(),
            })?;
            return match addr.iter().last() {
                Some(Protocol::P2p(peer)) => Ok(Self::Address { addr, peer }),
                _ => Err(TargetError::NoPeer(Box::new(addr))),
            };
        }
        let peer = text.parse().map(Self::Peer);
        peer.or_else(|_| parse_name(text)).map_err(|_| TargetError::Unknown(cut(text)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ticket(ticket) => ticket.fmt(f),
            Self::Peer(peer) => peer.fmt(f),
            Self::Address { addr, .. } => addr.fmt(f),
            Self::Name { name, feed: None } => write!(f, "/ipns/{name}"),
            Self::Name { name, feed: Some(feed) } => write!(f, "/ipns/{name}/{feed}"),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A name, and the feed behind it.
fn parse_name(text: &str) -> Result<Target, TargetError> {
    let refused = |reason: String| TargetError::Name { text: cut(text), reason };
    let (name, feed) = text.split_once('/').unwrap_or((text, ""));
    let name = name.parse().map_err(|error: dagmesh_records::RecordError| refused(error.to_string()))?;
    let feed =
        (!feed.is_empty()).then(|| FeedName::new(feed)).transpose().map_err(|error| refused(error.to_string()))?;
    Ok(Target::Name { name, feed })
}

/// `addr` without a `/p2p/<peer>` at its end; an error where another peer stands there.
fn without_peer(addr: &Multiaddr, peer: &PeerId) -> Result<Multiaddr, TargetError> {
    let mut addr = addr.clone();
    match addr.iter().last() {
        Some(Protocol::P2p(found)) if found == *peer => {
            addr.pop();
        }
        Some(Protocol::P2p(_)) => return Err(TargetError::OtherPeer { addr: addr.into(), peer: (*peer).into() }),
        _ => {}
    }
    Ok(addr)
}

/// Lowercase base32 of RFC 4648 without padding; one text for one content, so no letter can be changed unseen.
fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // The alphabet above is of a length that the library takes; its own encoding differs in case alone.
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
}

/// The text of a ticket: prefix, payload, checksum.
fn armour(prefix: &str, mut payload: Vec<u8>) -> String {
    payload.extend(checksum(prefix, &payload));
    format!("{prefix}{}", base32().encode(&payload))
}

/// The payload of a ticket's text.
fn disarm(prefix: &str, text: &str) -> Result<Vec<u8>, TargetError> {
    let max = limits::MAX_TICKET_CHARS;
    if text.len() > max {
        return Err(TargetError::TooLong { len: text.len(), unit: "characters", max });
    }
    let body = text.strip_prefix(prefix).ok_or_else(|| TargetError::Unknown(cut(text)))?;
    let mut bytes = base32().decode(body.as_bytes()).map_err(|error| {
        match body.get(error.position..).and_then(|rest| rest.chars().next()) {
            Some(letter) if error.kind == data_encoding::DecodeKind::Symbol => {
                TargetError::Letter(format!("{letter:?}"))
            }
            _ => TargetError::Checksum,
        }
    })?;
    let (payload, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TargetError::Checksum)?;
    if checksum(prefix, payload) != *sum {
        return Err(TargetError::Checksum);
    }
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    Ok(bytes)
}

fn checksum(prefix: &str, payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = HashCode::Sha2_256.digest(&[prefix.as_bytes(), payload].concat());
    digest.and_then(|digest| digest.digest().first_chunk().copied()).unwrap_or_default()
}

/// Intact, but not what we read.
fn content(error: impl ToString) -> TargetError {
    TargetError::Content(error.to_string())
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(seed: u8) -> PeerId {
        let mut secret = [seed; 32];
        libp2p::identity::Keypair::ed25519_from_bytes(&mut secret).expect("32 bytes").public().to_peer_id()
    }

    fn tickets() -> impl Strategy<Value = Ticket> {
        let addr = (any::<[u8; 4]>(), 1u16..).prop_map(|(ip, port)| {
            let ip = std::net::Ipv4Addr::from(ip);
            format!("/ip4/{ip}/udp/{port}/quic-v1").parse::<Multiaddr>().expect("an address")
        });
        (any::<u8>(), prop::collection::vec(addr, 0..6), "[a-z0-9äß -]{1,20}").prop_map(|(seed, addrs, feed)| {
            Ticket::new(peer(seed), &addrs, FeedName::new(&feed).expect("a name")).expect("a ticket")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_ticket_reads_back_as_it_was(ticket in tickets()) {
            prop_assert_eq!(ticket.to_string().parse::<Target>(), Ok(Target::Ticket(ticket)));
        }

        #[test]
        fn every_change_of_one_character_is_found(ticket in tickets(), place in any::<prop::sample::Index>()) {
            let text = ticket.to_string();
            let place = place.index(text.len());
            for letter in ('0'..='9').chain('a'..='z').chain(['A', 'Z', '/', ' ', '=']) {
                let mut changed = text.clone().into_bytes();
                if changed[place] == letter as u8 {
                    continue;
                }
                changed[place] = letter as u8;
                let changed = String::from_utf8(changed).expect("ASCII");
                prop_assert!(changed.parse::<Ticket>().is_err(), "{changed}");
            }
            prop_assert!(text[..text.len() - 1].parse::<Ticket>().is_err(), "cut short");
        }

        #[test]
        fn no_text_brings_the_parser_down(text in ".{0,200}") {
            let _ = text.parse::<Target>();
            let _ = format!("dagmesh1{text}").parse::<Target>();
        }
    }

    #[test]
    fn a_typo_is_called_a_typo() {
        let ticket = Ticket::new(peer(1), &[], FeedName::default()).expect("a ticket").to_string();
        let swapped =
            format!("{}{}", &ticket[..ticket.len() - 5], if ticket.ends_with('a') { "bbbbb" } else { "aaaaa" });
        let error = swapped.parse::<Target>().expect_err("a typo");
        assert!(error.to_string().starts_with("the ticket has a typo: its checksum does not match"), "{error}");
    }

    #[test]
    fn addresses_are_taken_at_the_cap_and_refused_beyond_it() {
        let addrs = |n: usize| vec!["/ip4/192.0.2.1/tcp/4101".parse::<Multiaddr>().expect("an address"); n];
        let max = limits::MAX_ANNOUNCEMENT_ADDRS;
        assert!(Ticket::new(peer(1), &addrs(max), FeedName::default()).is_ok());
        let error = Ticket::new(peer(1), &addrs(max + 1), FeedName::default()).expect_err("too many");
        assert_eq!(error, TargetError::TooLong { len: max + 1, unit: "addresses", max });
        let name = "a".repeat(250);
        let wide = vec![format!("/dns4/{name}/tcp/4101").parse::<Multiaddr>().expect("an address"); max];
        let error = Ticket::new(peer(1), &wide, FeedName::default()).expect_err("too long a text");
        assert!(matches!(error, TargetError::TooLong { unit: "characters", .. }), "{error}");
        let long = format!("{PREFIX}{}", "a".repeat(limits::MAX_TICKET_CHARS));
        assert!(matches!(long.parse::<Ticket>(), Err(TargetError::TooLong { .. })));
    }

    #[test]
    fn an_address_of_another_peer_is_refused_and_ones_own_suffix_left_out() {
        let with = |of: PeerId| format!("/ip4/192.0.2.1/tcp/4101/p2p/{of}").parse::<Multiaddr>().expect("an address");
        let ticket = Ticket::new(peer(1), &[with(peer(1))], FeedName::default()).expect("a ticket");
        assert_eq!(ticket.addrs()[0].to_string(), "/ip4/192.0.2.1/tcp/4101");
        let error = Ticket::new(peer(1), &[with(peer(2))], FeedName::default()).expect_err("another peer");
        assert!(matches!(error, TargetError::OtherPeer { .. }));
    }

    #[test]
    fn each_way_to_name_a_publisher_is_told_apart() {
        let id = peer(1);
        assert_eq!(id.to_string().parse(), Ok(Target::Peer(id)));
        let addr = format!("/ip4/192.0.2.1/tcp/4101/p2p/{id}");
        let target: Target = addr.parse().expect("an address");
        assert_eq!((target.peer(), target.addrs().len(), target.to_string()), (id, 1, addr));
        let no_peer = "/ip4/192.0.2.1/tcp/4101".parse::<Target>().expect_err("nobody named");
        assert!(no_peer.to_string().contains("append /p2p/"), "{no_peer}");
        let bad = "/ip4/192.0.2/tcp/4101".parse::<Target>().expect_err("no address");
        assert!(bad.to_string().contains("is no multiaddr"), "{bad}");
        let name = IpnsName::try_from(id).expect("a name");
        for text in [format!("/ipns/{name}"), format!("/ipns/{id}"), format!("ipns://{name}"), name.to_string()] {
            assert_eq!(text.parse(), Ok(Target::Name { name, feed: None }), "{text}");
        }
        let with_feed: Target = format!("/ipns/{name}/a feed").parse().expect("a name");
        assert_eq!((with_feed.peer(), with_feed.feed().map(FeedName::as_str)), (id, Some("a feed")));
        assert_eq!(with_feed.to_string().parse(), Ok(with_feed));
        for garbage in ["/ipns/", "/ipns/garbage", "/ipns/bafkqaaa", &format!("/ipns/{name}/a\nfeed")] {
            let error = garbage.parse::<Target>().expect_err("garbage");
            assert!(error.to_string().contains("is no IPNS name"), "{error}");
        }
        let nothing = "hello".parse::<Target>().expect_err("nothing");
        assert!(nothing.to_string().contains("names no publisher"), "{nothing}");
    }
}
