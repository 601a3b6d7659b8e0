//! How a group is named on the command line: by its name, or by a ticket of one of its members.

use std::{fmt, str::FromStr};

use dagmesh_core::{
    bounded::{BoundedBytes, BoundedVec},
    cbor, limits,
};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::{TargetError, armour, content, disarm, without_peer};

/// What every ticket of a group starts with; the digit is its version.
const PREFIX: &str = "dagmeshgroup1";

/// One string that leads to a group: its name, its owner where it is closed, a member and the member's addresses.
///
/// As text: `dagmeshgroup1`, then as a [`Ticket`](super::Ticket): base32 of DAG-CBOR `{name, owner, peer, addrs}` and a
/// checksum, within the same caps. It is a hint where to look, not a secret and not a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupTicket {
    name: String,
    owner: Option<PeerId>,
    peer: PeerId,
    addrs: Vec<Multiaddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    name: String,
    owner: Option<BoundedBytes<{ limits::MAX_CID_BYTES }>>,
    peer: BoundedBytes<{ limits::MAX_CID_BYTES }>,
    addrs: BoundedVec<BoundedBytes<{ limits::MAX_ADDR_BYTES }>, { limits::MAX_ANNOUNCEMENT_ADDRS }>,
}

impl GroupTicket {
    /// Makes a ticket. A `/p2p/<peer>` at the end of an address is left out: the peer stands in the ticket.
    ///
    /// # Errors
    /// The name is none of a group; more than [`limits::MAX_ANNOUNCEMENT_ADDRS`] addresses; one of another peer; the
    /// text over [`limits::MAX_TICKET_CHARS`].
    pub fn new(name: &str, owner: Option<PeerId>, peer: PeerId, addrs: &[Multiaddr]) -> Result<Self, TargetError> {
        check_name(name)?;
        let (len, max) = (addrs.len(), limits::MAX_ANNOUNCEMENT_ADDRS);
        if len > max {
            return Err(TargetError::TooLong { len, unit: "addresses", max });
        }
        let addrs = addrs.iter().map(|addr| without_peer(addr, &peer)).collect::<Result<_, _>>()?;
        let ticket = Self { name: name.to_owned(), owner, peer, addrs };
        match (ticket.to_string().len(), limits::MAX_TICKET_CHARS) {
            (len, max) if len > max => Err(TargetError::TooLong { len, unit: "characters", max }),
            _ => Ok(ticket),
        }
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose list says who may write; none where the group is open.
    pub fn owner(&self) -> Option<PeerId> {
        self.owner
    }

    /// A member.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where it can be dialled, without `/p2p/<peer>` at the end.
    pub fn addrs(&self) -> &[Multiaddr] {
        &self.addrs
    }

    fn payload(&self) -> Result<Vec<u8>, TargetError> {
        let id = |peer: &PeerId| BoundedBytes::new(peer.to_bytes()).map_err(content);
        let addrs = self.addrs.iter().map(|addr| BoundedBytes::new(addr.to_vec()).map_err(content));
        let payload = Payload {
            name: self.name.clone(),
            owner: self.owner.as_ref().map(id).transpose()?,
            peer: id(&self.peer)?,
            addrs: BoundedVec::new(addrs.collect::<Result<Vec<_>, _>>()?).map_err(content)?,
        };
        cbor::to_vec(&payload).map_err(content)
    }
}

impl fmt::Display for GroupTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&armour(PREFIX, self.payload().map_err(|_| fmt::Error)?))
    }
}

impl FromStr for GroupTicket {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let Payload { name, owner, peer, addrs } = cbor::from_slice(&disarm(PREFIX, text)?).map_err(content)?;
        let id = |bytes: &[u8]| PeerId::from_bytes(bytes).map_err(|error| content(format!("its peer id: {error}")));
        // An address of a kind that we do not know is no reason to refuse those that we do.
        let addrs = addrs.iter().filter_map(|addr| Multiaddr::try_from(addr.to_vec()).ok()).collect::<Vec<_>>();
        Self::new(&name, owner.as_deref().map(id).transpose()?, id(&peer)?, &addrs)
    }
}

/// Which group a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupTarget {
    /// The open group of this name.
    Name(String),
    /// By a ticket.
    Ticket(GroupTicket),
}

impl GroupTarget {
    /// The group's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Ticket(ticket) => ticket.name(),
        }
    }
}

impl FromStr for GroupTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        // A name may begin or end with a space; a ticket that was copied with one around it is meant without.
        let ticket = text.trim();
        if ticket.starts_with(PREFIX) {
            return ticket.parse().map(Self::Ticket);
        }
        check_name(text).map(|()| Self::Name(text.to_owned()))
    }
}

impl fmt::Display for GroupTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ticket(ticket) => ticket.fmt(f),
        }
    }
}

impl Serialize for GroupTarget {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GroupTarget {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn check_name(name: &str) -> Result<(), TargetError> {
    dagmesh_chronosync::GroupId::open(name).map(|_| ()).map_err(|_| TargetError::GroupName(super::cut(name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(seed: u8) -> PeerId {
        let mut secret = [seed; 32];
        libp2p::identity::Keypair::ed25519_from_bytes(&mut secret).expect("32 bytes").public().to_peer_id()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_ticket_of_a_group_reads_back_as_it_was(
            name in "[a-zäß 0-9-]{1,40}", owner in any::<Option<u8>>(), member in any::<u8>(), port in 1u16..
        ) {
            let addr = format!("/ip4/192.0.2.1/udp/{port}/quic-v1").parse::<Multiaddr>().expect("an address");
            let ticket = GroupTicket::new(&name, owner.map(peer), peer(member), &[addr]).expect("a ticket");
            prop_assert_eq!(ticket.to_string().parse::<GroupTarget>(), Ok(GroupTarget::Ticket(ticket)));
        }

        #[test]
        fn no_text_brings_the_parser_down(text in ".{0,200}") {
            let _ = text.parse::<GroupTarget>();
            let _ = format!("{PREFIX}{text}").parse::<GroupTarget>();
        }
    }

    #[test]
    fn a_typo_is_called_a_typo_and_a_name_is_a_name() {
        let text = GroupTicket::new("chess", None, peer(1), &[]).expect("a ticket").to_string();
        let cut = text[..text.len() - 2].parse::<GroupTarget>().expect_err("cut");
        assert!(cut.to_string().starts_with("the ticket has a typo"), "{cut}");
        for name in ["chess", " white and black ", "♔ vs ♚", "../..", "-"] {
            assert_eq!(name.parse(), Ok(GroupTarget::Name(name.to_owned())));
        }
        assert!(matches!(format!(" {text}\n").parse(), Ok(GroupTarget::Ticket(_))));
        let none = "".parse::<GroupTarget>().expect_err("no name");
        assert!(none.to_string().contains("1 to 128 bytes"), "{none}");
    }
}
